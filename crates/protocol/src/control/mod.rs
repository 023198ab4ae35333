//! Control messages: negotiation, authentication, and requests with their answers.
//!
//! The three roots are [`NegotiationMessage`] (CONTROL events until negotiation is over),
//! [`ControlMessage`] (CONTROL events afterwards) and [`AuthenticationMessage`] (AUTHENTICATION
//! events). Nothing in an event tells the first two apart; the state of the connection does. Each
//! is read from an [`Event`] in the encoding that the event names, and appended to a buffer as a
//! whole event in the encoding that the peer wants (see
//! [`Features::encoding`](crate::features::Features::encoding)).
//!
//! ```
//! use bytes::BytesMut;
//! use flintmq_protocol::control::{
//!     ControlChoice, ControlMessage, Encoding, Status, StatusCategory,
//! };
//! use flintmq_protocol::event::Frame;
//!
//! let refused = Status::new(StatusCategory::Refused, -1, "domain does not exist: name=orders");
//! let mut out = BytesMut::new();
//! ControlMessage::new(7, ControlChoice::Status(refused)).append_event(Encoding::Ber, &mut out)?;
//!
//! let event = Frame::new(out.freeze()).expect("one whole event").parse()?;
//! let message = ControlMessage::from_event(&event)?;
//! assert_eq!(message.r_id, Some(7));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Readers are lenient where later releases may differ: unknown members are skipped, missing ones
//! take their default, unknown enumerators become "unknown" where the enumeration has one. A
//! selection that this release does not know is [`ControlError::Unsupported`] with the request's
//! id, so that it can be answered.

mod ber;
mod envelope;
mod json;
mod negotiation;
mod requests;
#[cfg(test)]
mod tests;

pub use ber::{BerError, BerFault};
pub use envelope::{ControlError, EncodeError, Encoding, MAX_CONTROL_BODY_SIZE};
pub use negotiation::{
    AuthenticationMessage, AuthenticationRequest, AuthenticationResponse, BrokerResponse,
    ClientIdentity, ClientLanguage, ClientType, DEVELOPMENT_VERSION, GuidInfo, NegotiationMessage,
    Status, StatusCategory,
};
pub use requests::{
    AdminCommand, AdminCommandResponse, CloseQueue, ConfigureQueueStream,
    ConfigureQueueStreamResponse, ConfigureStream, ConfigureStreamResponse, ConsumerInfo,
    ControlChoice, ControlMessage, DEFAULT_APP_ID, Expression, ExpressionVersion,
    MAX_LIST_ELEMENTS, NO_PRIORITY, OpenQueue, OpenQueueResponse, QueueHandleParameters,
    QueueStreamParameters, RESERVED_QUEUE_IDS, RoutingConfiguration, StreamParameters,
    SubQueueIdInfo, Subscription,
};

#[cfg(doc)]
use crate::event::Event;
