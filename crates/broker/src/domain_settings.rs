//! Tells partitions what their queues inherit, when a domain has changed or a partition has a new
//! leader.

use std::collections::BTreeMap;
use std::time::Duration;

use flintmq_consensus::{GroupId, Term};
use flintmq_controller::DomainVersion;
use flintmq_partition::Request;
use tokio_util::sync::CancellationToken;

use crate::controller::Controller;
use crate::host::{PartitionHandle, partition_of};

/// How often it is looked whether there is news; without any that costs a comparison.
const LOOK: Duration = Duration::from_secs(1);

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
                Some((place.clone(), metadata.domain(&place.domain)?.queue_settings()))
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
        // An error means that the node is stopping.
        let _ = handle.settled().await;
    }
}

/// Tells the partitions that this node leads what their queues inherit, whenever they have a new
/// leader or a domain has changed, until `stop`. A change that comes while a partition has no
/// leader would be lost otherwise.
pub(crate) async fn keep_domain_settings(
    controller: Controller,
    partitions: Vec<PartitionHandle>,
    stop: CancellationToken,
) {
    let mut tick = tokio::time::interval(LOOK);
    let mut told: BTreeMap<GroupId, (Term, DomainVersion)> = BTreeMap::new();
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = stop.cancelled() => return,
        }
        let version = controller.metadata().domain_version();
        let led = partitions.iter().map(|p| (p.group(), p.status()));
        let led = led.filter(|(_, status)| status.serving);
        let led: BTreeMap<GroupId, Term> = led.map(|(group, status)| (group, status.term)).collect();
        told.retain(|group, (term, _)| led.get(group) == Some(term));
        let due = |group: &GroupId| told.get(group).is_none_or(|(_, known)| *known != version);
        let due: Vec<(GroupId, Term)> =
            led.into_iter().filter(|(group, _)| due(group)).collect();
        if due.is_empty() {
            continue;
        }
        let updates: Vec<_> = {
            let metadata = controller.metadata();
            let wanted = metadata.queues().map(|(_, place)| place);
            let is_due = |partition: u32| due.iter().any(|(group, _)| group.0 == partition);
            let wanted = wanted.filter(|place| is_due(place.partition));
            let settings = wanted.filter_map(|place| {
                let settings = metadata.domain(&place.domain)?.queue_settings();
                Some((place.partition, place.id(), settings))
            });
            settings.collect()
        };
        for (partition, queue, settings) in updates {
            if let Some(handle) = partition_of(&partitions, partition) {
                let settings = Box::new(settings);
                handle.send(Request::UpdateQueue { queue, settings }).await;
            }
        }
        told.extend(due.into_iter().map(|(group, term)| (group, (term, version))));
    }
}
