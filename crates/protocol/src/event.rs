//! Events: the unit in which everything travels on a connection, and their 8-byte header.
//!
//! [`crate::frame`] cuts a byte stream into [`Frame`]s; [`Frame::parse`] checks the header and
//! gives an [`Event`]; the module of the event's type reads the body.

use bytes::{BufMut, Bytes, BytesMut};
use thiserror::Error;

use crate::padding::WORD;

/// Size of the event header that this crate writes. A reader takes the size from the header itself.
pub const EVENT_HEADER_SIZE: usize = 8;

/// The largest event that the format's users accept: 512 MiB.
pub const MAX_EVENT_SIZE: usize = 512 << 20;

/// The largest event that every released client accepts: 66 MiB. Build none larger.
pub const MAX_BUILT_EVENT_SIZE: usize = 66 << 20;

/// What a broker accepts from a peer that has not negotiated yet: 64 KiB.
pub const MAX_EVENT_SIZE_BEFORE_NEGOTIATION: usize = 64 << 10;

/// At this size a broker closes a PUSH or ACK event and begins the next: 1 MiB.
pub const PACKED_EVENT_SIZE: usize = 1 << 20;

/// The protocol version in every event header and in negotiation.
pub const PROTOCOL_VERSION: u8 = 1;

/// A whole heartbeat request. Whoever receives one answers at once with [`HEARTBEAT_RESPONSE`].
///
/// Never send one to a Java client: its reader ends at event type 5.
pub const HEARTBEAT_REQUEST: [u8; EVENT_HEADER_SIZE] = [0, 0, 0, 8, 0x4b, 2, 0, 0];

/// A whole heartbeat response.
pub const HEARTBEAT_RESPONSE: [u8; EVENT_HEADER_SIZE] = [0, 0, 0, 8, 0x4c, 2, 0, 0];

/// Heartbeat interval that a client assumes when the broker announces none, in milliseconds.
pub const DEFAULT_HEARTBEAT_INTERVAL_MS: i32 = 3000;

/// Silent intervals after which a client gives up when the broker announces no number.
pub const DEFAULT_MAX_MISSED_HEARTBEATS: i32 = 10;

/// What an event carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum EventType {
    /// Negotiation and requests with their answers: [`crate::control`].
    Control = 1,
    /// Messages from a producer: [`crate::put`].
    Put = 2,
    /// Confirmations from a consumer: [`crate::confirm`].
    Confirm = 3,
    /// Messages to a consumer: [`crate::push`].
    Push = 4,
    /// Acknowledgements to a producer: [`crate::ack`].
    Ack = 5,
    /// Between BlazingMQ brokers only.
    ClusterState = 6,
    /// Between BlazingMQ brokers only.
    Elector = 7,
    /// Between BlazingMQ brokers only.
    Storage = 8,
    /// Between BlazingMQ brokers only.
    Recovery = 9,
    /// Between BlazingMQ brokers only.
    PartitionSync = 10,
    /// "Are you there?"; see [`HEARTBEAT_REQUEST`].
    HeartbeatRequest = 11,
    /// "Yes"; see [`HEARTBEAT_RESPONSE`].
    HeartbeatResponse = 12,
    /// Messages given back by a broker whose consumer died: [`crate::confirm`].
    Reject = 13,
    /// Between BlazingMQ brokers only.
    ReplicationReceipt = 14,
    /// Credentials, before negotiation and at their renewal:
    /// [`crate::control::AuthenticationMessage`].
    Authentication = 15,
}

impl EventType {
    /// The type with this number, if there is one.
    #[must_use]
    pub const fn from_wire(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Control,
            2 => Self::Put,
            3 => Self::Confirm,
            4 => Self::Push,
            5 => Self::Ack,
            6 => Self::ClusterState,
            7 => Self::Elector,
            8 => Self::Storage,
            9 => Self::Recovery,
            10 => Self::PartitionSync,
            11 => Self::HeartbeatRequest,
            12 => Self::HeartbeatResponse,
            13 => Self::Reject,
            14 => Self::ReplicationReceipt,
            15 => Self::Authentication,
            _ => return None,
        })
    }

    /// The number in the event header.
    #[must_use]
    pub const fn to_wire(self) -> u8 {
        self as u8
    }
}

