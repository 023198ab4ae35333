//! The partition: its role, and what it has whatever the role.

use std::time::Duration;

use bytes::Bytes;
use flintmq_consensus::{EntryKind, Index, NodeId, Term, Time};
use flintmq_queue::{Applied, Effect as Applied_, Partition, QueueId};
use flintmq_shard::{Committed, Group, Machine, MachineFailure, QueueRecord, ReadError};
use prost::Message as _;

use crate::checkpoints::Checkpoints;
use crate::context::Context;
use crate::domain_usage::PartitionUsage;
use crate::effect::{AdminRefusal, Answer, DropReason, Effect, Purged, QueueSnapshot};
use crate::forwarder::Forwarder;
use crate::handles::HandleTable;
use crate::leader::{Leader, Requester, refuse};
use crate::peer_message::{AttachmentId, Frame, PeerMessage, Seek};
use crate::pending::{AdminRequest, Closing, PendingPut, PendingWork};
use crate::queues::QueueTable;
use crate::request::{Request, SessionEnded, SessionId};
use crate::sessions::SessionTable;

/// How long a partition without traffic waits until it logs the time, by which the history of seen
/// GUIDs grows old and gives its memory back.
const AGEING: Duration = Duration::from_secs(60);

/// Messages that one peek finds at most.
pub const MAX_PEEKED: usize = 1000;

/// What the partition is for its clients at the moment.
enum Role {
    /// This node leads.
    Leader(Box<Leader>),
    /// Another node leads, and serves this node's clients through here.
    Forwarder(Box<Forwarder>),
    /// There is no leader that is known here: everything waits.
    Leaderless,
}

/// One partition on this node. See the crate's page.
pub struct PartitionEngine {
    cx: Context,
    role: Role,
    checkpoints: Checkpoints,
    /// Who said last that it leads, while this node did not know that it leads no more.
    announced: Option<(NodeId, Term)>,
    /// This process of the node, and its count of attachments.
    process: u64,
    attachments: u64,
}

impl PartitionEngine {
    /// A partition with this replicated state; `process` names this process of the node: no other
    /// process of it ever had or gets the same.
    pub fn new(machine: Partition, usage: PartitionUsage, process: u64) -> Self {
        let cx = Context {
            machine,
            pending: PendingWork::default(),
            handles: HandleTable::default(),
            sessions: SessionTable::default(),
            queues: QueueTable::default(),
            usage,
            effects: Vec::new(),
            stopping: false,
            applied: Applied::default(),
        };
        let mut engine = Self {
            cx,
            role: Role::Leaderless,
            checkpoints: Checkpoints::default(),
            announced: None,
            process,
            attachments: 0,
        };
        engine.enter_queues();
        engine
    }

    /// The replicated state.
    pub fn machine(&self) -> &Partition {
        &self.cx.machine
    }

    /// Takes what is to be done for it, in order.
    pub fn effects(&mut self) -> impl Iterator<Item = Effect> {
        self.cx.effects.drain(..)
    }

    /// Whether nothing that a client of this node asked for waits for an answer.
    pub fn is_idle(&self) -> bool {
        self.cx.pending.is_empty()
    }

    fn enter_queues(&mut self) {
        let queues: Vec<QueueId> = self.cx.machine.queue_ids().collect();
        for queue in queues {
            if !self.cx.queues.contains(queue) {
                self.cx.enter_queue(queue);
            }
        }
        self.cx.report_usage();
    }

    fn attach(&mut self, group: &mut dyn Group, leader: (NodeId, Term)) {
        self.attachments += 1;
        let attachment = AttachmentId { process: self.process, number: self.attachments };
        tracing::debug!(group = group.id().0, leader = leader.0.0, term = leader.1, "attaches");
        let has_log = match &self.role {
            Role::Forwarder(forwarder) => !forwarder.lookup_failed(),
            Role::Leader(_) | Role::Leaderless => true,
        };
        let forwarder = Forwarder::attach(&mut self.cx, group, leader, (attachment, has_log));
        self.role = Role::Forwarder(forwarder);
    }

