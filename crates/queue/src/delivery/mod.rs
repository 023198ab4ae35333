//! Delivery: which consumer gets which message, and when. Lives on the leader only and is built
//! anew, empty, whenever a replica starts to lead.
//!
//! Per queue there is a *lane*, per app of it an *app lane*: the cursor behind the last message
//! that was offered, the messages to deliver again, and the ring of consumers whose turn it is. A
//! message of an app is in exactly one of four places: after the cursor, held by one handle, among
//! those to deliver again, or waiting for a command in the log. That is why nothing is sent twice
//! while it is out. Of those that are in none of the last places the oldest is always the next.

mod consumers;
mod dispatch;
mod engine;
mod lane;
mod routing;
mod window;

pub(crate) use dispatch::matches;
pub(crate) use engine::Engine;

use bytes::Bytes;

use crate::ids::{AppKey, Guid, HandleId, Index, Position, QueueId};
use crate::message::Attributes;

/// A consumer's wish to get messages of its app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    /// The client's number for it; comes back in every delivery.
    pub id: u32,
    /// Only consumers of the highest priority get messages. `i32::MIN` takes no part at all.
    pub priority: i32,
    /// How many messages in a row it gets before its turn ends; 0 counts as 1.
    pub count: u32,
    /// Unconfirmed messages at which delivery stops; 0 = never deliver. Values over
    /// [`MAX_UNCONFIRMED`] count as that.
    pub max_messages: u64,
    /// Unconfirmed bytes at which delivery stops; 0 = never deliver.
    pub max_bytes: u64,
    /// Which messages it wants.
    pub filter: Filter,
}

/// The most unconfirmed messages of one subscription, whatever the client asks for. How many
/// subscriptions a client has is not bounded, so this alone does not bound what the leader must
/// remember.
pub const MAX_UNCONFIRMED: u64 = 1_000_000;

/// Which messages a subscription wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Filter {
    /// Every message.
    #[default]
    All,
}

/// A message to send to a consumer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The queue.
    pub queue: QueueId,
    /// To whom.
    pub handle: HandleId,
    /// For which of its subscriptions.
    pub subscription: u32,
    /// For which app.
    pub app: AppKey,
    /// The message's place in the queue.
    pub position: Position,
    /// The message's identity.
    pub guid: Guid,
    /// Flags, compression, schema as published.
    pub attributes: Attributes,
    /// Properties and payload: a slice of the log entry, not a copy.
    pub app_data: Bytes,
    /// The log entry that holds it, and where in its payload the application data begin.
    pub entry: Index,
    /// See `entry`; bytes.
    pub offset: u32,
    /// When it arrived at the leader of that time, milliseconds since 1970.
    pub arrival_ms: u64,
    /// True when this leader has sent it to a consumer before, or some consumer died holding it.
    pub redelivered: bool,
    /// Deliveries that may still fail, this one included; `None` = any number.
    pub attempts_left: Option<u8>,
}

/// What a round of delivery produced. Reuse it: the host drains both lists.
#[derive(Debug, Default)]
pub struct Deliveries {
    /// Messages to send, in order per handle.
    pub messages: Vec<Delivery>,
    /// Log entries to read; answer each with [`Partition::loaded`](crate::Partition::loaded) or
    /// [`Partition::load_failed`](crate::Partition::load_failed). An index is asked for once until
    /// then.
    pub loads: Vec<Index>,
}

/// What a handle does with its queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Roles {
    /// Gets messages.
    pub reader: bool,
    /// Publishes messages.
    pub writer: bool,
}

/// Why a queue was not opened. Answer the client accordingly; nothing changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// This replica does not lead: send the client to the leader.
    #[error("this replica does not lead the partition, ask its leader")]
    NotLeading,
    /// Create the queue first.
    #[error("no such queue, create it first: queue={}", queue.0)]
    UnknownQueue {
        /// The queue asked for.
        queue: QueueId,
    },
    /// The handle is open for another queue or app.
    #[error("the handle is in use for another queue or app, take a fresh one: handle={}", handle.0)]
    HandleInUse {
        /// The handle.
        handle: HandleId,
    },
    /// A reader of a fanout queue must name its app.
    #[error("a reader of a fanout queue must name its app, open the queue with ?id=APP")]
    AppRequired,
    /// Only fanout queues have named apps.
    #[error("only fanout queues have apps, open the queue without ?id=")]
    AppNotAllowed,
    /// Too many readers.
    #[error("too many consumers, close one or raise maxConsumers: limit={limit}")]
    TooManyConsumers {
        /// The limit of the domain.
        limit: u32,
    },
    /// Too many writers.
    #[error("too many producers, close one or raise maxProducers: limit={limit}")]
    TooManyProducers {
        /// The limit of the domain.
        limit: u32,
    },
}

/// No such handle: it was never opened, was closed, its queue was deleted, or leadership was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no such handle, open the queue first: handle={}", handle.0)]
pub struct UnknownHandle {
    /// The handle.
    pub handle: HandleId,
}

/// A log entry that was read for delivery is not what the state says it is: the disk or the log
/// is damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("log entry does not hold the messages it should, rebuild this replica: index={index}")]
pub struct EntryMismatch {
    /// The entry.
    pub index: Index,
}
