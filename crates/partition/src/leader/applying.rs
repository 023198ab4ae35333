//! From committed entries to answers, and what waits for everything before it.

use flintmq_consensus::{LogPosition, Time};
use flintmq_protocol::ack::AckStatus;
use flintmq_queue::{HandleId, Outcome, QueueId};
use flintmq_shard::Group;

use super::publishing::Proposed;
use super::{LEADER_CHANGED, Leader, Requester};
use crate::context::Context;
use crate::effect::{AdminRefusal, Answer, Effect, Purged, RejectReason};
use crate::peer_message::AttachmentId;
use crate::request::Ticket;

/// What is done when everything that was taken before is applied or answered.
#[derive(Debug)]
pub(super) enum Deferred {
    /// A pending open, whose queue exists by then.
    Open(HandleId),
    /// A pending close or end of a session.
    Close(u64),
    Settled(Ticket),
    Deleted(QueueId, Requester),
    /// An open of a forwarder.
    OpenRemote(RemoteOpen),
    /// A close of a forwarder, with its number there.
    CloseRemote {
        from: Attached,
        number: u64,
        handles: Vec<HandleId>,
    },
    /// Confirmations of a forwarder, up to its number.
    Confirmed {
        from: Attached,
        number: u64,
    },
}

/// A forwarder under one attachment: what it asked for under another is void.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Attached {
    pub(super) node: flintmq_consensus::NodeId,
    pub(super) attachment: AttachmentId,
}

/// An open of a forwarder.
#[derive(Clone, Copy, Debug)]
pub(super) struct RemoteOpen {
    pub(super) from: Attached,
    pub(super) handle: HandleId,
    pub(super) queue: QueueId,
    pub(super) reads: bool,
}

impl Leader {
    /// An entry is applied: answers the PUTs in it. One that stands at the same index but was
    /// appended under another term is not the one that was proposed here.
    pub(crate) fn on_applied(&mut self, cx: &mut Context, now: Time, position: LogPosition) {
        let applied = |proposed: &Proposed| proposed.position == position;
        let Some(proposed) = self.under_way.pop_front_if(|proposed| applied(proposed)) else {
            return;
        };
        let outcomes = std::mem::take(&mut cx.applied.outcomes);
        for (outcome, put) in outcomes.iter().zip(&proposed.order) {
            let Some(put) = proposed.puts.get(*put as usize) else { continue };
            let (status, rejected) = match outcome {
                Outcome::Stored { .. } => {
                    cx.queues.count(put.queue, |counts| {
                        counts.published.0 += 1;
                        counts.published.1 += put.bytes as u64;
                    });
                    (AckStatus::Success, None)
                }
                Outcome::Duplicate => {
                    cx.queues.count(put.queue, |counts| counts.duplicates += 1);
                    (AckStatus::Success, None)
                }
                Outcome::RefusedMessages => {
                    (AckStatus::LimitMessages, Some(RejectReason::LimitMessages))
                }
                Outcome::RefusedBytes => (AckStatus::LimitBytes, Some(RejectReason::LimitBytes)),
                Outcome::UnknownQueue => (AckStatus::Unknown, Some(RejectReason::Invalid)),
            };
            self.answer_put(cx, put.origin, put.queue, status, rejected);
        }
        cx.applied.outcomes = outcomes;
        cx.pending.confirmed(proposed.confirmed_upto);
        if !proposed.puts.is_empty() {
            cx.effects.push(Effect::PublishLatency(now.since(proposed.since)));
        }
        self.done = proposed.done;
    }

    /// A queue was created, or was not.
    pub(crate) fn on_created(&mut self, queue: QueueId) {
        self.creating.remove(&queue);
    }

    /// A purge was applied.
    pub(crate) fn on_purged(&mut self, cx: &mut Context, queue: QueueId, purged: Purged) {
        if let Some(at) = self.purges.iter().position(|(waiting, _)| *waiting == queue)
            && let Some((_, requester)) = self.purges.remove(at)
        {
            self.answer_purge(cx, requester, Ok(purged));
        }
    }

    /// Does it when everything taken so far is applied or answered.
    pub(super) fn defer(&mut self, deferred: Deferred) {
        self.deferred.push_back((self.taken, deferred));
    }

    /// Answers when everything taken so far is applied.
    pub(crate) fn on_settled(&mut self, cx: &mut Context, group: &mut dyn Group, ticket: Ticket) {
        self.defer(Deferred::Settled(ticket));
        self.run_deferred(cx, group);
    }

    /// Whether nothing that was taken waits for the log.
    pub(super) fn has_nothing_under_way(&self) -> bool {
        self.under_way.is_empty()
            && self.refused.is_none()
            && self.builder.is_empty()
            && self.waiting.is_empty()
    }

    /// Does what waited for what is done by now.
    pub(super) fn run_deferred(&mut self, cx: &mut Context, group: &mut dyn Group) {
        if self.has_nothing_under_way() {
            self.done = self.taken;
        }
        let done = self.done;
        while let Some((_, deferred)) = self.deferred.pop_front_if(|(after, _)| *after <= done) {
            match deferred {
                Deferred::Open(handle) => self.open_existing(cx, handle),
                Deferred::Close(number) => self.close_now(cx, number),
                Deferred::Settled(ticket) => cx.answer(ticket, Answer::Settled),
                Deferred::Deleted(queue, requester) => {
                    let gone = cx.machine.settings(queue).is_none();
                    let failed = || AdminRefusal::Failed(LEADER_CHANGED.to_owned());
                    self.answer_delete(cx, requester, if gone { Ok(()) } else { Err(failed()) });
                }
                Deferred::OpenRemote(open) => self.open_remote(cx, group, open),
                Deferred::CloseRemote { from, number, handles } => {
                    self.close_remotes(cx, group, from, number, handles);
                }
                Deferred::Confirmed { from, number } => {
                    self.tell_confirmed(cx, group, from, number);
                }
            }
        }
    }

    /// Handles are closed out of turn: what would still open them is void.
    pub(super) fn cancel_opens(&mut self, handles: &[HandleId]) {
        self.deferred.retain(|(_, deferred)| match deferred {
            Deferred::OpenRemote(open) => !handles.contains(&open.handle),
            _ => true,
        });
    }
}
