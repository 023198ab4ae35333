//! The three root messages in BER.
//!
//! Negotiation and authentication are ordinary choices: inside the root there is one wrapper,
//! context 0, and inside that the selection. A control message is a sequence whose second member is
//! an untagged choice: the selection stands directly inside it.

use bytes::BytesMut;

use super::{BerError, BerFault, BerReader, BerValue, BerWriter, Header, Tag};
use crate::control::negotiation::{AuthenticationMessage, NegotiationMessage};
use crate::control::requests::{ControlChoice, ControlMessage};

/// What a root's bytes turned out to be.
#[derive(Debug)]
pub(in crate::control) enum Found<T> {
    /// A message.
    Known(T),
    /// A selection that this release does not know.
    Unsupported {
        /// The request's id, if there is one.
        r_id: Option<i32>,
        /// The selection's element id.
        selection: u32,
    },
}

/// A root message.
pub(in crate::control) trait BerRoot: Sized {
    fn write_ber(&self, out: &mut BytesMut);
    fn read_ber(bytes: &[u8]) -> Result<Found<Self>, BerError>;
}

impl BerRoot for NegotiationMessage {
    fn write_ber(&self, out: &mut BytesMut) {
        write_choice(out, |out| match self {
            Self::ClientIdentity(identity) => identity.write(Tag::member(0), out),
            Self::BrokerResponse(response) => response.write(Tag::member(1), out),
            Self::PlaceHolder => out.empty(Tag::member(2)),
        });
    }

    fn read_ber(bytes: &[u8]) -> Result<Found<Self>, BerError> {
        read_choice(bytes, |id, header, from| {
            Ok(Some(match id {
                0 => Self::ClientIdentity(BerValue::read(header, from)?),
                1 => Self::BrokerResponse(BerValue::read(header, from)?),
                2 => skipped(header, from, Self::PlaceHolder)?,
                _ => return Ok(None),
            }))
        })
    }
}

impl BerRoot for AuthenticationMessage {
    fn write_ber(&self, out: &mut BytesMut) {
        write_choice(out, |out| match self {
            Self::AuthenticationRequest(request) => request.write(Tag::member(0), out),
            Self::AuthenticationResponse(response) => response.write(Tag::member(1), out),
        });
    }

    fn read_ber(bytes: &[u8]) -> Result<Found<Self>, BerError> {
        read_choice(bytes, |id, header, from| {
            Ok(Some(match id {
                0 => Self::AuthenticationRequest(BerValue::read(header, from)?),
                1 => Self::AuthenticationResponse(BerValue::read(header, from)?),
                _ => return Ok(None),
            }))
        })
    }
}

impl BerRoot for ControlMessage {
    fn write_ber(&self, out: &mut BytesMut) {
        let mut writer = BerWriter::new(out);
        writer.open(Tag::SEQUENCE);
        self.r_id.write(Tag::member(0), &mut writer);
        writer.open(Tag::member(1));
        self.choice.write(&mut writer);
        writer.close();
        writer.close();
    }

    fn read_ber(bytes: &[u8]) -> Result<Found<Self>, BerError> {
        let mut from = BerReader::new(bytes);
        let root = from.root()?;
        let mut r_id = None;
        let mut selections = Selections::default();
        from.members(root, |id, member, from| match id {
            Some(0) => {
                r_id = Some(i32::read(member, from)?);
                Ok(())
            }
            Some(1) => selections.read(member, from, ControlChoice::read),
            _ => from.skip(member),
        })?;
        match selections {
            Selections { known: Some(choice), unknown: None } => {
                Ok(Found::Known(Self { r_id, choice }))
            }
            Selections { known: None, unknown: Some(selection) } => {
                Ok(Found::Unsupported { r_id, selection })
            }
            _ => Err(from.fail(BerFault::Choice)),
        }
    }
}

