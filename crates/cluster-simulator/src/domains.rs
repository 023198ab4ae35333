//! Domains: operators change them, and every partition has to follow.

use std::sync::Arc;

use flintmq_consensus::{GroupId, NodeId, Term};
use flintmq_controller::domain::DomainDefinition;
use flintmq_controller::{DomainVersion, PutCondition, QueuePlace};
use flintmq_partition::{AdminRefusal, Request, Ticket};
use flintmq_queue::Domain;

use crate::coverage::Situation;
use crate::event::{Event, Waits};
use crate::operators::{Operation, Wish};
use crate::oracle::{Violation, violation};
use crate::world::World;

/// How long an operator's node waits for partitions without a leader, in microseconds.
const PATIENCE: u64 = 5_000_000;

/// The pause after which a partition is asked again that could not tell.
const AGAIN: u64 = 50_000;

/// A domain that clients use.
#[derive(Clone, Debug)]
pub(crate) struct SimDomain {
    pub(crate) name: String,
    /// For how many seconds its messages live at first; none: as long as by default.
    ttl_s: Option<u64>,
    /// Queues that it may have at first; 0 is any number.
    max_queues: u32,
}

/// A change that an operator's node brings into force.
#[derive(Clone, Debug)]
pub(crate) struct Enforcing {
    name: String,
    version: DomainVersion,
    /// Partitions that have not taken it yet.
    missing: u32,
    until: u64,
}

impl SimDomain {
    pub(crate) fn new(number: usize, ttl_s: Option<u64>, max_queues: u32) -> Self {
        Self { name: format!("simulated.domain{number}"), ttl_s, max_queues }
    }

    fn definition(&self) -> Option<DomainDefinition> {
        let mut definition = DomainDefinition::default_template(&self.name).ok()?;
        definition.message_ttl = self.ttl_s.unwrap_or(definition.message_ttl);
        definition.max_queues = self.max_queues;
        Some(definition)
    }
}

impl World {
    /// An operator defines a domain for the first time; clients that come before get the default.
    pub(crate) fn define(&mut self, domain: usize) {
        let Some(definition) = self.domains.get(domain).and_then(SimDomain::definition) else {
            return;
        };
        let wish = Wish::PutDomain { definition, when: PutCondition::Always };
        self.wish(wish, true);
    }

    /// An operator changes a domain in some way.
    pub(crate) fn change_domain(&mut self, choice: u64) {
        let Some(name) = self.pick_domain(choice).map(|domain| domain.name.clone()) else { return };
        let metadata = self.controller.metadata();
        let Some(record) = metadata.domain(&name) else { return };
        let mut definition = record.definition.clone();
        let queues = metadata.queues_of(&name) as u32;
        match choice / 8 % 4 {
            0 => definition.max_queues = queues.max(1),
            1 => definition.max_queues = queues + 1,
            2 => definition.max_queues = 0,
            // So many consumers of one message do not die.
            _ => definition.max_delivery_attempts = 62 + (choice / 32 % 2) as u32,
        }
        if definition.message_ttl < 60 {
            definition.message_ttl = 1 + choice / 2048 % 3;
        }
        self.wish(Wish::PutDomain { definition, when: PutCondition::Update }, false);
    }

    /// Whatever the limits were: from now on clients can open everything.
    pub(crate) fn lift_limits(&mut self) {
        let records = self.controller.metadata().domains();
        let limited = records.filter(|record| (1..1_000).contains(&record.definition.max_queues));
        let definitions: Vec<_> = limited.map(|record| record.definition.clone()).collect();
        for mut definition in definitions {
            definition.max_queues = 0;
            self.wish(Wish::PutDomain { definition, when: PutCondition::Always }, false);
        }
    }

    fn pick_domain(&self, choice: u64) -> Option<&SimDomain> {
        self.domains.get((choice % self.domains.len().max(1) as u64) as usize)
    }

    /// A domain's change is committed and applied at the node that was asked: it tells partitions.
    pub(crate) fn bring_into_force(&mut self, id: NodeId, incarnation: u64, name: &str) {
        let Some(process) = self.nodes.get(&id).and_then(|node| node.process.as_ref()) else {
            return;
        };
        let Some(record) = process.metadata.domain(name) else { return };
        let (version, domain) = (record.version, Arc::new(record.for_partitions()));
        let partitions = process.metadata.partitions_of(name);
        let number = self.name();
        let (missing, until) = (partitions.len() as u32, self.now + PATIENCE);
        let enforcing = Enforcing { name: name.to_owned(), version, missing, until };
        self.operators.enforcing.insert(number, enforcing);
        for partition in partitions {
            let group = GroupId(partition);
            self.set_domain((id, incarnation), group, Arc::clone(&domain), Some(number));
        }
        self.look_whether_in_force(number);
    }