    /// A node says that it leads and serves.
    fn on_announced(&mut self, group: &mut dyn Group, from: NodeId, term: Term) {
        match &self.role {
            // This node has not noticed yet that it leads no more.
            Role::Leader(_) => {
                if self.announced.is_none_or(|known| is_news(known, (from, term))) {
                    self.announced = Some((from, term));
                }
            }
            Role::Forwarder(forwarder) if !is_news(forwarder.leader(), (from, term)) => {}
            Role::Forwarder(_) | Role::Leaderless => {
                if !group.is_serving() {
                    self.attach(group, (from, term));
                }
            }
        }
    }

    /// Once per tick: a leader that was out of reach for a moment may not know that it was, and so
    /// announces nothing; or its announcement was lost, and the one before is still believed in.
    fn look_for_leader(&mut self, group: &mut dyn Group) {
        let term = group.term();
        let is_due = match &self.role {
            Role::Leader(_) => false,
            Role::Forwarder(forwarder) => forwarder.leader().1 < term,
            Role::Leaderless => group.is_clustered() && !group.is_serving(),
        };
        if !is_due {
            return;
        }
        if let Some(leader) = group.leader_in_reach() {
            self.attach(group, (leader, term));
        } else if matches!(self.role, Role::Leaderless) && self.has_clients() {
            // A node without a replica does not know who leads, and a leader that has not noticed
            // that the two were apart does not say it again.
            for peer in group.peers_in_reach() {
                let _repeated_if_lost =
                    group.send(peer, PeerMessage::Seek(Seek {}).frame(None, 0));
            }
        }
    }

    fn has_clients(&self) -> bool {
        !self.cx.handles.is_empty() || !self.cx.pending.is_empty()
    }

    /// While the node stops and no leader is in reach, nobody waits for what cannot be committed.
    /// It was not acknowledged.
    fn let_sessions_go(&mut self, group: &dyn Group) {
        let cut_off = matches!(self.role, Role::Leaderless) && !group.is_quorum_in_reach();
        if self.cx.stopping && cut_off {
            for closing in std::mem::take(&mut self.cx.pending.closes).into_values() {
                self.cx.finish_closing(closing);
            }
        }
    }

    fn on_session_ended(&mut self, group: &mut dyn Group, ended: SessionEnded) {
        let cx = &mut self.cx;
        match &mut self.role {
            Role::Leader(leader) => leader.on_session_ended(cx, group, ended),
            Role::Forwarder(forwarder) => forwarder.on_session_ended(cx, group, ended),
            // No leader holds anything for it: only what it published may still wait.
            Role::Leaderless => {
                cx.drop_requests_of(ended.session);
                if ended.lost || cx.handles_of(ended.session).is_empty() {
                    cx.session_ended(ended);
                } else {
                    let number = cx.pending.number();
                    cx.pending.closes.insert(number, Closing::Session(ended));
                }
            }
        }
    }

    fn on_pause(&mut self, group: &mut dyn Group, session: SessionId, pause: bool) {
        let cx = &mut self.cx;
        let Some(found) = cx.sessions.get_mut(session) else { return };
        found.paused = pause;
        match &mut self.role {
            Role::Leader(_) => {
                for handle in cx.handles_of(session) {
                    if pause {
                        cx.machine.pause(handle);
                    } else {
                        cx.machine.resume(handle);
                    }
                }
            }
            Role::Forwarder(forwarder) => forwarder.on_pause(cx, group, session, pause),
            Role::Leaderless => {}
        }
    }

    fn on_admin(&mut self, group: &mut dyn Group, request: AdminRequest) {
        let cx = &mut self.cx;
        match &mut self.role {
            Role::Leader(leader) => match request {
                AdminRequest::Purge { ticket, queue } => {
                    leader.on_purge(cx, group, Requester::Here(ticket), queue);
                }
                AdminRequest::Delete { ticket, queue, only_if } => {
                    leader.on_delete(cx, group, Requester::Here(ticket), queue, only_if);
                }
            },
            Role::Forwarder(forwarder) => forwarder.on_admin(cx, group, request),
            Role::Leaderless => refuse(cx, request, "the partition has no leader: try again"),
        }
    }

