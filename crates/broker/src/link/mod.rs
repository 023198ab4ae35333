//! What partitions hold of a client's session: the ordered way out to it, and the count of what it
//! is owed an answer for. The session fills it in; it knows nothing of sessions or partitions.

mod in_flight;
mod outbox;

use bytes::{Bytes, BytesMut};
use flintmq_protocol::control::{ControlChoice, ControlMessage, Encoding, Status, StatusCategory};

pub(crate) use in_flight::{InFlight, NodeInFlight, Partial};
pub(crate) use outbox::Outbox;

/// A session of this process; never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SessionId(pub(crate) u64);

/// What partitions know of a session: how to answer it.
pub(crate) struct SessionLink {
    pub(crate) id: SessionId,
    pub(crate) outbox: Outbox,
    pub(crate) in_flight: InFlight,
    pub(crate) encoding: Encoding,
    /// False for old clients, which must be given properties in the old layout.
    pub(crate) reads_extended_properties: bool,
}

impl SessionLink {
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
