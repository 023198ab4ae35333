//! Begins and ends processes of nodes.

use flintmq_consensus::{GroupId, HardState, NodeId};
use flintmq_controller::{NodeRecord, NodeState, PlanningSettings};
use flintmq_log_store::LogStore as _;

use crate::client::Item;
use crate::event::{Errand, Event, Waits};
use crate::node::{Clock, Node, Process};
use crate::oracle::{Violation, violation};
use crate::store::SimStore;
use crate::world::World;

impl World {
    /// Starts a node's process.
    pub(crate) fn boot(&mut self, id: NodeId) -> Result<(), Violation> {
        let (now, planning) = (self.now, self.planning());
        let Some(node) = self.nodes.get_mut(&id) else { return Ok(()) };
        let is_founder = id.0 <= self.profile.nodes;
        let has_joined = is_founder || !node.first_peers.is_empty();
        if node.process.is_some() || node.gone || !has_joined {
            return Ok(());
        }
        node.incarnation += 1 + now / 1000;
        if planning.is_none() {
            // Without others a new process has to believe what it finds.
            node.clock.wall_offset_ms = 0;
        }
        match Process::start(node, now, planning) {
            Ok(process) => node.process = Some(process),
            Err(error) => return violation("Restartable", format!("node {} {error}", id.0)),
        }
        let peers = node.first_peers.clone();
        self.say(|| format!("node {} starts", id.0));
        self.forget_who_is_alone();
        self.wake_shard(id, now);
        self.wake_liveness(id, now);
        for peer in peers {
            let later = self.net_random.between(1_000, 60_000);
            self.after(later, Event::Connect(id, peer));
        }
        Ok(())
    }

    /// What a leader of the controller plans with; none for a cluster of one node.
    fn planning(&self) -> Option<PlanningSettings> {
        let profile = &self.profile;
        (profile.nodes > 1).then(|| PlanningSettings {
            first: self.founders(),
            replicas: Some(profile.replicas),
            partitions: profile.groups,
        })
    }

    fn founders(&self) -> Vec<NodeRecord> {
        let founders = self.nodes.values().filter(|node| node.id.0 <= self.profile.nodes);
        let record = |node: &Node| NodeRecord {
            id: node.id.0,
            peers: address(node.id),
            state: NodeState::Active,
            directory: Some(node.directory),
            founder: true,
            replaces: None,
        };
        founders.map(record).collect()
    }

    /// One more node, with an empty directory; it does not run yet.
    pub(crate) fn make_node(&mut self, id: NodeId, first_peers: Vec<NodeId>) {
        let ppm = self.host_random.below(self.profile.drift_ppm + 1) as i64;
        let ppm = if self.host_random.chance(500) { ppm } else { -ppm };
        let base = self.host_random.below(1 << 40);
        let node = Node {
            id,
            store: SimStore::new(),
            clock: Clock { base, ppm, wall_offset_ms: 0 },
            process: None,
            incarnation: 0,
            directory: self.host_random.number() >> 16,
            first_peers,
            gone: false,
            paused_until: 0,
            shard_stalled_until: 0,
            disk_stalled_until: 0,
            slow_disk_until: 0,
            troubled_until: 0,
        };
        let others = self.ids();
        self.net.add(id, &others);
        self.nodes.insert(id, node);
    }

    /// Creates all groups in a node's store. Those who formed the cluster are the first members of
    /// each; a node that comes later is no member until a group's leader makes it one.
    pub(crate) fn create_groups(&self, id: NodeId, hard_state: &HardState) {
        let Some(node) = self.nodes.get(&id) else { return };
        let groups = self.groups.keys().copied();
        for group in std::iter::once(GroupId::CONTROLLER).chain(groups) {
            let _taken = node.store.create_group(group, hard_state.clone());
        }
        node.store.inner.run();
        node.store.inner.sync();
    }

    /// Ends a node's process; its sessions and connections are lost.
    pub(crate) fn end_process(&mut self, id: NodeId) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let Some(process) = node.process.take() else { return };
        node.paused_until = 0;
        node.shard_stalled_until = 0;
        let incarnation = process.incarnation;
        drop(process);
        for peer in self.ids().into_iter().filter(|peer| *peer != id) {
            self.disconnect(id, peer);
        }
        let mut undone = Vec::new();
        self.tickets.retain(|_, (node, process, waits)| {
            let lost = *node == id && *process == incarnation;
            if let Waits::Controller(Errand::Prepare(operation) | Errand::Operate(operation)) =
                waits
                && lost
            {
                undone.push(operation.as_ref().clone());
            }
            !lost
        });
        undone.into_iter().for_each(|operation| self.try_again(operation));
        self.openings.retain(|_, one| one.node != id || one.incarnation != incarnation);
        let sessions: Vec<_> = self
            .sessions
            .iter()
            .filter(|(_, info)| info.node == id && info.incarnation == incarnation)
            .map(|(session, info)| (*session, info.client))
            .collect();
        for (session, client) in sessions {
            self.sessions.remove(&session);
            let later = self.net_random.between(1_000, 100_000);
            self.after(later, Event::ToClient(client, session, Item::Lost));
        }
    }

    /// A node is no more, and its disk neither.
    pub(crate) fn bury(&mut self, id: NodeId) {
        self.end_process(id);
        if let Some(node) = self.nodes.get_mut(&id) {
            node.gone = true;
        }
    }
}

/// Where other nodes reach a node.
pub(crate) fn address(id: NodeId) -> String {
    format!("node{}:7114", id.0)
}
