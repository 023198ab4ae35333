//! Reading properties in place.

use super::wire::{Entry, Layout};
use super::{MalformedProperties, PropertyStyle, PropertyType};

/// The checked properties area of a message. Nothing is copied or collected; a lookup walks over
/// the headers, which is the fastest way for the few properties that messages have.
#[derive(Debug, Clone, Copy)]
pub struct PropertiesView<'a> {
    layout: Layout<'a>,
}

impl<'a> PropertiesView<'a> {
    /// Checks `area`, which must be exactly one properties area with its padding, uncompressed.
    /// Reading from the view cannot fail afterwards.
    ///
    /// # Errors
    /// The area is malformed.
    pub fn parse(area: &'a [u8], style: PropertyStyle) -> Result<Self, MalformedProperties> {
        Ok(Self { layout: Layout::parse(area, style)? })
    }

    /// How many properties there are; at least one.
    #[must_use]
    pub fn len(&self) -> usize {
        self.layout.len()
    }

    /// Always false: an area without properties is malformed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The properties in the order of the wire.
    pub fn iter(&self) -> impl Iterator<Item = PropertyRef<'a>> + use<'a> {
        let area = self.layout.area();
        self.layout.entries().map(move |entry| PropertyRef::new(area, &entry))
    }

    /// The value of the property with this name; of the first, if a sender wrote the name twice.
    #[must_use]
    pub fn get(&self, name: &[u8]) -> Option<PropertyValueRef<'a>> {
        let area = self.layout.area();
        self.layout
            .entries()
            .find(|entry| area[entry.name..entry.value()] == *name)
            .map(|entry| PropertyRef::new(area, &entry).value)
    }
}

/// One property, borrowed from the received message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PropertyRef<'a> {
    /// The name; UTF-8 by convention.
    pub name: &'a [u8],
    /// The value.
    pub value: PropertyValueRef<'a>,
}

/// A property's value, borrowed from the received message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PropertyValueRef<'a> {
    /// True or false; any byte but 0 counts as true.
    Bool(bool),
    /// One byte.
    Char(u8),
    /// 16 bits.
    Short(i16),
    /// 32 bits.
    Int32(i32),
    /// 64 bits.
    Int64(i64),
    /// Text, UTF-8 by convention.
    String(&'a [u8]),
    /// Any bytes.
    Binary(&'a [u8]),
}

impl PropertyValueRef<'_> {
    /// The value's type.
    #[must_use]
    pub const fn property_type(&self) -> PropertyType {
        match self {
            Self::Bool(_) => PropertyType::Bool,
            Self::Char(_) => PropertyType::Char,
            Self::Short(_) => PropertyType::Short,
            Self::Int32(_) => PropertyType::Int32,
            Self::Int64(_) => PropertyType::Int64,
            Self::String(_) => PropertyType::String,
            Self::Binary(_) => PropertyType::Binary,
        }
    }
}

impl<'a> PropertyRef<'a> {
    fn new(area: &'a [u8], entry: &Entry) -> Self {
        let bytes = &area[entry.value()..entry.value() + entry.value_size];
        // The sizes were checked with the types, so the numbers below always have their bytes.
        let value = match entry.property_type {
            PropertyType::Bool => PropertyValueRef::Bool(bytes != [0]),
            PropertyType::Char => PropertyValueRef::Char(number::<1>(bytes)[0]),
            PropertyType::Short => PropertyValueRef::Short(i16::from_be_bytes(number(bytes))),
            PropertyType::Int32 => PropertyValueRef::Int32(i32::from_be_bytes(number(bytes))),
            PropertyType::Int64 => PropertyValueRef::Int64(i64::from_be_bytes(number(bytes))),
            PropertyType::String => PropertyValueRef::String(bytes),
            PropertyType::Binary => PropertyValueRef::Binary(bytes),
        };
        Self { name: &area[entry.name..entry.value()], value }
    }
}

fn number<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.first_chunk().copied().unwrap_or([0; N])
}
