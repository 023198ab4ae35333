//! Nodes that come later, and what each node does about those that come and go.

use flintmq_consensus::{GroupId, HardState, NodeId, NodeInput};
use flintmq_controller::{ClusterMembership, MembershipCommand, MetadataCommand, NodeState};
use flintmq_shard::ShardInput;

use crate::coverage::Situation;
use crate::event::{Errand, Event};
use crate::operators::Wish;
use crate::plan::FaultKind;
use crate::world::World;

/// Most nodes of a cluster, those that are gone among them.
const MOST_NODES: u32 = 8;

/// How soon a node that is not admitted asks again, in microseconds.
const AGAIN: u64 = 400_000;

/// How long a node that was removed has to hear of it, in microseconds.
const FAREWELL: u64 = 2_000_000;

/// What a node that asks is to the cluster.
enum Verdict {
    Known { directory: u64 },
    Expected,
    Unexpected,
    Removed,
}

impl World {
    /// Operators change the nodes of the cluster.
    pub(crate) fn change_nodes(&mut self, kind: FaultKind, id: NodeId, lasts: u64) {
        // A cluster of one is not set up for others.
        if self.profile.nodes < 2 {
            return;
        }
        let next = self.nodes.keys().last().map_or(1, |last| last.0 + 1);
        let wish = match kind {
            FaultKind::Drain => {
                let undo = Wish::Drain { id: id.0, draining: false };
                let undo = crate::operators::Operation { wish: undo, insists: false };
                self.after(lasts, Event::Operate(Box::new(undo)));
                Wish::Drain { id: id.0, draining: true }
            }
            FaultKind::AddNode if next <= MOST_NODES => Wish::Add { id: next, replaces: None },
            FaultKind::ReplaceNode if next <= MOST_NODES => {
                Wish::Add { id: next, replaces: Some(id.0) }
            }
            FaultKind::RemoveNode => Wish::Remove { id: id.0, force: false },
            _ => return,
        };
        self.wish(wish, false);
    }

    /// A node was added to the membership: it is set up.
    pub(crate) fn expect_node(&mut self, id: NodeId) {
        if self.nodes.contains_key(&id) {
            return;
        }
        self.make_node(id, Vec::new());
        let later = self.operator_random.between(10_000, 1_000_000);
        self.after(later, Event::Join(id));
    }

    /// A node with a new directory asks another one to be admitted.
    pub(crate) fn ask_to_join(&mut self, id: NodeId) {
        let waits = self.nodes.get(&id).filter(|node| node.process.is_none() && !node.gone);
        let Some(directory) = waits.map(|node| node.directory) else { return };
        let others = self.serving_nodes();
        let asked = self.operator_random.pick(&others);
        let Some((asked, incarnation)) = asked else { return self.after(AGAIN, Event::Join(id)) };
        let process = self.nodes.get(&asked).and_then(|node| node.process.as_ref());
        let Some(membership) = process.map(|process| process.metadata.membership()) else { return };
        match verdict(membership, id) {
            Verdict::Known { directory: known } if known == directory => {
                let nodes = membership.present();
                let peers = nodes.map(|node| NodeId(node.id)).filter(|peer| *peer != id).collect();
                if let Some(node) = self.nodes.get_mut(&id) {
                    node.first_peers = peers;
                }
                self.create_groups(id, &HardState::default());
                self.coverage.saw(Situation::NodeJoined);
                self.after(10_000, Event::Boot(id));
                return;
            }
            Verdict::Known { .. } | Verdict::Removed => return self.bury(id),
            Verdict::Expected => {
                let change = MembershipCommand::Admit { id: id.0, directory };
                let commands = vec![MetadataCommand::Membership { change }];
                self.change(asked, incarnation, commands, Errand::Admit);
            }
            Verdict::Unexpected => {
                // That it was added was lost together with a majority.
                let known = self.controller.metadata().membership().node(id.0).is_some();
                if !known && self.settling.healed_since.is_some() {
                    return self.bury(id);
                }
            }
        }
        self.after(AGAIN, Event::Join(id));
    }

    /// A node connects to the nodes of the membership, and disconnects from those that were
    /// removed.
    pub(crate) fn follow_membership(&mut self, id: NodeId, membership: &ClusterMembership) {
        if membership.is_removed(id) {
            // It hears of its own removal.
            return self.after(10_000, Event::TurnOff(id));
        }
        let present: Vec<NodeId> = membership.present().map(|node| NodeId(node.id)).collect();
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let Some(process) = &mut node.process else { return };
        let removed: Vec<NodeId> =
            process.known.iter().copied().filter(|peer| membership.is_removed(*peer)).collect();
        process.known.retain(|peer| !removed.contains(peer));
        removed.iter().for_each(|peer| process.cluster_clock.forget(*peer));
        self.meet(id, present);
        for peer in removed {
            self.after(FAREWELL, Event::PartWith(id, peer));
        }
    }

    /// A node begins to connect to others, unless it knows them.
    fn meet(&mut self, id: NodeId, peers: Vec<NodeId>) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let time = node.clock.time(self.now.max(node.paused_until));
        let Some(process) = &mut node.process else { return };
        let mut met = Vec::new();
        for peer in peers.into_iter().filter(|peer| *peer != id) {
            if process.known.insert(peer) {
                process.step_liveness(time, NodeInput::AddPeer { peer });
                met.push(peer);
            }
        }
        process.cluster_clock.set_nodes(process.known.len() + 1);
        self.wake_liveness(id, self.now);
        for peer in met {
            let later = self.net_random.between(1_000, 60_000);
            self.after(later, Event::Connect(id, peer));
        }
    }

    /// A node that finds no leader of the controller asks those that it knows which nodes there
    /// are: the leader may have come while it was away.
    pub(crate) fn look_for_nodes(&mut self) {
        for id in self.ids() {
            let process = self.nodes.get(&id).and_then(|node| node.process.as_ref());
            let Some(process) = process else { continue };
            let core = process.shard.core(GroupId::CONTROLLER);
            if core.is_none_or(|core| core.leader().is_some()) {
                continue;
            }
            let mut named = Vec::new();
            for peer in process.known.iter().filter(|peer| self.net.is_open(id, **peer)) {
                let other = self.nodes.get(peer).and_then(|node| node.process.as_ref());
                let Some(other) = other else { continue };
                let membership = other.metadata.membership();
                named.extend(membership.present().map(|node| NodeId(node.id)));
            }
            let own = process.metadata.membership();
            named.retain(|peer| {
                !own.is_removed(*peer) && !process.known.contains(peer) && *peer != id
            });
            if !named.is_empty() {
                self.coverage.saw(Situation::NodeNamed);
                self.meet(id, named);
            }
        }
    }

    /// A node ends its connection to one that was removed.
    pub(crate) fn part_with(&mut self, id: NodeId, peer: NodeId) {
        self.disconnect(id, peer);
        let now = self.now;
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let time = node.clock.time(now.max(node.paused_until));
        let Some(process) = &mut node.process else { return };
        let incarnation = process.incarnation;
        process.step_liveness(time, NodeInput::RemovePeer { peer });
        self.wake_liveness(id, now);
        self.tell_now(id, incarnation, ShardInput::PeerRemoved { peer });
    }
}

fn verdict(membership: &ClusterMembership, id: NodeId) -> Verdict {
    match membership.node(id.0) {
        Some(node) if node.state == NodeState::Removed => Verdict::Removed,
        Some(node) => match node.directory {
            Some(directory) => Verdict::Known { directory },
            None => Verdict::Expected,
        },
        None => Verdict::Unexpected,
    }
}
