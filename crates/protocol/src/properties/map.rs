//! Properties as a map of owned values.

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes, BytesMut};
use thiserror::Error;

use super::view::{PropertiesView, PropertyValueRef};
use super::wire::{HEADER_SIZE, HEADER_SIZES, MAX_AREA_WORDS, MAX_VALUE_FIELD};
use super::{MAX_PROPERTIES, MAX_PROPERTY_NAME, MalformedProperties, PropertyStyle, PropertyType};
use crate::padding::{WORD, append_padding, padded_len};

/// A property's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PropertyValue {
    /// True or false.
    Bool(bool),
    /// One byte.
    Char(u8),
    /// 16 bits.
    Short(i16),
    /// 32 bits.
    Int32(i32),
    /// 64 bits.
    Int64(i64),
    /// Text.
    String(String),
    /// Any bytes.
    Binary(Bytes),
}

impl PropertyValue {
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

    fn size(&self) -> usize {
        match self {
            Self::String(text) => text.len(),
            Self::Binary(bytes) => bytes.len(),
            other => other.property_type().fixed_size().unwrap_or(0),
        }
    }

    fn put(&self, out: &mut BytesMut) {
        match self {
            Self::Bool(value) => out.put_u8(u8::from(*value)),
            Self::Char(value) => out.put_u8(*value),
            Self::Short(value) => out.put_i16(*value),
            Self::Int32(value) => out.put_i32(*value),
            Self::Int64(value) => out.put_i64(*value),
            Self::String(text) => out.put_slice(text.as_bytes()),
            Self::Binary(bytes) => out.put_slice(bytes),
        }
    }
}

impl From<PropertyValueRef<'_>> for PropertyValue {
    /// Text that is not UTF-8 gets replacement characters.
    fn from(value: PropertyValueRef<'_>) -> Self {
        match value {
            PropertyValueRef::Bool(value) => Self::Bool(value),
            PropertyValueRef::Char(value) => Self::Char(value),
            PropertyValueRef::Short(value) => Self::Short(value),
            PropertyValueRef::Int32(value) => Self::Int32(value),
            PropertyValueRef::Int64(value) => Self::Int64(value),
            PropertyValueRef::String(text) => {
                Self::String(String::from_utf8_lossy(text).into_owned())
            }
            PropertyValueRef::Binary(bytes) => Self::Binary(Bytes::copy_from_slice(bytes)),
        }
    }
}

macro_rules! from_value {
    ($($from:ty => $variant:ident,)*) => {$(
        impl From<$from> for PropertyValue {
            fn from(value: $from) -> Self {
                Self::$variant(value.into())
            }
        }
    )*};
}
from_value! {
    bool => Bool,
    i16 => Short,
    i32 => Int32,
    i64 => Int64,
    &str => String,
    String => String,
    Bytes => Binary,
    Vec<u8> => Binary,
}

/// The properties of one message, by name.
///
/// ```
/// use bytes::BytesMut;
/// use flintmq_protocol::properties::{Properties, PropertiesView, PropertyStyle, PropertyValueRef};
///
/// let mut properties = Properties::new();
/// properties.insert("region", "eu")?;
/// properties.insert("attempt", 3)?;
/// let mut area = BytesMut::new();
/// properties.append_area(PropertyStyle::Extended, &mut area)?;
///
/// let view = PropertiesView::parse(&area, PropertyStyle::Extended)?;
/// assert_eq!(view.get(b"attempt"), Some(PropertyValueRef::Int32(3)));
/// assert_eq!(Properties::from(view), properties);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Properties {
    values: BTreeMap<String, PropertyValue>,
}

impl Properties {
    /// No properties.
    #[must_use]
    pub const fn new() -> Self {
        Self { values: BTreeMap::new() }
    }

    /// Reads an area as it stands in a message, uncompressed.
    ///
    /// # Errors
    /// The area is malformed.
    pub fn parse(area: &[u8], style: PropertyStyle) -> Result<Self, MalformedProperties> {
        PropertiesView::parse(area, style).map(Self::from)
    }

    /// Sets a property and gives its former value, if it had one.
    ///
    /// # Errors
    /// The name is empty or too long, or there are 255 others already. Nothing changes then.
    pub fn insert(
        &mut self,
        name: impl Into<String>,
        value: impl Into<PropertyValue>,
    ) -> Result<Option<PropertyValue>, PropertiesError> {
        let name = name.into();
        if name.is_empty() || name.len() > MAX_PROPERTY_NAME {
            return Err(PropertiesError::Name { bytes: name.len() });
        }
        if self.values.len() == MAX_PROPERTIES && !self.values.contains_key(&name) {
            return Err(PropertiesError::TooMany);
        }
        Ok(self.values.insert(name, value.into()))
    }

