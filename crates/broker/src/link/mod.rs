//! What partitions hold of a client's session: the ordered way out to it, and the count of what it
//! is owed an answer for. The session fills it in; it knows nothing of sessions or partitions.

mod in_flight;
mod outbox;

use std::sync::OnceLock;

use flintmq_protocol::control::{Encoding, StatusCategory};
use flintmq_session::Refusal;
use tokio_util::sync::CancellationToken;

pub(crate) use flintmq_partition::SessionId;
pub(crate) use in_flight::{InFlight, NodeInFlight, Partial};
pub(crate) use outbox::Outbox;

/// What partitions know of a session: how to answer it.
pub(crate) struct SessionLink {
    pub(crate) id: SessionId,
    pub(crate) outbox: Outbox,
    pub(crate) in_flight: InFlight,
    pub(crate) encoding: Encoding,
    pub(crate) ending: Ending,
}

/// A session that is to end because of what became of its queues.
#[derive(Default)]
pub(crate) struct Ending {
    reason: OnceLock<&'static str>,
    raised: CancellationToken,
}

impl SessionLink {
    /// Ends the session's connection: its client comes back and opens its queues again.
    pub(crate) fn end(&self, reason: &'static str) {
        let _ended_before = self.ending.reason.set(reason);
        self.ending.raised.cancel();
    }

    /// Waits until the session is to end, and tells why.
    pub(crate) async fn ended(&self) -> &'static str {
        self.ending.raised.cancelled().await;
        self.ending.reason.get().copied().unwrap_or("a queue that it has open is gone")
    }

    /// Queues a refusal.
    pub(crate) fn refuse(&self, request_id: Option<i32>, category: StatusCategory, message: &str) {
        self.outbox.push(Refusal::new(category, message).encode(self.encoding, request_id));
    }
}
