//! Clients open, configure and close queues.

use flintmq_consensus::GroupId;
use flintmq_partition::{Close, Configure, HandleRole, Open, OpenRefusal, Request, Ticket};
use flintmq_queue::{DomainId, Filter, HandleId, QueueSettings, Subscription};

use crate::client::{Slot, Use, UseState, response};
use crate::coverage::Situation;
use crate::event::Waits;
use crate::world::World;

impl World {
    pub(crate) fn open(&mut self, number: usize, place: usize) {
        let (name, queue_id) = (self.name(), self.name() as u32);
        let ticket = Ticket(self.name());
        let Some(client) = self.clients.get_mut(number) else { return };
        let Some(connection) = client.connection else { return };
        let Some(one) = client.uses.get_mut(place) else { return };
        let Some(slot) = self.slots.get(one.slot) else { return };
        if slot.removing || !self.sessions.contains_key(&connection.session) {
            return;
        }
        let (handle, queue, group) = (HandleId(name), slot.number, slot.group);
        let (slot, reads) = (one.slot, one.reads);
        *one = Use { state: UseState::Opening, handle, queue, queue_id, ..Use::new(slot, reads) };
        let role = if one.reads {
            HandleRole::Reader { queue_id }
        } else {
            HandleRole::Writer { queue_id }
        };
        let session = connection.session;
        let waits = Waits::Open { session, handle, group, queue, queue_id };
        self.tickets.insert(ticket, (connection.node, connection.incarnation, waits));
        let open = Open {
            ticket,
            session,
            old_properties: false,
            handle,
            queue,
            uri: format!("bmq://simulated.domain/q{}", queue.0),
            settings: self.settings_of(slot),
            role,
        };
        self.hand_to_node(session, group, Request::Open(Box::new(open)));
    }

    pub(crate) fn settings_of(&self, slot: usize) -> QueueSettings {
        let ttl = self.slots.get(slot).map_or(0, |slot| slot.ttl_ms);
        QueueSettings { message_ttl_ms: ttl, ..QueueSettings::priority(DomainId(1)) }
    }

    pub(crate) fn on_opened(
        &mut self,
        number: usize,
        handle: HandleId,
        result: Result<(), OpenRefusal>,
    ) {
        let Some(client) = self.clients.get_mut(number) else { return };
        let Some(place) = client.uses.iter().position(|one| one.handle == handle) else { return };
        let Some(one) = client.uses.get_mut(place) else { return };
        if let Err(refusal) = &result {
            one.forget();
            self.settling.refused_opens += 1;
            return self.say(|| format!("client {} is refused: {refusal:?}", number + 1));
        }
        one.state = UseState::Open;
        if one.reads {
            return self.configure(number, place);
        }
        self.send_again(number, place);
    }

    pub(crate) fn configure(&mut self, number: usize, place: usize) {
        let (request, subscription) = (self.name(), self.name() as u32);
        let max_unconfirmed = self.profile.max_unconfirmed;
        let Some(client) = self.clients.get_mut(number) else { return };
        let Some(connection) = client.connection else { return };
        let Some(one) = client.uses.get_mut(place) else { return };
        if one.subscription > 0 {
            self.coverage.saw(Situation::Reconfigured);
        }
        one.configuring = Some((request, subscription));
        let session = connection.session;
        let configure = Configure {
            session,
            handle: one.handle,
            subscriptions: vec![Subscription {
                id: subscription,
                priority: 0,
                count: 1,
                max_messages: max_unconfirmed,
                max_bytes: 1 << 20,
                filter: Filter::All,
            }],
            response: response(request),
            request_id: None,
        };
        let group = group_of(&self.slots, one.slot);
        self.hand_to_node(session, group, Request::Configure(Box::new(configure)));
    }

    pub(crate) fn close(&mut self, number: usize, place: usize) {
        let request = self.name();
        let Some(client) = self.clients.get_mut(number) else { return };
        let Some(connection) = client.connection else { return };
        let Some(one) = client.uses.get_mut(place) else { return };
        if one.state != UseState::Open || one.configuring.is_some() {
            return;
        }
        if !one.unanswered.is_empty() {
            self.coverage.saw(Situation::ClosedWithPending);
        }
        one.state = UseState::Closing;
        one.closing = Some(request);
        let session = connection.session;
        let close = Close { session, handles: vec![one.handle], response: response(request) };
        let group = group_of(&self.slots, one.slot);
        self.hand_to_node(session, group, Request::Close(Box::new(close)));
    }
}

pub(crate) fn group_of(slots: &[Slot], slot: usize) -> GroupId {
    slots.get(slot).map_or(GroupId::CONTROLLER, |slot| slot.group)
}
