//! With whom the cluster began.

use super::{NodeRecord, NodeState};
use crate::config::ClusterConfig;

/// The first nodes, from the configuration and the numbers that the founders' directories drew. The
/// others are expected, and admitted when they come. None where no founder is known.
pub(crate) fn first_nodes(
    config: &ClusterConfig,
    directory: impl Fn(u32) -> Option<u64>,
) -> Vec<NodeRecord> {
    let nodes = config.nodes.iter().map(|node| NodeRecord {
        id: node.id,
        peers: node.peers.clone(),
        state: NodeState::Active,
        directory: directory(node.id),
        founder: directory(node.id).is_some(),
        replaces: None,
    });
    let nodes: Vec<NodeRecord> = nodes.collect();
    if nodes.iter().any(|node| node.founder) { nodes } else { Vec::new() }
}
