//! Clients open, configure and close queues.

use flintmq_partition::{Close, Configure, Request};
use flintmq_queue::{Filter, Subscription};

use crate::client::{OpenRequest, OpenedQueue, Use, UseState, response};
use crate::coverage::Situation;
use crate::event::Event;
use crate::world::World;

impl World {
    pub(crate) fn open(&mut self, number: usize, place: usize) {
        let (opening, queue_id) = (self.name(), self.name() as u32);
        let Some(client) = self.clients.get_mut(number) else { return };
        let Some(connection) = client.connection else { return };
        let Some(one) = client.uses.get_mut(place) else { return };
        if !self.sessions.contains_key(&connection.session) {
            return;
        }
        let (slot, reads) = (one.slot, one.reads);
        *one = Use { state: UseState::Opening, opening, queue_id, ..Use::new(slot, reads) };
        let request = OpenRequest { number: opening, slot, reads, queue_id };
        let at = self.on_the_way_to_node(connection.session);
        self.at(at, Event::Asks(connection.session, request));
    }

    /// A request to open a queue is answered.
    pub(crate) fn on_opened(&mut self, number: usize, request: u64, opened: Option<OpenedQueue>) {
        let Some(client) = self.clients.get_mut(number) else { return };
        let mut uses = client.uses.iter_mut();
        let Some((place, one)) = uses.by_ref().enumerate().find(|(_, u)| u.opening == request)
        else {
            return;
        };
        let Some(OpenedQueue { handle, group, queue }) = opened else {
            one.forget();
            self.settling.refused_opens += 1;
            return;
        };
        one.state = UseState::Open;
        (one.handle, one.group, one.queue) = (handle, group, queue);
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
        let group = one.group;
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
        let group = one.group;
        self.hand_to_node(session, group, Request::Close(Box::new(close)));
    }
}
