//! The one ordered way out of a session: whatever partitions and the session itself have to say to
//! the client passes here, in the order in which it was said.
//!
//! Nothing waits on a slow client. Producers of output never block: they look at
//! [`Outbox::is_full`] and stop delivering; the session's reader stops reading. So what is queued
//! is bounded by the limit plus one round of delivery of each partition plus the answers to what
//! was already read.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use tokio::sync::Notify;

/// Told when a full outbox has room again. Called from the session's writer, outside of any lock.
pub(crate) type OnRoom = Box<dyn FnOnce() + Send>;

/// Bytes on their way to one client. Shared by the session and the partitions that it uses.
pub(crate) struct Outbox {
    state: Mutex<State>,
    /// Bytes pushed and not yet written to the socket.
    queued: AtomicUsize,
    limit: usize,
    readable: Notify,
    room: Notify,
}

#[derive(Default)]
struct State {
    chunks: Vec<Bytes>,
    /// After this nothing is taken any more; what was taken before is still written.
    closed: bool,
    waiting: Vec<OnRoom>,
}

impl Outbox {
    /// An outbox that calls itself full from `limit` bytes on.
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            state: Mutex::default(),
            queued: AtomicUsize::new(0),
            limit: limit.max(1),
            readable: Notify::new(),
            room: Notify::new(),
        }
    }

    /// Queues whole events. False when the session is over and the bytes went nowhere.
    pub(crate) fn push(&self, events: Bytes) -> bool {
        if events.is_empty() {
            return true;
        }
        let mut state = self.lock();
        if state.closed {
            return false;
        }
        self.queued.fetch_add(events.len(), Ordering::AcqRel);
        state.chunks.push(events);
        drop(state);
        self.readable.notify_one();
        true
    }

    /// Queues a last event and closes: nothing may follow a disconnect response.
    pub(crate) fn push_last(&self, events: Bytes) {
        self.push(events);
        self.close();
    }

    /// Takes nothing any more. The writer finishes what is queued and ends.
    pub(crate) fn close(&self) {
        let waiting = {
            let mut state = self.lock();
            state.closed = true;
            std::mem::take(&mut state.waiting)
        };
        self.readable.notify_one();
        self.room.notify_one();
        drop(waiting);
    }

    /// True when nothing can be pushed any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// True while the client is too far behind to be given more.
    pub(crate) fn is_full(&self) -> bool {
        self.queued.load(Ordering::Acquire) >= self.limit
    }

    /// Calls `then` once when there is room: at once when there is some now, never when the session
    /// is over.
    pub(crate) fn when_room(&self, then: OnRoom) {
        let mut state = self.lock();
        if state.closed {
            return;
        }
        if self.is_full() {
            state.waiting.push(then);
            return;
        }
        drop(state);
        then();
    }

    /// Waits until there is room or the session is over.
    pub(crate) async fn room(&self) {
        while self.is_full() && !self.is_closed() {
            self.room.notified().await;
        }
    }

    /// Waits for something to write and takes all of it; `None` when closed and empty. For the
    /// writer alone.
    pub(crate) async fn take(&self, into: &mut Vec<Bytes>) -> Option<()> {
        loop {
            {
                let mut state = self.lock();
                if !state.chunks.is_empty() {
                    into.append(&mut state.chunks);
                    return Some(());
                }
                if state.closed {
                    return None;
                }
            }
            self.readable.notified().await;
        }
    }

    /// Tells that the writer has handed this many bytes to the socket. For the writer alone.
    pub(crate) fn written(&self, bytes: usize) {
        let before = self.queued.fetch_sub(bytes, Ordering::AcqRel);
        let low = self.limit / 2;
        if before > low && before - bytes <= low {
            let waiting = std::mem::take(&mut self.lock().waiting);
            for then in waiting {
                then();
            }
            self.room.notify_one();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        // A panic elsewhere while holding the lock leaves a list of chunks, which is valid at every
        // step.
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;

    use super::*;

    #[tokio::test]
    async fn keeps_the_order_and_ends_after_the_last() {
        let outbox = Outbox::new(100);
        assert!(outbox.push(Bytes::from_static(b"a")));
        outbox.push_last(Bytes::from_static(b"b"));
        assert!(!outbox.push(Bytes::from_static(b"too late")));
        let mut taken = Vec::new();
        assert_eq!(outbox.take(&mut taken).await, Some(()));
        assert_eq!(taken, vec![Bytes::from_static(b"a"), Bytes::from_static(b"b")]);
        assert_eq!(outbox.take(&mut taken).await, None);
    }

    #[tokio::test]
    async fn is_full_from_the_limit_and_tells_when_half_is_written() {
        let outbox = Outbox::new(10);
        let called = Arc::new(AtomicBool::new(false));
        outbox.push(Bytes::from_static(b"0123456789"));
        assert!(outbox.is_full());
        let flag = Arc::clone(&called);
        outbox.when_room(Box::new(move || flag.store(true, Ordering::SeqCst)));
        outbox.written(4);
        assert!(!called.load(Ordering::SeqCst), "six of ten bytes still wait");
        outbox.written(1);
        assert!(called.load(Ordering::SeqCst));
        outbox.room().await;
    }

    #[tokio::test]
    async fn a_closed_session_has_room_for_ever() {
        let outbox = Outbox::new(1);
        outbox.push(Bytes::from_static(b"x"));
        outbox.close();
        outbox.room().await;
        assert!(!outbox.push(Bytes::from_static(b"y")));
    }
}
