//! What a store is opened with.

use crate::disk_space::FreeSpace;
use flintmq_consensus::NodeId;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Whose data a directory holds. A directory never changes its owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeIdentity {
    /// Name of the cluster.
    pub cluster: String,
    /// Number of the node in that cluster.
    pub node: NodeId,
}

/// When a write counts as done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// Reported once it is in the page cache; fsynced in the background every
    /// [`StoreOptions::flush_interval`]. Survives a crash of the process, not of the machine; the
    /// consensus protocol covers the latter (docs/internals/consensus.md#what-is-promised).
    #[default]
    Background,
    /// One fsync per batch before anything in it is reported. Survives a power loss.
    Sync,
}

/// How to open a store. [`StoreOptions::new`] has defaults that fit a production node.
#[derive(Clone)]
pub struct StoreOptions {
    /// Data directory; created if absent. Nothing else may live in it.
    pub dir: PathBuf,
    /// Owner of the directory; checked against what the directory says of itself.
    pub identity: NodeIdentity,
    /// When a write counts as done. Default: background.
    pub durability: Durability,
    /// How often the write-ahead log is fsynced in the background. Default: 200 ms.
    pub flush_interval: Duration,
    /// Free bytes of the file system below which growing writes are refused. Default: 1 GiB.
    pub disk_reserve: u64,
    /// How often free space is looked at. Default: 250 ms.
    pub disk_check_interval: Duration,
    /// Where the witness lives: a directory in RAM (tmpfs or ramfs) that outlives the process but
    /// not the machine. Default: `/dev/shm`. `None`, a directory on a disk, and one that cannot be
    /// written: boot id and mount id decide instead
    /// (docs/internals/storage.md#what-an-unclean-stop-leaves).
    pub witness_dir: Option<PathBuf>,
    /// False where the page cache does not survive a process crash (FUSE, 9p, NFS): then every stop
    /// that was not clean counts as a lost tail. Default: true.
    pub trust_page_cache: bool,
    /// The time, for the number of the run. Default: the machine's clock.
    pub now: Option<SystemTime>,
    /// Take a directory with content but without a marker as this node's, under a new uuid; every
    /// group in it comes up recovering. The operator's word, never a default.
    pub replace: bool,
    /// Bytes that may wait for the log writer before appends are refused. Default: 32 MiB.
    pub inbox_bytes: usize,
    /// Batches that may wait for the log writer before appends are refused. Default: 65,536.
    pub inbox_batches: usize,
    /// About how many bytes go into one write. Default: 4 MiB.
    pub write_bytes: usize,
    /// How long an open snapshot may go unread before it is closed by itself. An open snapshot
    /// keeps what dies meanwhile on the disk. Default: 2 minutes.
    pub snapshot_idle: Duration,
    /// How long a snapshot may live, read from or not. Default: 1 hour.
    pub snapshot_life: Duration,
    /// Snapshots that may be open at a time. Default: 16.
    pub snapshots: usize,
    /// Sizes and switches of RocksDB.
    pub tuning: Tuning,
    /// Where free space is learnt from. Default: the file system of `dir`.
    pub free_space: Option<Arc<dyn FreeSpace>>,
}

/// Sizes and switches of RocksDB. The defaults were measured (docs/internals/storage.md).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tuning {
    /// Bytes of the one block cache that all families share, a strict bound. Default: 32 MiB.
    pub block_cache_bytes: usize,
    /// Size of a memtable of the log family. An entry whose death is checkpointed before its
    /// memtable is flushed never reaches a table file. Default: 32 MiB.
    pub memtable_bytes: usize,
    /// Memtables of the log family, the active one included. Default: 6.
    pub memtables: u32,
    /// How many full memtables are merged by one flush: more lets more entries meet their deletion
    /// in memory, at the price of memory. Default: 3.
    pub memtables_per_flush: u32,
    /// Entries of at least this many bytes are kept in blob files, which compaction does not
    /// rewrite. `None`: no blob files. Default: 4 KiB.
    pub min_blob_bytes: Option<u64>,
    /// Size at which a blob file is closed; the unit in which dead payloads give their space back.
    /// Default: 32 MiB.
    pub blob_file_bytes: u64,
    /// Bytes of write-ahead log beyond which the oldest memtables are flushed. Default: 256 MiB.
    pub wal_bytes: u64,
    /// Log files that are kept to be written over, beside those in use. Default: 4.
    pub spare_log_files: u32,
    /// Open table and blob files at most. Default: 512.
    pub open_files: u32,
}

impl StoreOptions {
    /// Options for the directory `dir` of `identity`, everything else at its default.
    pub fn new(dir: impl Into<PathBuf>, identity: NodeIdentity) -> Self {
        Self {
            dir: dir.into(),
            identity,
            durability: Durability::default(),
            flush_interval: Duration::from_millis(200),
            disk_reserve: 1 << 30,
            disk_check_interval: Duration::from_millis(250),
            witness_dir: Some(PathBuf::from("/dev/shm")),
            trust_page_cache: true,
            now: None,
            replace: false,
            inbox_bytes: 32 << 20,
            inbox_batches: 65_536,
            write_bytes: 4 << 20,
            snapshot_idle: Duration::from_secs(120),
            snapshot_life: Duration::from_secs(3600),
            snapshots: 16,
            tuning: Tuning::default(),
            free_space: None,
        }
    }
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            block_cache_bytes: 32 << 20,
            memtable_bytes: 32 << 20,
            memtables: 6,
            memtables_per_flush: 3,
            min_blob_bytes: Some(4 << 10),
            blob_file_bytes: 32 << 20,
            wal_bytes: 256 << 20,
            spare_log_files: 4,
            open_files: 512,
        }
    }
}
