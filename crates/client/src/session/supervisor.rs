//! The life of a session: connect, restore, run until the connection breaks, and again.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use flintmq_protocol::control::ControlChoice;
use flintmq_protocol::event::HEARTBEAT_REQUEST;

use crate::address::Scheme;
use crate::consumer::{ConsumerShared, configure};
use crate::control;
use crate::error::{ConnectError, ConsumeError};
use crate::event::SessionEvent;
use crate::options::SessionOptions;
use crate::producer::ProducerShared;
use crate::session::core::{Core, RequestError};
use crate::session::link::{Identity, Link, dial, random_number};
use crate::session::queues::{Open, Role};
use crate::session::reader::Reader;
use crate::session::requests::OnSuccess;
use crate::session::writer::write_loop;
use crate::tls;

/// Finds a broker and negotiates; used for the first connection and for every later one.
#[derive(Debug)]
pub(crate) struct Dialler {
    identity: Identity,
    tls: Option<Arc<rustls::ClientConfig>>,
}

impl Dialler {
    pub(crate) fn new(options: &SessionOptions, identity: Identity) -> Result<Self, ConnectError> {
        if options.brokers.is_empty() {
            return Err(ConnectError::NoBroker);
        }
        let needs_tls = options.brokers.iter().any(|broker| broker.scheme() == Scheme::Tls);
        let tls = needs_tls.then(|| tls::client_config(&options.tls)).transpose()?;
        Ok(Self { identity, tls })
    }

    /// Tries each broker once. Gives the last problem when none accepts.
    pub(crate) async fn round(&self, options: &SessionOptions) -> Result<Link, String> {
        let mut problem = String::new();
        for broker in &options.brokers {
            match dial(broker, options, self.tls.as_ref(), &self.identity).await {
                Ok(link) => return Ok(link),
                Err(error) => {
                    tracing::debug!(%broker, %error, "no session");
                    problem = format!("{error} broker={broker}");
                }
            }
        }
        Err(problem)
    }
}

/// The pauses between rounds: doubling up to a limit, up to half of each taken off at random.
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
    most: Duration,
}

impl Backoff {
    pub(crate) fn new(options: &SessionOptions) -> Self {
        Self { next: options.reconnect_delay, most: options.reconnect_max_delay }
    }

    pub(crate) fn pause(&mut self, random: u64) -> Duration {
        let whole = self.next.min(self.most);
        self.next = whole.saturating_mul(2).min(self.most);
        let half = u64::try_from(whole.as_nanos() / 2).unwrap_or(u64::MAX);
        whole - Duration::from_nanos(if half == 0 { 0 } else { random % half })
    }
}

/// Runs the session until it is closed.
pub(crate) async fn supervise(core: Arc<Core>, dialler: Dialler, first: Link) {
    let mut link = first;
    let mut reconnected = false;
    loop {
        let broker = link.broker.to_string();
        let reason = run_link(&core, link, reconnected.then_some(broker)).await;
        core.link_down();
        if core.is_closed() || core.disconnecting.load(Ordering::Relaxed) {
            core.close();
            return;
        }
        tracing::info!(%reason, "connection lost");
        core.tell(SessionEvent::ConnectionLost { reason });
        let again = tokio::select! {
            link = reconnect(&core, &dialler) => link,
            () = core.until_closed() => return,
        };
        link = again;
        reconnected = true;
    }
}

async fn reconnect(core: &Core, dialler: &Dialler) -> Link {
    let mut backoff = Backoff::new(&core.options);
    loop {
        match dialler.round(&core.options).await {
            Ok(link) => return link,
            Err(problem) => tracing::debug!(problem, "no broker accepts the session"),
        }
        core.expire();
        tokio::time::sleep(backoff.pause(random_number(0))).await;
        core.expire();
    }
}

/// Runs one connection until it breaks or the session is closed; gives the reason.
async fn run_link(core: &Arc<Core>, link: Link, reconnected: Option<String>) -> String {
    let epoch = core.link_up(link.features);
    let writing = tokio::spawn(write_loop(Arc::clone(core), link.writer));
    let mut writing = AbortOnDrop(writing);
    let reader = Reader::new(Arc::clone(core), epoch);
    let restoring = async {
        match reconnected {
            None => {
                core.restored();
            }
            Some(broker) => {
                tracing::info!(%broker, "reconnected");
                core.tell(SessionEvent::Reconnected { broker });
                if let Err(reason) = restore(core).await {
                    return reason;
                }
            }
        }
        std::future::pending().await
    };
    tokio::select! {
        reason = reader.run(link.reader, link.received) => reason,
        written = &mut writing.0 => match written {
            Ok(error) => format!("writing failed: {error}"),
            Err(error) => format!("the writer ended: {error}"),
        },
        reason = watch_silence(core, link.heartbeat) => reason,
        reason = restoring => reason,
        () = core.until_closed() => "the session is closed".to_owned(),
    }
}

