//! The contract of a store, kept by RocksDB and by the in-memory double alike.

use crate::DiskState;
use crate::StoreStats;
use crate::parts::snapshot_pieces::SnapshotPiece;
use crate::{AppendBatch, CheckpointBatch, HardStates, NewGroup, Sink, StagedPiece};
use crate::{ReadError, Refused};
use bytes::Bytes;
use flintmq_consensus::{
    CreationId, Entry, Epoch, GroupId, HardState, Index, LogPosition, SnapshotId,
};

/// A group as the store has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupRecord {
    /// The group.
    pub id: GroupId,
    /// Which making of a group of this number it is.
    pub creation: CreationId,
    /// The last hard state that was synced.
    pub hard_state: HardState,
    /// Where its log begins and ends.
    pub bounds: LogBounds,
    /// Up to where the records of the `queue` family are applied; `None` before the first
    /// checkpoint.
    pub applied: Option<LogPosition>,
    /// The node's loss epoch, while the tail of the group's log may be lost: entries that this
    /// replica acknowledged may be missing.
    pub recovering: Option<Epoch>,
    /// Log and state were removed ([`LogStore::remove_group`]); only the hard state is there. Until
    /// [`LogStore::create`] brings it back, the group takes nothing but hard states.
    pub removed: bool,
    /// Its appends are fsynced before they are reported ([`NewGroup::synchronous`]).
    pub synchronous: bool,
}

/// A snapshot that was opened: the group's state as its last checkpoint has it, with the entries at
/// or below that position that are alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenSnapshot {
    /// Names it in the life of the node; the same number is never given to other content.
    pub number: u64,
    /// Up to where it stands for the log.
    pub position: LogPosition,
}

/// Told what was read, by a thread of the store: it must neither block nor close the store. Not
/// called at all if the store is closed before.
pub type OnRead<T> = Box<dyn FnOnce(Result<T, ReadError>) + Send>;

/// Where a group's log begins and ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogBounds {
    /// Lowest index that is in the log; `last.index + 1` when no entry is.
    pub first_index: Index,
    /// From this index on no entry is missing: what can be replicated without a snapshot.
    pub contiguous_from: Index,
    /// The end of the log, which is the applied position when the entries up to it are dead and
    /// gone.
    pub last: LogPosition,
}

/// A record of the `queue` family: suffix of its key within the group, and value.
pub type QueueRecord = (Vec<u8>, Vec<u8>);

/// Records of a group in the order of their keys. After an error the iterator is at its end.
pub type QueueRecords<'a> = Box<dyn Iterator<Item = Result<QueueRecord, ReadError>> + 'a>;

/// A replicated log's storage for all groups of a node. Requests of one group are done in the order
/// in which they were taken: while one of them is refused, the caller holds back those behind it,
/// resets and snapshots too, which are hardly ever refused themselves. What is reported survives
/// what the store's `Durability` says. After an unclean stop the store is in some earlier state of its
/// own history, over all groups and families at once.
pub trait LogStore: Send + Sync {
    /// Sends the reports of `group` to `sink` from now on, replacing an earlier sink.
    fn register(&self, group: GroupId, sink: Sink);

    /// Creates a group, synced. Reports [`crate::Report::Created`]. What is refused is not handed
    /// back: it is small, and the caller has it.
    ///
    /// An existing group of that number is an error of the caller and reported as such, unless it
    /// was removed ([`Self::remove_group`]): then it comes back, empty. If it is the same making of
    /// the group, the hard state must not be behind the one that was kept, or it would forget a
    /// vote. Numbers of groups end at 2^31 - 2.
    fn create(&self, group: GroupId, new: NewGroup) -> Result<(), Refused<()>>;

    /// Creates a group of the default making, see [`Self::create`].
    fn create_group(&self, group: GroupId, hard_state: HardState) -> Result<(), Refused<()>> {
        self.create(group, NewGroup { hard_state, ..NewGroup::default() })
    }

    /// Removes the log and the state of a group in one write, synced, and keeps its hard state and
    /// its creation for ever: should the group take this node back, it must know what it voted for.
    /// Ask for it only once the group's leader says that nobody needs the data any more. Reports
    /// [`crate::Report::Removed`]; a second time, too.
    fn remove_group(&self, group: GroupId) -> Result<(), Refused<()>>;

    /// Forgets a group with everything that it holds, its votes included, synced: for groups that
    /// are deleted in the whole cluster. Reports [`crate::Report::Dropped`].
    fn drop_group(&self, group: GroupId) -> Result<(), Refused<()>>;

    /// Appends to a group's log. Reports [`crate::Report::Appended`].
    fn try_append(&self, group: GroupId, batch: AppendBatch) -> Result<(), Refused<AppendBatch>>;

    /// Drops the group's log and state in one write, synced, hard state excepted. Reports
    /// [`crate::Report::Appended`] with this number, in order with the appends.
    fn reset(&self, group: GroupId, write: u64) -> Result<(), Refused<()>>;

    /// Replaces the group's hard state, synced. Reports [`crate::Report::HardStateSynced`] with the
    /// caller's number.
    fn save_hard_state(
        &self,
        group: GroupId,
        save: u64,
        hard_state: HardState,
    ) -> Result<(), Refused<()>>;

