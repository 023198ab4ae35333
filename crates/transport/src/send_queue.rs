//! What waits to be sent on one lane to one peer: bounded, with a policy for what does not fit.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::metrics::LaneMeter;
use crate::{Class, ClassLimits, Frame, NodeId, SendError};

/// Counted for a frame besides its bytes, so that empty ones do not come for free.
const FRAME_OVERHEAD: usize = 64;

/// The queue of a lane. Frames are taken by one writer at a time, while there is a connection.
#[derive(Debug)]
pub(crate) struct SendQueue {
    peer: NodeId,
    class: Class,
    limits: ClassLimits,
    meter: LaneMeter,
    state: Mutex<State>,
    filled: Notify,
    room: Notify,
}

#[derive(Debug, Default)]
struct State {
    frames: VecDeque<Frame>,
    /// Of all frames here, with their overhead.
    bytes: usize,
    phase: Phase,
    /// The writer sleeps: the next frame wakes it. It is woken once for all frames until it looks.
    writer_waits: bool,
    /// Somebody was refused and waits for room.
    room_wanted: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    /// There is no connection: nothing is kept, because what is old when the peer comes back would
    /// only be in the way of what is new.
    #[default]
    Closed,
    Open,
    /// What is here still leaves, nothing more comes.
    Draining,
}

impl SendQueue {
    pub(crate) fn new(peer: NodeId, class: Class, limits: ClassLimits, meter: LaneMeter) -> Self {
        let state = Mutex::new(State::default());
        Self { peer, class, limits, meter, state, filled: Notify::new(), room: Notify::new() }
    }

    pub(crate) fn meter(&self) -> &LaneMeter {
        &self.meter
    }

    /// Takes a frame, or refuses it at once.
    pub(crate) fn push(&self, frame: Frame) -> Result<(), SendError> {
        let (peer, class) = (self.peer, self.class);
        if frame.len() > self.limits.frame_bytes {
            self.meter.refused.increment(1);
            let (bytes, allowed) = (frame.len(), self.limits.frame_bytes);
            return Err(SendError::TooLarge { peer, class, bytes, allowed });
        }
        let mut state = self.lock();
        if state.phase != Phase::Open {
            self.meter.refused.increment(1);
            return Err(SendError::Disconnected { peer });
        }
        let bytes = frame.len() + FRAME_OVERHEAD;
        while !state.frames.is_empty() && self.is_full(&state, bytes) {
            if class != Class::Urgent {
                state.room_wanted = true;
                self.meter.refused.increment(1);
                return Err(SendError::Full { peer, class });
            }
            state.take_first();
            self.meter.dropped.increment(1);
        }
        state.bytes += bytes;
        state.frames.push_back(frame);
        if std::mem::take(&mut state.writer_waits) {
            self.filled.notify_one();
        }
        Ok(())
    }

    fn is_full(&self, state: &State, more: usize) -> bool {
        state.frames.len() >= self.limits.queue_frames
            || state.bytes.saturating_add(more) > self.limits.queue_bytes
    }

    /// Returns when at least half of the queue is free.
    pub(crate) async fn room(&self) -> Result<(), SendError> {
        loop {
            let freed = self.room.notified();
            {
                let mut state = self.lock();
                if state.phase != Phase::Open {
                    return Err(SendError::Disconnected { peer: self.peer });
                }
                if self.has_room(&state) {
                    return Ok(());
                }
                state.room_wanted = true;
                // `notify_waiters` counts for every future made before it, so none is missed
                // between here and the wait.
            }
            freed.await;
        }
    }

    fn has_room(&self, state: &State) -> bool {
        state.frames.is_empty()
            || (state.frames.len() <= self.limits.queue_frames / 2
                && state.bytes <= self.limits.queue_bytes / 2)
    }

    /// The next frames, at least one and no more than about `max_bytes`. Returns `None` when no
    /// more will come. For one writer at a time.
    pub(crate) async fn next(&self, max_bytes: usize) -> Option<Vec<Frame>> {
        loop {
            {
                let mut state = self.lock();
                if !state.frames.is_empty() {
                    return Some(self.take(&mut state, max_bytes));
                }
                if state.phase != Phase::Open {
                    return None;
                }
                state.writer_waits = true;
            }
            self.filled.notified().await;
        }
    }

