//! What can go wrong, one small enum per operation; every text says what to do next.

use std::time::Duration;

use flintmq_protocol::ack::AckStatus;
use flintmq_protocol::control::StatusCategory;
use flintmq_protocol::guid::MessageGuid;
use flintmq_protocol::properties::PropertiesError;
use thiserror::Error;

use crate::session::core::RequestError;
pub use crate::tls::TlsError;

/// [`Session::connect`](crate::Session::connect) failed.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// The options name no broker.
    #[error("name at least one broker address in the session's options")]
    NoBroker,
    /// A certificate, key or server name cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// No broker accepted the session in time.
    #[error(
        "no broker accepted the session: check the addresses and that a broker runs there \
         waited={waited:?} last_problem={last_problem:?}"
    )]
    TimedOut {
        /// How long it was tried.
        waited: Duration,
        /// What the last attempt met, with its address.
        last_problem: String,
    },
}

/// Opening a queue for a [`Producer`](crate::Producer) or [`Consumer`](crate::Consumer) failed.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The text is no queue address.
    #[error("a queue is named like bmq://domain/queue uri={uri:?} reason={reason:?}")]
    InvalidUri {
        /// The text as given.
        uri: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Producers publish to the whole queue.
    #[error("a producer opens the queue without ?id=, only consumers name an app uri={uri:?}")]
    AppIdOnProducer {
        /// The text as given.
        uri: String,
    },
    /// This session has it open in the same role.
    #[error(
        "this session has the queue open in this role: share the handle, or use a second session \
         uri={uri:?}"
    )]
    AlreadyOpen {
        /// The queue's address, with the app id where there is one.
        uri: String,
    },
    /// The consumer's options cannot be sent.
    #[error("change the consumer's options reason={reason:?}")]
    InvalidOptions {
        /// What is wrong with them.
        reason: String,
    },
    /// The broker said no.
    #[error(
        "the broker refused to open the queue uri={uri:?} category={category} reason={message:?}"
    )]
    Refused {
        /// The queue's address.
        uri: String,
        /// The broker's category.
        category: StatusCategory,
        /// The broker's own words.
        message: String,
    },
    /// No answer in time, the reconnects in between included.
    #[error(
        "the broker did not open the queue in time: is its cluster ready? uri={uri:?} waited={waited:?}"
    )]
    TimedOut {
        /// The queue's address.
        uri: String,
        /// How long it was waited.
        waited: Duration,
    },
    /// The session was disconnected.
    #[error("the session is closed: connect a new one")]
    SessionClosed,
}

/// A message was not accepted, or it is not known whether it was.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PublishError {
    /// Nothing to publish.
    #[error("a message has at least one byte of payload")]
    EmptyPayload,
    /// More than any broker takes.
    #[error("a message is too large: split it bytes={bytes} most={most}")]
    TooLarge {
        /// Application data of the message, after compression.
        bytes: usize,
        /// What the protocol allows.
        most: usize,
    },
    /// The properties do not fit a message.
    #[error(transparent)]
    Properties(#[from] PropertiesError),
    /// The broker answered that it has not stored the message.
    #[error("the broker did not store the message: {} guid={guid} status={status}", advice(*.status))]
    Rejected {
        /// The message.
        guid: MessageGuid,
        /// Why.
        status: AckStatus,
    },
    /// The connection was gone for longer than the broker remembers messages, so sending it again
    /// could have doubled it.
    #[error(
        "the connection was lost for too long to send the message again safely: whether it was \
         stored is not known guid={guid}"
    )]
    Expired {
        /// The message.
        guid: MessageGuid,
    },
    /// The producer was closed, or the broker refused to open its queue again after a reconnect. A
    /// message that was on its way may or may not have been stored.
    #[error("the producer is closed: open the queue again uri={uri:?} reason={reason:?}")]
    Closed {
        /// The queue.
        uri: String,
        /// What closed it.
        reason: String,
    },
}

