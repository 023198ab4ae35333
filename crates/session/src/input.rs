//! What happens to a session.

use flintmq_controller::{DomainRecord, QueuePlace};
use flintmq_partition::OpenRefusal;
use flintmq_queue::HandleId;

use crate::refusal::Refusal;

/// Names an open of one session: what the answers to it carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpenId(pub u64);

/// One thing that happened, or an answer to an [`Effect`](crate::Effect).
#[derive(Debug)]
pub enum Input {
    /// Bytes of the client were appended to [`Session::received`](crate::Session::received).
    Received,
    /// The answer to [`Effect::Place`](crate::Effect::Place).
    Placed {
        /// As given with the effect.
        open: OpenId,
        /// Where the queue lives, or what the client is answered.
        result: Result<Box<Placed>, Refusal>,
    },
    /// The answer to [`Effect::Open`](crate::Effect::Open).
    Opened {
        /// As given with the effect.
        open: OpenId,
        /// The handle that the host chose, if it is open now.
        result: Result<HandleId, OpenRefusal>,
    },
    /// The moment of [`Session::deadline`](crate::Session::deadline) has come. One that comes too
    /// early does no harm.
    Tick {
        /// The client takes less than it is sent, so that the host does not read from it. It is not
        /// silent then.
        output_full: bool,
    },
    /// The connection is lost, or cannot be served any longer, for this reason.
    Lost(String),
    /// The node is stopping.
    Closing,
    /// The answer to [`Effect::EndInPartitions`](crate::Effect::EndInPartitions).
    Ended,
}

/// Where a queue lives and what it inherits.
#[derive(Clone, Debug)]
pub struct Placed {
    /// Its number and its partition.
    pub place: QueuePlace,
    /// Its domain.
    pub domain: DomainRecord,
}
