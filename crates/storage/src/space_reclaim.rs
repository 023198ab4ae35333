//! Looks after the disk: how much of it is free, and whether dead payloads should give theirs back.
//!
//! RocksDB compacts for the shape of its tree, and its tree is tiny, because payloads live in blob
//! files: left alone it may keep dead payloads for long. So what is dead is counted here. When
//! enough entries have died that may be in table files, their deletions are flushed, which makes
//! RocksDB drop the blob files that hold nothing else. When the remaining blob files are mostly
//! garbage, what is alive in the oldest is moved. Each byte moved pays for at least one byte freed.

use crate::database::Database;
use crate::disk_space::{DiskMonitor, FreeSpace};
use crate::shutdown_signal::ShutdownSignal;
use crate::statistics::Counters;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

/// Dead payload bytes that may stay in files before anything is done about them.
const DEAD_BYTES: u64 = 64 << 20;
/// How long a dead entry may stay in files that are larger than [`DEAD_BYTES`] altogether.
const DEAD_AGE: Duration = Duration::from_secs(10);
/// Payload bytes that one round looks at, so that a round ends in seconds.
const ROUND_BYTES: u64 = 1 << 30;

/// Rounds to wait for RocksDB's own compaction.
const PATIENCE_ROUNDS: u32 = 8;

/// The thread's work.
pub(crate) struct SpaceReclaim {
    pub(crate) database: Arc<Database>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) stop: Arc<ShutdownSignal>,
    pub(crate) interval: Duration,
}

impl SpaceReclaim {
    /// Works until it is told to stop.
    pub(crate) fn run(self) {
        let (mut flushed, mut waiting) = (None, None);
        while !self.stop.wait(self.interval) {
            self.flush_deletions(&mut flushed, &mut waiting);
            self.drop_what_snapshots_kept();
            let (total, garbage) = self.database.blob_bytes();
            if let Some(cutoff) = collection(total, garbage) {
                self.counters.space_reclaims.fetch_add(1, Relaxed);
                self.database.collect_blob_garbage(cutoff);
            }
        }
    }

    /// Has deletions flushed when enough has died, and compacted by hand if RocksDB does not: it
    /// normally starts with a table file that is mostly deletions by itself, but it promises
    /// nothing.
    fn flush_deletions(&self, flushed: &mut Option<Flushed>, waiting: &mut Option<Instant>) {
        if self.is_flush_due(waiting) {
            let compactions = self.counters.compactions.load(Relaxed);
            let bytes = self.counters.dead_flushed_bytes.swap(0, Relaxed);
            let entries = self.counters.dead_flushed_entries.swap(0, Relaxed);
            *waiting = None;
            if let Err(error) = self.database.flush_log() {
                tracing::warn!(%error, "dead payloads keep their space for now");
                self.counters.dead_flushed_bytes.fetch_add(bytes, Relaxed);
                self.counters.dead_flushed_entries.fetch_add(entries, Relaxed);
                return;
            }
            *flushed = Some(Flushed { compactions, rounds: 0 });
        }
        let compactions = self.counters.compactions.load(Relaxed);
        let Some(waiting) = flushed else { return };
        waiting.rounds += 1;
        if waiting.compactions != compactions {
            *flushed = None;
        } else if waiting.rounds > PATIENCE_ROUNDS {
            self.counters.space_reclaims.fetch_add(1, Relaxed);
            self.database.collect_blob_garbage(0.0);
            *flushed = None;
        }
    }

    /// What died while a snapshot was open went through flushes and compactions unharmed, and
    /// RocksDB sees no reason to look at it again.
    fn drop_what_snapshots_kept(&self) {
        if !self.counters.snapshot_kept_dead.swap(false, Relaxed) {
            return;
        }
        if let Err(error) = self.database.flush_log() {
            tracing::warn!(%error, "what a snapshot has kept keeps its space for now");
            self.counters.snapshot_kept_dead.store(true, Relaxed);
            return;
        }
        self.counters.space_reclaims.fetch_add(1, Relaxed);
        self.database.collect_blob_garbage(0.0);
    }

    /// Much has died by the estimate, or something did a while ago: the estimate is one size for
    /// all entries of a group, and a few large ones among many small must not stay for ever.
    fn is_flush_due(&self, waiting: &mut Option<Instant>) -> bool {
        if self.counters.dead_flushed_bytes.load(Relaxed) >= DEAD_BYTES {
            return true;
        }
        if self.counters.dead_flushed_entries.load(Relaxed) == 0 {
            return false;
        }
        let since = *waiting.get_or_insert_with(Instant::now);
        since.elapsed() >= DEAD_AGE && self.database.blob_bytes().0 >= DEAD_BYTES
    }
}

/// Deletions that were flushed and wait for a compaction.
struct Flushed {
    /// Compactions that had been done before.
    compactions: u64,
    rounds: u32,
}

/// Which part of the blob files to clean, if any: more than half must be garbage.
fn collection(total: u64, garbage: u64) -> Option<f64> {
    if garbage < DEAD_BYTES || garbage < total / 2 {
        return None;
    }
    Some((ROUND_BYTES as f64 / total as f64).min(1.0))
}

/// The thread that watches the free space. Its own, because a disk in trouble makes the others
/// wait.
pub(crate) struct DiskWatch {
    pub(crate) disk: Arc<DiskMonitor>,
    pub(crate) space: Arc<dyn FreeSpace>,
    pub(crate) dir: PathBuf,
    pub(crate) stop: Arc<ShutdownSignal>,
    pub(crate) interval: Duration,
}

impl DiskWatch {
    /// Takes one look.
    pub(crate) fn look(&self) {
        match self.space.free_bytes(&self.dir) {
            Ok(free) => self.disk.observe(free),
            Err(error) => tracing::warn!(%error, "the free space of the disk is not known"),
        }
    }

    /// Works until it is told to stop.
    pub(crate) fn run(self) {
        while !self.stop.wait(self.interval) {
            self.look();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cleans_only_what_is_mostly_garbage() {
        assert_eq!(collection(0, 0), None);
        assert_eq!(collection(DEAD_BYTES, DEAD_BYTES - 1), None, "too little to matter");
        assert_eq!(collection(10 << 30, 4 << 30), None, "would move more than it frees");
        assert_eq!(collection(DEAD_BYTES, DEAD_BYTES), Some(1.0));
        assert_eq!(collection(10 << 30, 6 << 30), Some(0.1), "in rounds");
    }
}