    fn view(&self, group: &dyn Group, queue: QueueId) -> Option<QueueSnapshot> {
        let view = self.cx.machine.view(queue)?;
        let node = group.status().leader.map(|leader| leader.0);
        Some(QueueSnapshot { group: group.id(), node, view })
    }

    fn on_applied_effect(&mut self, now: Time, effect: Applied_) {
        let cx = &mut self.cx;
        let leader = match &mut self.role {
            Role::Leader(leader) => Some(leader),
            _ => None,
        };
        let leads = leader.is_some();
        match effect {
            Applied_::QueueCreated { queue } => {
                cx.enter_queue(queue);
                leader.into_iter().for_each(|leader| leader.on_created(queue));
            }
            Applied_::CreateRefused { queue, reason } => {
                leader.into_iter().for_each(|leader| leader.on_created(queue));
                tracing::warn!(queue = queue.0, ?reason, "a queue was not created");
            }
            Applied_::QueueDeleted { queue, messages, bytes } => {
                cx.leave_queue(now, queue);
                tracing::info!(queue = queue.0, messages, bytes, "queue deleted");
            }
            Applied_::Purged { queue, messages, bytes, .. } => {
                if let Some(leader) = leader {
                    cx.queues.dropped(queue, DropReason::Purged, messages);
                    leader.on_purged(cx, queue, Purged { messages, bytes });
                }
                cx.queues.touch(queue);
            }
            Applied_::Expired { queue, messages, bytes } => {
                if leads {
                    cx.queues.dropped(queue, DropReason::Expired, messages);
                }
                let uri = cx.queues.uri(queue);
                tracing::info!(uri, messages, bytes, "messages outlived their time to live");
                cx.queues.touch(queue);
            }
            Applied_::Poisoned { queue, position, .. } => {
                if leads {
                    cx.queues.dropped(queue, DropReason::Attempts, 1);
                }
                let uri = cx.queues.uri(queue);
                tracing::error!(
                    uri,
                    position,
                    "message dropped: every consumer that had it died, maxDeliveryAttempts is reached"
                );
                cx.queues.touch(queue);
            }
        }
    }
}

impl Machine for PartitionEngine {
    type Request = Request;
    type Effect = Effect;

