//! The other nodes, as the host's liveness tells of them, and what they say before they are told.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use flintmq_consensus::{GroupId, NodeId, UnfitReasons};

/// Bytes that a process may say before it is told; beyond that it is no peer of ours.
const HELD_BYTES: usize = 64 << 20;

/// Another node.
#[derive(Debug, Default)]
struct Peer {
    up: bool,
    /// Its process; zero before it was told.
    incarnation: u64,
    /// What a newer process has said that was not told yet.
    held: VecDeque<(u64, GroupId, Bytes)>,
    held_bytes: usize,
    /// Why it should not lead.
    unfit: UnfitReasons,
    /// Groups that had no room to send to it.
    wants_room: BTreeSet<GroupId>,
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    peers: BTreeMap<NodeId, Peer>,
}

/// What becomes of a machine's message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// Its process is the known one.
    Now(Bytes),
    /// It waits until its process is told.
    Held,
    /// Its process is no more.
    Dropped,
}

impl Peers {
    /// Whether the node can be reached.
    pub(crate) fn is_up(&self, node: NodeId) -> bool {
        let known = self.peers.get(&node);
        known.is_some_and(|peer| peer.up)
    }

    /// The nodes that can be reached, ascending.
    pub(crate) fn in_reach(&self) -> impl Iterator<Item = NodeId> {
        self.peers.iter().filter(|(_, peer)| peer.up).map(|(node, _)| *node)
    }

    /// Takes down what became of a node; tells whether it was up.
    pub(crate) fn told(&mut self, node: NodeId, up: bool, incarnation: u64) -> bool {
        let peer = self.peers.entry(node).or_default();
        peer.incarnation = peer.incarnation.max(incarnation);
        if !up {
            peer.wants_room.clear();
        }
        std::mem::replace(&mut peer.up, up)
    }

    /// The node says why it should not lead.
    pub(crate) fn told_unfit(&mut self, node: NodeId, reasons: UnfitReasons) {
        self.peers.entry(node).or_default().unfit = reasons;
    }

    /// Why the node should not lead, as it said last.
    pub(crate) fn unfit(&self, node: NodeId) -> UnfitReasons {
        self.peers.get(&node).map(|peer| peer.unfit).unwrap_or_default()
    }

    /// The cluster has one node less; tells whether it was up.
    pub(crate) fn removed(&mut self, node: NodeId) -> bool {
        self.peers.remove(&node).is_some_and(|peer| peer.up)
    }

    /// A machine's message of this process arrived.
    pub(crate) fn on_message(
        &mut self,
        from: NodeId,
        process: u64,
        group: GroupId,
        bytes: Bytes,
    ) -> Arrival {
        let peer = self.peers.entry(from).or_default();
        match process.cmp(&peer.incarnation) {
            std::cmp::Ordering::Equal => Arrival::Now(bytes),
            std::cmp::Ordering::Less => Arrival::Dropped,
            std::cmp::Ordering::Greater if peer.held_bytes > HELD_BYTES => Arrival::Dropped,
            std::cmp::Ordering::Greater => {
                peer.held_bytes += bytes.len();
                peer.held.push_back((process, group, bytes));
                Arrival::Held
            }
        }
    }

    /// What the node's process has said before it was told, in order.
    pub(crate) fn take_held(&mut self, node: NodeId) -> Vec<(GroupId, Bytes)> {
        let Some(peer) = self.peers.get_mut(&node).filter(|peer| !peer.held.is_empty()) else {
            return Vec::new();
        };
        let known = peer.incarnation;
        let mut said = Vec::new();
        let held = std::mem::take(&mut peer.held);
        for (process, group, bytes) in held {
            match process.cmp(&known) {
                std::cmp::Ordering::Less => {}
                std::cmp::Ordering::Equal => said.push((group, bytes)),
                std::cmp::Ordering::Greater => peer.held.push_back((process, group, bytes)),
            }
        }
        peer.held_bytes = peer.held.iter().map(|(_, _, bytes)| bytes.len()).sum();
        said
    }

    /// A group had no room to send to the node.
    pub(crate) fn wants_room(&mut self, node: NodeId, group: GroupId) {
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.wants_room.insert(group);
        }
    }

    /// The groups that had no room to send to the node.
    pub(crate) fn take_waiting(&mut self, node: NodeId) -> BTreeSet<GroupId> {
        self.peers
            .get_mut(&node)
            .map(|peer| std::mem::take(&mut peer.wants_room))
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_process_says_waits_until_it_is_told() {
        let (mut peers, node, group) = (Peers::default(), NodeId(2), GroupId(1));
        let word = |byte: u8| Bytes::from(vec![byte]);
        let hear =
            |peers: &mut Peers, process, byte| peers.on_message(node, process, group, word(byte));
        assert_eq!(hear(&mut peers, 5, 1), Arrival::Held, "never told");
        assert!(!peers.is_up(node));
        assert!(!peers.told(node, true, 5));
        assert_eq!(peers.take_held(node), [(group, word(1))]);
        assert_eq!(hear(&mut peers, 5, 2), Arrival::Now(word(2)));
        assert_eq!(hear(&mut peers, 6, 3), Arrival::Held, "a new process");
        assert_eq!(hear(&mut peers, 4, 4), Arrival::Dropped, "an old one");
        assert!(peers.told(node, false, 5));
        assert_eq!(peers.take_held(node), []);
        assert!(!peers.told(node, true, 6));
        assert_eq!(hear(&mut peers, 5, 5), Arrival::Dropped);
        assert_eq!(peers.take_held(node), [(group, word(3))]);
    }
}
