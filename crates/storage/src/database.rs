//! RocksDB as the store uses it: the families, the options (measured; docs/internals/storage.md),
//! and the events that an operator must hear of.

use crate::directory_lock::DirectoryLock;
use crate::options::Tuning;
use crate::statistics::Counters;
use flintmq_consensus::GroupId;
use flintmq_log_store::parts::group_record::{Side, Slot};
use rocksdb::event_listener::{
    BackgroundErrorRecoveryInfo, CompactionJobInfo, DBBackgroundErrorReason, DBWriteStallCondition,
    EventListener, FlushJobInfo, MemTableInfo, MutableStatus, WriteStallInfo,
};
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, CompactOptions, DB,
    DBCompressionType, DBRecoveryMode, FlushOptions, LogLevel, Options,
};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, PoisonError, RwLock};

/// The column families (docs/internals/storage.md).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    HardState,
    Log,
    Queue,
    Group,
    Node,
}

impl Family {
    const ALL: [Self; 5] = [Self::HardState, Self::Log, Self::Queue, Self::Group, Self::Node];

    fn name(self) -> &'static str {
        match self {
            Self::HardState => "hard_state",
            Self::Log => "log",
            Self::Queue => "queue",
            Self::Group => "group",
            Self::Node => "node",
        }
    }
}

/// The open database. It holds the lock of the directory, so that the directory counts as in use as
/// long as anybody can still read from it.
pub(crate) struct Database {
    // Dropped in this order: the lock goes last.
    db: DB,
    cache: Cache,
    path: PathBuf,
    /// The groups whose second side is in use, as the group family has it.
    second_sides: RwLock<BTreeSet<GroupId>>,
    _lock: DirectoryLock,
}

impl Database {
    /// Opens `path`; `create`: there is none yet.
    pub(crate) fn open(
        path: &Path,
        tuning: &Tuning,
        create: bool,
        counters: &Arc<Counters>,
        lock: DirectoryLock,
    ) -> Result<Self, rocksdb::Error> {
        // The strict bound makes a reader fail rather than exceed it, so blocks that are merely
        // read once (backlog) do not go through the cache (`StoreReader`).
        let cache = Cache::new_lru_cache(tuning.block_cache_bytes);
        let families = Family::ALL.map(|family| {
            ColumnFamilyDescriptor::new(family.name(), family_options(family, tuning, &cache))
        });
        let options = database_options(tuning, create, counters);
        let db = DB::open_cf_descriptors(&options, path, families)?;
        let second_sides = RwLock::default();
        Ok(Self { db, cache, path: path.to_owned(), second_sides, _lock: lock })
    }

    pub(crate) fn db(&self) -> &DB {
        &self.db
    }

    pub(crate) fn family(&self, family: Family) -> &ColumnFamily {
        match self.db.cf_handle(family.name()) {
            Some(handle) => handle,
            // Opening fails unless all families are there, and none is ever dropped.
            None => unreachable!("family {} is open", family.name()),
        }
    }

    /// Where log and state of a group are now.
    pub(crate) fn slot(&self, group: GroupId) -> Slot {
        let second = self.second_sides.read().unwrap_or_else(PoisonError::into_inner);
        Slot::new(group, if second.contains(&group) { Side::Second } else { Side::First })
    }

    /// Tells readers where log and state of a group are.
    pub(crate) fn set_side(&self, group: GroupId, side: Side) {
        let mut second = self.second_sides.write().unwrap_or_else(PoisonError::into_inner);
        match side {
            Side::First => second.remove(&group),
            Side::Second => second.insert(group),
        };
    }

