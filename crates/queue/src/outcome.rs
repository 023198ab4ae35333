//! What applying an entry says back to the host.

use crate::codec::Malformed;
use crate::ids::{AppKey, Index, Position, QueueId};

/// What became of one published message. Decided alike on every replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is in the queue. Acknowledge success.
    Stored {
        /// Its place.
        position: Position,
    },
    /// A message with this GUID is or was in the queue. Acknowledge success: the producer retries
    /// what it already had through.
    Duplicate,
    /// The queue or its domain holds too many messages. Acknowledge with the message limit.
    RefusedMessages,
    /// The queue or its domain holds too many bytes. Acknowledge with the byte limit.
    RefusedBytes,
    /// No such queue here (deleted meanwhile). Acknowledge as refused.
    UnknownQueue,
}

/// The result of [`Partition::apply`](crate::Partition::apply). Reuse it: apply clears it first.
#[derive(Debug, Default)]
pub struct Applied {
    /// One per published message of the entry; [`Built::publish_order`](crate::Built) says which.
    pub outcomes: Vec<Outcome>,
    /// What else happened that somebody may want to hear of.
    pub effects: Vec<Effect>,
}

/// Something that an operator, a log line or a metric wants to know about an applied entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// A queue exists from now on.
    QueueCreated {
        /// The queue.
        queue: QueueId,
    },
    /// A queue could not be created; nothing changed. Tell the operator the reason.
    CreateRefused {
        /// The queue.
        queue: QueueId,
        /// Why.
        reason: CreateRefusal,
    },
    /// A queue and all its messages are gone. Its handles no longer exist; close their sessions'
    /// queues.
    QueueDeleted {
        /// The queue.
        queue: QueueId,
        /// Messages that went with it.
        messages: u64,
        /// Their bytes.
        bytes: u64,
    },
    /// Messages went by purge.
    Purged {
        /// The queue.
        queue: QueueId,
        /// The app that was purged; `None`: the whole queue.
        app: Option<AppKey>,
        /// Messages that the app (or the queue) lost.
        messages: u64,
        /// Their bytes.
        bytes: u64,
    },
    /// Messages went by age.
    Expired {
        /// The queue.
        queue: QueueId,
        /// How many.
        messages: u64,
        /// Their bytes.
        bytes: u64,
    },
    /// A message went because consumers kept dying on it: the poison-pill alarm.
    Poisoned {
        /// The queue.
        queue: QueueId,
        /// The app that lost the message; other apps keep it.
        app: AppKey,
        /// The message.
        position: Position,
        /// Where its entry is; readable until the next checkpoint is taken.
        index: Index,
    },
}

/// Why a queue was not created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CreateRefusal {
    /// The id is in use.
    Exists,
    /// The mode is not available in this version.
    UnsupportedMode,
    /// The partition does not know the domain, and the creation did not carry its settings: the
    /// domain's last queue was deleted meanwhile. Propose it again with them.
    UnknownDomain,
}

/// The cheap answer before a message is proposed; [`Outcome`] is the authority.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// Propose it.
    Admit,
    /// Already applied with this GUID: acknowledge success, do not propose.
    Duplicate,
    /// Over the message limit now: refuse, do not propose.
    RefusedMessages,
    /// Over the byte limit now: refuse, do not propose.
    RefusedBytes,
    /// No such queue: refuse, do not propose.
    UnknownQueue,
}

/// Why an entry could not be applied. Nothing of it was applied; this replica cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// The entry's bytes do not follow the format.
    #[error("cannot read log entry index={index}")]
    Malformed {
        /// The entry.
        index: Index,
        /// What is wrong with it.
        #[source]
        source: Malformed,
    },
    /// The entry was applied already: a mistake of the host.
    #[error("log entry was applied before: index={index} applied={applied}")]
    OutOfOrder {
        /// The entry.
        index: Index,
        /// The last one applied.
        applied: Index,
    },
}
