//! The contract of a store, kept by RocksDB and by the in-memory double alike.

use crate::batch::{AppendBatch, CheckpointBatch, Sink};
use crate::disk_space::DiskState;
use crate::error::{ReadError, Refused};
use crate::statistics::StoreStats;
use flintmq_consensus::{Entry, Epoch, GroupId, HardState, Index, LogPosition};

/// A group as the store has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupRecord {
    /// The group.
    pub id: GroupId,
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
}

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

/// A replicated log's storage for all groups of a node. Requests of one group are done in their
/// order; what is reported survives what [`crate::Durability`] says. After an unclean stop the
/// store is in some earlier state of its own history, over all groups and families at once.
pub trait LogStore: Send + Sync {
    /// Sends the reports of `group` to `sink` from now on, replacing an earlier sink.
    fn register(&self, group: GroupId, sink: Sink);

    /// Creates a group with its first hard state, synced. An existing group of that id is an error
    /// of the caller and reported as such. Reports [`crate::Report::Created`]. What is refused is
    /// not handed back: it is small, and the caller has it.
    fn create_group(&self, group: GroupId, hard_state: HardState) -> Result<(), Refused<()>>;

    /// Forgets a group with everything that it holds, synced. Reports [`crate::Report::Dropped`].
    fn drop_group(&self, group: GroupId) -> Result<(), Refused<()>>;

    /// Appends to a group's log. Reports [`crate::Report::Appended`].
    fn try_append(&self, group: GroupId, batch: AppendBatch) -> Result<(), Refused<AppendBatch>>;

    /// Replaces the group's hard state, synced. Reports [`crate::Report::HardStateSynced`] with the
    /// caller's number.
    fn save_hard_state(
        &self,
        group: GroupId,
        save: u64,
        hard_state: HardState,
    ) -> Result<(), Refused<()>>;

    /// Writes a checkpoint. Reports [`crate::Report::Checkpointed`].
    fn try_checkpoint(
        &self,
        group: GroupId,
        batch: CheckpointBatch,
    ) -> Result<(), Refused<CheckpointBatch>>;

    /// Records that the group has everything again that it may have lost (consensus design, section
    /// 8). Reports [`crate::Report::Rejoined`].
    fn mark_rejoined(&self, group: GroupId) -> Result<(), Refused<()>>;

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
