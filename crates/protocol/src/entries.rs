//! The layout that ACK, CONFIRM and REJECT share: a 4-byte header, then entries of a fixed size.

use bytes::BufMut;

use crate::event::{EventPacker, EventType};
use crate::guid::MessageGuid;
use crate::malformed::{MalformedEvent, MessageFault};
use crate::padding::WORD;

/// Size of one entry that this crate writes.
pub(crate) const ENTRY_SIZE: usize = 24;

/// One header word, six words per entry, reserved bits.
pub(crate) const ENTRIES_HEADER: [u8; 4] = [0x16, 0, 0, 0];

/// The entries of a checked body; longer entries of a later revision are cut to what is known.
#[derive(Debug, Clone)]
pub(crate) struct Entries<'a> {
    rest: &'a [u8],
    entry_size: usize,
}

impl<'a> Entries<'a> {
    pub(crate) fn parse(event_type: EventType, body: &'a [u8]) -> Result<Self, MalformedEvent> {
        let fail = |offset, fault| MalformedEvent { event_type, offset, fault };
        let &first = body.first().ok_or_else(|| fail(0, MessageFault::NoMessages))?;
        let header_size = usize::from(first >> 4) * WORD;
        let entry_size = usize::from(first & 0x0f) * WORD;
        if header_size < ENTRIES_HEADER.len() || entry_size < ENTRY_SIZE {
            return Err(fail(0, MessageFault::HeaderTooShort));
        }
        let rest = body.get(header_size..).ok_or_else(|| fail(0, MessageFault::Truncated))?;
        if rest.is_empty() {
            return Err(fail(header_size, MessageFault::NoMessages));
        }
        if !rest.len().is_multiple_of(entry_size) {
            let last = header_size + rest.len() / entry_size * entry_size;
            return Err(fail(last, MessageFault::Truncated));
        }
        Ok(Self { rest, entry_size })
    }

    pub(crate) fn remaining(&self) -> usize {
        self.rest.len() / self.entry_size
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = &'a [u8; ENTRY_SIZE];

    fn next(&mut self) -> Option<Self::Item> {
        let entry = self.rest.first_chunk()?;
        self.rest = self.rest.get(self.entry_size..).unwrap_or_default();
        Some(entry)
    }
}

/// The GUID, which stands at the same place in every kind of entry.
pub(crate) fn guid_of(entry: &[u8; ENTRY_SIZE]) -> MessageGuid {
    let mut guid = [0; 16];
    guid.copy_from_slice(&entry[4..20]);
    MessageGuid(guid)
}

/// Appends one entry, behind a header where it begins an event.
pub(crate) fn append_entry(packer: &mut EventPacker<'_>, entry: &[u8; ENTRY_SIZE]) {
    packer.begin(ENTRY_SIZE, &ENTRIES_HEADER);
    packer.out.put_slice(entry);
    packer.end();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(body: &[u8]) -> (usize, MessageFault) {
        let error = Entries::parse(EventType::Ack, body).unwrap_err();
        (error.offset, error.fault)
    }

    #[test]
    fn longer_headers_and_entries_are_cut_to_what_is_known() {
        let mut body = vec![0x29, 0, 0, 0, 9, 9, 9, 9];
        body.extend((0..72).collect::<Vec<u8>>());
        let entries = Entries::parse(EventType::Ack, &body).unwrap();
        assert_eq!(entries.remaining(), 2);
        let starts: Vec<u8> = entries.map(|entry| entry[0]).collect();
        assert_eq!(starts, [0, 36]);
    }

    #[test]
    fn faults_are_named() {
        assert_eq!(fault(&[]), (0, MessageFault::NoMessages));
        assert_eq!(fault(&[0x16, 0, 0, 0]), (4, MessageFault::NoMessages));
        assert_eq!(fault(&[0x06, 0, 0, 0]), (0, MessageFault::HeaderTooShort));
        assert_eq!(fault(&[0x15; 28]), (0, MessageFault::HeaderTooShort));
        assert_eq!(fault(&[0x16, 0, 0]), (0, MessageFault::Truncated));
        let mut body = vec![0; 4 + 24 + 23];
        body[0] = 0x16;
        assert_eq!(fault(&body), (28, MessageFault::Truncated));
    }
}
