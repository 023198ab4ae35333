//! Between the connection's reader and one consumer: whole batches go in, whole batches come out.

use std::collections::VecDeque;
use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use flintmq_protocol::push::PushMessage;

use crate::error::ConsumeError;

/// A message as it arrived, and the number of the connection that brought it.
#[derive(Clone, Debug)]
pub(crate) struct Delivery {
    pub(crate) push: PushMessage,
    pub(crate) epoch: u64,
}

/// What happened to a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Delivered {
    /// All of it is in.
    All,
    /// The inbox is full, and nothing of it is in: the broker sends more than was asked for.
    Refused,
}

/// A mailbox that one reader fills and one consumer empties.
///
/// The broker stops by itself at the consumer's limits. `most` is a multiple of those, so that only
/// a broker that ignores them (or a broadcast queue, which has none) meets it.
#[derive(Debug)]
pub(crate) struct Inbox {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    waiting: VecDeque<Delivery>,
    waiting_bytes: u64,
    most_messages: usize,
    most_bytes: u64,
    waker: Option<Waker>,
    end: Option<ConsumeError>,
    ended: bool,
}

impl Inbox {
    pub(crate) fn new() -> Self {
        Self {
            inner: Mutex::new(Inner {
                waiting: VecDeque::new(),
                waiting_bytes: 0,
                most_messages: 0,
                most_bytes: 0,
                waker: None,
                end: None,
                ended: false,
            }),
        }
    }

    /// Sets the bound from what the consumer asks the broker for. It never shrinks: messages that
    /// were asked for earlier may be on their way.
    pub(crate) fn allow(&self, messages: u64, bytes: u64) {
        let mut inner = self.lock();
        let messages = usize::try_from(messages.saturating_mul(2)).unwrap_or(usize::MAX);
        inner.most_messages = inner.most_messages.max(messages.saturating_add(SLACK_MESSAGES));
        inner.most_bytes =
            inner.most_bytes.max(bytes.saturating_mul(2).saturating_add(SLACK_BYTES));
    }

    /// Moves a batch in, or refuses it as a whole, and wakes the consumer.
    pub(crate) fn deliver(&self, batch: &mut Vec<Delivery>) -> Delivered {
        let bytes: u64 = batch.iter().map(|delivery| delivery.push.app_data.len() as u64).sum();
        let waker = {
            let mut inner = self.lock();
            if inner.ended {
                batch.clear();
                return Delivered::All;
            }
            let full = inner.waiting.len() + batch.len() > inner.most_messages
                || inner.waiting_bytes.saturating_add(bytes) > inner.most_bytes;
            if full {
                batch.clear();
                return Delivered::Refused;
            }
            inner.waiting.extend(batch.drain(..));
            inner.waiting_bytes += bytes;
            inner.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        Delivered::All
    }

    /// Swaps everything that waits into the empty `batch`; then the end's reason once; then `None`.
    pub(crate) fn poll_batch(
        &self,
        batch: &mut VecDeque<Delivery>,
        context: &Context<'_>,
    ) -> Poll<Option<Result<(), ConsumeError>>> {
        let mut inner = self.lock();
        if !inner.waiting.is_empty() {
            mem::swap(batch, &mut inner.waiting);
            inner.waiting_bytes = 0;
            return Poll::Ready(Some(Ok(())));
        }
        if inner.ended {
            return Poll::Ready(inner.end.take().map(Err));
        }
        match &inner.waker {
            Some(waker) if waker.will_wake(context.waker()) => {}
            _ => inner.waker = Some(context.waker().clone()),
        }
        Poll::Pending
    }

    /// Drops what the consumer has not taken: its connection is gone, the broker delivers it again.
    pub(crate) fn connection_lost(&self) {
        let mut inner = self.lock();
        inner.waiting.clear();
        inner.waiting_bytes = 0;
    }

    /// No more messages will come; the first reason counts.
    pub(crate) fn end(&self, reason: Option<ConsumeError>) {
        let waker = {
            let mut inner = self.lock();
            if inner.ended {
                return;
            }
            inner.ended = true;
            inner.end = reason;
            inner.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.lock().waiting.is_empty()
    }

    /// Whether [`end`](Self::end) was called.
    pub(crate) fn has_ended(&self) -> bool {
        self.lock().ended
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const SLACK_MESSAGES: usize = 1024;
/// The largest message, which a broker may send when less than the limit is outstanding, and then
/// some.
const SLACK_BYTES: u64 = 80 << 20;