    /// Replaces hard states of several groups with one fsync, then calls [`HardStates::then`]. What
    /// does not fit its group ends that group, which is reported there; the others are saved.
    fn save_hard_states(&self, batch: HardStates) -> Result<(), Refused<HardStates>>;

    /// Writes a checkpoint. Reports [`crate::Report::Checkpointed`].
    fn try_checkpoint(
        &self,
        group: GroupId,
        batch: CheckpointBatch,
    ) -> Result<(), Refused<CheckpointBatch>>;

    /// Records that the group has everything again that it may have lost (consensus design, section
    /// 8). Reports [`crate::Report::Rejoined`].
    fn mark_rejoined(&self, group: GroupId) -> Result<(), Refused<()>>;

    /// Keeps a piece of a snapshot aside. The pieces of one snapshot come in their order, each
    /// once. Reports [`crate::SnapshotReport::Staged`] or [`crate::SnapshotReport::Refused`]. What
    /// was kept is gone after a restart.
    fn try_stage(&self, group: GroupId, piece: StagedPiece) -> Result<(), Refused<StagedPiece>>;

    /// Makes the snapshot whose pieces were all staged the group's state, in one write together
    /// with removing the log up to its position, or all of the log; synced. `keep_log_after`: the
    /// log has the entry of the snapshot's position, and what is behind it stays. Reports
    /// [`crate::SnapshotReport::Installed`] or [`crate::SnapshotReport::Refused`], which changes
    /// nothing.
    fn install(
        &self,
        group: GroupId,
        id: SnapshotId,
        keep_log_after: bool,
    ) -> Result<(), Refused<()>>;

    /// Opens a snapshot of the group's last checkpoint. It stays what it is while the group goes
    /// on, keeps what dies meanwhile on the disk, and is therefore closed by itself when it is not
    /// read from for long, and at a certain age (`StoreOptions::snapshot_idle`,
    /// `StoreOptions::snapshot_life`); a process that ends takes it along.
    fn open_snapshot(&self, group: GroupId, then: OnRead<OpenSnapshot>);

    /// Reads the piece that begins at `cursor`, the empty one being the beginning, of at most
    /// `max_bytes` (1 KiB at least, and as much more as keys are longer than 64 bytes). Any piece
    /// may be read again. [`ReadError::SnapshotGone`] if it is not open any more.
    fn read_snapshot(
        &self,
        group: GroupId,
        number: u64,
        cursor: Bytes,
        max_bytes: usize,
        then: OnRead<SnapshotPiece>,
    );

    /// Closes a snapshot; nothing happens if it is closed already.
    fn close_snapshot(&self, number: u64);

    /// Reads consecutive entries behind `after` up to `upto`, beside the caller's thread: at least
    /// one, then as many as `max_bytes` of payload allow. None if the first is not in the log. What
    /// is read was in the log at one moment, whatever is appended and truncated meanwhile.
    fn read_log(
        &self,
        group: GroupId,
        after: Index,
        upto: Index,
        max_bytes: usize,
        then: OnRead<Vec<Entry>>,
    );

    /// One group, or `None` if there is none of this number.
    fn group(&self, group: GroupId) -> Result<Option<GroupRecord>, ReadError>;

    /// All groups, ascending. Groups whose creation is not reported yet may be missing.
    fn groups(&self) -> Result<Vec<GroupRecord>, ReadError>;

    /// Where the group's log begins and ends, as far as it is written.
    fn bounds(&self, group: GroupId) -> Result<LogBounds, ReadError>;

    /// One entry, or `None` if it is not in the log.
    fn entry(&self, group: GroupId, index: Index) -> Result<Option<Entry>, ReadError>;

    /// Consecutive entries from `from` to at most `to`, both included: until the payloads exceed
    /// `max_bytes` (the first is returned whatever its size), or up to the first one that is
    /// missing. [`ReadError::Missing`] if already `from` is.
    fn entries(
        &self,
        group: GroupId,
        from: Index,
        to: Index,
        max_bytes: usize,
    ) -> Result<Vec<Entry>, ReadError>;

    /// The indexes of all entries up to `upto` that are in the log, ascending, without reading them.
    /// Meant for a start: it may be many.
    fn indexes(&self, group: GroupId, upto: Index) -> Result<Vec<Index>, ReadError>;

    /// Up to where the group's records are applied; `None` before the first checkpoint.
    fn applied(&self, group: GroupId) -> Result<Option<LogPosition>, ReadError>;

    /// One record of the `queue` family.
    fn queue_record(&self, group: GroupId, suffix: &[u8]) -> Result<Option<Vec<u8>>, ReadError>;

    /// The records of the group whose suffix starts with `prefix`, at or behind `from`, in the
    /// order of their keys.
    fn queue_records(&self, group: GroupId, prefix: &[u8], from: &[u8]) -> QueueRecords<'_>;

    /// Whether growing writes are taken.
    fn disk_state(&self) -> DiskState;

    /// What the store has done so far.
    fn stats(&self) -> StoreStats;
}
