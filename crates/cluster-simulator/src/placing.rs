//! The sessions of a node find places for queues that clients open, and open them there.

use std::sync::Arc;

use flintmq_consensus::{GroupId, NodeId};
use flintmq_controller::{
    ChangeError, DomainRecord, DomainVersion, NewQueuePolicy, QueuePlace, Refusal,
};
use flintmq_partition::{HandleRole, Open, OpenRefusal, Request, SessionId, Ticket};
use flintmq_queue::HandleId;

use crate::client::{Item, OpenRequest, OpenedQueue};
use crate::coverage::Situation;
use crate::event::{Errand, Event, Waits};
use crate::oracle::{Violation, violation};
use crate::world::World;

/// How often, and after what pause in microseconds, a new place is asked for when a queue is
/// deleted while it is opened.
const DELETED_RETRIES: u32 = 100;
const DELETED_PAUSE: u64 = 10_000;

/// Most queues of the cluster.
const MAX_QUEUES: u32 = 1_000;

/// An open that a node's session is busy with.
#[derive(Clone, Debug)]
pub(crate) struct Opening {
    pub(crate) node: NodeId,
    pub(crate) incarnation: u64,
    pub(crate) session: SessionId,
    request: OpenRequest,
    tries: u32,
    place: Option<QueuePlace>,
    /// The node's metadata have caught up for it.
    fresh: bool,
    /// The newest version of its domain that an operator had an answer for when the open came.
    floor: DomainVersion,
}

impl World {
    /// A client's request to open a queue reaches its node.
    pub(crate) fn open_arrives(&mut self, session: SessionId, request: OpenRequest) {
        let Some(info) = self.sessions.get(&session).filter(|info| !info.over) else { return };
        let (node, incarnation) = (info.node, info.incarnation);
        let floor = self.controller.answered(self.domain_of(request.slot));
        let (tries, place, fresh) = (1, None, false);
        let opening = Opening { node, incarnation, session, request, tries, place, fresh, floor };
        let number = self.name();
        self.openings.insert(number, opening);
        self.place(number);
    }

    pub(crate) fn domain_of(&self, slot: usize) -> &str {
        let domain = self.slots.get(slot).and_then(|slot| self.domains.get(slot.domain));
        domain.map_or("", |domain| domain.name.as_str())
    }

    fn uri_of(&self, slot: usize) -> String {
        self.slots.get(slot).map(|slot| slot.uri.clone()).unwrap_or_default()
    }

    /// Finds the queue's place, or asks the controller for one.
    pub(crate) fn place(&mut self, number: u64) {
        let Some(opening) = self.openings.get(&number) else { return };
        let (id, incarnation, slot) = (opening.node, opening.incarnation, opening.request.slot);
        if self.sessions.get(&opening.session).is_none_or(|info| info.over) {
            // An open under way ends with the session.
            self.openings.remove(&number);
            return;
        }
        let (uri, domain) = (self.uri_of(slot), self.domain_of(slot).to_owned());
        let fresh = opening.fresh;
        if let Some((place, record)) = self.lookup(id, &uri) {
            if fresh || self.is_created(id, &place) {
                return self.open_at(number, place, &record);
            }
            // Its partition may have to create it: not by metadata that are old.
            return self.catch_up(id, incarnation, Errand::Place { opening: number });
        }
        let Some(process) = self.nodes.get(&id).and_then(|node| node.process.as_ref()) else {
            return;
        };
        let policy = NewQueuePolicy {
            creates_domains: true,
            partitions: self.profile.groups,
            max_queues: MAX_QUEUES,
        };
        // All names are right.
        let commands = policy.commands(&process.metadata, &uri, &domain).unwrap_or_default();
        let errand = Errand::Place { opening: number };
        self.change(id, incarnation, commands, errand);
    }

    /// Whether the queue is there, as far as a node's replica of its partition knows.
    fn is_created(&self, id: NodeId, place: &QueuePlace) -> bool {
        let process = self.nodes.get(&id).and_then(|node| node.process.as_ref());
        let engine = process.and_then(|process| process.engine(GroupId(place.partition)));
        engine.is_some_and(|engine| engine.machine().settings(place.id()).is_some())
    }

    /// The metadata of an open's node have caught up, or have not.
    pub(crate) fn place_by_fresh_metadata(&mut self, number: u64, caught_up: bool) {
        if !caught_up {
            return self.refuse_open(number);
        }
        if let Some(opening) = self.openings.get_mut(&number) {
            opening.fresh = true;
        }
        self.place(number);
    }

    /// Where a queue lives, as a node knows it, and its domain.
    pub(crate) fn lookup(&self, id: NodeId, uri: &str) -> Option<(QueuePlace, DomainRecord)> {
        let metadata = &self.nodes.get(&id)?.process.as_ref()?.metadata;
        let place = metadata.queue(uri)?;
        let domain = metadata.domain(&place.domain)?;
        Some((place.clone(), domain.clone()))
    }