/// [`Producer::try_enqueue`](crate::Producer::try_enqueue) did not take the message.
#[derive(Debug, Error)]
pub enum TryPublishError {
    /// As many messages or bytes as allowed wait for their acknowledgement. The message comes back.
    #[error("too many messages wait for their acknowledgement: await one of them first")]
    Full(crate::OutgoingMessage),
    /// It can never be taken.
    #[error(transparent)]
    Publish(#[from] PublishError),
}

/// A [`Consumer`](crate::Consumer) ended.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ConsumeError {
    /// After a reconnect the broker did not open the queue again.
    #[error(
        "the broker did not open the queue again after a reconnect: open a new consumer uri={uri:?} reason={reason:?}"
    )]
    QueueLost {
        /// The queue's address.
        uri: String,
        /// The broker's words.
        reason: String,
    },
    /// The session was disconnected.
    #[error("the session is closed: connect a new one")]
    SessionClosed,
}

/// A confirmation could not be sent. The broker will deliver the message again, here or elsewhere;
/// most applications note it and go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ConfirmError {
    /// The connection that brought the message is gone.
    #[error(
        "the connection that brought the message is gone: it will be delivered again guid={guid}"
    )]
    ConnectionLost {
        /// The message.
        guid: MessageGuid,
    },
    /// The consumer is closed.
    #[error("the consumer is closed: the message will be delivered again guid={guid}")]
    Closed {
        /// The message.
        guid: MessageGuid,
    },
}

/// Changing a consumer's options failed; the former ones stay in force.
#[derive(Debug, Error)]
pub enum ConfigureError {
    /// The consumer's options cannot be sent.
    #[error("change the consumer's options reason={reason:?}")]
    InvalidOptions {
        /// What is wrong with them.
        reason: String,
    },
    /// The broker said no.
    #[error("the broker refused the options category={category} reason={message:?}")]
    Refused {
        /// The broker's category.
        category: StatusCategory,
        /// The broker's own words.
        message: String,
    },
    /// No answer in time.
    #[error("the broker did not answer in time: try again waited={waited:?}")]
    TimedOut {
        /// How long it was waited.
        waited: Duration,
    },
    /// The connection was lost. The new options are sent with the reconnect.
    #[error("the connection was lost; the new options will be in force after the reconnect")]
    ConnectionLost,
    /// The consumer or the session is closed.
    #[error("the consumer is closed: open a new one")]
    Closed,
}

/// Closing a producer, a consumer or the session was not answered as it should be. The handle is
/// closed all the same, and the broker cleans up when the connection ends.
#[derive(Debug, Error)]
pub enum CloseError {
    /// The broker said no.
    #[error(
        "the broker did not close cleanly; nothing more to do category={category} reason={message:?}"
    )]
    Refused {
        /// The broker's category.
        category: StatusCategory,
        /// The broker's own words.
        message: String,
    },
    /// No answer in time.
    #[error("the broker did not confirm the close in time; nothing more to do waited={waited:?}")]
    TimedOut {
        /// How long it was waited.
        waited: Duration,
    },
    /// There was no connection, so that messages on their way may be lost or delivered again.
    #[error("the connection was gone before the close was confirmed")]
    ConnectionLost,
}

/// A message's content cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ContentError {
    /// The properties area is broken.
    #[error(
        "the properties cannot be read: confirm the message to drop it guid={guid} reason={reason:?}"
    )]
    Properties {
        /// The message.
        guid: MessageGuid,
        /// What is wrong.
        reason: String,
    },
    /// The compressed payload is broken, or larger than the limit when unpacked.
    #[error(
        "the payload cannot be unpacked: confirm the message to drop it guid={guid} reason={reason:?}"
    )]
    Payload {
        /// The message.
        guid: MessageGuid,
        /// What is wrong.
        reason: String,
    },
}

impl CloseError {
    pub(crate) fn from_request(error: RequestError, waited: Duration) -> Self {
        match error {
            RequestError::NotConnected => Self::ConnectionLost,
            RequestError::TimedOut => Self::TimedOut { waited },
            RequestError::Refused(status) => {
                Self::Refused { category: status.category, message: status.message }
            }
        }
    }
}

/// What the producer's application can do about a negative acknowledgement.
fn advice(status: AckStatus) -> &'static str {
    match status {
        AckStatus::LimitMessages | AckStatus::LimitBytes => {
            "the queue is full; publish again when consumers have caught up"
        }
        AckStatus::StorageFailure => {
            "its storage failed; see the broker's log, publish again later"
        }
        AckStatus::NotReady => "its cluster has no leader for the queue; publish again later",
        _ => "see the broker's log for the reason",
    }
}