    /// Fsyncs the write-ahead log as it was found. What a process that was killed had written may
    /// still be in the page cache alone, and from here on counts as being there.
    pub(crate) fn sync_found(&self) -> std::io::Result<()> {
        for path in wal_files(&self.path)? {
            match std::fs::File::open(path) {
                Ok(file) => file.sync_all()?,
                // RocksDB deletes those that nothing needs any more.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        std::fs::File::open(&self.path)?.sync_all()
    }

    /// Writes the memtables of the log family to table files; waits for it, and as long as writers
    /// would have to.
    pub(crate) fn flush_log(&self) -> Result<(), rocksdb::Error> {
        let mut options = FlushOptions::default();
        options.set_wait(true);
        self.db.flush_cf_opt(self.family(Family::Log), &options)
    }

    /// Bytes of the log family's blob files: all, and those of payloads that are deleted.
    pub(crate) fn blob_bytes(&self) -> (u64, u64) {
        (
            self.log_property("rocksdb.live-blob-file-size"),
            self.log_property("rocksdb.live-blob-file-garbage-size"),
        )
    }

    /// Rewrites what is alive in the oldest blob files and deletes these. `cutoff`: which part of
    /// the files counts as oldest, 0 to 1. Takes as long as copying that part.
    pub(crate) fn collect_blob_garbage(&self, cutoff: f64) {
        /// `BlobGarbageCollectionPolicy::kForce`.
        const FORCE: i32 = 0;
        let mut options = CompactOptions::default();
        options.set_exclusive_manual_compaction(false);
        options.set_bottommost_level_compaction(rocksdb::BottommostLevelCompaction::Force);
        options.set_blob_garbage_collection_policy(FORCE);
        options.set_blob_garbage_collection_age_cutoff(cutoff);
        self.db.compact_range_cf_opt(
            self.family(Family::Log),
            None::<&[u8]>,
            None::<&[u8]>,
            &options,
        );
    }

    /// Bytes on disk per entry of the log family, as RocksDB estimates it.
    pub(crate) fn estimated_entry_bytes(&self) -> u64 {
        let keys = self.log_property("rocksdb.estimate-num-keys");
        let tables = self.log_property("rocksdb.live-sst-files-size");
        (tables + self.blob_bytes().0).checked_div(keys).unwrap_or(0)
    }

    /// Adds present sizes to a snapshot of the counters.
    pub(crate) fn add_sizes(&self, stats: &mut crate::StoreStats) {
        let everywhere = |name: &str| -> u64 {
            let of = |family| self.db.property_int_value_cf(self.family(family), name);
            Family::ALL.iter().filter_map(|family| of(*family).ok().flatten()).sum()
        };
        stats.table_bytes =
            everywhere("rocksdb.total-sst-files-size") + everywhere("rocksdb.total-blob-file-size");
        stats.blob_garbage_bytes = self.blob_bytes().1;
        stats.memtable_bytes = everywhere("rocksdb.size-all-mem-tables");
        stats.block_cache_bytes = self.cache.get_usage() as u64;
        stats.wal_bytes = wal_bytes(&self.path);
    }

    fn log_property(&self, name: &str) -> u64 {
        self.db.property_int_value_cf(self.family(Family::Log), name).ok().flatten().unwrap_or(0)
    }
}

/// RocksDB has no property for it: the sum of the files.
fn wal_bytes(path: &Path) -> u64 {
    let files = wal_files(path).unwrap_or_default();
    files.iter().filter_map(|file| file.metadata().ok()).map(|found| found.len()).sum()
}

fn wal_files(path: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for file in std::fs::read_dir(path)? {
        let file = file?.path();
        if file.extension().is_some_and(|ending| ending == "log") {
            found.push(file);
        }
    }
    Ok(found)
}

fn database_options(tuning: &Tuning, create: bool, counters: &Arc<Counters>) -> Options {
    let mut options = Options::default();
    options.create_if_missing(create);
    options.create_missing_column_families(create);
    // What "some earlier state of its own history" rests on
    // (docs/internals/consensus.md#what-is-written-where).
    options.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
    options.set_unordered_write(false);
    // A log file that is written over costs a quarter less CPU than a new one, whose pages and
    // blocks have to be found. What is left of its earlier life ends the file: every record carries
    // the number of the file that it belongs to (tests/unclean_stop.rs).
    options.set_recycle_log_file_num(tuning.spare_log_files as usize);
    options.set_manual_wal_flush(false);
    options.set_paranoid_checks(true);
    // Point-in-time recovery alone does not notice an older log file that ends early at the end of
    // a record, and would replay the next file over the hole. With this, each file names the end of
    // the one before it (tests/unclean_stop.rs has the case).
    options.set_track_and_verify_wals(true);
    options.set_max_total_wal_size(tuning.wal_bytes);
    options.set_avoid_flush_during_recovery(true);
    // One thread writes: the machinery for several costs CPU and gives nothing.
    options.set_allow_concurrent_memtable_write(false);
    options.set_enable_write_thread_adaptive_yield(false);
    options.set_enable_pipelined_write(false);
    options.set_max_background_jobs(2);
    // What RocksDB slows writes down to at first when flushes fall behind; its 16 MiB/s is for
    // disks.
    options.set_delayed_write_rate(128 << 20);
    options.set_max_open_files(i32::try_from(tuning.open_files).unwrap_or(i32::MAX));
    options.set_bytes_per_sync(1 << 20);
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);
    options.set_log_level(LogLevel::Warn);
    options.set_keep_log_file_num(2);
    options.set_max_log_file_size(8 << 20);
    options.add_event_listener(Events { counters: Arc::clone(counters) });
    options
}

fn family_options(family: Family, tuning: &Tuning, cache: &Cache) -> Options {
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(cache);
    blocks.set_cache_index_and_filter_blocks(true);
    let mut options = Options::default();
    // Payloads are often compressed by their producers, the rest is small.
    options.set_compression_type(DBCompressionType::None);
    if family == Family::Log {
        options.set_write_buffer_size(tuning.memtable_bytes);
        options.set_max_write_buffer_number(tuning.memtables.max(2) as i32);
        options.set_min_write_buffer_number_to_merge(tuning.memtables_per_flush.max(1) as i32);
        options.set_level_zero_file_num_compaction_trigger(4);
        // A table file that is mostly tombstones is worth compacting for what it frees.
        options.add_compact_on_deletion_collector_factory(1024, 512, 0.5);
        if let Some(bytes) = tuning.min_blob_bytes {
            options.set_enable_blob_files(true);
            options.set_min_blob_size(bytes);
            options.set_blob_file_size(tuning.blob_file_bytes);
            options.set_blob_compression_type(DBCompressionType::None);
            // Left to itself RocksDB moves the oldest payloads in every compaction, dead neighbours
            // or not: a backlog would be rewritten again and again. `space_reclaim` decides
            // instead.
            options.set_enable_blob_gc(false);
        }
    } else {
        blocks.set_bloom_filter(10.0, false);
        options.set_write_buffer_size(if family == Family::Queue { 8 << 20 } else { 1 << 20 });
        options.set_max_write_buffer_number(2);
    }
    options.set_block_based_table_factory(&blocks);
    options
}

fn is_normal(condition: DBWriteStallCondition) -> bool {
    matches!(condition, DBWriteStallCondition::KNormal)
}

/// Takes down what RocksDB reports of its background work.
struct Events {
    counters: Arc<Counters>,
}

impl EventListener for Events {
    fn on_flush_completed(&self, info: &FlushJobInfo) {
        self.counters.memtable_flushes.fetch_add(1, Relaxed);
        if info.cf_name().as_deref() == Some(Family::Log.name().as_bytes()) {
            self.counters.log_flushed_sequence.fetch_max(info.largest_seqno(), Relaxed);
        }
    }

