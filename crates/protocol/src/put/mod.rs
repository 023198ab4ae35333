//! PUT events: messages from a producer to its broker.

mod builder;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use thiserror::Error;

pub use self::builder::{PutBuilder, PutHead};

use crate::compression::Compression;
use crate::event::EventType;
use crate::flags::PutFlags;
use crate::guid::MessageGuid;
use crate::malformed::{MalformedEvent, MessageFault};
use crate::options;
use crate::padding::{WORD, unpadded_len};
use crate::properties::PropertyStyle;

/// Size of the header of one PUT message that this crate writes.
pub const PUT_HEADER_SIZE: usize = 36;

/// One message of a PUT event. Options and application data are slices of the received buffer.
///
/// The header on the wire:
///
/// | offset | bits | field |
/// | --- | --- | --- |
/// | 0 | 4 + 28 | flags; words of the whole message |
/// | 4 | 24 + 3 + 5 | words of options; compression; words of header |
/// | 8 | 32 | queue id |
/// | 12 | 128 | GUID, or a correlation id |
/// | 28 | 32 | CRC-32C of the application data |
/// | 32 | 16 + 16 | schema id; reserved |
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PutMessage {
    /// Whether an ACK is wanted and whether there are properties.
    pub flags: PutFlags,
    /// The producer's id for the queue.
    pub queue_id: u32,
    /// The message's GUID if the client makes GUIDs; else read it with
    /// [`MessageGuid::correlation_id`].
    pub guid: MessageGuid,
    /// How the application data is compressed.
    pub compression: Compression,
    /// 0: old-style properties or none; else the extended style. The numbers are private to this
    /// producer.
    pub schema_wire_id: u16,
    /// CRC-32C of `app_data` as the producer says; nothing has compared it.
    pub crc32c: u32,
    /// The options area; [`options::Options::parse`] reads it and was found to succeed.
    pub options: Bytes,
    /// Properties area, if any, and payload, without the padding behind them.
    pub app_data: Bytes,
}

impl PutMessage {
    /// The 24-bit correlation id, for a client that makes no GUIDs; 0 means that no ACK is wanted.
    #[must_use]
    pub const fn correlation_id(&self) -> u32 {
        self.guid.correlation_id()
    }

    /// Whether the producer waits for a successful ACK. A failure is always answered.
    ///
    /// `makes_guids` says whether the client announced a client id. For one that did not the
    /// correlation id decides, should it disagree with the flag.
    #[must_use]
    pub const fn wants_ack(&self, makes_guids: bool) -> bool {
        if makes_guids {
            self.flags.contains(PutFlags::ACK_REQUESTED)
        } else {
            self.correlation_id() != 0
        }
    }

    /// How the properties are laid out, or `None` if there are none.
    #[must_use]
    pub fn property_style(&self) -> Option<PropertyStyle> {
        self.flags
            .contains(PutFlags::MESSAGE_PROPERTIES)
            .then(|| PropertyStyle::of_schema_wire_id(self.schema_wire_id))
    }
}

/// Walks over the messages of a PUT event.
///
/// One bad message whose header can be read is reported as [`PutError::Message`] and the walk goes
/// on behind it; [`PutError::Event`] ends it.
///
/// ```
/// use bytes::{Bytes, BytesMut};
/// use flintmq_protocol::event::Frame;
/// use flintmq_protocol::guid::MessageGuid;
/// use flintmq_protocol::put::{PutBuilder, PutHead, PutMessages};
///
/// let mut out = BytesMut::new();
/// let head = PutHead::new(7, MessageGuid([1; 16]));
/// PutBuilder::new(&mut out, 1 << 20).append(&head, &[], &[b"hello"])?;
///
/// let event = Frame::new(out.freeze()).expect("one whole event").parse()?;
/// for message in PutMessages::new(&event.body) {
///     let message = message?;
///     assert_eq!((message.queue_id, &message.app_data[..]), (7, &b"hello"[..]));
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct PutMessages<'a> {
    body: &'a Bytes,
    offset: usize,
    ended: bool,
}

impl<'a> PutMessages<'a> {
    /// Begins with the first message in the body of a PUT event.
    #[must_use]
    pub const fn new(body: &'a Bytes) -> Self {
        Self { body, offset: 0, ended: false }
    }

    fn fail(&mut self, fault: MessageFault) -> PutError {
        self.ended = true;
        PutError::Event(MalformedEvent { event_type: EventType::Put, offset: self.offset, fault })
    }
}

