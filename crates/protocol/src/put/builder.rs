//! Writing PUT events.

use bytes::{BufMut, BytesMut};

use super::{PUT_HEADER_SIZE, PutMessage};
use crate::compression::Compression;
use crate::crc::app_data_crc_of_parts;
use crate::event::{EventPacker, EventType};
use crate::flags::PutFlags;
use crate::guid::MessageGuid;
use crate::malformed::{BuildError, message_size};
use crate::padding::{WORD, append_padding};

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
