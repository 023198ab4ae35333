//! PUSH events: messages from a broker to a consumer.

use bytes::{BufMut, Bytes, BytesMut};

use crate::compression::Compression;
use crate::event::{EventPacker, EventType};
use crate::flags::PushFlags;
use crate::guid::MessageGuid;
use crate::malformed::{BuildError, MalformedEvent, MessageFault, message_size};
use crate::options;
use crate::padding::{WORD, append_padding, unpadded_len};
use crate::properties::PropertyStyle;

/// Size of the header of one PUSH message that this crate writes.
pub const PUSH_HEADER_SIZE: usize = 32;

/// One message of a PUSH event. Options and application data are slices of the received buffer.
///
/// The header on the wire:
///
/// | offset | bits | field |
/// | --- | --- | --- |
/// | 0 | 4 + 28 | flags; words of the whole message |
/// | 4 | 24 + 3 + 5 | words of options; compression; words of header |
/// | 8 | 32 | queue id |
/// | 12 | 128 | GUID |
/// | 28 | 16 + 16 | schema id; reserved |
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushMessage {
    /// Whether there are properties and whether this is a redelivery.
    pub flags: PushFlags,
    /// The consumer's id for the queue.
    pub queue_id: u32,
    /// The message's GUID; what a CONFIRM names.
    pub guid: MessageGuid,
    /// How the application data is compressed.
    pub compression: Compression,
    /// 0: old-style properties or none; else the extended style.
    pub schema_wire_id: u16,
    /// The options area; [`options::Options::parse`] reads it and was found to succeed.
    pub options: Bytes,
    /// Properties area, if any, and payload, without the padding behind them. Empty when the
    /// payload is implicit; a BlazingMQ broker never sends that to a client.
    pub app_data: Bytes,
}

impl PushMessage {
    /// The ids of the subscriptions that the message is for, usually one; 0 when the options name
    /// none.
    pub fn subscription_ids(&self) -> impl Iterator<Item = u32> + '_ {
        options::subscription_ids(&self.options)
    }

    /// How the properties are laid out, or `None` if there are none.
    #[must_use]
    pub fn property_style(&self) -> Option<PropertyStyle> {
        self.flags
            .contains(PushFlags::MESSAGE_PROPERTIES)
            .then(|| PropertyStyle::of_schema_wire_id(self.schema_wire_id))
    }
}

/// Walks over the messages of a PUSH event; the first error ends the walk.
#[derive(Debug, Clone)]
pub struct PushMessages<'a> {
    body: &'a Bytes,
    offset: usize,
    ended: bool,
}

impl<'a> PushMessages<'a> {
    /// Begins with the first message in the body of a PUSH event.
    #[must_use]
    pub const fn new(body: &'a Bytes) -> Self {
        Self { body, offset: 0, ended: false }
    }
}

impl Iterator for PushMessages<'_> {
    type Item = Result<PushMessage, MalformedEvent>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended || (self.offset > 0 && self.offset >= self.body.len()) {
            return None;
        }
        let result = read_message(self.body, self.offset);
        Some(match result {
            Ok((message, size)) => {
                self.offset += size;
                Ok(message)
            }
            Err(fault) => {
                self.ended = true;
                let offset = self.offset;
                Err(MalformedEvent { event_type: EventType::Push, offset, fault })
            }
        })
    }
}

impl std::iter::FusedIterator for PushMessages<'_> {}

/// What the caller decides about a message to be pushed; [`PushBuilder`] works out the sizes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PushHead {
    /// Whether there are properties and whether this is a redelivery.
    pub flags: PushFlags,
    /// The id under which the consumer opened the queue. An id that it does not have open crashes
    /// released clients.
    pub queue_id: u32,
    /// The message's GUID.
    pub guid: MessageGuid,
    /// How the application data is compressed.
    pub compression: Compression,
    /// 1 when the PUT had a non-zero id, else 0: a producer's numbers mean nothing to a consumer.
    pub schema_wire_id: u16,
}

