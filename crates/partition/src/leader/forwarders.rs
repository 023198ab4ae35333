//! Clients of other nodes, served through these nodes' forwarders.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use flintmq_consensus::{NodeId, Term};
use flintmq_protocol::ack::AckStatus;
use flintmq_protocol::guid::MessageGuid;
use flintmq_queue::{Delivery, HandleId, QueueId, QueueSettings, Subscription};
use flintmq_shard::{Group, NotSent};

use super::applying::{Attached, Deferred, RemoteOpen};
use super::opening::{Found, open_handle};
use super::publishing::{Origin, RemotePut, WaitingPut};
use super::{Leader, RemoteHandle, Requester};
use crate::context::Context;
use crate::effect::{AdminRefusal, OpenRefusal, Purged};
use crate::peer_message::{
    self, Announce, AttachmentId, Deliver, Frame, LogReference, Opened, PeerMessage, WireAck,
    WirePush, attributes_of, attributes_word, guid_bytes, guid_of,
};
use crate::request::Removable;

/// Bytes of messages in one frame, after which the next begins.
const FRAME_BYTES: usize = 512 << 10;

/// Bytes of a message from which a forwarder that has it in its log is only told where.
const WORTH_LOOKING_UP: usize = 64;

/// What the leader keeps of a forwarder.
pub(super) struct ServedForwarder {
    attachment: AttachmentId,
    /// It looks up messages in its own log.
    has_log: bool,
    /// Frames received in order, and sent.
    received: u64,
    sent: u64,
    /// Frames that it is known to have received.
    confirmed: u64,
    /// What its clients have open.
    handles: Vec<HandleId>,
    acks: Vec<WireAck>,
    /// At most one turn of deliveries.
    pushes: Vec<WirePush>,
    answers: Vec<peer_message::Answer>,
    /// Frames that the connection had no room for. Nothing is delivered to it until they are gone,
    /// so these are one turn of deliveries, and answers to what it asked.
    outgoing: VecDeque<Bytes>,
    paused: bool,
}

impl ServedForwarder {
    fn new(attachment: AttachmentId, has_log: bool) -> Self {
        Self {
            attachment,
            has_log,
            received: 1,
            sent: 0,
            confirmed: 0,
            handles: Vec::new(),
            acks: Vec::new(),
            pushes: Vec::new(),
            answers: Vec::new(),
            outgoing: VecDeque::new(),
            paused: false,
        }
    }

    fn queue(&mut self, message: PeerMessage) {
        self.sent += 1;
        self.outgoing.push_back(message.frame(Some(self.attachment), self.sent));
    }
}

impl Leader {
    /// Tells all other nodes in reach, or one, that this one leads and serves: also those that do
    /// not hold the partition have clients. What is lost is repeated by [`Self::announce_again`].
    pub(crate) fn announce(&self, group: &mut dyn Group, only: Option<NodeId>) {
        if !group.is_clustered() {
            return;
        }
        let term: Term = self.term;
        let peers = only.map_or_else(|| group.peers_in_reach(), |peer| vec![peer]);
        for peer in peers {
            let frame = PeerMessage::Announce(Announce { term }).frame(None, 0);
            let _repeated_if_lost = group.send(peer, frame);
        }
    }

    /// Once per tick: an announcement may have been lost, or come too early.
    pub(super) fn announce_again(&self, group: &mut dyn Group) {
        for peer in group.peers_in_reach() {
            if !self.forwarders.contains_key(&peer) {
                self.announce(group, Some(peer));
            }
        }
    }

    /// Once per tick: a forwarder that was sent something shows what it received. A frame may be
    /// lost although its sending was taken for a success.
    pub(super) fn check_forwarders(&mut self, cx: &mut Context, group: &mut dyn Group) {
        let unsure = self.forwarders.iter().filter(|(_, served)| served.sent > served.confirmed);
        let unsure: Vec<NodeId> = unsure.map(|(node, _)| *node).collect();
        for node in unsure {
            if let Some(served) = self.forwarders.get_mut(&node) {
                let received = served.received;
                served.queue(PeerMessage::Received(received));
            }
            self.send_outgoing(cx, group, node);
        }
    }

