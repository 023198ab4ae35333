//! Which nodes should hold and lead the groups, as the controller has it.

use std::collections::{BTreeMap, BTreeSet};

use flintmq_consensus::{GroupId, NodeId};

/// The nodes of one group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Those that vote.
    pub voters: Vec<NodeId>,
    /// Those that receive the log and do not vote.
    pub learners: Vec<NodeId>,
    /// Who should lead while it can.
    pub leader: Option<NodeId>,
}

impl Place {
    /// Whether the node should hold the group's log.
    #[must_use]
    pub fn holds(&self, node: NodeId) -> bool {
        self.voters.contains(&node) || self.learners.contains(&node)
    }
}

/// What is wanted of all groups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assignment {
    /// The groups whose nodes are planned. The others stay as they are.
    pub groups: BTreeMap<GroupId, Place>,
    /// Nodes that must not lead.
    pub ineligible: BTreeSet<NodeId>,
}

impl Assignment {
    /// Whether the node should hold the group; true where nothing is planned.
    pub(crate) fn wants(&self, group: GroupId, node: NodeId) -> bool {
        self.groups.get(&group).is_none_or(|place| place.holds(node))
    }
}