    fn take(&self, state: &mut State, max_bytes: usize) -> Vec<Frame> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        while let Some(first) = state.frames.front() {
            bytes += first.len();
            if !batch.is_empty() && bytes > max_bytes {
                break;
            }
            batch.extend(state.take_first());
        }
        if state.room_wanted && self.has_room(state) {
            state.room_wanted = false;
            self.room.notify_waiters();
        }
        batch
    }

    /// Bytes that wait.
    pub(crate) fn waiting_bytes(&self) -> usize {
        self.lock().bytes
    }

    /// There is a connection.
    pub(crate) fn open(&self) {
        let mut state = self.lock();
        state.clear();
        state.phase = Phase::Open;
    }

    /// There is no connection any more: forgets what waits.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        self.meter.dropped.increment(state.frames.len() as u64);
        state.clear();
        state.phase = Phase::Closed;
        self.wake_all(&mut state);
    }

    /// Takes no more, so that the writer ends when it has sent what is here.
    pub(crate) fn drain(&self) {
        let mut state = self.lock();
        if state.phase == Phase::Open {
            state.phase = Phase::Draining;
        }
        self.wake_all(&mut state);
    }

    fn wake_all(&self, state: &mut State) {
        state.writer_waits = false;
        state.room_wanted = false;
        self.filled.notify_one();
        self.room.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics half way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn take_first(&mut self) -> Option<Frame> {
        let first = self.frames.pop_front()?;
        self.bytes = self.bytes.saturating_sub(first.len() + FRAME_OVERHEAD);
        Some(first)
    }

    fn clear(&mut self) {
        self.frames = VecDeque::new();
        self.bytes = 0;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use std::sync::Arc;

    fn queue(class: Class, queue_frames: usize, queue_bytes: usize) -> SendQueue {
        let limits =
            ClassLimits { queue_bytes, queue_frames, frame_bytes: 1000, unread_bytes: 1000 };
        let queue = SendQueue::new(NodeId(2), class, limits, LaneMeter::new(NodeId(2), class));
        queue.open();
        queue
    }

    fn frame(byte: u8, len: usize) -> Frame {
        Frame::from(Bytes::from(vec![byte; len]))
    }

    async fn first_bytes(queue: &SendQueue) -> Vec<u8> {
        let batch = queue.next(usize::MAX).await.unwrap();
        batch.iter().map(|frame| frame.to_bytes()[0]).collect()
    }

    #[tokio::test]
    async fn urgent_frames_push_out_the_oldest() {
        let queue = queue(Class::Urgent, 3, 100_000);
        for byte in 0..5 {
            queue.push(frame(byte, 10)).unwrap();
        }
        assert_eq!(first_bytes(&queue).await, [2, 3, 4]);
    }

    #[tokio::test]
    async fn other_frames_are_refused_when_frames_or_bytes_are_too_many() {
        let full = Err(SendError::Full { peer: NodeId(2), class: Class::Append });
        let by_count = queue(Class::Append, 2, 100_000);
        by_count.push(frame(0, 1)).unwrap();
        by_count.push(frame(1, 1)).unwrap();
        assert_eq!(by_count.push(frame(2, 1)), full);
        let by_bytes = queue(Class::Append, 100, 300);
        by_bytes.push(frame(0, 100)).unwrap();
        assert_eq!(by_bytes.push(frame(1, 100)), full);
        assert_eq!(first_bytes(&by_bytes).await, [0]);
        by_bytes.push(frame(2, 900)).unwrap();
        assert_eq!(first_bytes(&by_bytes).await, [2], "one frame alone may exceed the bound");
        let too_large = by_bytes.push(frame(3, 1001));
        assert!(matches!(too_large, Err(SendError::TooLarge { bytes: 1001, .. })));
    }

    #[tokio::test]
    async fn room_is_told_when_half_is_free_and_when_the_connection_is_lost() {
        let queue = Arc::new(queue(Class::Gateway, 4, 100_000));
        for byte in 0..4 {
            queue.push(frame(byte, 10)).unwrap();
        }
        let wait = || {
            let queue = Arc::clone(&queue);
            tokio::spawn(async move { queue.room().await })
        };
        let waiting = wait();
        while !queue.lock().room_wanted {
            tokio::task::yield_now().await;
        }
        assert_eq!(queue.next(10).await.unwrap().len(), 1);
        assert!(queue.lock().room_wanted, "three of four wait still");
        assert_eq!(queue.next(10).await.unwrap().len(), 1);
        assert_eq!(waiting.await.unwrap(), Ok(()));

        queue.push(frame(5, 10)).unwrap();
        let waiting = wait();
        while !queue.lock().room_wanted {
            tokio::task::yield_now().await;
        }
        queue.close();
        assert_eq!(waiting.await.unwrap(), Err(SendError::Disconnected { peer: NodeId(2) }));
    }

    #[tokio::test]
    async fn nothing_is_kept_without_a_connection() {
        let queue = queue(Class::Append, 4, 100_000);
        queue.push(frame(0, 10)).unwrap();
        queue.close();
        assert_eq!(queue.push(frame(1, 1)), Err(SendError::Disconnected { peer: NodeId(2) }));
        assert_eq!(queue.next(10).await, None);
        queue.open();
        queue.push(frame(2, 1)).unwrap();
        assert_eq!(first_bytes(&queue).await, [2]);
    }

    #[tokio::test]
    async fn a_drained_queue_gives_what_it_has_and_ends() {
        let queue = queue(Class::Urgent, 4, 100_000);
        queue.push(frame(7, 10)).unwrap();
        queue.drain();
        assert!(queue.push(frame(8, 10)).is_err());
        assert_eq!(first_bytes(&queue).await, [7]);
        assert_eq!(queue.next(10).await, None);
    }
}
