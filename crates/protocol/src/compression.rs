//! Compression of application data: none, or one zlib stream (RFC 1950).

use bytes::Bytes;
use flate2::{Compress, Decompress, FlushCompress, FlushDecompress, Status};
use thiserror::Error;

/// Clients compress from this size up, in bytes.
pub const MIN_COMPRESSED_SIZE: usize = 1024;

/// The most that inflating one message may yield unless the caller says less: 512 MiB.
pub const MAX_INFLATED_SIZE: usize = 512 << 20;

/// How application data is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, PartialOrd, Ord)]
pub enum Compression {
    /// As it is.
    #[default]
    None,
    /// A zlib stream.
    Zlib,
}

impl Compression {
    /// The algorithm with this number, if there is one.
    #[must_use]
    pub const fn from_wire(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::None),
            1 => Some(Self::Zlib),
            _ => None,
        }
    }

    /// The number in a message header.
    #[must_use]
    pub const fn to_wire(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Zlib => 1,
        }
    }
}

/// Why a zlib stream cannot be inflated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum InflateError {
    /// Not a zlib stream, or a damaged one.
    #[error("compressed data is damaged: bytes_in={consumed}")]
    Damaged {
        /// How much of the input was used.
        consumed: usize,
    },
    /// The stream ends early.
    #[error("compressed data ends too early: bytes_in={consumed}")]
    Truncated {
        /// How much of the input was used.
        consumed: usize,
    },
    /// The result would be larger than accepted.
    #[error("compressed data inflates to more than accepted: limit={limit}")]
    TooLarge {
        /// The largest accepted result, in bytes.
        limit: usize,
    },
}

/// Inflates zlib streams; keep one per connection to save the set-up (some 40 KiB) per message.
#[derive(Debug)]
pub struct Inflater {
    state: Decompress,
}

impl Default for Inflater {
    fn default() -> Self {
        Self { state: Decompress::new(true) }
    }
}

impl Inflater {
    /// Inflates one stream to at most `limit` bytes. Memory grows with what the stream really
    /// yields. Bytes behind the end of the stream are ignored.
    ///
    /// # Errors
    /// The stream is damaged, incomplete, or yields more than `limit`.
    pub fn inflate(&mut self, input: &[u8], limit: usize) -> Result<Bytes, InflateError> {
        self.state.reset(true);
        let guess = input.len().saturating_mul(4).clamp(MIN_CHUNK, MAX_CHUNK);
        let mut output = Vec::with_capacity(guess.min(limit.saturating_add(1)));
        loop {
            let consumed = self.state.total_in() as usize;
            if output.len() == output.capacity() {
                if output.len() > limit {
                    return Err(InflateError::TooLarge { limit });
                }
                let most = limit.saturating_add(1) - output.len();
                output.reserve_exact(output.len().clamp(MIN_CHUNK, MAX_CHUNK).min(most));
            }
            let before = output.len();
            let rest = input.get(consumed..).unwrap_or_default();
            let status = self
                .state
                .decompress_vec(rest, &mut output, FlushDecompress::None)
                .map_err(|_| InflateError::Damaged { consumed })?;
            if output.len() > limit {
                return Err(InflateError::TooLarge { limit });
            }
            let progress = output.len() > before || self.state.total_in() as usize > consumed;
            match status {
                Status::StreamEnd => return Ok(output.into()),
                Status::Ok | Status::BufError if progress => {}
                Status::Ok | Status::BufError => {
                    return Err(InflateError::Truncated { consumed });
                }
            }
        }
    }
}

/// Deflates into zlib streams; keep one per connection to save the set-up (some 300 KiB) per
/// message.
#[derive(Debug)]
pub struct Deflater {
    state: Compress,
}

impl Default for Deflater {
    fn default() -> Self {
        Self { state: Compress::new(flate2::Compression::default(), true) }
    }
}

