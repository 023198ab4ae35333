//! The gateway's half: clients of this node, served by a leader elsewhere.

use std::time::{Duration, Instant};

use flintmq_consensus::{NodeId, Term};
use flintmq_protocol::ack::AckStatus;
use flintmq_protocol::control::StatusCategory;
use flintmq_protocol::guid::MessageGuid;
use flintmq_queue::{HandleId, QueueId, QueueSettings};
use flintmq_transport::SendError;

use super::wire::{self, Said};
use super::{
    Asked, Closing, FRAME_BYTES, FRAME_PUTS, Unanswered, attributes_word, guid_bytes, guid_of,
    send_waiting, subscription_on_wire,
};
use crate::link::SessionId;
use crate::partition::publish::{Origin, PendingPut};
use crate::partition::requests::{
    AdminRefusal, Close, Configure, Confirm, HandleRole, Open, OpenRefusal, Publish, Purged,
    Request, SessionEnded,
};
use crate::partition::task::{HandleEntry, Owner, PartitionTask};
use crate::replica::ReplicaError;

/// How long confirmations wait for something else that goes to the leader, and how many do.
const CONFIRMS_WAIT: Duration = Duration::from_millis(2);
const CONFIRMS_HELD: usize = 64;

impl PartitionTask {
    /// Carries a request out at the leader, as far as it is not this node's own business.
    pub(in crate::partition) fn hand_on(&mut self, request: Request) {
        match request {
            Request::Publish(publish) => self.hand_on_puts(publish),
            Request::Confirm(confirms) => self.hand_on_confirms(confirms),
            Request::Open(open) => self.hand_on_open(open),
            Request::Configure(configure) => self.hand_on_configure(*configure),
            Request::Close(close) => self.hand_on_close(close),
            Request::SessionEnded(ended) => self.hand_on_end(ended),
            Request::UpdateQueue { queue, settings } => self.hand_on_update(queue, &settings),
            Request::Purge { queue, done } => self.ask(queue, 1, Asked::Purge(done)),
            Request::Delete { queue, done, .. } => self.ask(queue, 2, Asked::Delete(done)),
            Request::View { queue, done } => {
                let _gone = done.send(self.view(queue));
            }
            Request::ViewAll { done } => {
                let _gone = done.send(self.view_all());
            }
            Request::Peek { queue, count, done } => self.peek(queue, count, done),
            // Whoever waits for it asks here only whether everything got through.
            Request::Settled { done } => {
                let _gone = done.send(());
            }
            // The leader looks after them.
            Request::IdleQueues { done, .. } => {
                let _gone = done.send(Vec::new());
            }
            Request::StopDelivery { idle } => {
                self.stopping = true;
                let _gone = idle.send(());
            }
        }
    }

    fn hand_on_puts(&mut self, publish: Publish) {
        let session = publish.session.id;
        let unanswered =
            publish.puts.into_iter().map(|put| Unanswered { session, put, sent: false });
        self.gateway.unanswered.extend(unanswered);
        self.send_puts();
    }

    /// Sends what is not on its way yet, as few frames as fit.
    fn send_puts(&mut self) {
        if self.gateway.leader.is_none() {
            return;
        }
        let unsent = self.gateway.unanswered.iter().rev().take_while(|put| !put.sent).count();
        let first = self.gateway.unanswered.len() - unsent;
        let mut puts = Vec::new();
        let mut bytes = 0;
        let mut frames = Vec::new();
        for unanswered in self.gateway.unanswered.range_mut(first..) {
            unanswered.sent = true;
            let put = &unanswered.put;
            bytes += put.app_data.len() + 32;
            puts.push(wire::Put {
                queue: put.queue.0,
                guid: guid_bytes(put.guid),
                attributes: attributes_word(put.attributes),
                app_data: put.app_data.clone(),
            });
            if puts.len() >= FRAME_PUTS || bytes >= FRAME_BYTES {
                let puts = std::mem::take(&mut puts);
                bytes = 0;
                frames.push(Said::Publish(wire::Publish { puts }));
            }
        }
        if !puts.is_empty() {
            frames.push(Said::Publish(wire::Publish { puts }));
        }
        for frame in frames {
            self.say(frame);
        }
    }

