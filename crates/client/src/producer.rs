//! Publishing: acknowledged futures, bounded in flight.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use flintmq_protocol::compression::{Compression, Deflater};
use flintmq_protocol::guid::MessageGuid;
use tokio::sync::{Semaphore, SemaphorePermit, oneshot};

use crate::control;
use crate::error::{CloseError, PublishError, TryPublishError};
use crate::options::ProducerOptions;
use crate::outgoing::{OutgoingMessage, Prepared};
use crate::session::Lifeline;
use crate::session::queues::Role;
use crate::session::requests::OnSuccess;
use crate::session::unacknowledged::Outcome;

/// Publishes to one queue. Clones share the queue and its limits; the queue is closed, after the
/// last acknowledgement, when [`close`](Self::close) is called or the last clone is dropped.
///
/// Messages that one task enqueues are stored in the order of the calls.
#[derive(Clone, Debug)]
pub struct Producer {
    inner: Arc<Inner>,
}

/// The broker has stored a message as safely as the queue's domain asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acked {
    /// The message's identity: consumers see the same.
    pub guid: MessageGuid,
}

impl Producer {
    /// Publishes a message and waits until the broker has stored it.
    ///
    /// After a lost connection the message is sent again under the same identity, so that it is
    /// stored once. Cancelling the wait does not take the message back.
    ///
    /// # Errors
    /// See [`PublishError`]; [`PublishError::Expired`] and [`PublishError::Closed`] leave open
    /// whether the message was stored.
    pub async fn publish(
        &self,
        message: impl Into<OutgoingMessage>,
    ) -> Result<Acked, PublishError> {
        self.enqueue(message).await?.await
    }

    /// Takes a message as soon as the in-flight limits have room for it, and gives a future for its
    /// acknowledgement. Everything enqueued while the connection is busy leaves in one write, so
    /// enqueue many before awaiting the first.
    ///
    /// Cancelling the wait for room drops the message; dropping the [`AckFuture`] does not.
    ///
    /// # Errors
    /// The message was not taken: it is empty or too large, or the producer is closed.
    pub async fn enqueue(
        &self,
        message: impl Into<OutgoingMessage>,
    ) -> Result<AckFuture, PublishError> {
        let shared = &self.inner.shared;
        let prepared = self.prepare(message.into())?;
        let byte_permits = shared.permits_for(prepared.app_data.len());
        let closed = |_| shared.closed_error();
        let message = shared.messages.acquire().await.map_err(closed)?;
        let bytes = shared.bytes.acquire_many(byte_permits).await.map_err(closed)?;
        self.accept(prepared, message, bytes, byte_permits)
    }

    /// Takes a message if there is room for it now.
    ///
    /// # Errors
    /// [`TryPublishError::Full`] gives the message back; else as [`enqueue`](Self::enqueue).
    pub fn try_enqueue(
        &self,
        message: impl Into<OutgoingMessage>,
    ) -> Result<AckFuture, TryPublishError> {
        let shared = &self.inner.shared;
        let message = message.into();
        shared.check_open()?;
        let Ok(message_permit) = shared.messages.try_acquire() else {
            return Err(TryPublishError::Full(message));
        };
        let prepared = self.prepare(message.clone())?;
        let byte_permits = shared.permits_for(prepared.app_data.len());
        let Ok(bytes) = shared.bytes.try_acquire_many(byte_permits) else {
            return Err(TryPublishError::Full(message));
        };
        Ok(self.accept(prepared, message_permit, bytes, byte_permits)?)
    }

    /// Waits until every message taken so far, by any clone, has its answer.
    pub async fn flush(&self) {
        self.inner.shared.flush().await;
    }

    /// The queue's address.
    #[must_use]
    pub fn uri(&self) -> &str {
        &self.inner.shared.uri
    }

    /// Waits for the outstanding acknowledgements, then closes the queue for all clones. What other
    /// clones enqueue meanwhile may end with [`PublishError::Closed`]. Calling it again does
    /// nothing.
    ///
    /// # Errors
    /// The acknowledgements or the broker's answer did not come within
    /// [`close_timeout`](crate::SessionOptions::close_timeout), or the connection was gone. The
    /// producer is closed nevertheless; messages on their way end with
    /// [`PublishError::Closed`].
    pub async fn close(&self) -> Result<(), CloseError> {
        close(&self.inner.lifeline, &self.inner.shared).await
    }

    pub(crate) fn new(shared: Arc<ProducerShared>, lifeline: Arc<Lifeline>) -> Self {
        Self { inner: Arc::new(Inner { shared, lifeline }) }
    }

    fn prepare(&self, message: OutgoingMessage) -> Result<Prepared, PublishError> {
        let extended = || self.inner.lifeline.core.lock().features.extended_properties;
        self.inner.shared.prepare(message, extended)
    }

    fn accept(
        &self,
        prepared: Prepared,
        message: SemaphorePermit<'_>,
        bytes: SemaphorePermit<'_>,
        byte_permits: u32,
    ) -> Result<AckFuture, PublishError> {
        let shared = &self.inner.shared;
        let put = prepared.into_put(shared.queue_id);
        let outcome = self.inner.lifeline.core.publish(shared, put, byte_permits)?;
        // Given back by the answer.
        message.forget();
        bytes.forget();
        Ok(AckFuture { outcome, producer: Arc::clone(shared) })
    }
}

/// Resolves when the broker has answered for one message.
#[must_use = "the acknowledgement tells whether the message was stored"]
pub struct AckFuture {
    outcome: oneshot::Receiver<Outcome>,
    producer: Arc<ProducerShared>,
}

