//! What reaches a replica from beside its task: the store's reports and answers, and what
//! administrators ask.

use bytes::Bytes;
use flintmq_consensus::{Entry, NodeId, SnapshotId};
use flintmq_storage::{OpenSnapshot, ReadError, Report, SnapshotPiece};
use tokio::sync::mpsc;

use super::orders::Order;

/// One of them. There are never more than there were requests of the core, and one for each
/// administrator who waits for an answer.
pub(crate) enum StoreEvent {
    /// A report, in the order of the requests.
    Report(Report),
    /// What an administrator asks.
    Order(Order),
    /// Entries that were read for a member that is behind.
    LogRead {
        /// The core's number.
        read: u64,
        /// What was read.
        entries: Result<Vec<Entry>, ReadError>,
    },
    /// A snapshot for a member is open.
    SnapshotOpened {
        /// Whom it is for.
        to: NodeId,
        /// The snapshot.
        opened: Result<OpenSnapshot, ReadError>,
    },
    /// A piece of a snapshot was read.
    SnapshotRead {
        /// Whom it is for.
        to: NodeId,
        /// Which snapshot.
        id: SnapshotId,
        /// Where the piece begins.
        cursor: Bytes,
        /// The piece.
        piece: Result<SnapshotPiece, ReadError>,
    },
}

/// Where a replica's events arrive.
pub(crate) type StoreEvents = mpsc::UnboundedReceiver<StoreEvent>;

/// Where a replica's events come from.
pub(crate) type StoreEventSender = mpsc::UnboundedSender<StoreEvent>;
