//! One client's connection, from its first byte to its last.
//!
//! `listener` accepts, `negotiation` agrees, `connection` reads events and sorts them: PUTs to
//! `publish`, CONFIRMs to `confirm`, requests to `control`; `handles` knows what the client has
//! open. Answers and messages leave through the outbox of `link` and through `writer`, in one
//! order. `farewell` leaves the close of the connection to a client that has said goodbye;
//! `directory` tells administrators who is connected.

mod confirm;
pub(crate) mod connection;
mod context;
mod control;
mod counted;
mod directory;
mod farewell;
mod handles;
pub(crate) mod listener;
mod negotiation;
mod opening;
mod publish;
mod read_room;
mod socket;
#[cfg(test)]
mod tests;
mod writer;

pub(crate) use context::SessionContext;
pub(crate) use counted::SessionMetrics;
pub(crate) use directory::{SessionDirectory, SessionEntry};
pub(crate) use negotiation::BrokerIdentity;
