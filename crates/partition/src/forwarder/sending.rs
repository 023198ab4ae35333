//! Frames to the leader: what is pending, from the first item that was not sent.

use flintmq_shard::{Group, NotSent};

use super::Forwarder;
use crate::context::Context;
use crate::outgoing_frames::FrameLimit;
use crate::peer_message::{self, OneConfirm, PeerMessage, WirePut, attributes_word, guid_bytes};
use crate::pending::PendingConfirm;

/// PUTs in one frame.
const PUTS: FrameLimit = FrameLimit { items: 1024, bytes: 1 << 20 };

/// What a PUT takes in a frame besides its data, about.
const PUT_OVERHEAD: usize = 32;

/// Confirmations in one frame.
const CONFIRMS: FrameLimit = FrameLimit { items: 4096, bytes: usize::MAX };

impl Forwarder {
    /// Puts what was not sent yet into as few frames as fit.
    pub(super) fn queue_puts(&mut self, cx: &Context) {
        if self.next_put == cx.pending.puts.end() {
            return;
        }
        let puts = cx.pending.puts.from(self.next_put).map(|(number, pending)| {
            let put = &pending.put;
            WirePut {
                number,
                queue: put.queue.0,
                guid: guid_bytes(put.guid),
                attributes: attributes_word(put.attributes),
                app_data: put.app_data.clone(),
            }
        });
        for puts in PUTS.cut(puts, |put| put.app_data.len() + PUT_OVERHEAD) {
            self.queue(PeerMessage::Publish(peer_message::Publish { puts }));
        }
        self.next_put = cx.pending.puts.end();
    }

    /// What follows must come behind the confirmations that came before it.
    pub(super) fn flush_confirms(&mut self, cx: &Context) {
        if self.confirms_due.take().is_some() {
            self.queue_confirms(cx);
        }
    }

    pub(super) fn queue_confirms(&mut self, cx: &Context) {
        self.confirms_due = None;
        let first = cx.pending.confirms.partition_point(|one| one.number <= self.confirms_sent);
        for confirms in CONFIRMS.cut(cx.pending.confirms.range(first..), |_| 0) {
            let Some(number) = confirms.last().map(|one| one.number) else { return };
            self.confirms_sent = number;
            let wire = |one: &&PendingConfirm| OneConfirm {
                handle: one.handle.0,
                guid: guid_bytes(one.guid),
            };
            let confirms = confirms.iter().map(wire).collect();
            self.queue(PeerMessage::Confirm(peer_message::Confirm { number, confirms }));
        }
    }

    pub(super) fn queue(&mut self, message: PeerMessage) {
        self.active |= !matches!(message, PeerMessage::Probe(_));
        self.outgoing.push(message);
    }

    pub(super) fn send_outgoing(&mut self, group: &mut dyn Group) {
        if self.outgoing.send(group, self.leader) == Err(NotSent::Gone) {
            // Everything is told again, once the leader can be reached.
            self.broken = true;
            self.outgoing.clear();
        }
    }
}
