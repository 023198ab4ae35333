//! What waits for the log writer: a queue with a bound in bytes and in number.
//!
//! The room of a request is taken until the writer has reported it, so the bound holds for
//! everything on its way to the disk.

use crate::small_writes::{SMALL_BYTES, SMALL_REQUESTS};
use flintmq_consensus::{GroupId, HardState, Index, SnapshotId};
use flintmq_log_store::{
    AppendBatch, CheckpointBatch, HardStates, NewGroup, Report, Sink, StagedPiece,
};
use flintmq_log_store::{Refused, RefusedReason, StorageError};
use std::collections::{BTreeSet, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, mpsc};

/// One request to the writer.
pub(crate) struct Request {
    pub(crate) group: GroupId,
    pub(crate) size: usize,
    pub(crate) work: Work,
}

/// What to do.
pub(crate) enum Work {
    Register(Sink),
    Create(NewGroup),
    Drop,
    Remove,
    Append(AppendBatch),
    Reset { write: u64 },
    HardState { save: u64, state: HardState },
    HardStates(HardStates),
    Checkpoint(CheckpointBatch),
    Rejoined,
    Stage(StagedPiece),
    Install { id: SnapshotId, keep_log_after: bool },
}

/// Whether a batch brings new messages. What helps to get rid of old ones has a quarter of the room
/// on top, so that a flood of messages cannot lock it out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    Growing,
    Relief,
}

/// What one fsync has made durable.
pub(crate) type SyncedMarks = Vec<(GroupId, SyncMark)>;

/// How far a group was written when an fsync began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SyncMark {
    pub(crate) upto: Index,
    /// How often the group's log had been truncated. If it has been since, the mark says nothing.
    pub(crate) truncations: u64,
}

/// What the writer takes out at a time.
#[derive(Default)]
pub(crate) struct Delivery {
    pub(crate) requests: Vec<Request>,
    pub(crate) synced: Vec<SyncedMarks>,
    /// Everything before this was delivered; end, and say so here.
    pub(crate) close: Option<mpsc::Sender<()>>,
    /// End at once, and tell everybody of this.
    pub(crate) failed: Option<StorageError>,
    /// End at once and say nothing, like a process that dies.
    pub(crate) abandon: bool,
}

/// See the module.
pub(crate) struct Inbox {
    state: Mutex<State>,
    arrived: Condvar,
    max_bytes: usize,
    max_requests: usize,
}

#[derive(Default)]
struct State {
    delivery: Delivery,
    queue: VecDeque<Request>,
    /// Of everything that is not reported yet, waiting or being written.
    bytes: usize,
    requests: usize,
    /// Groups that were refused for want of room.
    starved: BTreeSet<GroupId>,
    stopped: Stopped,
    /// The writer is gone.
    ended: bool,
}

#[derive(Default)]
enum Stopped {
    #[default]
    No,
    Closed,
    Failed(StorageError),
}

impl Inbox {
    pub(crate) fn new(max_bytes: usize, max_requests: usize) -> Self {
        Self { state: Mutex::default(), arrived: Condvar::new(), max_bytes, max_requests }
    }

    /// Puts a batch in, if there is room for it. Tells whether nothing waited before; whoever puts
    /// the first one in has to see to it that it is written.
    pub(crate) fn push<T>(
        &self,
        group: GroupId,
        (size, class): (usize, Class),
        batch: T,
        work: impl FnOnce(T) -> Work,
    ) -> Result<bool, Refused<T>> {
        let max_bytes = match class {
            Class::Growing => self.max_bytes,
            Class::Relief => self.max_bytes + self.max_bytes / 4,
        };
        if size > max_bytes {
            let reason = RefusedReason::TooLarge { bytes: size, limit: max_bytes };
            return Err(Refused { returned: batch, reason });
        }
        let mut state = self.lock();
        if !matches!(state.stopped, Stopped::No) {
            return Err(Refused { returned: batch, reason: RefusedReason::Stopped });
        }
        if state.bytes + size > max_bytes || state.requests >= self.max_requests {
            state.starved.insert(group);
            return Err(Refused { returned: batch, reason: RefusedReason::Full });
        }
        Ok(state.add(Request { group, size, work: work(batch) }))
    }

