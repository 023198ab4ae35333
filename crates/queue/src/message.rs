//! A message as it lies in a log entry, and how to take it out again without copying.

use bytes::Bytes;

use crate::codec::{Malformed, Reader, malformed};
use crate::ids::{Guid, QueueId};

/// The longest application data of one message: properties and payload at their protocol limits
/// (docs/protocol/framing.md#sizes).
pub const MAX_APP_DATA_BYTES: usize = 128 * 1024 * 1024;

/// What a PUT says about a message besides its identity and data; kept as it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Attributes {
    /// The flag bits of the PUT header that travel on to consumers.
    pub flags: u8,
    /// The compression algorithm of the application data.
    pub compression: u8,
    /// The schema id that the producer gave to the properties.
    pub schema_wire_id: u16,
}

/// One message, on its way into or out of a log entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The producer's identity for it.
    pub guid: Guid,
    /// Flags, compression, schema.
    pub attributes: Attributes,
    /// Properties and payload as the producer sent them. Out of an entry: a slice of the entry.
    pub app_data: Bytes,
}

/// Bytes of one message header in a publish command: GUID 16, end of its data 4, flags 1,
/// compression 1, schema 2.
pub(crate) const HEADER_BYTES: usize = 24;

/// The messages of one publish command: a table of headers, then all application data back to back.
/// The table makes the way to the n-th message one multiplication.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Batch<'a> {
    pub(crate) queue: QueueId,
    /// Where the header table starts in the entry.
    pub(crate) offset: u32,
    headers: &'a [u8],
    data: u32,
}

/// A header of the table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Header {
    pub(crate) guid: Guid,
    pub(crate) attributes: Attributes,
    /// Where the application data starts in the entry.
    pub(crate) start: usize,
    pub(crate) size: u32,
}

impl<'a> Batch<'a> {
    /// Reads and checks the body of a publish command; the reader must stand on an entry's bytes.
    pub(crate) fn decode(entry: &'a [u8], reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        const WHAT: &str = "publish command";
        let queue = QueueId(reader.varint_u32(WHAT)?);
        let count = reader.count(HEADER_BYTES, WHAT)?;
        let offset = u32::try_from(reader.offset()).or_else(|_| malformed(WHAT))?;
        let headers = reader.take(count * HEADER_BYTES, WHAT)?;
        let data = u32::try_from(reader.offset()).or_else(|_| malformed(WHAT))?;
        let mut end = 0;
        for header in headers.as_chunks::<HEADER_BYTES>().0 {
            let next = end_of(header);
            if next < end {
                return malformed(WHAT);
            }
            end = next;
        }
        reader.take(end as usize, WHAT)?;
        if entry.len() > u32::MAX as usize {
            return malformed(WHAT);
        }
        Ok(Self { queue, offset, headers, data })
    }

    pub(crate) fn count(&self) -> u32 {
        (self.headers.len() / HEADER_BYTES) as u32
    }

    pub(crate) fn get(&self, ordinal: u32) -> Option<Header> {
        header_at(self.headers, self.data as usize, ordinal)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Header> + use<'a> {
        let batch = *self;
        (0..batch.count()).map_while(move |ordinal| batch.get(ordinal))
    }
}

/// The header table of a publish command inside an entry that was checked before.
#[derive(Debug, Clone)]
pub(crate) struct Located {
    pub(crate) entry: Bytes,
    pub(crate) offset: u32,
    pub(crate) count: u32,
}

impl Located {
    /// The header of the n-th message; `None` past the end.
    pub(crate) fn header(&self, ordinal: u32) -> Option<Header> {
        let start = self.offset as usize;
        let data = start + self.count as usize * HEADER_BYTES;
        header_at(self.entry.get(start..data)?, data, ordinal)
    }

    /// The application data that a header of this table names.
    pub(crate) fn app_data(&self, header: &Header) -> Bytes {
        self.entry.slice(header.start..header.start + header.size as usize)
    }
}

/// Appends the header of a message whose data ends `end` bytes after the table.
pub(crate) fn put_header(out: &mut Vec<u8>, guid: Guid, attributes: Attributes, end: u32) {
    out.extend_from_slice(&guid.0);
    out.extend_from_slice(&end.to_be_bytes());
    out.push(attributes.flags);
    out.push(attributes.compression);
    out.extend_from_slice(&attributes.schema_wire_id.to_be_bytes());
}

fn end_of(header: &[u8; HEADER_BYTES]) -> u32 {
    u32::from_be_bytes([header[16], header[17], header[18], header[19]])
}

#[inline]
fn header_at(headers: &[u8], data: usize, ordinal: u32) -> Option<Header> {
    let table = headers.as_chunks::<HEADER_BYTES>().0;
    let header = table.get(ordinal as usize)?;
    let begin = match ordinal.checked_sub(1) {
        Some(previous) => end_of(table.get(previous as usize)?),
        None => 0,
    };
    let mut guid = [0; 16];
    guid.copy_from_slice(&header[..16]);
    Some(Header {
        guid: Guid(guid),
        attributes: Attributes {
            flags: header[20],
            compression: header[21],
            schema_wire_id: u16::from_be_bytes([header[22], header[23]]),
        },
        start: data + begin as usize,
        size: end_of(header) - begin,
    })
}
