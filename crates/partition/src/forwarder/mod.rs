//! What a partition does while another node leads it: it speaks for the clients of its own node at
//! the leader.
//!
//! It sends what they ask for, keeps nothing of its own (what is not answered is
//! [`PendingWork`](crate::pending::PendingWork)), and gives them what comes back, in the leader's
//! order. A new leader is told everything again: what is open, then confirmations, subscriptions,
//! PUTs and closes, under the same numbers.

mod answers;
mod arriving;

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use flintmq_consensus::{NodeId, Term, Time};
use flintmq_queue::{HandleId, QueueId, QueueSettings};
use flintmq_shard::{Group, NotSent};

use crate::context::Context;
use crate::leader::{LEADER_CHANGED, refuse};
use crate::peer_message::{
    self, Attach, AttachmentId, OneConfirm, PeerMessage, WirePut, WireSubscription,
    attributes_word, guid_bytes,
};
use crate::pending::{AdminRequest, Closing, MAX_ADMIN, PendingPut};
use crate::request::{
    Close, Configure, Confirm, HandleRole, Open, Publish, Removable, SessionEnded, SessionId,
};
use arriving::Arriving;

/// Frames that wait for a connection with room; beyond that no request is taken.
const MAX_OUTGOING: usize = 1024;

/// PUTs in one frame at most, and their bytes; one message may exceed them.
const FRAME_PUTS: usize = 1024;
const FRAME_BYTES: usize = 1 << 20;

/// Confirmations in one frame at most.
const FRAME_CONFIRMS: usize = 4096;

/// How long confirmations wait for something else that goes to the leader, and how many do.
const CONFIRMS_WAIT: Duration = Duration::from_millis(2);
const CONFIRMS_HELD: u64 = 64;

/// Ticks after which a probe that is not answered ends the attachment.
const PROBE_TICKS: u32 = 3;

/// The forwarder.
pub(crate) struct Forwarder {
    leader: NodeId,
    term: Term,
    attachment: AttachmentId,
    /// Frames sent, and received in order.
    sent: u64,
    received: u64,
    /// Frames that the connection had no room for. No request is taken from [`MAX_OUTGOING`] on.
    outgoing: VecDeque<Bytes>,
    /// Number of the first PUT that was not sent.
    next_put: u64,
    /// Number of the last confirmation that was sent.
    confirms_sent: u64,
    /// When those that wait are sent.
    confirms_due: Option<Time>,
    arriving: Arriving,
    /// Something passed since a probe showed that nothing is missing.
    active: bool,
    /// Ticks since the probe that is not answered.
    probing: Option<u32>,
    /// A frame was lost: begin again at the same leader.
    broken: bool,
    /// A message was not found in this node's log: the next attachment gets all of them sent.
    lookup_failed: bool,
}

impl Forwarder {
    /// Attaches to a leader and tells it everything.
    pub(crate) fn attach(
        cx: &mut Context,
        group: &mut dyn Group,
        (leader, term): (NodeId, Term),
        (attachment, has_log): (AttachmentId, bool),
    ) -> Box<Self> {
        let mut forwarder = Box::new(Self {
            leader,
            term,
            attachment,
            sent: 0,
            received: 0,
            outgoing: VecDeque::new(),
            next_put: 0,
            confirms_sent: 0,
            confirms_due: None,
            arriving: Arriving::default(),
            active: true,
            probing: None,
            broken: false,
            lookup_failed: false,
        });
        forwarder.queue(PeerMessage::Attach(Attach { term, has_log }));
        forwarder.tell_everything(cx);
        forwarder.send_outgoing(group);
        forwarder
    }

    /// The leader, and its term.
    pub(crate) fn leader(&self) -> (NodeId, Term) {
        (self.leader, self.term)
    }

