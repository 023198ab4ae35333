//! What partitions hold of a client's session: the ordered way out to it, and the count of what it
//! is owed an answer for. The session fills it in; it knows nothing of sessions or partitions.

mod in_flight;
mod outbox;

use bytes::{Bytes, BytesMut};
use flintmq_protocol::control::{ControlChoice, ControlMessage, Encoding, Status, StatusCategory};

use std::sync::OnceLock;

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
    /// False for old clients, which must be given properties in the old layout.
    pub(crate) reads_extended_properties: bool,
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

    /// Queues the answer to a request.
    pub(crate) fn respond(&self, request_id: Option<i32>, choice: ControlChoice) {
        self.outbox.push(self.encode(request_id, choice));
    }

    /// Queues a refusal.
    pub(crate) fn refuse(&self, request_id: Option<i32>, category: StatusCategory, message: &str) {
        let status = Status::new(category, -1, message);
        self.respond(request_id, ControlChoice::Status(status));
    }

    /// The answer as the event that the client understands; empty when it cannot be encoded, which
    /// is logged.
    pub(crate) fn encode(&self, request_id: Option<i32>, choice: ControlChoice) -> Bytes {
        let mut event = BytesMut::new();
        let message = ControlMessage { r_id: request_id, choice };
        if let Err(error) = message.append_event(self.encoding, &mut event) {
            tracing::warn!(session = self.id.0, %error, "an answer cannot be encoded");
            return Bytes::new();
        }
        event.freeze()
    }
}
