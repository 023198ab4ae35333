//! Consuming: a stream of messages, and confirmations.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use flintmq_protocol::control::QueueHandleParameters;
use flintmq_protocol::guid::MessageGuid;
use futures_core::Stream;

use crate::control;
use crate::error::{CloseError, ConfigureError, ConfirmError, ConsumeError};
use crate::incoming::{Message, SharedInflater};
use crate::options::{ConsumerOptions, Subscription};
use crate::session::Lifeline;
use crate::session::core::{Core, RequestError};
use crate::session::inbox::{Delivery, Inbox};
use crate::session::queues::{HandleIds, Role};
use crate::session::requests::OnSuccess;

/// Gets the messages of one queue, or of one app of it. It is a
/// [`Stream`](futures_core::Stream) of messages;
/// [`recv`](Self::recv) does without stream adapters.
///
/// Every message must be [confirmed](Message::confirm) when it is done with. What is not confirmed
/// when the consumer is closed or dropped, or when the connection is lost, is delivered again: to
/// whoever consumes the queue then, this consumer after a reconnect included.
#[derive(Debug)]
pub struct Consumer {
    /// Taken from the inbox in one go, not yet given out.
    batch: VecDeque<Delivery>,
    confirmer: Arc<Confirmer>,
    lifeline: Arc<Lifeline>,
    /// The latest connection seen: what older ones brought is delivered again.
    epoch: u64,
    closed: bool,
}

impl Consumer {
    /// The next message; `None` after [`close`](Self::close).
    ///
    /// Cancelling the wait loses nothing.
    ///
    /// # Errors
    /// The consumer has ended for another reason; the call after that gives `None`.
    pub async fn recv(&mut self) -> Result<Option<Message>, ConsumeError> {
        std::future::poll_fn(|context| self.poll_message(context)).await.transpose()
    }

    /// The next message if one is here already.
    pub fn try_recv(&mut self) -> Option<Message> {
        let mut context = Context::from_waker(std::task::Waker::noop());
        if self.batch.is_empty() && self.confirmer.shared.inbox.is_empty() {
            return None;
        }
        match self.poll_message(&mut context) {
            Poll::Ready(Some(Ok(message))) => Some(message),
            _ => None,
        }
    }

    /// Confirms a message by its identity, for applications that do not keep the [`Message`]
    /// itself. A broker ignores identities that it has not delivered over this connection.
    ///
    /// # Errors
    /// The connection that brought the latest messages is gone: this one will be delivered again.
    pub fn confirm(&self, guid: MessageGuid) -> Result<(), ConfirmError> {
        self.confirmer.confirm(guid, self.epoch)
    }

    /// Changes priority, limits and subscriptions; delivery goes on meanwhile.
    ///
    /// # Errors
    /// The former options stay in force, except after [`ConfigureError::ConnectionLost`].
    pub async fn reconfigure(&self, options: ConsumerOptions) -> Result<(), ConfigureError> {
        control::check(&options).map_err(|reason| ConfigureError::InvalidOptions { reason })?;
        let (core, shared) = (&self.lifeline.core, &self.confirmer.shared);
        let _one_at_a_time = shared.operation.lock().await;
        if shared.inbox.has_ended() {
            return Err(ConfigureError::Closed);
        }
        let former = std::mem::replace(&mut *shared.options(), options);
        let waited = core.options.configure_timeout;
        match configure(core, shared, Instant::now() + waited).await {
            Ok(()) => Ok(()),
            Err(RequestError::NotConnected) if core.is_closed() => Err(ConfigureError::Closed),
            Err(RequestError::NotConnected) => Err(ConfigureError::ConnectionLost),
            Err(RequestError::TimedOut) => {
                *shared.options() = former;
                Err(ConfigureError::TimedOut { waited })
            }
            Err(RequestError::Refused(status)) => {
                *shared.options() = former;
                Err(ConfigureError::Refused { category: status.category, message: status.message })
            }
        }
    }

