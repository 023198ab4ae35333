//! PUT events: messages from a producer to its broker.

use bytes::{BufMut, Bytes, BytesMut};
use thiserror::Error;

use crate::compression::Compression;
use crate::crc::app_data_crc_of_parts;
use crate::event::{EventPacker, EventType};
use crate::flags::PutFlags;
use crate::guid::MessageGuid;
use crate::malformed::{BuildError, MalformedEvent, MessageFault, message_size};
use crate::options;
use crate::padding::{WORD, append_padding, unpadded_len};
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

/// What the caller decides about a message to be sent; sizes and CRC are worked out by
/// [`PutBuilder`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PutHead {
    /// Whether an ACK is wanted and whether there are properties.
    pub flags: PutFlags,
    /// The id under which this client opened the queue.
    pub queue_id: u32,
    /// The message's GUID.
    pub guid: MessageGuid,
    /// How the application data was compressed.
    pub compression: Compression,
    /// 0 for old-style properties or none, 1 for extended ones without a schema number.
    pub schema_wire_id: u16,
}

impl PutHead {
    /// A plain message: ACK wanted, no properties, no compression.
    #[must_use]
    pub const fn new(queue_id: u32, guid: MessageGuid) -> Self {
        Self {
            flags: PutFlags::ACK_REQUESTED,
            queue_id,
            guid,
            compression: Compression::None,
            schema_wire_id: 0,
        }
    }
}

/// Appends messages to a buffer as PUT events; begins another event when one would grow beyond its
/// limit.
///
/// The buffer holds whole events after every call, so there is nothing to finish.
#[derive(Debug)]
pub struct PutBuilder<'a> {
    packer: EventPacker<'a>,
}

impl<'a> PutBuilder<'a> {
    /// Writes behind what `out` holds already; events grow to at most `max_event_size` bytes unless
    /// a single message needs more.
    #[must_use]
    pub fn new(out: &'a mut BytesMut, max_event_size: usize) -> Self {
        Self { packer: EventPacker::new(out, EventType::Put, max_event_size) }
    }

    /// Appends a message whose application data lies in pieces (properties area, payload).
    ///
    /// # Errors
    /// The message is refused and nothing written.
    pub fn append(
        &mut self,
        head: &PutHead,
        options: &[u8],
        app_data: &[&[u8]],
    ) -> Result<(), BuildError> {
        self.write(head, app_data_crc_of_parts(app_data), options, app_data)
    }

    /// Appends a message as it was received, its CRC included.
    ///
    /// # Errors
    /// The message is refused and nothing written.
    pub fn append_message(&mut self, message: &PutMessage) -> Result<(), BuildError> {
        let head = PutHead {
            flags: message.flags,
            queue_id: message.queue_id,
            guid: message.guid,
            compression: message.compression,
            schema_wire_id: message.schema_wire_id,
        };
        self.write(&head, message.crc32c, &message.options, &[&message.app_data])
    }

    /// Bytes in the buffer, of earlier content too.
    #[must_use]
    pub fn buffered(&self) -> usize {
        self.packer.out.len()
    }