    /// Puts in what must not wait behind messages: hard states and life and death of groups. It has
    /// as many places of its own as batches have.
    pub(crate) fn push_urgent<T>(
        &self,
        group: GroupId,
        value: T,
        work: impl FnOnce(T) -> Work,
    ) -> Result<(), Refused<T>> {
        let mut state = self.lock();
        if !matches!(state.stopped, Stopped::No) {
            return Err(Refused { returned: value, reason: RefusedReason::Stopped });
        }
        if state.requests >= self.max_requests.saturating_mul(2) {
            state.starved.insert(group);
            return Err(Refused { returned: value, reason: RefusedReason::Full });
        }
        self.add_and_wake(state, Request { group, size: 0, work: work(value) });
        Ok(())
    }

    /// Puts a sink in; after a failure it is told at once.
    pub(crate) fn register(&self, group: GroupId, sink: Sink) {
        let state = self.lock();
        match &state.stopped {
            Stopped::Failed(error) => {
                let error = error.clone();
                drop(state);
                sink(Report::Failed(error));
            }
            Stopped::Closed => {}
            Stopped::No => {
                self.add_and_wake(state, Request { group, size: 0, work: Work::Register(sink) });
            }
        }
    }

    /// Tells the writer what an fsync has made durable.
    pub(crate) fn push_synced(&self, marks: SyncedMarks) {
        self.lock().delivery.synced.push(marks);
        self.arrived.notify_one();
    }

    /// Ends the writer for good because of an error elsewhere.
    pub(crate) fn fail(&self, error: StorageError) {
        let mut state = self.lock();
        if matches!(state.stopped, Stopped::No) {
            state.stopped = Stopped::Failed(error.clone());
        }
        state.delivery.failed.get_or_insert(error);
        self.arrived.notify_one();
    }

    /// Takes no more requests. The writer does what waits, then answers; `None` if it has ended.
    pub(crate) fn close(&self) -> Option<mpsc::Receiver<()>> {
        let (done, closed) = mpsc::channel();
        let mut state = self.lock();
        if matches!(state.stopped, Stopped::No) {
            state.stopped = Stopped::Closed;
        }
        if state.ended {
            return None;
        }
        state.delivery.close = Some(done);
        self.arrived.notify_one();
        Some(closed)
    }

    /// The writer has ended, for whatever reason: nobody takes anything out any more.
    pub(crate) fn end(&self) {
        let mut state = self.lock();
        if matches!(state.stopped, Stopped::No) {
            state.stopped = Stopped::Closed;
        }
        state.ended = true;
        // Whoever waits for the end learns of it because the other side is gone.
        state.delivery.close = None;
        state.queue.clear();
    }

    /// Takes no more requests and forgets what waits.
    pub(crate) fn abandon(&self) {
        let mut state = self.lock();
        if matches!(state.stopped, Stopped::No) {
            state.stopped = Stopped::Closed;
        }
        state.delivery.abandon = true;
        self.arrived.notify_one();
    }

