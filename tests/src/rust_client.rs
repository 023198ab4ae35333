//! Producers and consumers with the Rust client, in this process. Unlike the official client they
//! are given several brokers, and go to the next one when theirs is gone.
//!
//! Each keeps the [`Record`]s of what it saw, for a [`History`](crate::history::History). What must
//! not happen whatever breaks (a refused message, a queue that is not opened again, a session that
//! does not end properly) fails the test when the client is stopped.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use flintmq_client::{
    Consumer, ConsumerOptions, Producer, ProducerOptions, Session, SessionEvent, SessionEvents,
    SessionOptions,
};
use tokio::runtime::Runtime;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use crate::clock;
use crate::history::{Record, What};
use crate::wait::{LIMIT, until};

/// Bytes of a message.
const SIZE: usize = 200;

/// Most unacknowledged messages of a producer.
const WINDOW: usize = 500;

/// Messages leave in bursts, one each so often.
const BURST: Duration = Duration::from_millis(10);

/// Publishes numbered messages to one queue until it is stopped.
#[derive(Debug)]
pub struct RustProducer {
    client: Client,
}

/// Reads one queue, and confirms, until it is stopped.
#[derive(Debug)]
pub struct RustConsumer {
    client: Client,
}

#[derive(Debug)]
struct Client {
    seen: Arc<Seen>,
    task: JoinHandle<()>,
}

/// What a client saw so far.
#[derive(Debug)]
struct Seen {
    name: String,
    records: Mutex<Vec<Record>>,
    failures: Mutex<Vec<String>>,
    /// Acknowledged or delivered messages.
    messages: AtomicUsize,
    interruptions: AtomicUsize,
    broker: Mutex<String>,
    stopping: AtomicBool,
    stop: Notify,
}

impl RustProducer {
    /// Connects to the first of `brokers`, which must answer, opens the queue, and publishes about
    /// `rate` messages per second. Ids begin with `name`.
    ///
    /// # Panics
    /// When no broker answers or the queue cannot be opened.
    #[track_caller]
    pub fn start(brokers: &[String], name: &str, uri: &str, rate: u32) -> Self {
        Self::start_with(brokers, name, uri, WINDOW, Some(rate))
    }

    /// The same, each message as soon as the one before is acknowledged: as many entries of the log
    /// as possible.
    ///
    /// # Panics
    /// When no broker answers or the queue cannot be opened.
    #[track_caller]
    pub fn one_by_one(brokers: &[String], name: &str, uri: &str) -> Self {
        Self::start_with(brokers, name, uri, 1, None)
    }

    #[track_caller]
    fn start_with(
        brokers: &[String],
        name: &str,
        uri: &str,
        window: usize,
        rate: Option<u32>,
    ) -> Self {
        let seen = Seen::new(name, brokers);
        let (session, events) = connect(brokers, name);
        let options =
            ProducerOptions { max_in_flight_messages: window, ..ProducerOptions::default() };
        let producer = runtime().block_on(session.producer(uri, options)).expect("the queue opens");
        let task = runtime().spawn(publish(Arc::clone(&seen), session, events, producer, rate));
        Self { client: Client { seen, task } }
    }

    /// How many messages were acknowledged so far.
    pub fn acknowledged(&self) -> usize {
        self.client.seen.messages.load(Ordering::Relaxed)
    }

    /// Waits until `more` messages have been acknowledged from now on.
    ///
    /// # Panics
    /// When they are not.
    #[track_caller]
    pub fn wait_for(&self, more: usize) {
        self.client.wait_for(more, "acknowledgements");
    }

    /// How often the connection broke.
    pub fn interruptions(&self) -> usize {
        self.client.seen.interruptions.load(Ordering::Relaxed)
    }

    /// The broker that it is connected to, or was last.
    pub fn broker(&self) -> String {
        lock(&self.client.seen.broker).clone()
    }

    /// Sends nothing more, waits for all acknowledgements, and ends the session properly.
    ///
    /// # Panics
    /// When a message was refused, or the session does not end.
    #[track_caller]
    pub fn stop(self) -> Vec<Record> {
        self.client.stop()
    }
}

