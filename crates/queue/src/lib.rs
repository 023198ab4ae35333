//! The queues of a partition: a deterministic state machine, and the delivery engine of its leader.
//!
//! A [`Partition`] holds many queues that share one replicated log. This crate does no I/O and
//! knows no clock, thread or randomness: the host brings log entries, clients' wishes and the time,
//! and takes away what to send, to propose, to read and to store. It also knows nothing of
//! consensus: to it a log is a row of entries with ascending indexes.
//!
//! # The way of a message
//!
//! 1. A producer's message passes [`Partition::admit`] and joins an [`EntryBuilder`] with whatever
//!    else waits. The host proposes the built entry.
//! 2. When the entry is committed, every replica gives it to [`Partition::apply`]. The [`Outcome`]s
//!    say what to acknowledge; they are the same everywhere. The state keeps *where* a message is,
//!    never the message.
//! 3. On the leader [`Partition::deliver`] hands out messages to consumers that have room. The
//!    bytes come from the entry just applied, or from entries that the host reads on request.
//! 4. A consumer's confirm becomes a [`ConfirmItem`], goes into the log like everything else, and
//!    is true when it is applied. An entry whose last message left is reported dead by the next
//!    [`Checkpoint`].
//!
//! ```
//! use bytes::Bytes;
//! use flintmq_queue::*;
//!
//! let queue = QueueId(1);
//! let orders = Domain {
//!     id: DomainId(1),
//!     version: DomainVersion { term: 1, index: 1 },
//!     settings: DomainSettings::priority(),
//! };
//! let mut partition = Partition::default();
//! let mut builder = EntryBuilder::default();
//! let mut applied = Applied::default();
//! partition.lead();
//!
//! // Create a queue and publish to it; here the log is just a number.
//! builder.create_queue(queue, "bmq://orders/new", QueueDomain::Carried(&orders));
//! builder.publish(queue, Message {
//!     guid: Guid([7; 16]),
//!     attributes: Attributes::default(),
//!     app_data: Bytes::from_static(b"one order"),
//! })?;
//! partition.apply(1, &builder.finish(1_700_000_000_000).payload, &mut applied)?;
//! assert_eq!(applied.outcomes, [Outcome::Stored { position: 0 }]);
//!
//! // A consumer comes.
//! let consumer = HandleId(1);
//! partition.open(consumer, queue, Roles { reader: true, writer: false }, None)?;
//! partition.configure(consumer, vec![Subscription {
//!     id: 1, priority: 0, count: 1, max_messages: 1000, max_bytes: 32 << 20, filter: Filter::All,
//! }])?;
//!
//! // The entry was applied before anybody wanted it, so it must be read again.
//! let mut out = Deliveries::default();
//! partition.deliver(1 << 20, &mut out);
//! assert_eq!(out.loads, [1]);
//! # let mut again = EntryBuilder::default();
//! # again.create_queue(queue, "bmq://orders/new", QueueDomain::Carried(&orders));
//! # again.publish(queue, Message {
//! #     guid: Guid([7; 16]),
//! #     attributes: Attributes::default(),
//! #     app_data: Bytes::from_static(b"one order"),
//! # })?;
//! # let entry_1 = again.finish(1_700_000_000_000).payload;
//! partition.loaded(1, &entry_1)?;
//! partition.deliver(1 << 20, &mut out);
//! assert_eq!(&out.messages[0].app_data[..], b"one order");
//!
//! // Its confirm goes through the log.
//! let item = partition.confirm(consumer, out.messages[0].guid).ok_or("held")?;
//! builder.confirm(item);
//! partition.apply(2, &builder.finish(1_700_000_000_005).payload, &mut applied)?;
//! assert_eq!(partition.view(queue).ok_or("exists")?.messages, 0);
//! assert_eq!(partition.take_checkpoint().dead_entries, [1, 2]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What is promised
//!
//! - Replicas that applied the same entries have the same [`records`](Partition::records), whatever
//!   checkpoints and restarts lay between.
//! - An acknowledged message stays until every app has confirmed it, or it expires, is purged, or
//!   has exhausted its delivery attempts; each of the last three is reported as an [`Effect`].
//! - Under one leader a message is with at most one consumer of an app at a time.
//! - Memory depends on extents, runs of unconfirmed positions and the history, not on payloads
//!   (`docs/internals/queue.md` has the figures); delivery keeps a bounded window.
//! - No bytes from a client, a log or a disk make it panic.
//!
//! Broadcast queues and subscription expressions are not there yet: creating the first is refused,
//! and [`Filter`] has one variant.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod checkpoint;
mod codec;
mod delivery;
mod entry;
mod extents;
mod history;
mod ids;
mod message;
mod outcome;
mod partition;
mod positions;
mod settings;
mod state;
mod views;

#[cfg(test)]
mod tests;

pub use checkpoint::Checkpoint;
pub use codec::Malformed;
pub use delivery::{
    Deliveries, Delivery, EntryMismatch, Filter, MAX_UNCONFIRMED, OpenError, Roles, Subscription,
    UnknownHandle,
};
pub use entry::{
    AttemptItem, Built, ConfirmItem, EntryBuilder, ExpireItem, MessageTooLarge, QueueDomain,
};
pub use ids::{AppKey, DomainId, Guid, HandleId, Index, Position, QueueId};
pub use message::{Attributes, MAX_APP_DATA_BYTES, Message};
pub use outcome::{Admission, Applied, ApplyError, CreateRefusal, Effect, Outcome};
pub use partition::Partition;
pub use settings::{Consistency, Domain, DomainSettings, DomainVersion, Limits, Mode};
pub use views::{AppView, Location, QueueView};
