//! Clients' connections. What a session does is decided in `flintmq_session`; here it gets a
//! socket, a clock and the rest of the node.
//!
//! `listener` accepts; `connection` brings a session its bytes, answers and time, and carries out
//! what it says; `asking` asks the controller and partitions for it. Answers and messages leave
//! through the outbox of `link` and through `writer`, in one order. `farewell` leaves the close of
//! the connection to a client that has said goodbye; `directory` tells administrators who is
//! connected.

mod asking;
pub(crate) mod connection;
mod context;
mod counted;
mod directory;
mod farewell;
pub(crate) mod listener;
mod read_room;
mod socket;
#[cfg(test)]
mod tests;
mod writer;

pub(crate) use context::SessionContext;
pub(crate) use counted::SessionMetrics;
pub(crate) use directory::{SessionDirectory, SessionEntry};
pub(crate) use flintmq_session::BrokerIdentity;
