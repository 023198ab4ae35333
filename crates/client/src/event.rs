//! What happens to a session behind the application's back.

use tokio::sync::broadcast;

/// Something that happened to a session. Nothing has to be done about any of them: the session
/// reconnects and restores itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionEvent {
    /// The connection is gone; the session is looking for a broker.
    ConnectionLost {
        /// What ended it.
        reason: String,
    },
    /// A broker has accepted the session again; its queues are being opened.
    Reconnected {
        /// The broker's address.
        broker: String,
    },
    /// A queue is open again.
    QueueReopened {
        /// Its address, with the app id where there is one.
        uri: String,
    },
    /// The broker refused to open a queue again; its handle is closed.
    QueueLost {
        /// Its address, with the app id where there is one.
        uri: String,
        /// The broker's words.
        reason: String,
    },
    /// Every queue has been dealt with, and unacknowledged messages have been sent again.
    StateRestored {
        /// How many messages were sent again.
        retransmitted: usize,
    },
    /// The session has ended.
    Disconnected,
    /// So many events were dropped, because nobody asked for them in time.
    Missed(u64),
}

/// The events of a session from the moment of [`Session::events`](crate::Session::events) on.
#[derive(Debug)]
pub struct SessionEvents {
    receiver: broadcast::Receiver<SessionEvent>,
}

impl SessionEvents {
    pub(crate) const fn new(receiver: broadcast::Receiver<SessionEvent>) -> Self {
        Self { receiver }
    }

    /// The next event; `None` when the session and all its handles are gone.
    ///
    /// Cancelling the wait loses nothing. At most [`BACKLOG`](Self::BACKLOG) events are kept.
    pub async fn next(&mut self) -> Option<SessionEvent> {
        match self.receiver.recv().await {
            Ok(event) => Some(event),
            Err(broadcast::error::RecvError::Lagged(missed)) => Some(SessionEvent::Missed(missed)),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }

    /// How many unread events are kept.
    pub const BACKLOG: usize = 256;
}