    /// A node can be reached now, or not any more.
    pub(crate) fn on_peer(
        &mut self,
        cx: &mut Context,
        group: &mut dyn Group,
        peer: NodeId,
        up: bool,
    ) {
        self.drop_forwarder(cx, peer);
        if up {
            self.announce(group, Some(peer));
        }
    }

    /// The connection to a node has room again.
    pub(crate) fn on_room(&mut self, cx: &mut Context, group: &mut dyn Group, peer: NodeId) {
        self.send_outgoing(cx, group, peer);
    }

    /// A forwarder is gone: what its clients had open is closed. That is not their fault, so
    /// nothing counts as a failed delivery.
    fn drop_forwarder(&mut self, cx: &mut Context, node: NodeId) {
        let Some(served) = self.forwarders.remove(&node) else { return };
        self.cancel_opens_of(node);
        for handle in served.handles {
            self.release(cx, handle, false);
            self.remote.remove(&handle);
        }
    }

    fn cancel_opens_of(&mut self, node: NodeId) {
        self.deferred.retain(|(_, deferred)| match deferred {
            Deferred::OpenRemote(open) => open.from.node != node,
            Deferred::CloseRemote { from, .. } | Deferred::Confirmed { from, .. } => {
                from.node != node
            }
            _ => true,
        });
    }

    /// A frame of another node.
    pub(crate) fn on_frame(
        &mut self,
        cx: &mut Context,
        group: &mut dyn Group,
        node: NodeId,
        frame: Frame,
    ) {
        let (Some(attachment), Some(message)) = (frame.attachment, frame.message) else { return };
        if let PeerMessage::Attach(attach) = message {
            self.drop_forwarder(cx, node);
            self.forwarders.insert(node, ServedForwarder::new(attachment, attach.has_log));
            return;
        }
        let served = self.forwarders.get_mut(&node);
        let in_order = served.is_some_and(|served| {
            let next = served.attachment == attachment && served.received + 1 == frame.number;
            served.received += u64::from(next);
            next
        });
        if !in_order {
            // Whatever was lost on the way, it begins again.
            if self.forwarders.get(&node).is_some_and(|served| served.attachment == attachment) {
                self.drop_forwarder(cx, node);
            }
            let detached = PeerMessage::Detached(peer_message::Detached {});
            let _repeated_by_a_probe = group.send(node, detached.frame(Some(attachment), 0));
            return;
        }
        self.serve(cx, group, Attached { node, attachment }, message);
        self.send_outgoing(cx, group, node);
    }

    fn serve(
        &mut self,
        cx: &mut Context,
        group: &mut dyn Group,
        from: Attached,
        message: PeerMessage,
    ) {
        match message {
            PeerMessage::Open(open) => self.serve_open(cx, from, open),
            PeerMessage::Configure(configure) => {
                // The answer comes behind the last message under the old subscriptions.
                self.queue_deliveries(from.node);
                let subscriptions: Vec<Subscription> =
                    configure.subscriptions.iter().map(Subscription::from).collect();
                let done = cx.machine.configure(HandleId(configure.handle), subscriptions).is_ok();
                if configure.number > 0 {
                    let number = configure.number;
                    let configured = peer_message::Configured { number, done };
                    self.queue(from, PeerMessage::Configured(configured));
                }
            }
            PeerMessage::Close(close) => {
                let handles: Vec<HandleId> = close.handles.into_iter().map(HandleId).collect();
                if close.lost {
                    self.cancel_opens(&handles);
                    for handle in handles {
                        self.close_remote(cx, from, handle, true);
                    }
                    self.queue(from, PeerMessage::Closed(close.number));
                } else {
                    let number = close.number;
                    self.defer(Deferred::CloseRemote { from, number, handles });
                    self.run_deferred(cx, group);
                }
            }
            PeerMessage::Publish(publish) => self.serve_puts(cx, group, from, publish),
            PeerMessage::Confirm(confirm) => {
                for one in confirm.confirms {
                    if let Some(guid) = guid_of(&one.guid) {
                        self.take_confirm(cx, HandleId(one.handle), guid);
                    }
                }
                self.defer(Deferred::Confirmed { from, number: confirm.number });
                self.run_deferred(cx, group);
            }
            PeerMessage::Pause(handles) => self.pause(cx, from, handles, true),
            PeerMessage::Resume(handles) => self.pause(cx, from, handles, false),
            PeerMessage::Update(update) => {
                if let Ok(settings) = QueueSettings::from_bytes(&update.settings) {
                    self.on_update(cx, QueueId(update.queue), &settings);
                }
            }
            PeerMessage::Ask(ask) => self.serve_ask(cx, group, from, &ask),
            PeerMessage::Probe(_) => {
                self.queue_deliveries(from.node);
                if let Some(served) = self.served(from) {
                    served.queue(PeerMessage::Received(served.received));
                    // Whether that arrives is the forwarder's to notice: it waits for it.
                    served.confirmed = served.sent;
                }
            }
            // A leader's words, or a newer version's.
            _ => {}
        }
    }