    /// Nobody waits for a confirmation, so it waits a moment for something else that goes to the
    /// leader: a packet of its own costs as much as the message did. Only where consumers have so
    /// many messages ahead that they never run dry meanwhile.
    fn hand_on_confirms(&mut self, confirms: Vec<Confirm>) {
        let number = self.gateway.number();
        let mut may_wait = true;
        for confirm in confirms {
            may_wait &= self.takes_many_ahead(confirm.handle);
            self.gateway.confirms.push_back((number, confirm.handle, confirm.guid));
            self.gateway.held_confirms += 1;
        }
        if !may_wait || self.gateway.held_confirms >= CONFIRMS_HELD {
            self.send_held_confirms();
        } else {
            let due = || Instant::now() + CONFIRMS_WAIT;
            self.confirms_due.get_or_insert_with(due);
        }
    }

    fn takes_many_ahead(&self, handle: HandleId) -> bool {
        let Some(HandleEntry { owner: Owner::Session(local), .. }) = self.handles.get(&handle)
        else {
            return false;
        };
        local.subscriptions.iter().all(|one| one.max_messages >= 4 * CONFIRMS_HELD as u64)
    }

    /// Sends the confirmations that have waited long enough.
    pub(in crate::partition) fn send_due_confirms(&mut self) {
        if !self.machine.is_leading() && self.confirms_due.is_some_and(|due| due <= Instant::now())
        {
            self.send_held_confirms();
        }
    }

    fn send_held_confirms(&mut self) {
        self.confirms_due = None;
        let held = std::mem::take(&mut self.gateway.held_confirms);
        let first = self.gateway.confirms.len().saturating_sub(held);
        let Some((last, ..)) = self.gateway.confirms.back().copied().filter(|_| held > 0) else {
            return;
        };
        let held = self.gateway.confirms.range(first..);
        let held = held.map(|(_, handle, guid)| (*handle, *guid)).collect();
        self.send_confirms(last, held);
    }

    fn send_confirms(&mut self, number: u64, confirms: Vec<(HandleId, MessageGuid)>) {
        let one = |(handle, guid): (HandleId, _)| wire::OneConfirm {
            handle: handle.0,
            guid: guid_bytes(guid),
        };
        let confirms = confirms.into_iter().map(one).collect();
        self.say(Said::Confirm(wire::Confirm { number, confirms }));
    }

    fn hand_on_open(&mut self, open: Box<Open>) {
        self.say_open(open.handle, open.queue, &open.uri, &open.settings, open.role);
        self.gateway.opening.insert(open.handle, open);
    }

    fn say_open(
        &mut self,
        handle: HandleId,
        queue: QueueId,
        uri: &str,
        settings: &QueueSettings,
        role: HandleRole,
    ) {
        self.say(Said::Open(wire::Open {
            handle: handle.0,
            queue: queue.0,
            uri: uri.to_owned(),
            settings: settings.to_bytes().into(),
            reads: matches!(role, HandleRole::Reader { .. }),
        }));
    }

    fn hand_on_configure(&mut self, configure: Configure) {
        let number = self.gateway.number();
        self.say_configure(number, &configure);
        self.gateway.configuring.push_back((number, configure));
    }

    fn say_configure(&mut self, number: u64, configure: &Configure) {
        let subscriptions = configure.subscriptions.iter().map(subscription_on_wire).collect();
        let handle = configure.handle.0;
        self.say(Said::Configure(wire::Configure { number, handle, subscriptions }));
    }

    fn hand_on_close(&mut self, close: Box<Close>) {
        let handles = close.handles.iter().map(|handle| handle.0).collect();
        self.hand_on_closing(handles, false, Closing::Close(close));
    }

