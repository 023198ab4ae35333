//! What can be wrong with the messages in a data event.

use thiserror::Error;

use crate::event::EventType;
use crate::options::OptionsError;

/// What is wrong with one message header or what it announces.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MessageFault {
    /// The event has no messages at all.
    #[error("the event has no messages")]
    NoMessages,
    /// The body is too short for the header that must come next, or not a whole number of words.
    #[error("the event ends inside a header")]
    Truncated,
    /// The header claims fewer words than the fields that cannot be missing.
    #[error("the header is too short for its fields")]
    HeaderTooShort,
    /// A message of no words would never end.
    #[error("the message has length zero")]
    ZeroLength,
    /// The message claims more words than the event has left.
    #[error("the message runs over the end of the event")]
    Overrun,
    /// Header and options are longer than the message.
    #[error("header and options are longer than the message")]
    PartsOverrun,
    /// The padding behind the application data is not valid.
    #[error("the padding is not valid")]
    Padding,
    /// There is no application data.
    #[error("the message has no application data")]
    Empty,
    /// A schema id is given but no properties.
    #[error("the message has a schema id but no properties")]
    SchemaWithoutProperties,
    /// The compression algorithm is not assigned.
    #[error("the compression algorithm is unknown")]
    UnknownCompression,
    /// The options area is not valid.
    #[error("the options are not valid: {0}")]
    Options(#[from] OptionsError),
}

/// A data event, or the rest of one, cannot be read. Messages before `offset` stay valid.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("malformed {event_type} event, close the connection: {fault} offset={offset}")]
pub struct MalformedEvent {
    /// The kind of event.
    pub event_type: EventType,
    /// Where the unreadable message begins, in bytes from the start of the event's body.
    pub offset: usize,
    /// What is wrong.
    #[source]
    pub fault: MessageFault,
}

/// Why a message cannot be put into an event. Nothing was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum BuildError {
    /// A message needs application data; every client refuses an empty one.
    #[error("a message cannot be empty: give it a payload of at least one byte")]
    Empty,
    /// More than 64 MiB.
    #[error("application data is too large, split the message: bytes={bytes} limit={limit}")]
    TooLarge {
        /// Bytes of application data.
        bytes: usize,
        /// The largest that the protocol allows.
        limit: usize,
    },
    /// The options are not a whole number of words or too long.
    #[error("options are not a whole number of words or too long: bytes={bytes}")]
    Options {
        /// Bytes of options.
        bytes: usize,
    },
}

/// The most application data that one message may hold: 64 MiB.
pub const MAX_APP_DATA_SIZE: usize = 64 << 20;

/// Checks what both PUT and PUSH builders must refuse and gives the size of the message without its
/// header.
pub(crate) fn message_size(options: usize, app_data: usize) -> Result<usize, BuildError> {
    use crate::padding::{WORD, padded_len};

    if app_data == 0 {
        return Err(BuildError::Empty);
    }
    if app_data > MAX_APP_DATA_SIZE {
        return Err(BuildError::TooLarge { bytes: app_data, limit: MAX_APP_DATA_SIZE });
    }
    if !options.is_multiple_of(WORD) || options / WORD >= 1 << 24 {
        return Err(BuildError::Options { bytes: options });
    }
    Ok(options + padded_len(app_data))
}
