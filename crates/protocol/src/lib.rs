//! The BlazingMQ client protocol, both sides of it: bytes in, typed events out, and back.
//!
//! This crate does no I/O and knows no clock, thread or randomness; brokers and clients bring
//! those. Nothing that a peer sends makes it panic, recurse without bound or allocate by a claimed
//! length.
//!
//! # From bytes to messages
//!
//! 1. [`frame::FrameDecoder`] cuts the byte stream into [`event::Frame`]s;
//! 2. [`event::Frame::parse`] checks the header and gives an [`event::Event`] with a type and a
//!    body;
//! 3. the module of that type reads the body: [`control`] for negotiation, requests and
//!    credentials, [`put`], [`push`], [`ack`], [`confirm`] for the messages themselves. Payloads
//!    are slices of the received buffer.
//!
//! ```
//! use bytes::BytesMut;
//! use flintmq_protocol::event::{EventType, HEARTBEAT_REQUEST, HEARTBEAT_RESPONSE};
//! use flintmq_protocol::frame::FrameDecoder;
//! use flintmq_protocol::put::{PutError, PutMessages};
//!
//! /// What a broker does with the bytes that it has received after negotiation.
//! fn receive(
//!     decoder: &mut FrameDecoder,
//!     received: &mut BytesMut,
//!     answers: &mut BytesMut,
//! ) -> Result<usize, Box<dyn std::error::Error>> {
//!     let mut published = 0;
//!     while let Some(frame) = decoder.decode(received)? {
//!         let event = frame.parse()?;
//!         match event.event_type() {
//!             EventType::HeartbeatRequest => answers.extend_from_slice(&HEARTBEAT_RESPONSE),
//!             EventType::Put => {
//!                 for message in PutMessages::new(&event.body) {
//!                     match message {
//!                         Ok(_message) => published += 1,
//!                         Err(PutError::Message(_bad)) => { /* negative ACK, go on */ }
//!                         Err(PutError::Event(malformed)) => return Err(malformed.into()),
//!                     }
//!                 }
//!             }
//!             _ => { /* CONTROL, CONFIRM … */ }
//!         }
//!     }
//!     Ok(published)
//! }
//!
//! let mut answers = BytesMut::new();
//! let mut received = BytesMut::from(&HEARTBEAT_REQUEST[..]);
//! receive(&mut FrameDecoder::new(64 << 20), &mut received, &mut answers)?;
//! assert_eq!(answers[..], HEARTBEAT_RESPONSE);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # From messages to bytes
//!
//! Control messages append themselves as whole events:
//! [`ControlMessage::append_event`](control::ControlMessage::append_event). [`put::PutBuilder`],
//! [`push::PushBuilder`], [`ack::AckBuilder`] and [`confirm::ConfirmBuilder`] pack many messages
//! into events of a bounded size. All of them write into one [`bytes::BytesMut`], which holds whole
//! events after every call, so that it can be handed to the socket at any time.
//!
//! # Inside a message
//!
//! [`app_data`] separates properties from payload and knows what is compressed; [`properties`]
//! reads and writes the properties; [`options`] says which subscription a PUSH is for; [`guid`] and
//! [`uri`] name messages and queues.
//!
//! # Errors
//!
//! Three levels, by how much is lost: a [`frame::FrameError`] ends the connection; an
//! [`event::EventError`], [`control::ControlError`] or [`malformed::MalformedEvent`] loses one
//! event (a broker closes nevertheless, because the client then sends again what was not
//! acknowledged); a [`put::BadPut`] loses one message, which gets a negative ACK.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod ack;
pub mod app_data;
pub mod compression;
pub mod confirm;
pub mod control;
pub mod crc;
mod entries;
pub mod event;
pub mod features;
pub mod flags;
pub mod frame;
pub mod guid;
pub mod malformed;
pub mod options;
pub mod padding;
pub mod properties;
pub mod push;
pub mod put;
pub mod uri;