    /// The way out to clients of a forwarder is full, or has room again.
    fn pause(
        &mut self,
        cx: &mut Context,
        from: Attached,
        handles: peer_message::Handles,
        pause: bool,
    ) {
        let all_paused = self.served(from).is_some_and(|served| served.paused);
        for handle in handles.handles.into_iter().map(HandleId) {
            let Some(remote) = self.remote.get_mut(&handle) else { continue };
            remote.paused = pause;
            if pause {
                cx.machine.pause(handle);
            } else if !all_paused {
                cx.machine.resume(handle);
            }
        }
    }

    fn serve_open(&mut self, cx: &mut Context, from: Attached, open: peer_message::Open) {
        let handle = HandleId(open.handle);
        let Ok(settings) = QueueSettings::from_bytes(&open.settings) else {
            let reason = "the queue's settings cannot be read: is the node newer?".to_owned();
            let opened = Opened { handle: handle.0, outcome: 1, reason };
            return self.queue(from, PeerMessage::Opened(opened));
        };
        let queue = QueueId(open.queue);
        let remote = RemoteOpen { from, handle, queue, reads: open.reads };
        match self.find_or_create(cx, queue, &open.uri, &settings) {
            Found::Deleted => self.tell_opened(&remote, Err(OpenRefusal::Deleted)),
            Found::Here => self.open_remote_now(cx, &remote),
            Found::Creating => self.defer(Deferred::OpenRemote(remote)),
        }
    }

    pub(super) fn open_remote(
        &mut self,
        cx: &mut Context,
        group: &mut dyn Group,
        open: RemoteOpen,
    ) {
        if self.is_attached(open.from) {
            self.open_remote_now(cx, &open);
            self.send_outgoing(cx, group, open.from.node);
        }
    }

    fn open_remote_now(&mut self, cx: &mut Context, open: &RemoteOpen) {
        let result = open_handle(cx, open.handle, open.queue, open.reads);
        if result.is_ok()
            && let Some(served) = self.forwarders.get_mut(&open.from.node)
        {
            served.handles.push(open.handle);
            if served.paused {
                cx.machine.pause(open.handle);
            }
            let (node, queue) = (open.from.node, open.queue);
            let remote = RemoteHandle { node, queue, paused: false };
            self.remote.insert(open.handle, remote);
        }
        self.tell_opened(open, result);
    }

    fn tell_opened(&mut self, open: &RemoteOpen, result: Result<(), OpenRefusal>) {
        let (outcome, reason) = match result {
            Ok(()) => (0, String::new()),
            Err(OpenRefusal::Refused(reason)) => (1, reason),
            Err(OpenRefusal::Deleted) => (2, String::new()),
            Err(OpenRefusal::NotReady(reason)) => (3, reason.to_owned()),
        };
        let opened = Opened { handle: open.handle.0, outcome, reason };
        self.queue(open.from, PeerMessage::Opened(opened));
    }

