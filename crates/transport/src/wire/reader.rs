//! Takes values apart that another node wrote, and believes none of their sizes.

use bytes::Bytes;

use super::WireError;
use super::writer::Counted;

/// What is left of a packet.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    head: &'a [u8],
    payloads: Bytes,
    counted: Counted,
}

impl<'a> Reader<'a> {
    /// Splits the packet into its head and its payloads. The first byte is the format.
    pub(super) fn open(packet: &'a Bytes, known: u8) -> Result<Self, WireError> {
        let mut rest: &'a [u8] = packet;
        let format = take_byte(&mut rest, "format")?;
        if format != known {
            return Err(WireError::Format { format, known });
        }
        let length = take_number(&mut rest, "length of the head")?;
        let truncated = WireError::Truncated { what: "head" };
        let length = usize::try_from(length).map_err(|_| truncated)?;
        let (head, behind) = rest.split_at_checked(length).ok_or(truncated)?;
        let payloads = packet.slice_ref(behind);
        Ok(Self { head, payloads, counted: Counted::default() })
    }

    pub(super) fn byte(&mut self, what: &'static str) -> Result<u8, WireError> {
        take_byte(&mut self.head, what)
    }

    pub(super) fn number(&mut self, what: &'static str) -> Result<u64, WireError> {
        take_number(&mut self.head, what)
    }

    pub(super) fn number32(&mut self, what: &'static str) -> Result<u32, WireError> {
        let value = self.number(what)?;
        u32::try_from(value).map_err(|_| WireError::Unknown { what, value })
    }

    pub(super) fn difference(
        &mut self,
        expected: u64,
        what: &'static str,
    ) -> Result<u64, WireError> {
        let value = self.number(what)?;
        let way = (value >> 1) ^ (value & 1).wrapping_neg();
        Ok(expected.wrapping_add(way))
    }

    pub(super) fn difference32(
        &mut self,
        expected: u32,
        what: &'static str,
    ) -> Result<u32, WireError> {
        let value = self.difference(u64::from(expected), what)?;
        u32::try_from(value).map_err(|_| WireError::Unknown { what, value })
    }

    pub(super) fn fixed64(&mut self, what: &'static str) -> Result<u64, WireError> {
        let (bytes, rest) = self.head.split_first_chunk().ok_or(WireError::Truncated { what })?;
        self.head = rest;
        Ok(u64::from_le_bytes(*bytes))
    }

    pub(super) fn fixed32(&mut self, what: &'static str) -> Result<u32, WireError> {
        let (bytes, rest) = self.head.split_first_chunk().ok_or(WireError::Truncated { what })?;
        self.head = rest;
        Ok(u32::from_le_bytes(*bytes))
    }

    /// The length of a list whose elements take at least one byte each, so that no list is made
    /// larger than the bytes that are there.
    pub(super) fn length(
        &mut self,
        what: &'static str,
        allowed: usize,
    ) -> Result<usize, WireError> {
        let length = self.number(what)?;
        match usize::try_from(length) {
            Ok(length) if length > allowed => {
                Err(WireError::TooMany { what, length: length as u64, allowed })
            }
            Ok(length) if length <= self.head.len() => Ok(length),
            Ok(_) => Err(WireError::Truncated { what }),
            Err(_) => Err(WireError::TooMany { what, length, allowed }),
        }
    }

    /// A payload, as a slice of the packet.
    pub(super) fn payload(&mut self, what: &'static str) -> Result<Bytes, WireError> {
        let length = self.number(what)?;
        match usize::try_from(length) {
            Ok(length) if length <= self.payloads.len() => Ok(self.payloads.split_to(length)),
            _ => Err(WireError::Truncated { what }),
        }
    }

    pub(super) fn counted(&mut self) -> &mut Counted {
        &mut self.counted
    }

    /// Everything must have been read.
    pub(super) fn finish(self) -> Result<(), WireError> {
        match self.head.len() + self.payloads.len() {
            0 => Ok(()),
            bytes => Err(WireError::Trailing { bytes }),
        }
    }
}

fn take_byte(from: &mut &[u8], what: &'static str) -> Result<u8, WireError> {
    let (byte, rest) = from.split_first().ok_or(WireError::Truncated { what })?;
    *from = rest;
    Ok(*byte)
}

fn take_number(from: &mut &[u8], what: &'static str) -> Result<u64, WireError> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let byte = take_byte(from, what)?;
        let bits = u64::from(byte & 0x7F);
        // The tenth byte has room for one bit.
        if shift == 63 && bits > 1 {
            return Err(WireError::Unknown { what, value: bits });
        }
        value |= bits << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(WireError::Unknown { what, value })
}
