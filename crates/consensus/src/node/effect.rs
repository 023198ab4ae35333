//! What a node asks its host to do.

use crate::{Class, CreationId, Effect, GroupId, HardState, NodeId, Packet, UnfitReasons};

/// What the host must do. Effects of one group are in order; all may be carried out at once.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum NodeEffect {
    /// Send it; it may be lost.
    Send {
        /// How urgent it is.
        class: Class,
        /// What.
        packet: Packet,
    },
    /// Write and **fsync** these hard states, then report [`crate::NodeInput::HardStatesSynced`]
    /// with this number. Batches keep their order; several may be written with one fsync, and the
    /// report of the last stands for all.
    SaveHardStates {
        /// Numbers the batches of this process.
        batch: u64,
        /// The states, each of another group.
        states: Vec<(GroupId, CreationId, HardState)>,
    },
    /// An effect of one group: any but [`Effect::Send`] and [`Effect::SaveHardState`].
    Group {
        /// Which.
        group: GroupId,
        /// What.
        effect: Effect,
    },
    /// This peer counts as down; for logs, metrics, and [`crate::NodeInput::PeerDown`]. Not with
    /// [`crate::Liveness::Told`].
    PeerSuspected {
        /// Which.
        peer: NodeId,
    },
    /// This peer can be reached, in both directions; for logs, metrics, and
    /// [`crate::NodeInput::PeerUp`]. Not with [`crate::Liveness::Told`].
    PeerTrusted {
        /// Which.
        peer: NodeId,
        /// Its process.
        incarnation: u64,
        /// True when it is not the process that was there before.
        restarted: bool,
    },
    /// This peer should not lead, or may again; for logs, metrics, and
    /// [`crate::NodeInput::PeerUnfit`]. Not with [`crate::Liveness::Told`].
    PeerUnfit {
        /// Which.
        peer: NodeId,
        /// Why.
        reasons: UnfitReasons,
    },
}
