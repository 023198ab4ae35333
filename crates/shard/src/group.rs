//! What a machine sees of its group: [`Group`], on top of the shard's consensus and store.

use bytes::Bytes;
use flintmq_consensus::{
    ConfigRegister, Core, Entry, EntryKind, Flow, GroupId, Index, Input, LogPosition, NodeCore,
    NodeId, NodeInput, ProposeError, Term, Time, UnfitReasons,
};
use flintmq_log_store::{AppendKind, CheckpointBatch, DiskState};

use crate::effect::Told;
use crate::host::Host;
use crate::machine::{Group, NotProposed, NotSent};
use crate::replica::Replica;
use crate::status::ReplicaStatus;

/// One group, while its machine is called.
pub(crate) struct InGroup<'a> {
    pub(crate) core: &'a mut NodeCore,
    pub(crate) host: &'a mut Host,
    pub(crate) replica: &'a mut Replica,
}

impl InGroup<'_> {
    fn core(&self) -> Option<&Core> {
        self.core.group(self.replica.group)
    }

    fn told<T: Default>(&self, tell: impl FnOnce(&Core) -> T) -> T {
        self.core().map(tell).unwrap_or_default()
    }

    fn step(&mut self, input: Input) {
        self.core.step(self.host.now, NodeInput::Group { group: self.replica.group, input });
    }
}

impl Group for InGroup<'_> {
    fn id(&self) -> GroupId {
        self.replica.group
    }

    fn node(&self) -> NodeId {
        self.host.node
    }

    fn now(&self) -> Time {
        self.host.now
    }

    fn wall_ms(&self) -> u64 {
        self.host.time.ms(self.host.now)
    }

    fn is_clock_trusted(&self) -> bool {
        self.host.time.is_trusted()
    }

    fn is_clustered(&self) -> bool {
        self.host.clustered
    }

    fn status(&self) -> ReplicaStatus {
        self.told(|core| self.replica.status(core))
    }

    fn term(&self) -> Term {
        self.told(Core::term)
    }

    fn is_serving(&self) -> bool {
        self.told(Core::is_serving)
    }

    fn is_transferring(&self) -> bool {
        self.told(Core::is_transferring)
    }

    fn takes_proposals(&self) -> bool {
        self.told(|core| {
            core.is_serving()
                && !core.is_transferring()
                && self.replica.led_term == Some(core.term())
        }) && !self.replica.own_writes.is_full()
    }

    fn under_way(&self) -> usize {
        let entries = self.told(|core| core.last().index.saturating_sub(core.commit_index()));
        usize::try_from(entries).unwrap_or(usize::MAX)
    }

    fn bytes_under_way(&self) -> u64 {
        self.told(Core::uncommitted_bytes)
    }

    fn applied(&self) -> LogPosition {
        self.replica.applied
    }

    fn members(&self) -> &ConfigRegister {
        self.core().map_or(&self.host.no_members, Core::config)
    }

    fn is_quorum_in_reach(&self) -> bool {
        let node = self.host.node;
        let reached = |member| member == node || self.host.peers.is_up(member);
        self.members().is_quorum(reached)
    }

    fn leader_in_reach(&self) -> Option<NodeId> {
        let leader = self.core()?.leader().filter(|_| self.is_member())?;
        (leader != self.host.node && self.host.peers.is_up(leader)).then_some(leader)
    }

    fn peers_in_reach(&self) -> Vec<NodeId> {
        self.host.peers.in_reach().collect()
    }

    fn successor(&self) -> Option<NodeId> {
        self.replica.successor(self.core()?)
    }

    fn preferred_leader(&self) -> Option<NodeId> {
        self.replica.preferred_leader(self.core()?)
    }

    fn is_disk_low(&self) -> bool {
        let (host, node) = (&self.host, self.host.node);
        let full =
            |member| member != node && host.peers.unfit(member).intersects(UnfitReasons::DISK_FULL);
        self.host.store.disk_state() != DiskState::Ok || !self.members().is_quorum(|id| !full(id))
    }

    fn compaction_limit(&self) -> Index {
        if !self.host.clustered {
            return Index::MAX;
        }
        let reached = self
            .core()
            .filter(|core| core.is_serving())
            .map(|core| core.compaction_limit(Index::MAX));
        self.replica.retention.limit(reached)
    }

    fn term_held_by(&self, node: NodeId, index: Index) -> Option<Term> {
        let core = self.core()?;
        let peer = core.progress().iter().find(|peer| peer.node == node)?;
        let held = peer.flow == Flow::Replicate && peer.matched >= index;
        held.then(|| core.log().term_at(index)).flatten()
    }

    fn unapplied(&self, index: Index) -> Option<Entry> {
        self.replica.unapplied(index).cloned()
    }

    fn propose(&mut self, payload: Bytes, kind: AppendKind) -> Result<LogPosition, NotProposed> {
        let term = self.term();
        // Of another leadership than this one the machine knows nothing yet.
        if self.replica.led_term != Some(term) {
            return Err(NotProposed::NotLeader);
        }
        if self.replica.own_writes.is_full() {
            return Err(NotProposed::WindowFull);
        }
        let (now, id) = (self.host.now, self.replica.group);
        let proposed = self.core.propose(now, id, EntryKind::Commands, payload);
        let index = proposed.map_err(|error| match error {
            ProposeError::NotLeader { .. } => NotProposed::NotLeader,
            ProposeError::WindowFull { .. } => NotProposed::WindowFull,
        })?;
        // Entries of one flush share a write: it may be refused if one of them may be.
        if kind == AppendKind::Growing {
            self.replica.append_kind = kind;
        }
        Ok(LogPosition { term, index })
    }

    fn transfer(&mut self, to: NodeId) {
        self.replica.hand_over(self.core, self.host, to, false, None);
    }

    fn cede(&mut self) {
        self.step(Input::Cede);
    }

    fn send(&mut self, to: NodeId, message: Bytes) -> Result<(), NotSent> {
        let sent = self.host.network.send_message(to, self.replica.group, message);
        if sent == Err(NotSent::Full) {
            self.host.peers.wants_room(to, self.replica.group);
        }
        sent
    }

    fn read_entry(&mut self, index: Index) {
        // What others have written, too, is committed before it is in the own store.
        match self.replica.own_writes.entry(index).map(|entry| entry.payload.clone()) {
            Some(payload) => self.replica.at_hand.push((index, payload)),
            None => self.host.tell(Told::ReadEntry { group: self.replica.group, index }),
        }
    }

    fn read_index(&mut self) -> u64 {
        self.replica.reads_issued += 1;
        let read = self.replica.reads_issued;
        self.step(Input::Read { read });
        read
    }

    fn checkpoint(&mut self, batch: CheckpointBatch) -> Result<(), CheckpointBatch> {
        match self.core.group(self.replica.group) {
            Some(core) => self.replica.checkpoint(core, self.host, batch),
            None => Err(batch),
        }
    }
}