impl Iterator for PutMessages<'_> {
    type Item = Result<PutMessage, PutError>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = &self.body[self.offset..];
        if self.ended || (rest.is_empty() && self.offset > 0) {
            return None;
        }
        if rest.is_empty() {
            return Some(Err(self.fail(MessageFault::NoMessages)));
        }
        let header = match RawPut::read(rest) {
            Ok(header) => header,
            Err(fault) => return Some(Err(self.fail(fault))),
        };
        let start = self.offset;
        self.offset += header.size;
        let message = header.message(self.body, start);
        Some(message.map_err(|fault| {
            PutError::Message(BadPut {
                offset: start,
                queue_id: header.queue_id,
                guid: header.guid,
                flags: header.flags,
                fault,
            })
        }))
    }
}

impl std::iter::FusedIterator for PutMessages<'_> {}

/// Why a PUT event or one message in it cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PutError {
    /// The rest of the event cannot be read. Messages already given stay valid.
    #[error(transparent)]
    Event(#[from] MalformedEvent),
    /// This message cannot be used; the ones behind it can. Answer it with a negative ACK.
    #[error(transparent)]
    Message(#[from] BadPut),
}

/// A PUT message with a readable header and unusable content.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("PUT message refused: {fault} queue_id={queue_id} guid={guid} offset={offset}")]
pub struct BadPut {
    /// Where the message begins, in bytes from the start of the event's body.
    pub offset: usize,
    /// The producer's id for the queue.
    pub queue_id: u32,
    /// GUID or correlation id, for the ACK.
    pub guid: MessageGuid,
    /// The message's flags.
    pub flags: PutFlags,
    /// What is wrong.
    #[source]
    pub fault: MessageFault,
}

/// The header fields that tell where the next message begins and whom to answer.
struct RawPut {
    size: usize,
    header_size: usize,
    options_size: usize,
    compression: u8,
    flags: PutFlags,
    queue_id: u32,
    guid: MessageGuid,
    crc32c: u32,
    schema_wire_id: u16,
}

impl RawPut {
    fn read(rest: &[u8]) -> Result<Self, MessageFault> {
        const SHORTEST: usize = PUT_HEADER_SIZE - WORD;
        let &[a, b, c, d, e, f, g, h] = rest.first_chunk().ok_or(MessageFault::Truncated)?;
        let size = (u32::from_be_bytes([a & 0x0f, b, c, d]) as usize) * WORD;
        let header_size = usize::from(h & 0x1f) * WORD;
        if size == 0 {
            return Err(MessageFault::ZeroLength);
        }
        if size > rest.len() {
            return Err(MessageFault::Overrun);
        }
        let options_size = (u32::from_be_bytes([0, e, f, g]) as usize) * WORD;
        if header_size + options_size > size {
            return Err(MessageFault::PartsOverrun);
        }
        if header_size < SHORTEST {
            return Err(MessageFault::HeaderTooShort);
        }
        let header: &[u8; SHORTEST] = rest.first_chunk().ok_or(MessageFault::HeaderTooShort)?;
        let mut guid = [0; 16];
        guid.copy_from_slice(&header[12..28]);
        let word = |at: usize| {
            u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
        };
        let schema_wire_id = if header_size >= PUT_HEADER_SIZE {
            u16::from_be_bytes([rest[SHORTEST], rest[SHORTEST + 1]])
        } else {
            0
        };
        Ok(Self {
            size,
            header_size,
            options_size,
            compression: h >> 5,
            flags: PutFlags(a >> 4),
            queue_id: word(8),
            guid: MessageGuid(guid),
            crc32c: word(28),
            schema_wire_id,
        })
    }

    fn message(&self, body: &Bytes, start: usize) -> Result<PutMessage, MessageFault> {
        let options_start = start + self.header_size;
        let data_start = options_start + self.options_size;
        let compression =
            Compression::from_wire(self.compression).ok_or(MessageFault::UnknownCompression)?;
        if self.schema_wire_id != 0 && !self.flags.contains(PutFlags::MESSAGE_PROPERTIES) {
            return Err(MessageFault::SchemaWithoutProperties);
        }
        let length =
            unpadded_len(&body[data_start..start + self.size]).ok_or(MessageFault::Padding)?;
        if length == 0 {
            return Err(MessageFault::Empty);
        }
        Ok(PutMessage {
            flags: self.flags,
            queue_id: self.queue_id,
            guid: self.guid,
            compression,
            schema_wire_id: self.schema_wire_id,
            crc32c: self.crc32c,
            options: options::checked_area(body, options_start, data_start)?,
            app_data: body.slice(data_start..data_start + length),
        })
    }
}
