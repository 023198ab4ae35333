//! Recording what happens to connections and sessions.

use super::definitions as d;
use metrics::{Counter, Gauge};

/// Why a connection was closed before it became a session: the label `reason` of
/// `flintmq_connections_refused_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefuseReason {
    /// `limits.max_connections` is reached.
    Limit,
    /// The TLS handshake failed.
    Tls,
    /// The client's first messages were refused.
    Negotiation,
    /// No TLS handshake or negotiation in time.
    Timeout,
}

impl RefuseReason {
    /// All reasons, in the order of their declaration.
    pub const ALL: [Self; 4] = [Self::Limit, Self::Tls, Self::Negotiation, Self::Timeout];

    /// The label's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Limit => "limit",
            Self::Tls => "tls",
            Self::Negotiation => "negotiation",
            Self::Timeout => "timeout",
        }
    }
}

/// Why a session ended: the label `reason` of `flintmq_sessions_closed_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The client said goodbye.
    Disconnected,
    /// The connection broke, or the client closed it without a goodbye.
    Lost,
    /// Nothing came for `limits.idle_timeout`.
    Idle,
    /// The client sent what no client may send.
    Malformed,
    /// The node is stopping.
    Stopping,
}

impl CloseReason {
    /// All reasons, in the order of their declaration.
    pub const ALL: [Self; 5] =
        [Self::Disconnected, Self::Lost, Self::Idle, Self::Malformed, Self::Stopping];

    /// The label's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Disconnected => "disconnected",
            Self::Lost => "lost",
            Self::Idle => "idle",
            Self::Malformed => "malformed",
            Self::Stopping => "stopping",
        }
    }
}

/// The metrics of connections and sessions, looked up once.
#[derive(Clone)]
pub struct SessionMetrics {
    tcp: Counter,
    tls: Counter,
    refused: [Counter; RefuseReason::ALL.len()],
    closed: [Counter; CloseReason::ALL.len()],
    sessions: Gauge,
    paused: Gauge,
    received_bytes: Counter,
    sent_bytes: Counter,
}

impl Default for SessionMetrics {
    fn default() -> Self {
        Self::new()
    }
}

impl SessionMetrics {
    /// Looks the metrics up in the recorder in force, and shows them all as 0 from the start.
    pub fn new() -> Self {
        Self {
            tcp: shown(d::CONNECTIONS.counter(&["tcp"])),
            tls: shown(d::CONNECTIONS.counter(&["tls"])),
            refused: RefuseReason::ALL
                .map(|reason| shown(d::CONNECTIONS_REFUSED.counter(&[reason.as_str()]))),
            closed: CloseReason::ALL
                .map(|reason| shown(d::SESSIONS_CLOSED.counter(&[reason.as_str()]))),
            sessions: d::SESSIONS.gauge(&[]),
            paused: d::SESSIONS_PAUSED.gauge(&[]),
            received_bytes: shown(d::CLIENT_RECEIVED_BYTES.counter(&[])),
            sent_bytes: shown(d::CLIENT_SENT_BYTES.counter(&[])),
        }
    }

    /// A connection was accepted, over TLS or not.
    pub fn connected(&self, tls: bool) {
        if tls { self.tls.increment(1) } else { self.tcp.increment(1) }
    }

    /// A connection was closed before it became a session.
    pub fn refused(&self, reason: RefuseReason) {
        self.refused[reason as usize].increment(1);
    }

    /// A session began; it lasts as long as the value returned.
    pub fn session_up(&self) -> SessionUp {
        self.sessions.increment(1.0);
        SessionUp { metrics: self.clone(), reason: CloseReason::Lost }
    }

    /// A session is not read from because too much of it is in flight, as long as the value
    /// returned lives.
    pub fn pause(&self) -> SessionPaused {
        self.paused.increment(1.0);
        SessionPaused { paused: self.paused.clone() }
    }

    /// Bytes came from a client.
    pub fn received(&self, bytes: u64) {
        self.received_bytes.increment(bytes);
    }

    /// Bytes went to a client.
    pub fn sent(&self, bytes: u64) {
        self.sent_bytes.increment(bytes);
    }
}

/// A session that is up. Dropped, it counts as closed.
#[must_use = "the session counts as closed when this is dropped"]
pub struct SessionUp {
    metrics: SessionMetrics,
    reason: CloseReason,
}

impl SessionUp {
    /// Says why the session ends; without it, it was lost.
    pub fn closing(&mut self, reason: CloseReason) {
        self.reason = reason;
    }
}

impl Drop for SessionUp {
    fn drop(&mut self) {
        self.metrics.sessions.decrement(1.0);
        self.metrics.closed[self.reason as usize].increment(1);
    }
}

/// A session that is not read from.
#[must_use = "the session counts as read from when this is dropped"]
pub struct SessionPaused {
    paused: Gauge,
}

impl Drop for SessionPaused {
    fn drop(&mut self) {
        self.paused.decrement(1.0);
    }
}

/// A counter appears in the text once it was touched; touching it at the start lets a first event
/// show as an increase.
pub(super) fn shown(counter: Counter) -> Counter {
    counter.increment(0);
    counter
}