    fn on_request(&mut self, group: &mut dyn Group, request: Request) {
        let cx = &mut self.cx;
        match request {
            Request::Publish(publish) => match &mut self.role {
                Role::Leader(leader) => leader.on_publish(cx, group, publish),
                Role::Forwarder(forwarder) => forwarder.on_publish(cx, publish),
                Role::Leaderless => {
                    let session = publish.session;
                    for put in publish.puts {
                        cx.pending.puts.push(PendingPut { session, put });
                    }
                }
            },
            Request::Confirm(confirms) => match &mut self.role {
                Role::Leader(leader) => leader.on_confirm(cx, group, confirms),
                Role::Forwarder(forwarder) => forwarder.on_confirm(cx, group.now(), confirms),
                Role::Leaderless => {
                    let confirms = cx.admit_confirms(confirms);
                    cx.pending.add_confirms(confirms.into_iter());
                }
            },
            Request::Open(open) => match &mut self.role {
                Role::Leader(leader) => leader.on_open(cx, open),
                Role::Forwarder(forwarder) => forwarder.on_open(cx, group, open),
                Role::Leaderless => drop(cx.pending.opens.insert(open.handle, open)),
            },
            Request::Configure(configure) => match &mut self.role {
                Role::Leader(leader) => leader.on_configure(cx, *configure),
                Role::Forwarder(forwarder) => forwarder.on_configure(cx, group, *configure),
                Role::Leaderless => drop(cx.keep_configure(*configure)),
            },
            Request::Close(close) => match &mut self.role {
                Role::Leader(leader) => leader.on_close(cx, group, close),
                Role::Forwarder(forwarder) => forwarder.on_close(cx, group, close),
                Role::Leaderless => {
                    let number = cx.pending.number();
                    cx.pending.closes.insert(number, Closing::Close(close));
                }
            },
            Request::SessionEnded(ended) => self.on_session_ended(group, ended),
            Request::SessionFull(session) => self.on_pause(group, session, true),
            Request::SessionRoom(session) => self.on_pause(group, session, false),
            Request::UpdateQueue { queue, settings } => match &mut self.role {
                Role::Leader(leader) => leader.on_update(cx, queue, &settings),
                Role::Forwarder(forwarder) => forwarder.on_update(group, queue, &settings),
                // The next leader looks the definition up.
                Role::Leaderless => {}
            },
            Request::Purge { ticket, queue } => {
                self.on_admin(group, AdminRequest::Purge { ticket, queue });
            }
            Request::Delete { ticket, queue, only_if } => {
                self.on_admin(group, AdminRequest::Delete { ticket, queue, only_if });
            }
            Request::View { ticket, queue } => {
                let view = self.view(group, queue);
                self.cx.answer(ticket, Answer::View(view));
            }
            Request::ViewAll { ticket } => {
                let queues = self.cx.queues.ids();
                let views = queues.into_iter().filter_map(|queue| self.view(group, queue));
                let views = views.collect();
                self.cx.answer(ticket, Answer::ViewAll(views));
            }
            Request::Peek { ticket, queue, count } => {
                let found = match cx.machine.settings(queue) {
                    Some(_) => Ok(cx.machine.peek(queue, 0, count.min(MAX_PEEKED))),
                    None => Err(AdminRefusal::NoSuchQueue),
                };
                cx.answer(ticket, Answer::Peek(found));
            }
            Request::Settled { ticket } => match &mut self.role {
                Role::Leader(leader) => leader.on_settled(cx, group, ticket),
                _ => cx.answer(ticket, Answer::Settled),
            },
            Request::IdleQueues { ticket, timeout } => {
                let idle = match &self.role {
                    Role::Leader(leader) => leader.idle_queues(cx, group.now(), timeout),
                    _ => Vec::new(),
                };
                cx.answer(ticket, Answer::Idle(idle));
            }
            Request::StopDelivery { ticket } => match &mut self.role {
                Role::Leader(leader) => leader.on_stop_delivery(cx, group, ticket),
                _ => {
                    cx.stopping = true;
                    cx.answer(ticket, Answer::Idle(Vec::new()));
                }
            },
        }
    }

    fn takes_requests(&self) -> bool {
        if self.cx.pending.is_full() {
            return false;
        }
        match &self.role {
            Role::Leader(leader) => leader.takes_requests(),
            Role::Forwarder(forwarder) => forwarder.takes_requests(),
            Role::Leaderless => true,
        }
    }

    fn on_message(&mut self, group: &mut dyn Group, from: NodeId, message: Bytes) {
        let frame = match Frame::decode(message) {
            Ok(frame) => frame,
            Err(error) => {
                tracing::warn!(from = from.0, group = group.id().0, %error, "a frame cannot be read");
                return;
            }
        };
        if let Some(PeerMessage::Announce(announce)) = &frame.message {
            return self.on_announced(group, from, announce.term);
        }
        if let Some(PeerMessage::Seek(_)) = &frame.message {
            if let Role::Leader(leader) = &self.role {
                leader.announce(group, Some(from));
            }
            return;
        }
        match &mut self.role {
            Role::Leader(leader) => leader.on_frame(&mut self.cx, group, from, frame),
            Role::Forwarder(forwarder) if forwarder.leader().0 == from => {
                forwarder.on_frame(&mut self.cx, group, frame);
            }
            // Of a leadership that is over here, or did not begin: the sender probes, or is told
            // who leads.
            Role::Forwarder(_) | Role::Leaderless => {}
        }
    }