impl Deflater {
    /// Deflates the concatenation of `parts` if that is worth it by the rule that every client
    /// follows: at least [`MIN_COMPRESSED_SIZE`] bytes, and the result is smaller. Otherwise
    /// `None`: send the data as it is.
    #[must_use]
    pub fn deflate_if_smaller(&mut self, parts: &[&[u8]]) -> Option<Bytes> {
        let size: usize = parts.iter().map(|part| part.len()).sum();
        if size < MIN_COMPRESSED_SIZE {
            return None;
        }
        self.state.reset();
        // A result of `size - 1` bytes is the largest that is still of use.
        let mut output = Vec::with_capacity(size - 1);
        let (last, first) = parts.split_last()?;
        for part in first {
            self.feed(part, &mut output, FlushCompress::None)?;
        }
        self.feed(last, &mut output, FlushCompress::Finish)?;
        (output.len() < size).then(|| output.into())
    }

    /// Compresses `part`; `None` when the output is full.
    fn feed(&mut self, part: &[u8], output: &mut Vec<u8>, flush: FlushCompress) -> Option<()> {
        let finish = matches!(flush, FlushCompress::Finish);
        let start = self.state.total_in();
        loop {
            let consumed = (self.state.total_in() - start) as usize;
            if consumed >= part.len() && !finish {
                return Some(());
            }
            let rest = part.get(consumed..).unwrap_or_default();
            let status = self.state.compress_vec(rest, output, flush).ok()?;
            if status == Status::StreamEnd {
                return Some(());
            }
            if output.len() == output.capacity() {
                return None;
            }
        }
    }
}

const MIN_CHUNK: usize = 4 << 10;
const MAX_CHUNK: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(len: usize) -> Vec<u8> {
        let mut state = 0x2545_f491_4f6c_dd1du64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        };
        (0..len).map(|_| next()).collect()
    }

    #[test]
    fn clients_rules_decide_what_is_compressed() {
        let mut deflater = Deflater::default();
        assert_eq!(deflater.deflate_if_smaller(&[&[b'a'; 1023]]), None);
        assert_eq!(deflater.deflate_if_smaller(&[&noise(2000)]), None);
        assert_eq!(deflater.deflate_if_smaller(&[]), None);
        let small = deflater.deflate_if_smaller(&[&[b'a'; 1000], &[b'a'; 24]]).unwrap();
        assert!(small.len() < 100);
        assert_eq!(small[0], 0x78);
        let mut inflater = Inflater::default();
        assert_eq!(inflater.inflate(&small, 1024).unwrap(), vec![b'a'; 1024]);
        assert_eq!(inflater.inflate(&small, 1024).unwrap().len(), 1024, "state is reset");
    }

    #[test]
    fn inflation_is_bounded() {
        let bomb = Deflater::default().deflate_if_smaller(&[&vec![0; 20 << 20]]).unwrap();
        let mut inflater = Inflater::default();
        for limit in [0, 1, 4095, 4096, 4097, 1 << 20, (20 << 20) - 1] {
            let result = inflater.inflate(&bomb, limit);
            assert_eq!(result, Err(InflateError::TooLarge { limit }));
        }
        assert_eq!(inflater.inflate(&bomb, 20 << 20).unwrap().len(), 20 << 20);
    }

    #[test]
    fn damage_is_found() {
        let good = Deflater::default().deflate_if_smaller(&[&[b'x'; 5000]]).unwrap();
        let mut inflater = Inflater::default();
        for cut in 0..good.len() {
            assert!(inflater.inflate(&good[..cut], 5000).is_err(), "{cut}");
        }
        let mut bad = good.to_vec();
        *bad.last_mut().unwrap() ^= 1;
        assert!(matches!(inflater.inflate(&bad, 5000), Err(InflateError::Damaged { .. })));
        assert!(inflater.inflate(b"not zlib at all", 5000).is_err());
        assert!(inflater.inflate(b"", 5000).is_err());
    }
}
