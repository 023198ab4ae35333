//! What can go wrong, per operation, and what to do about it.

use flintmq_consensus::{GroupId, Index};
use std::fmt;

/// Why writing ended. Final: the writer acknowledges nothing after it, for one group
/// ([`StorageError::BrokenLog`]) or for the whole node (the others). A failed write or fsync is
/// never tried again, because the page cache may have dropped the data
/// (docs/internals/storage.md#rules-of-order).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StorageError {
    /// A write to the log failed.
    #[error("writing the log failed: {detail}; check the disk, then restart the node")]
    Write {
        /// What RocksDB said.
        detail: String,
    },
    /// An fsync of the log failed.
    #[error("syncing the log failed: {detail}; check the disk, then restart the node")]
    Sync {
        /// What RocksDB said.
        detail: String,
    },
    /// The witness could not be written.
    #[error(
        "writing the witness failed: {detail}; check the file system of the witness directory, then restart the node"
    )]
    Witness {
        /// What the system said.
        detail: String,
    },
    /// A batch does not fit the group's log: a bug of the caller, stopped before it reached the
    /// disk.
    #[error("a batch does not fit the log of its group: {detail} group={group}")]
    BrokenLog {
        /// The group; other groups go on.
        group: GroupId,
        /// What does not fit.
        detail: String,
    },
}

/// Why a record was not read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The entry is not in the log: dead and deleted, truncated, or never written.
    #[error("the log has no such entry group={group} index={index}")]
    Missing {
        /// The group.
        group: GroupId,
        /// The first entry that is missing.
        index: Index,
    },
    /// The entry's record is damaged. The group's replica must be rebuilt from its peers.
    #[error(
        "an entry of the log is damaged: {detail}; rebuild this replica of the group from its peers group={group} index={index}"
    )]
    CorruptEntry {
        /// The group.
        group: GroupId,
        /// The entry.
        index: Index,
        /// What is wrong with it.
        detail: String,
    },
    /// A record of the group's applied state is damaged. The replica must be rebuilt from its
    /// peers.
    #[error(
        "a record of the group's state is damaged: {detail}; rebuild this replica of the group from its peers group={group}"
    )]
    CorruptState {
        /// The group.
        group: GroupId,
        /// What is wrong with it.
        detail: String,
    },
    /// There is nothing of the group that a snapshot could hold: it has no checkpoint, or is gone.
    #[error("the group has no checkpoint yet; write one, then try again group={group}")]
    NothingApplied {
        /// The group.
        group: GroupId,
    },
    /// The snapshot was closed, or has lived for as long as one may.
    #[error("the snapshot is closed; open another one group={group} snapshot={number}")]
    SnapshotGone {
        /// The group.
        group: GroupId,
        /// Its number.
        number: u64,
    },
    /// The place to read from is none of this snapshot, or a record is larger than one may be.
    #[error("the snapshot cannot be read here: {detail}; begin with an empty cursor group={group}")]
    BadCursor {
        /// The group.
        group: GroupId,
        /// What does not fit.
        detail: String,
    },
    /// Too many reads wait, or too many snapshots are open.
    #[error("too much is being read; try again later group={group}")]
    Busy {
        /// The group.
        group: GroupId,
    },
    /// The store was closed.
    #[error("the store was closed; open it again group={group}")]
    Stopped {
        /// The group.
        group: GroupId,
    },
    /// The disk did not give the record.
    #[error("reading failed: {detail}; check the disk group={group}")]
    Failed {
        /// The group.
        group: GroupId,
        /// What RocksDB said.
        detail: String,
    },
}

/// A request that was not taken, with what was to be written given back.
#[derive(thiserror::Error)]
#[error("{reason}")]
pub struct Refused<T> {
    /// The request, unchanged.
    pub returned: T,
    /// Why, and so what to do next.
    pub reason: RefusedReason,
}

impl<T> fmt::Debug for Refused<T> {
    /// Without the request: it may hold megabytes of payload, which belong in no log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refused").field("reason", &self.reason).finish_non_exhaustive()
    }
}

/// Why a request was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RefusedReason {
    /// Too much waits for the writer. [`crate::Report::Room`] follows when there is room again.
    #[error("too much waits for the log writer; try again when room is reported")]
    Full,
    /// The batch would never fit.
    #[error("the batch is larger than the writer may hold bytes={bytes} limit={limit}")]
    TooLarge {
        /// Size of the batch.
        bytes: usize,
        /// Size of the inbox.
        limit: usize,
    },
    /// The disk is nearly full and the batch would grow it. The disk monitor tells when it is over.
    #[error(
        "the disk is nearly full; free space or raise the capacity free={free} reserve={reserve}"
    )]
    DiskFull {
        /// Free bytes.
        free: u64,
        /// Bytes kept in reserve for what frees space.
        reserve: u64,
    },
    /// The store was closed or has failed; the sinks were told.
    #[error("the store takes no more writes; it was closed or has failed")]
    Stopped,
}