/// Appends messages to a buffer as PUSH events; begins another event when one would grow beyond its
/// limit.
///
/// The buffer holds whole events after every call, so there is nothing to finish.
///
/// ```
/// use bytes::BytesMut;
/// use flintmq_protocol::compression::Compression;
/// use flintmq_protocol::event::PACKED_EVENT_SIZE;
/// use flintmq_protocol::flags::PushFlags;
/// use flintmq_protocol::guid::MessageGuid;
/// use flintmq_protocol::options::sub_queue_id_option;
/// use flintmq_protocol::push::{PushBuilder, PushHead};
///
/// let mut out = BytesMut::new();
/// let mut builder = PushBuilder::new(&mut out, PACKED_EVENT_SIZE);
/// let head = PushHead {
///     flags: PushFlags::NONE,
///     queue_id: 0,
///     guid: MessageGuid([1; 16]),
///     compression: Compression::None,
///     schema_wire_id: 0,
/// };
/// builder.append(&head, &sub_queue_id_option(1), b"hello")?;
/// assert_eq!(out.len(), 56);
/// # Ok::<(), flintmq_protocol::malformed::BuildError>(())
/// ```
#[derive(Debug)]
pub struct PushBuilder<'a> {
    packer: EventPacker<'a>,
}

impl<'a> PushBuilder<'a> {
    /// Writes behind what `out` holds already; events grow to at most `max_event_size` bytes unless
    /// a single message needs more.
    #[must_use]
    pub fn new(out: &'a mut BytesMut, max_event_size: usize) -> Self {
        Self { packer: EventPacker::new(out, EventType::Push, max_event_size) }
    }

    /// Appends a message. `options` say for which subscription it is:
    /// [`options::sub_queue_id_option`].
    ///
    /// # Errors
    /// The message is refused and nothing written.
    pub fn append(
        &mut self,
        head: &PushHead,
        options: &[u8],
        app_data: &[u8],
    ) -> Result<(), BuildError> {
        let size = PUSH_HEADER_SIZE + message_size(options.len(), app_data.len())?;
        let mut header = [0; PUSH_HEADER_SIZE];
        let words = (size / WORD) as u32;
        let flags = u32::from(head.flags.without(PushFlags::IMPLICIT_PAYLOAD).0);
        header[..4].copy_from_slice(&(flags << 28 | words).to_be_bytes());
        let parts = ((options.len() / WORD) as u32) << 8
            | u32::from(head.compression.to_wire()) << 5
            | (PUSH_HEADER_SIZE / WORD) as u32;
        header[4..8].copy_from_slice(&parts.to_be_bytes());
        header[8..12].copy_from_slice(&head.queue_id.to_be_bytes());
        header[12..28].copy_from_slice(&head.guid.0);
        header[28..30].copy_from_slice(&head.schema_wire_id.to_be_bytes());
        self.packer.begin(size, &[]);
        self.packer.out.put_slice(&header);
        self.packer.out.put_slice(options);
        self.packer.out.put_slice(app_data);
        append_padding(self.packer.out, app_data.len());
        self.packer.end();
        Ok(())
    }

    /// Bytes in the buffer, of earlier content too.
    #[must_use]
    pub fn buffered(&self) -> usize {
        self.packer.out.len()
    }
}

