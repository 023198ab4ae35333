//! What the leader says: answers to what was asked, in its order.

use flintmq_protocol::ack::AckStatus;
use flintmq_queue::HandleId;
use flintmq_shard::Group;

use super::Forwarder;
use super::arriving::Arrived;
use crate::context::Context;
use crate::effect::{AdminRefusal, Answer, OpenRefusal, Purged};
use crate::peer_message::{self, Frame, Opened, PeerMessage};
use crate::pending::AdminRequest;

impl Forwarder {
    /// A frame of the leader. One of another attachment is void.
    pub(crate) fn on_frame(&mut self, cx: &mut Context, group: &mut dyn Group, frame: Frame) {
        if frame.attachment != Some(self.attachment) {
            return;
        }
        let Some(message) = frame.message else { return };
        if let PeerMessage::Detached(_) = message {
            self.broken = true;
            return;
        }
        if frame.number <= self.received {
            return;
        }
        if frame.number != self.received + 1 {
            self.broken = true;
            return;
        }
        self.received = frame.number;
        self.on_message(cx, group, message);
    }

    fn on_message(&mut self, cx: &mut Context, group: &mut dyn Group, message: PeerMessage) {
        self.active |= !matches!(message, PeerMessage::Received(_)) || self.probing.is_none();
        match message {
            PeerMessage::Opened(opened) => self.on_opened(cx, opened),
            // These answers come behind the messages that came before them.
            PeerMessage::Configured(configured) => {
                self.arrived(Arrived::Configured(configured.number, configured.done));
                self.pass_on(cx, group);
            }
            PeerMessage::Closed(number) => {
                self.arrived(Arrived::Closed(number));
                self.pass_on(cx, group);
            }
            PeerMessage::Deliver(deliver) => {
                for ack in deliver.acks {
                    let status = AckStatus::from_wire(ack.status as u8);
                    cx.answer_put(ack.number, status, None);
                }
                deliver.pushes.into_iter().for_each(|push| self.arrived(Arrived::Push(push)));
                self.pass_on(cx, group);
            }
            PeerMessage::Confirmed(number) => cx.pending.confirmed(number),
            PeerMessage::Answer(answer) => on_answer(cx, answer),
            // It came in order: all frames that the leader sent before are here, and all that were
            // sent to it are there.
            PeerMessage::Received(_) => self.probing = None,
            // A forwarder's words, or a newer version's.
            _ => {}
        }
    }

    fn on_opened(&mut self, cx: &mut Context, opened: Opened) {
        let handle = HandleId(opened.handle);
        let Some(open) = cx.pending.opens.remove(&handle) else {
            // Opened again at this leader. Its client believes that it has the queue open.
            if matches!(opened.outcome, 1 | 2) {
                cx.end_session_of(handle, "a queue that it has open is gone");
            }
            return;
        };
        match opened.outcome {
            0 => {
                cx.opened(&open);
                // The way out got full while the queue was being opened.
                if cx.is_paused(handle) {
                    let handles = vec![handle.0];
                    self.queue(PeerMessage::Pause(peer_message::Handles { handles }));
                }
            }
            1 => cx.not_opened(open.ticket, OpenRefusal::Refused(opened.reason)),
            2 => cx.not_opened(open.ticket, OpenRefusal::Deleted),
            _ => {
                let refusal = OpenRefusal::NotReady("the queue has no leader yet: try again");
                cx.not_opened(open.ticket, refusal);
            }
        }
    }
}

fn on_answer(cx: &mut Context, answer: peer_message::Answer) {
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
    match cx.pending.admin.remove(&answer.number) {
        Some(AdminRequest::Purge { ticket, .. }) => {
            cx.answer(ticket, Answer::Purged(refusal.map_or(Ok(purged), Err)));
        }
        Some(AdminRequest::Delete { ticket, .. }) => {
            cx.answer(ticket, Answer::Deleted(refusal.map_or(Ok(()), Err)));
        }
        None => {}
    }
}
