//! Small writes, done by the thread that asks for them.
//!
//! A write of a few KiB into the page cache takes less time than to wake the writer's thread and to
//! be woken by it. So whoever asks for one does it itself, when the writer has nothing to do and
//! the disk keeps up; in all other cases the writer's thread does it, with everything else that
//! waits.

use crate::inbox::{Inbox, Request, Work};
use crate::log_writer::{LogWriter, Round};
use crate::statistics::Counters;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, TryLockError};
use std::time::{Duration, Instant};

/// Bytes of requests that are written at once, at most.
pub(crate) const SMALL_BYTES: usize = 16 << 10;

/// Requests that are written at once, at most.
pub(crate) const SMALL_REQUESTS: usize = 8;

/// A small write that takes longer than this shows that the disk does not keep up.
const SLOW: Duration = Duration::from_millis(2);

/// How long all writes are left to the writer's thread after a slow one.
const AVOID: Duration = Duration::from_millis(500);

/// The log writer, for its own thread and for those who have little to write.
pub(crate) struct SharedWriter {
    /// `None` once it has ended.
    writer: Mutex<Option<LogWriter>>,
    inbox: Arc<Inbox>,
    counters: Arc<Counters>,
    began: Instant,
    /// Until when nobody writes at once, in microseconds since `began`.
    avoid_until: AtomicU64,
}

impl SharedWriter {
    pub(crate) fn new(writer: LogWriter) -> Self {
        Self {
            inbox: Arc::clone(&writer.inbox),
            counters: Arc::clone(&writer.counters),
            writer: Mutex::new(Some(writer)),
            began: Instant::now(),
            avoid_until: AtomicU64::new(0),
        }
    }

    /// The writer's thread: works until the inbox is closed, abandoned or failed.
    pub(crate) fn run(&self) {
        let _end = End(&self.inbox);
        // What an earlier run left to be cleared does not announce itself.
        let mut round = Round::Clearing;
        loop {
            if round == Round::Idle {
                self.inbox.wait();
            }
            // Poisoned: a small write has panicked, so nobody knows what was written.
            let Ok(mut shared) = self.writer.lock() else { return };
            let Some(writer) = shared.as_mut() else { return };
            round = writer.round();
            if round == Round::Ended {
                *shared = None;
                return;
            }
        }
    }

    /// Sees to it that what was just put into the inbox is written: at once if that is a small
    /// matter, by the writer's thread otherwise. `size`: bytes put in; `first`: nothing waited
    /// before.
    pub(crate) fn arrived(&self, size: usize, first: bool) {
        let is_done = size <= SMALL_BYTES && self.write_small();
        // Who was first has woken the writer for all that came behind.
        if !is_done && first {
            self.inbox.wake_writer();
        }
    }

    fn write_small(&self) -> bool {
        let began = self.began.elapsed();
        if u128::from(self.avoid_until.load(Relaxed)) > began.as_micros() {
            return false;
        }
        if self.counters.stalled_families.load(Relaxed) > 0 {
            return false;
        }
        let mut shared = match self.writer.try_lock() {
            Ok(shared) => shared,
            Err(TryLockError::WouldBlock | TryLockError::Poisoned(_)) => return false,
        };
        let is_done = shared.as_mut().is_some_and(LogWriter::write_small);
        drop(shared);
        let now = self.began.elapsed();
        if now.saturating_sub(began) > SLOW {
            let until = (now + AVOID).as_micros();
            self.avoid_until.store(u64::try_from(until).unwrap_or(u64::MAX), Relaxed);
        }
        is_done
    }
}

/// Whether this kind of request is no more than a write into the page cache.
pub(crate) fn is_small(request: &Request) -> bool {
    match &request.work {
        Work::Append(batch) => batch.truncate_from.is_none(),
        Work::Checkpoint(_) => true,
        _ => false,
    }
}

/// Tells the inbox that the writer is gone, even if it panics.
struct End<'a>(&'a Inbox);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}
