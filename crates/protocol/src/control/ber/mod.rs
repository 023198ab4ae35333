//! BER as the peers of this protocol use it: constructed values of indefinite length when writing,
//! both forms when reading, context tags for members, the universal SEQUENCE tag for roots and list
//! elements.
//!
//! The schema's types say with [`sequence`] and [`enumeration`] which member has which element id;
//! the rest is derived.

mod reader;
mod roots;
mod writer;

use bytes::Bytes;

pub use reader::{BerError, BerFault};
pub(super) use reader::{BerReader, Header};
pub(super) use roots::{BerRoot, Found};
pub(super) use writer::{BerWriter, Tag};

use super::requests::MAX_LIST_ELEMENTS;
use crate::flags::{QueueFlags, RoutingFlags};

/// A member of the schema: something with a place of its own in the encoding.
pub(super) trait BerValue: Sized {
    /// Writes the value under `tag`; writes nothing for an absent optional member.
    fn write(&self, tag: Tag, out: &mut BerWriter<'_>);

    /// Reads the value whose identifier and length were just read.
    fn read(header: Header, from: &mut BerReader<'_>) -> Result<Self, BerError>;
}

/// Derives [`BerValue`] for a struct from its element ids; missing members keep the struct's
/// default.
macro_rules! sequence {
    ($name:ident { $($id:literal $field:ident,)* }) => {
        impl $crate::control::ber::BerValue for $name {
            fn write(
                &self,
                tag: $crate::control::ber::Tag,
                out: &mut $crate::control::ber::BerWriter<'_>,
            ) {
                out.open(tag);
                $($crate::control::ber::BerValue::write(
                    &self.$field,
                    $crate::control::ber::Tag::member($id),
                    out,
                );)*
                out.close();
            }

            fn read(
                header: $crate::control::ber::Header,
                from: &mut $crate::control::ber::BerReader<'_>,
            ) -> Result<Self, $crate::control::ber::BerError> {
                let mut value = Self::default();
                from.members(header, |id, member, from| {
                    match id {
                        $(Some($id) => {
                            value.$field = $crate::control::ber::BerValue::read(member, from)?;
                        })*
                        _ => from.skip(member)?,
                    }
                    Ok(())
                })?;
                Ok(value)
            }
        }
    };
}
pub(super) use sequence;

/// Declares an enumeration with its BER numbers and JSON names. With `otherwise`, numbers and names
/// of later releases are read as that enumerator; without, they are errors.
macro_rules! enumeration {
    (
        $(#[$doc:meta])*
        $name:ident $(otherwise $fallback:ident)? {
            $($(#[$variant_doc:meta])* $variant:ident = $number:literal, $text:literal;)*
        }
    ) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize,
            serde::Deserialize,
        )]
        #[serde(try_from = "std::borrow::Cow<str>")]
        pub enum $name {
            $($(#[$variant_doc])* #[serde(rename = $text)] $variant,)*
        }

        impl $name {
            /// The name in JSON and in BlazingMQ's logs.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            const ALL: &'static [(i32, Self)] = &[$(($number, Self::$variant),)*];

            const FALLBACK: Option<Self> = {
                let fallback: Option<Self> = None;
                $(let fallback = { let _ = fallback; Some(Self::$fallback) };)?
                fallback
            };

            fn number(self) -> i32 {
                match self { $(Self::$variant => $number,)* }
            }
        }

        impl Default for $name {
            fn default() -> Self {
                Self::ALL[0].1
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.name())
            }
        }

        impl TryFrom<std::borrow::Cow<'_, str>> for $name {
            type Error = $crate::control::json::UnknownEnumerator;

            fn try_from(name: std::borrow::Cow<'_, str>) -> Result<Self, Self::Error> {
                Self::ALL
                    .iter()
                    .map(|(_, value)| *value)
                    .find(|value| value.name() == name)
                    .or(Self::FALLBACK)
                    .ok_or_else(|| $crate::control::json::UnknownEnumerator::new(&name))
            }
        }

        impl $crate::control::ber::BerValue for $name {
            fn write(
                &self,
                tag: $crate::control::ber::Tag,
                out: &mut $crate::control::ber::BerWriter<'_>,
            ) {
                out.integer(tag, self.number().into());
            }

            fn read(
                header: $crate::control::ber::Header,
                from: &mut $crate::control::ber::BerReader<'_>,
            ) -> Result<Self, $crate::control::ber::BerError> {
                let offset = from.offset();
                let number = from.signed(header, 32)?;
                Self::ALL
                    .iter()
                    .find(|(known, _)| i64::from(*known) == number)
                    .map(|(_, value)| *value)
                    .or(Self::FALLBACK)
                    .ok_or($crate::control::ber::BerError {
                        offset,
                        fault: $crate::control::ber::BerFault::Enumerator,
                    })
            }
        }
    };
}
pub(super) use enumeration;

macro_rules! integer_value {
    ($($int:ty, $read:ident, $bits:literal;)*) => {$(
        impl BerValue for $int {
            fn write(&self, tag: Tag, out: &mut BerWriter<'_>) {
                out.integer(tag, i128::from(*self));
            }

            fn read(header: Header, from: &mut BerReader<'_>) -> Result<Self, BerError> {
                Ok(from.$read(header, $bits)? as Self)
            }
        }
    )*};
}
integer_value! {
    i32, signed, 32;
    i64, signed, 64;
    u32, unsigned, 32;
    u64, unsigned, 64;
}

impl BerValue for bool {
    fn write(&self, tag: Tag, out: &mut BerWriter<'_>) {
        out.octets(tag, &[u8::from(*self)]);
    }

    fn read(header: Header, from: &mut BerReader<'_>) -> Result<Self, BerError> {
        let offset = from.offset();
        match from.octets(header)? {
            [octet] => Ok(*octet != 0),
            _ => Err(BerError { offset, fault: BerFault::Width }),
        }
    }
}

impl BerValue for String {
    fn write(&self, tag: Tag, out: &mut BerWriter<'_>) {
        out.octets(tag, self.as_bytes());
    }

    /// Text that is not UTF-8 is read with replacement characters: a process name in another
    /// encoding is no reason to turn a client away.
    fn read(header: Header, from: &mut BerReader<'_>) -> Result<Self, BerError> {
        Ok(Self::from_utf8_lossy(from.octets(header)?).into_owned())
    }
}

impl BerValue for Bytes {
    fn write(&self, tag: Tag, out: &mut BerWriter<'_>) {
        out.octets(tag, self);
    }

    fn read(header: Header, from: &mut BerReader<'_>) -> Result<Self, BerError> {
        Ok(Self::copy_from_slice(from.octets(header)?))
    }
}

impl BerValue for QueueFlags {
    fn write(&self, tag: Tag, out: &mut BerWriter<'_>) {
        self.0.write(tag, out);
    }

    fn read(header: Header, from: &mut BerReader<'_>) -> Result<Self, BerError> {
        u64::read(header, from).map(Self)
    }
}

impl BerValue for RoutingFlags {
    fn write(&self, tag: Tag, out: &mut BerWriter<'_>) {
        self.0.write(tag, out);
    }

    fn read(header: Header, from: &mut BerReader<'_>) -> Result<Self, BerError> {
        u64::read(header, from).map(Self)
    }
}

impl<T: BerValue> BerValue for Option<T> {
    fn write(&self, tag: Tag, out: &mut BerWriter<'_>) {
        if let Some(value) = self {
            value.write(tag, out);
        }
    }

    fn read(header: Header, from: &mut BerReader<'_>) -> Result<Self, BerError> {
        T::read(header, from).map(Some)
    }
}

impl<T: BerValue> BerValue for Vec<T> {
    fn write(&self, tag: Tag, out: &mut BerWriter<'_>) {
        out.open(tag);
        for element in self {
            element.write(Tag::SEQUENCE, out);
        }
        out.close();
    }

    fn read(header: Header, from: &mut BerReader<'_>) -> Result<Self, BerError> {
        let mut list = Self::new();
        from.members(header, |_, member, from| {
            if list.len() == MAX_LIST_ELEMENTS {
                return Err(BerError { offset: from.offset(), fault: BerFault::TooManyElements });
            }
            list.push(T::read(member, from)?);
            Ok(())
        })?;
        Ok(list)
    }
}
