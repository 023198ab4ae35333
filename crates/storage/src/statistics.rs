//! The counters behind the statistics of the store.

use flintmq_log_store::{DurationHistogram, ENTRIES_PLACES, StoreStats};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

/// The counters behind [`StoreStats`]. Each is right by itself; together they may be torn.
#[derive(Default)]
pub(crate) struct Counters {
    /// Families whose writes RocksDB slows down or has stopped, now.
    pub(crate) stalled_families: AtomicU64,
    pub(crate) log_write: DurationCounter,
    pub(crate) log_write_syncs: AtomicU64,
    pub(crate) log_write_batches: AtomicU64,
    pub(crate) log_write_entries: AtomicU64,
    pub(crate) entries_per_write: [AtomicU64; ENTRIES_PLACES],
    pub(crate) log_write_bytes: AtomicU64,
    pub(crate) flush: DurationCounter,
    pub(crate) refused_full: AtomicU64,
    pub(crate) refused_disk_full: AtomicU64,
    pub(crate) write_slowdowns: AtomicU64,
    pub(crate) write_stops: AtomicU64,
    pub(crate) background_errors: AtomicU64,
    pub(crate) memtable_flushes: AtomicU64,
    pub(crate) compactions: AtomicU64,
    pub(crate) space_reclaims: AtomicU64,
    /// Memtables of the log family that were closed: what is older is on its way to table files.
    pub(crate) log_memtables_closed: AtomicU64,
    /// The last sequence number of the log family that is in a table file.
    pub(crate) log_flushed_sequence: AtomicU64,
    /// Estimated bytes of entries that were deleted after their memtable was closed, since the last
    /// flush that was asked for.
    pub(crate) dead_flushed_bytes: AtomicU64,
    /// How many entries those are.
    pub(crate) dead_flushed_entries: AtomicU64,
    /// Entries that have died altogether.
    pub(crate) died_entries: AtomicU64,
    /// A snapshot was closed that had kept dead entries: nothing else would make them go.
    pub(crate) snapshot_kept_dead: AtomicBool,
}

#[derive(Default)]
pub(crate) struct DurationCounter {
    buckets: [AtomicU64; DurationHistogram::BOUNDS.len() + 1],
    sum_nanos: AtomicU64,
    max_nanos: AtomicU64,
}

impl DurationCounter {
    pub(crate) fn record(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        let bucket = DurationHistogram::BOUNDS.iter().take_while(|bound| seconds > **bound).count();
        self.buckets[bucket].fetch_add(1, Relaxed);
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.sum_nanos.fetch_add(nanos, Relaxed);
        self.max_nanos.fetch_max(nanos, Relaxed);
    }

    fn snapshot(&self) -> DurationHistogram {
        DurationHistogram {
            buckets: std::array::from_fn(|place| self.buckets[place].load(Relaxed)),
            sum_seconds: self.sum_nanos.load(Relaxed) as f64 / 1e9,
            max_seconds: self.max_nanos.load(Relaxed) as f64 / 1e9,
        }
    }
}

impl Counters {
    /// Counts the entries of one write.
    pub(crate) fn wrote_entries(&self, entries: u64) {
        self.log_write_entries.fetch_add(entries, Relaxed);
        if let Some(below) = entries.checked_sub(1) {
            let place = below.checked_ilog2().map_or(0, |log| log as usize + 1);
            self.entries_per_write[place.min(ENTRIES_PLACES - 1)].fetch_add(1, Relaxed);
        }
    }

    /// The counters as they are; present sizes are left at 0.
    pub(crate) fn snapshot(&self) -> StoreStats {
        StoreStats {
            log_write: self.log_write.snapshot(),
            log_write_syncs: self.log_write_syncs.load(Relaxed),
            log_write_batches: self.log_write_batches.load(Relaxed),
            log_write_entries: self.log_write_entries.load(Relaxed),
            entries_per_write: self.entries_per_write.each_ref().map(|place| place.load(Relaxed)),
            log_write_bytes: self.log_write_bytes.load(Relaxed),
            flush: self.flush.snapshot(),
            refused_full: self.refused_full.load(Relaxed),
            refused_disk_full: self.refused_disk_full.load(Relaxed),
            write_slowdowns: self.write_slowdowns.load(Relaxed),
            write_stops: self.write_stops.load(Relaxed),
            background_errors: self.background_errors.load(Relaxed),
            memtable_flushes: self.memtable_flushes.load(Relaxed),
            compactions: self.compactions.load(Relaxed),
            space_reclaims: self.space_reclaims.load(Relaxed),
            ..StoreStats::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_are_counted_by_how_many_entries_they_hold() {
        let counters = Counters::default();
        for entries in [0, 1, 2, 3, 4, 5, 4096, 4097, u64::MAX >> 8] {
            counters.wrote_entries(entries);
        }
        let mut expected = [0; ENTRIES_PLACES];
        (expected[0], expected[1], expected[2], expected[3]) = (1, 1, 2, 1);
        (expected[12], expected[13]) = (1, 2);
        assert_eq!(counters.snapshot().entries_per_write, expected);
    }

    #[test]
    fn durations_fall_into_their_buckets() {
        let counter = DurationCounter::default();
        counter.record(Duration::from_micros(50));
        counter.record(Duration::from_micros(51));
        counter.record(Duration::from_secs(9));
        let found = counter.snapshot();
        assert_eq!((found.buckets[0], found.buckets[1], found.buckets[14]), (1, 1, 1));
        assert_eq!(found.count(), 3);
        assert_eq!(found.max_seconds, 9.0);
    }
}
