//! Several controllers with groups that do what they are told to.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use flintmq_consensus::{EntryKind, LogPosition, NodeId, Term, Time};
use flintmq_shard::{Committed, Machine, QueueRecord};

use super::super::ControllerMachine;
use super::fake_group::FakeGroup;
use crate::request::{Effect, Request};

pub(super) struct Node {
    pub(super) group: FakeGroup,
    pub(super) machine: ControllerMachine,
    pub(super) effects: Vec<Effect>,
}

impl Node {
    fn new(
        id: u32,
        process: u64,
        nodes: u32,
        records: Vec<QueueRecord>,
        applied: LogPosition,
    ) -> Self {
        let mut group = FakeGroup::new(id, nodes, applied);
        let mut machine = ControllerMachine::new(NodeId(id), process);
        machine.restore(&mut group, records).unwrap();
        Self { group, machine, effects: Vec::new() }
    }
}

/// The cluster: one committed log, and a network that keeps the order of what it does not lose.
pub(super) struct Cluster {
    pub(super) nodes: BTreeMap<u32, Node>,
    pub(super) log: Vec<Committed>,
    pub(super) network: VecDeque<(NodeId, NodeId, Bytes)>,
    pub(super) term: Term,
    pub(super) now: Time,
    /// Nodes that get no entries.
    pub(super) lagging: Vec<u32>,
}

impl Cluster {
    /// Nodes `1..=nodes`, none of which leads.
    pub(super) fn new(nodes: u32) -> Self {
        let node = |id| (id, Node::new(id, 100, nodes, Vec::new(), LogPosition::default()));
        Self {
            nodes: (1..=nodes).map(node).collect(),
            log: Vec::new(),
            network: VecDeque::new(),
            term: 0,
            now: Time::default(),
            lagging: Vec::new(),
        }
    }

    /// The same with node 1 as leader, everything quiet.
    pub(super) fn led(nodes: u32) -> Self {
        let mut cluster = Self::new(nodes);
        cluster.elect(1);
        cluster.settle();
        cluster
    }

    pub(super) fn node(&mut self, id: u32) -> &mut Node {
        self.nodes.get_mut(&id).unwrap()
    }

    pub(super) fn request(&mut self, id: u32, request: Request) {
        let Node { machine, group, .. } = self.node(id);
        machine.on_request(group, request);
    }

    /// Ends every leadership, in the order of a turn: before anything else is applied.
    pub(super) fn depose(&mut self) {
        let committed = self.log.len() as u64;
        for node in self.nodes.values_mut() {
            node.group.leader = None;
            node.group.committed = committed;
            node.group.proposed.clear();
            if std::mem::take(&mut node.group.serving) {
                node.machine.lose_leadership(&mut node.group);
                for read in std::mem::take(&mut node.group.asked) {
                    node.machine.on_read_index(&mut node.group, read, None);
                }
            }
        }
    }

    /// Makes a node the leader of a new term, with the no-op entry of a leadership.
    pub(super) fn elect(&mut self, id: u32) {
        self.depose();
        self.term += 1;
        let index = self.log.len() as u64 + 1;
        let position = LogPosition { term: self.term, index };
        self.log.push(Committed { position, kind: EntryKind::Barrier, payload: Bytes::new() });
        for node in self.nodes.values_mut() {
            node.group.term = self.term;
            node.group.leader = Some(NodeId(id));
            node.group.committed = index;
        }
        self.apply(id);
        let node = self.node(id);
        node.group.serving = true;
        node.machine.take_leadership(&mut node.group);
    }

    /// Lets a node work once, and takes what it sends and answers.
    pub(super) fn work(&mut self, id: u32) {
        let now = self.now;
        let Node { group, machine, effects } = self.node(id);
        group.now = now;
        machine.work(group);
        machine.take_effects(effects);
        let sent: Vec<_> = group.sent.drain(..).map(|(to, m)| (NodeId(id), to, m)).collect();
        self.network.extend(sent);
    }

    pub(super) fn work_all(&mut self) {
        for id in self.ids() {
            self.work(id);
        }
    }

    /// Delivers everything that is on its way.
    pub(super) fn deliver(&mut self) {
        while let Some((from, to, message)) = self.network.pop_front() {
            let Node { group, machine, .. } = self.node(to.0);
            machine.on_message(group, from, message);
        }
    }

