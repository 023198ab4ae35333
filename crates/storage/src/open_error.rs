//! Why a store does not open, and what to do about it.

use flintmq_consensus::NodeId;
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
    /// The directory has content but no marker: a lost or foreign disk
    /// (docs/internals/storage.md#parts-of-a-directory).
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
