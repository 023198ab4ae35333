//! The leader's half: clients of other nodes, served through their gateways.

use std::collections::VecDeque;

use bytes::Bytes;
use flintmq_consensus::NodeId;
use flintmq_protocol::ack::AckStatus;
use flintmq_protocol::guid::MessageGuid;
use flintmq_queue::{Delivery, Guid, HandleId, QueueId, QueueSettings};
use tokio::sync::oneshot;

use super::wire::{self, Said};
use super::{
    LEADER_CHANGED, Served, attributes_of, attributes_word, guid_bytes, guid_of, send_waiting,
    subscription_of,
};
use crate::partition::handles::Found;
use crate::partition::publish::Origin;
use crate::partition::requests::{AdminRefusal, OpenRefusal, Purged, Removable};
use crate::partition::task::{Deferred, PartitionTask, RemoteOpen, Signal};

/// Bytes of messages in one frame, after which the next begins.
const FRAME_BYTES: usize = 512 << 10;

/// Bytes of a message from which a gateway that has it is only told where.
const WORTH_LOOKING_UP: usize = 64;

impl PartitionTask {
    /// Tells all other nodes, or one, that this one leads and serves: also those that do not hold
    /// the partition have clients.
    pub(in crate::partition) fn invite(&mut self, only: Option<NodeId>) {
        let term = self.replica.term();
        let peers: Vec<NodeId> = match only {
            Some(peer) => vec![peer],
            None => self.reconciler.in_reach().collect(),
        };
        for peer in peers {
            self.tell(peer, Said::Invite(wire::Invite { term }));
        }
    }

    /// Once per tick: an invitation may have been lost, or come too early.
    pub(in crate::partition) fn invite_again(&mut self) {
        let leads = self.machine.is_leading() && self.replica.is_serving();
        if !leads || !self.gateway.is_needed() {
            return;
        }
        let peers: Vec<NodeId> = self.reconciler.in_reach().collect();
        for peer in peers {
            if !self.gateway.served.contains_key(&peer) {
                self.invite(Some(peer));
            }
        }
    }

    pub(super) fn on_hello(&mut self, from: NodeId, has_log: bool) {
        if !self.machine.is_leading() {
            return;
        }
        self.drop_gateway(from);
        self.gateway.served.insert(from, Served { has_log, ..Served::default() });
    }

    /// A gateway is gone: what its clients had open is closed. That is not their fault, so nothing
    /// counts as a failed delivery.
    pub(in crate::partition) fn drop_gateway(&mut self, node: NodeId) {
        let Some(served) = self.gateway.served.remove(&node) else { return };
        for handle in served.handles {
            self.release(handle, false);
            self.handles.remove(&handle);
        }
    }

    /// This node no longer leads: whoever was served is served elsewhere.
    pub(in crate::partition) fn drop_all_gateways(&mut self) {
        for (_, served) in self.gateway.served.drain() {
            for handle in served.handles {
                self.handles.remove(&handle);
            }
        }
    }

    pub(super) fn serve_gateway(&mut self, from: NodeId, said: Said) {
        match said {
            Said::Open(open) => self.serve_open(from, open),
            Said::Configure(configure) => {
                self.flush_gateway(from);
                let subscriptions = configure.subscriptions.iter().map(subscription_of).collect();
                let done =
                    self.machine.configure(HandleId(configure.handle), subscriptions).is_ok();
                if configure.number > 0 {
                    let number = configure.number;
                    self.tell(from, Said::Configured(wire::Configured { number, done }));
                }
            }
            Said::Close(close) if close.lost => {
                for handle in close.handles {
                    self.close_remote(from, HandleId(handle), true);
                }
                self.tell(from, Said::Closed(close.number));
            }
            Said::Close(close) => {
                let handles = close.handles.into_iter().map(HandleId).collect();
                self.defer(Deferred::CloseRemote(from, close.number, handles));
            }
            Said::Publish(publish) => self.serve_puts(from, publish),
            Said::Confirm(confirm) => {
                for one in confirm.confirms {
                    if let Some(guid) = guid_of(&one.guid) {
                        self.take_confirm(HandleId(one.handle), guid);
                    }
                }
                self.defer(Deferred::ConfirmedRemote(from, confirm.number));
            }
            Said::Pause(handles) => {
                for handle in handles.handles {
                    self.machine.pause(HandleId(handle));
                }
            }
            Said::Resume(handles) => {
                for handle in handles.handles {
                    self.machine.resume(HandleId(handle));
                }
            }
            Said::Update(update) => {
                if let Ok(settings) = QueueSettings::from_bytes(&update.settings) {
                    self.on_update(QueueId(update.queue), &settings);
                }
            }
            Said::Ask(ask) => self.serve_ask(from, &ask),
            Said::MayDrop(term) => {
                let wanted = self.reconciler.wants(self.group(), from);
                if term == self.replica.term()
                    && !wanted
                    && !self.replica.holds(from)
                    && self.replica.is_settled()
                {
                    self.tell(from, Said::Drop(term));
                }
            }
            _ => {}
        }
    }

