//! Recording what the log writer, the checkpoints and the groups do.

use super::definitions as d;
use super::sessions::shown;
use metrics::{Counter, Gauge, Histogram};
use std::time::Duration;

/// The metrics of the data directory, looked up once.
#[derive(Clone)]
pub struct StorageMetrics {
    log_write: Histogram,
    log_batch_entries: Histogram,
    log_written_bytes: Counter,
    flush: Histogram,
    checkpoint: Histogram,
    errors: Counter,
    disk_free: Gauge,
    disk_size: Gauge,
    reserve_reached: Gauge,
}

impl Default for StorageMetrics {
    fn default() -> Self {
        Self::new()
    }
}

impl StorageMetrics {
    /// Looks the metrics up in the recorder in force.
    pub fn new() -> Self {
        Self {
            log_write: d::LOG_WRITE.histogram(&[]),
            log_batch_entries: d::LOG_BATCH_ENTRIES.histogram(&[]),
            log_written_bytes: shown(d::LOG_WRITTEN_BYTES.counter(&[])),
            flush: d::FLUSH.histogram(&[]),
            checkpoint: d::CHECKPOINT.histogram(&[]),
            errors: shown(d::STORAGE_ERRORS.counter(&[])),
            disk_free: d::DISK_FREE.gauge(&[]),
            disk_size: d::DISK_SIZE.gauge(&[]),
            reserve_reached: d::DISK_RESERVE_REACHED.gauge(&[]),
        }
    }

    /// The log writer made one write.
    pub fn log_written(&self, took: Duration, entries: u64, bytes: u64) {
        self.log_write.record(took);
        self.log_batch_entries.record(entries as f64);
        self.log_written_bytes.increment(bytes);
    }

    /// The log was flushed to the disk.
    pub fn flushed(&self, took: Duration) {
        self.flush.record(took);
    }

    /// A checkpoint was written.
    pub fn checkpoint_written(&self, took: Duration) {
        self.checkpoint.record(took);
    }

    /// Reading or writing the data directory failed.
    pub fn failed(&self) {
        self.errors.increment(1);
    }

    /// The space on the data directory's disk, and whether new messages are refused for want of it.
    pub fn set_disk(&self, free_bytes: u64, size_bytes: u64, reserve_reached: bool) {
        self.disk_free.set(free_bytes as f64);
        self.disk_size.set(size_bytes as f64);
        self.reserve_reached.set(f64::from(u8::from(reserve_reached)));
    }
}

/// Where a replica is in its group's log: the values of the group's gauges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupPosition {
    /// Current term.
    pub term: u64,
    /// Whether this node leads.
    pub is_leader: bool,
    /// Highest committed index.
    pub commit_index: u64,
    /// Highest index applied.
    pub applied_index: u64,
    /// Highest index on the disk.
    pub fsynced_index: u64,
    /// Age of the oldest committed entry that is not on the disk.
    pub at_risk: Duration,
}

/// The metrics of one group, looked up once.
#[derive(Clone)]
pub struct GroupMetrics {
    term: Gauge,
    is_leader: Gauge,
    commit_index: Gauge,
    applied_index: Gauge,
    fsynced_index: Gauge,
    at_risk_entries: Gauge,
    at_risk_seconds: Gauge,
    leaderless: Counter,
    elections_won: Counter,
    elections_lost: Counter,
}

impl GroupMetrics {
    /// Looks the metrics of a group up by its number.
    pub fn new(group: u32) -> Self {
        let group = group.to_string();
        let label: &[&str] = &[&group];
        Self {
            term: d::GROUP_TERM.gauge(label),
            is_leader: d::GROUP_IS_LEADER.gauge(label),
            commit_index: d::GROUP_COMMIT_INDEX.gauge(label),
            applied_index: d::GROUP_APPLIED_INDEX.gauge(label),
            fsynced_index: d::GROUP_FSYNCED_INDEX.gauge(label),
            at_risk_entries: d::GROUP_AT_RISK_ENTRIES.gauge(label),
            at_risk_seconds: d::GROUP_AT_RISK_SECONDS.gauge(label),
            leaderless: shown(d::LEADERLESS.counter(label)),
            elections_won: shown(d::ELECTIONS.counter(&["won"])),
            elections_lost: shown(d::ELECTIONS.counter(&["lost"])),
        }
    }

    /// Replaces all gauges; entries at risk are those committed and not on the disk.
    pub fn set_position(&self, position: &GroupPosition) {
        self.term.set(position.term as f64);
        self.is_leader.set(f64::from(u8::from(position.is_leader)));
        self.commit_index.set(position.commit_index as f64);
        self.applied_index.set(position.applied_index as f64);
        self.fsynced_index.set(position.fsynced_index as f64);
        let at_risk = position.commit_index.saturating_sub(position.fsynced_index);
        self.at_risk_entries.set(at_risk as f64);
        self.at_risk_seconds.set(position.at_risk.as_secs_f64());
    }

    /// An election that this node stood in is over.
    pub fn election(&self, won: bool) {
        if won { self.elections_won.increment(1) } else { self.elections_lost.increment(1) }
    }

    /// Another whole second passed without a leader that serves.
    pub fn leaderless_second(&self) {
        self.leaderless.increment(1);
    }
}
