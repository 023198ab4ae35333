//! Message properties: named, typed values in front of a message's payload.
//!
//! [`PropertiesView`] reads the properties of a received message in place, [`Properties`] is a map
//! for building and keeping them. [`crate::app_data`] separates properties from payload.
//!
//! On the wire the area is a 6-byte header, a 6-byte header per property, then all names and
//! values, then padding. The two [styles](PropertyStyle) differ in one field of the property
//! headers only.

mod map;
mod view;
mod wire;

pub use map::{Properties, PropertiesError, PropertyValue};
pub use view::{PropertiesView, PropertyRef, PropertyValueRef};
pub use wire::{MalformedProperties, PropertiesFault, area_size, rewrite_as_old_style};

/// The most properties that a message can have.
pub const MAX_PROPERTIES: usize = 255;

/// The longest name of a property, in bytes.
pub const MAX_PROPERTY_NAME: usize = 4095;

/// How the property headers are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PropertyStyle {
    /// Headers hold value lengths; if the message is compressed, so are the properties. Every
    /// client reads this style.
    Old,
    /// Headers hold offsets; properties are never compressed. For peers with
    /// [`extended_properties`](crate::features::Features::extended_properties).
    Extended,
}

impl PropertyStyle {
    /// The style that a message's schema id stands for: 0 is the old one.
    #[must_use]
    pub const fn of_schema_wire_id(schema_wire_id: u16) -> Self {
        if schema_wire_id == 0 { Self::Old } else { Self::Extended }
    }

    /// The schema id to send with this style when no schemas are numbered. It is right for a broker
    /// in every PUSH: a producer's numbers mean nothing to a consumer.
    #[must_use]
    pub const fn schema_wire_id(self) -> u16 {
        match self {
            Self::Old => 0,
            Self::Extended => 1,
        }
    }
}

/// The type of a property.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum PropertyType {
    /// One byte, 0 or 1.
    Bool = 1,
    /// One byte.
    Char = 2,
    /// Two bytes, signed.
    Short = 3,
    /// Four bytes, signed.
    Int32 = 4,
    /// Eight bytes, signed.
    Int64 = 5,
    /// Text, UTF-8 by convention.
    String = 6,
    /// Any bytes.
    Binary = 7,
}

impl PropertyType {
    /// The type with this number, if there is one.
    #[must_use]
    pub const fn from_wire(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Bool,
            2 => Self::Char,
            3 => Self::Short,
            4 => Self::Int32,
            5 => Self::Int64,
            6 => Self::String,
            7 => Self::Binary,
            _ => return None,
        })
    }

    /// The number in a property header.
    #[must_use]
    pub const fn to_wire(self) -> u8 {
        self as u8
    }

    /// The size that every value of this type has, in bytes, or `None` if values differ.
    #[must_use]
    pub const fn fixed_size(self) -> Option<usize> {
        match self {
            Self::Bool | Self::Char => Some(1),
            Self::Short => Some(2),
            Self::Int32 => Some(4),
            Self::Int64 => Some(8),
            Self::String | Self::Binary => None,
        }
    }
}