    fn serve_puts(
        &mut self,
        cx: &mut Context,
        group: &dyn Group,
        from: Attached,
        publish: peer_message::Publish,
    ) {
        for put in publish.puts {
            self.taken += 1;
            let Attached { node, attachment } = from;
            let origin = Origin::Node { node, attachment, number: put.number };
            let Some(guid) = guid_of(&put.guid) else {
                self.ack_remote(node, attachment, put.number, AckStatus::Unknown);
                continue;
            };
            let remote = RemotePut {
                queue: QueueId(put.queue),
                guid,
                attributes: attributes_of(put.attributes),
                app_data: put.app_data,
            };
            let taken = self.taken;
            self.waiting.push_back(WaitingPut { origin, taken, remote: Some(remote) });
        }
        self.fill_entry(cx, group);
    }

    fn serve_ask(
        &mut self,
        cx: &mut Context,
        group: &mut dyn Group,
        from: Attached,
        ask: &peer_message::Ask,
    ) {
        let Attached { node, attachment } = from;
        let requester = Requester::Node { node, attachment, number: ask.number };
        let queue = QueueId(ask.queue);
        let unused = Removable::UnusedFor(Duration::from_millis(ask.unused_ms));
        match ask.what {
            1 => self.on_purge(cx, group, requester, queue),
            2 => self.on_delete(cx, group, requester, queue, Removable::Closed),
            3 => self.on_delete(cx, group, requester, queue, unused),
            _ => {
                let refused = AdminRefusal::Failed("the leader is older and cannot do it".into());
                self.keep_admin_answer(node, attachment, ask.number, Err(refused));
            }
        }
    }

    /// Everything that was published before is answered: closes, and says so.
    pub(super) fn close_remotes(
        &mut self,
        cx: &mut Context,
        group: &mut dyn Group,
        from: Attached,
        number: u64,
        handles: Vec<HandleId>,
    ) {
        if !self.is_attached(from) {
            return;
        }
        self.queue_deliveries(from.node);
        for handle in handles {
            self.close_remote(cx, from, handle, false);
        }
        self.queue(from, PeerMessage::Closed(number));
        self.send_outgoing(cx, group, from.node);
    }

    fn close_remote(&mut self, cx: &mut Context, from: Attached, handle: HandleId, lost: bool) {
        if self.remote.get(&handle).is_none_or(|remote| remote.node != from.node) {
            return;
        }
        self.release(cx, handle, lost);
        self.remote.remove(&handle);
        if let Some(served) = self.forwarders.get_mut(&from.node) {
            served.handles.retain(|open| *open != handle);
        }
    }

    pub(super) fn tell_confirmed(
        &mut self,
        cx: &mut Context,
        group: &mut dyn Group,
        from: Attached,
        number: u64,
    ) {
        if self.is_attached(from) {
            self.queue(from, PeerMessage::Confirmed(number));
            self.send_outgoing(cx, group, from.node);
        }
    }

    /// The answer to a PUT of a forwarder's client, to leave at the end of the turn.
    pub(super) fn ack_remote(
        &mut self,
        node: NodeId,
        attachment: AttachmentId,
        number: u64,
        status: AckStatus,
    ) {
        if let Some(served) = self.served(Attached { node, attachment }) {
            served.acks.push(WireAck { number, status: u32::from(status.to_wire()) });
        }
    }

    /// The answer to another node's administrator, to leave at the end of the turn.
    pub(super) fn keep_admin_answer(
        &mut self,
        node: NodeId,
        attachment: AttachmentId,
        number: u64,
        result: Result<Purged, AdminRefusal>,
    ) {
        let Some(served) = self.served(Attached { node, attachment }) else { return };
        let (outcome, reason, first, second) = match result {
            Ok(purged) => (0, String::new(), purged.messages, purged.bytes),
            Err(AdminRefusal::NoSuchQueue) => (1, String::new(), 0, 0),
            Err(AdminRefusal::Used) => (2, String::new(), 0, 0),
            Err(AdminRefusal::InUse { consumers, producers }) => {
                (3, String::new(), consumers as u64, producers as u64)
            }
            Err(AdminRefusal::Failed(reason)) => (4, reason, 0, 0),
        };
        served.answers.push(peer_message::Answer { number, outcome, reason, first, second });
    }

