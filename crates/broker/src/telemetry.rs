//! Turns what the store and the groups say of themselves into metrics, once a second.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use flintmq_consensus::NodeId;
use flintmq_storage::{DiskState, DurationHistogram, LogStore, StoreStats};
use metrics::{Gauge, Histogram};
use tokio_util::sync::CancellationToken;

use crate::controller::Controller;
use crate::metrics::{
    DISK_FREE, DISK_RESERVE_REACHED, FLUSH, GROUP_APPLIED_INDEX, GROUP_AT_RISK_BYTES,
    GROUP_AT_RISK_ENTRIES, GROUP_AT_RISK_SECONDS, GROUP_COMMIT_INDEX, GROUP_FOLLOWER_LAG,
    GROUP_FSYNCED_INDEX, GROUP_IS_LEADER, GROUP_RECOVERING, GROUP_TERM, LEADERLESS,
    LOG_BATCH_ENTRIES, LOG_WRITE, LOG_WRITTEN_BYTES, Metrics, STORAGE_ERRORS, STORAGE_SLOWDOWNS,
    STORAGE_STOPS, STORAGE_TABLE_BYTES, STORAGE_WAL_BYTES, UPKEEP_INTERVAL,
};
use crate::partition::PartitionHandle;
use crate::replica::{GroupOrders, GroupView, ReplicaStatus};

/// Everything that is sampled.
pub(crate) struct Telemetry {
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) store: Arc<dyn LogStore>,
    pub(crate) controller: Controller,
    pub(crate) partitions: Vec<PartitionHandle>,
    /// The way to each group's replica, the controller's first.
    pub(crate) orders: Vec<GroupOrders>,
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
            record_store(&last, &stats, self.store.disk_state());
            last = stats;
            let statuses = std::iter::once((0, self.controller.status()))
                .chain(self.partitions.iter().map(|p| (p.group().0, p.status())));
            for (place, (group, status)) in statuses.enumerate() {
                if groups.len() <= place {
                    groups.push(GroupSample::default());
                }
                groups[place].record(group, &status, self.in_cluster);
                // How far its followers are only a leader can tell, and only it has to be asked.
                if let Some(orders) = self.orders.get(place)
                    && (status.serving || groups[place].has_lags())
                    && let Some(view) = orders.look().await
                {
                    groups[place].record_lags(group, &view);
                }
            }
        }
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

#[derive(Default)]
struct GroupSample {
    /// Since when something committed has not been on the disk, and up to which index it was.
    at_risk: Option<(Instant, u64)>,
    /// The lag of each follower while this node leads.
    lags: BTreeMap<NodeId, Gauge>,
}

impl GroupSample {
    fn record(&mut self, group: u32, status: &ReplicaStatus, in_cluster: bool) {
        let group = group.to_string();
        let label = [group.as_str()];
        GROUP_TERM.gauge(&label).set(status.term as f64);
        GROUP_IS_LEADER.gauge(&label).set(f64::from(u8::from(status.serving)));
        GROUP_COMMIT_INDEX.gauge(&label).set(status.commit_index as f64);
        GROUP_APPLIED_INDEX.gauge(&label).set(status.applied_index as f64);
        GROUP_FSYNCED_INDEX.gauge(&label).set(status.fsynced_index as f64);
        if in_cluster {
            GROUP_RECOVERING.gauge(&label).set(f64::from(u8::from(status.recovering)));
        }
        let leaderless = status.leaderless.total(Instant::now());
        LEADERLESS.counter(&label).absolute(leaderless.as_secs());
        let entries = status.commit_index.saturating_sub(status.fsynced_index);
        GROUP_AT_RISK_ENTRIES.gauge(&label).set(entries as f64);
        GROUP_AT_RISK_BYTES.gauge(&label).set(status.at_risk_bytes as f64);
        let age = self.age(status);
        GROUP_AT_RISK_SECONDS.gauge(&label).set(age.as_secs_f64());
    }

    fn has_lags(&self) -> bool {
        !self.lags.is_empty()
    }

    /// What followers lack; a node that leads no more says nothing of them.
    fn record_lags(&mut self, group: u32, view: &GroupView) {
        let lag = |matched: u64| view.last.index.saturating_sub(matched) as f64;
        for peer in &view.peers {
            let gauge = self.lags.entry(peer.node).or_insert_with(|| {
                GROUP_FOLLOWER_LAG.gauge(&[&group.to_string(), &peer.node.to_string()])
            });
            gauge.set(lag(peer.matched));
        }
        self.lags.retain(|node, gauge| {
            let follows = view.peers.iter().any(|peer| peer.node == *node);
            if !follows {
                gauge.set(0.0);
            }
            follows
        });
    }

    /// How long the oldest of the entries at risk has been so, to the accuracy of the samples.
    fn age(&mut self, status: &ReplicaStatus) -> Duration {
        if status.fsynced_index >= status.commit_index {
            self.at_risk = None;
            return Duration::ZERO;
        }
        match self.at_risk {
            Some((since, upto)) if status.fsynced_index < upto => since.elapsed(),
            _ => {
                self.at_risk = Some((Instant::now(), status.commit_index));
                Duration::ZERO
            }
        }
    }
}