    fn on_peer(&mut self, group: &mut dyn Group, peer: NodeId, up: bool) {
        match &mut self.role {
            Role::Leader(leader) => leader.on_peer(&mut self.cx, group, peer, up),
            Role::Forwarder(forwarder) if forwarder.leader().0 == peer => {
                self.role = Role::Leaderless;
            }
            Role::Forwarder(_) | Role::Leaderless => {}
        }
        if !up && self.announced.is_some_and(|(node, _)| node == peer) {
            self.announced = None;
        }
    }

    fn on_room(&mut self, group: &mut dyn Group, peer: NodeId) {
        match &mut self.role {
            Role::Leader(leader) => leader.on_room(&mut self.cx, group, peer),
            Role::Forwarder(forwarder) => forwarder.on_room(group),
            Role::Leaderless => {}
        }
    }

    fn on_entry_read(
        &mut self,
        group: &mut dyn Group,
        index: Index,
        read: Result<Bytes, ReadError>,
    ) {
        let cx = &mut self.cx;
        match &mut self.role {
            Role::Forwarder(forwarder) => forwarder.on_entry_read(cx, group, index, read),
            Role::Leader(_) => {
                let loaded = match &read {
                    Ok(payload) => cx.machine.loaded(index, payload).map_err(|e| e.to_string()),
                    Err(error) => Err(error.to_string()),
                };
                if let Err(error) = loaded {
                    // A damaged or missing entry: the messages in it cannot be delivered, all
                    // others can.
                    let group = group.id().0;
                    tracing::error!(group, index, error, "an entry cannot be read for delivery");
                    cx.machine.load_failed(index);
                }
            }
            Role::Leaderless => {}
        }
    }

    fn on_read_index(&mut self, _group: &mut dyn Group, _read: u64, _index: Option<Index>) {}

    fn on_tick(&mut self, group: &mut dyn Group) {
        let now = group.now();
        self.look_for_leader(group);
        let cx = &mut self.cx;
        let mut attended = false;
        match &mut self.role {
            Role::Leader(leader) => {
                leader.on_tick(cx, group);
                leader.age(now, AGEING);
                attended = leader.is_attended();
            }
            Role::Forwarder(forwarder) => forwarder.on_tick(group),
            Role::Leaderless => {}
        }
        cx.queues.tell_levels(now, attended, &cx.machine, &mut cx.effects);
        cx.queues.forget_deletions(now);
        self.checkpoint(group);
    }

    fn lose_leadership(&mut self, group: &mut dyn Group) {
        if let Role::Leader(leader) = std::mem::replace(&mut self.role, Role::Leaderless) {
            tracing::info!(group = group.id().0, term = leader.term, "leads no more");
            leader.end(&mut self.cx);
        }
        if let Some(leader) = self.announced.take() {
            self.attach(group, leader);
        }
    }

    fn take_leadership(&mut self, group: &mut dyn Group) {
        tracing::debug!(group = group.id().0, term = group.term(), "leads");
        self.announced = None;
        let leader = Leader::begin(&mut self.cx, group);
        self.role = Role::Leader(leader);
    }

    fn restore(
        &mut self,
        group: &mut dyn Group,
        records: Vec<QueueRecord>,
    ) -> Result<(), MachineFailure> {
        self.checkpoints.begin_again();
        let machine = Partition::restore(records)
            .map_err(|error| MachineFailure(format!("group={} {error}", group.id())))?;
        let before = self.cx.queues.ids();
        self.cx.machine = machine;
        for queue in before {
            if self.cx.machine.settings(queue).is_some() {
                continue;
            }
            // Where this node holds no replica any more the queue is there, only not here: clients
            // of this node have it open elsewhere. Otherwise the next leader says whether it is.
            self.cx.queues.leave(queue, &mut self.cx.effects);
        }
        self.cx.usage.clear();
        self.enter_queues();
        if let Role::Forwarder(forwarder) = &self.role {
            // What is on its way refers to entries of the log that was.
            let leader = forwarder.leader();
            self.attach(group, leader);
        }
        Ok(())
    }

