//! Control messages in their events: the choice of encoding, the padding, and what can go wrong.

use bytes::{BufMut, BytesMut};
use thiserror::Error;

use super::ber::{BerError, BerRoot, Found};
use super::json::{JsonFault, JsonRoot};
use super::negotiation::{AuthenticationMessage, NegotiationMessage};
use super::requests::ControlMessage;
use crate::event::{EVENT_HEADER_SIZE, Event, EventHeader, EventType, MAX_EVENT_SIZE};
use crate::padding::{append_padding, unpadded_len};

/// The largest control message that is decoded: 1 MiB. It bounds the memory that decoding takes.
pub const MAX_CONTROL_BODY_SIZE: usize = 1 << 20;

/// How control messages are written. Every release of the C++ client reads both; the Java client
/// only JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Encoding {
    /// Binary; what the C++ and Python clients send.
    Ber,
    /// Text; what the Java client sends.
    Json,
}

impl Encoding {
    /// The encoding that an event names, or `None` if it is not assigned. An answer to a credential
    /// uses the encoding of the request.
    #[must_use]
    pub const fn of_event(event: &Event) -> Option<Self> {
        Self::from_type_specific(event.header.type_specific)
    }

    /// The encoding in an event header's type-specific byte, or `None` if it is not assigned.
    #[must_use]
    pub const fn from_type_specific(byte: u8) -> Option<Self> {
        match byte >> 5 {
            0 => Some(Self::Ber),
            1 => Some(Self::Json),
            _ => None,
        }
    }

    /// The event header's type-specific byte.
    #[must_use]
    pub const fn to_type_specific(self) -> u8 {
        match self {
            Self::Ber => 0,
            Self::Json => 1 << 5,
        }
    }
}

/// Why a control message cannot be read.
#[derive(Debug, Error)]
pub enum ControlError {
    /// The event carries something else.
    #[error("event is not of the expected type: expected={expected} found={found}")]
    EventType {
        /// The type that belongs to the message.
        expected: EventType,
        /// The event's type.
        found: EventType,
    },
    /// The encoding's number is not assigned.
    #[error("control message has an unknown encoding, use BER or JSON: encoding={number}")]
    Encoding {
        /// The number found.
        number: u8,
    },
    /// The body is larger than [`MAX_CONTROL_BODY_SIZE`].
    #[error("control message is too large: bytes={bytes} limit={MAX_CONTROL_BODY_SIZE}")]
    TooLarge {
        /// The body's size.
        bytes: usize,
    },
    /// The selection is not known to this release. Answer a request with `E_NOT_SUPPORTED`; the
    /// connection is fine.
    #[error("control message is not supported by this release: selection={selection}")]
    Unsupported {
        /// The request's id, if there is one.
        r_id: Option<i32>,
        /// The selection's element id (BER) or name (JSON).
        selection: String,
    },
    /// The BER body is malformed.
    #[error("malformed control message in BER: {0}")]
    Ber(#[from] BerError),
    /// The padding behind a JSON body is not valid.
    #[error("control message in JSON has invalid padding")]
    Padding,
    /// The JSON body is malformed.
    #[error("malformed control message in JSON: {reason}")]
    Json {
        /// What is wrong, with line and column where known.
        reason: String,
    },
}

/// Why a control message cannot be written.
#[derive(Debug, Error)]
pub enum EncodeError {
    /// More than an event can hold. Nothing was written.
    #[error("control message is too large for an event: bytes={bytes} limit={MAX_EVENT_SIZE}")]
    TooLarge {
        /// Size of the event.
        bytes: usize,
    },
    /// JSON could not be produced. Nothing was written.
    #[error("control message cannot be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
}

macro_rules! root_message {
    ($name:ident, $event_type:ident) => {
        impl $name {
            /// Reads the message in the encoding that the event names.
            ///
            /// # Errors
            /// The event is of another type, or its body is not such a message; see
            /// [`ControlError`].
            pub fn from_event(event: &Event) -> Result<Self, ControlError> {
                decode(event, EventType::$event_type)
            }

            /// Appends the message to `out` as a whole event.
            ///
            /// # Errors
            /// The message does not fit an event; `out` is unchanged.
            pub fn append_event(
                &self,
                encoding: Encoding,
                out: &mut BytesMut,
            ) -> Result<(), EncodeError> {
                encode(self, EventType::$event_type, encoding, out)
            }
        }
    };
}
root_message!(NegotiationMessage, Control);
root_message!(ControlMessage, Control);
root_message!(AuthenticationMessage, Authentication);

fn decode<T: BerRoot + JsonRoot>(event: &Event, expected: EventType) -> Result<T, ControlError> {
    let found = event.event_type();
    if found != expected {
        return Err(ControlError::EventType { expected, found });
    }
    let bytes = event.body.len();
    if bytes > MAX_CONTROL_BODY_SIZE {
        return Err(ControlError::TooLarge { bytes });
    }
    match Encoding::of_event(event) {
        Some(Encoding::Ber) => match T::read_ber(&event.body)? {
            Found::Known(message) => Ok(message),
            Found::Unsupported { r_id, selection } => {
                Err(ControlError::Unsupported { r_id, selection: selection.to_string() })
            }
        },
        Some(Encoding::Json) => {
            let length = unpadded_len(&event.body).ok_or(ControlError::Padding)?;
            T::read_json(&event.body[..length]).map_err(|fault| match fault {
                JsonFault::Unsupported { r_id, selection } => {
                    ControlError::Unsupported { r_id, selection }
                }
                other => ControlError::Json { reason: other.to_string() },
            })
        }
        None => Err(ControlError::Encoding { number: event.header.type_specific >> 5 }),
    }
}

fn encode<T: BerRoot + JsonRoot>(
    message: &T,
    event_type: EventType,
    encoding: Encoding,
    out: &mut BytesMut,
) -> Result<(), EncodeError> {
    let start = out.len();
    out.put_bytes(0, EVENT_HEADER_SIZE);
    let body_start = out.len();
    match encoding {
        Encoding::Ber => message.write_ber(out),
        Encoding::Json => {
            if let Err(error) = message.write_json(out) {
                out.truncate(start);
                return Err(error.into());
            }
        }
    }
    append_padding(out, out.len() - body_start);
    let bytes = out.len() - start;
    if bytes > MAX_EVENT_SIZE {
        out.truncate(start);
        return Err(EncodeError::TooLarge { bytes });
    }
    let mut header = EventHeader::new(event_type, bytes as u32);
    header.type_specific = encoding.to_type_specific();
    out[start..body_start].copy_from_slice(&header.to_wire());
    Ok(())
}
