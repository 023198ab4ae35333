//! With whom the cluster began.

use super::{NodeRecord, NodeState};
use crate::config::ClusterConfig;

/// The first nodes, from the configuration and the numbers that their directories drew.
pub(crate) fn first_nodes(
    config: &ClusterConfig,
    directory: impl Fn(u32) -> Option<u64>,
) -> Vec<NodeRecord> {
    let nodes = config.nodes.iter().map(|node| NodeRecord {
        id: node.id,
        peers: node.peers.clone(),
        state: NodeState::Active,
        directory: directory(node.id),
        founder: true,
        replaces: None,
    });
    nodes.filter(|node| node.directory.is_some()).collect()
}