    fn hand_on_end(&mut self, ended: SessionEnded) {
        let open = self.links.get_mut(ended.session).map(|link| link.handles.clone());
        let handles = open.unwrap_or_default().iter().map(|handle| handle.0).collect();
        let lost = ended.lost;
        self.hand_on_closing(handles, lost, Closing::SessionEnded(ended));
    }

    fn hand_on_closing(&mut self, handles: Vec<u64>, lost: bool, closing: Closing) {
        let number = self.gateway.number();
        self.gateway.closing.push_back((number, closing));
        self.say(Said::Close(wire::Close { number, handles, lost }));
    }

    fn hand_on_update(&mut self, queue: QueueId, settings: &QueueSettings) {
        // The definition is replicated: a leader to come finds it by itself when it is opened.
        let settings = settings.to_bytes().into();
        self.say(Said::Update(wire::Update { queue: queue.0, settings }));
    }

    fn ask(&mut self, queue: QueueId, what: u32, asked: Asked) {
        if self.gateway.leader.is_none() {
            return asked.refuse("the partition has no leader: try again");
        }
        let number = self.gateway.number();
        self.gateway.asked.insert(number, asked);
        self.say(Said::Ask(wire::Ask { number, queue: queue.0, what }));
    }

    /// Tells the leader, if there is one. What is said to nobody is said again to the next leader,
    /// as far as it matters.
    fn say(&mut self, said: Said) {
        if !matches!(said, Said::Confirm(_)) {
            self.send_held_confirms();
        }
        if self.gateway.leader.is_some() {
            self.gateway.waiting.push_back(said.into_bytes());
            self.send_waiting_to_leader();
        }
    }

    pub(super) fn send_waiting_to_leader(&mut self) {
        let (Some((leader, _)), Some(links)) = (self.gateway.leader, &self.gateway.links) else {
            self.gateway.waiting.clear();
            return;
        };
        let group = self.replica.group();
        if !send_waiting(links, leader, group, &mut self.gateway.waiting) {
            self.wait_for_room(leader);
        }
    }

    /// A client's outbox is full, or has room again: the leader should know.
    pub(in crate::partition) fn hand_on_pause(&mut self, session: SessionId, pause: bool) {
        let Some(link) = self.links.get_mut(session) else { return };
        let handles = link.handles.iter().map(|handle| handle.0).collect();
        let handles = wire::Handles { handles };
        self.say(if pause { Said::Pause(handles) } else { Said::Resume(handles) });
    }

    /// A node says that it leads and serves.
    pub(super) fn on_invite(&mut self, from: NodeId, term: Term) {
        if self.machine.is_leading() || self.replica.is_serving() {
            // This node has not noticed yet that it leads no more.
            if self.gateway.invited.is_none_or(|known| is_news(known, (from, term))) {
                self.gateway.invited = Some((from, term));
            }
            return;
        }
        if self.gateway.leader.is_some_and(|known| !is_news(known, (from, term))) {
            return;
        }
        self.gateway.leader = Some((from, term));
        self.gateway.waiting.clear();
        // They are among those that are said again.
        self.gateway.held_confirms = 0;
        self.gateway.arriving.forget();
        self.say(Said::Hello(wire::Hello { term, has_log: true }));
        // First what is open, without subscriptions: nothing is delivered before the leader knows
        // what was confirmed.
        let open = self.local_handles();
        for (handle, queue, local) in &open {
            self.say_open(*handle, *queue, &local.uri, &local.settings, local.role);
        }
        let opening: Vec<_> = std::mem::take(&mut self.gateway.opening).into_values().collect();
        for open in opening {
            self.hand_on_open(open);
        }
        let confirms: Vec<_> =
            self.gateway.confirms.iter().map(|(_, handle, guid)| (*handle, *guid)).collect();
        if let Some((last, ..)) = self.gateway.confirms.back().copied() {
            self.send_confirms(last, confirms);
        }
        for (handle, _, local) in &open {
            if !local.subscriptions.is_empty() {
                let subscriptions = local.subscriptions.iter().map(subscription_on_wire).collect();
                let configure = wire::Configure { number: 0, handle: handle.0, subscriptions };
                self.say(Said::Configure(configure));
            }
        }
        let configuring: Vec<_> = std::mem::take(&mut self.gateway.configuring).into();
        for (number, configure) in configuring {
            self.say_configure(number, &configure);
            self.gateway.configuring.push_back((number, configure));
        }
        for put in &mut self.gateway.unanswered {
            put.sent = false;
        }
        self.send_puts();
        self.say_closings();
        self.gateway.refuse_asked();
    }

