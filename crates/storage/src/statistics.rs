//! What the store has done so far, for the metrics of the node.

/// A snapshot of counters since the store was opened, and of present sizes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StoreStats {
    /// Writes to RocksDB.
    pub log_writes: u64,
    /// Requests (batches) that were in them.
    pub log_write_batches: u64,
    /// Entries that were in them.
    pub log_write_entries: u64,
    /// Bytes that were in them.
    pub log_write_bytes: u64,
    /// Seconds spent in them, the fsync of synced ones included.
    pub log_write_seconds: f64,
    /// The longest of them, in seconds.
    pub log_write_max_seconds: f64,
    /// Fsyncs of the write-ahead log, in the background and with writes.
    pub flushes: u64,
    /// Seconds spent in the background ones.
    pub flush_seconds: f64,
    /// The longest of them, in seconds.
    pub flush_max_seconds: f64,
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
    /// Free bytes of the file system at the last look.
    pub disk_free_bytes: u64,
    /// Bytes of the write-ahead log files.
    pub wal_bytes: u64,
    /// Bytes of table and blob files.
    pub table_bytes: u64,
    /// Bytes of memtables.
    pub memtable_bytes: u64,
    /// Bytes of the block cache in use.
    pub block_cache_bytes: u64,
}
