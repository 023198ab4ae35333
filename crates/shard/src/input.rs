//! What the host of a shard tells it.

use std::sync::Arc;

use bytes::Bytes;
use flintmq_consensus::{Entry, GroupId, Index, NodeId, Packet, SnapshotId, UnfitReasons};
use flintmq_log_store::{OpenSnapshot, ReadError, Report, SnapshotPiece};

use crate::admin::AdminCommand;
use crate::assignment::Assignment;
use crate::replica::StoredState;

/// What happened outside of the shard. `R` is what its machines are asked for.
#[derive(Debug)]
pub enum ShardInput<R> {
    /// A packet of another node's consensus. Its messages are dropped unless it comes from the
    /// process that [`Self::Peer`] named.
    Packet(Packet),
    /// A message of the machine, or the shard, that hosts the same group on another node. Messages
    /// of one connection come in order.
    Message {
        /// The node.
        from: NodeId,
        /// Its process. What a process says that was not told yet waits until it is.
        process: u64,
        /// As [`crate::Network::send_message`] was given it there; [`crate::hosted_group`] tells
        /// which group that is.
        group: GroupId,
        /// The message.
        bytes: Bytes,
    },
    /// The connection to this node has room again.
    Room {
        /// Which.
        peer: NodeId,
    },
    /// Another node's process can be reached now, or cannot be any more. A node that was never
    /// told counts as out of reach.
    Peer {
        /// Which.
        peer: NodeId,
        /// Whether it can be reached.
        up: bool,
        /// Its process; greater than every earlier one's.
        incarnation: u64,
        /// Whether it is not the process that was there before.
        restarted: bool,
    },
    /// Another node should not lead, as it says itself, or may again. One that never says so
    /// is fit.
    PeerUnfit {
        /// Which.
        peer: NodeId,
        /// Why.
        reasons: UnfitReasons,
    },
    /// The cluster has one node less.
    PeerRemoved {
        /// Which.
        peer: NodeId,
    },
    /// A report or an answer of the store, from the sink that the shard was given.
    Store {
        /// The group.
        group: GroupId,
        /// What the store says.
        event: StoreEvent,
    },
    /// The hard states of this batch, and of all before it, are on the disk.
    HardStatesSaved {
        /// The batch.
        batch: u64,
    },
    /// Answer to [`crate::ShardEffect::ReadEntry`].
    EntryRead {
        /// The group.
        group: GroupId,
        /// The entry.
        index: Index,
        /// Its payload.
        read: Result<Bytes, ReadError>,
    },
    /// Answer to [`crate::ShardEffect::ReadState`].
    StateRead {
        /// The group.
        group: GroupId,
        /// As the effect has it.
        read: u64,
        /// What [`crate::read_state`] found.
        records: Result<StoredState, ReadError>,
    },
    /// Something for a group's machine.
    Request {
        /// The group.
        group: GroupId,
        /// What.
        request: R,
    },
    /// An administrator's command, answered by [`crate::ShardEffect::Answer`].
    Admin {
        /// The group.
        group: GroupId,
        /// Names the answer.
        ticket: u64,
        /// The command.
        command: AdminCommand,
    },
    /// Which nodes should hold and lead the groups, from now on.
    Assignment(Arc<Assignment>),
    /// Whether the controller is led. While it is not, the assignment may be outdated, and no
    /// group changes its members.
    ControllerLed {
        /// Whether it is.
        led: bool,
    },
    /// Time passed; due at [`crate::Shard::next_deadline`].
    Tick,
    /// A group does not get on: if it is led here, another node had better lead it.
    GroupStalled {
        /// Which.
        group: GroupId,
    },
    /// The node is about to stop: every group settles, gives its leadership up and writes a
    /// checkpoint, then [`crate::ShardEffect::Stopped`] comes.
    Stop,
}

/// What the store tells about one group.
#[derive(Debug)]
pub enum StoreEvent {
    /// A report, in the order of the requests.
    Report(Report),
    /// Entries were read for a member that is behind.
    LogRead {
        /// Which life of the replica asked.
        life: u64,
        /// The core's number.
        read: u64,
        /// What was read.
        entries: Result<Vec<Entry>, ReadError>,
    },
    /// A snapshot was opened for a member, or could not be.
    SnapshotOpened {
        /// Which life of the replica asked.
        life: u64,
        /// Whom it is for.
        to: NodeId,
        /// The snapshot.
        opened: Result<OpenSnapshot, ReadError>,
    },
    /// A piece of a snapshot was read, or could not be.
    SnapshotRead {
        /// Which life of the replica asked.
        life: u64,
        /// Whom it is for.
        to: NodeId,
        /// Which snapshot.
        id: SnapshotId,
        /// Where the piece begins.
        cursor: Bytes,
        /// The piece.
        piece: Result<SnapshotPiece, ReadError>,
    },
}

/// What the store tells, on threads of its own: an input for the shard.
#[derive(Debug)]
pub enum FromStore {
    /// About one group.
    Group {
        /// The group.
        group: GroupId,
        /// What.
        event: StoreEvent,
    },
    /// The hard states of this batch, and of all before it, are on the disk.
    HardStatesSaved {
        /// The batch.
        batch: u64,
    },
}

/// Where the store's callbacks go: it queues them for the shard, and does not block.
pub type StoreEvents = Arc<dyn Fn(FromStore) + Send + Sync>;

impl<R> From<FromStore> for ShardInput<R> {
    fn from(told: FromStore) -> Self {
        match told {
            FromStore::Group { group, event } => Self::Store { group, event },
            FromStore::HardStatesSaved { batch } => Self::HardStatesSaved { batch },
        }
    }
}