    fn reclaim(&mut self, _: &mut dyn Group, stored: &[Index]) {
        self.checkpoints.hold(self.cx.machine.forgotten(stored));
    }

    fn apply(&mut self, group: &mut dyn Group, entry: &Committed) -> Result<(), MachineFailure> {
        // A leader's no-op carries no commands, but the state follows the log entry by entry.
        let empty = Bytes::new();
        let payload = match entry.kind {
            EntryKind::Barrier => &empty,
            EntryKind::Commands => &entry.payload,
            EntryKind::Sequenced(_) => {
                return Err(MachineFailure(format!(
                    "the log holds an entry that a newer version wrote: start that version, group={} index={}",
                    group.id(),
                    entry.position.index
                )));
            }
        };
        let (now, index) = (group.now(), entry.position.index);
        if let Err(error) = self.cx.machine.apply(index, payload, &mut self.cx.applied) {
            let reason = std::error::Error::source(&error).map(ToString::to_string);
            let reason = reason.unwrap_or_default();
            return Err(MachineFailure(format!("group={} {error}: {reason}", group.id())));
        }
        self.checkpoints.note(payload.len());
        match &mut self.role {
            Role::Leader(leader) => leader.on_applied(&mut self.cx, now, entry.position),
            Role::Forwarder(forwarder) => forwarder.on_applied(&self.cx, index, payload),
            Role::Leaderless => {}
        }
        let mut effects = std::mem::take(&mut self.cx.applied.effects);
        for effect in effects.drain(..) {
            self.on_applied_effect(now, effect);
        }
        self.cx.applied.effects = effects;
        Ok(())
    }

    fn work(&mut self, group: &mut dyn Group) -> bool {
        if let Role::Forwarder(forwarder) = &self.role
            && forwarder.is_broken()
            && group.peers_in_reach().contains(&forwarder.leader().0)
        {
            let leader = forwarder.leader();
            self.attach(group, leader);
        }
        let cx = &mut self.cx;
        let more = match &mut self.role {
            Role::Leader(leader) => leader.work(cx, group),
            Role::Forwarder(forwarder) => {
                forwarder.work(cx, group);
                false
            }
            Role::Leaderless => false,
        };
        self.let_sessions_go(group);
        let cx = &mut self.cx;
        cx.sessions.flush(&mut cx.effects);
        cx.queues.tell_counts(&mut cx.effects);
        if self.checkpoints.is_due() {
            self.checkpoints.write(&mut self.cx.machine, group, false);
        }
        more
    }

    fn next_deadline(&self) -> Option<Time> {
        match &self.role {
            Role::Leader(leader) => leader.next_deadline(),
            Role::Forwarder(forwarder) => forwarder.next_deadline(),
            Role::Leaderless => None,
        }
    }

    fn checkpoint(&mut self, group: &mut dyn Group) -> bool {
        self.cx.report_usage();
        self.checkpoints.write(&mut self.cx.machine, group, false)
    }

    fn is_settled(&self, group: &dyn Group) -> bool {
        match &self.role {
            Role::Leader(leader) => leader.is_settled(group) || !group.is_quorum_in_reach(),
            // What another node leads is its business.
            Role::Forwarder(_) | Role::Leaderless => true,
        }
    }

    fn leader_elsewhere(&self) -> Option<(NodeId, Term)> {
        match &self.role {
            Role::Forwarder(forwarder) => Some(forwarder.leader()),
            Role::Leader(_) | Role::Leaderless => None,
        }
    }

    fn take_effects(&mut self, effects: &mut Vec<Effect>) {
        effects.append(&mut self.cx.effects);
    }
}

/// Whether an announcement counts beside what is known: a term has one leader, which may repeat
/// itself.
fn is_news((leader, known): (NodeId, Term), (from, term): (NodeId, Term)) -> bool {
    term > known || (term == known && from == leader)
}