    /// The queue's address, with the app id where there is one.
    #[must_use]
    pub fn uri(&self) -> &str {
        &self.confirmer.shared.uri
    }

    /// How many messages were turned away because they were more than this consumer had asked for.
    /// Only broadcast queues do that, to consumers that are too slow.
    #[must_use]
    pub fn turned_away(&self) -> u64 {
        self.confirmer.shared.turned_away.load(Ordering::Relaxed)
    }

    /// Ends delivery and closes the queue. Confirmations made before the call are sent first;
    /// messages not confirmed go to other consumers. Dropping the consumer does the same without
    /// waiting.
    ///
    /// # Errors
    /// The broker did not answer as it should; the consumer is closed nevertheless.
    pub async fn close(mut self) -> Result<(), CloseError> {
        self.closed = true;
        close(&self.lifeline.core, &self.confirmer.shared).await
    }

    pub(crate) fn new(shared: Arc<ConsumerShared>, lifeline: Arc<Lifeline>) -> Self {
        let confirmer = Arc::new(Confirmer {
            core: Arc::clone(&lifeline.core),
            shared,
            inflater: SharedInflater::default(),
        });
        Self { batch: VecDeque::new(), confirmer, lifeline, epoch: 0, closed: false }
    }

    fn poll_message(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Message, ConsumeError>>> {
        loop {
            if self.batch.is_empty() {
                match self.confirmer.shared.inbox.poll_batch(&mut self.batch, context) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(None) => return Poll::Ready(None),
                    Poll::Ready(Some(Err(end))) => return Poll::Ready(Some(Err(end))),
                    Poll::Ready(Some(Ok(()))) => {
                        // Once per batch: what an earlier connection brought comes again.
                        self.epoch = self.lifeline.core.lock().epoch;
                    }
                }
            }
            while let Some(delivery) = self.batch.pop_front() {
                if delivery.epoch >= self.epoch {
                    let confirmer = Arc::clone(&self.confirmer);
                    return Poll::Ready(Some(Ok(Message::new(delivery, confirmer))));
                }
            }
        }
    }
}

impl Stream for Consumer {
    type Item = Result<Message, ConsumeError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_message(context)
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        if self.closed || self.confirmer.shared.inbox.has_ended() {
            return;
        }
        let (lifeline, shared) = (Arc::clone(&self.lifeline), Arc::clone(&self.confirmer.shared));
        lifeline.core.lock().queues.dropped(shared.ids.queue_id, &shared.role());
        self.lifeline.core.runtime.spawn(async move {
            if let Err(error) = close(&lifeline.core, &shared).await {
                tracing::debug!(%error, uri = %shared.uri, "a dropped consumer closed badly");
            }
        });
    }
}

/// Lets messages confirm themselves, without keeping the consumer open.
#[derive(Debug)]
pub(crate) struct Confirmer {
    core: Arc<Core>,
    shared: Arc<ConsumerShared>,
    inflater: SharedInflater,
}

impl Confirmer {
    pub(crate) fn inflate(&self, data: &[u8], most: usize) -> Result<Bytes, String> {
        self.inflater.inflate(data, most)
    }

    pub(crate) fn confirm(&self, guid: MessageGuid, epoch: u64) -> Result<(), ConfirmError> {
        if self.shared.inbox.has_ended() {
            return Err(ConfirmError::Closed { guid });
        }
        if self.shared.at_most_once.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.core.confirm(self.shared.ids, guid, epoch)
    }
}

/// What the session keeps of a consumer.
#[derive(Debug)]
pub(crate) struct ConsumerShared {
    /// With `?id=`, where there is an app.
    pub(crate) uri: String,
    pub(crate) ids: HandleIds,
    pub(crate) app_id: Option<String>,
    pub(crate) inbox: Inbox,
    pub(crate) turned_away: AtomicU64,
    /// Nothing is confirmed: a broadcast queue.
    pub(crate) at_most_once: AtomicBool,
    /// Held by whoever opens, configures or closes: the protocol allows one of these at a time.
    pub(crate) operation: tokio::sync::Mutex<()>,
    options: Mutex<ConsumerOptions>,
}

