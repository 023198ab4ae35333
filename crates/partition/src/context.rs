//! What a partition has whatever its role: the queues' replicated state, this node's clients, and
//! what they wait for.

use bytes::Bytes;
use flintmq_consensus::Time;
use flintmq_protocol::ack::{AckMessage, AckStatus};
use flintmq_protocol::guid::MessageGuid;
use flintmq_queue::{Applied, Attributes, HandleId, Partition, QueueId};

use crate::domain_usage::PartitionUsage;
use crate::effect::{Answer, Effect, OpenRefusal, RejectReason};
use crate::handles::{HandleTable, LocalHandle};
use crate::pending::{Closing, MAX_CONFIGURES, PendingWork};
use crate::queues::QueueTable;
use crate::request::{
    Close, Configure, Confirm, HandleRole, Open, SessionEnded, SessionId, Ticket,
};
use crate::sessions::{OutgoingPush, SessionTable};

/// Confirmations that may wait although nothing is known to be unconfirmed: a client that comes
/// back confirms what it was sent before.
const MAX_UNASKED_CONFIRMS: usize = 64 << 10;

/// See the module.
pub(crate) struct Context {
    pub(crate) machine: Partition,
    pub(crate) pending: PendingWork,
    pub(crate) handles: HandleTable,
    pub(crate) sessions: SessionTable,
    pub(crate) queues: QueueTable,
    pub(crate) usage: PartitionUsage,
    pub(crate) effects: Vec<Effect>,
    /// The node is stopping.
    pub(crate) stopping: bool,
    /// Reused from entry to entry.
    pub(crate) applied: Applied,
}

impl Context {
    pub(crate) fn answer(&mut self, ticket: Ticket, answer: Answer) {
        self.effects.push(Effect::Answer { ticket, answer });
    }

    /// A client of this node has a queue open now.
    pub(crate) fn opened(&mut self, open: &Open) {
        let session = self.sessions.enter(open.session, open.old_properties);
        session.handles.push(open.handle);
        self.handles.insert(open.handle, LocalHandle::of(open));
        self.answer(open.ticket, Answer::Opened(Ok(())));
    }

    pub(crate) fn not_opened(&mut self, ticket: Ticket, refusal: OpenRefusal) {
        self.answer(ticket, Answer::Opened(Err(refusal)));
    }

    /// Whether the way out to a handle's client is full.
    pub(crate) fn is_paused(&self, handle: HandleId) -> bool {
        let session = self.handles.get(handle).and_then(|local| self.sessions.get(local.session));
        session.is_some_and(|session| session.paused)
    }

    /// Keeps a request for configuration, or refuses it where too many wait.
    pub(crate) fn keep_configure(&mut self, configure: Configure) -> Option<u64> {
        if self.pending.configures.len() >= MAX_CONFIGURES {
            let (session, request_id) = (configure.session, configure.request_id);
            let message = "too many requests wait for the queue's leader: try again later";
            self.effects.push(Effect::Refuse { session, request_id, message });
            return None;
        }
        let number = self.pending.number();
        self.pending.configures.insert(number, configure);
        Some(number)
    }

    /// The subscriptions of a handle are in force, or its queue is gone. The answer leaves behind
    /// the last message under the old ones and ahead of the first under the new: any other order
    /// crashes clients (docs/protocol, data events, section 6).
    pub(crate) fn configured(&mut self, configure: Configure, done: bool) {
        let session = configure.session;
        self.sessions.flush_session(session, &mut self.effects);
        if done {
            if let Some(local) = self.handles.get_mut(configure.handle) {
                local.subscriptions = configure.subscriptions.into();
            }
            self.effects.push(Effect::Send { session, events: configure.response, answered: 0 });
        } else {
            let request_id = configure.request_id;
            let message = "the queue was deleted: close it and open it again";
            self.effects.push(Effect::Refuse { session, request_id, message });
        }
    }

    /// Takes out of `confirms` what may be kept: see [`LocalHandle::unconfirmed`].
    pub(crate) fn admit_confirms(
        &mut self,
        confirms: Vec<Confirm>,
    ) -> Vec<(HandleId, MessageGuid)> {
        let room = MAX_UNASKED_CONFIRMS.saturating_sub(self.pending.confirms.len());
        let mut unasked = 0;
        let admitted = confirms.into_iter().filter(|confirm| {
            let Some(local) = self.handles.get_mut(confirm.handle) else { return false };
            if local.unconfirmed > 0 {
                local.unconfirmed -= 1;
                return true;
            }
            unasked += 1;
            unasked <= room
        });
        admitted.map(|confirm| (confirm.handle, confirm.guid)).collect()
    }

