//! Connects to the nodes of the cluster's membership, and disconnects from those that were removed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use flintmq_consensus::{NodeId, NodeInput};
use flintmq_shard::ReplicaStatus;
use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::PeerLinks;
use super::formation::Formation;
use super::forming::{FormationMessage, send};
use crate::controller::ClusterMembership;

/// How long a node that was removed has to hear of it before its connection is closed.
const FAREWELL: Duration = Duration::from_secs(2);

/// How often a node that finds no leader of the controller asks which nodes there are.
const LOOK: Duration = Duration::from_secs(1);

/// Keeps connections and the watch over lives as the membership says.
pub(super) struct PeerList {
    pub(super) node: NodeId,
    pub(super) links: PeerLinks,
    /// Those that are connected to. Addresses of the configuration go before those of the
    /// membership.
    pub(super) known: BTreeSet<NodeId>,
    pub(super) membership: watch::Receiver<Arc<ClusterMembership>>,
    pub(super) liveness: mpsc::Sender<NodeInput>,
    /// The state of the controller's group here.
    pub(super) controller: watch::Receiver<ReplicaStatus>,
    /// Nodes that others name.
    pub(super) named: mpsc::Receiver<BTreeMap<u32, String>>,
    /// Raised when this node was removed.
    pub(super) removed: CancellationToken,
    /// How this node came.
    pub(super) formation: Formation,
}

impl PeerList {
    /// Follows the membership until stopped.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let at_first = std::mem::take(&mut self.formation.nodes);
        if !self.membership.borrow().is_known() {
            for (id, address) in &at_first {
                self.meet(NodeId(*id), address).await;
            }
        }
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let membership = Arc::clone(&self.membership.borrow_and_update());
            self.follow(&membership).await;
            tokio::select! {
                changed = self.membership.changed() => if changed.is_err() { return },
                Some(nodes) = self.named.recv() => self.on_named(&membership, &nodes).await,
                _ = look.tick() => self.look_for_nodes(),
                () = stop.cancelled() => return,
            }
        }
    }

    /// Without a leader of the controller this node may not learn of the node that leads it: one
    /// that came while this one was away. Those that it knows are asked.
    fn look_for_nodes(&self) {
        if self.controller.borrow().leader.is_some() {
            return;
        }
        let number = self.formation.number;
        let message = FormationMessage { number, looks: true, ..FormationMessage::default() };
        self.known.iter().for_each(|peer| send(&self.links, *peer, &message));
    }

    /// Another node names nodes; one that this node knows to be removed stays away.
    async fn on_named(&mut self, membership: &ClusterMembership, nodes: &BTreeMap<u32, String>) {
        for (id, address) in nodes {
            if !membership.is_removed(NodeId(*id)) {
                self.meet(NodeId(*id), address).await;
            }
        }
    }

    async fn follow(&mut self, membership: &ClusterMembership) {
        if membership.is_removed(self.node) {
            self.removed.cancel();
            return;
        }
        for node in membership.present() {
            self.meet(NodeId(node.id), &node.peers).await;
        }
        let removed: Vec<NodeId> =
            self.known.iter().copied().filter(|peer| membership.is_removed(*peer)).collect();
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
        let number = self.formation.number;
        let message = FormationMessage { number, removed: true, ..FormationMessage::default() };
        send(&self.links, peer, &message);
        let (links, liveness) = (self.links.clone(), self.liveness.clone());
        tokio::spawn(async move {
            tokio::time::sleep(FAREWELL).await;
            links.remove_peer(peer);
            let _stopping = liveness.send(NodeInput::RemovePeer { peer }).await;
        });
    }
}
