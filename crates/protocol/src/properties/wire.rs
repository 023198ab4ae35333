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

/// Rewrites an extended area in the old style, for a consumer that knows only that. The size stays the same.
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
