//! The partition: its role, and what it has whatever the role.
//!
//! | file | step |
//! | --- | --- |
//! | `routing` | requests and messages go to the role of the moment |
//! | `leader_discovery` | the leader that is forwarded to is found |
//! | `applying` | committed entries and snapshots become the state of the queues |

mod applying;
mod leader_discovery;
mod routing;

use std::time::Duration;

use bytes::Bytes;
use flintmq_consensus::{Index, NodeId, Term, Time};
use flintmq_queue::{Applied, Partition};
use flintmq_shard::{Committed, Group, Machine, MachineFailure, QueueRecord, ReadError};

use crate::checkpoints::Checkpoints;
use crate::context::Context;
use crate::domain_usage::PartitionUsage;
use crate::effect::Effect;
use crate::forwarder::Forwarder;
use crate::handles::HandleTable;
use crate::leader::Leader;
use crate::pending::PendingWork;
use crate::queues::QueueTable;
use crate::request::Request;
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
    /// The leader that was forwarded to, until it got out of reach.
    unreached: Option<(NodeId, Term)>,
    /// The newest term in which this node knows somebody to have led.
    newest_term: Term,
    /// This process of the node, and its count of attachments.
    process: u64,
    attachments: u64,
    /// Entries were applied since the other partitions heard what this one holds.
    usage_due: bool,
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
            unreached: None,
            newest_term: 0,
            process,
            attachments: 0,
            usage_due: false,
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

    /// Confirmations that wait for a leader.
    #[cfg(test)]
    pub(crate) fn waiting_confirms(&self) -> usize {
        self.cx.pending.confirms.len()
    }
}

impl Machine for PartitionEngine {
    type Request = Request;
    type Effect = Effect;

    fn on_request(&mut self, group: &mut dyn Group, request: Request) {
        self.route(group, request);
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
        self.route_message(group, from, message);
    }

    fn on_peer(&mut self, group: &mut dyn Group, peer: NodeId, up: bool) {
        self.on_reach(group, peer, up);
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
        (self.announced, self.unreached) = (None, None);
        self.newest_term = self.newest_term.max(group.term());
        let leader = Leader::begin(&mut self.cx, group);
        self.role = Role::Leader(leader);
    }

    fn restore(
        &mut self,
        group: &mut dyn Group,
        records: Vec<QueueRecord>,
    ) -> Result<(), MachineFailure> {
        self.restore_state(group, records)
    }

    fn reclaim(&mut self, _: &mut dyn Group, stored: &[Index]) {
        self.checkpoints.hold(self.cx.machine.forgotten(stored));
    }

    fn apply(&mut self, group: &mut dyn Group, entry: &Committed) -> Result<(), MachineFailure> {
        self.apply_entry(group, entry)
    }

    fn work(&mut self, group: &mut dyn Group) -> bool {
        self.attach_again(group);
        if std::mem::take(&mut self.usage_due) {
            self.cx.report_usage();
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
