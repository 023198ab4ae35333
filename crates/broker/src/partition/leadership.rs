//! From follower to leader and back: what clients of this node have open and wait for moves along.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use flintmq_queue::{EntryBuilder, HandleId, Partition, QueueId};
use tokio::sync::oneshot;

use super::gateway::Closing;
use super::publish::Origin;
use super::requests::{AdminRefusal, HandleRole, Open};
use super::task::{Deferred, HandleEntry, LocalHandle, Owner, PartitionTask};
use crate::replica::{ReplicaError, ReplicaStatus};

/// How long a stopping node tries to hand a leadership over.
const HAND_OVER: Duration = Duration::from_secs(5);

/// How long a leader serves before it makes room for the one that should lead: failures come in
/// rows.
const SETTLED: Duration = Duration::from_secs(5);

impl PartitionTask {
    /// Follows the replica when it has begun to serve, or ceased to.
    pub(super) fn follow_leadership(&mut self) {
        match (self.machine.is_leading(), self.replica.is_serving()) {
            (false, true) => self.take_lead(),
            (true, false) => self.lose_lead(),
            _ => {}
        }
    }

    /// The node is stopping. With others in the cluster, one of them leads on; alone, nothing more
    /// is delivered.
    pub(super) fn on_stop_delivery(&mut self, idle: oneshot::Sender<()>) {
        self.stopping = true;
        if self.gateway.is_needed() && self.replica.successor().is_some() {
            self.handing_over = Some((Instant::now(), idle));
        } else {
            self.delivering = false;
            self.idle = Some(idle);
        }
    }

    /// Nobody leads and too few are there to change that: nothing is decided any more.
    pub(super) fn is_cut_off(&self) -> bool {
        self.gateway.leader().is_none() && !self.replica.is_quorum_in_reach()
    }

    /// While the node stops and is cut off, sessions do not wait for what they published to be
    /// decided. It was not acknowledged.
    pub(super) fn let_sessions_go(&mut self) {
        if !self.stopping || !self.is_cut_off() {
            return;
        }
        for (index, deferred) in std::mem::take(&mut self.deferred) {
            match deferred {
                Deferred::Close(close) => self.close_now(*close),
                Deferred::SessionEnded(ended) => self.end_session(ended),
                deferred => self.deferred.push_back((index, deferred)),
            }
        }
        for closing in self.gateway.take_closing() {
            match closing {
                Closing::Close(close) => self.close_now(*close),
                Closing::SessionEnded(ended) => self.end_session(ended),
            }
        }
    }

    /// Hands the leadership over, and says when it is done or cannot be.
    pub(super) fn go_on_handing_over(&mut self) -> Result<(), ReplicaError> {
        let Some((since, idle)) = self.handing_over.take() else { return Ok(()) };
        let waited = since.elapsed();
        if !self.machine.is_leading() || waited > HAND_OVER {
            let _gone = idle.send(());
            return Ok(());
        }
        if !self.replica.is_transferring()
            && let Some(successor) = self.replica.successor()
        {
            self.replica.transfer(successor, false)?;
        }
        self.handing_over = Some((since, idle));
        Ok(())
    }

    /// Makes room for the node that should lead, once the leadership is settled.
    pub(super) fn give_back_lead(&mut self) -> Result<(), ReplicaError> {
        let settled = self.leads_since.is_some_and(|since| since.elapsed() >= SETTLED);
        if settled
            && self.handing_over.is_none()
            && !self.replica.is_transferring()
            && let Some(preferred) = self.replica.preferred_leader()
        {
            tracing::info!(group = self.group().0, to = preferred.0, "gives the lead back");
            self.replica.transfer(preferred, false)?;
        }
        Ok(())
    }

    /// How the group is doing. Where this node holds no replica, it knows of the leader only what
    /// the leader says to gateways.
    pub(super) fn present_status(&self) -> ReplicaStatus {
        let status = self.replica.status();
        if self.replica.is_member() {
            return status;
        }
        let leader = self.gateway.leader();
        ReplicaStatus { leader, led: leader.is_some(), ..status }
    }

    fn take_lead(&mut self) {
        self.machine.lead();
        self.leads_since = Some(Instant::now());
        if !self.gateway.is_needed() {
            return;
        }
        tracing::info!(group = self.group().0, term = self.replica.term(), "leads");
        self.gateway.no_leader();
        let local = self.local_handles();
        for (handle, queue, open) in &local {
            self.open_here(*handle, *queue, open);
        }
        for open in self.gateway.take_opening() {
            self.on_open(open);
        }
        // Before anything is delivered.
        for (handle, guid) in self.gateway.take_confirms() {
            self.take_confirm(handle, guid);
        }
        for (handle, _, open) in &local {
            if !open.subscriptions.is_empty() {
                let _gone_with_its_queue =
                    self.machine.configure(*handle, open.subscriptions.to_vec());
            }
        }
        for configure in self.gateway.take_configuring() {
            self.on_configure(configure);
        }
        let unanswered = self.gateway.take_unanswered();
        self.waiting_puts
            .extend(unanswered.into_iter().map(|(session, put)| (Origin::Session(session), put)));
        self.fill_entry();
        for closing in self.gateway.take_closing() {
            match closing {
                Closing::Close(close) => self.on_close(close),
                Closing::SessionEnded(ended) => self.on_session_ended(ended),
            }
        }
        self.gateway.refuse_asked();
        self.invite(None);
    }

