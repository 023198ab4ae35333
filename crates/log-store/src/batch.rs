//! What the log writer is asked to write, and what it reports.

use crate::StorageError;
use bytes::Bytes;
use flintmq_consensus::{CreationId, Entry, GroupId, HardState, Index, LogPosition, SnapshotId};
use std::fmt;

/// A group to be created.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewGroup {
    /// Which making of a group of this number it is.
    pub creation: CreationId,
    /// Its first hard state.
    pub hard_state: HardState,
    /// Whether each append of this group is fsynced before it is reported, whatever
    /// the store's `Durability` says for the others. Such a group never counts as recovering. Stays
    /// with the group.
    pub synchronous: bool,
}

/// Whether a write makes the store larger or helps to make it smaller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AppendKind {
    /// New messages: refused while the disk is nearly full.
    #[default]
    Growing,
    /// Confirms, purges, deletions, barriers: taken out of the reserve while the disk is nearly
    /// full.
    Relief,
}

/// One change of a group's log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AppendBatch {
    /// The caller's number for it, rising within the group; [`Report::Appended`] tells it.
    pub write: u64,
    /// Delete the entry of this index and all behind it first. Never at or below the applied index.
    pub truncate_from: Option<Index>,
    /// Entries to append: consecutive, the first right behind the (truncated) log's last. In an
    /// empty log without applied state the first has index 1.
    pub entries: Vec<Entry>,
    /// Whether it may be refused for want of disk space.
    pub kind: AppendKind,
}

/// The applied state of a group as it is to be found after a restart: the net change of the `queue`
/// family, the applied position and the entries that nobody needs any more, written atomically.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckpointBatch {
    /// The entry up to which the state is applied; at most the last one written. Never goes back.
    pub applied: LogPosition,
    /// Records to write: suffix of the key within the group, and value.
    pub puts: Vec<(Vec<u8>, Vec<u8>)>,
    /// Suffixes of records to delete. What is not there is no error. Applied before `puts`.
    pub deletes: Vec<Vec<u8>>,
    /// Entries at or below `applied` that hold nothing alive. Each index must be given at most once
    /// in the life of the log.
    pub dead_entries: Vec<Index>,
}

/// Hard states of several groups, to be made durable with one fsync.
pub struct HardStates {
    /// The states, with the making of the group that they are for.
    pub states: Vec<(GroupId, CreationId, HardState)>,
    /// Called when all of them are on the disk.
    pub then: OnSaved,
}

/// Told that hard states are on the disk, by the writer's thread: it must not block. Not called at
/// all if the store fails or is closed before.
pub type OnSaved = Box<dyn FnOnce() + Send>;

impl fmt::Debug for HardStates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HardStates").field("states", &self.states).finish_non_exhaustive()
    }
}

/// A piece of a snapshot that a peer sent, to be kept aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StagedPiece {
    /// Which snapshot.
    pub id: SnapshotId,
    /// Where the piece begins. Empty: the snapshot begins anew, and what was kept of any other is
    /// dropped.
    pub cursor: Bytes,
    /// As [`crate::LogStore::read_snapshot`] gave it at the peer.
    pub data: Bytes,
}

/// What became of a snapshot that is received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SnapshotReport {
    /// The piece is kept; as durable as an append until the snapshot is installed.
    Staged {
        /// Which snapshot.
        id: SnapshotId,
        /// Where the piece began.
        cursor: Bytes,
    },
    /// The snapshot is the group's state and log, and that is on the disk.
    Installed {
        /// Which snapshot.
        id: SnapshotId,
    },
    /// The snapshot cannot be used: it is damaged, incomplete, or does not fit what
    /// was asked for. The group is what it was, and goes on. What was staged is dropped: begin anew
    /// with another snapshot.
    Refused {
        /// Which snapshot.
        id: SnapshotId,
        /// What is wrong.
        detail: String,
    },
}

/// What became of the requests of a group; in the order of the requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// The log is written up to this entry: to the page cache, or to the disk with
    /// `Durability::Sync`. One report may stand for several batches.
    Appended {
        /// The number of the batch; those before it are written too.
        write: u64,
        /// The last entry written.
        upto: LogPosition,
    },
    /// A hard state is on the disk; one report for each that was saved.
    HardStateSynced {
        /// As given with it.
        save: u64,
    },
    /// A checkpoint is written; as durable as an append.
    Checkpointed {
        /// Its applied position.
        applied: LogPosition,
    },
    /// The log is fsynced up to this index (capped by later truncations).
    Synced {
        /// The index.
        upto: Index,
    },
    /// The group was created, and that is on the disk.
    Created,
    /// The group is gone, and that is on the disk. The sink is dropped after this report.
    Dropped,
    /// Log and state of the group are gone, its hard state is not, and that is on the disk.
    Removed,
    /// About a snapshot on its way here.
    Snapshot(SnapshotReport),
    /// The group no longer counts as recovering ([`crate::LogStore::mark_rejoined`]).
    Rejoined,
    /// The inbox has room again, after a request of this group was refused with
    /// [`crate::RefusedReason::Full`].
    Room,
    /// Final; see [`StorageError`].
    Failed(StorageError),
}

/// Where the reports of a group go. Called by the writer's thread: it must not block, and not call
/// anything of the store that waits.
pub type Sink = Box<dyn Fn(Report) + Send>;

impl AppendBatch {
    /// Bytes that the batch counts for in the inbox.
    pub fn size(&self) -> usize {
        BATCH_OVERHEAD
            + self.entries.iter().map(|entry| ENTRY_OVERHEAD + entry.payload.len()).sum::<usize>()
    }
}

impl StagedPiece {
    /// Bytes that the piece counts for in the inbox.
    pub fn size(&self) -> usize {
        BATCH_OVERHEAD + self.cursor.len() + self.data.len()
    }
}

impl CheckpointBatch {
    /// Bytes that the batch counts for in the inbox.
    pub fn size(&self) -> usize {
        let puts: usize = self.puts.iter().map(|(k, v)| RECORD_OVERHEAD + k.len() + v.len()).sum();
        let deletes: usize = self.deletes.iter().map(|k| RECORD_OVERHEAD + k.len()).sum();
        BATCH_OVERHEAD + puts + deletes + self.dead_entries.len() * ENTRY_OVERHEAD
    }
}

const BATCH_OVERHEAD: usize = 128;
const ENTRY_OVERHEAD: usize = 64;
const RECORD_OVERHEAD: usize = 32;