impl ConsumerShared {
    pub(crate) fn new(
        uri: String,
        ids: HandleIds,
        app_id: Option<String>,
        options: ConsumerOptions,
    ) -> Self {
        Self {
            uri,
            ids,
            app_id,
            inbox: Inbox::new(),
            turned_away: AtomicU64::new(0),
            at_most_once: AtomicBool::new(false),
            operation: tokio::sync::Mutex::new(()),
            options: Mutex::new(options),
        }
    }

    pub(crate) fn handle(&self) -> QueueHandleParameters {
        control::consumer_handle(&self.uri, self.ids, self.app_id.as_deref())
    }

    pub(crate) fn role(&self) -> Role {
        Role::Consumer(self.app_id.clone())
    }

    fn options(&self) -> MutexGuard<'_, ConsumerOptions> {
        self.options.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks the broker to deliver as the consumer's options say. The caller holds `operation`.
pub(crate) async fn configure(
    core: &Core,
    shared: &Arc<ConsumerShared>,
    deadline: Instant,
) -> Result<(), RequestError> {
    let subscriptions = shared.options().effective_subscriptions();
    let messages = subscriptions.iter().map(|one| u64::from(one.max_unconfirmed_messages)).sum();
    let bytes =
        subscriptions.iter().fold(0, |sum: u64, one| sum.saturating_add(one.max_unconfirmed_bytes));
    shared.inbox.allow(messages, bytes);
    request_stream(core, shared, &subscriptions, deadline).await
}

async fn request_stream(
    core: &Core,
    shared: &Arc<ConsumerShared>,
    subscriptions: &[Subscription],
    deadline: Instant,
) -> Result<(), RequestError> {
    let app_id = shared.app_id.as_deref();
    let known = core.lock().features.subscriptions;
    let (request, ids) = if known {
        let ids = core.subscription_ids(subscriptions.len());
        (control::configure_stream(shared.ids, app_id, subscriptions, &ids), ids)
    } else {
        // Such a broker has one subscription without expression, and names it by the sub-queue id.
        let subscription = subscriptions.first();
        let ids = subscription.map(|_| shared.ids.sub_queue_id).into_iter().collect();
        (control::configure_queue_stream(shared.ids, app_id, subscription), ids)
    };
    let route = OnSuccess::Route { consumer: Arc::clone(shared), ids };
    core.request(request, route, deadline).await.map(drop)
}

async fn close(core: &Core, shared: &Arc<ConsumerShared>) -> Result<(), CloseError> {
    let waited = core.options.close_timeout;
    let deadline = Instant::now() + waited;
    // Whatever goes on (a reconfigure, a reopen) sees the end and must not outlast the time either.
    let lock = tokio::time::timeout_at(deadline.into(), shared.operation.lock());
    let Ok(_one_at_a_time) = lock.await else {
        shared.inbox.end(None);
        core.remove_handle(shared.ids.queue_id, &shared.role());
        return Err(CloseError::TimedOut { waited });
    };
    if shared.inbox.has_ended() {
        return Ok(());
    }
    shared.inbox.end(None);
    // A refusal here changes nothing: the close follows.
    let stopped = request_stream(core, shared, &[], deadline).await;
    let is_final = core.lock().queues.closing(shared.ids.queue_id, &shared.role());
    let answer = match stopped {
        Ok(()) | Err(RequestError::Refused(_)) => {
            let request = control::close_queue(shared.handle(), is_final);
            core.request(request, OnSuccess::Unroute(Arc::clone(shared)), deadline).await.map(drop)
        }
        Err(error) => Err(error),
    };
    core.remove_handle(shared.ids.queue_id, &shared.role());
    answer.map_err(|error| CloseError::from_request(error, waited))
}
