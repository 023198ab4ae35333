//! What a queue inherits from its domain, in the state machine's terms.

use std::collections::{BTreeMap, BTreeSet};

use flintmq_consensus::{GroupId, Term};
use flintmq_queue::QueueSettings;

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::clock::TICK;
use super::{PartitionHandle, Request, partition_of};
use crate::controller::{Controller, DomainRecord};

/// The settings of every queue of this domain.
pub(crate) fn queue_settings(record: &DomainRecord) -> QueueSettings {
    record.queue_settings()
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

/// Tells the partitions that this node leads what their queues inherit, whenever they have a new
/// leader or a domain has changed, until `stop`. A change that comes while a partition has no
/// leader would be lost otherwise.
pub(crate) async fn keep_domain_settings(
    controller: Controller,
    partitions: Vec<PartitionHandle>,
    stop: CancellationToken,
) {
    let mut tick = tokio::time::interval(TICK);
    let mut told = Told::default();
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = stop.cancelled() => return,
        }
        let updates: Vec<_> = {
            let metadata = controller.metadata();
            let domains = metadata
                .domains()
                .map(|record| (record.definition.name.clone(), queue_settings(record)));
            let domains: BTreeMap<String, QueueSettings> = domains.collect();
            let led = partitions.iter().map(|p| (p.group(), p.status()));
            let led = led.filter(|(_, status)| status.serving);
            let led = led.map(|(group, status)| (group, status.term)).collect();
            let due = told.due(&domains, led);
            let wanted = metadata.queues().map(|(_, place)| place);
            let wanted = wanted.filter(|place| due.contains(&GroupId(place.partition)));
            let wanted = wanted.filter_map(|place| {
                Some((place.partition, place.id(), told.domains.get(&place.domain)?.clone()))
            });
            if due.is_empty() { Vec::new() } else { wanted.collect() }
        };
        for (partition, queue, settings) in updates {
            if let Some(handle) = partition_of(&partitions, partition) {
                let settings = Box::new(settings);
                handle.send(Request::UpdateQueue { queue, settings }).await;
            }
        }
    }
}

/// What the partitions that this node leads have been told.
#[derive(Default)]
struct Told {
    domains: BTreeMap<String, QueueSettings>,
    led: BTreeMap<GroupId, Term>,
}

impl Told {
    /// The partitions that are to be told something now, of those that are led here. They count as
    /// told afterwards.
    fn due(
        &mut self,
        domains: &BTreeMap<String, QueueSettings>,
        led: BTreeMap<GroupId, Term>,
    ) -> BTreeSet<GroupId> {
        let news = *domains != self.domains;
        let is_due = |group: &GroupId, term: &Term| news || self.led.get(group) != Some(term);
        let due = led.iter().filter(|(group, term)| is_due(group, term));
        let due = due.map(|(group, _)| *group).collect();
        if news {
            self.domains.clone_from(domains);
        }
        self.led = led;
        due
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use flintmq_controller::DomainVersion;
    use flintmq_controller::domain::DomainDefinition;

    use super::*;

    #[test]
    fn new_leaders_and_new_definitions_are_told_once() {
        let mut told = Told::default();
        let led = |terms: &[(u32, Term)]| -> BTreeMap<GroupId, Term> {
            terms.iter().map(|(group, term)| (GroupId(*group), *term)).collect()
        };
        let groups = |due: BTreeSet<GroupId>| due.into_iter().map(|g| g.0).collect::<Vec<_>>();
        let none = BTreeMap::new();
        let definition = DomainDefinition::default_template("orders").unwrap();
        let record = DomainRecord { id: 1, definition, version: DomainVersion::default() };
        let some = BTreeMap::from([("orders".to_owned(), queue_settings(&record))]);
        assert_eq!(
            groups(told.due(&none, led(&[(1, 4), (3, 2)]))),
            [1, 3],
            "led for the first time"
        );
        assert_eq!(groups(told.due(&none, led(&[(1, 4), (3, 2)]))), [0; 0]);
        assert_eq!(groups(told.due(&some, led(&[(1, 4)]))), [1], "a new definition");
        assert_eq!(groups(told.due(&some, led(&[(1, 6), (3, 3)]))), [1, 3], "led anew");
        assert_eq!(groups(told.due(&some, led(&[(1, 6), (3, 3)]))), [0; 0]);
    }
}
