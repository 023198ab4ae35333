//! An asynchronous client for FlintMQ and BlazingMQ brokers.
//!
//! A [`Session`] is one connection that keeps itself alive. Over it, a [`Producer`] publishes to a
//! queue and a [`Consumer`] gets messages from one. All calls are asynchronous on tokio.
//!
//! ```no_run
//! use flintmq_client::{ConsumerOptions, ProducerOptions, Session, SessionOptions};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let session = Session::connect(SessionOptions::new(["tcp://127.0.0.1:30114".parse()?])).await?;
//!
//! // Publish, and wait until the broker has stored the message.
//! let producer = session.producer("bmq://orders/new", ProducerOptions::default()).await?;
//! let acked = producer.publish("order 4711").await?;
//! println!("stored as {}", acked.guid);
//!
//! // Get messages, and confirm each when it is done with.
//! let mut consumer = session.consumer("bmq://orders/new", ConsumerOptions::default()).await?;
//! while let Some(message) = consumer.recv().await? {
//!     println!("{:?} {:?}", message.payload()?, message.properties()?);
//!     message.confirm()?;
//! }
//! session.disconnect().await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Publishing many messages
//!
//! [`Producer::publish`] waits for one acknowledgement. To keep many messages on their way, take
//! the [`AckFuture`] of each from [`Producer::enqueue`] and await it later: `enqueue` waits only
//! while the in-flight limits of [`ProducerOptions`] are used up, and everything enqueued while the
//! socket is busy leaves in one event and one write. No timer is involved: a single message leaves
//! at once.
//!
//! # What is promised
//!
//! * A message whose acknowledgement is a success is stored as safely as its domain asks for.
//! * When the connection breaks, messages without acknowledgement are sent again after all queues
//!   of the session have been opened again: in the same order and under the same [`MessageGuid`],
//!   by which the broker recognises those that it has. Each is stored once. A message that is older
//!   than the broker's memory of GUIDs (usually five minutes) is not sent again but given up with
//!   [`PublishError::Expired`].
//! * A message is delivered until it is confirmed: at least once. After a lost connection, messages
//!   that were not confirmed, or whose confirmation the broker had not read, are delivered again.
//! * Nothing that a broker sends makes the client panic, hang or use unbounded memory. Waiting is
//!   bounded by the timeouts of [`SessionOptions`], except for acknowledgements, which the broker
//!   owes.
//!
//! # Errors
//!
//! Each operation has its own small error enum ([`ConnectError`], [`OpenError`], [`PublishError`],
//! …) whose texts say what to do next. What the session repairs by itself is no error but a
//! [`SessionEvent`], for those who want to know.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod address;
mod consumer;
mod control;
mod error;
mod event;
mod incoming;
mod options;
mod outgoing;
mod producer;
mod session;
mod tls;

pub use address::{AddressError, BrokerAddress, DEFAULT_PORT, Scheme};
pub use consumer::Consumer;
pub use error::{
    CloseError, ConfigureError, ConfirmError, ConnectError, ConsumeError, ContentError, OpenError,
    PublishError, TlsError, TryPublishError,
};
pub use event::{SessionEvent, SessionEvents};
pub use flintmq_protocol::ack::AckStatus;
pub use flintmq_protocol::compression::Compression;
pub use flintmq_protocol::control::StatusCategory;
pub use flintmq_protocol::guid::MessageGuid;
pub use flintmq_protocol::properties::{Properties, PropertiesError, PropertyValue};
pub use incoming::Message;
pub use options::{
    ConsumerOptions, Heartbeat, ProducerOptions, SessionOptions, Subscription, TlsOptions,
};
pub use outgoing::OutgoingMessage;
pub use producer::{AckFuture, Acked, Producer};
pub use session::Session;
