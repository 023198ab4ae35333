//! Reading BER from a peer that is not trusted: every length is checked, nesting is bounded,
//! nothing is allocated by a claimed length.

use thiserror::Error;

/// Nesting allowed in a control message; the schema needs ten levels.
const MAX_DEPTH: u8 = 16;

/// Why a BER body cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{fault} offset={offset}")]
pub struct BerError {
    /// Where, in bytes from the start of the event's body.
    pub offset: usize,
    /// What is wrong.
    #[source]
    pub fault: BerFault,
}

/// What is wrong in a BER body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum BerFault {
    /// A value is longer than what is there.
    #[error("the value ends too early")]
    Truncated,
    /// A length or tag number has more octets than any real one.
    #[error("the length or tag number is absurd")]
    Absurd,
    /// Only constructed values may have an indefinite length.
    #[error("a primitive value has an indefinite length")]
    IndefinitePrimitive,
    /// A number or text where a structure belongs, or the other way round.
    #[error("primitive and constructed values are mixed up")]
    Form,
    /// End-of-content where none belongs, or with content.
    #[error("the end-of-content mark is wrong")]
    EndOfContent,
    /// The root is not a sequence.
    #[error("the message does not begin with a sequence")]
    Root,
    /// A number without octets or with more than its type holds.
    #[error("the number does not fit its type")]
    Width,
    /// A number that the enumeration does not have.
    #[error("the enumerator is unknown")]
    Enumerator,
    /// More than 16 levels.
    #[error("values are nested too deeply")]
    Depth,
    /// A list is longer than accepted.
    #[error("the list has too many elements")]
    TooManyElements,
    /// A choice without or with two selections.
    #[error("the choice needs exactly one selection")]
    Choice,
}

/// Identifier and length of one value.
#[derive(Debug, Clone, Copy)]
pub(in crate::control) struct Header {
    tag: u32,
    class: u8,
    constructed: bool,
    /// `None`: indefinite.
    length: Option<usize>,
}

/// A position in a BER body.
#[derive(Debug)]
pub(in crate::control) struct BerReader<'a> {
    bytes: &'a [u8],
    offset: usize,
    end: usize,
    depth: u8,
}

