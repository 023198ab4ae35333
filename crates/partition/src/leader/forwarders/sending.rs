//! What goes to forwarders: answers and messages, in frames.

use bytes::Bytes;
use flintmq_consensus::NodeId;
use flintmq_protocol::ack::AckStatus;
use flintmq_protocol::guid::MessageGuid;
use flintmq_queue::Delivery;
use flintmq_shard::{Group, NotSent};

use super::super::Leader;
use super::super::applying::Attached;
use super::ServedForwarder;
use crate::context::Context;
use crate::effect::{AdminRefusal, Purged};
use crate::outgoing_frames::FrameLimit;
use crate::peer_message::{
    self, AttachmentId, Deliver, LogReference, PeerMessage, WireAck, WirePush, attributes_word,
    guid_bytes,
};

/// Messages in one frame.
const DELIVERIES: FrameLimit = FrameLimit { items: usize::MAX, bytes: 512 << 10 };

/// What a message takes in a frame besides its data, about.
const PUSH_OVERHEAD: usize = 64;

/// Bytes of a message from which a forwarder that has it in its log is only told where.
const WORTH_LOOKING_UP: usize = 64;

impl Leader {
    /// The answer to a PUT of a forwarder's client, to leave at the end of the turn.
    pub(in crate::leader) fn ack_remote(
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
    pub(in crate::leader) fn keep_admin_answer(
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
    pub(in crate::leader) fn push_remote(
        &mut self,
        group: &dyn Group,
        node: NodeId,
        delivery: Delivery,
    ) {
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
    pub(in crate::leader) fn flush_forwarders(&mut self, cx: &mut Context, group: &mut dyn Group) {
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
    pub(super) fn queue_deliveries(&mut self, node: NodeId) {
        let Some(served) = self.forwarders.get_mut(&node) else { return };
        let mut acks = std::mem::take(&mut served.acks);
        let pushes = std::mem::take(&mut served.pushes).into_iter();
        for pushes in DELIVERIES.cut(pushes, |push| push.app_data.len() + PUSH_OVERHEAD) {
            let acks = std::mem::take(&mut acks);
            served.outgoing.push(PeerMessage::Deliver(Deliver { acks, pushes }));
        }
        if !acks.is_empty() {
            served.outgoing.push(PeerMessage::Deliver(Deliver { acks, pushes: Vec::new() }));
        }
        for answer in std::mem::take(&mut served.answers) {
            served.outgoing.push(PeerMessage::Answer(answer));
        }
    }

    pub(super) fn queue(&mut self, to: Attached, message: PeerMessage) {
        if let Some(served) = self.served(to) {
            served.outgoing.push(message);
        }
    }

    /// Sends what waits for a forwarder; while some still waits, its clients get nothing more.
    pub(super) fn send_outgoing(&mut self, cx: &mut Context, group: &mut dyn Group, node: NodeId) {
        let Some(served) = self.forwarders.get_mut(&node) else { return };
        let all_sent = match served.outgoing.send(group, node) {
            Ok(()) => true,
            Err(NotSent::Full) => false,
            // It attaches again once it can be reached.
            Err(NotSent::Gone) => return self.drop_forwarder(cx, node),
        };
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
}