fn read_message(body: &Bytes, start: usize) -> Result<(PushMessage, usize), MessageFault> {
    const SHORTEST: usize = PUSH_HEADER_SIZE - WORD;
    let rest = &body[start..];
    if rest.is_empty() {
        return Err(MessageFault::NoMessages);
    }
    let &[a, b, c, d, e, f, g, h] = rest.first_chunk().ok_or(MessageFault::Truncated)?;
    let size = (u32::from_be_bytes([a & 0x0f, b, c, d]) as usize) * WORD;
    let header_size = usize::from(h & 0x1f) * WORD;
    let options_size = (u32::from_be_bytes([0, e, f, g]) as usize) * WORD;
    if size == 0 {
        return Err(MessageFault::ZeroLength);
    }
    if size > rest.len() {
        return Err(MessageFault::Overrun);
    }
    if header_size + options_size > size {
        return Err(MessageFault::PartsOverrun);
    }
    if header_size < SHORTEST {
        return Err(MessageFault::HeaderTooShort);
    }
    let header: &[u8; SHORTEST] = rest.first_chunk().ok_or(MessageFault::HeaderTooShort)?;
    let mut guid = [0; 16];
    guid.copy_from_slice(&header[12..28]);
    let schema_wire_id = if header_size >= PUSH_HEADER_SIZE {
        u16::from_be_bytes([rest[SHORTEST], rest[SHORTEST + 1]])
    } else {
        0
    };
    let flags = PushFlags(a >> 4);
    let compression = Compression::from_wire(h >> 5).ok_or(MessageFault::UnknownCompression)?;
    let options_start = start + header_size;
    let data_start = options_start + options_size;
    let app_data = if flags.contains(PushFlags::IMPLICIT_PAYLOAD) {
        Bytes::new()
    } else {
        let length = unpadded_len(&body[data_start..start + size]).ok_or(MessageFault::Padding)?;
        if length == 0 {
            return Err(MessageFault::Empty);
        }
        body.slice(data_start..data_start + length)
    };
    let message = PushMessage {
        flags,
        queue_id: u32::from_be_bytes([header[8], header[9], header[10], header[11]]),
        guid: MessageGuid(guid),
        compression,
        schema_wire_id,
        options: options::checked_area(body, options_start, data_start)?,
        app_data,
    };
    Ok((message, size))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(flags: PushFlags) -> PushHead {
        PushHead {
            flags,
            queue_id: 3,
            guid: MessageGuid([7; 16]),
            compression: Compression::None,
            schema_wire_id: 0,
        }
    }

    fn body(payload: &[u8]) -> Vec<u8> {
        let mut out = BytesMut::new();
        let mut builder = PushBuilder::new(&mut out, usize::MAX);
        builder.append(&head(PushFlags::NONE), &[], payload).unwrap();
        out[8..].to_vec()
    }

    fn fault_of(body: Vec<u8>) -> MessageFault {
        let body = Bytes::from(body);
        let mut messages = PushMessages::new(&body);
        let error = messages.next().unwrap().unwrap_err();
        assert!(messages.next().is_none(), "an error ends the walk");
        error.fault
    }

    fn damaged(at: usize, bytes: &[u8]) -> MessageFault {
        let mut body = body(b"one");
        body[at..at + bytes.len()].copy_from_slice(bytes);
        fault_of(body)
    }

    #[test]
    fn faults_are_named() {
        assert_eq!(fault_of(Vec::new()), MessageFault::NoMessages);
        assert_eq!(fault_of(vec![0; 5]), MessageFault::Truncated);
        assert_eq!(damaged(0, &[0, 0, 0, 0]), MessageFault::ZeroLength);
        assert_eq!(damaged(0, &[0, 0, 0, 10]), MessageFault::Overrun);
        assert_eq!(damaged(4, &[0, 0, 2]), MessageFault::PartsOverrun);
        assert_eq!(damaged(7, &[6]), MessageFault::HeaderTooShort);
        assert_eq!(damaged(7, &[7 << 5 | 8]), MessageFault::UnknownCompression);
        assert_eq!(damaged(35, &[0]), MessageFault::Padding);
        assert_eq!(damaged(35, &[4]), MessageFault::Empty);
    }

    #[test]
    fn a_longer_header_is_skipped_and_a_shorter_one_has_no_schema() {
        let mut long = body(b"one");
        long.splice(32..32, [9; 8]);
        long[3] += 2;
        long[7] = 10;
        let long = Bytes::from(long);
        let message = PushMessages::new(&long).next().unwrap().unwrap();
        assert_eq!(&message.app_data[..], b"one");
        let mut short = body(b"one");
        short.drain(28..32);
        short[3] -= 1;
        short[7] = 7;
        let short = Bytes::from(short);
        let message = PushMessages::new(&short).next().unwrap().unwrap();
        assert_eq!((message.schema_wire_id, &message.app_data[..]), (0, &b"one"[..]));
    }

    #[test]
    fn an_implicit_payload_has_no_data_and_is_never_sent() {
        let mut implicit = body(b"one");
        implicit.truncate(32);
        implicit[0] = 0x10;
        implicit[3] = 8;
        let implicit = Bytes::from(implicit);
        let message = PushMessages::new(&implicit).next().unwrap().unwrap();
        assert!(message.app_data.is_empty());
        let mut out = BytesMut::new();
        let flags = PushFlags::IMPLICIT_PAYLOAD | PushFlags::OUT_OF_ORDER;
        PushBuilder::new(&mut out, usize::MAX).append(&head(flags), &[], b"x").unwrap();
        assert_eq!(out[8] >> 4, PushFlags::OUT_OF_ORDER.0);
    }
}