    fn serve_open(&mut self, from: NodeId, open: wire::Open) {
        let handle = HandleId(open.handle);
        let Ok(settings) = QueueSettings::from_bytes(&open.settings) else {
            let reason = "the queue's settings cannot be read: is the node newer?".to_owned();
            let opened = wire::Opened { handle: handle.0, outcome: 1, reason };
            self.tell(from, Said::Opened(opened));
            return;
        };
        let queue = QueueId(open.queue);
        let remote = RemoteOpen { node: from, handle, queue, reads: open.reads };
        match self.find_or_create(queue, &open.uri, &settings) {
            Found::Deleted => self.tell_opened(&remote, Err(OpenRefusal::Deleted)),
            Found::Here => self.open_remote(remote),
            Found::Creating => self.defer(Deferred::OpenRemote(remote)),
        }
    }

    /// A handle of a gateway was opened, or not.
    pub(in crate::partition) fn tell_opened(
        &mut self,
        remote: &RemoteOpen,
        result: Result<(), OpenRefusal>,
    ) {
        if result.is_ok()
            && let Some(served) = self.gateway.served.get_mut(&remote.node)
        {
            served.handles.push(remote.handle);
            if served.paused {
                self.machine.pause(remote.handle);
            }
        }
        let (outcome, reason) = match result {
            Ok(()) => (0, String::new()),
            Err(OpenRefusal::Refused(reason)) => (1, reason),
            Err(OpenRefusal::Deleted) => (2, String::new()),
            Err(OpenRefusal::NotReady(reason)) => (3, reason.to_owned()),
        };
        let opened = wire::Opened { handle: remote.handle.0, outcome, reason };
        self.tell(remote.node, Said::Opened(opened));
    }

    fn serve_puts(&mut self, from: NodeId, publish: wire::Publish) {
        for put in publish.puts {
            let Some(guid) = guid_of(&put.guid) else { continue };
            let put = crate::partition::requests::Put {
                handle: HandleId(0),
                queue: QueueId(put.queue),
                guid,
                correlation_id: 0,
                ack_requested: true,
                attributes: attributes_of(put.attributes),
                app_data: put.app_data,
            };
            self.waiting_puts.push_back((Origin::Node(from), put));
        }
        self.fill_entry();
    }

    fn serve_ask(&mut self, from: NodeId, ask: &wire::Ask) {
        let (number, queue, signals) = (ask.number, QueueId(ask.queue), self.signals.clone());
        match ask.what {
            1 => {
                let (done, answer) = oneshot::channel();
                self.on_purge(queue, done);
                tokio::spawn(async move {
                    let result = answer.await.unwrap_or_else(|_| Err(no_longer()));
                    let _task_gone = signals.send(Signal::Answer(from, number, result));
                });
            }
            2 => {
                let (done, answer) = oneshot::channel();
                self.on_delete(queue, Removable::Closed, done);
                tokio::spawn(async move {
                    let result = answer.await.unwrap_or_else(|_| Err(no_longer()));
                    let result = result.map(|()| Purged::default());
                    let _task_gone = signals.send(Signal::Answer(from, number, result));
                });
            }
            _ => {
                let refused = AdminRefusal::Failed("the leader is older and cannot do it".into());
                self.tell_answer(from, number, Err(refused));
            }
        }
    }

    /// An administrator's request of another node is done.
    pub(in crate::partition) fn tell_answer(
        &mut self,
        to: NodeId,
        number: u64,
        result: Result<Purged, AdminRefusal>,
    ) {
        let (outcome, reason, first, second) = match result {
            Ok(purged) => (0, String::new(), purged.messages, purged.bytes),
            Err(AdminRefusal::NoSuchQueue) => (1, String::new(), 0, 0),
            Err(AdminRefusal::Used) => (2, String::new(), 0, 0),
            Err(AdminRefusal::InUse { consumers, producers }) => {
                (3, String::new(), consumers as u64, producers as u64)
            }
            Err(AdminRefusal::Failed(reason)) => (4, reason, 0, 0),
        };
        self.tell(to, Said::Answer(wire::Answer { number, outcome, reason, first, second }));
    }

    /// Everything that was published before is answered: closes, and says so.
    pub(in crate::partition) fn close_remotes(
        &mut self,
        node: NodeId,
        number: u64,
        handles: Vec<HandleId>,
    ) {
        self.flush_gateway(node);
        for handle in handles {
            self.close_remote(node, handle, false);
        }
        self.tell(node, Said::Closed(number));
    }

