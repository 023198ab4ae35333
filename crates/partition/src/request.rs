//! What sessions and the administration ask of a partition.
//!
//! Every request that wants an answer carries a [`Ticket`]; the answer comes as
//! [`Effect::Answer`](crate::Effect::Answer) with the same ticket, exactly once, unless the node
//! stops. Requests of one session are carried out in their order.

use std::time::Duration;

use bytes::Bytes;
use flintmq_protocol::guid::MessageGuid;
use flintmq_queue::{Attributes, HandleId, QueueId, QueueSettings, Subscription};

/// Names a request whose answer somebody waits for; chosen by who asks, never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// A client's session on this node; never used again in the life of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

/// One request.
#[derive(Clone, Debug)]
pub enum Request {
    /// Open a queue to read or to write.
    Open(Box<Open>),
    /// Replace a reader's subscriptions.
    Configure(Box<Configure>),
    /// Close handles; answered behind the acknowledgements of what was published through them.
    Close(Box<Close>),
    /// Messages read from a client in one go.
    Publish(Publish),
    /// Confirmations read from a client in one go.
    Confirm(Vec<Confirm>),
    /// The session is over: close what it has open here.
    SessionEnded(SessionEnded),
    /// The way out to this session is full: deliver nothing to it.
    SessionFull(SessionId),
    /// The way out to this session has room again.
    SessionRoom(SessionId),
    /// The domain's definition changed.
    UpdateQueue {
        /// The queue.
        queue: QueueId,
        /// What it inherits now.
        settings: Box<QueueSettings>,
    },
    /// Drop messages without delivering them. Answered by [`Answer::Purged`](crate::Answer).
    Purge {
        /// Who asks.
        ticket: Ticket,
        /// The queue.
        queue: QueueId,
    },
    /// Forget the queue. Answered by [`Answer::Deleted`](crate::Answer).
    Delete {
        /// Who asks.
        ticket: Ticket,
        /// The queue.
        queue: QueueId,
        /// What it must be for its deletion to be right.
        only_if: Removable,
    },
    /// What stands in a queue. Answered by [`Answer::View`](crate::Answer).
    View {
        /// Who asks.
        ticket: Ticket,
        /// The queue.
        queue: QueueId,
    },
    /// What stands in all queues. Answered by [`Answer::ViewAll`](crate::Answer).
    ViewAll {
        /// Who asks.
        ticket: Ticket,
    },
    /// Where the oldest messages of a queue are. Answered by [`Answer::Peek`](crate::Answer).
    Peek {
        /// Who asks.
        ticket: Ticket,
        /// The queue.
        queue: QueueId,
        /// How many at most.
        count: usize,
    },
    /// Answered by [`Answer::Settled`](crate::Answer) when everything asked for before is committed
    /// and applied, as far as this node leads.
    Settled {
        /// Who asks.
        ticket: Ticket,
    },
    /// Which queues have been empty and closed for this long, by URI. Answered by
    /// [`Answer::Idle`](crate::Answer); only the leader knows of any.
    IdleQueues {
        /// Who asks.
        ticket: Ticket,
        /// For how long.
        timeout: Duration,
    },
    /// The node is stopping: hand the leadership over, or deliver nothing more. Confirmations are
    /// still taken. Answered by [`Answer::Idle`](crate::Answer) with an empty list when nothing is
    /// left to wait for.
    StopDelivery {
        /// Who asks.
        ticket: Ticket,
    },
}

/// What a queue must be for its deletion to be right. The condition travels with the request to
/// whoever leads, and is looked at when the deletion is proposed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removable {
    /// Closed: an administrator gives up what is in it.
    Closed,
    /// Closed and empty for this long.
    UnusedFor(Duration),
}

/// Opens a queue for one role of one session's sub-stream. Answered by
/// [`Answer::Opened`](crate::Answer).
#[derive(Clone, Debug)]
pub struct Open {
    /// Who asks.
    pub ticket: Ticket,
    /// The session.
    pub session: SessionId,
    /// Whether its client knows only the older layout of message properties.
    pub old_properties: bool,
    /// The handle, unique in the cluster for as long as any process of it lives.
    pub handle: HandleId,
    /// The queue's number.
    pub queue: QueueId,
    /// Canonical URI.
    pub uri: String,
    /// What it inherits from its domain, should it have to be created.
    pub settings: QueueSettings,
    /// Reader or writer.
    pub role: HandleRole,
}

/// What a handle is for, with the client's names for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandleRole {
    /// Publishes; ACKs carry this queue id.
    Writer {
        /// The client's qId.
        queue_id: u32,
    },
    /// Consumes; PUSHes carry this queue id.
    Reader {
        /// The client's qId.
        queue_id: u32,
    },
}

impl HandleRole {
    /// Whether it consumes.
    pub fn reads(self) -> bool {
        matches!(self, Self::Reader { .. })
    }
}

/// Replaces the subscriptions of a reader.
#[derive(Clone, Debug)]
pub struct Configure {
    /// The session.
    pub session: SessionId,
    /// The reader.
    pub handle: HandleId,
    /// All of them, from now on.
    pub subscriptions: Vec<Subscription>,
    /// The encoded answer, to leave between the last PUSH under the old subscriptions and the first
    /// under the new.
    pub response: Bytes,
    /// The client's number of the request, for a refusal.
    pub request_id: Option<i32>,
}

/// Closes handles of one sub-stream.
#[derive(Clone, Debug)]
pub struct Close {
    /// The session.
    pub session: SessionId,
    /// The handles.
    pub handles: Vec<HandleId>,
    /// The encoded answer; empty where the client does not know of the handles.
    pub response: Bytes,
}

/// Messages of one session, in the order in which they were read.
#[derive(Clone, Debug)]
pub struct Publish {
    /// The session.
    pub session: SessionId,
    /// The messages.
    pub puts: Vec<Put>,
}

/// One message to be stored.
#[derive(Clone, Debug)]
pub struct Put {
    /// The writer.
    pub handle: HandleId,
    /// The queue.
    pub queue: QueueId,
    /// Its identity.
    pub guid: MessageGuid,
    /// For clients that count instead of making GUIDs; else 0.
    pub correlation_id: u32,
    /// Whether success is to be acknowledged; failure always is.
    pub ack_requested: bool,
    /// Flags, compression, schema.
    pub attributes: Attributes,
    /// Properties and payload.
    pub app_data: Bytes,
}

/// One confirmation.
#[derive(Clone, Copy, Debug)]
pub struct Confirm {
    /// The reader.
    pub handle: HandleId,
    /// The message.
    pub guid: MessageGuid,
}

/// The end of a session.
#[derive(Clone, Copy, Debug)]
pub struct SessionEnded {
    /// Which.
    pub session: SessionId,
    /// True when the client vanished: what it held counts as a failed delivery.
    pub lost: bool,
    /// Answered by [`Answer::Ended`](crate::Answer) when everything received before is answered and
    /// all handles are closed.
    pub ticket: Ticket,
}
