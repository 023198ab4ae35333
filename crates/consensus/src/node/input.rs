//! What the host tells a node.

use crate::{GroupId, Input, NodeId, Packet, UnfitReasons};

/// What happened outside of the node. Proposals and changes of members have methods of their own.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum NodeInput {
    /// Time passed; due at [`crate::NodeCore::next_deadline`], harmless at any other time.
    Tick,
    /// A packet of a peer arrived.
    Packet(Packet),
    /// There is a connection to this peer: it is greeted at once.
    Connected {
        /// Which.
        peer: NodeId,
    },
    /// The connection to this peer is lost: it counts as down until it is heard again.
    Disconnected {
        /// Which.
        peer: NodeId,
    },
    /// This process of a peer can be reached, in both directions. Only with
    /// [`crate::Liveness::Told`]; the last word on a peer counts, words in between may be left
    /// out. A peer is down until the first. Messages of and for any other process of the peer are
    /// dropped.
    PeerUp {
        /// Which.
        peer: NodeId,
        /// Its process.
        incarnation: u64,
        /// It is not the process that was there before. A new incarnation says so too.
        restarted: bool,
    },
    /// This peer cannot be reached. Only with [`crate::Liveness::Told`].
    PeerDown {
        /// Which.
        peer: NodeId,
    },
    /// The cluster has one more node.
    AddPeer {
        /// Which.
        peer: NodeId,
    },
    /// The cluster has one node less.
    RemovePeer {
        /// Which.
        peer: NodeId,
    },
    /// Anything for one group but messages, hard-state reports and peers going up and down, which
    /// the node sees to: answers to its effects, reads, transfers. Answers to the effects of a
    /// removed group must not be given to a later one of the same number.
    Group {
        /// Which.
        group: GroupId,
        /// What.
        input: Input,
    },
    /// The states of this batch, and of all before it, are fsynced.
    HardStatesSynced {
        /// From [`crate::NodeEffect::SaveHardStates`].
        batch: u64,
    },
    /// The node is about to stop: all leaderships are given up, none is sought any more.
    CedeAll,
    /// This group had input and was not stepped for too long, or its state machine does not get
    /// on: if it is led here, it is handed over at once, to a voter that is fit, else to any that
    /// is up. Without one it stays.
    GroupStalled {
        /// Which.
        group: GroupId,
    },
    /// This node should not lead, for these reasons; none: it may again. Groups that are led
    /// here are handed over to voters that are fit, as long as there are some and a majority can go
    /// on, and this node stands for election later than others. To be told to the one that beats
    /// and to the one with the groups, where these are two.
    Unfit {
        /// Why.
        reasons: UnfitReasons,
    },
    /// This peer should not lead, or may again. Only with [`crate::Liveness::Told`].
    PeerUnfit {
        /// Which.
        peer: NodeId,
        /// Why.
        reasons: UnfitReasons,
    },
    /// The node as a whole does not get on: nothing is sent, so that the peers take it for down,
    /// until [`Self::Resumed`]. Only last words are, after [`Self::StorageFailed`]. Tell it to the
    /// one that beats when another, which has the groups, is not stepped: that is what makes the
    /// peers elect new leaders.
    Stalled,
    /// The node gets on again.
    Resumed,
    /// A write or an fsync failed: all groups stop for good, and after their last words so does
    /// the node.
    StorageFailed,
}