    /// Waits until there is something to do.
    pub(crate) fn wait(&self) {
        let mut state = self.lock();
        while state.queue.is_empty() && !state.delivery.has_news() {
            state = self.arrived.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Wakes the writer's thread.
    pub(crate) fn wake_writer(&self) {
        self.arrived.notify_one();
    }

    /// Takes everything that waits, if it is little and all of it is as wanted; gives `room` back
    /// otherwise.
    pub(crate) fn take_small(
        &self,
        is_wanted: impl Fn(&Request) -> bool,
        mut room: Vec<Request>,
    ) -> Result<Delivery, Vec<Request>> {
        let mut state = self.lock();
        let bytes: usize = state.queue.iter().map(|request| request.size).sum();
        let fits = state.queue.len() <= SMALL_REQUESTS && bytes <= SMALL_BYTES;
        if !fits || state.delivery.has_news() || !state.queue.iter().all(is_wanted) {
            return Err(room);
        }
        room.extend(state.queue.drain(..));
        Ok(Delivery { requests: room, ..Delivery::default() })
    }

    /// Takes what there is to do: requests up to about `max_bytes`.
    pub(crate) fn take(&self, max_bytes: usize, requests: Vec<Request>) -> Delivery {
        debug_assert!(requests.is_empty());
        let mut state = self.lock();
        let mut delivery = std::mem::take(&mut state.delivery);
        delivery.requests = requests;
        let mut bytes = 0;
        while bytes < max_bytes {
            let Some(request) = state.queue.pop_front() else { break };
            bytes += request.size;
            delivery.requests.push(request);
        }
        if !state.queue.is_empty() {
            // Not everything yet: the end comes with the last delivery.
            state.delivery.close = delivery.close.take();
        }
        delivery
    }

    /// Gives the room of reported requests back; returns the groups that wait for room.
    pub(crate) fn release(&self, bytes: usize, requests: usize) -> BTreeSet<GroupId> {
        let mut state = self.lock();
        state.bytes -= bytes;
        state.requests -= requests;
        // Half empty, so that a sender that is woken can send more than one batch.
        if state.bytes <= self.max_bytes / 2 && state.requests <= self.max_requests / 2 {
            std::mem::take(&mut state.starved)
        } else {
            BTreeSet::new()
        }
    }

    /// Bytes that are not reported yet.
    pub(crate) fn bytes(&self) -> usize {
        self.lock().bytes
    }

    fn add_and_wake(&self, mut state: MutexGuard<'_, State>, request: Request) {
        let first = state.add(request);
        drop(state);
        if first {
            self.wake_writer();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves plain numbers behind, never a half-done step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// True when nothing waited before: a writer that is busy finds the rest by itself.
    fn add(&mut self, request: Request) -> bool {
        self.bytes += request.size;
        self.requests += 1;
        self.queue.push_back(request);
        self.queue.len() == 1
    }
}

impl Delivery {
    fn has_news(&self) -> bool {
        self.close.is_some() || self.failed.is_some() || self.abandon || !self.synced.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(inbox: &Inbox, size: usize) -> Result<(), RefusedReason> {
        let batch = AppendBatch::default();
        inbox
            .push(GroupId(1), (size, Class::Growing), batch, Work::Append)
            .map(|_| ())
            .map_err(|refused| refused.reason)
    }

    #[test]
    fn room_is_taken_until_it_is_released() {
        let inbox = Inbox::new(100, 10);
        assert_eq!(push(&inbox, 60), Ok(()));
        assert_eq!(push(&inbox, 60), Err(RefusedReason::Full));
        let taken = inbox.take(1000, Vec::new());
        assert_eq!(taken.requests.len(), 1);
        assert_eq!(push(&inbox, 60), Err(RefusedReason::Full), "still being written");
        assert_eq!(inbox.release(60, 1), BTreeSet::from([GroupId(1)]));
        assert_eq!(push(&inbox, 60), Ok(()));
        assert_eq!(
            push(&inbox, 101),
            Err(RefusedReason::TooLarge { bytes: 101, limit: 100 }),
            "would never fit"
        );
    }

    #[test]
    fn what_frees_space_passes_a_flood_of_messages() {
        let inbox = Inbox::new(100, 10);
        assert_eq!(push(&inbox, 100), Ok(()));
        assert_eq!(push(&inbox, 1), Err(RefusedReason::Full));
        let relief = |size| {
            let batch = CheckpointBatch::default();
            inbox.push(GroupId(1), (size, Class::Relief), batch, Work::Checkpoint).is_ok()
        };
        assert!(relief(25));
        assert!(!relief(1), "but not without bound");
    }

    #[test]
    fn the_number_of_requests_is_bounded_too() {
        let inbox = Inbox::new(100, 2);
        assert_eq!((push(&inbox, 1), push(&inbox, 1)), (Ok(()), Ok(())));
        assert_eq!(push(&inbox, 1), Err(RefusedReason::Full));
        let urgent = || inbox.push_urgent(GroupId(1), (), |()| Work::Rejoined).is_ok();
        assert!(urgent() && urgent(), "urgent ones have places of their own");
        assert!(!urgent(), "but not without bound");
    }

    #[test]
    fn a_write_is_cut_at_its_size_and_closing_comes_last() {
        let inbox = Inbox::new(100, 10);
        for _ in 0..3 {
            push(&inbox, 10).unwrap();
        }
        let _closed = inbox.close().unwrap();
        assert_eq!(push(&inbox, 1), Err(RefusedReason::Stopped));
        let first = inbox.take(20, Vec::new());
        assert_eq!((first.requests.len(), first.close.is_some()), (2, false));
        let second = inbox.take(20, Vec::new());
        assert_eq!((second.requests.len(), second.close.is_some()), (1, true));
    }

    #[test]
    fn nobody_waits_for_a_writer_that_has_ended() {
        let inbox = Inbox::new(100, 10);
        let closed = inbox.close().unwrap();
        inbox.end();
        assert!(closed.recv().is_err());
        assert!(inbox.close().is_none());
    }

    #[test]
    fn a_late_sink_hears_of_the_failure() {
        let inbox = Inbox::new(100, 10);
        let error = StorageError::Sync { detail: "no".to_owned() };
        inbox.fail(error.clone());
        let (sender, seen) = mpsc::channel();
        inbox.register(GroupId(1), Box::new(move |report| sender.send(report).unwrap()));
        assert_eq!(seen.try_recv(), Ok(Report::Failed(error)));
    }
}