    fn write(
        &mut self,
        head: &PutHead,
        crc32c: u32,
        options: &[u8],
        app_data: &[&[u8]],
    ) -> Result<(), BuildError> {
        let app_data_size = app_data.iter().map(|part| part.len()).sum();
        let size = PUT_HEADER_SIZE + message_size(options.len(), app_data_size)?;
        let mut header = [0; PUT_HEADER_SIZE];
        let words = (size / WORD) as u32;
        header[..4].copy_from_slice(&(u32::from(head.flags.0) << 28 | words).to_be_bytes());
        let parts = ((options.len() / WORD) as u32) << 8
            | u32::from(head.compression.to_wire()) << 5
            | (PUT_HEADER_SIZE / WORD) as u32;
        header[4..8].copy_from_slice(&parts.to_be_bytes());
        header[8..12].copy_from_slice(&head.queue_id.to_be_bytes());
        header[12..28].copy_from_slice(&head.guid.0);
        header[28..32].copy_from_slice(&crc32c.to_be_bytes());
        header[32..34].copy_from_slice(&head.schema_wire_id.to_be_bytes());
        self.packer.begin(size, &[]);
        self.packer.out.put_slice(&header);
        self.packer.out.put_slice(options);
        for part in app_data {
            self.packer.out.put_slice(part);
        }
        append_padding(self.packer.out, app_data_size);
        self.packer.end();
        Ok(())
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    const GUID: MessageGuid = MessageGuid([7; 16]);

    /// A body with the given messages, each with queue id 1, 2, …
    fn body(payloads: &[&[u8]]) -> Vec<u8> {
        let mut out = BytesMut::new();
        let mut builder = PutBuilder::new(&mut out, usize::MAX);
        for (queue_id, payload) in (1..).zip(payloads) {
            builder.append(&PutHead::new(queue_id, GUID), &[], &[payload]).unwrap();
        }
        out[8..].to_vec()
    }

    /// The queue ids of good messages, the faults of bad ones.
    fn walk(body: Vec<u8>) -> Vec<Result<u32, (bool, usize, MessageFault)>> {
        let body = Bytes::from(body);
        PutMessages::new(&body)
            .map(|message| match message {
                Ok(message) => Ok(message.queue_id),
                Err(PutError::Message(bad)) => {
                    assert_eq!((bad.queue_id, bad.guid), (1, GUID));
                    Err((true, bad.offset, bad.fault))
                }
                Err(PutError::Event(bad)) => Err((false, bad.offset, bad.fault)),
            })
            .collect()
    }

    /// Two messages, the first with these header bytes replaced.
    fn damaged(at: usize, bytes: &[u8]) -> Vec<Result<u32, (bool, usize, MessageFault)>> {
        let mut body = body(&[b"one", b"two"]);
        body[at..at + bytes.len()].copy_from_slice(bytes);
        walk(body)
    }

    #[test]
    fn one_bad_message_is_passed_over() {
        let one_bad = |fault| vec![Err((true, 0, fault)), Ok(2)];
        assert_eq!(damaged(7, &[2 << 5 | 9]), one_bad(MessageFault::UnknownCompression));
        assert_eq!(damaged(32, &[0, 1]), one_bad(MessageFault::SchemaWithoutProperties));
        assert_eq!(damaged(39, &[5]), one_bad(MessageFault::Padding));
        assert_eq!(damaged(39, &[4]), one_bad(MessageFault::Empty));
        let options = damaged(4, &[0, 0, 1]);
        assert!(matches!(options[0], Err((true, 0, MessageFault::Padding))), "{options:?}");
        assert_eq!(options[1], Ok(2));
    }

    #[test]
    fn a_bad_option_is_the_messages_fault() {
        let mut out = BytesMut::new();
        let mut builder = PutBuilder::new(&mut out, usize::MAX);
        builder.append(&PutHead::new(1, GUID), &[0; 4], &[b"x"]).unwrap();
        builder.append(&PutHead::new(2, GUID), &[0x0e, 0, 0, 0x80], &[b"x"]).unwrap();
        let read = walk(out[8..].to_vec());
        assert!(matches!(read[0], Err((true, 0, MessageFault::Options(_)))), "{read:?}");
        assert_eq!(read[1], Ok(2));
    }

    #[test]
    fn an_unreadable_header_ends_the_event() {
        let ends = |fault| vec![Err((false, 0, fault))];
        assert_eq!(damaged(0, &[0x10, 0, 0, 0]), ends(MessageFault::ZeroLength));
        assert_eq!(damaged(0, &[0x10, 0, 0, 21]), ends(MessageFault::Overrun));
        assert_eq!(damaged(0, &[0x1f, 255, 255, 255]), ends(MessageFault::Overrun));
        assert_eq!(damaged(4, &[0, 0, 2, 9]), ends(MessageFault::PartsOverrun));
        assert_eq!(damaged(4, &[255, 255, 255, 9]), ends(MessageFault::PartsOverrun));
        assert_eq!(damaged(7, &[7]), ends(MessageFault::HeaderTooShort));
        assert_eq!(damaged(7, &[0]), ends(MessageFault::HeaderTooShort));
        assert_eq!(walk(Vec::new()), ends(MessageFault::NoMessages));
        let mut cut = body(&[b"one"]);
        cut.extend_from_slice(&[0; 7]);
        assert_eq!(walk(cut), [Ok(1), Err((false, 40, MessageFault::Truncated))]);
    }

    #[test]
    fn shorter_and_longer_headers_are_read() {
        // Eight words: a sender that knows no schema ids.
        let mut short = body(&[b"one"]);
        short.drain(32..36);
        short[3] -= 1;
        short[7] = 8;
        let short = Bytes::from(short);
        let message = PutMessages::new(&short).next().unwrap().unwrap();
        assert_eq!((message.schema_wire_id, &message.app_data[..]), (0, &b"one"[..]));
        let mut long = body(&[b"one"]);
        long.splice(36..36, [9; 8]);
        long[3] += 2;
        long[7] = 11;
        let long = Bytes::from(long);
        let message = PutMessages::new(&long).next().unwrap().unwrap();
        assert_eq!(&message.app_data[..], b"one");
        assert!(message.options.is_empty());
    }

    #[test]
    fn the_correlation_id_decides_about_the_ack_where_there_is_one() {
        let body = Bytes::from(body(&[b"one"]));
        let mut message = PutMessages::new(&body).next().unwrap().unwrap();
        assert!(message.wants_ack(true) && message.wants_ack(false));
        message.guid = MessageGuid::from_correlation_id(0);
        assert!(message.wants_ack(true) && !message.wants_ack(false));
        message.flags = PutFlags::NONE;
        message.guid = MessageGuid::from_correlation_id(9);
        assert!(!message.wants_ack(true) && message.wants_ack(false));
    }

    #[test]
    fn payloads_are_slices_of_the_received_buffer() {
        let body = Bytes::from(body(&[b"payload"]));
        let message = PutMessages::new(&body).next().unwrap().unwrap();
        assert!(body.as_ptr_range().contains(&message.app_data.as_ptr()));
    }

    #[test]
    fn what_no_reader_takes_is_not_written() {
        let mut out = BytesMut::from(&b"before"[..]);
        let mut builder = PutBuilder::new(&mut out, usize::MAX);
        let head = PutHead::new(1, GUID);
        assert_eq!(builder.append(&head, &[], &[b"", b""]), Err(BuildError::Empty));
        assert_eq!(
            builder.append(&head, &[1, 2, 3], &[b"x"]),
            Err(BuildError::Options { bytes: 3 })
        );
        let large = vec![0; crate::malformed::MAX_APP_DATA_SIZE];
        let too_large = builder.append(&head, &[], &[&large, b"x"]);
        assert!(matches!(too_large, Err(BuildError::TooLarge { .. })));
        assert_eq!(builder.buffered(), 6);
        builder.append(&head, &[], &[&large]).unwrap();
        assert_eq!(out.len(), 6 + 8 + 36 + large.len() + 4);
    }
}
