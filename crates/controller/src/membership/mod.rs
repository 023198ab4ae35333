//! Who belongs to the cluster, and which nodes are to hold each group.
//!
//! This is what is wanted. Each group's leader changes the group's configuration step by step until
//! it is so, and every node connects to the nodes named here. A node's number is never used again:
//! votes are remembered under it.

mod change;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::BTreeMap;

use flintmq_consensus::{GroupId, NodeId};
use serde::{Deserialize, Serialize};

pub use change::{MembershipCommand, MembershipRefusal, Touched};

/// A node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// Its number.
    pub id: u32,
    /// Where other nodes reach it, HOST:PORT.
    pub peers: String,
    /// What is to become of it.
    pub state: NodeState,
    /// The number that its data directory drew; none until the node has joined for the first time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<u64>,
    /// It was there when the cluster was formed, and created its groups with the others.
    #[serde(default)]
    pub founder: bool,
    /// The node that it replaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<u32>,
}

/// What is to become of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeState {
    /// It holds groups and leads some.
    Active,
    /// It holds groups and leads none.
    Draining,
    /// Its groups move to others.
    Leaving,
    /// It does not belong to the cluster any more.
    Removed,
}

impl NodeState {
    /// The state's name in messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Draining => "draining",
            Self::Leaving => "leaving",
            Self::Removed => "removed",
        }
    }
}

/// Which nodes are to hold a group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaAssignment {
    /// Those that vote, ascending.
    pub voters: Vec<u32>,
    /// Those that only receive the log, ascending.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub learners: Vec<u32>,
    /// The node that should lead while it can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader: Option<u32>,
}

impl ReplicaAssignment {
    /// Whether the node is to have the group's log.
    pub fn holds(&self, node: NodeId) -> bool {
        self.voters.contains(&node.0) || self.learners.contains(&node.0)
    }
}

/// All nodes and assignments, as the applied log says. Empty until the first leader of the
/// controller has recorded the nodes that formed the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterMembership {
    pub(crate) nodes: BTreeMap<u32, NodeRecord>,
    pub(crate) assignments: BTreeMap<u32, ReplicaAssignment>,
    pub(crate) head: MembershipHead,
}

/// What belongs to the membership besides nodes and assignments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MembershipHead {
    /// Counts all changes.
    pub(crate) version: u64,
    /// Nodes that hold each partition; none: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) replicas: Option<u32>,
}

impl ClusterMembership {
    /// Whether the nodes that formed the cluster are recorded.
    pub fn is_known(&self) -> bool {
        !self.nodes.is_empty()
    }

    /// Counts all changes.
    pub fn version(&self) -> u64 {
        self.head.version
    }

    /// Nodes that hold each partition; none: all.
    pub fn replicas(&self) -> Option<u32> {
        self.head.replicas
    }

    /// A node, also one that was removed.
    pub fn node(&self, id: u32) -> Option<&NodeRecord> {
        self.nodes.get(&id)
    }

    /// All nodes by number, the removed ones among them.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeRecord> {
        self.nodes.values()
    }

    /// The nodes that were not removed, by number.
    pub fn present(&self) -> impl Iterator<Item = &NodeRecord> {
        self.nodes().filter(|node| node.state != NodeState::Removed)
    }

    /// Whether the node was removed. One that is not recorded was not.
    pub fn is_removed(&self, id: NodeId) -> bool {
        self.node(id.0).is_some_and(|node| node.state == NodeState::Removed)
    }

    /// Which nodes are to hold the group; none before it is planned.
    pub fn place(&self, group: GroupId) -> Option<&ReplicaAssignment> {
        self.assignments.get(&group.0)
    }

    /// What each planned group is to be held by.
    pub fn assignments(&self) -> impl Iterator<Item = (GroupId, &ReplicaAssignment)> {
        self.assignments.iter().map(|(group, assignment)| (GroupId(*group), assignment))
    }

    /// Whether the node must not lead.
    pub fn is_barred(&self, node: NodeId) -> bool {
        self.node(node.0).is_some_and(|node| node.state != NodeState::Active)
    }

    /// Whether groups may be assigned to the node: it has joined, and does not leave, or not until
    /// the node that replaces it has joined.
    pub fn is_home(&self, node: &NodeRecord) -> bool {
        let awaited = |node: &NodeRecord| {
            self.nodes().any(|new| new.replaces == Some(node.id) && new.directory.is_none())
        };
        node.directory.is_some()
            && match node.state {
                NodeState::Active | NodeState::Draining => true,
                NodeState::Leaving => awaited(node),
                NodeState::Removed => false,
            }
    }

    /// Whether a group is to have the node as a voter.
    pub fn is_wanted(&self, id: u32) -> bool {
        self.assignments.values().any(|assignment| assignment.voters.contains(&id))
    }
}
