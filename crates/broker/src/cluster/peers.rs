//! Connects to the nodes of the cluster's membership, and disconnects from those that were removed.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use flintmq_consensus::{NodeId, NodeInput};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::PeerLinks;
use super::formation::{Formation, Word, tell};
use crate::controller::{ClusterMembership, NodeState};

/// How long a node that was removed has to hear of it before its connection is closed.
const FAREWELL: Duration = Duration::from_secs(2);

/// Keeps connections and the watch over lives as the membership says.
pub(super) struct PeerList {
    pub(super) node: NodeId,
    pub(super) links: PeerLinks,
    /// Those that are connected to. Addresses of the configuration go before those of the membership.
    pub(super) known: BTreeSet<NodeId>,
    pub(super) membership: watch::Receiver<Arc<ClusterMembership>>,
    pub(super) liveness: mpsc::Sender<NodeInput>,
    /// Raised when this node was removed.
    pub(super) removed: CancellationToken,
    /// How this node came.
    pub(super) formation: Formation,
}

impl PeerList {
    /// Follows the roster until stopped.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let at_first = std::mem::take(&mut self.formation.nodes);
        if !self.membership.borrow().is_known() {
            for (id, address) in &at_first {
                self.meet(NodeId(*id), address).await;
            }
        }
        loop {
            let membership = Arc::clone(&self.membership.borrow_and_update());
            self.follow(&membership).await;
            tokio::select! {
                changed = self.membership.changed() => if changed.is_err() { return },
                () = stop.cancelled() => return,
            }
        }
    }

    async fn follow(&mut self, membership: &ClusterMembership) {
        let is_removed =
            |id: NodeId| membership.node(id.0).is_some_and(|node| node.state == NodeState::Removed);
        if is_removed(self.node) {
            self.removed.cancel();
            return;
        }
        for node in membership.nodes().filter(|node| node.state != NodeState::Removed) {
            self.meet(NodeId(node.id), &node.peers).await;
        }
        let removed: Vec<NodeId> =
            self.known.iter().copied().filter(|peer| is_removed(*peer)).collect();
        for peer in removed {
            self.known.remove(&peer);
            self.part_with(peer);
        }
    }

    /// Begins to connect to a node, unless it is known.
    async fn meet(&mut self, peer: NodeId, address: &str) {
        if peer == self.node || !self.known.insert(peer) {
            return;
        }
        tracing::info!(peer = peer.0, address, "connects to one more node of the cluster");
        self.links.add_peer(peer, address);
        let _stopping = self.liveness.send(NodeInput::AddPeer { peer }).await;
    }

    /// Tells it, and leaves it a moment to hear it.
    fn part_with(&self, peer: NodeId) {
        tracing::info!(peer = peer.0, "a node was removed from the cluster");
        tell(
            &self.links,
            peer,
            &Word { number: self.formation.number, removed: true, ..Word::default() },
        );
        let (links, liveness) = (self.links.clone(), self.liveness.clone());
        tokio::spawn(async move {
            tokio::time::sleep(FAREWELL).await;
            links.remove_peer(peer);
            let _stopping = liveness.send(NodeInput::RemovePeer { peer }).await;
        });
    }
}
