//! Sessions: one connection to one broker at a time, and all that is open over it.

pub(crate) mod core;
pub(crate) mod inbox;
mod link;
mod opening;
mod outbox;
pub(crate) mod queues;
mod reader;
pub(crate) mod requests;
mod supervisor;
pub(crate) mod unacknowledged;
mod writer;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use flintmq_protocol::guid::GuidGenerator;

use self::core::{Core, RequestError};
use self::link::{Identity, random_number};
use self::requests::OnSuccess;
use self::supervisor::{Backoff, Dialler, supervise};
use crate::consumer::Consumer;
use crate::error::{CloseError, ConnectError, OpenError};
use crate::event::SessionEvents;
use crate::options::{ConsumerOptions, ProducerOptions, SessionOptions};
use crate::producer::Producer;

/// A session with a broker. It keeps itself alive: when the connection breaks it finds a broker
/// again, opens all queues again, and sends what was not acknowledged once more under the same
/// identities.
///
/// Clones share the session. It ends with [`disconnect`](Self::disconnect), or in the background
/// when the last of its handles (sessions, producers, consumers) is dropped.
#[derive(Clone, Debug)]
pub struct Session {
    lifeline: Arc<Lifeline>,
}

impl Session {
    /// Connects to the first broker that accepts, trying all of them again until
    /// [`connect_timeout`](SessionOptions::connect_timeout).
    ///
    /// Must be called within a tokio runtime with I/O and time enabled; the session's tasks run
    /// there.
    ///
    /// # Errors
    /// See [`ConnectError`].
    pub async fn connect(options: SessionOptions) -> Result<Self, ConnectError> {
        let identity = Identity::new();
        let guids = GuidGenerator::new(identity.client_id());
        let dialler = Dialler::new(&options, identity)?;
        let waited = options.connect_timeout;
        let mut last_problem = "no attempt ended in time".to_owned();
        let attempts = async {
            let mut backoff = Backoff::new(&options);
            loop {
                match dialler.round(&options).await {
                    Ok(link) => return link,
                    Err(problem) => last_problem = problem,
                }
                tokio::time::sleep(backoff.pause(random_number(0))).await;
            }
        };
        let Ok(link) = tokio::time::timeout(waited, attempts).await else {
            return Err(ConnectError::TimedOut { waited, last_problem });
        };
        let core = Arc::new(Core::new(options, guids, tokio::runtime::Handle::current()));
        tokio::spawn(supervise(Arc::clone(&core), dialler, link));
        core.until_restored().await;
        Ok(Self { lifeline: Arc::new(Lifeline { core }) })
    }

    /// Opens a queue for publishing: `bmq://domain/queue`.
    ///
    /// A lost connection is no failure: the open goes on after the reconnect, until
    /// [`open_timeout`](SessionOptions::open_timeout). Cancelling the wait takes the open back.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn producer(
        &self,
        uri: &str,
        options: ProducerOptions,
    ) -> Result<Producer, OpenError> {
        opening::producer(&self.lifeline, uri, &options).await
    }

    /// Opens a queue for consuming: `bmq://domain/queue`, or `bmq://domain/queue?id=app` for an app
    /// of a fanout queue. Messages may arrive as soon as this returns.
    ///
    /// # Errors
    /// See [`OpenError`]; cancelling and lost connections are as with [`producer`](Self::producer).
    pub async fn consumer(
        &self,
        uri: &str,
        options: ConsumerOptions,
    ) -> Result<Consumer, OpenError> {
        opening::consumer(&self.lifeline, uri, options).await
    }

    /// What happens to the session from now on.
    #[must_use]
    pub fn events(&self) -> SessionEvents {
        self.lifeline.core.events()
    }

    /// Ends the session: everything queued so far is sent, the broker is told, and every handle is
    /// closed. Messages without acknowledgement end with
    /// [`PublishError::Closed`](crate::PublishError::Closed): [`flush`](Producer::flush) first.
    ///
    /// # Errors
    /// The broker did not answer as it should; the session has ended nevertheless.
    pub async fn disconnect(self) -> Result<(), CloseError> {
        self.lifeline.core.disconnect().await
    }
}

impl Core {
    async fn disconnect(&self) -> Result<(), CloseError> {
        if self.is_closed() {
            return Ok(());
        }
        self.disconnecting.store(true, Ordering::Relaxed);
        let waited = self.options.disconnect_timeout;
        let request = flintmq_protocol::control::ControlChoice::Disconnect;
        let answer = self.request(request, OnSuccess::Nothing, Instant::now() + waited).await;
        self.close();
        match answer {
            // A broker may close the connection instead of answering.
            Ok(_) => Ok(()),
            Err(RequestError::NotConnected) => Err(CloseError::ConnectionLost),
            Err(error) => Err(CloseError::from_request(error, waited)),
        }
    }
}

/// Ends the session when the last handle is gone.
#[derive(Debug)]
pub(crate) struct Lifeline {
    pub(crate) core: Arc<Core>,
}

impl Drop for Lifeline {
    fn drop(&mut self) {
        if self.core.is_closed() {
            return;
        }
        let core = Arc::clone(&self.core);
        self.core.runtime.spawn(async move {
            if let Err(error) = core.disconnect().await {
                tracing::debug!(%error, "a dropped session ended badly");
            }
        });
    }
}
