//! Nodes that leave are forgotten once no group needs them any more. Done by the node that leads
//! the controller.

use std::collections::BTreeSet;

use flintmq_consensus::{GroupId, NodeId};
use flintmq_controller::{MembershipCommand, MetadataCommand, NodeState};
use flintmq_shard::{AdminCommand, GroupView};

use crate::event::{Errand, Event, Waits};
use crate::operators::Wish;
use crate::world::World;

/// How often it is looked, in microseconds.
const LOOK: u64 = 1_000_000;

/// A question to the leaders of all groups.
#[derive(Clone, Debug)]
pub(crate) struct Sweep {
    number: u64,
    /// Who asks.
    node: NodeId,
    incarnation: u64,
    leaving: BTreeSet<u32>,
    /// Groups that have not answered yet.
    missing: BTreeSet<GroupId>,
}

impl World {
    /// Operators look after nodes that leave, and those that are lost.
    pub(crate) fn look_after_nodes(&mut self) {
        self.after(LOOK, Event::LookAfterNodes);
        self.look_for_nodes();
        if self.settling.healed_since.is_some() {
            self.lift_limits();
        }
        let membership = self.controller.metadata().membership();
        let stays = |id: NodeId| {
            let state = membership.node(id.0).map(|node| node.state);
            matches!(state, Some(NodeState::Active | NodeState::Draining))
        };
        let lost: Vec<u32> = self
            .nodes
            .values()
            .filter(|node| node.gone && stays(node.id))
            .map(|node| node.id.0)
            .collect();
        // Whoever ordered it may not have been answered.
        let expected = membership.nodes().filter(|node| {
            node.state != NodeState::Removed && !self.nodes.contains_key(&NodeId(node.id))
        });
        let expected: Vec<NodeId> = expected.map(|node| NodeId(node.id)).collect();
        expected.into_iter().for_each(|id| self.expect_node(id));
        if self.leader_of(GroupId::CONTROLLER).is_some() {
            for id in lost {
                self.wish(Wish::Remove { id, force: true }, false);
            }
        }
        for (id, incarnation) in self.serving_nodes() {
            self.ask_who_is_needed(id, incarnation);
        }
    }

    fn ask_who_is_needed(&mut self, id: NodeId, incarnation: u64) {
        let groups: Vec<GroupId> =
            std::iter::once(GroupId::CONTROLLER).chain(self.groups.keys().copied()).collect();
        let Some(process) = self.nodes.get(&id).and_then(|node| node.process.as_ref()) else {
            return;
        };
        let status = |group| process.shard.status(group);
        if !status(GroupId::CONTROLLER).is_some_and(|status| status.serving) {
            return;
        }
        let membership = process.metadata.membership();
        let leaving = membership
            .nodes()
            .filter(|node| node.state == NodeState::Leaving && !membership.is_wanted(node.id));
        let leaving: BTreeSet<u32> = leaving.map(|node| node.id).collect();
        if leaving.is_empty() {
            return;
        }
        let leaders = groups.iter().map(|group| Some((*group, status(*group)?.leader?)));
        let Some(leaders) = leaders.collect::<Option<Vec<_>>>() else { return };
        let number = self.name();
        let missing = groups.into_iter().collect();
        self.operators.sweep = Some(Sweep { number, node: id, incarnation, leaving, missing });
        for (group, leader) in leaders {
            let reachable = !self.net.is_cut(id, leader) && !self.net.is_cut(leader, id);
            if leader == id || reachable {
                let waits = Waits::Needs { sweep: number, group };
                self.command(leader, group, AdminCommand::Inspect, waits);
            }
        }
    }

    /// A group's leader has said whom it needs.
    pub(crate) fn told_needs(&mut self, number: u64, group: GroupId, view: &GroupView) {
        let Some(sweep) = &mut self.operators.sweep else { return };
        if sweep.number != number || !view.settled {
            return;
        }
        let config = &view.config;
        sweep.leaving.retain(|id| {
            let id = NodeId(*id);
            // In the controller's group it may go on listening.
            let listens = group == GroupId::CONTROLLER && !config.is_voter(id);
            !config.is_member(id) || listens
        });
        sweep.missing.remove(&group);
        if !sweep.missing.is_empty() {
            return;
        }
        let Some(Sweep { node, incarnation, leaving, .. }) = self.operators.sweep.take() else {
            return;
        };
        for id in leaving {
            let change = MembershipCommand::Forget { id };
            let commands = vec![MetadataCommand::Membership { change }];
            self.change(node, incarnation, commands, Errand::Forget);
        }
    }
}