    fn on_compaction_completed(&self, _: &CompactionJobInfo) {
        self.counters.compactions.fetch_add(1, Relaxed);
    }

    fn on_memtable_sealed(&self, info: &MemTableInfo) {
        if info.cf_name().as_deref() == Some(Family::Log.name().as_bytes()) {
            self.counters.log_memtables_closed.fetch_add(1, Relaxed);
        }
    }

    fn on_stall_conditions_changed(&self, info: &WriteStallInfo) {
        let family = info.cf_name().unwrap_or_default();
        let family = String::from_utf8_lossy(&family);
        match (is_normal(info.prev()), is_normal(info.cur())) {
            (true, false) => self.counters.stalled_families.fetch_add(1, Relaxed),
            (false, true) => self.counters.stalled_families.fetch_sub(1, Relaxed),
            _ => 0,
        };
        match info.cur() {
            DBWriteStallCondition::KStopped => {
                self.counters.write_stops.fetch_add(1, Relaxed);
                tracing::warn!(%family, "the database has stopped writes until its background work catches up");
            }
            DBWriteStallCondition::KDelayed => {
                self.counters.write_slowdowns.fetch_add(1, Relaxed);
                tracing::warn!(%family, "the database slows writes down until its background work catches up");
            }
            DBWriteStallCondition::KNormal => {
                tracing::info!(%family, "the database writes at full speed again");
            }
        }
    }

    fn on_background_error(&self, reason: DBBackgroundErrorReason, status: MutableStatus) {
        self.counters.background_errors.fetch_add(1, Relaxed);
        let detail = status.result().as_ref().err().map(ToString::to_string).unwrap_or_default();
        tracing::error!(
            ?reason,
            severity = ?status.severity(),
            detail,
            "background work of the database failed; check the disk"
        );
    }

    fn on_error_recovery_end(&self, _: &BackgroundErrorRecoveryInfo) {
        tracing::info!("the database has recovered from an error of its background work");
    }
}
