//! What a node is told about itself and its peers.

use std::sync::Arc;
use std::time::Duration;

use crate::{NodeId, Settings};

/// How a node learns which of its peers can be reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Liveness {
    /// By itself: it sends beats, and suspects peers that are silent.
    #[default]
    Own,
    /// From its host, by [`crate::NodeInput::PeerUp`] and [`crate::NodeInput::PeerDown`]: another
    /// [`crate::NodeCore`] of the same process, without groups and with [`Self::Own`], beats for
    /// both. This one sends packets that have messages, and only those.
    Told,
}

/// All settings of a node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NodeSettings {
    /// This node.
    pub node: NodeId,
    /// Names this start of the process: greater than that of every earlier start of the same node,
    /// and not zero.
    pub incarnation: u64,
    /// Drives all delays that are drawn; nodes may have the same.
    pub seed: u64,
    /// The other nodes of the cluster.
    pub peers: Vec<NodeId>,
    /// Whether it beats and suspects by itself.
    pub liveness: Liveness,
    /// How often a node that has nothing else to say tells its peers that it is alive.
    pub beat_interval: Duration,
    /// How long a peer is silent at least before it counts as down.
    pub suspicion_min: Duration,
    /// How long a peer is silent at most before it counts as down, however unsteady its beats are.
    pub suspicion_max: Duration,
    /// Elections under way at one time; the others wait for their turn.
    pub max_elections: usize,
    /// Unacknowledged bytes of entries on the way to one peer, of all groups together; one message
    /// may exceed it.
    pub pair_window_bytes: u64,
    /// Bytes that a group may send before the next one has its turn, while several wait.
    pub pair_quantum_bytes: u64,
    /// Snapshots that leaders here send at one time; the others wait for their turn.
    pub max_snapshots: usize,
    /// Messages in one packet at most.
    pub packet_messages: usize,
    /// Bytes of one packet at most, as far as they are counted; one message may exceed it.
    pub packet_bytes: usize,
    /// How long a group may have input and not be stepped before the host says
    /// [`crate::NodeInput::GroupStalled`].
    pub watchdog: Duration,
    /// The settings of the groups, unless a group is added with its own.
    pub group: Arc<Settings>,
    /// The rule to break, for the tests that show that each one matters.
    #[cfg(feature = "mutants")]
    pub mutant: Option<crate::NodeMutant>,
}

impl NodeSettings {
    /// The usual settings for this start of this node.
    #[must_use]
    pub fn new(node: NodeId, incarnation: u64, peers: impl IntoIterator<Item = NodeId>) -> Self {
        Self {
            node,
            incarnation,
            seed: incarnation,
            peers: peers.into_iter().collect(),
            liveness: Liveness::Own,
            beat_interval: Duration::from_millis(100),
            suspicion_min: Duration::from_millis(500),
            suspicion_max: Duration::from_millis(1000),
            max_elections: 64,
            pair_window_bytes: 32 << 20,
            pair_quantum_bytes: 256 << 10,
            max_snapshots: 4,
            packet_messages: 4096,
            packet_bytes: 1 << 20,
            watchdog: Duration::from_millis(1000),
            group: Arc::new(Settings::default()),
            #[cfg(feature = "mutants")]
            mutant: None,
        }
    }
}
