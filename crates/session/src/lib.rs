//! What one client's session does, from its first byte to its last: negotiation, requests,
//! messages, heartbeats, farewell. No I/O, no clock, no thread, no randomness.
//!
//! A [`Session`] takes the client's bytes and the answers of the controller and of partitions
//! ([`Input`]), and says what is to be done ([`Effect`]): bytes for the client, requests for
//! partitions, questions. Its host owns the socket and the clock: a broker, or a simulator that has
//! neither.
//!
//! ```
//! use std::sync::Arc;
//! use std::time::Duration;
//!
//! use bytes::BytesMut;
//! use flintmq_consensus::Time;
//! use flintmq_partition::SessionId;
//! use flintmq_protocol::control::{ClientIdentity, ClientType, Encoding, NegotiationMessage};
//! use flintmq_session::{BrokerIdentity, Effect, Input, Session, SessionSettings};
//!
//! let settings = SessionSettings {
//!     broker: BrokerIdentity { cluster: "dev".into(), node: 1, ..BrokerIdentity::default() },
//!     max_event_bytes: 64 << 20,
//!     negotiation_timeout: Duration::from_secs(10),
//!     heartbeat_interval: Duration::from_secs(3),
//!     idle_timeout: Duration::from_secs(30),
//! };
//! let now = Time::from_millis(1);
//! let mut session = Session::new(now, SessionId(1), 42, Arc::new(settings));
//!
//! // A client says who it is.
//! let identity = ClientIdentity { client_type: ClientType::TcpClient, ..Default::default() };
//! let hello = NegotiationMessage::ClientIdentity(identity);
//! hello.append_event(Encoding::Ber, session.received())?;
//! session.step(now, Input::Received);
//!
//! // The session is established, and answers.
//! let Some(Effect::Established(client)) = session.next_effect() else { panic!("refused") };
//! assert_eq!(client.encoding, Encoding::Ber);
//! let Some(Effect::Send(_answer)) = session.next_effect() else { panic!("no answer") };
//! assert!(session.next_effect().is_none());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # The way of bytes, by file
//!
//! | what | file |
//! | --- | --- |
//! | stages: negotiating, established, ending, over; bytes are cut into events | `session` |
//! | who the client is, and its credentials | `negotiation` |
//! | events are sorted; what they bring leaves at the end of the step | `established` |
//! | PUTs are checked and collected by partition; GUIDs for clients that make none | `publish`, `guid_source` |
//! | CONFIRMs are collected by partition | `confirm` |
//! | open, configure, close, disconnect | `control` |
//! | an open: its checks, its place, a handle for each role | `open_plan`, `opens` |
//! | the client's names for what it has open | `handles` |
//! | clients that have vanished | `silence` |
//!
//! ACKs and PUSHes do not pass a session: partitions encode them, because they are the only ones to
//! know the order between messages and the answers to configures and closes, and give them to the
//! session's way out at once.
//!
//! # How to host a session
//!
//! One round:
//!
//! 1. Wait for bytes, an answer, [`Session::deadline`], or the end of the connection. Read only if
//!    [`Session::reads`], and as long as the client takes what it is sent and less than a limit of
//!    it is unanswered (below). Bytes go behind what is in [`Session::received`].
//! 2. [`Session::step`] with what came.
//! 3. Carry out each [`Session::next_effect`], in order and each before the next one.
//!
//! | effect | what a host does | answer |
//! | --- | --- | --- |
//! | [`Established`](Effect::Established) | enters the session where effects of partitions find it | |
//! | [`Send`](Effect::Send) | writes the bytes, behind all that was written before | |
//! | [`ToPartition`](Effect::ToPartition) | waits until the partition takes the request; counts its bytes as unanswered | |
//! | [`Place`](Effect::Place) | [checks](PlaceQueue::check) it, looks the queue up in the metadata, else has the controller assign it; beside the round | [`Placed`](Input::Placed) |
//! | [`Open`](Effect::Open) | makes the [request](OpenInPartition::request) with a ticket and a new handle, hands it to the partition; beside the round | [`Opened`](Input::Opened) |
//! | [`HandlesChanged`](Effect::HandlesChanged) | shows it to administrators | |
//! | [`EndInPartitions`](Effect::EndInPartitions) | sends `Request::SessionEnded` to every partition of the node and waits for all answers | [`Ended`](Input::Ended) |
//! | [`Close`](Effect::Close) | writes what is left and the last events; leaves the close of the connection to a client that [disconnected](End::Disconnected), else closes it | |
//!
//! What partitions have for the session comes as `flintmq_partition::Effect`: the bytes of a `Send`
//! go to the client directly, a `Refuse` as [`Refusal::encode`] writes it, `EndSession` becomes
//! [`Input::Lost`].
//!
//! Without sockets it is the same. A simulator keeps one `Session` for each connection and two
//! queues of bytes. The bytes of the client's queue go to [`received`](Session::received) in pieces
//! of any size; each partition's queue of requests is the shard's. Where the shard does not take
//! requests of a partition, the simulator keeps the effects that are left and reads nothing until
//! it does. Handles count from `(node << 40) + 1`, tickets and session numbers from 1, in each
//! process of a node; `boot` is drawn from the seed for each process. A process that ends takes its
//! sessions with it, without a step.
//!
//! ## What must be waited for
//!
//! A host stops reading from a client
//!
//! - while the client leaves too much untaken of what it is sent ([`Input::Tick`] says so);
//! - while too many bytes of its PUTs are unanswered: `unanswered` of [`Effect::ToPartition`] is
//!   added, `answered` of the partition's `Send` subtracted;
//! - while a partition does not take its request;
//! - while [`Session::reads`] is false: 256 opens are under way, or the session ends.
//!
//! So what a session holds is bounded: one event and one read of bytes, 256 opens, and what the
//! client has open.
//!
//! # What it promises
//!
//! - Requests go to a partition in the order in which the client sent them; what was published
//!   before a configure or a close goes ahead of it.
//! - Every request is answered once, by the session or by the partition that it was handed to.
//! - Nothing follows the answer to a disconnect, and it follows all that came before.
//! - What cannot be read ends the session, after everything before it was carried out: the client
//!   sends again what was not answered.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod confirm;
mod control;
mod effect;
mod established;
mod guid_source;
mod handles;
mod input;
mod negotiation;
mod open_plan;
mod opens;
mod publish;
mod refusal;
mod session;
mod settings;
mod silence;
#[cfg(test)]
mod tests;

pub use effect::{Client, Effect, End, OpenInPartition, PlaceQueue};
pub use input::{Input, OpenId, Placed};
pub use refusal::Refusal;
pub use session::Session;
pub use settings::{BrokerIdentity, SessionSettings};
