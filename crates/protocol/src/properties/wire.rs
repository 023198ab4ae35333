//! The layout of a properties area, checked; and its conversion to the old style.

use bytes::{Bytes, BytesMut};
use thiserror::Error;

use super::{PropertyStyle, PropertyType};
use crate::padding::{WORD, unpadded_len};

/// Size of the area header and of each property header that this crate writes.
pub(super) const HEADER_SIZE: usize = 6;

/// Both header sizes, in units of two bytes, as the first byte of an area tells them.
pub(super) const HEADER_SIZES: u8 = 3 << 3 | 3;

/// The most words that an area can have.
pub(super) const MAX_AREA_WORDS: usize = (1 << 24) - 1;

/// The largest offset or value length that fits a property header.
pub(super) const MAX_VALUE_FIELD: usize = (1 << 26) - 1;

/// Why a properties area cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("malformed message properties: {fault} offset={offset}")]
pub struct MalformedProperties {
    /// Where, in bytes from the start of the area.
    pub offset: usize,
    /// What is wrong.
    #[source]
    pub fault: PropertiesFault,
}

/// What is wrong with a properties area.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PropertiesFault {
    /// The application data is shorter than the area, or the area shorter than its headers.
    #[error("the area is cut off")]
    Truncated,
    /// The header sizes are too small for the fields that cannot be missing.
    #[error("the headers are too short for their fields")]
    HeaderSize,
    /// The flag says that there are properties, the area says there are none.
    #[error("there are no properties")]
    NoProperties,
    /// The padding is not valid.
    #[error("the padding is not valid")]
    Padding,
    /// The type's number is not assigned.
    #[error("the type is unknown")]
    Type,
    /// Names cannot be empty.
    #[error("the name is empty")]
    EmptyName,
    /// Lengths or offsets do not fit together or the area.
    #[error("lengths or offsets do not add up")]
    Lengths,
    /// The value's length does not fit its type.
    #[error("the value's length does not fit its type")]
    ValueSize,
}

/// The size in bytes, padding included, of the properties area at the front of `app_data`.
///
/// # Errors
/// `app_data` does not begin with an area, or is shorter than it.
pub fn area_size(app_data: &[u8]) -> Result<usize, MalformedProperties> {
    let fail = |fault| MalformedProperties { offset: 0, fault };
    let &[_, high, middle, low] =
        app_data.first_chunk().ok_or_else(|| fail(PropertiesFault::Truncated))?;
    let size = u32::from_be_bytes([0, high, middle, low]) as usize * WORD;
    if size < HEADER_SIZE || size > app_data.len() {
        return Err(fail(PropertiesFault::Truncated));
    }
    Ok(size)
}

/// Rewrites an extended area in the old style, for a consumer that knows only that. The size stays
/// the same.
///
/// # Errors
/// The area is malformed.
pub fn rewrite_as_old_style(area: &[u8]) -> Result<Bytes, MalformedProperties> {
    let layout = Layout::parse(area, PropertyStyle::Extended)?;
    let mut old = BytesMut::from(area);
    for entry in layout.entries() {
        let kept = old[entry.header] & 0xfc;
        let [_, a, b, c] = (entry.value_size as u32).to_be_bytes();
        let top = (entry.value_size >> 24) as u8 & 0x03;
        old[entry.header..entry.header + WORD].copy_from_slice(&[kept | top, a, b, c]);
    }
    Ok(old.freeze())
}

/// One property in an area; positions count from the start of the area.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) header: usize,
    pub(super) property_type: PropertyType,
    pub(super) name: usize,
    pub(super) name_size: usize,
    pub(super) value_size: usize,
}

impl Entry {
    pub(super) fn value(&self) -> usize {
        self.name + self.name_size
    }
}

/// An area whose headers were found to fit together.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout<'a> {
    area: &'a [u8],
    style: PropertyStyle,
    property_header_size: usize,
    first_header: usize,
    first_name: usize,
    end: usize,
}