impl RustConsumer {
    /// Connects to the first of `brokers`, which must answer, and opens the queue.
    ///
    /// # Panics
    /// When no broker answers or the queue cannot be opened.
    #[track_caller]
    pub fn start(brokers: &[String], name: &str, uri: &str) -> Self {
        let seen = Seen::new(name, brokers);
        let (session, events) = connect(brokers, name);
        let opening = session.consumer(uri, ConsumerOptions::default());
        let consumer = runtime().block_on(opening).expect("the queue opens");
        let task = runtime().spawn(consume(Arc::clone(&seen), session, events, consumer));
        Self { client: Client { seen, task } }
    }

    /// Waits until `more` messages have been delivered from now on.
    ///
    /// # Panics
    /// When they are not.
    #[track_caller]
    pub fn wait_for(&self, more: usize) {
        self.client.wait_for(more, "deliveries");
    }

    /// How often the connection broke.
    pub fn interruptions(&self) -> usize {
        self.client.seen.interruptions.load(Ordering::Relaxed)
    }

    /// The broker that it is connected to, or was last.
    pub fn broker(&self) -> String {
        lock(&self.client.seen.broker).clone()
    }

    /// Closes the queue and ends the session properly.
    ///
    /// # Panics
    /// When the session does not end.
    #[track_caller]
    pub fn stop(self) -> Vec<Record> {
        self.client.stop()
    }
}

impl Client {
    #[track_caller]
    fn wait_for(&self, more: usize, what: &str) {
        let count = || self.seen.messages.load(Ordering::Relaxed);
        let wanted = count() + more;
        let name = &self.seen.name;
        until(&format!("{more} more {what} for {name}"), || {
            let failures = lock(&self.seen.failures);
            assert!(failures.is_empty(), "{name}: {failures:?}");
            (count() >= wanted).then_some(())
        });
    }

    #[track_caller]
    fn stop(self) -> Vec<Record> {
        let Self { seen, task } = self;
        seen.stopping.store(true, Ordering::Relaxed);
        seen.stop.notify_one();
        let ended = runtime().block_on(async { tokio::time::timeout(LIMIT, task).await });
        let name = &seen.name;
        match ended {
            Ok(Ok(())) => {}
            Ok(Err(panic)) => panic!("{name}: {panic}"),
            Err(_) => panic!("{name} did not end within {LIMIT:?}"),
        }
        let failures = lock(&seen.failures);
        assert!(failures.is_empty(), "{name}: {failures:?}");
        std::mem::take(&mut *lock(&seen.records))
    }
}

impl Seen {
    fn new(name: &str, brokers: &[String]) -> Arc<Self> {
        Arc::new(Self {
            name: name.to_owned(),
            records: Mutex::default(),
            failures: Mutex::default(),
            messages: AtomicUsize::new(0),
            interruptions: AtomicUsize::new(0),
            broker: Mutex::new(brokers.first().cloned().unwrap_or_default()),
            stopping: AtomicBool::new(false),
            stop: Notify::new(),
        })
    }

    fn record(&self, what: What) {
        if what == What::Interrupted {
            self.interruptions.fetch_add(1, Ordering::Relaxed);
        }
        let record = Record { at: clock::now(), client: self.name.clone(), what };
        lock(&self.records).push(record);
    }

    fn on_event(&self, event: Option<SessionEvent>) {
        match event {
            Some(SessionEvent::ConnectionLost { .. }) => self.record(What::Interrupted),
            Some(SessionEvent::Reconnected { broker }) => *lock(&self.broker) = broker,
            Some(SessionEvent::QueueLost { uri, reason }) => {
                self.fail(format!("the queue was not opened again: {uri} {reason}"));
            }
            _ => {}
        }
    }

    fn fail(&self, what: String) {
        lock(&self.failures).push(what);
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }
}

