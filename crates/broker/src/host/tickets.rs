//! Answers on their way to those who asked.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustc_hash::FxHashMap;
use tokio::sync::oneshot;

/// Who waits for which answer. An answer to a ticket whose owner has gone is dropped; the ticket
/// goes with the answer, so that what is in here is bounded by what is asked.
pub(crate) struct Tickets<A> {
    next: AtomicU64,
    waiting: Mutex<FxHashMap<u64, oneshot::Sender<A>>>,
}

impl<A> Default for Tickets<A> {
    fn default() -> Self {
        Self { next: AtomicU64::new(1), waiting: Mutex::default() }
    }
}

impl<A> Tickets<A> {
    /// A new ticket, and where its answer comes.
    pub(crate) fn issue(&self) -> (u64, oneshot::Receiver<A>) {
        let ticket = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, answer) = oneshot::channel();
        self.lock().insert(ticket, sender);
        (ticket, answer)
    }

    /// The answer is there.
    pub(crate) fn answer(&self, ticket: u64, answer: A) {
        if let Some(sender) = self.lock().remove(&ticket) {
            let _gone = sender.send(answer);
        }
    }

    /// No answer will ever come: all who wait are told so.
    pub(crate) fn close(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, FxHashMap<u64, oneshot::Sender<A>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