    /// Answers a PUT of a client of this node: success only if asked for, failure always, nothing
    /// for a queue that the client has closed: an answer then would crash it (docs/protocol, data
    /// events, section 7).
    pub(crate) fn answer_put(
        &mut self,
        number: u64,
        status: AckStatus,
        rejected: Option<RejectReason>,
    ) {
        let Some(pending) = self.pending.puts.take(number) else { return };
        let put = &pending.put;
        if let Some(reason) = rejected {
            self.queues.rejected(put.queue, reason);
        }
        self.sessions.answered(pending.session, put.app_data.len(), &mut self.effects);
        let Some(local) = self.handles.get(put.handle) else { return };
        let HandleRole::Writer { queue_id } = local.role else { return };
        if status == AckStatus::Success && !put.ack_requested {
            return;
        }
        let (correlation_id, guid) = (put.correlation_id, put.guid);
        let ack = AckMessage { status, correlation_id, guid, queue_id };
        self.sessions.ack(pending.session, ack);
    }

    /// A message for a consumer of this node, to leave at the end of the turn.
    pub(crate) fn push(
        &mut self,
        handle: HandleId,
        subscription: u32,
        (guid, attributes): (MessageGuid, Attributes),
        redelivered: bool,
        app_data: Bytes,
    ) {
        let Some(local) = self.handles.get_mut(handle) else { return };
        let HandleRole::Reader { queue_id } = local.role else { return };
        local.unconfirmed += 1;
        let push = OutgoingPush { queue_id, subscription, guid, attributes, redelivered, app_data };
        self.sessions.push(local.session, push);
    }

    /// Forgets handles that are closed, and answers.
    pub(crate) fn closed(&mut self, close: Close) {
        let session = close.session;
        self.sessions.flush_session(session, &mut self.effects);
        for handle in close.handles {
            self.forget_handle(handle);
        }
        if !close.response.is_empty() {
            self.effects.push(Effect::Send { session, events: close.response, answered: 0 });
        }
    }

    /// Forgets a session and all that it has open, and answers.
    pub(crate) fn session_ended(&mut self, ended: SessionEnded) {
        self.sessions.flush_session(ended.session, &mut self.effects);
        for handle in self.handles_of(ended.session) {
            self.handles.remove(handle);
        }
        self.sessions.remove(ended.session);
        self.answer(ended.ticket, Answer::Ended);
    }

    /// What a session has open here.
    pub(crate) fn handles_of(&self, session: SessionId) -> Vec<HandleId> {
        self.sessions.get(session).map(|session| session.handles.clone()).unwrap_or_default()
    }

    /// Drops what a session that is over has asked for and will not hear the answer to; returns the
    /// handles that were being opened.
    pub(crate) fn drop_requests_of(&mut self, session: SessionId) -> Vec<HandleId> {
        let opens = self.pending.opens.iter().filter(|(_, open)| open.session == session);
        let opening: Vec<HandleId> = opens.map(|(handle, _)| *handle).collect();
        for handle in &opening {
            if let Some(open) = self.pending.opens.remove(handle) {
                self.not_opened(open.ticket, OpenRefusal::NotReady("the session is over"));
            }
        }
        self.pending.configures.retain(|_, configure| configure.session != session);
        opening
    }

    /// Does what waits for all before it, without waiting: the leader that would do it is gone.
    pub(crate) fn finish_closing(&mut self, closing: Closing) {
        match closing {
            Closing::Close(close) => self.closed(*close),
            Closing::Session(ended) => self.session_ended(ended),
        }
    }

    /// A handle is not open any more.
    pub(crate) fn forget_handle(&mut self, handle: HandleId) {
        let Some(local) = self.handles.remove(handle) else { return };
        let Some(session) = self.sessions.get_mut(local.session) else { return };
        session.handles.retain(|open| *open != handle);
        if session.handles.is_empty() {
            self.sessions.flush_session(local.session, &mut self.effects);
            self.sessions.remove(local.session);
        }
    }

    /// A handle's queue is gone, and its client does not know: it has to come again.
    pub(crate) fn end_session_of(&mut self, handle: HandleId, reason: &'static str) {
        if let Some(local) = self.handles.get(handle) {
            self.effects.push(Effect::EndSession { session: local.session, reason });
        }
        self.forget_handle(handle);
    }

    /// A queue exists in the replicated state from now on.
    pub(crate) fn enter_queue(&mut self, queue: QueueId) {
        if let Some(view) = self.machine.view(queue) {
            self.queues.enter(queue, view.uri, &mut self.effects);
        }
    }

    /// A queue was deleted: so are its handles.
    pub(crate) fn leave_queue(&mut self, now: Time, queue: QueueId) {
        self.queues.remember_deleted(now, queue);
        self.queues.leave(queue, &mut self.effects);
        for handle in self.handles.of_queue(queue) {
            self.end_session_of(handle, "a queue that it has open was deleted");
        }
    }

    /// Tells the other partitions what this one holds of each domain.
    pub(crate) fn report_usage(&mut self) {
        for (domain, messages, bytes) in self.machine.domain_usage() {
            self.usage.set(domain, messages, bytes);
        }
    }
}