impl std::fmt::Display for EventType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Control => "CONTROL",
            Self::Put => "PUT",
            Self::Confirm => "CONFIRM",
            Self::Push => "PUSH",
            Self::Ack => "ACK",
            Self::ClusterState => "CLUSTER_STATE",
            Self::Elector => "ELECTOR",
            Self::Storage => "STORAGE",
            Self::Recovery => "RECOVERY",
            Self::PartitionSync => "PARTITION_SYNC",
            Self::HeartbeatRequest => "HEARTBEAT_REQ",
            Self::HeartbeatResponse => "HEARTBEAT_RSP",
            Self::Reject => "REJECT",
            Self::ReplicationReceipt => "REPLICATION_RECEIPT",
            Self::Authentication => "AUTHENTICATION",
        })
    }
}

/// The header of one event.
///
/// | offset | bits | field |
/// | --- | --- | --- |
/// | 0 | 1 | fragment, always 0 |
/// | 0 | 31 | length of the whole event in bytes |
/// | 4 | 2 | protocol version, 1 |
/// | 4 | 6 | event type |
/// | 5 | 8 | words in this header; the body begins behind them |
/// | 6 | 8 | type-specific: the encoding of a control event, else 0 |
/// | 7 | 8 | reserved |
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventHeader {
    /// Bytes of the whole event, header included.
    pub length: u32,
    /// What the event carries.
    pub event_type: EventType,
    /// Words in the header: 2 today, more from a later revision.
    pub header_words: u8,
    /// For CONTROL and AUTHENTICATION the body's encoding in the upper three bits; 0 for all
    /// others.
    pub type_specific: u8,
}

impl EventHeader {
    /// The header of an event with `length` bytes in all.
    #[must_use]
    pub const fn new(event_type: EventType, length: u32) -> Self {
        Self { length, event_type, header_words: 2, type_specific: 0 }
    }

    /// The eight bytes as they go on the wire.
    #[must_use]
    pub const fn to_wire(self) -> [u8; EVENT_HEADER_SIZE] {
        let [a, b, c, d] = self.length.to_be_bytes();
        let version_and_type = PROTOCOL_VERSION << 6 | self.event_type.to_wire();
        [a, b, c, d, version_and_type, self.header_words, self.type_specific, 0]
    }
}

/// One whole event as it was received; its length word is consistent, nothing else has been looked
/// at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    bytes: Bytes,
}

impl Frame {
    /// Takes bytes that hold exactly one event, or gives `None` when the length word disagrees.
    #[must_use]
    pub fn new(bytes: Bytes) -> Option<Self> {
        let length = u32::from_be_bytes(*bytes.first_chunk()?);
        (bytes.len() >= EVENT_HEADER_SIZE && length as usize == bytes.len())
            .then_some(Self { bytes })
    }

    /// The whole event, header included.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Checks the header and separates the body.
    ///
    /// # Errors
    /// The event is unusable, but the stream behind it is not: the next frame can still be read.
    pub fn parse(self) -> Result<Event, EventError> {
        let length = self.bytes.len();
        let &[_, _, _, _, version_and_type, header_words, type_specific, _] =
            self.bytes.first_chunk().ok_or(EventError::HeaderWords { header_words: 0, length })?;
        let version = version_and_type >> 6;
        if version != PROTOCOL_VERSION {
            return Err(EventError::Version { version });
        }
        let number = version_and_type & 0x3f;
        let event_type = EventType::from_wire(number).ok_or(EventError::UnknownType { number })?;
        let body_start = usize::from(header_words) * WORD;
        if body_start < EVENT_HEADER_SIZE || body_start > length {
            return Err(EventError::HeaderWords { header_words, length });
        }
        let header = EventHeader { length: length as u32, event_type, header_words, type_specific };
        Ok(Event { header, body: self.bytes.slice(body_start..) })
    }
}

/// One event with a valid header and an unread body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The header.
    pub header: EventHeader,
    /// What follows the header, as a slice of the received buffer.
    pub body: Bytes,
}

impl Event {
    /// What the event carries.
    #[must_use]
    pub const fn event_type(&self) -> EventType {
        self.header.event_type
    }
}

/// Why an event whose frame is intact cannot be used. The next event can still be read; a broker
/// closes the connection nevertheless, because the client then sends again what was not
/// acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum EventError {
    /// Not protocol version 1.
    #[error("event has an unsupported protocol version, expected 1: version={version}")]
    Version {
        /// The version found.
        version: u8,
    },
    /// No event type has this number.
    #[error("event type is unknown to this release: type={number}")]
    UnknownType {
        /// The number found.
        number: u8,
    },
    /// The header claims to be shorter than 2 words or longer than the event.
    #[error("event header has an impossible size: header_words={header_words} length={length}")]
    HeaderWords {
        /// The size found, in words.
        header_words: u8,
        /// Bytes of the whole event.
        length: usize,
    },
}

