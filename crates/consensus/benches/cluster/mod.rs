//! Nodes in one thread, joined by memory: packets and reports of the store arrive in the next
//! round, and nothing is ever written.

use std::collections::VecDeque;
use std::time::Duration;

use flintmq_consensus::{
    ConfigRegister, CreationId, Effect, GroupId, HardState, Index, Input, LogTerms, NodeCore,
    NodeEffect, NodeId, NodeInput, NodeSettings, Restored, Time,
};

/// A few nodes, all of which are members of all groups.
pub(crate) struct Cluster {
    pub(crate) now: Time,
    /// None: dead.
    pub(crate) nodes: Vec<Option<NodeCore>>,
    /// What happened since the last round, by node.
    inputs: Vec<VecDeque<NodeInput>>,
    effects: Vec<NodeEffect>,
    /// Entries of all groups that some node knows to be decided.
    pub(crate) committed: u64,
    /// The last of them in each group.
    decided: Vec<Index>,
    /// Groups that began to be served.
    pub(crate) served: u64,
}

impl Cluster {
    /// Nodes 0 to `nodes - 1` with groups 0 to `groups - 1`.
    pub(crate) fn new(nodes: u32, groups: u32) -> Self {
        let everybody = || (0..nodes).map(NodeId);
        let mut cluster = Self {
            now: Time::from_millis(1000),
            nodes: Vec::new(),
            inputs: Vec::new(),
            effects: Vec::new(),
            committed: 0,
            decided: vec![0; groups as usize],
            served: 0,
        };
        for node in everybody() {
            let mut settings = NodeSettings::new(node, 1, everybody());
            settings.seed = 7;
            let mut core = NodeCore::new(settings);
            for group in 0..groups {
                let config = ConfigRegister::of_voters(everybody());
                let restored = Restored {
                    group: GroupId(group),
                    creation: CreationId(1),
                    node,
                    hard_state: HardState { config, ..HardState::default() },
                    log: LogTerms::default(),
                    applied: 0,
                    recovering: None,
                };
                core.add_group(cluster.now, restored).expect("an empty store is consistent");
            }
            cluster.nodes.push(Some(core));
            cluster.inputs.push(VecDeque::new());
        }
        cluster
    }

    /// Gives all nodes what has arrived for them, without time passing.
    pub(crate) fn round(&mut self) {
        for at in 0..self.nodes.len() {
            let Some(node) = &mut self.nodes[at] else {
                self.inputs[at].clear();
                continue;
            };
            for input in std::mem::take(&mut self.inputs[at]) {
                node.step(self.now, input);
            }
            if node.next_deadline().is_some_and(|deadline| deadline <= self.now) {
                node.step(self.now, NodeInput::Tick);
            }
            let mut effects = std::mem::take(&mut self.effects);
            node.flush(self.now, &mut effects);
            for effect in effects.drain(..) {
                self.carry_out(at, effect);
            }
            self.effects = effects;
        }
    }

    fn carry_out(&mut self, at: usize, effect: NodeEffect) {
        match effect {
            NodeEffect::Send { packet, .. } => {
                let to = packet.to.0 as usize;
                self.inputs[to].push_back(NodeInput::Packet(packet));
            }
            NodeEffect::SaveHardStates { batch, .. } => {
                self.inputs[at].push_back(NodeInput::HardStatesSynced { batch });
            }
            NodeEffect::Group { group, effect: Effect::Append { write, .. } } => {
                let input = Input::Appended { write };
                self.inputs[at].push_back(NodeInput::Group { group, input });
            }
            NodeEffect::Group { group, effect: Effect::Commit { upto } } => {
                let decided = &mut self.decided[group.0 as usize];
                self.committed += upto.saturating_sub(*decided);
                *decided = upto.max(*decided);
            }
            NodeEffect::Group { effect: Effect::Serving { .. }, .. } => self.served += 1,
            _ => {}
        }
    }

    /// True when nothing is on the way.
    pub(crate) fn is_still(&self) -> bool {
        self.inputs.iter().all(VecDeque::is_empty)
    }

    /// Time passes in steps of a millisecond, each with one round.
    pub(crate) fn run(&mut self, millis: u64) {
        for _ in 0..millis {
            self.now = self.now + Duration::from_millis(1);
            self.round();
        }
    }

    /// Runs until every node has slept until its next timer, and no longer.
    pub(crate) fn run_by_timers(&mut self, until: Time) {
        loop {
            while !self.is_still() {
                self.round();
            }
            let next = self.nodes.iter().flatten().filter_map(NodeCore::next_deadline).min();
            let Some(next) = next.filter(|next| *next <= until) else { break };
            self.now = self.now.max(next);
            self.round();
        }
        self.now = until;
    }

    /// The node that serves a group, if there is one.
    pub(crate) fn leader(&self, group: GroupId) -> Option<usize> {
        self.nodes.iter().position(|node| {
            let core = node.as_ref().and_then(|node| node.group(group));
            core.is_some_and(|core| core.is_serving())
        })
    }

    /// Groups that a node leads and serves.
    pub(crate) fn led_by(&self, at: usize) -> usize {
        let node = self.nodes[at].as_ref();
        node.map_or(0, |node| node.groups().filter(|core| core.is_serving()).count())
    }

    /// Groups in which nothing happens, at any node.
    pub(crate) fn at_rest(&self) -> usize {
        let nodes = self.nodes.iter().flatten();
        nodes.map(|node| node.groups().filter(|core| core.is_quiesced()).count()).sum()
    }
}