impl ControlChoice {
    fn write(&self, out: &mut BerWriter<'_>) {
        match self {
            Self::Status(status) => status.write(Tag::member(0), out),
            Self::Disconnect => out.empty(Tag::member(1)),
            Self::DisconnectResponse => out.empty(Tag::member(2)),
            Self::AdminCommand(command) => command.write(Tag::member(7), out),
            Self::AdminCommandResponse(response) => response.write(Tag::member(8), out),
            Self::OpenQueue(open) => open.write(Tag::member(10), out),
            Self::OpenQueueResponse(response) => response.write(Tag::member(11), out),
            Self::CloseQueue(close) => close.write(Tag::member(12), out),
            Self::CloseQueueResponse => out.empty(Tag::member(13)),
            Self::ConfigureQueueStream(configure) => configure.write(Tag::member(14), out),
            Self::ConfigureQueueStreamResponse(response) => response.write(Tag::member(15), out),
            Self::ConfigureStream(configure) => configure.write(Tag::member(16), out),
            Self::ConfigureStreamResponse(response) => response.write(Tag::member(17), out),
        }
    }

    fn read(id: u32, header: Header, from: &mut BerReader<'_>) -> Result<Option<Self>, BerError> {
        Ok(Some(match id {
            0 => Self::Status(BerValue::read(header, from)?),
            1 => skipped(header, from, Self::Disconnect)?,
            2 => skipped(header, from, Self::DisconnectResponse)?,
            7 => Self::AdminCommand(BerValue::read(header, from)?),
            8 => Self::AdminCommandResponse(BerValue::read(header, from)?),
            10 => Self::OpenQueue(BerValue::read(header, from)?),
            11 => Self::OpenQueueResponse(BerValue::read(header, from)?),
            12 => Self::CloseQueue(BerValue::read(header, from)?),
            13 => skipped(header, from, Self::CloseQueueResponse)?,
            14 => Self::ConfigureQueueStream(BerValue::read(header, from)?),
            15 => Self::ConfigureQueueStreamResponse(BerValue::read(header, from)?),
            16 => Self::ConfigureStream(BerValue::read(header, from)?),
            17 => Self::ConfigureStreamResponse(BerValue::read(header, from)?),
            _ => return Ok(None),
        }))
    }
}

/// The selections found in a choice: exactly one belongs there.
struct Selections<T> {
    known: Option<T>,
    unknown: Option<u32>,
}

impl<T> Default for Selections<T> {
    fn default() -> Self {
        Self { known: None, unknown: None }
    }
}

impl<T> Selections<T> {
    fn read(
        &mut self,
        choice: Header,
        from: &mut BerReader<'_>,
        read: impl Fn(u32, Header, &mut BerReader<'_>) -> Result<Option<T>, BerError>,
    ) -> Result<(), BerError> {
        from.members(choice, |id, selection, from| {
            let Some(id) = id else { return from.skip(selection) };
            if self.known.is_some() || self.unknown.is_some() {
                return Err(from.fail(BerFault::Choice));
            }
            self.known = read(id, selection, from)?;
            if self.known.is_none() {
                self.unknown = Some(id);
                from.skip(selection)?;
            }
            Ok(())
        })
    }
}

fn write_choice(out: &mut BytesMut, selection: impl FnOnce(&mut BerWriter<'_>)) {
    let mut writer = BerWriter::new(out);
    writer.open(Tag::SEQUENCE);
    writer.open(Tag::member(0));
    selection(&mut writer);
    writer.close();
    writer.close();
}

fn read_choice<T>(
    bytes: &[u8],
    read: impl Fn(u32, Header, &mut BerReader<'_>) -> Result<Option<T>, BerError>,
) -> Result<Found<T>, BerError> {
    let mut from = BerReader::new(bytes);
    let root = from.root()?;
    let mut selections = Selections::default();
    from.members(root, |id, wrapper, from| match id {
        Some(0) => selections.read(wrapper, from, &read),
        _ => from.skip(wrapper),
    })?;
    match selections {
        Selections { known: Some(message), unknown: None } => Ok(Found::Known(message)),
        Selections { known: None, unknown: Some(selection) } => {
            Ok(Found::Unsupported { r_id: None, selection })
        }
        _ => Err(from.fail(BerFault::Choice)),
    }
}

/// Passes over the content of a selection that has none in this release.
fn skipped<T>(header: Header, from: &mut BerReader<'_>, value: T) -> Result<T, BerError> {
    from.skip(header)?;
    Ok(value)
}
