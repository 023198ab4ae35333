//! Word padding: what follows every variable-length byte string on the wire.
//!
//! A padded item is a whole number of 4-byte words. One to four bytes are added, never none, and
//! each holds the number of bytes added, so that the last byte alone tells how many to drop.

use bytes::{BufMut, BytesMut};

/// Bytes in one protocol word; nearly every length in a header counts these.
pub const WORD: usize = 4;

/// How many padding bytes follow `len` bytes of data: 1 to 4.
///
/// ```
/// use flintmq_protocol::padding::padding_len;
/// assert_eq!([padding_len(0), padding_len(1), padding_len(3), padding_len(4)], [4, 3, 1, 4]);
/// ```
#[must_use]
pub const fn padding_len(len: usize) -> usize {
    WORD - len % WORD
}

/// Size of `len` bytes of data with their padding.
#[must_use]
pub const fn padded_len(len: usize) -> usize {
    len + padding_len(len)
}

/// Appends the padding that belongs behind `len` bytes of data.
pub fn append_padding(out: &mut BytesMut, len: usize) {
    let n = padding_len(len);
    out.put_slice(&PADDING[n - 1][..n]);
}

/// Length of the data in `padded`, or `None` when it does not end in valid padding.
///
/// Only the last byte is examined; the others are not compared, because no reader of the protocol
/// does.
#[must_use]
pub fn unpadded_len(padded: &[u8]) -> Option<usize> {
    let n = usize::from(*padded.last()?);
    (padded.len().is_multiple_of(WORD) && (1..=WORD).contains(&n)).then(|| padded.len() - n)
}

const PADDING: [[u8; WORD]; WORD] = [[1; WORD], [2; WORD], [3; WORD], [4; WORD]];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_is_padded_to_words_and_back() {
        for len in 0..=9 {
            let mut out = BytesMut::zeroed(len);
            append_padding(&mut out, len);
            assert_eq!(out.len(), padded_len(len));
            assert_eq!(out.len() % WORD, 0);
            assert!(out.len() > len);
            assert_eq!(unpadded_len(&out), Some(len));
        }
    }

    #[test]
    fn bad_padding_is_refused() {
        for bad in
            [&[][..], &[1][..], &[0, 0, 0, 0], &[1, 1, 1, 5], &[9, 9, 9, 9], &[1, 1, 1, 1, 1]]
        {
            assert_eq!(unpadded_len(bad), None, "{bad:?}");
        }
    }
}
