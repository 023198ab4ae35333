//! A group that does what it is told to.

use bytes::Bytes;
use flintmq_consensus::{
    ConfigRegister, Entry, EntryKind, GroupId, Index, LogPosition, NodeId, Term, Time,
};
use flintmq_shard::{
    AppendKind, CheckpointBatch, Committed, Group, NotProposed, NotSent, ReplicaStatus,
};

/// One node's group.
pub(super) struct FakeGroup {
    pub(super) node: NodeId,
    pub(super) now: Time,
    pub(super) term: Term,
    pub(super) leader: Option<NodeId>,
    pub(super) serving: bool,
    pub(super) peers: Vec<NodeId>,
    pub(super) config: ConfigRegister,
    pub(super) applied: LogPosition,
    pub(super) committed: Index,
    /// Proposed here and not committed.
    pub(super) proposed: Vec<Committed>,
    pub(super) sent: Vec<(NodeId, Bytes)>,
    pub(super) asked: Vec<u64>,
    pub(super) reads: u64,
    /// Proposals are refused.
    pub(super) window_full: bool,
    /// Nothing can be sent.
    pub(super) connections_full: bool,
    pub(super) checkpoint_refused: bool,
    pub(super) checkpoints: Vec<CheckpointBatch>,
    pub(super) compaction_limit: Index,
}

impl FakeGroup {
    /// The group of `id` among the nodes `1..=nodes`, all in reach, none of which leads.
    pub(super) fn new(id: u32, nodes: u32, applied: LogPosition) -> Self {
        Self {
            node: NodeId(id),
            now: Time::default(),
            term: 0,
            leader: None,
            serving: false,
            peers: (1..=nodes).filter(|other| *other != id).map(NodeId).collect(),
            config: ConfigRegister::of_voters((1..=nodes).map(NodeId)),
            applied,
            committed: 0,
            proposed: Vec::new(),
            sent: Vec::new(),
            asked: Vec::new(),
            reads: 0,
            window_full: false,
            connections_full: false,
            checkpoint_refused: false,
            checkpoints: Vec::new(),
            compaction_limit: Index::MAX,
        }
    }
}

impl Group for FakeGroup {
    fn id(&self) -> GroupId {
        GroupId::CONTROLLER
    }
    fn node(&self) -> NodeId {
        self.node
    }
    fn now(&self) -> Time {
        self.now
    }
    fn wall_ms(&self) -> u64 {
        0
    }
    fn is_clock_trusted(&self) -> bool {
        true
    }
    fn is_clustered(&self) -> bool {
        true
    }
    fn status(&self) -> ReplicaStatus {
        let (term, serving, leader) = (self.term, self.serving, self.leader);
        ReplicaStatus { term, serving, leader, ..ReplicaStatus::default() }
    }
    fn is_transferring(&self) -> bool {
        false
    }
    fn under_way(&self) -> usize {
        self.proposed.len()
    }
    fn bytes_under_way(&self) -> u64 {
        0
    }
    fn applied(&self) -> LogPosition {
        self.applied
    }
    fn members(&self) -> &ConfigRegister {
        &self.config
    }
    fn is_quorum_in_reach(&self) -> bool {
        true
    }
    fn leader_in_reach(&self) -> Option<NodeId> {
        self.leader.filter(|leader| *leader != self.node && self.peers.contains(leader))
    }
    fn peers_in_reach(&self) -> Vec<NodeId> {
        self.peers.clone()
    }
    fn successor(&self) -> Option<NodeId> {
        None
    }
    fn preferred_leader(&self) -> Option<NodeId> {
        None
    }
    fn is_disk_low(&self) -> bool {
        false
    }
    fn compaction_limit(&self) -> Index {
        self.compaction_limit
    }
    fn term_held_by(&self, _: NodeId, _: Index) -> Option<Term> {
        None
    }
    fn unapplied(&self, _: Index) -> Option<Entry> {
        None
    }
    fn propose(&mut self, payload: Bytes, _: AppendKind) -> Result<LogPosition, NotProposed> {
        if !self.serving {
            return Err(NotProposed::NotLeader);
        }
        if self.window_full {
            return Err(NotProposed::WindowFull);
        }
        let index = self.committed + self.proposed.len() as u64 + 1;
        let position = LogPosition { term: self.term, index };
        self.proposed.push(Committed { position, kind: EntryKind::Commands, payload });
        Ok(position)
    }
    fn transfer(&mut self, _: NodeId) {}
    fn cede(&mut self) {}
    fn send(&mut self, to: NodeId, message: Bytes) -> Result<(), NotSent> {
        if self.connections_full {
            return Err(NotSent::Full);
        }
        if !self.peers.contains(&to) {
            return Err(NotSent::Gone);
        }
        self.sent.push((to, message));
        Ok(())
    }
    fn read_entry(&mut self, _: Index) {}
    fn read_index(&mut self) -> u64 {
        self.reads += 1;
        self.asked.push(self.reads);
        self.reads
    }
    fn checkpoint(&mut self, batch: CheckpointBatch) -> Result<(), CheckpointBatch> {
        if self.checkpoint_refused {
            return Err(batch);
        }
        self.checkpoints.push(batch);
        Ok(())
    }
}
