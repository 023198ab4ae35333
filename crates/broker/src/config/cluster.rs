//! The sections that make a node part of a cluster, and what they come to together.

use super::NodeConfig;
use flintmq_consensus::{MAX_VOTERS, NodeSettings, Settings};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Everything that a node needs to know of its cluster before it starts.
///
/// ```
/// use flintmq_broker::config::NodeConfig;
///
/// let cluster = NodeConfig::default().cluster();
/// assert!(cluster.nodes.is_empty() && !cluster.has_peers());
/// assert_eq!(cluster.replication_factor, 1);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterConfig {
    /// Name of the cluster.
    pub name: String,
    /// This node.
    pub node: u32,
    /// This node's side of the traffic between nodes. Always there when [`has_peers`] is true.
    ///
    /// [`has_peers`]: Self::has_peers
    pub peers: Option<PeersSection>,
    /// The first members with this node among them, by ascending id; empty when the file names
    /// none, which is a cluster of this node alone.
    pub nodes: Vec<ClusterNode>,
    /// Number of partitions.
    pub partitions: u32,
    /// Nodes that hold each partition: 1 to the number of nodes.
    pub replication_factor: u32,
    /// Elections.
    pub timing: TimingSection,
}

impl ClusterConfig {
    /// The other first members, by ascending id.
    pub fn others(&self) -> impl Iterator<Item = &ClusterNode> {
        self.nodes.iter().filter(|node| node.id != self.node)
    }

    /// Whether the cluster begins with more nodes than this one.
    pub fn has_peers(&self) -> bool {
        self.others().next().is_some()
    }
}

impl NodeConfig {
    /// The sections about the cluster, with their defaults filled in. Only of a configuration that
    /// came through [`load`](Self::load) or its siblings is it known to make sense.
    pub fn cluster(&self) -> ClusterConfig {
        let mut nodes = self.cluster_nodes.clone();
        nodes.sort_by_key(|node| node.id);
        ClusterConfig {
            name: self.cluster.clone(),
            node: self.node.id,
            peers: self.peers.clone(),
            nodes,
            partitions: self.bootstrap.partitions,
            replication_factor: self.replication_factor(),
            timing: self.timing.clone(),
        }
    }

    pub(super) fn replication_factor(&self) -> u32 {
        let most = most_replicas(self.cluster_nodes.len());
        self.bootstrap.replication_factor.unwrap_or(most)
    }
}

/// How many replicas a partition can have among so many first members; none at all are this node.
pub(super) fn most_replicas(nodes: usize) -> u32 {
    u32::try_from(nodes.clamp(1, MAX_VOTERS)).unwrap_or(u32::MAX)
}

/// `[peers]`: this node's side of the traffic between nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeersSection {
    /// UDP address that other nodes connect to, HOST:PORT.
    pub listen: String,
    /// PEM file with this node's certificate chain.
    pub certificate: PathBuf,
    /// PEM file with its private key.
    pub key: PathBuf,
    /// PEM file with the authority that all nodes' certificates come from.
    pub ca: PathBuf,
}

/// `[[cluster_nodes]]`: one of the first members of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterNode {
    /// Number of the node.
    pub id: u32,
    /// Where its `peers.listen` is reached, HOST:PORT. A name is looked up when it is connected to.
    pub peers: String,
}

/// `[bootstrap]`: read once, when a data directory is used for the first time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BootstrapSection {
    /// Number of partitions that queues are spread over; fixed for the life of the cluster.
    pub partitions: u32,
    /// Nodes that hold each partition. Absent: all, but no more than a group can have voters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replication_factor: Option<u32>,
    /// Directory with one JSON document per domain, `NAME.json`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domains_dir: Option<PathBuf>,
}

/// `[timing]`: elections between nodes. A single node elects itself and uses none of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TimingSection {
    /// How often a node with nothing else to say is heard.
    #[serde(with = "humantime_serde")]
    pub heartbeat: Duration,
    /// Shortest silence after which a follower stands for election.
    #[serde(with = "humantime_serde")]
    pub election_min: Duration,
    /// Longest such silence; each wait is drawn between the two.
    #[serde(with = "humantime_serde")]
    pub election_max: Duration,
}

impl TimingSection {
    /// Sets every time of the consensus core that follows from these three; the rest of `settings`
    /// stays.
    ///
    /// A silent node counts as down first (`suspicion`), and then each of its groups draws a delay.
    /// Both together take `election_min` to `election_max`.
    pub fn apply(&self, settings: &mut NodeSettings) {
        let span = self.election_max.saturating_sub(self.election_min);
        let delay_min = self.election_min / 5;
        settings.beat_interval = self.heartbeat;
        settings.suspicion_min = self.election_min.saturating_sub(delay_min);
        settings.suspicion_max = settings.suspicion_min + span * 2 / 5;
        // A link that is slow enough for longer elections is slow for answers, too.
        let usual = Settings::default();
        settings.group = Arc::new(Settings {
            election_delay_min: delay_min,
            election_delay_max: self.election_max.saturating_sub(settings.suspicion_max),
            round_timeout: usual.round_timeout.max(self.election_min * 3 / 5),
            sync_retry: usual.sync_retry.max(self.heartbeat * 4),
            append_retry: usual.append_retry.max(self.heartbeat * 4),
            election_timeout: usual.election_timeout.max(self.election_max * 2),
            ..(*settings.group).clone()
        });
    }
}

impl Default for BootstrapSection {
    fn default() -> Self {
        Self { partitions: 8, replication_factor: None, domains_dir: None }
    }
}

impl Default for TimingSection {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(50),
            election_min: Duration::from_millis(250),
            election_max: Duration::from_millis(500),
        }
    }
}
