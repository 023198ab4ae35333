//! What sessions and the administration ask of a partition.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use flintmq_consensus::GroupId;
use flintmq_protocol::guid::MessageGuid;
use flintmq_queue::{HandleId, QueueId, QueueSettings, QueueView, Subscription};
use tokio::sync::oneshot;

use crate::link::{SessionId, SessionLink};

/// One request. Requests of one session to one partition are carried out in their order.
pub(crate) enum Request {
    /// Open a queue to read or to write.
    Open(Box<Open>),
    /// Replace a reader's subscriptions.
    Configure(Box<Configure>),
    /// Close a handle; answered behind the acknowledgements of what was published through it.
    Close(Box<Close>),
    /// Messages read from a client in one go.
    Publish(Publish),
    /// Confirmations read from a client in one go.
    Confirm(Vec<Confirm>),
    /// The session is over: close what it has open here.
    SessionEnded(SessionEnded),
    /// The domain's definition changed.
    UpdateQueue { queue: QueueId, settings: Box<QueueSettings> },
    /// Drop messages without delivering them.
    Purge { queue: QueueId, done: oneshot::Sender<Result<Purged, AdminRefusal>> },
    /// Forget the queue. Refused while a client has it open.
    Delete { queue: QueueId, only_if: Removable, done: oneshot::Sender<Result<(), AdminRefusal>> },
    /// What stands in a queue.
    View { queue: QueueId, done: oneshot::Sender<Option<QueueSnapshot>> },
    /// What stands in all queues.
    ViewAll { done: oneshot::Sender<Vec<QueueSnapshot>> },
    /// The oldest messages of a queue, without taking them.
    Peek { queue: QueueId, count: usize, done: oneshot::Sender<Result<Vec<Peeked>, AdminRefusal>> },
    /// Told when everything asked for before is decided and applied.
    Settled { done: oneshot::Sender<()> },
    /// Which queues have been empty and closed for this long, by URI.
    IdleQueues { timeout: Duration, done: oneshot::Sender<Vec<String>> },
    /// Deliver nothing more: the node is stopping. Confirmations are still taken.
    StopDelivery { idle: oneshot::Sender<()> },
}

/// What a queue must be for its deletion to be right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Removable {
    /// Closed: an administrator gives up what is in it.
    Closed,
    /// Closed and empty for this long, looked at when the deletion is decided.
    UnusedFor(Duration),
}

/// Opens a queue for one role of one session's sub-stream.
pub(crate) struct Open {
    pub(crate) session: Arc<SessionLink>,
    pub(crate) handle: HandleId,
    pub(crate) queue: QueueId,
    /// Canonical URI.
    pub(crate) uri: String,
    pub(crate) settings: QueueSettings,
    pub(crate) role: HandleRole,
    pub(crate) done: oneshot::Sender<Result<(), OpenRefusal>>,
}

/// What a handle is for, with the client's names for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HandleRole {
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

/// Why a queue was not opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum OpenRefusal {
    /// A limit of the domain, or an app that the queue does not have.
    #[error("{0}")]
    Refused(String),
    /// The queue was deleted while the client was opening it: its URI has a new place, or none.
    #[error("the queue was deleted meanwhile: open it again")]
    Deleted,
    /// There is no leader that serves, or the disk is nearly full.
    #[error("{0}")]
    NotReady(&'static str),
}

/// Replaces the subscriptions of a reader.
pub(crate) struct Configure {
    pub(crate) session: Arc<SessionLink>,
    pub(crate) handle: HandleId,
    pub(crate) subscriptions: Vec<Subscription>,
    /// The encoded answer, to be queued between the last PUSH under the old subscriptions and the
    /// first under the new.
    pub(crate) response: Bytes,
    /// The client's number of the request, for a refusal.
    pub(crate) request_id: Option<i32>,
}

/// Closes handles of one sub-stream.
pub(crate) struct Close {
    pub(crate) session: Arc<SessionLink>,
    pub(crate) handles: Vec<HandleId>,
    /// The encoded answer.
    pub(crate) response: Bytes,
}

/// Messages of one session, in the order in which they were read.
pub(crate) struct Publish {
    pub(crate) session: Arc<SessionLink>,
    pub(crate) puts: Vec<Put>,
}

/// One message to be stored.
#[derive(Clone)]
pub(crate) struct Put {
    pub(crate) handle: HandleId,
    pub(crate) queue: QueueId,
    pub(crate) guid: MessageGuid,
    /// For clients that count instead of making GUIDs; else 0.
    pub(crate) correlation_id: u32,
    /// Whether success is to be acknowledged; failure always is.
    pub(crate) ack_requested: bool,
    pub(crate) attributes: flintmq_queue::Attributes,
    pub(crate) app_data: Bytes,
}

/// One confirmation.
pub(crate) struct Confirm {
    pub(crate) handle: HandleId,
    pub(crate) guid: MessageGuid,
}

/// The end of a session.
pub(crate) struct SessionEnded {
    pub(crate) session: SessionId,
    /// True when the client vanished: what it held counts as a failed delivery.
    pub(crate) lost: bool,
    /// Told when everything received before is answered and all handles are closed.
    pub(crate) done: Option<oneshot::Sender<()>>,
}

/// What a purge dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Purged {
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
}

/// A queue with its partition.
#[derive(Clone, Debug)]
pub(crate) struct QueueSnapshot {
    pub(crate) group: GroupId,
    /// Number of the node that leads the group.
    pub(crate) node: Option<u32>,
    pub(crate) view: QueueView,
}

/// One message as an administrator sees it.
#[derive(Clone, Debug)]
pub(crate) struct Peeked {
    pub(crate) guid: MessageGuid,
    pub(crate) arrival_ms: u64,
    pub(crate) attributes: flintmq_queue::Attributes,
    pub(crate) app_data: Bytes,
}

/// Why an administrator's request was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AdminRefusal {
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
    InUse { consumers: usize, producers: usize },
    /// There is no leader, or the store cannot be read.
    #[error("{0}")]
    Failed(String),
}
