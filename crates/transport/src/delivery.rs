//! What the transport hands to its user: frames in batches, and connections that come and go.

use bytes::Bytes;
use flintmq_consensus::NodeId;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use crate::{Class, Lane};

/// Frames of one lane that arrived together, in the order in which they were sent.
///
/// Its memory is accounted for until it is dropped: whoever keeps batches slows the class down.
/// Frames may be kept beyond that, at the user's own account; each holds on to a block of up to
/// 64 KiB that it arrived in, or to itself if it is longer.
#[derive(Debug)]
pub struct Batch {
    /// Who sent them.
    pub from: NodeId,
    /// Which process of the sender.
    pub incarnation: u64,
    /// On which connection, as told by [`Event::PeerUp`]. Batches of a connection may still be on
    /// their way through the channel when its end is told.
    pub connection: u64,
    /// On which lane. The shard is the sender's.
    pub lane: Lane,
    /// The frames, at least one, each in one piece.
    pub frames: Vec<Bytes>,
    /// Gives the room back when the batch is dropped.
    pub(crate) _room: OwnedSemaphorePermit,
}

/// A connection came into use or was lost.
///
/// Events of one peer alternate and are never left out; while they are not taken, connections to
/// the peers concerned are neither made nor mourned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Frames to this peer are accepted from now on.
    PeerUp {
        /// Which.
        peer: NodeId,
        /// Which process of it. When it is not the one of before, nothing of what the old process
        /// knew in memory is left.
        incarnation: u64,
        /// Numbers the connections of this process, to all peers.
        connection: u64,
        /// The protocol version that both sides speak.
        version: u16,
    },
    /// What was not received by now is lost. A new connection is tried at once.
    PeerDown {
        /// Which.
        peer: NodeId,
        /// The number that [`Event::PeerUp`] told.
        connection: u64,
        /// Why, for the log.
        reason: String,
    },
}

/// Where arriving frames and events go. Channels may be the same for several lanes, or one for
/// each.
///
/// A full channel holds back the lanes that lead to it: their streams are not read, and the
/// senders' queues fill. What leads to a channel whose receiver is gone is dropped.
#[derive(Clone, Debug)]
pub struct Routes {
    /// Batches of [`Class::Urgent`].
    pub urgent: mpsc::Sender<Batch>,
    /// Batches of [`Class::Append`], by shard, modulo their number; at least one.
    pub append: Vec<mpsc::Sender<Batch>>,
    /// Batches of [`Class::Gateway`], by shard, modulo their number; at least one.
    pub gateway: Vec<mpsc::Sender<Batch>>,
    /// Batches of [`Class::Bulk`].
    pub bulk: mpsc::Sender<Batch>,
    /// Connections.
    pub events: mpsc::Sender<Event>,
}

/// The receiving ends of [`Routes::by_class`].
#[derive(Debug)]
pub struct Inbound {
    /// Heartbeats and votes.
    pub urgent: mpsc::Receiver<Batch>,
    /// Entries and acknowledgements of all shards.
    pub append: mpsc::Receiver<Batch>,
    /// Gateway traffic of all shards.
    pub gateway: mpsc::Receiver<Batch>,
    /// Snapshots.
    pub bulk: mpsc::Receiver<Batch>,
    /// Connections.
    pub events: mpsc::Receiver<Event>,
}

impl Routes {
    /// One channel for each class, and one for events, with room for so many items each (at least
    /// one).
    #[must_use]
    pub fn by_class(capacity: usize) -> (Self, Inbound) {
        let capacity = capacity.max(1);
        let (urgent, urgent_receiver) = mpsc::channel(capacity);
        let (append, append_receiver) = mpsc::channel(capacity);
        let (gateway, gateway_receiver) = mpsc::channel(capacity);
        let (bulk, bulk_receiver) = mpsc::channel(capacity);
        let (events, events_receiver) = mpsc::channel(capacity);
        let routes = Self { urgent, append: vec![append], gateway: vec![gateway], bulk, events };
        let inbound = Inbound {
            urgent: urgent_receiver,
            append: append_receiver,
            gateway: gateway_receiver,
            bulk: bulk_receiver,
            events: events_receiver,
        };
        (routes, inbound)
    }

    /// Where batches of this lane go; none when the user named no channel for it.
    pub(crate) fn of(&self, lane: Lane) -> Option<&mpsc::Sender<Batch>> {
        let by_shard = |channels: &'_ [mpsc::Sender<Batch>]| match channels.len() {
            0 => None,
            count => Some(lane.shard as usize % count),
        };
        match lane.class {
            Class::Urgent => Some(&self.urgent),
            Class::Append => self.append.get(by_shard(&self.append)?),
            Class::Gateway => self.gateway.get(by_shard(&self.gateway)?),
            Class::Bulk => Some(&self.bulk),
        }
    }
}