async fn publish(
    seen: Arc<Seen>,
    session: Session,
    mut events: SessionEvents,
    producer: Producer,
    rate: Option<u32>,
) {
    let (sender, mut sent) = mpsc::unbounded_channel();
    let answers = tokio::spawn({
        let seen = Arc::clone(&seen);
        async move {
            // The broker answers one queue's messages in order.
            while let Some((id, answer)) = sent.recv().await {
                let answer: flintmq_client::AckFuture = answer;
                match answer.await {
                    Ok(_) => {
                        seen.record(What::Acknowledged(id));
                        seen.messages.fetch_add(1, Ordering::Relaxed);
                    }
                    Err(error) => seen.fail(format!("{id}: {error}")),
                }
            }
        }
    });
    let events = tokio::spawn({
        let seen = Arc::clone(&seen);
        async move {
            loop {
                let event = events.next().await;
                if matches!(event, None | Some(SessionEvent::Disconnected)) {
                    return;
                }
                seen.on_event(event);
            }
        }
    });
    let mut burst = tokio::time::interval(BURST);
    burst.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let per_burst = rate.map_or(1, |rate| (rate / 100).max(1));
    let mut sequence = 0u64;
    'sending: loop {
        if rate.is_some() {
            burst.tick().await;
        }
        for _ in 0..per_burst {
            if seen.is_stopping() {
                break 'sending;
            }
            sequence += 1;
            let id = format!("{}:{sequence}", seen.name);
            seen.record(What::Sent(id.clone()));
            match producer.enqueue(payload(&id)).await {
                Ok(answer) => drop(sender.send((id, answer))),
                Err(error) => {
                    seen.fail(format!("{id}: {error}"));
                    break 'sending;
                }
            }
        }
    }
    drop(sender);
    if let Err(error) = answers.await {
        seen.fail(error.to_string());
    }
    if let Err(error) = producer.close().await {
        seen.fail(error.to_string());
    }
    end(&seen, session).await;
    events.abort();
}

async fn consume(
    seen: Arc<Seen>,
    session: Session,
    mut events: SessionEvents,
    mut consumer: Consumer,
) {
    loop {
        let message = tokio::select! {
            biased;
            event = events.next() => {
                seen.on_event(event);
                continue;
            }
            message = consumer.recv() => message,
            () = seen.stop.notified() => break,
        };
        // An interruption that came while the message was waited for comes before it.
        while let Some(event) = now_or_never(events.next()).await {
            seen.on_event(event);
        }
        let message = match message {
            Ok(Some(message)) => message,
            Ok(None) => break,
            Err(error) => {
                seen.fail(error.to_string());
                break;
            }
        };
        let (id, intact) = match message.payload() {
            Ok(bytes) => read(&bytes),
            Err(error) => (error.to_string(), false),
        };
        let guid = message.guid().to_string();
        seen.record(What::Delivered { id: id.clone(), guid, intact });
        seen.messages.fetch_add(1, Ordering::Relaxed);
        seen.record(What::Confirmed(id.clone()));
        if message.confirm().is_err() {
            // It came over a connection that is gone by now.
            seen.record(What::NotConfirmed(id));
            seen.record(What::Interrupted);
        }
    }
    if let Err(error) = consumer.close().await {
        seen.fail(error.to_string());
    }
    end(&seen, session).await;
}

async fn end(seen: &Seen, session: Session) {
    match session.disconnect().await {
        Ok(()) => seen.record(What::Ended),
        Err(error) => seen.fail(error.to_string()),
    }
}

async fn now_or_never<T>(future: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        done = future => Some(done),
        () = std::future::ready(()) => None,
    }
}

#[track_caller]
pub(crate) fn connect(brokers: &[String], name: &str) -> (Session, SessionEvents) {
    let brokers = brokers.iter().map(|url| url.parse().expect("a broker's address"));
    let options = SessionOptions {
        process_name: name.to_owned(),
        attempt_timeout: Duration::from_secs(2),
        ..SessionOptions::new(brokers)
    };
    let session = runtime().block_on(Session::connect(options)).expect("a broker answers");
    let events = session.events();
    (session, events)
}

/// The bytes of a message: its id, repeated.
fn payload(id: &str) -> Vec<u8> {
    let mut bytes = format!("{id} ").repeat(SIZE / id.len() + 1).into_bytes();
    bytes.truncate(SIZE.max(id.len() + 1));
    bytes
}

/// The id of a message, and whether its bytes are exactly those that were sent.
fn read(bytes: &[u8]) -> (String, bool) {
    let id = bytes.split(|byte| *byte == b' ').next().unwrap_or_default();
    let id = String::from_utf8_lossy(id).into_owned();
    let intact = payload(&id) == bytes;
    (id, intact)
}

/// One runtime for all clients of a test program.
pub(crate) fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(2).enable_all().build().expect("a runtime")
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_tells_its_id_and_its_damage() {
        let mut bytes = payload("p0:17");
        assert_eq!(bytes.len(), SIZE);
        assert_eq!(read(&bytes), ("p0:17".to_owned(), true));
        bytes[100] ^= 1;
        assert!(!read(&bytes).1);
        assert!(!read(&bytes[..150]).1);
    }
}
