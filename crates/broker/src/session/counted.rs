//! Counts sessions for the metrics.

use metrics::{Counter, Gauge};

use crate::metrics::{
    CLIENT_RECEIVED_BYTES, CLIENT_SENT_BYTES, CONNECTIONS, CONNECTIONS_REFUSED, SESSIONS,
    SESSIONS_CLOSED,
};

/// The session metrics, looked up once.
pub(crate) struct SessionMetrics {
    sessions: Gauge,
    pub(crate) received_bytes: Counter,
    pub(crate) sent_bytes: Counter,
}

/// One live session in the gauge, until dropped.
pub(crate) struct Counted(Gauge);

impl SessionMetrics {
    pub(crate) fn new() -> Self {
        Self {
            sessions: SESSIONS.gauge(&[]),
            received_bytes: CLIENT_RECEIVED_BYTES.counter(&[]),
            sent_bytes: CLIENT_SENT_BYTES.counter(&[]),
        }
    }

    /// A session is up as long as the result lives.
    pub(crate) fn session_up(&self) -> Counted {
        self.sessions.increment(1.0);
        Counted(self.sessions.clone())
    }

    /// A connection was accepted.
    pub(crate) fn accepted(scheme: &str) {
        CONNECTIONS.counter(&[scheme]).increment(1);
    }

    /// A connection ended before it became a session.
    pub(crate) fn refused(reason: &str) {
        CONNECTIONS_REFUSED.counter(&[reason]).increment(1);
    }

    /// A session ended.
    pub(crate) fn closed(reason: &str) {
        SESSIONS_CLOSED.counter(&[reason]).increment(1);
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}