impl<'a> Layout<'a> {
    /// Checks `area`, which must be exactly one area with its padding.
    pub(super) fn parse(area: &'a [u8], style: PropertyStyle) -> Result<Self, MalformedProperties> {
        let fail = |offset, fault| MalformedProperties { offset, fault };
        if area_size(area)? != area.len() {
            return Err(fail(0, PropertiesFault::Truncated));
        }
        let first_header = usize::from(area[0] & 0x07) * 2;
        let property_header_size = usize::from(area[0] >> 3 & 0x07) * 2;
        if first_header < HEADER_SIZE || property_header_size < HEADER_SIZE {
            return Err(fail(0, PropertiesFault::HeaderSize));
        }
        let count = usize::from(area[5]);
        if count == 0 {
            return Err(fail(5, PropertiesFault::NoProperties));
        }
        let end = unpadded_len(area).ok_or_else(|| fail(area.len(), PropertiesFault::Padding))?;
        let first_name = first_header + count * property_header_size;
        if first_name > end {
            return Err(fail(end, PropertiesFault::Truncated));
        }
        let layout = Self { area, style, property_header_size, first_header, first_name, end };
        layout.check()?;
        Ok(layout)
    }

    pub(super) fn area(&self) -> &'a [u8] {
        self.area
    }

    pub(super) fn len(&self) -> usize {
        (self.first_name - self.first_header) / self.property_header_size
    }

    /// The properties in their order.
    pub(super) fn entries(self) -> impl Iterator<Item = Entry> + 'a {
        let mut walk = Walk { layout: self, header: self.first_header, name: self.first_name };
        std::iter::from_fn(move || walk.next_entry().ok().flatten())
    }

    fn check(&self) -> Result<(), MalformedProperties> {
        let mut walk = Walk { layout: *self, header: self.first_header, name: self.first_name };
        while walk.next_entry()?.is_some() {}
        if walk.name == self.end {
            Ok(())
        } else {
            Err(MalformedProperties { offset: walk.name, fault: PropertiesFault::Lengths })
        }
    }

    /// The value field of the property header at `header`: a length (old) or an offset (extended).
    fn value_field(&self, header: usize) -> usize {
        let h = &self.area[header..header + WORD];
        u32::from_be_bytes([h[0] & 0x03, h[1], h[2], h[3]]) as usize
    }
}

/// A position in an area: the next property's header, and where its name must begin.
struct Walk<'a> {
    layout: Layout<'a>,
    header: usize,
    name: usize,
}

