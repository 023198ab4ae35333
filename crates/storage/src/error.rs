//! What can go wrong, per operation, and what to do about it.

use flintmq_consensus::{GroupId, Index, NodeId};
use std::fmt;
use std::path::PathBuf;

/// Why a store does not open. Nothing was changed in the directory.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A file could not be read or written.
    #[error("{doing} failed: {source}; check the permissions and the disk path={}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Another process has the directory open.
    #[error(
        "the data directory is in use by another process; stop that one or choose another directory dir={}", dir.display()
    )]
    Locked {
        /// The data directory.
        dir: PathBuf,
    },
    /// The directory belongs to another cluster.
    #[error(
        "the data directory belongs to another cluster; choose the right directory or cluster name directory_cluster={found} configured_cluster={wanted}"
    )]
    ForeignCluster {
        /// What the directory says.
        found: String,
        /// What the options say.
        wanted: String,
    },
    /// The directory belongs to another node of the cluster.
    #[error(
        "the data directory belongs to another node; choose the right directory or node id directory_node={found} configured_node={wanted}"
    )]
    ForeignNode {
        /// What the directory says.
        found: NodeId,
        /// What the options say.
        wanted: NodeId,
    },
    /// A newer version of the program wrote the directory.
    #[error(
        "the data directory was written by a newer version; start that version or a later one format={found} supported={supported}"
    )]
    NewerFormat {
        /// Format of the directory.
        found: u32,
        /// Newest format that this program can read.
        supported: u32,
    },
    /// The directory has content but no marker: a lost or foreign disk (consensus design, 2.4).
    #[error(
        "the data directory has content but no marker of ours, so the node may have lost its votes; restore the directory, or replace the node on purpose dir={}", dir.display()
    )]
    MarkerMissing {
        /// The data directory.
        dir: PathBuf,
    },
    /// The marker is there and the database is not.
    #[error(
        "the data directory has a marker but no database, so the node has lost its votes and messages; restore the directory as a whole, or replace the node by one with another id and an empty directory dir={}", dir.display()
    )]
    DatabaseMissing {
        /// The data directory.
        dir: PathBuf,
    },
    /// The database is not the one that the marker was written for.
    #[error(
        "marker and database of the data directory do not belong together: {detail}; restore both as they were at the same time, or replace the node by one with another id and an empty directory"
    )]
    Mismatch {
        /// What does not fit.
        detail: String,
    },
    /// The database lacks what was fsynced, and with it votes: an older copy was restored, or the
    /// disk did not keep its word.
    #[error(
        "the database lacks writes that were on the disk, so the node may have forgotten its votes: was the directory restored from a backup, or does the disk lose what it flushed? replace the node by one with another id and an empty directory synced={synced} there={there}"
    )]
    Behind {
        /// RocksDB's sequence number up to which everything was on the disk.
        synced: u64,
        /// That of the database.
        there: u64,
    },
    /// The marker or a record about the node or a group cannot be read.
    #[error("a record of the data directory is damaged: {detail}; restore or replace the node")]
    Damaged {
        /// Which, and how.
        detail: String,
    },
    /// RocksDB refused.
    #[error(
        "the database does not open: {detail}; if files are missing or damaged, replace the node"
    )]
    Database {
        /// What RocksDB said.
        detail: String,
    },
}

/// Why writing ended. Final: the writer acknowledges nothing after it, for one group
/// ([`StorageError::BrokenLog`]) or for the whole node (the others). A failed write or fsync is
/// never tried again, because the page cache may have dropped the data (consensus design, 2.1).
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
