//! The bytes of what consensus sends: [`Packet`] to [`Frame`] and back.
//!
//! The rest of this crate carries frames without looking into them; this is the one place that
//! knows what nodes say to each other.
//!
//! ```
//! use flintmq_consensus::{NodeId, Packet, UnfitReasons};
//! use flintmq_transport::wire;
//!
//! let beat = Packet {
//!     from: NodeId(1),
//!     to: NodeId(2),
//!     from_incarnation: 7,
//!     to_incarnation: 4,
//!     number: 100,
//!     contact: 1,
//!     heard_contact: 1,
//!     hears_you: true,
//!     clocks: None,
//!     unfit: UnfitReasons::NONE,
//!     messages: Vec::new(),
//! };
//! let frame = wire::encode(&beat)?;
//! assert!(frame.len() < 32);
//! assert_eq!(wire::decode(&frame.to_bytes())?, beat);
//! # Ok::<(), wire::WireError>(())
//! ```
//!
//! # Layout
//!
//! | bytes | what |
//! | --- | --- |
//! | 1 | format, [`FORMAT`] |
//! | number | length of the head |
//! | head | the packet's fields, and those of each message, in order of their declaration |
//! | rest | all payloads, in the order in which the head tells their lengths |
//!
//! A *number* has seven bits a byte, the least significant first. Payloads stand apart so that they
//! are neither copied when a packet is encoded (they leave as pieces of the [`Frame`]) nor when it
//! is decoded (they are slices of what arrived, which stays in memory as long as one of them).
//!
//! What a packet says about clocks, and why its sender should not lead, is optional: flags tell
//! that it is there.
//!
//! A message says its sender and receiver only if they are not the packet's. An entry says its
//! place only if it does not follow the one before it.
//!
//! # Bounds
//!
//! No list is longer than [`limits`] say, nor than the bytes that are there; both sides check. What
//! does not decode is a [`WireError`]: drop the packet and count it. Nothing here panics.

mod body;
mod configuration;
mod entries;
mod error;
pub mod limits;
mod reader;
mod writer;

use bytes::Bytes;
use flintmq_consensus::{Clocks, CreationId, GroupId, Message, NodeId, Packet, UnfitReasons};

pub use error::WireError;

use crate::Frame;
use configuration::read_node;
use reader::Reader;
use writer::Writer;

/// The format of packets that this version writes, and the only one that it reads.
pub const FORMAT: u8 = 1;

const HEARS_YOU: u8 = 1;
/// The sender's wall clock follows.
const WALL_CLOCK: u8 = 2;
/// Behind it follows the replicated time, as the difference.
const CLUSTER_TIME: u8 = 4;
/// Then the reasons why the sender should not lead.
const UNFIT: u8 = 8;
const PACKET_FLAGS: u8 = HEARS_YOU | WALL_CLOCK | CLUSTER_TIME | UNFIT;
/// The message is between other nodes than the packet.
const OTHER_NODES: u8 = 1;

/// Turns a packet into bytes. Payloads become pieces of the frame, without a copy.
///
/// # Errors
/// [`WireError::TooMany`] when a list is longer than [`limits`] allow, which no packet of a
/// [`flintmq_consensus::NodeCore`] with sensible settings is.
pub fn encode(packet: &Packet) -> Result<Frame, WireError> {
    let Packet {
        from,
        to,
        from_incarnation,
        to_incarnation,
        number,
        contact,
        heard_contact,
        hears_you,
        clocks,
        unfit,
        messages,
    } = packet;
    let mut writer = Writer::default();
    writer.number(u64::from(from.0));
    writer.number(u64::from(to.0));
    writer.number(*from_incarnation);
    writer.number(*to_incarnation);
    writer.number(*number);
    writer.number(*contact);
    writer.number(*heard_contact);
    let mut flags = if *hears_you { HEARS_YOU } else { 0 };
    if let Some(clocks) = clocks {
        flags |= WALL_CLOCK | if clocks.cluster_ms.is_some() { CLUSTER_TIME } else { 0 };
    }
    if *unfit != UnfitReasons::NONE {
        flags |= UNFIT;
    }
    writer.byte(flags);
    if let Some(Clocks { wall_ms, cluster_ms }) = clocks {
        writer.number(*wall_ms);
        if let Some(cluster_ms) = cluster_ms {
            writer.difference(*wall_ms, *cluster_ms);
        }
    }
    if *unfit != UnfitReasons::NONE {
        writer.byte(unfit.0);
    }
    writer.length(messages.len(), "messages", limits::MAX_MESSAGES)?;
    for message in messages {
        encode_message(&mut writer, message, *from, *to)?;
    }
    Ok(writer.finish(FORMAT))
}

