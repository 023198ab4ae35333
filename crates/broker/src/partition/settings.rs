//! What a queue inherits from its domain, in the state machine's terms.

use flintmq_queue::{Consistency, DomainId, Limits, Mode, QueueSettings};

use tokio::sync::oneshot;

use super::{PartitionHandle, Request, partition_of};
use crate::controller::{Controller, DomainRecord};
use crate::domain;

/// The settings of every queue of this domain.
pub(crate) fn queue_settings(record: &DomainRecord) -> QueueSettings {
    let definition = &record.definition;
    QueueSettings {
        domain: DomainId(record.id),
        mode: match &definition.mode {
            domain::Mode::Priority => Mode::Priority,
            domain::Mode::Fanout { app_ids, .. } => Mode::Fanout { apps: app_ids.clone() },
            domain::Mode::Broadcast => Mode::Broadcast,
        },
        message_ttl_ms: definition.message_ttl.saturating_mul(1000),
        dedup_window_ms: u64::from(definition.deduplication_time_ms),
        max_delivery_attempts: u8::try_from(definition.max_delivery_attempts).unwrap_or(0),
        queue_limits: limits(&definition.storage.queue_limits),
        domain_limits: limits(&definition.storage.domain_limits),
        max_consumers: definition.max_consumers,
        max_producers: definition.max_producers,
        consistency: match definition.consistency {
            domain::Consistency::Eventual => Consistency::Eventual,
            domain::Consistency::Strong => Consistency::Strong,
        },
    }
}

/// Tells the partitions what the queues of a domain (or of all) inherit now, and waits until it is
/// in force. Those that know it already do nothing.
pub(crate) async fn send_domain_settings(
    controller: &Controller,
    partitions: &[PartitionHandle],
    only: Option<&str>,
) {
    let updates: Vec<_> = {
        let metadata = controller.metadata();
        let wanted = metadata.queues().map(|(_, place)| place);
        wanted
            .filter(|place| only.is_none_or(|domain| domain == place.domain))
            .filter_map(|place| {
                Some((place.clone(), queue_settings(metadata.domain(&place.domain)?)))
            })
            .collect()
    };
    for (place, settings) in updates {
        if let Some(handle) = partition_of(partitions, place.partition) {
            let settings = Box::new(settings);
            handle.send(Request::UpdateQueue { queue: place.id(), settings }).await;
        }
    }
    for handle in partitions {
        let (done, applied) = oneshot::channel();
        handle.send(Request::Settled { done }).await;
        // An error means that the node is stopping.
        let _ = applied.await;
    }
}

fn limits(limits: &domain::Limits) -> Limits {
    Limits { messages: limits.messages, bytes: limits.bytes }
}
