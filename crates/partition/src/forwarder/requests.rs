//! What this node's clients and administrators ask for, on its way to the leader.

use std::time::Duration;

use flintmq_consensus::Time;
use flintmq_queue::{Domain, HandleId, QueueId, Subscription};
use flintmq_shard::Group;
use flintmq_shard::mutants::{Mutant, breaks};

use super::Forwarder;
use crate::context::Context;
use crate::leader::refuse;
use crate::peer_message::{self, PeerMessage, WireSubscription};
use crate::pending::{AdminRequest, Closing, MAX_ADMIN, PendingPut};
use crate::request::{
    Close, Configure, Confirm, HandleRole, Open, Publish, Removable, SessionEnded, SessionId,
};

/// How long confirmations wait for something else that goes to the leader, and how many do.
const CONFIRMS_WAIT: Duration = Duration::from_millis(2);
const CONFIRMS_HELD: u64 = 64;

impl Forwarder {
    pub(crate) fn on_open(&mut self, cx: &mut Context, group: &mut dyn Group, open: Box<Open>) {
        self.flush_confirms(cx);
        self.queue_open(open.handle, open.queue, &open.uri, Some(&open.domain), open.role);
        cx.pending.opens.insert(open.handle, open);
        self.send_outgoing(group);
    }

    /// With the domain, from which the queue is created if it has to be. What was open before
    /// exists.
    pub(super) fn queue_open(
        &mut self,
        handle: HandleId,
        queue: QueueId,
        uri: &str,
        domain: Option<&Domain>,
        role: HandleRole,
    ) {
        self.queue(PeerMessage::Open(peer_message::Open {
            handle: handle.0,
            queue: queue.0,
            uri: uri.to_owned(),
            reads: role.reads(),
            domain: domain.map(Domain::to_bytes).unwrap_or_default().into(),
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
            self.queue_configure(number, configure.handle, &configure.subscriptions);
            self.send_outgoing(group);
        }
    }

    pub(super) fn queue_configure(
        &mut self,
        number: u64,
        handle: HandleId,
        subscriptions: &[Subscription],
    ) {
        let subscriptions = subscriptions.iter().map(WireSubscription::from).collect();
        let configure = peer_message::Configure { number, handle: handle.0, subscriptions };
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
        // What was published before must be answered before.
        self.flush_confirms(cx);
        self.queue_puts(cx);
        let number = cx.pending.number();
        cx.pending.closes.insert(number, closing);
        self.queue_close(number, handles, lost);
        self.send_outgoing(group);
    }

    pub(super) fn queue_close(&mut self, number: u64, handles: &[HandleId], lost: bool) {
        let handles = handles.iter().map(|handle| handle.0).collect();
        self.queue(PeerMessage::Close(peer_message::Close { number, handles, lost }));
    }

    pub(crate) fn on_publish(&mut self, cx: &mut Context, publish: Publish) {
        let session = publish.session;
        for put in publish.puts {
            cx.pending.puts.push(PendingPut { session, put });
        }
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
        self.queue_puts(cx);
        let number = cx.pending.number();
        let ask = |what, queue: QueueId, unused_ms| {
            PeerMessage::Ask(peer_message::Ask { number, queue: queue.0, what, unused_ms })
        };
        let message = match &request {
            AdminRequest::Purge { queue, .. } => ask(1, *queue, 0),
            AdminRequest::Delete { queue, .. } if breaks(Mutant::ConditionDropped) => {
                ask(2, *queue, 0)
            }
            AdminRequest::Delete { queue, only_if: Removable::Closed, .. } => ask(2, *queue, 0),
            AdminRequest::Delete { queue, only_if: Removable::UnusedFor(time), .. } => {
                ask(3, *queue, u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
            }
            AdminRequest::SetDomain { domain, .. } => {
                let domain = domain.to_bytes().into();
                PeerMessage::SetDomain(peer_message::SetDomain { number, domain })
            }
        };
        cx.pending.admin.insert(number, request);
        self.queue(message);
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
}

fn takes_many_ahead(cx: &Context, handle: HandleId) -> bool {
    cx.handles.get(handle).is_some_and(|local| {
        local.subscriptions.iter().all(|one| one.max_messages >= 4 * CONFIRMS_HELD)
    })
}
