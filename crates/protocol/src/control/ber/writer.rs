//! Writing BER exactly as released clients and brokers do.

use bytes::{BufMut, BytesMut};

/// An identifier: class and number. Whether the value is constructed follows from how it is
/// written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::control) struct Tag {
    class: u8,
    number: u8,
}

impl Tag {
    /// The universal tag of roots and list elements.
    pub(in crate::control) const SEQUENCE: Self = Self { class: 0, number: 16 };

    /// The context tag of the member with this element id. The schema has none above 30, the last
    /// that fits one octet.
    pub(in crate::control) const fn member(id: u8) -> Self {
        Self { class: 0x80, number: id & 0x1f }
    }
}

/// Appends values to a buffer.
#[derive(Debug)]
pub(in crate::control) struct BerWriter<'a> {
    out: &'a mut BytesMut,
}

impl<'a> BerWriter<'a> {
    pub(in crate::control) fn new(out: &'a mut BytesMut) -> Self {
        Self { out }
    }

    /// Begins a constructed value of indefinite length.
    pub(in crate::control) fn open(&mut self, tag: Tag) {
        self.out.put_slice(&[tag.class | 0x20 | tag.number, 0x80]);
    }

    /// Ends the innermost constructed value.
    pub(in crate::control) fn close(&mut self) {
        self.out.put_slice(&[0, 0]);
    }

    /// A constructed value without content.
    pub(in crate::control) fn empty(&mut self, tag: Tag) {
        self.open(tag);
        self.close();
    }

    /// A primitive value.
    pub(in crate::control) fn octets(&mut self, tag: Tag, content: &[u8]) {
        self.out.put_u8(tag.class | tag.number);
        if let Ok(short @ 0..=127) = u8::try_from(content.len()) {
            self.out.put_u8(short);
        } else {
            let length = content.len().to_be_bytes();
            let skip = (content.len().leading_zeros() / 8) as usize;
            self.out.put_u8(0x80 | (length.len() - skip) as u8);
            self.out.put_slice(&length[skip..]);
        }
        self.out.put_slice(content);
    }

    /// An integer in the fewest octets of two's complement.
    pub(in crate::control) fn integer(&mut self, tag: Tag, value: i128) {
        let octets = value.to_be_bytes();
        let sign_bits = if value < 0 { value.leading_ones() } else { value.leading_zeros() };
        let skip = ((sign_bits as usize - 1) / 8).min(octets.len() - 1);
        self.octets(tag, &octets[skip..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut BerWriter<'_>)) -> Vec<u8> {
        let mut out = BytesMut::new();
        write(&mut BerWriter::new(&mut out));
        out.to_vec()
    }

    #[test]
    fn integers_take_the_fewest_octets() {
        let cases: [(i128, &[u8]); 11] = [
            (0, &[0]),
            (127, &[0x7f]),
            (128, &[0, 0x80]),
            (-1, &[0xff]),
            (-128, &[0x80]),
            (-129, &[0xff, 0x7f]),
            (1000, &[3, 0xe8]),
            (300_000, &[4, 0x93, 0xe0]),
            (i128::from(i32::MIN), &[0x80, 0, 0, 0]),
            (1 << 63, &[0, 0x80, 0, 0, 0, 0, 0, 0, 0]),
            (i128::from(i64::MIN), &[0x80, 0, 0, 0, 0, 0, 0, 0]),
        ];
        for (value, content) in cases {
            let bytes = written(|out| out.integer(Tag::member(0), value));
            assert_eq!(bytes[..2], [0x80, content.len() as u8], "{value}");
            assert_eq!(&bytes[2..], content, "{value}");
        }
    }

    #[test]
    fn long_lengths_take_the_fewest_octets() {
        let head = |len: usize| {
            let bytes = written(|out| out.octets(Tag::member(3), &vec![7; len]));
            bytes[..bytes.len() - len].to_vec()
        };
        assert_eq!(head(0), [0x83, 0]);
        assert_eq!(head(127), [0x83, 127]);
        assert_eq!(head(128), [0x83, 0x81, 128]);
        assert_eq!(head(256), [0x83, 0x82, 1, 0]);
        assert_eq!(head(70_000), [0x83, 0x83, 1, 0x11, 0x70]);
    }
}