impl Walk<'_> {
    fn next_entry(&mut self) -> Result<Option<Entry>, MalformedProperties> {
        let Layout { area, style, property_header_size, first_name, end, .. } = self.layout;
        let header = self.header;
        if header == first_name {
            return Ok(None);
        }
        let fail = |fault| MalformedProperties { offset: header, fault };
        let number = area[header] >> 2 & 0x1f;
        let property_type =
            PropertyType::from_wire(number).ok_or_else(|| fail(PropertiesFault::Type))?;
        let name_size =
            usize::from(u16::from_be_bytes([area[header + 4], area[header + 5]]) & 0x0fff);
        if name_size == 0 {
            return Err(fail(PropertiesFault::EmptyName));
        }
        let next_header = header + property_header_size;
        let field = self.layout.value_field(header);
        let value_end = match style {
            PropertyStyle::Old => self.name + name_size + field,
            PropertyStyle::Extended if first_name + field != self.name => {
                return Err(fail(PropertiesFault::Lengths));
            }
            PropertyStyle::Extended if next_header == first_name => end,
            PropertyStyle::Extended => first_name + self.layout.value_field(next_header),
        };
        let value_size = value_end
            .checked_sub(self.name + name_size)
            .filter(|_| value_end <= end)
            .ok_or_else(|| fail(PropertiesFault::Lengths))?;
        if property_type.fixed_size().is_some_and(|size| size != value_size) {
            return Err(fail(PropertiesFault::ValueSize));
        }
        let entry = Entry { header, property_type, name: self.name, name_size, value_size };
        self.header = next_header;
        self.name = value_end;
        Ok(Some(entry))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two properties, a=true and s="hi", in the extended style.
    const AREA: [u8; 24] = [
        0x1b, 0, 0, 6, 0, 2, // area header
        0x04, 0, 0, 0, 0, 1, // BOOL at 0, one byte of name
        0x18, 0, 0, 2, 0, 1, // STRING at 2, one byte of name
        b'a', 1, b's', b'h', b'i', 1,
    ];

    fn fault(damage: impl Fn(&mut Vec<u8>), style: PropertyStyle) -> PropertiesFault {
        let mut area = AREA.to_vec();
        if style == PropertyStyle::Old {
            area[9] = 1;
            Layout::parse(&area, style).unwrap();
        }
        damage(&mut area);
        Layout::parse(&area, style).unwrap_err().fault
    }

    #[test]
    fn entries_are_where_the_headers_put_them() {
        let layout = Layout::parse(&AREA, PropertyStyle::Extended).unwrap();
        let places: Vec<_> =
            layout.entries().map(|entry| (entry.name, entry.value(), entry.value_size)).collect();
        assert_eq!(places, [(18, 19, 1), (20, 21, 2)]);
    }

    #[test]
    fn the_old_style_differs_in_one_field_per_header() {
        let old = rewrite_as_old_style(&AREA).unwrap();
        let mut expected = AREA;
        expected[9] = 1;
        expected[15] = 2;
        assert_eq!(old, expected[..]);
        let before: Vec<_> =
            Layout::parse(&AREA, PropertyStyle::Extended).unwrap().entries().collect();
        let after: Vec<_> = Layout::parse(&old, PropertyStyle::Old).unwrap().entries().collect();
        assert_eq!(before, after);
    }

    #[test]
    fn faults_of_either_style_are_named() {
        use PropertiesFault::*;
        for style in [PropertyStyle::Old, PropertyStyle::Extended] {
            assert_eq!(fault(|area| area.truncate(3), style), Truncated);
            assert_eq!(fault(|area| area.truncate(20), style), Truncated);
            assert_eq!(fault(|area| area.extend([4; 4]), style), Truncated);
            assert_eq!(fault(|area| area[3] = 1, style), Truncated);
            assert_eq!(fault(|area| area[0] = 2 << 3 | 3, style), HeaderSize);
            assert_eq!(fault(|area| area[0] = 3 << 3 | 2, style), HeaderSize);
            assert_eq!(fault(|area| area[5] = 0, style), NoProperties);
            assert_eq!(fault(|area| area[5] = 200, style), Truncated);
            assert_eq!(fault(|area| area[23] = 5, style), Padding);
            assert_eq!(fault(|area| area[6] = 0, style), Type);
            assert_eq!(fault(|area| area[6] = 31 << 2, style), Type);
            assert_eq!(fault(|area| area[11] = 0, style), EmptyName);
            assert_eq!(fault(|area| area[17] = 200, style), Lengths);
        }
    }

    #[test]
    fn offsets_and_lengths_must_add_up() {
        use PropertiesFault::*;
        let extended = |damage: fn(&mut Vec<u8>)| fault(damage, PropertyStyle::Extended);
        assert_eq!(extended(|area| area[9] = 1), Lengths);
        assert_eq!(extended(|area| area[15] = 0), Lengths);
        assert_eq!(extended(|area| area[12] |= 3), Lengths);
        assert_eq!(extended(|area| area[15] = 3), ValueSize);
        let old = |damage: fn(&mut Vec<u8>)| fault(damage, PropertyStyle::Old);
        assert_eq!(old(|area| area[15] = 3), Lengths);
        assert_eq!(old(|area| area[15] = 1), Lengths);
        assert_eq!(old(|area| area[9] = 2), ValueSize);
        assert_eq!(old(|area| area[6] |= 3), Lengths);
    }

    #[test]
    fn longer_headers_are_skipped() {
        // Eight bytes of area header and of property header.
        let area = [
            0x24, 0, 0, 5, 0, 1, 9, 9, // area header
            0x04, 0, 0, 0, 0, 1, 9, 9, // BOOL at 0
            b'a', 1, 2, 2,
        ];
        for style in [PropertyStyle::Old, PropertyStyle::Extended] {
            let mut area = area;
            area[11] = u8::from(style == PropertyStyle::Old);
            let layout = Layout::parse(&area, style).unwrap();
            assert_eq!(layout.len(), 1);
            assert_eq!(layout.entries().next().map(|entry| entry.value()), Some(17));
        }
    }
}