    /// What clients of this node have open, in the order in which they opened it.
    pub(super) fn local_handles(&self) -> Vec<(HandleId, QueueId, LocalHandle)> {
        let local = self.handles.iter().filter_map(|(handle, entry)| match &entry.owner {
            Owner::Session(local) => Some((*handle, entry.queue, local.clone())),
            Owner::Node(_) => None,
        });
        let mut local: Vec<_> = local.collect();
        local.sort_unstable_by_key(|(handle, ..)| *handle);
        local
    }

    fn open_here(&mut self, handle: HandleId, queue: QueueId, open: &LocalHandle) {
        let reads = matches!(open.role, HandleRole::Reader { .. });
        if let Err(error) = self.open_handle(handle, queue, reads) {
            tracing::warn!(handle = handle.0, %error, "a queue cannot be opened anew");
        }
        if self.links.get_mut(open.session).is_some_and(|link| link.paused) {
            self.machine.pause(handle);
        }
    }

    /// What was under way has an unknown outcome: it is kept, and said again to the next leader.
    fn lose_lead(&mut self) {
        tracing::info!(group = self.group().0, term = self.replica.term(), "leads no more");
        self.machine.follow();
        self.leads_since = None;
        self.drop_all_gateways();
        self.builder = EntryBuilder::default();
        self.confirms_due = None;
        self.collecting_since = None;
        let mut unanswered = VecDeque::new();
        let mut confirms = VecDeque::new();
        for proposed in self.under_way.drain(..) {
            unanswered.extend(proposed.puts);
            confirms.extend(proposed.confirms);
        }
        unanswered.extend(std::mem::take(&mut self.puts));
        confirms.extend(std::mem::take(&mut self.confirms));
        for pending in unanswered {
            if let (Origin::Session(session), Some(put)) = (pending.origin, pending.kept) {
                self.gateway.keep(session, put);
            }
        }
        for (origin, put) in std::mem::take(&mut self.waiting_puts) {
            if let Origin::Session(session) = origin {
                self.gateway.keep(session, put);
            }
        }
        for (handle, guid) in confirms {
            if matches!(
                self.handles.get(&handle),
                Some(HandleEntry { owner: Owner::Session(_), .. })
            ) {
                self.gateway.keep_confirm(handle, guid);
            }
        }
        self.creating.clear();
        for (_, deferred) in std::mem::take(&mut self.deferred) {
            match deferred {
                Deferred::Open(open) => self.gateway.keep_open(open),
                Deferred::Close(close) => self.gateway.keep_closing(Closing::Close(close)),
                Deferred::SessionEnded(ended) => {
                    self.gateway.keep_closing(Closing::SessionEnded(ended));
                }
                Deferred::Settled(done) => {
                    let _gone = done.send(());
                }
                Deferred::Delete(_, done) => {
                    let _gone = done.send(Err(led_elsewhere()));
                }
                Deferred::OpenRemote(_)
                | Deferred::CloseRemote(..)
                | Deferred::ConfirmedRemote(..) => {}
            }
        }
        for (_, done) in std::mem::take(&mut self.purges) {
            let _gone = done.send(Err(led_elsewhere()));
        }
        self.take_invitation();
    }

    /// Takes up the state that a snapshot, or the loss of a past, left in the store.
    pub(super) fn take_up_replaced(&mut self) -> Result<(), ReplicaError> {
        let Some(records) = self.replica.take_replaced()? else { return Ok(()) };
        self.checkpoint_waiting = None;
        self.held_dead.clear();
        self.applied_since_checkpoint = 0;
        let machine = match Partition::restore(records) {
            Ok(machine) => machine,
            Err(error) => {
                self.fatal.raise(format!("group={} {error}", self.group()));
                return Ok(());
            }
        };
        let before: Vec<_> = self.queues.keys().copied().collect();
        self.machine = machine;
        let is_member = self.replica.is_member();
        for queue in before {
            if self.machine.settings(queue).is_some() {
                continue;
            }
            if is_member {
                self.leave_queue(queue);
                self.deleted.remove(&queue);
            } else {
                // The queue is there, only not here: clients of this node have it open elsewhere.
                self.forget_series(queue);
            }
        }
        self.usage.clear();
        let known: Vec<_> = self.machine.queue_ids().collect();
        for queue in known {
            if !self.queues.contains_key(&queue) {
                self.enter_queue(queue);
            }
        }
        self.report_usage();
        Ok(())
    }

    /// Remembers a handle of a client of this node.
    pub(super) fn enter_local(&mut self, open: &Open) {
        let owner = Owner::Session(LocalHandle {
            session: open.session.id,
            role: open.role,
            uri: open.uri.as_str().into(),
            settings: std::sync::Arc::new(open.settings.clone()),
            subscriptions: std::sync::Arc::default(),
        });
        self.handles.insert(open.handle, HandleEntry { owner, queue: open.queue });
        let link = self.links.enter(&open.session);
        link.handles.push(open.handle);
    }

    /// Remembers what a handle of a client of this node is subscribed to.
    pub(super) fn remember_subscriptions(
        &mut self,
        handle: HandleId,
        subscriptions: &[flintmq_queue::Subscription],
    ) {
        if let Some(HandleEntry { owner: Owner::Session(local), .. }) =
            self.handles.get_mut(&handle)
        {
            local.subscriptions = subscriptions.to_vec().into();
        }
    }
}

fn led_elsewhere() -> AdminRefusal {
    AdminRefusal::Failed("another node leads the partition now: look again".into())
}
