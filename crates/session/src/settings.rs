//! What all sessions of a node have in common.

use std::time::Duration;

/// Limits of a session, and how the node presents itself to clients.
#[derive(Clone, Debug)]
pub struct SessionSettings {
    /// Who the client is connected to.
    pub broker: BrokerIdentity,
    /// Largest event taken from a client that has negotiated, in bytes; a larger one ends the
    /// session.
    pub max_event_bytes: usize,
    /// How long a connection may take until it has negotiated.
    pub negotiation_timeout: Duration,
    /// After this long without a byte from a client it is sent a heartbeat request. Silence is
    /// looked for once per interval, so that it may be noticed one interval later. At least 10 ms.
    pub heartbeat_interval: Duration,
    /// After this long without a byte a client that answers heartbeats counts as lost; zero means
    /// never.
    pub idle_timeout: Duration,
}

/// How a node presents itself in the negotiation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BrokerIdentity {
    /// The cluster's name.
    pub cluster: String,
    /// The node's number in it.
    pub node: u32,
    /// The machine's name.
    pub host: String,
    /// The number of the process on its machine.
    pub process: u32,
}
