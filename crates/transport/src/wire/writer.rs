//! Puts values behind each other: small ones into the head, payloads beside it.

use bytes::Bytes;

use super::WireError;
use super::limits::{MAX_CONFIGS, MAX_ENTRIES, MAX_NODES_IN_PACKET};
use crate::Frame;

/// A packet being written.
#[derive(Debug, Default)]
pub(super) struct Writer {
    head: Vec<u8>,
    payloads: Vec<Bytes>,
    counted: Counted,
}

/// What a packet may hold a bounded number of, counted alike by writer and reader.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counted {
    entries: usize,
    nodes: usize,
    configs: usize,
}

impl Counted {
    pub(super) fn entries(&mut self, more: usize) -> Result<(), WireError> {
        add(&mut self.entries, more, "entries of a packet", MAX_ENTRIES)
    }

    pub(super) fn nodes(&mut self, more: usize) -> Result<(), WireError> {
        add(&mut self.nodes, more, "nodes of a packet", MAX_NODES_IN_PACKET)
    }

    pub(super) fn config(&mut self) -> Result<(), WireError> {
        add(&mut self.configs, 1, "configurations of a packet", MAX_CONFIGS)
    }
}

fn add(
    count: &mut usize,
    more: usize,
    what: &'static str,
    allowed: usize,
) -> Result<(), WireError> {
    *count = count.saturating_add(more);
    if *count > allowed {
        return Err(WireError::TooMany { what, length: *count as u64, allowed });
    }
    Ok(())
}

impl Writer {
    pub(super) fn byte(&mut self, value: u8) {
        self.head.push(value);
    }

    /// Seven bits a byte, the least significant first; the top bit says that more follow.
    pub(super) fn number(&mut self, value: u64) {
        write_number(&mut self.head, value);
    }

    /// The way from an expected value to the real one, short in both directions.
    pub(super) fn difference(&mut self, expected: u64, value: u64) {
        let way = value.wrapping_sub(expected).cast_signed();
        self.number(((way << 1) ^ (way >> 63)).cast_unsigned());
    }

    /// All eight bytes, for values that use them.
    pub(super) fn fixed64(&mut self, value: u64) {
        self.head.extend_from_slice(&value.to_le_bytes());
    }

    pub(super) fn fixed32(&mut self, value: u32) {
        self.head.extend_from_slice(&value.to_le_bytes());
    }

    /// The length of a list, which is refused if it is longer than the reader takes.
    pub(super) fn length(
        &mut self,
        length: usize,
        what: &'static str,
        allowed: usize,
    ) -> Result<(), WireError> {
        if length > allowed {
            return Err(WireError::TooMany { what, length: length as u64, allowed });
        }
        self.number(length as u64);
        Ok(())
    }

    /// Bytes that leave as they are, behind the head.
    pub(super) fn payload(&mut self, payload: &Bytes) {
        self.number(payload.len() as u64);
        if !payload.is_empty() {
            self.payloads.push(payload.clone());
        }
    }

    pub(super) fn counted(&mut self) -> &mut Counted {
        &mut self.counted
    }

    /// The packet: its format, how long the head is, the head, the payloads.
    pub(super) fn finish(self, format: u8) -> Frame {
        let mut prefix = Vec::with_capacity(self.head.len() + 11);
        prefix.push(format);
        write_number(&mut prefix, self.head.len() as u64);
        prefix.extend_from_slice(&self.head);
        Frame::new(Bytes::from(prefix), self.payloads)
    }
}

fn write_number(to: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        to.push((value as u8) | 0x80);
        value >>= 7;
    }
    to.push(value as u8);
}
