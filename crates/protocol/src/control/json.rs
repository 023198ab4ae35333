//! Control messages in JSON: one object without white space, members named after the schema's
//! elements, the selection of a choice as a member beside `rId`.

use std::io;

use bytes::{BufMut, BytesMut};
use serde::de::DeserializeOwned;
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::{Map, Value};
use thiserror::Error;

use super::negotiation::{AuthenticationMessage, NegotiationMessage};
use super::requests::{ControlChoice, ControlMessage, MAX_LIST_ELEMENTS};

/// Nesting allowed in a control message; the schema needs ten levels.
const MAX_DEPTH: usize = 16;

/// Why a JSON body cannot be read.
#[derive(Debug, Error)]
pub(super) enum JsonFault {
    #[error(transparent)]
    Syntax(#[from] serde_json::Error),
    #[error("values are nested too deeply")]
    Depth,
    #[error("a list has too many elements")]
    TooManyElements,
    #[error("the message is not an object")]
    NotAnObject,
    #[error("the choice needs exactly one selection")]
    Choice,
    #[error("the selection is not known: {selection}")]
    Unsupported { r_id: Option<i32>, selection: String },
}

/// An enumerator's name that the enumeration does not have.
#[derive(Debug, Error)]
#[error("unknown enumerator: name={name:?}")]
pub struct UnknownEnumerator {
    name: String,
}

impl UnknownEnumerator {
    pub(super) fn new(name: &str) -> Self {
        Self { name: name.chars().take(64).collect() }
    }
}

/// A root message.
pub(super) trait JsonRoot: Sized {
    fn write_json(&self, out: &mut BytesMut) -> Result<(), serde_json::Error>;
    fn read_json(text: &[u8]) -> Result<Self, JsonFault>;
}

/// Derives [`Members`] and the reading of a choice from its selections' names; `with` marks those
/// that have content.
macro_rules! json_choice {
    ($name:ident { $($selection:literal $variant:ident $(($has_content:tt))?,)* }) => {
        impl Members for $name {
            fn serialize_members<S: SerializeMap>(&self, map: &mut S) -> Result<(), S::Error> {
                match self {
                    $(json_choice!(@pattern $variant content $($has_content)?) => {
                        let content = json_choice!(@content content $($has_content)?);
                        map.serialize_entry(self.name(), content)
                    })*
                }
            }
        }

        impl $name {
            /// What this is called in JSON; good for logs and metrics too.
            #[must_use]
            pub const fn name(&self) -> &'static str {
                match self {
                    $(json_choice!(@ignore $variant $($has_content)?) => $selection,)*
                }
            }

            fn from_object(
                r_id: Option<i32>,
                mut object: Map<String, Value>,
            ) -> Result<Self, JsonFault> {
                let mut found = None;
                $(if let Some(content) = object.remove($selection) {
                    if found.is_some() {
                        return Err(JsonFault::Choice);
                    }
                    found = Some(json_choice!(@read $variant content $($has_content)?));
                })*
                match (found, object.into_iter().next()) {
                    (Some(found), _) => Ok(found),
                    (None, Some((selection, _))) => {
                        let selection = selection.chars().take(64).collect();
                        Err(JsonFault::Unsupported { r_id, selection })
                    }
                    (None, None) => Err(JsonFault::Choice),
                }
            }
        }
    };
    (@pattern $variant:ident $content:ident with) => { Self::$variant($content) };
    (@pattern $variant:ident $content:ident) => { Self::$variant };
    (@ignore $variant:ident with) => { Self::$variant(_) };
    (@ignore $variant:ident) => { Self::$variant };
    (@content $content:ident with) => { $content };
    (@content $content:ident) => { &Map::new() };
    (@read $variant:ident $content:ident with) => { Self::$variant(member($content)?) };
    (@read $variant:ident $content:ident) => {{ let _ = $content; Self::$variant }};
}

json_choice!(NegotiationMessage {
    "clientIdentity" ClientIdentity(with),
    "brokerResponse" BrokerResponse(with),
    "placeHolder" PlaceHolder,
});
json_choice!(AuthenticationMessage {
    "authenticationRequest" AuthenticationRequest(with),
    "authenticationResponse" AuthenticationResponse(with),
});
json_choice!(ControlChoice {
    "status" Status(with),
    "disconnect" Disconnect,
    "disconnectResponse" DisconnectResponse,
    "adminCommand" AdminCommand(with),
    "adminCommandResponse" AdminCommandResponse(with),
    "openQueue" OpenQueue(with),
    "openQueueResponse" OpenQueueResponse(with),
    "closeQueue" CloseQueue(with),
    "closeQueueResponse" CloseQueueResponse,
    "configureQueueStream" ConfigureQueueStream(with),
    "configureQueueStreamResponse" ConfigureQueueStreamResponse(with),
    "configureStream" ConfigureStream(with),
    "configureStreamResponse" ConfigureStreamResponse(with),
});

