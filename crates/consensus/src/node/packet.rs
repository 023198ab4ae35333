//! What nodes exchange: beats, with the messages of all groups.

use crate::{Body, Clocks, Message, NodeId, UnfitReasons};

/// How urgent a packet is. Packets of one class should keep their order, as far as the network
/// keeps any; those of different classes should travel on streams of their own, so that the urgent
/// ones never wait behind the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Beats, elections, cessions, confirmations: small, and late is as bad as lost.
    Urgent,
    /// Entries and their acknowledgements.
    Append,
    /// Pieces of snapshots.
    Bulk,
}

impl Class {
    /// The class of a message. Appends and their acknowledgements share one, so that those of one
    /// group stay in order.
    #[must_use]
    pub fn of(body: &Body) -> Self {
        match body {
            Body::Append { .. }
            | Body::Ack { .. }
            | Body::Fetch { .. }
            | Body::FetchReply { .. } => Self::Append,
            Body::SnapshotChunk { .. } => Self::Bulk,
            _ => Self::Urgent,
        }
    }
}

/// What a node sends to another at once. It may be lost, doubled, delayed and overtaken.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Packet {
    /// The sender.
    pub from: NodeId,
    /// The receiver.
    pub to: NodeId,
    /// Which process of the sender.
    pub from_incarnation: u64,
    /// Which process of the receiver this is meant for; zero when the sender has not heard of any.
    /// A packet for another process is a sign of life only, its messages are dropped.
    pub to_incarnation: u64,
    /// The sender's count of packets to this receiver: only the newest packet tells how the sender
    /// is doing.
    pub number: u64,
    /// The sender's count of contacts with the receiver: it raises it whenever it takes the
    /// receiver for down.
    pub contact: u64,
    /// The receiver's contact number, as far as the sender has heard of it. The receiver counts the
    /// sender as up only if this is its present one: packets from before a loss of contact do not
    /// end it.
    pub heard_contact: u64,
    /// The sender has heard the receiver lately. A link that works in one direction only counts as
    /// down on both sides.
    pub hears_you: bool,
    /// What the sender's clocks show as it leaves. The host fills it in, in beats; see
    /// [`crate::ClusterClock`].
    pub clocks: Option<Clocks>,
    /// Why the sender should not lead.
    pub unfit: UnfitReasons,
    /// Messages of any groups.
    pub messages: Vec<Message>,
}
