//! How much clients may have sent without an answer: bounds on bytes per session and per node, kept
//! by not reading on.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// Bytes that all clients of the node together have sent and that are not answered yet: PUTs under
/// way, and events that have arrived in part.
#[derive(Debug)]
pub(crate) struct NodeInFlight {
    bytes: AtomicUsize,
    limit: usize,
    room: Notify,
}

impl NodeInFlight {
    /// Bounds the bytes to `limit`, plus one read from each socket.
    pub(crate) fn new(limit: usize) -> Self {
        Self { bytes: AtomicUsize::new(0), limit: limit.max(1), room: Notify::new() }
    }

    /// True while nothing more should be read.
    pub(crate) fn is_full(&self) -> bool {
        self.bytes.load(Ordering::Acquire) >= self.limit
    }

    fn add(&self, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::AcqRel);
    }

    fn release(&self, bytes: usize) {
        let before = self.bytes.fetch_sub(bytes, Ordering::AcqRel);
        if before >= self.limit && before - bytes < self.limit {
            self.room.notify_waiters();
        }
    }

    async fn room(&self) {
        loop {
            // Made before the look, so that a release between the two is not missed.
            let released = self.room.notified();
            if !self.is_full() {
                return;
            }
            released.await;
        }
    }
}

/// One session's share: bytes of PUTs that were read from the client and not yet answered. Shared
/// by the session's reader, which waits, and the partitions, which give back.
#[derive(Debug)]
pub(crate) struct InFlight {
    bytes: AtomicUsize,
    limit: usize,
    room: Notify,
    node: Arc<NodeInFlight>,
}

impl InFlight {
    /// Bounds the unanswered bytes to `limit`, plus what one read from the socket brings.
    pub(crate) fn new(limit: usize, node: Arc<NodeInFlight>) -> Self {
        Self { bytes: AtomicUsize::new(0), limit: limit.max(1), room: Notify::new(), node }
    }

    /// Counts bytes that go to a partition.
    pub(crate) fn add(&self, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::AcqRel);
        self.node.add(bytes);
    }

    /// Gives back bytes that were answered, whatever the answer.
    pub(crate) fn release(&self, bytes: usize) {
        if bytes == 0 {
            return;
        }
        self.node.release(bytes);
        let before = self.bytes.fetch_sub(bytes, Ordering::AcqRel);
        if before >= self.limit && before - bytes < self.limit {
            self.room.notify_one();
        }
    }

    /// Waits until less than the limits is unanswered. For one waiter, the session's reader.
    pub(crate) async fn room(&self) {
        while self.bytes.load(Ordering::Acquire) >= self.limit {
            self.room.notified().await;
        }
        self.node.room().await;
    }
}

impl Drop for InFlight {
    /// What was under way when a session ended is answered to nobody.
    fn drop(&mut self) {
        self.node.release(*self.bytes.get_mut());
    }
}

/// What every connection may hold of an event without being counted. So what is counted can always
/// be freed by closing who holds it, and small events pass however many large ones wait.
const UNCOUNTED: usize = 64 << 10;

/// The part of an event that a session has received and that waits for its rest.
#[derive(Debug)]
pub(crate) struct Partial {
    bytes: usize,
    node: Arc<NodeInFlight>,
}

impl Partial {
    /// Nothing yet.
    pub(crate) fn new(node: Arc<NodeInFlight>) -> Self {
        Self { bytes: 0, node }
    }

    /// The buffer holds this much now. False when the node has no memory for it: the session that
    /// waits for the rest of its event must go, because waiting would never free anything.
    pub(crate) fn set(&mut self, bytes: usize) -> bool {
        let bytes = bytes.saturating_sub(UNCOUNTED);
        if bytes > self.bytes {
            self.node.add(bytes - self.bytes);
        } else {
            self.node.release(self.bytes - bytes);
        }
        self.bytes = bytes;
        bytes == 0 || !self.node.is_full()
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        self.node.release(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(limit: usize) -> Arc<NodeInFlight> {
        Arc::new(NodeInFlight::new(limit))
    }

    #[tokio::test]
    async fn waits_at_the_limit_and_goes_on_below() {
        let in_flight = InFlight::new(10, node(1000));
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

    #[tokio::test]
    async fn sessions_share_what_the_node_has() {
        let node = node(10);
        let (a, b) = (InFlight::new(100, Arc::clone(&node)), InFlight::new(100, Arc::clone(&node)));
        a.add(10);
        let waiting = async {
            b.room().await;
            node.bytes.load(Ordering::SeqCst)
        };
        let answering = async { drop(a) };
        let (left, ()) = tokio::join!(waiting, answering);
        assert_eq!(left, 0, "a session that ends gives back what it held");
    }

    #[test]
    fn a_half_event_is_refused_when_memory_is_short_and_given_back() {
        let node = node(10 * UNCOUNTED);
        let mut first = Partial::new(Arc::clone(&node));
        assert!(first.set(9 * UNCOUNTED));
        let mut second = Partial::new(Arc::clone(&node));
        assert!(!second.set(5 * UNCOUNTED));
        assert!(second.set(UNCOUNTED), "a client at its usual work goes on");
        drop(second);
        assert!(first.set(4 * UNCOUNTED));
        assert!(first.set(0));
        assert_eq!(node.bytes.load(Ordering::SeqCst), 0);
    }
}
