//! Queues' counts and levels on their way to the metrics.

use std::sync::Arc;

use flintmq_consensus::GroupId;
use flintmq_partition::{QueueCounts, QueueLevels};
use flintmq_queue::QueueId;
use rustc_hash::FxHashMap;

use crate::metrics::{DropReason, Metrics, QueueSeries, RejectReason};

/// The series of all queues that the node has.
pub(crate) struct QueueSeriesTable {
    metrics: Arc<Metrics>,
    series: FxHashMap<(GroupId, QueueId), Arc<QueueSeries>>,
}

impl QueueSeriesTable {
    pub(crate) fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics, series: FxHashMap::default() }
    }

    pub(crate) fn open(&mut self, group: GroupId, queue: QueueId, uri: &str) {
        let (domain, name) = domain_and_name(uri);
        self.series.insert((group, queue), self.metrics.queues().open(domain, name));
    }

    pub(crate) fn close(&mut self, group: GroupId, queue: QueueId, uri: &str) {
        let (domain, name) = domain_and_name(uri);
        if self.series.remove(&(group, queue)).is_some() {
            self.metrics.queues().remove(domain, name);
        }
    }

    pub(crate) fn count(&self, group: GroupId, queue: QueueId, counts: &QueueCounts) {
        let Some(series) = self.series.get(&(group, queue)) else { return };
        let (published, delivered) = (counts.published, counts.delivered);
        series.published(published.0, published.1);
        series.delivered(delivered.0, delivered.1, counts.redelivered);
        series.confirmed(counts.confirmed);
        series.duplicates(counts.duplicates);
        for reason in REJECTED {
            series.rejected(reason.1, counts.rejected[reason.0 as usize]);
        }
        for reason in DROPPED {
            series.dropped(reason.1, counts.dropped[reason.0 as usize]);
        }
    }

    pub(crate) fn set_levels(&self, group: GroupId, queue: QueueId, levels: &QueueLevels) {
        let Some(series) = self.series.get(&(group, queue)) else { return };
        series.set_levels(&crate::metrics::QueueLevels {
            backlog_messages: levels.backlog_messages,
            backlog_bytes: levels.backlog_bytes,
            oldest_arrival_ms: levels.oldest_arrival_ms,
            unconfirmed_messages: levels.unconfirmed_messages,
            redelivery_messages: levels.redelivery_messages,
            consumers: levels.consumers,
            producers: levels.producers,
        });
    }
}

/// The partition's reasons and the metrics'.
const REJECTED: [(flintmq_partition::RejectReason, RejectReason); 5] = [
    (flintmq_partition::RejectReason::LimitMessages, RejectReason::LimitMessages),
    (flintmq_partition::RejectReason::LimitBytes, RejectReason::LimitBytes),
    (flintmq_partition::RejectReason::Storage, RejectReason::Storage),
    (flintmq_partition::RejectReason::Invalid, RejectReason::Invalid),
    (flintmq_partition::RejectReason::Unavailable, RejectReason::Unavailable),
];
const DROPPED: [(flintmq_partition::DropReason, DropReason); 3] = [
    (flintmq_partition::DropReason::Expired, DropReason::Expired),
    (flintmq_partition::DropReason::Purged, DropReason::Purged),
    (flintmq_partition::DropReason::Attempts, DropReason::Attempts),
];

/// The two parts of a canonical URI, which is how the state machine knows a queue.
fn domain_and_name(uri: &str) -> (&str, &str) {
    uri.strip_prefix("bmq://").and_then(|rest| rest.split_once('/')).unwrap_or(("", uri))
}