    /// Cuts and restores the connection of two nodes: what is on its way is lost.
    pub(super) fn reconnect(&mut self, a: u32, b: u32) {
        let between = |x: NodeId, y: NodeId| (x.0, y.0) == (a, b) || (x.0, y.0) == (b, a);
        self.network.retain(|(from, to, _)| !between(*from, *to));
        for (here, there) in [(a, b), (b, a)] {
            let Node { group, machine, .. } = self.node(here);
            machine.on_peer(group, NodeId(there), false);
            machine.on_peer(group, NodeId(there), true);
        }
    }

    /// Commits what the leader has proposed. Terms stay those of the proposals.
    pub(super) fn commit(&mut self) {
        for node in self.nodes.values_mut() {
            self.log.append(&mut node.group.proposed);
        }
        let committed = self.log.len() as u64;
        self.nodes.values_mut().for_each(|node| node.group.committed = committed);
    }

    /// Gives a node all committed entries.
    pub(super) fn apply(&mut self, id: u32) {
        let log = self.log.clone();
        let Node { group, machine, .. } = self.node(id);
        for entry in &log[group.applied.index as usize..] {
            group.applied = entry.position;
            machine.apply(group, entry).unwrap();
        }
    }

    /// Answers what the leaders asked their groups.
    pub(super) fn answer_reads(&mut self) {
        for node in self.nodes.values_mut().filter(|node| node.group.serving) {
            let index = node.group.committed;
            for read in std::mem::take(&mut node.group.asked) {
                node.machine.on_read_index(&mut node.group, read, Some(index));
            }
        }
    }

    /// Lets everything come to its end at the present time.
    pub(super) fn settle(&mut self) {
        for _ in 0..40 {
            self.work_all();
            self.deliver();
            self.commit();
            self.answer_reads();
            for id in self.ids() {
                if !self.lagging.contains(&id) {
                    self.apply(id);
                }
            }
        }
        self.work_all();
    }

    pub(super) fn advance(&mut self, millis: u64) {
        self.now = Time(self.now.0 + millis * 1000);
        for node in self.nodes.values_mut() {
            node.group.now = self.now;
        }
    }

    pub(super) fn tick(&mut self) {
        for node in self.nodes.values_mut() {
            node.machine.on_tick(&mut node.group);
        }
    }

    /// Restarts a node from these records, as a process of this number.
    pub(super) fn restart(&mut self, id: u32, process: u64, records: Vec<QueueRecord>) {
        let applied = self.node(id).group.applied;
        let nodes = self.nodes.len() as u32;
        let mut node = Node::new(id, process, nodes, records, applied);
        let before = self.node(id);
        (node.group.term, node.group.leader) = (before.group.term, before.group.leader);
        node.group.committed = before.group.committed;
        self.nodes.insert(id, node);
        for other in self.ids() {
            if other != id {
                self.reconnect(id, other);
            }
        }
    }

    /// Brings a node to the state that another one has, in place of its own.
    pub(super) fn install_snapshot(&mut self, from: u32, to: u32) {
        let (position, records) = {
            let node = self.node(from);
            assert!(node.machine.checkpoint(&mut node.group));
            (node.group.applied, node.records())
        };
        let node = self.node(to);
        node.group.applied = position;
        node.machine.restore(&mut node.group, records).unwrap();
    }

    fn ids(&self) -> Vec<u32> {
        self.nodes.keys().copied().collect()
    }
}

impl Node {
    /// What the checkpoints have written.
    pub(super) fn records(&self) -> Vec<QueueRecord> {
        let mut records = BTreeMap::new();
        for batch in &self.group.checkpoints {
            batch.deletes.iter().for_each(|key| {
                records.remove(key);
            });
            records.extend(batch.puts.iter().cloned());
        }
        records.into_iter().collect()
    }

    /// The answers to changes, in order.
    pub(super) fn changed(&self) -> Vec<(u64, Result<(), crate::ChangeError>)> {
        let changed = |effect: &Effect| match effect {
            Effect::Changed { ticket, result } => Some((*ticket, result.clone())),
            _ => None,
        };
        self.effects.iter().filter_map(changed).collect()
    }

    /// The answers to requests to catch up, in order.
    pub(super) fn caught_up(&self) -> Vec<(u64, Result<(), crate::CatchUpError>)> {
        let caught_up = |effect: &Effect| match effect {
            Effect::CaughtUp { ticket, result } => Some((*ticket, *result)),
            _ => None,
        };
        self.effects.iter().filter_map(caught_up).collect()
    }
}
