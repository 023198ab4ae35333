//! What the controller's leader changes by itself: it records the nodes that formed the cluster,
//! and assigns groups to the nodes that there are.

use crate::membership::{ClusterMembership, MembershipCommand, NodeRecord};
use crate::placement::plan;

/// What the leader plans with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlanningSettings {
    /// The nodes that formed the cluster, as this one knows them. Nothing is planned without them
    /// until another leader has recorded them.
    pub first: Vec<NodeRecord>,
    /// On how many nodes each partition is to live; none: on all, however many there will be.
    pub replicas: Option<u32>,
    /// How many partitions there are.
    pub partitions: u32,
}

impl PlanningSettings {
    /// The next change of this membership; none when every group is where it should be. Nodes that
    /// are `away` keep what they hold and get nothing new while there are others.
    pub fn next_change(
        &self,
        membership: &ClusterMembership,
        away: &impl Fn(u32) -> bool,
    ) -> Option<MembershipCommand> {
        if !membership.is_known() {
            let (nodes, replicas) = (self.first.clone(), self.replicas);
            return (!nodes.is_empty()).then_some(MembershipCommand::Seed { nodes, replicas });
        }
        let places = plan(membership, self.partitions, away);
        let version = membership.version();
        (!places.is_empty()).then_some(MembershipCommand::Place { version, places })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::membership::tests::membership_of;

    #[test]
    fn the_first_nodes_come_first_and_a_plan_ends() {
        let first: Vec<_> = membership_of(&[1, 2, 3]).nodes().cloned().collect();
        let settings = PlanningSettings { first, replicas: Some(3), partitions: 2 };
        let mut membership = ClusterMembership::default();
        let mut changes = 0;
        while let Some(change) = settings.next_change(&membership, &|_| false) {
            membership.apply(change).unwrap();
            changes += 1;
        }
        assert_eq!(changes, 2, "the nodes, then the places");
        assert_eq!(membership.replicas(), Some(3));
        let unknown = PlanningSettings { partitions: 2, ..PlanningSettings::default() };
        assert!(unknown.next_change(&ClusterMembership::default(), &|_| false).is_none());
    }
}