impl JsonRoot for NegotiationMessage {
    fn write_json(&self, out: &mut BytesMut) -> Result<(), serde_json::Error> {
        write_object(self, out)
    }

    fn read_json(text: &[u8]) -> Result<Self, JsonFault> {
        Self::from_object(None, read_object(text)?)
    }
}

impl JsonRoot for AuthenticationMessage {
    fn write_json(&self, out: &mut BytesMut) -> Result<(), serde_json::Error> {
        write_object(self, out)
    }

    fn read_json(text: &[u8]) -> Result<Self, JsonFault> {
        Self::from_object(None, read_object(text)?)
    }
}

impl JsonRoot for ControlMessage {
    fn write_json(&self, out: &mut BytesMut) -> Result<(), serde_json::Error> {
        write_object(self, out)
    }

    fn read_json(text: &[u8]) -> Result<Self, JsonFault> {
        let mut object = read_object(text)?;
        let r_id = object.remove("rId").map(member::<i32>).transpose()?;
        Ok(Self { r_id, choice: ControlChoice::from_object(r_id, object)? })
    }
}

impl Members for ControlMessage {
    fn serialize_members<S: SerializeMap>(&self, map: &mut S) -> Result<(), S::Error> {
        if let Some(r_id) = self.r_id {
            map.serialize_entry("rId", &r_id)?;
        }
        self.choice.serialize_members(map)
    }
}

/// Octets as base64 text.
pub(super) mod base64_bytes {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use bytes::Bytes;
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

    pub(in crate::control) fn serialize<S: Serializer>(
        octets: &Option<Bytes>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        octets.as_ref().map(|octets| STANDARD.encode(octets)).serialize(to)
    }

    pub(in crate::control) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Bytes>, D::Error> {
        let text = Option::<String>::deserialize(from)?;
        text.map(|text| STANDARD.decode(text).map(Bytes::from))
            .transpose()
            .map_err(|_| de::Error::custom("octets are not valid base64"))
    }
}

/// The root object, with every `null` member removed so that it counts as missing.
fn read_object(text: &[u8]) -> Result<Map<String, Value>, JsonFault> {
    let mut value: Value = serde_json::from_slice(text)?;
    drop_nulls(&mut value, 0)?;
    match value {
        Value::Object(object) => Ok(object),
        _ => Err(JsonFault::NotAnObject),
    }
}

fn drop_nulls(value: &mut Value, depth: usize) -> Result<(), JsonFault> {
    if depth > MAX_DEPTH {
        return Err(JsonFault::Depth);
    }
    match value {
        Value::Object(members) => {
            members.retain(|_, member| !member.is_null());
            members.values_mut().try_for_each(|member| drop_nulls(member, depth + 1))
        }
        Value::Array(elements) if elements.len() > MAX_LIST_ELEMENTS => {
            Err(JsonFault::TooManyElements)
        }
        Value::Array(elements) => {
            elements.iter_mut().try_for_each(|element| drop_nulls(element, depth + 1))
        }
        _ => Ok(()),
    }
}

fn member<T: DeserializeOwned>(value: Value) -> Result<T, serde_json::Error> {
    serde_json::from_value(value)
}

/// Writes a root message as an object.
fn write_object<T: Members>(message: &T, out: &mut BytesMut) -> Result<(), serde_json::Error> {
    let mut to = serde_json::Serializer::with_formatter(out.writer(), EscapedSolidus);
    Object(message).serialize(&mut to)
}

/// A root message: something with members of its own.
trait Members {
    fn serialize_members<S: SerializeMap>(&self, map: &mut S) -> Result<(), S::Error>;
}

struct Object<'a, T>(&'a T);

impl<T: Members> Serialize for Object<'_, T> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(None)?;
        self.0.serialize_members(&mut map)?;
        map.end()
    }
}

/// Compact JSON with `\/` for `/`, as the reference broker and the Java client write it.
#[derive(Debug, Clone)]
struct EscapedSolidus;

impl serde_json::ser::Formatter for EscapedSolidus {
    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        for (i, piece) in fragment.split('/').enumerate() {
            if i > 0 {
                writer.write_all(b"\\/")?;
            }
            writer.write_all(piece.as_bytes())?;
        }
        Ok(())
    }
}
