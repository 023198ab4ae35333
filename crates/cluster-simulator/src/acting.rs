//! What clients do, and what they make of what they are told.

use std::collections::BTreeSet;

use flintmq_partition::{
    Close, Configure, Confirm, HandleRole, Open, OpenRefusal, Publish, Put, Request, SessionId,
    Ticket,
};
use flintmq_protocol::ack::AckStatus;
use flintmq_queue::{Attributes, DomainId, Filter, HandleId, QueueSettings, Subscription};

use crate::client::{Answered, Connection, Item, Outstanding, Said, Use, UseState, parse, response};
use crate::coverage::Situation;
use crate::oracle::{HEAD, Key, Violation, app_data, guid_of, key_of, key_of_data, violation};
use crate::world::{Event, SessionInfo, Waits, World};

/// PUTs of a client that may be on their way at once.
const MOST_OUTSTANDING: usize = 200;

impl World {
    /// A client's turn.
    pub(crate) fn act(&mut self, number: usize) {
        let now = self.now;
        let pace = self.profile.pace;
        let Some(client) = self.clients.get_mut(number) else { return };
        let pace = if client.settles { pace.min(20_000) } else { pace };
        let next = client.random.between(pace / 2, pace * 3 / 2).max(1);
        self.after(next, Event::Act(number));
        let Some(client) = self.clients.get_mut(number) else { return };
        match client.connection {
            None if client.retry_at <= now => self.come(number),
            None => {}
            Some(connection) if connection.leaving > 0 => {}
            Some(connection) => self.use_session(number, connection),
        }
    }

    /// Connects to a node that runs, and opens everything.
    fn come(&mut self, number: usize) {
        let now = self.now;
        let running: Vec<_> = self
            .nodes
            .values()
            .filter(|node| node.paused_until <= now)
            .filter_map(|node| Some((node.id, node.process.as_ref()?)))
            .filter(|(_, process)| process.stopping == crate::node::Stopping::No)
            .map(|(id, process)| (id, process.incarnation))
            .collect();
        let session = SessionId(self.name());
        let Some(client) = self.clients.get_mut(number) else { return };
        let Some((node, incarnation)) = client.random.pick(&running) else { return };
        client.connection = Some(Connection { session, node, incarnation, leaving: 0 });
        client.slow_until = None;
        client.uses.iter_mut().for_each(Use::forget);
        let uses = client.uses.len();
        let info = SessionInfo {
            client: number,
            node,
            incarnation,
            last_to_node: 0,
            last_to_client: 0,
            over: false,
            unanswered: Default::default(),
            open: Default::default(),
            names: Default::default(),
        };
        self.sessions.insert(session, info);
        self.say(|| format!("client {} comes to node {} as {session:?}", number + 1, node.0));
        (0..uses).for_each(|place| self.open(number, place));
    }