    /// Sends a partition the settings of a domain.
    pub(crate) fn set_domain(
        &mut self,
        (id, incarnation): (NodeId, u64),
        group: GroupId,
        domain: Arc<Domain>,
        enforcing: Option<u64>,
    ) {
        if self.process_of(id) != Some(incarnation) {
            return;
        }
        let ticket = Ticket(self.name());
        let waits = Waits::SetDomain { group, domain: Arc::clone(&domain), enforcing };
        self.tickets.insert(ticket, (id, incarnation, waits));
        self.request(id, incarnation, group, Request::SetDomain { ticket, domain });
    }

    /// A partition has taken settings, or has not.
    pub(crate) fn domain_set(
        &mut self,
        process: (NodeId, u64),
        (group, domain): (GroupId, Arc<Domain>),
        enforcing: Option<u64>,
        result: &Result<(), AdminRefusal>,
    ) {
        // Without a number the next leader looks for itself.
        let Some(number) = enforcing else { return };
        let Some(waiting) = self.operators.enforcing.get_mut(&number) else { return };
        if result.is_ok() {
            waiting.missing = waiting.missing.saturating_sub(1);
            self.look_whether_in_force(number);
        } else if self.now < waiting.until {
            let again = Event::SetDomain(process, group, domain, number);
            self.after(AGAIN, again);
        }
    }

    fn look_whether_in_force(&mut self, number: u64) {
        let Some(waiting) = self.operators.enforcing.get(&number) else { return };
        if waiting.missing > 0 {
            return;
        }
        if let Some(done) = self.operators.enforcing.remove(&number)
            && self.now < done.until
        {
            self.coverage.saw(Situation::DomainChanged);
            self.controller.answer(&done.name, done.version);
        }
    }

    /// The partitions that a node leads get the settings of their domains: all when it begins to
    /// serve, then each one that changes.
    pub(crate) fn follow_domains(&mut self, id: NodeId) {
        let groups: Vec<GroupId> = self.groups.keys().copied().collect();
        let Some(process) = self.nodes.get_mut(&id).and_then(|node| node.process.as_mut()) else {
            return;
        };
        let incarnation = process.incarnation;
        let version = process.metadata.domain_version();
        let mut news: Vec<(GroupId, Domain)> = Vec::new();
        for group in groups {
            let serves = process.shard.status(group).filter(|status| status.serving);
            let Some(term) = serves.map(|status| status.term) else {
                process.domains_sent.remove(&group);
                continue;
            };
            let sent = process.domains_sent.insert(group, (term, version));
            let known = sent.filter(|(known, _): &(Term, _)| *known == term);
            let metadata = &process.metadata;
            match known {
                None => news.extend(
                    metadata.domains_in(group.0).map(|record| (group, record.for_partitions())),
                ),
                Some((_, known)) => {
                    let changed = metadata.domains_changed_since(known).filter(|record| {
                        metadata.partitions_of(&record.definition.name).contains(&group.0)
                    });
                    news.extend(changed.map(|record| (group, record.for_partitions())));
                }
            }
        }
        for (group, domain) in news {
            self.set_domain((id, incarnation), group, Arc::new(domain), None);
        }
    }

    /// A queue was created in a partition that this node leads, perhaps for a node that knew older
    /// settings.
    pub(crate) fn follow_new_queue(
        &mut self,
        id: NodeId,
        group: GroupId,
        uri: &str,
        version: flintmq_queue::DomainVersion,
    ) {
        let Some(incarnation) = self.process_of(id) else { return };
        let newer = self.lookup(id, uri).map(|(_, record)| record.for_partitions());
        if let Some(domain) = newer.filter(|domain| domain.version > version) {
            self.set_domain((id, incarnation), group, Arc::new(domain), None);
        }
    }

    /// A queue that is open has its place, and what operators had answers for is in force.
    pub(crate) fn check_opened(
        &mut self,
        id: NodeId,
        slot: usize,
        place: &QueuePlace,
        floor: DomainVersion,
    ) -> Result<(), Violation> {
        let calm = self.nodes.get(&id).is_some_and(|node| node.troubled_until < self.now);
        let Some(uri) = self.slots.get(slot).map(|slot| slot.uri.as_str()) else { return Ok(()) };
        let metadata = self.controller.metadata();
        if calm && metadata.queue(uri) != Some(place) {
            let detail = format!("node {}: {uri} opens at {place:?}", id.0);
            return violation("OpenQueuesHaveTheirPlace", detail);
        }
        let oracle = self.groups.get(&GroupId(place.partition));
        let record = metadata.domain(&place.domain);
        let number = record.map(|record| record.for_partitions().id);
        let present = number.zip(oracle).and_then(|(number, o)| o.reference.domain(number));
        let floor: flintmq_queue::DomainVersion = floor.into();
        if let Some((version, _)) = present.filter(|(version, _)| *version < floor) {
            let detail = format!(
                "node {}: {uri} opens under {version:?}, an operator had an answer for {floor:?}",
                id.0
            );
            return violation("AnsweredChangesAreInForce", detail);
        }
        Ok(())
    }

    /// An operator asks for something through some node; `insists`: until it is done.
    pub(crate) fn wish(&mut self, wish: Wish, insists: bool) {
        self.operate(Operation { wish, insists });
    }
}
