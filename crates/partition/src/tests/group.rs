//! A group without consensus: a log in memory that a test replicates, commits and replaces.

use std::collections::BTreeSet;

use bytes::Bytes;
use flintmq_consensus::{
    ConfigRegister, Entry, EntryKind, GroupId, Index, LogPosition, NodeId, Term, Time,
};
use flintmq_shard::{AppendKind, CheckpointBatch, Group, NotProposed, NotSent, ReplicaStatus};

/// One node's group. What the test sets is public to it.
pub(super) struct FakeGroup {
    pub(super) node: NodeId,
    pub(super) now: Time,
    pub(super) term: Term,
    pub(super) leader: Option<NodeId>,
    pub(super) serving: bool,
    /// Entry `i` stands at index `i + 1`.
    pub(super) log: Vec<Entry>,
    pub(super) commit: Index,
    pub(super) applied: LogPosition,
    pub(super) in_reach: BTreeSet<NodeId>,
    /// Ways that take nothing at present, and such as are gone.
    pub(super) full: BTreeSet<NodeId>,
    pub(super) gone: BTreeSet<NodeId>,
    /// What was sent, in order.
    pub(super) sent: Vec<(NodeId, Bytes)>,
    /// Entries to be read, in order.
    pub(super) reads: Vec<Index>,
    /// Followers are taken to hold nothing, so that messages travel whole.
    pub(super) no_references: bool,
    /// The window is full although little is under way: the own disk is late.
    pub(super) window_full: bool,
    members: ConfigRegister,
}

impl FakeGroup {
    pub(super) fn new(node: NodeId, nodes: u32) -> Self {
        Self {
            node,
            now: Time::from_millis(1),
            term: 0,
            leader: None,
            serving: false,
            log: Vec::new(),
            commit: 0,
            applied: LogPosition::default(),
            in_reach: (1..=nodes).map(NodeId).filter(|peer| *peer != node).collect(),
            full: BTreeSet::new(),
            gone: BTreeSet::new(),
            sent: Vec::new(),
            reads: Vec::new(),
            no_references: false,
            window_full: false,
            members: ConfigRegister::of_voters((1..=nodes).map(NodeId)),
        }
    }

    pub(super) fn append(&mut self, kind: EntryKind, payload: Bytes) -> LogPosition {
        let (index, term) = (self.log.len() as u64 + 1, self.term);
        self.log.push(Entry { index, term, history: 0, kind, payload });
        LogPosition { term, index }
    }

    pub(super) fn entry(&self, index: Index) -> Option<&Entry> {
        self.log.get(usize::try_from(index.checked_sub(1)?).ok()?)
    }
}

impl Group for FakeGroup {
    fn id(&self) -> GroupId {
        GroupId(1)
    }

    fn node(&self) -> NodeId {
        self.node
    }

    fn now(&self) -> Time {
        self.now
    }

    fn wall_ms(&self) -> u64 {
        1_700_000_000_000 + self.now.0 / 1000
    }

    fn is_clock_trusted(&self) -> bool {
        true
    }

    fn is_clustered(&self) -> bool {
        self.members.voters.len() > 1
    }

    fn status(&self) -> ReplicaStatus {
        ReplicaStatus {
            leader: self.leader,
            serving: self.serving,
            term: self.term,
            ..ReplicaStatus::default()
        }
    }

    fn is_transferring(&self) -> bool {
        false
    }

    fn under_way(&self) -> usize {
        self.log.len() - self.commit as usize
    }

    fn bytes_under_way(&self) -> u64 {
        self.log[self.commit as usize..].iter().map(|entry| entry.payload.len() as u64).sum()
    }

    fn applied(&self) -> LogPosition {
        self.applied
    }

    fn members(&self) -> &ConfigRegister {
        &self.members
    }

    fn is_quorum_in_reach(&self) -> bool {
        (self.in_reach.len() + 1) * 2 > self.members.voters.len()
    }

    fn leader_in_reach(&self) -> Option<NodeId> {
        self.leader.filter(|leader| self.in_reach.contains(leader))
    }

    fn peers_in_reach(&self) -> Vec<NodeId> {
        self.in_reach.iter().copied().collect()
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
        Index::MAX
    }

    fn term_held_by(&self, _node: NodeId, index: Index) -> Option<Term> {
        let held = index <= self.commit && !self.no_references;
        held.then(|| self.entry(index).map(|entry| entry.term)).flatten()
    }

    fn unapplied(&self, index: Index) -> Option<Entry> {
        self.entry(index).filter(|_| index > self.applied.index).cloned()
    }

    fn propose(&mut self, payload: Bytes, _: AppendKind) -> Result<LogPosition, NotProposed> {
        if !self.serving {
            return Err(NotProposed::NotLeader);
        }
        if self.window_full {
            return Err(NotProposed::WindowFull);
        }
        Ok(self.append(EntryKind::Commands, payload))
    }

    fn transfer(&mut self, _to: NodeId) {}

    fn cede(&mut self) {}

    fn send(&mut self, to: NodeId, message: Bytes) -> Result<(), NotSent> {
        if self.gone.contains(&to) {
            return Err(NotSent::Gone);
        }
        if self.full.contains(&to) {
            return Err(NotSent::Full);
        }
        self.sent.push((to, message));
        Ok(())
    }

    fn read_entry(&mut self, index: Index) {
        self.reads.push(index);
    }

    fn read_index(&mut self) -> u64 {
        0
    }

    fn checkpoint(&mut self, _batch: CheckpointBatch) -> Result<(), CheckpointBatch> {
        Ok(())
    }
}
