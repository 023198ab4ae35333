//! Turns what the store and the groups say of themselves into metrics, once a second.

use std::sync::Arc;

use flintmq_storage::{DiskState, DurationHistogram, LogStore, StoreStats};
use metrics::Histogram;
use tokio_util::sync::CancellationToken;

use crate::controller::Controller;
use crate::group_telemetry::GroupSample;
use crate::host::{CoreClock, Fitness, GroupAdmin, PartitionHandle, REASONS};
use crate::metrics::{
    CLOCK_OFFSET, DISK_FREE, DISK_RESERVE_REACHED, FLUSH, LOG_BATCH_ENTRIES, LOG_WRITE,
    LOG_WRITTEN_BYTES, Metrics, STORAGE_ERRORS, STORAGE_SLOWDOWNS, STORAGE_STOPS,
    STORAGE_TABLE_BYTES, STORAGE_WAL_BYTES, UNFIT, UPKEEP_INTERVAL,
};

/// Everything that is sampled.
pub(crate) struct Telemetry {
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) store: Arc<dyn LogStore>,
    pub(crate) controller: Controller,
    pub(crate) partitions: Vec<PartitionHandle>,
    /// The way to each group's replica, the controller's first.
    pub(crate) replicas: Vec<GroupAdmin>,
    pub(crate) clock: CoreClock,
    pub(crate) fitness: Fitness,
    /// Whether there are other nodes.
    pub(crate) in_cluster: bool,
}

impl Telemetry {
    /// Samples until stopped.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut tick = tokio::time::interval(UPKEEP_INTERVAL);
        let mut last = StoreStats::default();
        let mut groups: Vec<GroupSample> = Vec::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = tick.tick() => {}
            }
            self.metrics.upkeep();
            let stats = self.store.stats();
            record_fitness(&self.fitness, self.in_cluster);
            record_store(&last, &stats, self.store.disk_state());
            last = stats;
            let statuses = std::iter::once((0, self.controller.status()))
                .chain(self.partitions.iter().map(|p| (p.group().0, p.status())));
            for (place, (group, status)) in statuses.enumerate() {
                if groups.len() <= place {
                    groups.push(GroupSample::new(group, self.in_cluster));
                }
                groups[place].record(&status, self.clock.now());
                // How far its followers are only a leader can tell, and only it has to be asked.
                if let Some(replica) = self.replicas.get(place)
                    && groups[place].wants_lags(&status)
                    && let Some(view) = replica.inspect().await
                {
                    groups[place].record_lags(&view);
                }
            }
        }
    }
}

fn record_fitness(fitness: &Fitness, in_cluster: bool) {
    let unfit = fitness.unfit();
    for (reason, name) in REASONS {
        UNFIT.gauge(&[name]).set(f64::from(u8::from(unfit.intersects(reason))));
    }
    if in_cluster {
        CLOCK_OFFSET.gauge(&[]).set(fitness.reading().offset_ms as f64 / 1000.0);
    }
}

fn record_store(last: &StoreStats, now: &StoreStats, disk: DiskState) {
    record_delta(&LOG_WRITE.histogram(&[]), &last.log_write, &now.log_write);
    record_delta(&FLUSH.histogram(&[]), &last.flush, &now.flush);
    record_entries(&LOG_BATCH_ENTRIES.histogram(&[]), last, now);
    LOG_WRITTEN_BYTES.counter(&[]).absolute(now.log_write_bytes);
    STORAGE_ERRORS.counter(&[]).absolute(now.background_errors);
    STORAGE_SLOWDOWNS.counter(&[]).absolute(now.write_slowdowns);
    STORAGE_STOPS.counter(&[]).absolute(now.write_stops);
    STORAGE_WAL_BYTES.gauge(&[]).set(now.wal_bytes as f64);
    STORAGE_TABLE_BYTES.gauge(&[]).set(now.table_bytes as f64);
    DISK_FREE.gauge(&[]).set(now.disk_free_bytes as f64);
    DISK_RESERVE_REACHED.gauge(&[]).set(f64::from(u8::from(disk != DiskState::Ok)));
}

/// The store counts in buckets of its own; each observation is passed on as its bucket's upper
/// bound.
fn record_delta(histogram: &Histogram, last: &DurationHistogram, now: &DurationHistogram) {
    let above_all =
        now.max_seconds.max(DurationHistogram::BOUNDS[DurationHistogram::BOUNDS.len() - 1]);
    let bounds = DurationHistogram::BOUNDS.iter().copied().chain([above_all]);
    for ((bound, before), after) in bounds.zip(last.buckets).zip(now.buckets) {
        let count = usize::try_from(after.saturating_sub(before)).unwrap_or(usize::MAX);
        if count > 0 {
            histogram.record_many(bound, count);
        }
    }
}

/// As [`record_delta`], for the sizes of writes, which are counted by powers of two.
fn record_entries(histogram: &Histogram, last: &StoreStats, now: &StoreStats) {
    let places = last.entries_per_write.iter().zip(now.entries_per_write);
    for (place, (before, after)) in places.enumerate() {
        let count = usize::try_from(after.saturating_sub(*before)).unwrap_or(usize::MAX);
        if count > 0 {
            histogram.record_many((1_u64 << place) as f64, count);
        }
    }
}