    fn open(&mut self, number: usize, place: usize) {
        let (name, queue_id) = (self.name(), self.name() as u32);
        let ticket = Ticket(self.name());
        let Some(client) = self.clients.get_mut(number) else { return };
        let Some(connection) = client.connection else { return };
        let Some(one) = client.uses.get_mut(place) else { return };
        let Some(slot) = self.slots.get(one.slot) else { return };
        if slot.removing {
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
        self.to_node(session, group, Request::Open(Box::new(open)));
    }

    pub(crate) fn settings_of(&self, slot: usize) -> QueueSettings {
        let ttl = self.slots.get(slot).map_or(0, |slot| slot.ttl_ms);
        QueueSettings { message_ttl_ms: ttl, ..QueueSettings::priority(DomainId(1)) }
    }

    /// Sends something to the session's node, behind all that was sent before.
    pub(crate) fn to_node(
        &mut self,
        session: SessionId,
        group: flintmq_consensus::GroupId,
        request: Request,
    ) {
        let delay = self.net_random.skewed(20, 2_000);
        let Some(info) = self.sessions.get_mut(&session) else { return };
        let at = (self.now + delay).max(info.last_to_node + 1);
        info.last_to_node = at;
        self.at(at, Event::ToNode(session, group, Box::new(request)));
    }

    pub(crate) fn request_arrives(
        &mut self,
        session: SessionId,
        group: flintmq_consensus::GroupId,
        request: Request,
    ) {
        let now = self.now;
        let drops_opens = |ticket| match &request {
            Request::Open(open) => open.ticket == ticket,
            _ => false,
        };
        let Some(info) = self.sessions.get_mut(&session).filter(|info| !info.over) else {
            // A session that is over reads nothing more.
            self.tickets.retain(|ticket, _| !drops_opens(*ticket));
            return;
        };
        match &request {
            Request::Publish(publish) => {
                for put in &publish.puts {
                    info.unanswered.insert(key_of(put.guid), (put.queue, now));
                }
            }
            Request::Confirm(confirms) => {
                for confirm in confirms {
                    let place = info.open.get(&confirm.handle).copied();
                    if let Some((group, queue)) = place
                        && let Some(oracle) = self.groups.get_mut(&group)
                    {
                        oracle.confirm_sent(queue, key_of(confirm.guid));
                        self.coverage.saw(Situation::Confirmed);
                    }
                }
            }
            _ => {}
        }
        let (node, incarnation) = (info.node, info.incarnation);
        if let Request::SessionEnded(ended) = &request {
            info.over = false;
            let lost = ended.lost;
            return self.tell_session_over(session, lost);
        }
        self.request(node, incarnation, group, request);
    }

    /// Does something in a session that is up.
    fn use_session(&mut self, number: usize, connection: Connection) {
        let now = self.now;
        let Some(client) = self.clients.get_mut(number) else { return };
        let session = connection.session;
        if let Some(until) = client.slow_until
            && until <= now
        {
            client.slow_until = None;
            for group in self.groups_of(number) {
                self.to_node(session, group, Request::SessionRoom(session));
            }
            return;
        }
        let settles = client.settles;
        let choice = client.random.below(1000);
        let Some(place) = pick_place(client) else { return };
        match choice {
            0..5 if !settles => self.leave(number, connection),
            5..9 if !settles => self.die(number),
            9..16 if !settles && client.slow_until.is_none() => {
                client.slow_until = Some(now + client.random.skewed(5_000, 3_000_000));
                self.coverage.saw(Situation::ClientSlow);
                for group in self.groups_of(number) {
                    self.to_node(session, group, Request::SessionFull(session));
                }
            }
            16..40 if !settles => self.close(number, place),
            _ => self.use_queue(number, place),
        }
    }

    fn groups_of(&self, number: usize) -> BTreeSet<flintmq_consensus::GroupId> {
        let Some(client) = self.clients.get(number) else { return BTreeSet::new() };
        let slots = client.uses.iter().filter_map(|one| self.slots.get(one.slot));
        slots.map(|slot| slot.group).collect()
    }

    fn use_queue(&mut self, number: usize, place: usize) {
        let Some(client) = self.clients.get_mut(number) else { return };
        let settles = client.settles;
        let Some(one) = client.uses.get_mut(place) else { return };
        match one.state {
            UseState::Closed => self.open(number, place),
            UseState::Opening | UseState::Closing => {}
            UseState::Open if !one.reads => {
                if !settles && client.unacknowledged.len() < MOST_OUTSTANDING {
                    self.publish(number, place);
                }
            }
            UseState::Open => {
                let reconfigures = !settles && client.random.chance(30);
                if one.configuring.is_none() && (one.subscription == 0 || reconfigures) {
                    return self.configure(number, place);
                }
                let most = one.held.len();
                let count = if settles { most } else { client.random.below(8) as usize };
                let forgets = !settles && client.random.chance(200);
                if count > 0 && most > 0 && !forgets {
                    self.confirm(number, place, count.min(most));
                }
            }
        }
    }

    fn configure(&mut self, number: usize, place: usize) {
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
        let group = self.slots.get(one.slot).map(|slot| slot.group).unwrap_or_default();
        self.to_node(session, group, Request::Configure(Box::new(configure)));
    }

    fn confirm(&mut self, number: usize, place: usize, count: usize) {
        let Some(client) = self.clients.get_mut(number) else { return };
        let Some(connection) = client.connection else { return };
        let Some(one) = client.uses.get_mut(place) else { return };
        let handle = one.handle;
        let keys = one.held.drain(..count);
        let confirms = keys.map(|key| Confirm { handle, guid: guid_of(key) }).collect();
        let group = self.slots.get(one.slot).map(|slot| slot.group).unwrap_or_default();
        self.to_node(connection.session, group, Request::Confirm(confirms));
    }

    fn publish(&mut self, number: usize, place: usize) {
        let largest = self.profile.largest;
        let Some(client) = self.clients.get_mut(number) else { return };
        let Some(one) = client.uses.get(place) else { return };
        let slot = one.slot;
        let mut keys = Vec::new();
        let count = client.random.between(1, if largest > 100_000 { 2 } else { 6 });
        for _ in 0..count {
            client.sent += 1;
            let key = u64::from(client.number) << 32 | u64::from(client.sent);
            let size = client.random.skewed(HEAD as u64, largest) as usize;
            client.unacknowledged.insert(key, Outstanding { slot, size });
            keys.push(key);
        }
        self.send_puts(number, place, &keys);
    }

    fn send_puts(&mut self, number: usize, place: usize, keys: &[Key]) {
        let Some(client) = self.clients.get_mut(number) else { return };
        let Some(connection) = client.connection else { return };
        let Some(one) = client.uses.get_mut(place) else { return };
        let (handle, queue) = (one.handle, one.queue);
        let mut puts = Vec::new();
        for key in keys {
            let Some(outstanding) = client.unacknowledged.get(key) else { continue };
            one.unanswered.insert(*key);
            puts.push(Put {
                handle,
                queue,
                guid: guid_of(*key),
                correlation_id: 0,
                ack_requested: true,
                attributes: Attributes::default(),
                app_data: app_data(*key, queue, outstanding.size),
            });
        }
        let session = connection.session;
        let group = self.slots.get(one.slot).map(|slot| slot.group).unwrap_or_default();
        self.to_node(session, group, Request::Publish(Publish { session, puts }));
    }

    fn close(&mut self, number: usize, place: usize) {
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
        let group = self.slots.get(one.slot).map(|slot| slot.group).unwrap_or_default();
        self.to_node(session, group, Request::Close(Box::new(close)));
    }

    /// Says goodbye, and waits for the answers.
    fn leave(&mut self, number: usize, connection: Connection) {
        let groups = self.groups.len() as u32;
        let Some(client) = self.clients.get_mut(number) else { return };
        client.connection = Some(Connection { leaving: groups, ..connection });
        self.coverage.saw(Situation::ClientLeft);
        let session = connection.session;
        let ended = flintmq_partition::SessionEnded { session, lost: false, ticket: Ticket(0) };
        self.to_node(session, flintmq_consensus::GroupId(1), Request::SessionEnded(ended));
    }

    /// Vanishes. The node notices soon.
    fn die(&mut self, number: usize) {
        let Some(client) = self.clients.get_mut(number) else { return };
        let Some(connection) = client.connection.take() else { return };
        client.retry_at = self.now + client.random.skewed(1_000, 1_000_000);
        self.coverage.saw(Situation::ClientDied);
        let session = connection.session;
        let ended = flintmq_partition::SessionEnded { session, lost: true, ticket: Ticket(0) };
        self.to_node(session, flintmq_consensus::GroupId(1), Request::SessionEnded(ended));
    }

    /// A client gets something.
    pub(crate) fn client_gets(
        &mut self,
        number: usize,
        session: SessionId,
        item: Item,
    ) -> Result<(), Violation> {
        let now = self.now;
        let Some(client) = self.clients.get_mut(number) else { return Ok(()) };
        if !client.is_here(session) {
            return Ok(());
        }
        match item {
            Item::Lost | Item::Ended(_) => {
                client.connection = None;
                client.retry_at = now + client.random.skewed(1_000, 500_000);
            }
            Item::Left => {
                if let Some(connection) = &mut client.connection {
                    connection.leaving = connection.leaving.saturating_sub(1);
                    if connection.leaving == 0 {
                        client.connection = None;
                        client.retry_at = now + client.random.skewed(1_000, 500_000);
                    }
                }
            }
            Item::Refused(message) => {
                return violation("NotRefused", format!("client {}: {message}", number + 1));
            }
            Item::Opened(handle, result) => self.on_opened(number, handle, result),
            Item::Events(events) => {
                for said in parse(events)? {
                    self.on_said(number, said)?;
                }
            }
        }
        Ok(())
    }

    fn on_opened(&mut self, number: usize, handle: HandleId, result: Result<(), OpenRefusal>) {
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
        // What was not answered is sent again, under the same GUIDs.
        let slot = one.slot;
        let again = client.unacknowledged.iter().filter(|(_, put)| put.slot == slot);
        let keys: Vec<Key> = again.map(|(key, _)| *key).collect();
        let elsewhere: BTreeSet<Key> =
            client.uses.iter().flat_map(|one| one.unanswered.iter().copied()).collect();
        let keys: Vec<Key> = keys.into_iter().filter(|key| !elsewhere.contains(key)).collect();
        if !keys.is_empty() {
            self.coverage.saw_times(Situation::Retransmitted, keys.len() as u64);
            for part in keys.chunks(50) {
                self.send_puts(number, place, part);
            }
        }
    }

    fn on_said(&mut self, number: usize, said: Said) -> Result<(), Violation> {
        let Some(client) = self.clients.get_mut(number) else { return Ok(()) };
        match said {
            Said::Ack(ack) => {
                let key = key_of(ack.guid);
                let put = client.unacknowledged.get(&key).copied();
                if !client.on_ack(&ack, key)? {
                    self.coverage.saw(Situation::Refused);
                    // Some are sent again under the same GUID, as real clients may.
                    let again = ack.status != AckStatus::Unknown && client.random.chance(300);
                    if let Some(put) = put.filter(|_| again) {
                        client.unacknowledged.insert(key, put);
                    }
                }
            }
            Said::Push(push) => {
                let key = key_of(push.guid);
                if key_of_data(&push.app_data) != Some(key) {
                    return violation("RightContent", format!("message {key:x}"));
                }
                client.on_push(&push, key)?;
            }
            Said::Response(response) => {
                if let Answered::Closed(_) = client.on_response(response)? {}
            }
        }
        Ok(())
    }
}

fn pick_place(client: &mut crate::client::Client) -> Option<usize> {
    let places: Vec<usize> = (0..client.uses.len()).collect();
    client.random.pick(&places)
}