    /// The value of a property.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&PropertyValue> {
        self.values.get(name)
    }

    /// Takes a property out.
    pub fn remove(&mut self, name: &str) -> Option<PropertyValue> {
        self.values.remove(name)
    }

    /// The properties in the order of their names.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &PropertyValue)> {
        self.values.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// How many properties there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether there are none. A message without properties has no area and no MESSAGE_PROPERTIES
    /// flag.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Appends the properties as an area with its padding, sorted by name. Appends nothing if there
    /// are none.
    ///
    /// # Errors
    /// The properties are larger than an area can be; `out` is unchanged.
    pub fn append_area(
        &self,
        style: PropertyStyle,
        out: &mut BytesMut,
    ) -> Result<(), PropertiesError> {
        if self.is_empty() {
            return Ok(());
        }
        // Names from a received area can have grown by replacement characters.
        if let Some(name) = self.values.keys().find(|name| name.len() > MAX_PROPERTY_NAME) {
            return Err(PropertiesError::Name { bytes: name.len() });
        }
        let data: usize = self.values.iter().map(|(name, value)| name.len() + value.size()).sum();
        let size = HEADER_SIZE * (1 + self.values.len()) + data;
        let words = padded_len(size) / WORD;
        if data > MAX_VALUE_FIELD || words > MAX_AREA_WORDS {
            return Err(PropertiesError::TooLarge { bytes: size });
        }
        out.reserve(words * WORD);
        out.put_u32(u32::from(HEADER_SIZES) << 24 | words as u32);
        out.put_slice(&[0, self.values.len() as u8]);
        let mut offset = 0;
        for (name, value) in &self.values {
            let field = match style {
                PropertyStyle::Old => value.size(),
                PropertyStyle::Extended => offset,
            };
            out.put_u32(u32::from(value.property_type().to_wire()) << 26 | field as u32);
            out.put_u16(name.len() as u16);
            offset += name.len() + value.size();
        }
        for (name, value) in &self.values {
            out.put_slice(name.as_bytes());
            value.put(out);
        }
        append_padding(out, size);
        Ok(())
    }
}

impl From<PropertiesView<'_>> for Properties {
    /// Names that are not UTF-8 get replacement characters; of a name that stands there twice the
    /// first value counts.
    fn from(view: PropertiesView<'_>) -> Self {
        let mut values = BTreeMap::new();
        for property in view.iter() {
            let name = String::from_utf8_lossy(property.name).into_owned();
            values.entry(name).or_insert_with(|| property.value.into());
        }
        Self { values }
    }
}

/// Why properties cannot be kept or written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PropertiesError {
    /// A name is empty or longer than [`MAX_PROPERTY_NAME`].
    #[error("property name must have 1 to 4095 bytes: bytes={bytes}")]
    Name {
        /// The name's length.
        bytes: usize,
    },
    /// More than [`MAX_PROPERTIES`].
    #[error("a message can have 255 properties at most, remove one first")]
    TooMany,
    /// More than an area can hold, about 64 MiB.
    #[error("message properties are too large, move data to the payload: bytes={bytes}")]
    TooLarge {
        /// Size of the area without padding.
        bytes: usize,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_counts_are_limited() {
        let mut properties = Properties::new();
        assert_eq!(properties.insert("", 1), Err(PropertiesError::Name { bytes: 0 }));
        let long = "n".repeat(MAX_PROPERTY_NAME + 1);
        assert!(properties.insert(long, 1).is_err());
        for i in 0..MAX_PROPERTIES {
            properties.insert(format!("p{i}"), i as i64).unwrap();
        }
        assert_eq!(properties.insert("one more", 1), Err(PropertiesError::TooMany));
        let former = properties.insert("p7", "replaced").unwrap();
        assert_eq!(former, Some(PropertyValue::Int64(7)));
        let mut area = BytesMut::new();
        properties.append_area(PropertyStyle::Extended, &mut area).unwrap();
        assert_eq!(Properties::parse(&area, PropertyStyle::Extended).unwrap(), properties);
    }

    #[test]
    fn what_does_not_fit_an_area_is_refused() {
        let mut properties = Properties::new();
        properties.insert("big", vec![0; MAX_VALUE_FIELD]).unwrap();
        let mut out = BytesMut::from(&b"before"[..]);
        let result = properties.append_area(PropertyStyle::Old, &mut out);
        assert!(matches!(result, Err(PropertiesError::TooLarge { .. })));
        assert_eq!(out, b"before"[..]);
    }

    #[test]
    fn of_a_name_that_stands_there_twice_the_first_value_counts() {
        let area =
            [0x1b, 0, 0, 6, 0, 2, 0x04, 0, 0, 1, 0, 1, 0x04, 0, 0, 1, 0, 1, b'a', 1, b'a', 0, 2, 2];
        let view = PropertiesView::parse(&area, PropertyStyle::Old).unwrap();
        assert_eq!(view.get(b"a"), Some(PropertyValueRef::Bool(true)));
        let map = Properties::from(view);
        assert_eq!(map.get("a"), Some(&PropertyValue::Bool(true)));
        assert_eq!(map.len(), 1);
    }

    #[test]
    fn names_that_grow_by_replacement_are_not_written_wrongly() {
        let mut area = vec![0x1b, 0, 0, 0, 0, 1, 0x04, 0, 0, 1, 0x0f, 0xff];
        area.extend([0xff; MAX_PROPERTY_NAME]);
        area.push(1);
        area.extend([4; 4]);
        let words = (area.len() / 4) as u16;
        area[2..4].copy_from_slice(&words.to_be_bytes());
        let map = Properties::parse(&area, PropertyStyle::Old).unwrap();
        let result = map.append_area(PropertyStyle::Old, &mut BytesMut::new());
        assert_eq!(result, Err(PropertiesError::Name { bytes: 3 * MAX_PROPERTY_NAME }));
    }
}