struct AbortOnDrop<T>(tokio::task::JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Asks for a sign of life after every silent interval; ends after too many.
async fn watch_silence(core: &Core, heartbeat: Option<(Duration, u32)>) -> String {
    let Some((interval, most)) = heartbeat else {
        return std::future::pending().await;
    };
    let mut seen = core.reads.load(Ordering::Relaxed);
    let mut missed = 0;
    loop {
        tokio::time::sleep(interval).await;
        let reads = core.reads.load(Ordering::Relaxed);
        if reads != seen {
            (seen, missed) = (reads, 0);
            continue;
        }
        missed += 1;
        if missed > most {
            return format!(
                "the broker gave no sign of life intervals={missed} interval={interval:?}"
            );
        }
        core.send_event(Bytes::from_static(&HEARTBEAT_REQUEST));
    }
}

/// Opens every queue again, all at once; then sends what was not acknowledged. An error means that
/// the connection is of no use.
async fn restore(core: &Arc<Core>) -> Result<(), String> {
    let deadline = Instant::now() + core.options.open_timeout;
    let mut reopening = tokio::task::JoinSet::new();
    for handle in core.lock().queues.open() {
        let core = Arc::clone(core);
        reopening.spawn(async move {
            match handle {
                Open::Producer(producer) => reopen_producer(&core, &producer, deadline).await,
                Open::Consumer(consumer) => reopen_consumer(&core, &consumer, deadline).await,
            }
        });
    }
    while let Some(result) = reopening.join_next().await {
        match result {
            Ok(Ok(())) => {}
            Ok(Err(RequestError::TimedOut)) => {
                return Err("a queue was not reopened in time".to_owned());
            }
            Ok(Err(_)) => return Err("the connection broke while queues were reopened".to_owned()),
            Err(error) => return Err(format!("reopening a queue failed: {error}")),
        }
    }
    let retransmitted = core.restored();
    tracing::info!(retransmitted, "state restored");
    core.tell(SessionEvent::StateRestored { retransmitted });
    Ok(())
}

async fn reopen_producer(
    core: &Arc<Core>,
    producer: &Arc<ProducerShared>,
    deadline: Instant,
) -> Result<(), RequestError> {
    if producer.check_open().is_err() {
        return Ok(());
    }
    let handle = control::producer_handle(&producer.uri, producer.queue_id);
    match core.request(control::open_queue(handle), OnSuccess::Nothing, deadline).await {
        Ok(reply) => {
            if let ControlChoice::OpenQueueResponse(response) = reply {
                producer.set_broker_memory(response.deduplication_time_ms);
            }
            core.tell(SessionEvent::QueueReopened { uri: producer.uri.clone() });
            Ok(())
        }
        Err(RequestError::Refused(status)) => {
            let reason = format!("{}: {}", status.category, status.message);
            core.end_producer(producer, &reason);
            core.remove_handle(producer.queue_id, &Role::Producer);
            core.tell(SessionEvent::QueueLost { uri: producer.uri.clone(), reason });
            Ok(())
        }
        Err(error) => Err(error),
    }
}

async fn reopen_consumer(
    core: &Arc<Core>,
    consumer: &Arc<ConsumerShared>,
    deadline: Instant,
) -> Result<(), RequestError> {
    let _one_at_a_time = consumer.operation.lock().await;
    if consumer.inbox.has_ended() {
        return Ok(());
    }
    let open = control::open_queue(consumer.handle());
    let opened = core.request(open, OnSuccess::Nothing, deadline).await;
    let mut configured = false;
    let result = match opened {
        Ok(_) => {
            configured = true;
            configure(core, consumer, deadline).await
        }
        Err(error) => Err(error),
    };
    match result {
        Ok(()) => {
            core.tell(SessionEvent::QueueReopened { uri: consumer.uri.clone() });
            Ok(())
        }
        Err(RequestError::Refused(status)) => {
            let reason = format!("{}: {}", status.category, status.message);
            let uri = consumer.uri.clone();
            core.remove_handle(consumer.ids.queue_id, &consumer.role());
            if configured {
                core.close_unattended(consumer.handle());
            }
            let lost = ConsumeError::QueueLost { uri: uri.clone(), reason: reason.clone() };
            consumer.inbox.end(Some(lost));
            core.tell(SessionEvent::QueueLost { uri, reason });
            Ok(())
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_limit_and_are_never_longer() {
        let options = SessionOptions {
            reconnect_delay: Duration::from_millis(100),
            reconnect_max_delay: Duration::from_millis(450),
            ..SessionOptions::default()
        };
        let mut backoff = Backoff::new(&options);
        for most in [100, 200, 400, 450, 450] {
            let mut same = Backoff { ..backoff };
            let pause = backoff.pause(u64::MAX);
            assert!(pause <= Duration::from_millis(most), "{pause:?}");
            assert!(pause > Duration::from_millis(most / 2), "{pause:?}");
            assert_eq!(same.pause(0), Duration::from_millis(most));
        }
        let mut none = Backoff { next: Duration::ZERO, most: Duration::ZERO };
        assert_eq!(none.pause(7), Duration::ZERO);
    }
}