    /// A message for a forwarder's client, to leave at the end of the turn.
    pub(super) fn push_remote(&mut self, group: &dyn Group, node: NodeId, delivery: Delivery) {
        let Some(served) = self.forwarders.get_mut(&node) else { return };
        let size = delivery.app_data.len();
        let worth_it = served.has_log && size >= WORTH_LOOKING_UP;
        let held = worth_it.then(|| group.term_held_by(node, delivery.entry)).flatten();
        let reference = held.map(|term| LogReference {
            index: delivery.entry,
            term,
            offset: delivery.offset,
            size: size as u32,
        });
        let app_data = if reference.is_some() { Bytes::new() } else { delivery.app_data };
        served.pushes.push(WirePush {
            handle: delivery.handle.0,
            subscription: delivery.subscription,
            guid: guid_bytes(MessageGuid(delivery.guid.0)),
            attributes: attributes_word(delivery.attributes),
            redelivered: delivery.redelivered,
            app_data,
            reference,
        });
    }

    /// Sends what this turn produced for forwarders.
    pub(super) fn flush_forwarders(&mut self, cx: &mut Context, group: &mut dyn Group) {
        let has_news = |served: &ServedForwarder| {
            !served.acks.is_empty() || !served.pushes.is_empty() || !served.answers.is_empty()
        };
        let due = self.forwarders.iter().filter(|(_, served)| has_news(served));
        let due: Vec<NodeId> = due.map(|(node, _)| *node).collect();
        for node in due {
            self.queue_deliveries(node);
            self.send_outgoing(cx, group, node);
        }
    }

    /// Puts acknowledgements and messages into frames.
    fn queue_deliveries(&mut self, node: NodeId) {
        let Some(served) = self.forwarders.get_mut(&node) else { return };
        let mut acks = std::mem::take(&mut served.acks);
        let mut pushes = Vec::new();
        let mut bytes = 0;
        for push in std::mem::take(&mut served.pushes) {
            bytes += push.app_data.len() + 64;
            pushes.push(push);
            if bytes >= FRAME_BYTES {
                bytes = 0;
                let (acks, pushes) = (std::mem::take(&mut acks), std::mem::take(&mut pushes));
                served.queue(PeerMessage::Deliver(Deliver { acks, pushes }));
            }
        }
        if !acks.is_empty() || !pushes.is_empty() {
            served.queue(PeerMessage::Deliver(Deliver { acks, pushes }));
        }
        for answer in std::mem::take(&mut served.answers) {
            served.queue(PeerMessage::Answer(answer));
        }
    }

    fn queue(&mut self, to: Attached, message: PeerMessage) {
        if let Some(served) = self.served(to) {
            served.queue(message);
        }
    }

    /// Sends what waits for a forwarder; while some still waits, its clients get nothing more.
    fn send_outgoing(&mut self, cx: &mut Context, group: &mut dyn Group, node: NodeId) {
        let Some(served) = self.forwarders.get_mut(&node) else { return };
        let mut all_sent = true;
        while let Some(frame) = served.outgoing.front() {
            match group.send(node, frame.clone()) {
                Ok(()) => {
                    served.outgoing.pop_front();
                }
                Err(NotSent::Full) => {
                    all_sent = false;
                    break;
                }
                // It attaches again once it can be reached.
                Err(NotSent::Gone) => return self.drop_forwarder(cx, node),
            }
        }
        if all_sent != served.paused {
            return;
        }
        served.paused = !all_sent;
        for handle in &served.handles {
            let client_paused = self.remote.get(handle).is_some_and(|remote| remote.paused);
            if !all_sent {
                cx.machine.pause(*handle);
            } else if !client_paused {
                cx.machine.resume(*handle);
            }
        }
    }

    fn is_attached(&self, from: Attached) -> bool {
        self.forwarders.get(&from.node).is_some_and(|served| served.attachment == from.attachment)
    }

    fn served(&mut self, from: Attached) -> Option<&mut ServedForwarder> {
        let served = self.forwarders.get_mut(&from.node)?;
        (served.attachment == from.attachment).then_some(served)
    }
}
