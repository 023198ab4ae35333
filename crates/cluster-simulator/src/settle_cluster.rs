//! What must hold in the end of the cluster's metadata: nodes, members and places of queues.

use std::fmt::Write as _;

use flintmq_consensus::{GroupId, NodeId};
use flintmq_controller::NodeState;

use crate::oracle::{Violation, violation};
use crate::world::World;

impl World {
    /// Nodes that have not joined or left yet, and metadata that differ.
    pub(crate) fn what_cluster_misses(&self, missing: &mut String) {
        let metadata = self.controller.metadata();
        let membership = metadata.membership();
        if self.profile.nodes > 1 && !membership.is_known() {
            missing.push_str("the cluster's nodes are not recorded; ");
        }
        for node in membership.nodes() {
            if node.state == NodeState::Leaving {
                let _ = write!(missing, "node {} has not left yet; ", node.id);
            }
            let gone = self.nodes.get(&NodeId(node.id)).is_none_or(|node| node.gone);
            if gone && node.state != NodeState::Removed {
                let _ = write!(missing, "node {} is gone and not removed; ", node.id);
            }
        }
        for node in self.nodes.values() {
            let Some(process) = &node.process else { continue };
            let applied = process.applied_metadata().map(|metadata| metadata.applied());
            if applied != Some(metadata.applied()) {
                let _ = write!(missing, "the metadata of node {} lag; ", node.id.0);
            }
            let leads = |group: &GroupId| {
                let place = membership.place(*group);
                let mut voters = place.iter().flat_map(|place| &place.voters);
                // Without any other it has to.
                voters.any(|voter| !membership.is_barred(NodeId(*voter)))
                    && self.leader_of(*group) == Some(node.id)
            };
            if membership.is_barred(node.id) && self.groups.keys().any(leads) {
                let _ = write!(missing, "node {} leads and must not; ", node.id.0);
            }
        }
    }

    /// Members that are to come or to go.
    pub(crate) fn what_members_miss(&self, group: GroupId, leader: NodeId, missing: &mut String) {
        let Some(place) = self.controller.metadata().membership().place(group) else { return };
        let process = self.nodes.get(&leader).and_then(|node| node.process.as_ref());
        let Some(core) = process.and_then(|process| process.shard.core(group)) else { return };
        let config = core.config();
        let numbers = |nodes: &[NodeId]| nodes.iter().map(|node| node.0).collect::<Vec<u32>>();
        let (voters, learners) = (numbers(&config.voters), numbers(&config.learners));
        if config.is_joint() || voters != place.voters || learners != place.learners {
            let _ = write!(
                missing,
                "group {} has voters {voters:?} and learners {learners:?}, wanted are {place:?}; ",
                group.0
            );
        }
    }

    /// Every queue of a partition has its place, and only there; all nodes know the same.
    pub(crate) fn check_places(&self) -> Result<(), Violation> {
        let metadata = self.controller.metadata();
        for (group, oracle) in &self.groups {
            for queue in oracle.reference.queue_ids() {
                let mut places = metadata.queues().map(|(_, place)| place);
                if !places.any(|place| place.partition == group.0 && place.id() == queue) {
                    let detail = format!("group {} queue {}", group.0, queue.0);
                    return violation("EveryQueueHasItsPlace", detail);
                }
            }
        }
        for node in self.nodes.values() {
            let Some(process) = &node.process else { continue };
            let theirs = &process.metadata;
            let same = theirs.queues().eq(metadata.queues())
                && theirs.domains().eq(metadata.domains())
                && theirs.membership() == metadata.membership();
            if !same {
                return violation("ReplicasAreEqual", format!("metadata of node {}", node.id.0));
            }
        }
        Ok(())
    }
}
