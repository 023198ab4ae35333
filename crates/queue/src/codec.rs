//! Reading and writing of the small binary formats of this crate: varints, fixed integers, short
//! strings.
//!
//! A reader never trusts a length: every access is checked against what is left.

/// Bytes that do not follow the format. `what` names the part that could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed {what}: restore this replica from a peer or a newer program version")]
pub struct Malformed {
    /// The part of the format that could not be read.
    pub what: &'static str,
}

pub(crate) fn malformed<T>(what: &'static str) -> Result<T, Malformed> {
    Err(Malformed { what })
}

/// Appends `value` in LEB128: seven bits per byte, lowest first.
pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Maps a signed difference to an unsigned number that is small when the difference is small.
pub(crate) fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

/// The inverse of [`zigzag`].
pub(crate) fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// Appends a string: length as varint, then its bytes.
pub(crate) fn put_str(out: &mut Vec<u8>, text: &str) {
    put_varint(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

/// A cursor over bytes that came from a log or a disk.
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// A reader that starts `at` bytes into `bytes`; a start beyond the end reads nothing.
    pub(crate) fn starting_at(bytes: &'a [u8], at: usize) -> Self {
        Self { bytes, at: at.min(bytes.len()) }
    }

    pub(crate) fn offset(&self) -> usize {
        self.at
    }

    pub(crate) fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.remaining() == 0
    }

    pub(crate) fn take(&mut self, len: usize, what: &'static str) -> Result<&'a [u8], Malformed> {
        if len > self.remaining() {
            return malformed(what);
        }
        let taken = &self.bytes[self.at..self.at + len];
        self.at += len;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(
        &mut self,
        what: &'static str,
    ) -> Result<[u8; N], Malformed> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N, what)?);
        Ok(array)
    }

    pub(crate) fn u8(&mut self, what: &'static str) -> Result<u8, Malformed> {
        Ok(self.array::<1>(what)?[0])
    }

    pub(crate) fn u32(&mut self, what: &'static str) -> Result<u32, Malformed> {
        Ok(u32::from_be_bytes(self.array(what)?))
    }

    pub(crate) fn u64(&mut self, what: &'static str) -> Result<u64, Malformed> {
        Ok(u64::from_be_bytes(self.array(what)?))
    }

    pub(crate) fn varint(&mut self, what: &'static str) -> Result<u64, Malformed> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8(what)?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return malformed(what);
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        malformed(what)
    }

    pub(crate) fn varint_u32(&mut self, what: &'static str) -> Result<u32, Malformed> {
        match u32::try_from(self.varint(what)?) {
            Ok(value) => Ok(value),
            Err(_) => malformed(what),
        }
    }

    /// A count of items that take at least `item_bytes` each, so that a forged count cannot make
    /// the reader reserve more memory than the input is long.
    pub(crate) fn count(
        &mut self,
        item_bytes: usize,
        what: &'static str,
    ) -> Result<usize, Malformed> {
        let count = self.varint(what)?;
        if count > (self.remaining() / item_bytes.max(1)) as u64 {
            return malformed(what);
        }
        Ok(count as usize)
    }

    pub(crate) fn str(&mut self, what: &'static str) -> Result<&'a str, Malformed> {
        let len = self.count(1, what)?;
        match std::str::from_utf8(self.take(len, what)?) {
            Ok(text) => Ok(text),
            Err(_) => malformed(what),
        }
    }

    /// Fails when anything is left: a record must be read to its end.
    pub(crate) fn finish(self, what: &'static str) -> Result<(), Malformed> {
        if self.is_empty() { Ok(()) } else { malformed(what) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
            #[test]
            fn varint_round_trip(value: u64, signed: i64) {
                let mut out = Vec::new();
                put_varint(&mut out, value);
                put_varint(&mut out, zigzag(signed));
                let mut reader = Reader::new(&out);
                prop_assert_eq!(reader.varint("v").unwrap(), value);
                prop_assert_eq!(unzigzag(reader.varint("v").unwrap()), signed);
                prop_assert!(reader.finish("v").is_ok());
            }

            #[test]
            fn no_input_panics_a_reader(bytes: Vec<u8>) {
                let mut reader = Reader::new(&bytes);
                let _ = reader.str("s");
                let _ = reader.varint("v");
                let _ = reader.u64("u");
    if let Ok(count) = reader.count(24, "c") {
                    prop_assert!(count <= bytes.len());
                }
            }
        }

    #[test]
    fn a_varint_longer_than_64_bits_is_refused() {
        let mut reader = Reader::new(&[0xff; 11]);
        assert!(reader.varint("v").is_err());
    }
}
