//! Answers to control requests, as clients read them.

use bytes::{Bytes, BytesMut};
use flintmq_protocol::control::{ControlChoice, ControlMessage, Encoding, Status, StatusCategory};

/// Why a request is refused, as the client is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What kind of failure; clients decide by it whether they try again.
    pub category: StatusCategory,
    /// What went wrong, and what to do.
    pub message: String,
}

impl Refusal {
    /// A refusal of this kind.
    pub fn new(category: StatusCategory, message: impl Into<String>) -> Self {
        Self { category, message: message.into() }
    }

    /// The refusal of the client's request of this number, as a whole event.
    pub fn encode(self, encoding: Encoding, request_id: Option<i32>) -> Bytes {
        let status = Status::new(self.category, -1, self.message);
        encode(encoding, request_id, ControlChoice::Status(status))
    }
}

/// The answer to a request as the event that the client understands; empty when it cannot be
/// encoded, which is logged.
pub(crate) fn encode(encoding: Encoding, request_id: Option<i32>, choice: ControlChoice) -> Bytes {
    let mut event = BytesMut::new();
    let message = ControlMessage { r_id: request_id, choice };
    if let Err(error) = message.append_event(encoding, &mut event) {
        tracing::warn!(%error, "an answer cannot be encoded");
        return Bytes::new();
    }
    event.freeze()
}