/// Writes messages into events at the end of a buffer and keeps the length word right after every
/// message, so that the buffer always holds whole events and nothing has to be finished.
#[derive(Debug)]
pub(crate) struct EventPacker<'a> {
    pub(crate) out: &'a mut BytesMut,
    event_type: EventType,
    limit: usize,
    start: Option<usize>,
}

impl<'a> EventPacker<'a> {
    pub(crate) fn new(out: &'a mut BytesMut, event_type: EventType, limit: usize) -> Self {
        Self { out, event_type, limit: limit.min(MAX_EVENT_SIZE), start: None }
    }

    /// Makes room for a message of `size` bytes: in the open event, or in a new one (which begins
    /// with `prefix`) when it would grow beyond the limit. A message that alone exceeds the limit
    /// gets an event of its own.
    pub(crate) fn begin(&mut self, size: usize, prefix: &[u8]) {
        let opening = EVENT_HEADER_SIZE + prefix.len();
        self.out.reserve(size + opening);
        let fits = self.start.is_some_and(|start| self.out.len() - start + size <= self.limit);
        if !fits {
            self.start = Some(self.out.len());
            let header = EventHeader::new(self.event_type, opening as u32);
            self.out.put_slice(&header.to_wire());
            self.out.put_slice(prefix);
        }
    }

    /// Accounts for what was written since [`begin`](Self::begin).
    pub(crate) fn end(&mut self) {
        if let Some(start) = self.start {
            let length = (self.out.len() - start) as u32;
            self.out[start..start + 4].copy_from_slice(&length.to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(bytes: &[u8]) -> Frame {
        Frame::new(Bytes::copy_from_slice(bytes)).unwrap()
    }

    #[test]
    fn heartbeats_have_the_documented_bytes() {
        for (bytes, event_type) in [
            (HEARTBEAT_REQUEST, EventType::HeartbeatRequest),
            (HEARTBEAT_RESPONSE, EventType::HeartbeatResponse),
        ] {
            assert_eq!(EventHeader::new(event_type, 8).to_wire(), bytes);
            let event = frame(&bytes).parse().unwrap();
            assert_eq!(event.event_type(), event_type);
            assert!(event.body.is_empty());
        }
    }

    #[test]
    fn every_type_survives_its_number() {
        let known = (0..=63).filter_map(EventType::from_wire).collect::<Vec<_>>();
        assert_eq!(known.len(), 15);
        for event_type in known {
            assert_eq!(EventType::from_wire(event_type.to_wire()), Some(event_type));
        }
    }

    #[test]
    fn a_longer_header_is_skipped() {
        let event = frame(&[0, 0, 0, 16, 0x44, 3, 0, 0, 9, 9, 9, 9, 1, 2, 3, 4]).parse().unwrap();
        assert_eq!(&event.body[..], [1, 2, 3, 4]);
    }

    #[test]
    fn unusable_headers_are_named() {
        let parse = |bytes: &[u8]| frame(bytes).parse().unwrap_err();
        assert_eq!(parse(&[0, 0, 0, 8, 0x81, 2, 0, 0]), EventError::Version { version: 2 });
        assert_eq!(parse(&[0, 0, 0, 8, 0x40, 2, 0, 0]), EventError::UnknownType { number: 0 });
        assert_eq!(parse(&[0, 0, 0, 8, 0x7f, 2, 0, 0]), EventError::UnknownType { number: 63 });
        for header_words in [0, 1, 3, 255] {
            assert_eq!(
                parse(&[0, 0, 0, 8, 0x41, header_words, 0, 0]),
                EventError::HeaderWords { header_words, length: 8 }
            );
        }
    }

    #[test]
    fn a_frame_needs_its_own_length() {
        assert_eq!(Frame::new(Bytes::from_static(&[0, 0, 0, 4])), None);
        assert_eq!(Frame::new(Bytes::from_static(&[0, 0, 0, 9, 0x4b, 2, 0, 0])), None);
        assert_eq!(Frame::new(Bytes::from_static(&[0, 0])), None);
    }
}
