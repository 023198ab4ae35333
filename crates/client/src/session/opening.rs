//! Opening queues: reserve ids, ask the broker, and start again when the connection breaks
//! meanwhile.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use flintmq_protocol::control::{ControlChoice, QueueHandleParameters};
use flintmq_protocol::flags::RoutingFlags;
use flintmq_protocol::uri::QueueUri;

use crate::consumer::{Consumer, ConsumerShared, configure};
use crate::control;
use crate::error::OpenError;
use crate::options::{ConsumerOptions, ProducerOptions};
use crate::producer::{Producer, ProducerShared};
use crate::session::Lifeline;
use crate::session::core::{Core, RequestError};
use crate::session::queues::{HandleIds, Open, Role, Taken};
use crate::session::requests::OnSuccess;

/// Opens a queue for publishing.
pub(crate) async fn producer(
    lifeline: &Arc<Lifeline>,
    uri: &str,
    options: &ProducerOptions,
) -> Result<Producer, OpenError> {
    let parsed = parse(uri)?;
    if parsed.app_id().is_some() {
        return Err(OpenError::AppIdOnProducer { uri: uri.to_owned() });
    }
    let core = &lifeline.core;
    let attempt = Attempt::new(core, uri);
    let mut reservation = attempt.reserve(&parsed, Role::Producer).await?;
    let queue_id = reservation.ids.queue_id;
    let shared = Arc::new(ProducerShared::new(uri.to_owned(), queue_id, options));
    let handle = control::producer_handle(uri, queue_id);
    loop {
        let epoch = attempt.until_restored().await?;
        match attempt.open(&handle).await? {
            None => continue,
            Some(opened) => shared.set_broker_memory(opened.memory_ms),
        }
        reservation.granted = Some((epoch, handle.clone()));
        if reservation.keep(epoch, || Open::Producer(Arc::clone(&shared))) {
            return Ok(Producer::new(shared, Arc::clone(lifeline)));
        }
    }
}

/// Opens a queue for consuming.
pub(crate) async fn consumer(
    lifeline: &Arc<Lifeline>,
    uri: &str,
    options: ConsumerOptions,
) -> Result<Consumer, OpenError> {
    let parsed = parse(uri)?;
    control::check(&options).map_err(|reason| OpenError::InvalidOptions { reason })?;
    let app_id = parsed.app_id().map(str::to_owned);
    let core = &lifeline.core;
    let attempt = Attempt::new(core, uri);
    let mut reservation = attempt.reserve(&parsed, Role::Consumer(app_id.clone())).await?;
    let shared = Arc::new(ConsumerShared::new(uri.to_owned(), reservation.ids, app_id, options));
    let handle = shared.handle();
    loop {
        let epoch = attempt.until_restored().await?;
        let Some(opened) = attempt.open(&handle).await? else { continue };
        reservation.granted = Some((epoch, handle.clone()));
        // Broadcast queues know no confirmations.
        let at_most_once = opened.routing.contains(RoutingFlags::AT_MOST_ONCE);
        shared.at_most_once.store(at_most_once, Ordering::Relaxed);
        match configure(core, &shared, attempt.deadline).await {
            Ok(()) => {}
            Err(RequestError::NotConnected) => continue,
            Err(RequestError::TimedOut) => return Err(attempt.timed_out()),
            Err(RequestError::Refused(status)) => return Err(attempt.refused(status)),
        }
        if reservation.keep(epoch, || Open::Consumer(Arc::clone(&shared))) {
            return Ok(Consumer::new(shared, Arc::clone(lifeline)));
        }
    }
}

fn parse(uri: &str) -> Result<QueueUri, OpenError> {
    QueueUri::parse(uri)
        .map_err(|error| OpenError::InvalidUri { uri: uri.to_owned(), reason: error.to_string() })
}

/// One call to open, over as many connections as its time allows.
struct Attempt<'a> {
    core: &'a Core,
    uri: &'a str,
    waited: Duration,
    deadline: Instant,
}

