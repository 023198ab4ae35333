//! The layout that ACK, CONFIRM and REJECT share: a 4-byte header, then entries of a fixed size.

use crate::event::EventType;
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