impl Future for AckFuture {
    type Output = Result<Acked, PublishError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.outcome).poll(context).map(|outcome| match outcome {
            Ok(Ok(guid)) => Ok(Acked { guid }),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(self.producer.closed_error()),
        })
    }
}

impl fmt::Debug for AckFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AckFuture").field("uri", &self.producer.uri).finish_non_exhaustive()
    }
}

/// What the session keeps of a producer.
#[derive(Debug)]
pub(crate) struct ProducerShared {
    pub(crate) uri: String,
    pub(crate) queue_id: u32,
    /// Kept from one message to the next when messages are compressed, to save its set-up.
    deflater: Option<Mutex<Deflater>>,
    /// Free places in flight.
    messages: Semaphore,
    bytes: Semaphore,
    most_messages: u32,
    most_bytes: u32,
    /// Milliseconds for which the broker remembers GUIDs.
    memory_ms: AtomicU64,
    /// Why it is closed, once it is.
    closed: Mutex<Option<String>>,
}

impl ProducerShared {
    pub(crate) fn new(uri: String, queue_id: u32, options: &ProducerOptions) -> Self {
        let bounded = |value: usize| u32::try_from(value.max(1)).unwrap_or(u32::MAX);
        let most_messages = bounded(options.max_in_flight_messages.min(Semaphore::MAX_PERMITS));
        let most_bytes = bounded(options.max_in_flight_bytes.min(Semaphore::MAX_PERMITS));
        Self {
            uri,
            queue_id,
            deflater: (options.compression == Compression::Zlib).then(Mutex::default),
            messages: Semaphore::new(most_messages as usize),
            bytes: Semaphore::new(most_bytes as usize),
            most_messages,
            most_bytes,
            memory_ms: AtomicU64::new(DEFAULT_MEMORY_MS),
            closed: Mutex::new(None),
        }
    }

    /// For how long a message may be sent again.
    pub(crate) fn broker_memory(&self) -> Duration {
        Duration::from_millis(self.memory_ms.load(Ordering::Relaxed))
    }

    /// As the broker said when it opened the queue.
    pub(crate) fn set_broker_memory(&self, milliseconds: i32) {
        let milliseconds = u64::try_from(milliseconds).ok().filter(|ms| *ms > 0);
        self.memory_ms.store(milliseconds.unwrap_or(DEFAULT_MEMORY_MS), Ordering::Relaxed);
    }

    /// Gives places in flight back.
    pub(crate) fn release(&self, messages: usize, bytes: usize) {
        self.messages.add_permits(messages);
        self.bytes.add_permits(bytes);
    }

    /// No more messages are taken; the first reason counts.
    pub(crate) fn close(&self, reason: &str) {
        let mut closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner);
        closed.get_or_insert_with(|| reason.to_owned());
        self.messages.close();
        self.bytes.close();
    }

    pub(crate) fn check_open(&self) -> Result<(), PublishError> {
        if self.messages.is_closed() { Err(self.closed_error()) } else { Ok(()) }
    }

    pub(crate) fn closed_error(&self) -> PublishError {
        let closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner);
        let reason = closed.as_deref().unwrap_or("the session is closed").to_owned();
        PublishError::Closed { uri: self.uri.clone(), reason }
    }

    fn prepare(
        &self,
        message: OutgoingMessage,
        extended: impl FnOnce() -> bool,
    ) -> Result<Prepared, PublishError> {
        match &self.deflater {
            None => message.prepare(None, extended),
            Some(deflater) => {
                let mut deflater = deflater.lock().unwrap_or_else(PoisonError::into_inner);
                message.prepare(Some(&mut deflater), extended)
            }
        }
    }

    fn permits_for(&self, bytes: usize) -> u32 {
        u32::try_from(bytes).unwrap_or(u32::MAX).min(self.most_bytes)
    }

    /// Waits until nothing is in flight, or the producer is closed. Whoever wants a place meanwhile
    /// queues up behind.
    async fn flush(&self) {
        let _all = self.messages.acquire_many(self.most_messages).await;
    }
}

#[derive(Debug)]
struct Inner {
    shared: Arc<ProducerShared>,
    lifeline: Arc<Lifeline>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        if self.shared.check_open().is_err() {
            return;
        }
        let (shared, lifeline) = (Arc::clone(&self.shared), Arc::clone(&self.lifeline));
        lifeline.core.lock().queues.dropped(shared.queue_id, &Role::Producer);
        self.lifeline.core.runtime.spawn(async move {
            if let Err(error) = close(&lifeline, &shared).await {
                tracing::debug!(%error, uri = %shared.uri, "a dropped producer closed badly");
            }
        });
    }
}

const DEFAULT_MEMORY_MS: u64 = 300_000;

async fn close(lifeline: &Lifeline, shared: &Arc<ProducerShared>) -> Result<(), CloseError> {
    let core = &lifeline.core;
    if shared.check_open().is_err() {
        return Ok(());
    }
    let waited = core.options.close_timeout;
    let deadline = Instant::now() + waited;
    let flushed = tokio::time::timeout_at(deadline.into(), shared.flush()).await;
    if shared.check_open().is_err() {
        return Ok(());
    }
    let is_final = core.lock().queues.closing(shared.queue_id, &Role::Producer);
    core.end_producer(shared, "it was closed");
    let handle = control::producer_handle(&shared.uri, shared.queue_id);
    let request = control::close_queue(handle, is_final);
    let answer = core.request(request, OnSuccess::Nothing, deadline).await;
    core.remove_handle(shared.queue_id, &Role::Producer);
    match (flushed, answer) {
        (Err(_), _) => Err(CloseError::TimedOut { waited }),
        (Ok(()), Ok(_)) => Ok(()),
        (Ok(()), Err(error)) => Err(CloseError::from_request(error, waited)),
    }
}
