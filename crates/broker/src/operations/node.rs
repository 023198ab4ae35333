//! The parts of the node that orders work on.

use std::sync::{Arc, OnceLock};

use flintmq_consensus::{GroupId, NodeId};
use flintmq_shard::ReplicaStatus;
use flintmq_storage::LogStore;
use tokio::sync::watch;

use super::Peers;
use super::refusal::Refused;
use crate::controller::Controller;
use crate::fatal::FatalSignal;
use crate::host::{CoreClock, Fitness, GroupAdmin, PartitionHandle, partition_of};
use crate::session::SessionDirectory;

/// There once the node is up.
pub(crate) struct Node {
    pub(crate) cluster: String,
    pub(crate) id: u32,
    pub(crate) controller: Controller,
    pub(crate) partitions: Vec<PartitionHandle>,
    /// The way to each group's replica, the controller's first.
    pub(crate) replicas: Vec<GroupAdmin>,
    /// The cluster's first nodes with their addresses, until the membership is known; empty for one
    /// alone.
    pub(crate) members: Vec<(u32, String)>,
    /// The others, where there are any.
    pub(crate) peers: Option<Peers>,
    /// Who is connected to this node.
    pub(crate) sessions: Arc<SessionDirectory>,
    pub(crate) store: Arc<dyn LogStore>,
    pub(crate) fatal: FatalSignal,
    pub(crate) clock: CoreClock,
    pub(crate) fitness: Fitness,
}

/// Where the node goes when it is up.
#[derive(Clone, Default)]
pub(crate) struct NodeCell(Arc<OnceLock<Node>>);

impl NodeCell {
    /// The node is up.
    pub(crate) fn set(&self, node: Node) {
        // A node starts once per process.
        let _already = self.0.set(node);
    }

    /// The node, once it is up.
    pub(crate) fn get(&self) -> Option<&Node> {
        self.0.get()
    }
}

impl Node {
    /// State of one group's replica here.
    ///
    /// # Errors
    /// There is no such group.
    pub(crate) fn watch(&self, group: u32) -> Result<watch::Receiver<ReplicaStatus>, Refused> {
        if group == GroupId::CONTROLLER.0 {
            return Ok(self.controller.watch());
        }
        let partition = partition_of(&self.partitions, group);
        partition.map(PartitionHandle::watch).ok_or_else(|| Refused::unknown_group(group))
    }

    /// The way to one group's replica.
    ///
    /// # Errors
    /// There is no such group.
    pub(crate) fn replica(&self, group: u32) -> Result<&GroupAdmin, Refused> {
        self.replicas.get(group as usize).ok_or_else(|| Refused::unknown_group(group))
    }

    /// The cluster's nodes, as far as they are known here, by number.
    pub(crate) fn nodes(&self) -> Vec<u32> {
        let roster = self.controller.membership();
        let mut present: Vec<u32> = roster.present().map(|node| node.id).collect();
        if present.is_empty() {
            present = self.members.iter().map(|(id, _)| *id).collect();
        }
        present.sort_unstable();
        present
    }

    /// The nodes but this one, by number.
    pub(crate) fn others(&self) -> Vec<u32> {
        self.nodes().into_iter().filter(|id| *id != self.id).collect()
    }

    /// Whether a node of the cluster can be reached.
    pub(crate) fn reaches(&self, node: u32) -> bool {
        node == self.id || self.peers.as_ref().is_some_and(|peers| peers.is_reachable(NodeId(node)))
    }
}
