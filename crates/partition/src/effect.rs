//! What a partition has done for it: answers, bytes for sessions, and news for metrics and logs.

use std::time::Duration;

use bytes::Bytes;
use flintmq_consensus::GroupId;
use flintmq_queue::{Location, QueueId, QueueView};

use crate::request::{SessionId, Ticket};

/// One thing to be done, in order.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Give a request its answer.
    Answer {
        /// As given with the request.
        ticket: Ticket,
        /// The answer.
        answer: Answer,
    },
    /// Hand whole events to a session's client, behind all that was handed to it before. If its way
    /// out gets full by it, say so with [`Request::SessionFull`](crate::Request).
    Send {
        /// To whom.
        session: SessionId,
        /// The events; may be empty.
        events: Bytes,
        /// Bytes of PUTs that are answered: the client may send as many more.
        answered: usize,
    },
    /// Refuse a request of a client, behind all that was handed to it before.
    Refuse {
        /// To whom.
        session: SessionId,
        /// The client's number of the request.
        request_id: Option<i32>,
        /// What went wrong, and what to do.
        message: &'static str,
    },
    /// End the session's connection: what it has open here is gone, and the protocol has no other
    /// way to tell. Its client connects again and opens its queues again.
    EndSession {
        /// Which.
        session: SessionId,
        /// Why.
        reason: &'static str,
    },
    /// A queue is here from now on: its series begin.
    QueueOpened {
        /// The queue.
        queue: QueueId,
        /// Its canonical URI.
        uri: String,
    },
    /// A queue is not here any more: its series end.
    QueueClosed {
        /// The queue.
        queue: QueueId,
        /// Its canonical URI.
        uri: String,
    },
    /// What happened in a queue since it was last told.
    Counted {
        /// The queue.
        queue: QueueId,
        /// The counts.
        counts: QueueCounts,
    },
    /// How full a queue is.
    Levels {
        /// The queue.
        queue: QueueId,
        /// The levels.
        levels: QueueLevels,
    },
    /// An entry was acknowledged this long after its first message came.
    PublishLatency(Duration),
    /// Messages were delivered for the first time this long after they came: milliseconds, and how
    /// many.
    DeliveryLatency(Vec<(u64, u32)>),
}

/// An answer to a request.
#[derive(Clone, Debug)]
pub enum Answer {
    /// To [`Request::Open`](crate::Request::Open).
    Opened(Result<(), OpenRefusal>),
    /// To [`Request::SessionEnded`](crate::Request::SessionEnded).
    Ended,
    /// To [`Request::Purge`](crate::Request::Purge).
    Purged(Result<Purged, AdminRefusal>),
    /// To [`Request::Delete`](crate::Request::Delete).
    Deleted(Result<(), AdminRefusal>),
    /// To [`Request::View`](crate::Request::View).
    View(Option<QueueSnapshot>),
    /// To [`Request::ViewAll`](crate::Request::ViewAll).
    ViewAll(Vec<QueueSnapshot>),
    /// To [`Request::Peek`](crate::Request::Peek): where to read.
    Peek(Result<Vec<Location>, AdminRefusal>),
    /// To [`Request::Settled`](crate::Request::Settled).
    Settled,
    /// To [`Request::IdleQueues`](crate::Request::IdleQueues) and
    /// [`Request::StopDelivery`](crate::Request::StopDelivery).
    Idle(Vec<String>),
}

/// Why a queue was not opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenRefusal {
    /// A limit of the domain, or an app that the queue does not have.
    #[error("{0}")]
    Refused(String),
    /// The queue was deleted while the client was opening it: its URI has a new place, or none.
    #[error("the queue was deleted meanwhile: open it again")]
    Deleted,
    /// There is no leader that serves.
    #[error("{0}")]
    NotReady(&'static str),
}

/// Why an administrator's request was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AdminRefusal {
    /// The partition does not hold the queue.
    #[error("the queue holds nothing yet: no client has opened it")]
    NoSuchQueue,
    /// It has been used, or holds something.
    #[error("the queue has been used meanwhile: it stays")]
    Used,
    /// A client has it open.
    #[error(
        "clients have the queue open: stop them first, consumers={consumers} producers={producers}"
    )]
    InUse {
        /// Handles that read.
        consumers: usize,
        /// Handles that write.
        producers: usize,
    },
    /// There is no leader, or the store cannot be read.
    #[error("{0}")]
    Failed(String),
}

/// What a purge dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Purged {
    /// Messages.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// A queue with its partition.
#[derive(Clone, Debug)]
pub struct QueueSnapshot {
    /// The partition's group.
    pub group: GroupId,
    /// Number of the node that leads the group.
    pub node: Option<u32>,
    /// The queue.
    pub view: QueueView,
}

/// What happened in a queue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueueCounts {
    /// Messages stored, and their bytes.
    pub published: (u64, u64),
    /// Messages delivered, and their bytes.
    pub delivered: (u64, u64),
    /// Of those, how many were delivered before.
    pub redelivered: u64,
    /// Messages confirmed.
    pub confirmed: u64,
    /// Messages that were there already.
    pub duplicates: u64,
    /// Messages refused, by reason.
    pub rejected: [u64; RejectReason::COUNT],
    /// Messages that left without a confirmation, by reason.
    pub dropped: [u64; DropReason::COUNT],
}

/// Why a message was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RejectReason {
    /// The queue or its domain holds too many messages.
    LimitMessages,
    /// The queue or its domain holds too many bytes.
    LimitBytes,
    /// The disk is nearly full.
    Storage,
    /// Too large, or for a queue that is not there.
    Invalid,
    /// The partition does not serve at the moment.
    Unavailable,
}

impl RejectReason {
    /// How many reasons there are.
    pub const COUNT: usize = 5;
}

/// Why a message left without a confirmation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropReason {
    /// It outlived its time to live.
    Expired,
    /// An administrator purged it.
    Purged,
    /// Every consumer that had it died.
    Attempts,
}

impl DropReason {
    /// How many reasons there are.
    pub const COUNT: usize = 3;
}

/// How full a queue is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueLevels {
    /// Messages that wait or are unconfirmed.
    pub backlog_messages: u64,
    /// Their bytes.
    pub backlog_bytes: u64,
    /// When the oldest of them came, milliseconds since 1970.
    pub oldest_arrival_ms: Option<u64>,
    /// Messages with consumers.
    pub unconfirmed_messages: u64,
    /// Messages that wait for another delivery.
    pub redelivery_messages: u64,
    /// Handles that read.
    pub consumers: u64,
    /// Handles that write.
    pub producers: u64,
}
