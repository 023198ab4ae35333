//! What a store has done so far, for the metrics of the node.

/// A snapshot of counters since the store was opened, and of present sizes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StoreStats {
    /// Writes to RocksDB: how many took how long, the fsync of synced ones included.
    pub log_write: DurationHistogram,
    /// Of these writes, those that were fsynced before anything of them was reported.
    pub log_write_syncs: u64,
    /// Requests (batches) that were in them.
    pub log_write_batches: u64,
    /// Entries that were in them.
    pub log_write_entries: u64,
    /// Writes by how many entries they held: at place `k` those with at most `2^k` and more than
    /// half of that; the last place counts all that are larger. Writes without entries are nowhere.
    pub entries_per_write: [u64; ENTRIES_PLACES],
    /// Bytes that were in them.
    pub log_write_bytes: u64,
    /// Background fsyncs of the write-ahead log: how many took how long.
    pub flush: DurationHistogram,
    /// Requests refused because too much waited.
    pub refused_full: u64,
    /// Requests refused because the disk was nearly full.
    pub refused_disk_full: u64,
    /// Bytes that wait for the writer now.
    pub inbox_bytes: u64,
    /// Times that RocksDB slowed writes down.
    pub write_slowdowns: u64,
    /// Times that RocksDB stopped writes.
    pub write_stops: u64,
    /// Errors of RocksDB's background work.
    pub background_errors: u64,
    /// Memtables written to table files.
    pub memtable_flushes: u64,
    /// Compactions finished.
    pub compactions: u64,
    /// Times that payload files were rewritten to give the space of dead payloads back.
    pub space_reclaims: u64,
    /// Free bytes of the file system at the last look.
    pub disk_free_bytes: u64,
    /// Bytes of the write-ahead log files.
    pub wal_bytes: u64,
    /// Bytes of table and blob files.
    pub table_bytes: u64,
    /// Bytes of deleted payloads in blob files.
    pub blob_garbage_bytes: u64,
    /// Bytes of memtables.
    pub memtable_bytes: u64,
    /// Bytes of the block cache in use.
    pub block_cache_bytes: u64,
}

/// Places of [`StoreStats::entries_per_write`]: up to 4096 entries, and more.
pub const ENTRIES_PLACES: usize = 14;

/// How long something took, in buckets with fixed bounds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct DurationHistogram {
    /// How many took at most the bound of the same place in [`DurationHistogram::BOUNDS`], and more
    /// than the bound before it; the last one counts those above all bounds. Not cumulative.
    pub buckets: [u64; Self::BOUNDS.len() + 1],
    /// Seconds altogether.
    pub sum_seconds: f64,
    /// The longest, in seconds.
    pub max_seconds: f64,
}

impl DurationHistogram {
    /// Upper bounds of the buckets, in seconds.
    pub const BOUNDS: [f64; 14] =
        [50e-6, 1e-4, 25e-5, 5e-4, 1e-3, 25e-4, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0];

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}