    /// Takes an invitation that came while this node still believed that it leads.
    pub(in crate::partition) fn take_invitation(&mut self) {
        if let Some((from, term)) = self.gateway.invited.take() {
            self.on_invite(from, term);
        }
    }

    /// Once per tick: a leader that was out of reach for a moment may not know that it was, and so
    /// invites nobody; or its invitation was lost, and the one before is still believed in.
    pub(in crate::partition) fn look_for_leader(&mut self) {
        let term = self.replica.term();
        if self.gateway.leader.is_none_or(|(_, known)| known < term)
            && self.gateway.is_needed()
            && !self.machine.is_leading()
            && let Some(leader) = self.replica.leader_in_reach()
        {
            self.on_invite(leader, term);
        }
    }

    /// Once per tick: this node may have left the group, and have data that nobody needs.
    pub(in crate::partition) fn drop_leftover(&mut self) -> Result<(), ReplicaError> {
        if !self.replica.is_leftover() {
            self.may_drop = false;
            return Ok(());
        }
        if std::mem::take(&mut self.may_drop) {
            return self.replica.drop_leftover();
        }
        if let Some((_, term)) = self.gateway.leader
            && !self.reconciler.wants(self.group(), self.replica.node())
        {
            self.say(Said::MayDrop(term));
        }
        Ok(())
    }

    /// Closes come behind everything that was published before.
    fn say_closings(&mut self) {
        let mut closings = Vec::new();
        for (number, closing) in &self.gateway.closing {
            let (handles, lost) = match closing {
                Closing::Close(close) => (close.handles.clone(), false),
                Closing::SessionEnded(ended) => {
                    let link = self.links.get_mut(ended.session);
                    (link.map(|link| link.handles.clone()).unwrap_or_default(), ended.lost)
                }
            };
            let handles = handles.iter().map(|handle| handle.0).collect();
            closings.push(wire::Close { number: *number, handles, lost });
        }
        for close in closings {
            self.say(Said::Close(close));
        }
    }

    /// The leader is gone, or cannot be reached: everything waits for the next one.
    pub(in crate::partition) fn forget_leader(&mut self, gone: NodeId) {
        if self.gateway.leader.is_some_and(|(leader, _)| leader == gone) {
            self.gateway.leader = None;
            self.gateway.waiting.clear();
            self.gateway.held_confirms = 0;
            self.gateway.arriving.forget();
        }
    }

    pub(super) fn on_leaders_word(&mut self, said: Said) {
        match said {
            Said::Opened(opened) => self.on_opened(opened),
            Said::Configured(configured) => self.on_configured(&configured),
            Said::Closed(number) => self.on_closed(number),
            Said::Deliver(deliver) => self.on_delivered(deliver),
            Said::Confirmed(number) => {
                while self.gateway.confirms.front().is_some_and(|(known, ..)| *known <= number) {
                    self.gateway.confirms.pop_front();
                }
            }
            Said::Answer(answer) => self.on_answer(answer),
            Said::Drop(term) => {
                self.may_drop |= self.gateway.leader.is_some_and(|(_, known)| known == term);
            }
            // A gateway's words, or a newer version's.
            _ => {}
        }
    }