    /// The controller has given a queue a place, or has not.
    pub(crate) fn placed(
        &mut self,
        number: u64,
        result: Result<(), ChangeError>,
    ) -> Result<(), Violation> {
        let Some(opening) = self.openings.get(&number) else { return Ok(()) };
        let (id, slot, floor) = (opening.node, opening.request.slot, opening.floor);
        match result {
            Ok(()) => {
                self.coverage.saw(Situation::QueuePlaced);
                match self.lookup(id, &self.uri_of(slot)) {
                    Some((place, record)) => self.open_at(number, place, &record),
                    // It was removed meanwhile.
                    None => self.refuse_open(number),
                }
                Ok(())
            }
            Err(ChangeError::Refused(Refusal::TooManyQueues { domain, limit })) => {
                self.coverage.saw(Situation::TooManyQueues);
                self.refuse_open(number);
                if self.controller.had_limit(&domain, floor, limit) {
                    return Ok(());
                }
                let detail = format!("node {}: {domain} may have {limit} queues, it says", id.0);
                violation("AnsweredChangesAreInForce", detail)
            }
            Err(_) => {
                self.refuse_open(number);
                Ok(())
            }
        }
    }

    fn open_at(&mut self, number: u64, place: QueuePlace, record: &DomainRecord) {
        let (handle, ticket) = (HandleId(self.name()), Ticket(self.name()));
        let Some(opening) = self.openings.get_mut(&number) else { return };
        let (id, incarnation, session) = (opening.node, opening.incarnation, opening.session);
        let OpenRequest { slot, reads, queue_id, .. } = opening.request;
        let (queue, group) = (place.id(), GroupId(place.partition));
        opening.place = Some(place);
        opening.fresh = false;
        let role = match reads {
            true => HandleRole::Reader { queue_id },
            false => HandleRole::Writer { queue_id },
        };
        let open = Open {
            ticket,
            session,
            old_properties: false,
            handle,
            queue,
            uri: self.uri_of(slot),
            domain: Arc::new(record.for_partitions()),
            role,
        };
        if reads {
            self.readers.entry((group, queue)).or_default().insert(handle);
        }
        self.say(|| format!("{session:?} opens {handle:?} {queue:?} of group {}", group.0));
        self.tickets.insert(ticket, (id, incarnation, Waits::Open { opening: number, handle }));
        self.request(id, incarnation, group, Request::Open(Box::new(open)));
    }

    /// A partition has opened a queue, or has not.
    pub(crate) fn opened(
        &mut self,
        number: u64,
        handle: HandleId,
        result: Result<(), OpenRefusal>,
    ) -> Result<(), Violation> {
        let Some(opening) = self.openings.get_mut(&number) else { return Ok(()) };
        match result {
            Ok(()) => {}
            Err(OpenRefusal::Deleted) if opening.tries < DELETED_RETRIES => {
                opening.tries += 1;
                let (id, slot) = (opening.node, opening.request.slot);
                self.coverage.saw(Situation::PlacedAgain);
                // The node that deleted it may have had no answer, or stopped before it gave up the
                // place.
                self.remove_queue(id, &self.uri_of(slot), 0);
                self.after(DELETED_PAUSE, Event::PlaceAgain(number));
                return Ok(());
            }
            Err(refusal) => {
                self.say(|| format!("open {number} is refused: {refusal:?}"));
                self.refuse_open(number);
                return Ok(());
            }
        }
        let Some(opening) = self.openings.remove(&number) else { return Ok(()) };
        let Opening { node, session, request, place, floor, .. } = opening;
        let Some(place) = place else { return Ok(()) };
        let (queue, group) = (place.id(), GroupId(place.partition));
        let Some(info) = self.sessions.get_mut(&session).filter(|info| !info.over) else {
            return Ok(());
        };
        info.open.insert(handle, (group, queue));
        info.names.insert(request.queue_id, (handle, group, queue));
        let member = self.nodes.get(&node).and_then(|node| node.process.as_ref());
        let core = member.and_then(|process| process.shard.core(group));
        if core.is_some_and(|core| !core.config().is_member(node)) {
            self.coverage.saw(Situation::ServedNonMember);
        }
        let opened = OpenedQueue { handle, group, queue };
        self.hand_to_client(session, Item::Opened(request.number, Some(opened)));
        self.check_opened(node, request.slot, &place, floor)
    }

    fn refuse_open(&mut self, number: u64) {
        let Some(opening) = self.openings.remove(&number) else { return };
        self.hand_to_client(opening.session, Item::Opened(opening.request.number, None));
    }
}