/// What the broker said about an opened queue.
struct Opened {
    memory_ms: i32,
    routing: RoutingFlags,
}

impl<'a> Attempt<'a> {
    fn new(core: &'a Core, uri: &'a str) -> Self {
        let waited = core.options.open_timeout;
        Self { core, uri, waited, deadline: Instant::now() + waited }
    }

    /// Ids for the new handle; waits for a handle in the same role that is being closed.
    async fn reserve(&self, uri: &QueueUri, role: Role) -> Result<Reservation<'a>, OpenError> {
        loop {
            let removed = self.core.queue_removed.notified();
            if self.core.is_closed() {
                return Err(OpenError::SessionClosed);
            }
            let reserved = self.core.lock().queues.reserve(uri.canonical(), role.clone());
            match reserved {
                Ok(ids) => {
                    return Ok(Reservation {
                        core: self.core,
                        ids,
                        role,
                        granted: None,
                        kept: false,
                    });
                }
                Err(Taken::Open) => {
                    return Err(OpenError::AlreadyOpen { uri: self.uri.to_owned() });
                }
                Err(Taken::Closing) => {
                    let wait = tokio::time::timeout_at(self.deadline.into(), removed);
                    wait.await.map_err(|_| self.timed_out())?;
                }
            }
        }
    }

    /// Waits for a connection; gives its number.
    async fn until_restored(&self) -> Result<u64, OpenError> {
        tokio::time::timeout_at(self.deadline.into(), self.core.until_restored())
            .await
            .map_err(|_| self.timed_out())?
            .ok_or(OpenError::SessionClosed)
    }

    /// Asks the broker; `None` when the connection was lost meanwhile.
    async fn open(&self, handle: &QueueHandleParameters) -> Result<Option<Opened>, OpenError> {
        let request = control::open_queue(handle.clone());
        let on_success = OnSuccess::Opened(handle.clone());
        match self.core.request(request, on_success, self.deadline).await {
            Ok(ControlChoice::OpenQueueResponse(response)) => Ok(Some(Opened {
                memory_ms: response.deduplication_time_ms,
                routing: response.routing_configuration.flags,
            })),
            Ok(_) => Err(OpenError::Refused {
                uri: self.uri.to_owned(),
                category: flintmq_protocol::control::StatusCategory::Unknown,
                message: "the broker's answer does not fit the request".to_owned(),
            }),
            Err(RequestError::NotConnected) => Ok(None),
            Err(RequestError::TimedOut) => Err(self.timed_out()),
            Err(RequestError::Refused(status)) => Err(self.refused(status)),
        }
    }

    fn timed_out(&self) -> OpenError {
        OpenError::TimedOut { uri: self.uri.to_owned(), waited: self.waited }
    }

    fn refused(&self, status: flintmq_protocol::control::Status) -> OpenError {
        OpenError::Refused {
            uri: self.uri.to_owned(),
            category: status.category,
            message: status.message,
        }
    }
}

/// Ids that are given back, and an open that is taken back, unless the handle is kept.
struct Reservation<'a> {
    core: &'a Core,
    ids: HandleIds,
    role: Role,
    /// What the broker has opened, and over which connection.
    granted: Option<(u64, QueueHandleParameters)>,
    kept: bool,
}

impl Reservation<'_> {
    /// Hands the open queue over to the session, which opens it again after every reconnect; not if
    /// the connection it was opened over is gone.
    fn keep(&mut self, epoch: u64, open: impl FnOnce() -> Open) -> bool {
        let mut state = self.core.lock();
        self.kept = state.epoch == epoch && state.phase == super::core::Phase::Restored;
        if self.kept {
            state.queues.opened(self.ids, open());
        }
        self.kept
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        self.core.remove_handle(self.ids.queue_id, &self.role);
        if let Some((epoch, handle)) = self.granted.take() {
            let still_there = {
                let state = self.core.lock();
                state.epoch == epoch && state.phase == super::core::Phase::Restored
            };
            if still_there {
                self.core.close_unattended(handle);
            }
        }
    }
}