    /// Whether the attachment is over, and a new one to the same leader is due.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken
    }

    /// Whether this node's log did not have what the leader referred to: asking again in the same
    /// way would find the same.
    pub(crate) fn lookup_failed(&self) -> bool {
        self.lookup_failed
    }

    /// Whether more can be taken for the leader.
    pub(crate) fn takes_requests(&self) -> bool {
        self.outgoing.len() < MAX_OUTGOING
    }

    fn tell_everything(&mut self, cx: &mut Context) {
        // First what is open, without subscriptions: nothing is delivered before the leader knows
        // what was confirmed.
        let local = cx.handles.in_order();
        for (handle, open) in &local {
            self.queue_open(*handle, open.queue, &open.uri, &open.settings, open.role);
        }
        for open in cx.pending.opens.values() {
            self.queue_open(open.handle, open.queue, &open.uri, &open.settings, open.role);
        }
        let paused: Vec<u64> =
            local.iter().filter(|(handle, _)| cx.is_paused(*handle)).map(|(h, _)| h.0).collect();
        if !paused.is_empty() {
            self.queue(PeerMessage::Pause(peer_message::Handles { handles: paused }));
        }
        self.queue_confirms(cx);
        for (handle, open) in &local {
            if !open.subscriptions.is_empty() {
                let subscriptions = open.subscriptions.iter().map(WireSubscription::from).collect();
                let configure =
                    peer_message::Configure { number: 0, handle: handle.0, subscriptions };
                self.queue(PeerMessage::Configure(configure));
            }
        }
        for (number, configure) in &cx.pending.configures {
            self.queue_configure(*number, configure);
        }
        self.queue_puts(cx);
        let closes: Vec<(u64, Vec<HandleId>, bool)> = cx
            .pending
            .closes
            .iter()
            .map(|(number, closing)| match closing {
                Closing::Close(close) => (*number, close.handles.clone(), false),
                Closing::Session(ended) => (*number, cx.handles_of(ended.session), ended.lost),
            })
            .collect();
        for (number, handles, lost) in closes {
            self.queue_close(number, &handles, lost);
        }
        // They may have been carried out by the leader before.
        for request in std::mem::take(&mut cx.pending.admin).into_values() {
            refuse(cx, request, LEADER_CHANGED);
        }
    }

    pub(crate) fn on_open(&mut self, cx: &mut Context, group: &mut dyn Group, open: Box<Open>) {
        self.flush_confirms(cx);
        self.queue_open(open.handle, open.queue, &open.uri, &open.settings, open.role);
        cx.pending.opens.insert(open.handle, open);
        self.send_outgoing(group);
    }

    fn queue_open(
        &mut self,
        handle: HandleId,
        queue: QueueId,
        uri: &str,
        settings: &QueueSettings,
        role: HandleRole,
    ) {
        self.queue(PeerMessage::Open(peer_message::Open {
            handle: handle.0,
            queue: queue.0,
            uri: uri.to_owned(),
            settings: settings.to_bytes().into(),
            reads: role.reads(),
        }));
    }

    pub(crate) fn on_configure(
        &mut self,
        cx: &mut Context,
        group: &mut dyn Group,
        configure: Configure,
    ) {
        self.flush_confirms(cx);
        if let Some(number) = cx.keep_configure(configure)
            && let Some(configure) = cx.pending.configures.get(&number)
        {
            self.queue_configure(number, configure);
            self.send_outgoing(group);
        }
    }

    fn queue_configure(&mut self, number: u64, configure: &Configure) {
        let subscriptions = configure.subscriptions.iter().map(WireSubscription::from).collect();
        let handle = configure.handle.0;
        let configure = peer_message::Configure { number, handle, subscriptions };
        self.queue(PeerMessage::Configure(configure));
    }

    pub(crate) fn on_close(&mut self, cx: &mut Context, group: &mut dyn Group, close: Box<Close>) {
        let handles = close.handles.clone();
        self.begin_closing(cx, group, Closing::Close(close), &handles, false);
    }

    /// Ends a session. What it was about to open is closed with the rest.
    pub(crate) fn on_session_ended(
        &mut self,
        cx: &mut Context,
        group: &mut dyn Group,
        ended: SessionEnded,
    ) {
        let mut handles = cx.drop_requests_of(ended.session);
        handles.extend(cx.handles_of(ended.session));
        if handles.is_empty() {
            return cx.session_ended(ended);
        }
        self.begin_closing(cx, group, Closing::Session(ended), &handles, ended.lost);
    }

    fn begin_closing(
        &mut self,
        cx: &mut Context,
        group: &mut dyn Group,
        closing: Closing,
        handles: &[HandleId],
        lost: bool,
    ) {
        self.flush_confirms(cx);
        let number = cx.pending.number();
        cx.pending.closes.insert(number, closing);
        self.queue_close(number, handles, lost);
        self.send_outgoing(group);
    }

    fn queue_close(&mut self, number: u64, handles: &[HandleId], lost: bool) {
        let handles = handles.iter().map(|handle| handle.0).collect();
        self.queue(PeerMessage::Close(peer_message::Close { number, handles, lost }));
    }

    pub(crate) fn on_publish(&mut self, cx: &mut Context, publish: Publish) {
        let session = publish.session;
        for put in publish.puts {
            cx.pending.puts.push(PendingPut { session, put });
        }
    }

    /// Puts what was not sent yet into as few frames as fit.
    fn queue_puts(&mut self, cx: &Context) {
        if self.next_put == cx.pending.puts.end() {
            return;
        }
        let mut puts = Vec::new();
        let mut bytes = 0;
        for (number, pending) in cx.pending.puts.from(self.next_put) {
            let put = &pending.put;
            bytes += put.app_data.len() + 32;
            puts.push(WirePut {
                number,
                queue: put.queue.0,
                guid: guid_bytes(put.guid),
                attributes: attributes_word(put.attributes),
                app_data: put.app_data.clone(),
            });
            if puts.len() >= FRAME_PUTS || bytes >= FRAME_BYTES {
                bytes = 0;
                let puts = std::mem::take(&mut puts);
                self.queue(PeerMessage::Publish(peer_message::Publish { puts }));
            }
        }
        if !puts.is_empty() {
            self.queue(PeerMessage::Publish(peer_message::Publish { puts }));
        }
        self.next_put = cx.pending.puts.end();
    }

    /// Nobody waits for a confirmation, so it waits a moment for something else that goes to the
    /// leader: a packet of its own costs as much as the message did. Only where consumers have so
    /// many messages ahead that they never run dry meanwhile.
    pub(crate) fn on_confirm(&mut self, cx: &mut Context, now: Time, confirms: Vec<Confirm>) {
        let may_wait = confirms.iter().all(|confirm| takes_many_ahead(cx, confirm.handle));
        let confirms = cx.admit_confirms(confirms);
        if confirms.is_empty() {
            return;
        }
        let last = cx.pending.add_confirms(confirms.into_iter());
        if !may_wait || last - self.confirms_sent >= CONFIRMS_HELD {
            self.confirms_due = Some(now);
        } else {
            self.confirms_due.get_or_insert(now + CONFIRMS_WAIT);
        }
    }

    /// What follows must come behind the confirmations that came before it.
    fn flush_confirms(&mut self, cx: &Context) {
        if self.confirms_due.take().is_some() {
            self.queue_confirms(cx);
        }
    }

    fn queue_confirms(&mut self, cx: &Context) {
        self.confirms_due = None;
        let first = cx.pending.confirms.partition_point(|one| one.number <= self.confirms_sent);
        let mut confirms = Vec::new();
        let mut number = 0;
        let mut frames = Vec::new();
        for one in cx.pending.confirms.range(first..) {
            number = one.number;
            confirms.push(OneConfirm { handle: one.handle.0, guid: guid_bytes(one.guid) });
            if confirms.len() >= FRAME_CONFIRMS {
                frames.push((number, std::mem::take(&mut confirms)));
            }
        }
        if !confirms.is_empty() {
            frames.push((number, confirms));
        }
        for (number, confirms) in frames {
            self.confirms_sent = number;
            self.queue(PeerMessage::Confirm(peer_message::Confirm { number, confirms }));
        }
    }

    /// A domain's definition changed. It is replicated: a leader to come finds it by itself.
    pub(crate) fn on_update(
        &mut self,
        group: &mut dyn Group,
        queue: QueueId,
        settings: &QueueSettings,
    ) {
        let settings = settings.to_bytes().into();
        self.queue(PeerMessage::Update(peer_message::Update { queue: queue.0, settings }));
        self.send_outgoing(group);
    }

    /// An administrator's request: the leader carries it out.
    pub(crate) fn on_admin(
        &mut self,
        cx: &mut Context,
        group: &mut dyn Group,
        request: AdminRequest,
    ) {
        if cx.pending.admin.len() >= MAX_ADMIN {
            return refuse(cx, request, "too many requests wait: try again");
        }
        let number = cx.pending.number();
        cx.pending.admin.insert(number, request);
        let (what, queue, unused_ms) = match request {
            AdminRequest::Purge { queue, .. } => (1, queue, 0),
            AdminRequest::Delete { queue, only_if: Removable::Closed, .. } => (2, queue, 0),
            AdminRequest::Delete { queue, only_if: Removable::UnusedFor(time), .. } => {
                (3, queue, u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
            }
        };
        let ask = peer_message::Ask { number, queue: queue.0, what, unused_ms };
        self.queue(PeerMessage::Ask(ask));
        self.send_outgoing(group);
    }

    /// The way out to a client is full, or has room again: the leader should know.
    pub(crate) fn on_pause(
        &mut self,
        cx: &Context,
        group: &mut dyn Group,
        session: SessionId,
        pause: bool,
    ) {
        let handles = cx.handles_of(session).iter().map(|handle| handle.0).collect();
        let handles = peer_message::Handles { handles };
        self.queue(if pause { PeerMessage::Pause(handles) } else { PeerMessage::Resume(handles) });
        self.send_outgoing(group);
    }

    /// The end of a turn.
    pub(crate) fn work(&mut self, cx: &mut Context, group: &mut dyn Group) {
        let due = self.confirms_due.is_some_and(|due| due <= group.now());
        if due || self.next_put != cx.pending.puts.end() {
            self.flush_confirms(cx);
        }
        self.queue_puts(cx);
        self.pass_on(cx, group);
        self.send_outgoing(group);
    }

    /// When [`Self::work`] is wanted next.
    pub(crate) fn next_deadline(&self) -> Option<Time> {
        self.confirms_due
    }

    /// Once per tick: as long as something passes, it is made sure that nothing is missing.
    pub(crate) fn on_tick(&mut self, group: &mut dyn Group) {
        match &mut self.probing {
            Some(ticks) => {
                *ticks += 1;
                self.broken |= *ticks >= PROBE_TICKS;
            }
            None if self.active => {
                self.active = false;
                self.probing = Some(0);
                self.queue(PeerMessage::Probe(peer_message::Probe {}));
                self.send_outgoing(group);
            }
            None => {}
        }
    }

    fn queue(&mut self, message: PeerMessage) {
        self.active |= !matches!(message, PeerMessage::Probe(_));
        self.sent += 1;
        self.outgoing.push_back(message.frame(Some(self.attachment), self.sent));
    }

    /// The connection has room again.
    pub(crate) fn on_room(&mut self, group: &mut dyn Group) {
        self.send_outgoing(group);
    }

    fn send_outgoing(&mut self, group: &mut dyn Group) {
        while let Some(frame) = self.outgoing.front() {
            match group.send(self.leader, frame.clone()) {
                Ok(()) => {
                    self.outgoing.pop_front();
                }
                Err(NotSent::Full) => return,
                // Everything is told again, once the leader can be reached.
                Err(NotSent::Gone) => {
                    self.broken = true;
                    self.outgoing.clear();
                }
            }
        }
    }
}

fn takes_many_ahead(cx: &Context, handle: HandleId) -> bool {
    cx.handles.get(handle).is_some_and(|local| {
        local.subscriptions.iter().all(|one| one.max_messages >= 4 * CONFIRMS_HELD)
    })
}