/// Turns bytes into the packet. Its payloads are slices of `bytes`.
///
/// # Errors
/// [`WireError`] when these bytes are no packet of this format. Nothing was kept.
pub fn decode(bytes: &Bytes) -> Result<Packet, WireError> {
    let mut reader = Reader::open(bytes, FORMAT)?;
    let from = read_node(&mut reader)?;
    let to = read_node(&mut reader)?;
    let from_incarnation = reader.number("incarnation")?;
    let to_incarnation = reader.number("incarnation")?;
    let number = reader.number("number of a packet")?;
    let contact = reader.number("contact")?;
    let heard_contact = reader.number("contact")?;
    let flags = read_flags(&mut reader, "flags of a packet", PACKET_FLAGS)?;
    let clocks = read_clocks(&mut reader, flags)?;
    let unfit = if flags & UNFIT == 0 { 0 } else { reader.byte("reasons")? };
    let length = reader.length("messages", limits::MAX_MESSAGES)?;
    let mut messages = Vec::with_capacity(length);
    for _ in 0..length {
        messages.push(decode_message(&mut reader, from, to)?);
    }
    reader.finish()?;
    Ok(Packet {
        from,
        to,
        from_incarnation,
        to_incarnation,
        number,
        contact,
        heard_contact,
        hears_you: flags & HEARS_YOU != 0,
        clocks,
        unfit: UnfitReasons(unfit),
        messages,
    })
}

/// Turns bytes that came on a connection of `sender` to `receiver` into the packet. A node proves
/// who it is when it connects; this makes sure that its packets do not claim otherwise.
///
/// # Errors
/// As [`decode`], and [`WireError::OtherNodes`].
pub fn decode_from(sender: NodeId, receiver: NodeId, bytes: &Bytes) -> Result<Packet, WireError> {
    let packet = decode(bytes)?;
    let between = |from, to| (from, to) == (sender, receiver);
    let pairs = packet.messages.iter().map(|message| (message.from, message.to));
    let mut foreign =
        std::iter::once((packet.from, packet.to)).chain(pairs).filter(|(f, t)| !between(*f, *t));
    match foreign.next() {
        Some((from, to)) => Err(WireError::OtherNodes { sender, from, to }),
        None => Ok(packet),
    }
}

fn encode_message(
    writer: &mut Writer,
    message: &Message,
    packet_from: NodeId,
    packet_to: NodeId,
) -> Result<(), WireError> {
    let Message { group, creation, from, to, term, body } = message;
    let is_other = *from != packet_from || *to != packet_to;
    writer.byte(if is_other { OTHER_NODES } else { 0 });
    if is_other {
        writer.number(u64::from(from.0));
        writer.number(u64::from(to.0));
    }
    writer.number(u64::from(group.0));
    writer.fixed64(creation.0);
    writer.number(*term);
    body::write(writer, body)
}

fn decode_message(
    reader: &mut Reader<'_>,
    packet_from: NodeId,
    packet_to: NodeId,
) -> Result<Message, WireError> {
    let (mut from, mut to) = (packet_from, packet_to);
    if read_flags(reader, "flags of a message", OTHER_NODES)? != 0 {
        from = read_node(reader)?;
        to = read_node(reader)?;
    }
    let group = GroupId(reader.number32("group")?);
    let creation = CreationId(reader.fixed64("creation")?);
    let term = reader.number("term")?;
    Ok(Message { group, creation, from, to, term, body: body::read(reader)? })
}

fn read_clocks(reader: &mut Reader<'_>, flags: u8) -> Result<Option<Clocks>, WireError> {
    if flags & WALL_CLOCK == 0 {
        return match flags & CLUSTER_TIME {
            0 => Ok(None),
            _ => Err(WireError::Unknown { what: "flags of a packet", value: flags.into() }),
        };
    }
    let wall_ms = reader.number("wall clock")?;
    let says_more = flags & CLUSTER_TIME != 0;
    let cluster_ms =
        says_more.then(|| reader.difference(wall_ms, "replicated time")).transpose()?;
    Ok(Some(Clocks { wall_ms, cluster_ms }))
}

fn read_flags(reader: &mut Reader<'_>, what: &'static str, known: u8) -> Result<u8, WireError> {
    let flags = reader.byte(what)?;
    if flags & !known == 0 {
        Ok(flags)
    } else {
        Err(WireError::Unknown { what, value: flags.into() })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