impl<'a> BerReader<'a> {
    pub(in crate::control) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, offset: 0, end: bytes.len(), depth: 0 }
    }

    pub(in crate::control) fn offset(&self) -> usize {
        self.offset
    }

    pub(in crate::control) fn fail(&self, fault: BerFault) -> BerError {
        BerError { offset: self.offset, fault }
    }

    /// Reads the root's header; what follows the root is padding and of no interest.
    pub(in crate::control) fn root(&mut self) -> Result<Header, BerError> {
        let root = self.header()?;
        let is_sequence = root.class == 0 && root.tag == 16 && root.constructed;
        if is_sequence { Ok(root) } else { Err(BerError { offset: 0, fault: BerFault::Root }) }
    }

    /// Gives each member of a constructed value to `each` with its element id, or `None` when its
    /// tag is not a context tag. `each` must consume the member.
    pub(in crate::control) fn members(
        &mut self,
        header: Header,
        mut each: impl FnMut(Option<u32>, Header, &mut Self) -> Result<(), BerError>,
    ) -> Result<(), BerError> {
        if !header.constructed {
            return Err(self.fail(BerFault::Form));
        }
        if self.depth == MAX_DEPTH {
            return Err(self.fail(BerFault::Depth));
        }
        self.depth += 1;
        let outer_end = self.end;
        if let Some(length) = header.length {
            self.end = self.span(length)?;
        }
        loop {
            match header.length {
                Some(_) if self.offset == self.end => break,
                None if self.at_end_of_content()? => break,
                _ => {}
            }
            let member = self.header()?;
            let id = (member.class == CONTEXT).then_some(member.tag);
            each(id, member, self)?;
        }
        self.end = outer_end;
        self.depth -= 1;
        Ok(())
    }

    /// Passes over a value of any form.
    pub(in crate::control) fn skip(&mut self, header: Header) -> Result<(), BerError> {
        match header.length {
            Some(length) => self.offset = self.span(length)?,
            None => self.members(header, |_, member, from| from.skip(member))?,
        }
        Ok(())
    }

    /// The content of a primitive value.
    pub(in crate::control) fn octets(&mut self, header: Header) -> Result<&'a [u8], BerError> {
        let length = header.length.filter(|_| !header.constructed);
        let end = self.span(length.ok_or_else(|| self.fail(BerFault::Form))?)?;
        let content = &self.bytes[self.offset..end];
        self.offset = end;
        Ok(content)
    }

    /// A signed integer of at most `bits` bits.
    pub(in crate::control) fn signed(
        &mut self,
        header: Header,
        bits: u32,
    ) -> Result<i64, BerError> {
        let error = self.fail(BerFault::Width);
        let octets = self.octets(header)?;
        if octets.is_empty() || octets.len() > (bits / 8) as usize {
            return Err(error);
        }
        Ok(two_complement(octets))
    }

    /// An unsigned integer of at most `bits` bits, with or without the leading zero that its top
    /// bit would need.
    pub(in crate::control) fn unsigned(
        &mut self,
        header: Header,
        bits: u32,
    ) -> Result<u64, BerError> {
        let error = self.fail(BerFault::Width);
        let width = (bits / 8) as usize;
        let value = match self.octets(header)? {
            [] => return Err(error),
            [0, octets @ ..] if octets.len() == width => two_complement(octets),
            octets if octets.len() <= width => two_complement(octets),
            _ => return Err(error),
        };
        Ok(value as u64 & (u64::MAX >> (64 - bits)))
    }

    fn header(&mut self) -> Result<Header, BerError> {
        let start = self.offset;
        let fail = |fault| BerError { offset: start, fault };
        let first = self.octet()?;
        let mut tag = u32::from(first & 0x1f);
        if tag == 0x1f {
            tag = 0;
            loop {
                let digit = self.octet()?;
                if tag >> 24 != 0 {
                    return Err(fail(BerFault::Absurd));
                }
                tag = tag << 7 | u32::from(digit & 0x7f);
                if digit & 0x80 == 0 {
                    break;
                }
            }
        }
        let constructed = first & 0x20 != 0;
        let length = match self.octet()? {
            0x80 => None,
            short @ ..0x80 => Some(usize::from(short)),
            long => {
                let mut length = 0usize;
                for _ in 0..long & 0x7f {
                    if length >> 32 != 0 {
                        return Err(fail(BerFault::Absurd));
                    }
                    length = length << 8 | usize::from(self.octet()?);
                }
                Some(length)
            }
        };
        if length.is_none() && !constructed {
            return Err(fail(BerFault::IndefinitePrimitive));
        }
        if first == 0 {
            return Err(fail(BerFault::EndOfContent));
        }
        Ok(Header { tag, class: first & 0xc0, constructed, length })
    }

    fn octet(&mut self) -> Result<u8, BerError> {
        if self.offset >= self.end {
            return Err(self.fail(BerFault::Truncated));
        }
        self.offset += 1;
        Ok(self.bytes[self.offset - 1])
    }

    /// Where a value of `length` octets ends.
    fn span(&self, length: usize) -> Result<usize, BerError> {
        let end = self.offset.checked_add(length).filter(|end| *end <= self.end);
        end.ok_or_else(|| self.fail(BerFault::Truncated))
    }

    /// Consumes an end-of-content mark if that comes next.
    fn at_end_of_content(&mut self) -> Result<bool, BerError> {
        match self.bytes[self.offset..self.end] {
            [] => Err(self.fail(BerFault::Truncated)),
            [0, 0, ..] => {
                self.offset += 2;
                Ok(true)
            }
            [0, ..] => Err(self.fail(BerFault::EndOfContent)),
            _ => Ok(false),
        }
    }
}

const CONTEXT: u8 = 0x80;

/// Up to eight octets as a signed number.
fn two_complement(octets: &[u8]) -> i64 {
    let negative = octets.first().is_some_and(|first| first & 0x80 != 0);
    let start = if negative { -1 } else { 0 };
    octets.iter().fold(start, |value: i64, octet| value << 8 | i64::from(*octet))
}