    fn on_opened(&mut self, opened: wire::Opened) {
        let handle = HandleId(opened.handle);
        let Some(open) = self.gateway.opening.remove(&handle) else {
            // Opened anew at this leader. If its queue is gone, so is what it was open for.
            if opened.outcome == 2 {
                self.close_handle(handle, false);
            }
            return;
        };
        let answer = match opened.outcome {
            0 => {
                self.enter_local(&open);
                Ok(())
            }
            1 => Err(OpenRefusal::Refused(opened.reason)),
            2 => Err(OpenRefusal::Deleted),
            _ => Err(OpenRefusal::NotReady("the queue has no leader yet: try again")),
        };
        if open.done.send(answer).is_err() {
            let number = self.gateway.number();
            self.say(Said::Close(wire::Close { number, handles: vec![handle.0], lost: false }));
            self.close_handle(handle, false);
        }
    }

    fn on_configured(&mut self, configured: &wire::Configured) {
        let known = |(number, _): &(u64, Configure)| *number == configured.number;
        let Some(at) = self.gateway.configuring.iter().position(known) else { return };
        let Some((_, configure)) = self.gateway.configuring.remove(at) else { return };
        self.links.flush_session(configure.session.id);
        if configured.done {
            self.remember_subscriptions(configure.handle, &configure.subscriptions);
            configure.session.outbox.push(configure.response);
        } else {
            configure.session.refuse(
                configure.request_id,
                StatusCategory::Unknown,
                "the queue was deleted: close it and open it again",
            );
        }
    }

    fn on_closed(&mut self, number: u64) {
        let known = |(known, _): &(u64, Closing)| *known == number;
        let Some(at) = self.gateway.closing.iter().position(known) else { return };
        match self.gateway.closing.remove(at) {
            Some((_, Closing::Close(close))) => self.close_now(*close),
            Some((_, Closing::SessionEnded(ended))) => self.end_session(ended),
            None => {}
        }
    }

    fn on_delivered(&mut self, deliver: wire::Deliver) {
        for ack in deliver.acks {
            let Some(guid) = guid_of(&ack.guid) else { continue };
            let known = |unanswered: &Unanswered| unanswered.put.guid == guid;
            let Some(at) = self.gateway.unanswered.iter().position(known) else { continue };
            let Some(unanswered) = self.gateway.unanswered.remove(at) else { continue };
            let status = AckStatus::from_wire(ack.status as u8);
            let origin = Origin::Session(unanswered.session);
            self.answer(&PendingPut::of(origin, &unanswered.put), status, None);
        }
        self.take_pushes(deliver.pushes);
    }

    fn on_answer(&mut self, answer: wire::Answer) {
        let refusal = match answer.outcome {
            0 => None,
            1 => Some(AdminRefusal::NoSuchQueue),
            2 => Some(AdminRefusal::Used),
            3 => Some(AdminRefusal::InUse {
                consumers: answer.first as usize,
                producers: answer.second as usize,
            }),
            _ => Some(AdminRefusal::Failed(answer.reason)),
        };
        let purged = Purged { messages: answer.first, bytes: answer.second };
        match self.gateway.asked.remove(&answer.number) {
            Some(Asked::Purge(done)) => {
                drop::<Result<_, _>>(done.send(refusal.map_or(Ok(purged), Err)));
            }
            Some(Asked::Delete(done)) => {
                drop::<Result<_, _>>(done.send(refusal.map_or(Ok(()), Err)));
            }
            None => {}
        }
    }

    /// Asks to be told when the connection to this node has room again.
    pub(super) fn wait_for_room(&self, to: NodeId) {
        let Some(links) = self.gateway.links.clone() else { return };
        let (group, signals) = (self.group(), self.signals.clone());
        tokio::spawn(async move {
            // A connection that ends has room for nobody, which is told otherwise.
            let _gone: Result<(), SendError> = links.gateway_room(to, group).await;
            let _task_gone = signals.send(crate::partition::task::Signal::GatewayRoom);
        });
    }
}

/// Whether an invitation counts beside what is known: a term has one leader, which may repeat
/// itself.
fn is_news((leader, known): (NodeId, Term), (from, term): (NodeId, Term)) -> bool {
    term > known || (term == known && from == leader)
}
