//! How much a client may have published without an answer: a bound on bytes, kept by not reading on.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// Bytes of PUTs that were read from a client and not yet answered. Shared by the session's reader, which waits, and
/// the partitions, which give back.
#[derive(Debug)]
pub(crate) struct InFlight {
    bytes: AtomicUsize,
    limit: usize,
    room: Notify,
}

impl InFlight {
    /// Bounds the unanswered bytes to `limit`, plus what one read from the socket brings.
    pub(crate) fn new(limit: usize) -> Self {
        Self { bytes: AtomicUsize::new(0), limit: limit.max(1), room: Notify::new() }
    }

    /// Counts bytes that go to a partition.
    pub(crate) fn add(&self, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::AcqRel);
    }

    /// Gives back bytes that were answered, whatever the answer.
    pub(crate) fn release(&self, bytes: usize) {
        let before = self.bytes.fetch_sub(bytes, Ordering::AcqRel);
        if before >= self.limit && before - bytes < self.limit {
            self.room.notify_one();
        }
    }

    /// Waits until less than the limit is unanswered. For one waiter, the session's reader.
    pub(crate) async fn room(&self) {
        while self.bytes.load(Ordering::Acquire) >= self.limit {
            self.room.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn waits_at_the_limit_and_goes_on_below() {
        let in_flight = InFlight::new(10);
        in_flight.add(12);
        let waiting = async {
            in_flight.room().await;
            in_flight.bytes.load(Ordering::SeqCst)
        };
        let answering = async {
            in_flight.release(2);
            in_flight.release(1);
        };
        let (left, ()) = tokio::join!(waiting, answering);
        assert_eq!(left, 9);
    }
}