    fn close_remote(&mut self, node: NodeId, handle: HandleId, lost: bool) {
        self.release(handle, lost);
        self.handles.remove(&handle);
        if let Some(served) = self.gateway.served.get_mut(&node) {
            served.handles.retain(|open| *open != handle);
        }
    }

    pub(in crate::partition) fn tell_confirmed(&mut self, node: NodeId, number: u64) {
        self.tell(node, Said::Confirmed(number));
    }

    /// The answer to a PUT of a gateway's client, to leave at the end of the round.
    pub(in crate::partition) fn ack_remote(
        &mut self,
        node: NodeId,
        guid: MessageGuid,
        status: AckStatus,
    ) {
        if let Some(served) = self.gateway.served.get_mut(&node) {
            let status = u32::from(status.to_wire());
            served.acks.push(wire::Ack { guid: guid_bytes(guid), status });
        }
    }

    /// A message for a gateway's client, to leave at the end of the round.
    pub(in crate::partition) fn push_remote(&mut self, node: NodeId, delivery: Delivery) {
        if let Some(served) = self.gateway.served.get_mut(&node) {
            let Guid(guid) = delivery.guid;
            let size = delivery.app_data.len();
            let worth_it = served.has_log && size >= WORTH_LOOKING_UP;
            let held = worth_it.then(|| self.replica.term_held_by(node, delivery.entry)).flatten();
            let place = held.map(|term| wire::Place {
                index: delivery.entry,
                term,
                offset: delivery.offset,
                size: size as u32,
            });
            let app_data = if place.is_some() { Bytes::new() } else { delivery.app_data };
            served.pushes.push(wire::Push {
                handle: delivery.handle.0,
                subscription: delivery.subscription,
                guid: guid_bytes(MessageGuid(guid)),
                attributes: attributes_word(delivery.attributes),
                redelivered: delivery.redelivered,
                arrival_ms: delivery.arrival_ms,
                app_data,
                place,
            });
        }
    }

    /// Sends what this round produced for gateways.
    pub(in crate::partition) fn flush_gateways(&mut self) {
        let due: Vec<NodeId> = self
            .gateway
            .served
            .iter()
            .filter(|(_, served)| !served.acks.is_empty() || !served.pushes.is_empty())
            .map(|(node, _)| *node)
            .collect();
        for node in due {
            self.flush_gateway(node);
        }
    }

    fn flush_gateway(&mut self, node: NodeId) {
        let Some(served) = self.gateway.served.get_mut(&node) else { return };
        let mut acks = std::mem::take(&mut served.acks);
        let mut pushes = Vec::new();
        let mut bytes = 0;
        let mut frames = Vec::new();
        for push in std::mem::take(&mut served.pushes) {
            bytes += push.app_data.len() + 64;
            pushes.push(push);
            if bytes >= FRAME_BYTES {
                bytes = 0;
                let (acks, pushes) = (std::mem::take(&mut acks), std::mem::take(&mut pushes));
                frames.push(Said::Deliver(wire::Deliver { acks, pushes }));
            }
        }
        if !acks.is_empty() || !pushes.is_empty() {
            frames.push(Said::Deliver(wire::Deliver { acks, pushes }));
        }
        for frame in frames {
            self.tell(node, frame);
        }
    }

    fn tell(&mut self, to: NodeId, said: Said) {
        let frame = said.into_bytes();
        let mut unserved = VecDeque::new();
        let waiting = match self.gateway.served.get_mut(&to) {
            Some(served) => &mut served.waiting,
            None => &mut unserved,
        };
        waiting.push_back(frame);
        self.send_to_gateway(to, unserved);
    }

    /// Sends what waits for a gateway; while some still waits, its clients get nothing more.
    fn send_to_gateway(&mut self, to: NodeId, mut unserved: VecDeque<Bytes>) {
        let group = self.replica.group();
        let Some(links) = &self.gateway.links else { return };
        let Some(served) = self.gateway.served.get_mut(&to) else {
            // Not served yet: an invitation, which is repeated when the node can be reached.
            send_waiting(links, to, group, &mut unserved);
            return;
        };
        let sent = send_waiting(links, to, group, &mut served.waiting);
        if sent == served.paused {
            served.paused = !sent;
            for handle in &served.handles {
                if sent {
                    self.machine.resume(*handle);
                } else {
                    self.machine.pause(*handle);
                }
            }
        }
        if !sent {
            self.wait_for_room(to);
        }
    }

    pub(super) fn send_waiting_to_gateways(&mut self) {
        let behind: Vec<NodeId> = self
            .gateway
            .served
            .iter()
            .filter(|(_, served)| !served.waiting.is_empty())
            .map(|(node, _)| *node)
            .collect();
        for node in behind {
            self.send_to_gateway(node, VecDeque::new());
        }
    }
}

fn no_longer() -> AdminRefusal {
    AdminRefusal::Failed(LEADER_CHANGED.to_owned())
}
