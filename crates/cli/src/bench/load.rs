//! The tasks that publish and consume.

use std::collections::VecDeque;
use std::future::Future as _;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use flintmq_client::{AckFuture, Consumer, ConsumerOptions, Producer, ProducerOptions, Session};
use hdrhistogram::Histogram;
use tokio::sync::watch;

use super::BenchArgs;
use super::pacer::Pacer;
use super::sequence::{Seen, Stamp};

/// The run's clock, and the part of it that is measured.
#[derive(Clone, Debug)]
pub(crate) struct Clock {
    started: Instant,
    window: Arc<(AtomicU64, AtomicU64)>,
}

impl Clock {
    pub(crate) fn start() -> Self {
        let window = Arc::new((AtomicU64::new(u64::MAX), AtomicU64::new(u64::MAX)));
        Self { started: Instant::now(), window }
    }

    pub(crate) fn measure_from_now(&self) {
        self.window.0.store(self.now_ns(), Ordering::Relaxed);
    }

    pub(crate) fn measure_until_now(&self) {
        self.window.1.store(self.now_ns(), Ordering::Relaxed);
    }

    fn now_ns(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn measures(&self, at_ns: u64) -> bool {
        at_ns >= self.window.0.load(Ordering::Relaxed)
            && at_ns < self.window.1.load(Ordering::Relaxed)
    }

    /// Length of the measured part.
    fn measured(&self) -> Duration {
        let (from, until) =
            (self.window.0.load(Ordering::Relaxed), self.window.1.load(Ordering::Relaxed));
        Duration::from_nanos(until.saturating_sub(from))
    }
}

/// What the tasks are to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Ready,
    Produce,
    Consume,
    Stop,
}

/// Steers the tasks.
#[derive(Debug)]
pub(crate) struct Control(watch::Sender<Stage>);

/// The tasks' end of [`Control`].
#[derive(Clone, Debug)]
pub(crate) struct Signals(watch::Receiver<Stage>);

impl Control {
    pub(crate) fn new() -> (Self, Signals) {
        let (sender, receiver) = watch::channel(Stage::Ready);
        (Self(sender), Signals(receiver))
    }

    pub(crate) fn begin(&self) {
        self.0.send_replace(Stage::Produce);
    }

    pub(crate) fn stop_producing(&self) {
        self.0.send_replace(Stage::Consume);
    }

    pub(crate) fn stop_consuming(&self) {
        self.0.send_replace(Stage::Stop);
    }
}

impl Signals {
    /// Waits for a stage or any after it; a steersman who has gone means the end.
    async fn reached(&mut self, stage: Stage) {
        let _ = self.0.wait_for(|now| *now >= stage).await;
    }

    fn has_reached(&self, stage: Stage) -> bool {
        *self.0.borrow() >= stage || self.0.has_changed().is_err()
    }
}

/// How far everybody is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Progress(Arc<(AtomicU64, AtomicU64)>);

impl Progress {
    pub(crate) fn acked(&self) -> u64 {
        self.0.0.load(Ordering::Relaxed)
    }

    pub(crate) fn consumed(&self) -> u64 {
        self.0.1.load(Ordering::Relaxed)
    }
}

/// What a producer or consumer has seen.
#[derive(Debug)]
pub(crate) struct Tally {
    pub(crate) seen: Seen,
    pub(crate) messages: u64,
    /// Messages within the measured time, and its length.
    pub(crate) measured_messages: u64,
    pub(crate) measured: Duration,
    /// Nanoseconds, of the measured messages.
    pub(crate) latency: Histogram<u64>,
    pub(crate) failed: u64,
    pub(crate) first_failure: Option<String>,
}

impl Tally {
    fn new() -> Self {
        Self {
            seen: Seen::default(),
            messages: 0,
            measured_messages: 0,
            measured: Duration::ZERO,
            latency: latency_histogram(),
            failed: 0,
            first_failure: None,
        }
    }

    fn count(&mut self, stamp: Stamp, clock: &Clock, now_ns: u64) {
        self.seen.add(stamp.producer, stamp.queue, stamp.number);
        self.messages += 1;
        if clock.measures(now_ns) {
            self.measured_messages += 1;
            self.latency.saturating_record(now_ns.saturating_sub(stamp.intended_ns));
        }
    }

    fn fail(&mut self, error: &dyn std::fmt::Display) {
        self.failed += 1;
        self.first_failure.get_or_insert_with(|| error.to_string());
    }
}

/// From 1 µs to an hour, with three digits.
pub(crate) fn latency_histogram() -> Histogram<u64> {
    #[expect(clippy::unwrap_used, reason = "constant bounds, which a test shows to be valid")]
    Histogram::new_with_bounds(1000, 3_600_000_000_000, 3).unwrap()
}

/// What one producer does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ProducerPlan {
    pub(crate) number: u32,
    pub(crate) size: usize,
    pub(crate) in_flight: usize,
    /// Messages per second; as fast as possible without.
    pub(crate) rate: Option<f64>,
    /// How many of them are due at the same moment.
    pub(crate) burst: u32,
}

/// The queues of worker `number` out of `workers`: every queue has one at least.
pub(crate) fn share(uris: &[String], number: u32, workers: u32) -> Vec<String> {
    let (number, workers) = (number as usize, workers.max(1) as usize);
    if workers >= uris.len() {
        return uris.get(number % uris.len().max(1)).cloned().into_iter().collect();
    }
    uris.iter().skip(number).step_by(workers).cloned().collect()
}

/// Opens a worker's queues for publishing, with their numbers.
pub(crate) async fn open_producers(
    session: &Session,
    uris: &[String],
    number: u32,
    args: &BenchArgs,
) -> Result<Vec<(u32, Producer)>> {
    let mut producers = Vec::new();
    for uri in share(uris, number, args.producers) {
        let queue = uris.iter().position(|one| *one == uri).unwrap_or(0) as u32;
        let options = ProducerOptions {
            max_in_flight_messages: args.in_flight as usize,
            max_in_flight_bytes: usize::MAX,
            ..ProducerOptions::default()
        };
        let producer = session.producer(&uri, options).await.context("cannot open a queue")?;
        producers.push((queue, producer));
    }
    Ok(producers)
}

/// Opens a queue for consuming.
pub(crate) async fn open_consumer(
    session: &Session,
    uri: &str,
    args: &BenchArgs,
) -> Result<Consumer> {
    let options = ConsumerOptions {
        max_unconfirmed_messages: args.max_unconfirmed,
        max_unconfirmed_bytes: u64::from(args.max_unconfirmed) * u64::from(args.size.max(4096)),
        ..ConsumerOptions::default()
    };
    session.consumer(uri, options).await.context("cannot open a queue")
}

/// Publishes until told to stop, then waits for the last acknowledgements.
pub(crate) async fn produce(
    plan: ProducerPlan,
    queues: Vec<(u32, Producer)>,
    clock: Clock,
    mut signals: Signals,
    progress: Progress,
) -> Tally {
    signals.reached(Stage::Produce).await;
    let mut run = Publishing {
        tally: Tally::new(),
        waiting: VecDeque::with_capacity(plan.in_flight.min(1 << 16)),
        clock,
        progress,
    };
    let mut pace = match plan.rate.map(|rate| Pacer::start().map(|pacer| (rate, pacer))).transpose()
    {
        Ok(pace) => pace,
        Err(error) => {
            run.tally.fail(&error);
            return run.tally;
        }
    };
    let filling = filling(plan.size);
    let mut numbers = vec![0_u64; queues.len()];
    let begun_ns = run.clock.now_ns();
    let mut sent = 0_u64;
    while !signals.has_reached(Stage::Consume) && !queues.is_empty() {
        let intended_ns = match &mut pace {
            None => run.clock.now_ns(),
            Some((rate, pacer)) => {
                let with_burst = sent - sent % u64::from(plan.burst);
                let due_ns = begun_ns + (with_burst as f64 / *rate * 1e9) as u64;
                run.settle_until(due_ns, pacer, &mut signals).await;
                due_ns
            }
        };
        if run.waiting.len() >= plan.in_flight {
            run.settle_oldest().await;
            run.settle_ready();
        }
        let turn = (sent % queues.len() as u64) as usize;
        let (queue, producer) = &queues[turn];
        let stamp =
            Stamp { producer: plan.number, queue: *queue, number: numbers[turn], intended_ns };
        match producer.enqueue(stamp.payload(&filling)).await {
            Ok(ack) => run.waiting.push_back((stamp, ack)),
            Err(error) => {
                run.tally.fail(&error);
                break;
            }
        }
        numbers[turn] += 1;
        sent += 1;
    }
    let last = async {
        while !run.waiting.is_empty() {
            run.settle_oldest().await;
        }
    };
    if tokio::time::timeout(LAST_ACKS, last).await.is_err() {
        let missing = run.waiting.len() as u64;
        run.tally.failed += missing;
        run.tally.first_failure.get_or_insert_with(|| "no acknowledgement came in time".to_owned());
    }
    run.tally.measured = run.clock.measured();
    run.tally
}

struct Publishing {
    tally: Tally,
    waiting: VecDeque<(Stamp, AckFuture)>,
    clock: Clock,
    progress: Progress,
}

impl Publishing {
    /// Waits for the oldest acknowledgement.
    async fn settle_oldest(&mut self) {
        if let Some((_, ack)) = self.waiting.front_mut() {
            let outcome = ack.await;
            if let Some((stamp, _)) = self.waiting.pop_front() {
                self.settled(stamp, outcome);
            }
        }
    }

    /// Takes all that have come, in order.
    fn settle_ready(&mut self) {
        let mut context = Context::from_waker(Waker::noop());
        while let Some((stamp, ack)) = self.waiting.front_mut() {
            let Poll::Ready(outcome) = Pin::new(ack).poll(&mut context) else { break };
            let stamp = *stamp;
            self.waiting.pop_front();
            self.settled(stamp, outcome);
        }
    }

    /// Takes acknowledgements as they come until a message is due.
    async fn settle_until(&mut self, due_ns: u64, pacer: &mut Pacer, signals: &mut Signals) {
        loop {
            self.settle_ready();
            let now_ns = self.clock.now_ns();
            if now_ns >= due_ns {
                return;
            }
            let pause = Duration::from_nanos(due_ns - now_ns);
            tokio::select! {
                () = pacer.sleep(pause) => {}
                () = self.settle_oldest(), if !self.waiting.is_empty() => {}
                () = signals.reached(Stage::Consume) => return,
            }
        }
    }

    fn settled(
        &mut self,
        stamp: Stamp,
        outcome: Result<flintmq_client::Acked, flintmq_client::PublishError>,
    ) {
        match outcome {
            Ok(_) => {
                self.progress.0.0.fetch_add(1, Ordering::Relaxed);
                self.tally.count(stamp, &self.clock, self.clock.now_ns());
            }
            Err(error) => self.tally.fail(&error),
        }
    }
}

/// Consumes and confirms until told to stop.
pub(crate) async fn consume(
    mut consumer: Consumer,
    queue: u32,
    clock: Clock,
    mut signals: Signals,
    progress: Progress,
) -> Tally {
    let mut tally = Tally::new();
    let stop = async { signals.reached(Stage::Stop).await };
    tokio::pin!(stop);
    loop {
        let mut next = tokio::select! {
            message = consumer.recv() => match message {
                Ok(Some(message)) => Some(message),
                Ok(None) => break,
                Err(error) => {
                    tally.fail(&error);
                    break;
                }
            },
            () = &mut stop => break,
        };
        let mut batch = 0;
        while let Some(message) = next {
            match message.payload().ok().and_then(|payload| Stamp::read(&payload)) {
                Some(stamp) if stamp.queue == queue => tally.count(stamp, &clock, clock.now_ns()),
                _ => tally.fail(&"a message in the queue is not from this program"),
            }
            if let Err(error) = message.confirm() {
                tracing::debug!(%error, "not confirmed");
            }
            batch += 1;
            // Others want their turn on the thread too.
            next = if batch < MOST_PER_TURN { consumer.try_recv() } else { None };
        }
        progress.0.1.fetch_add(batch, Ordering::Relaxed);
    }
    if let Err(error) = consumer.close().await {
        eprintln!("{error}");
    }
    tally.measured = clock.measured();
    tally
}

const LAST_ACKS: Duration = Duration::from_secs(30);
const MOST_PER_TURN: u64 = 256;

/// Bytes that do not compress well, the same in every run.
fn filling(size: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    (0..size)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_queue_has_a_worker_and_every_worker_a_queue() {
        let uris: Vec<String> = (0..5).map(|n| n.to_string()).collect();
        for workers in 1..12 {
            let shares: Vec<_> = (0..workers).map(|n| share(&uris, n, workers)).collect();
            assert!(shares.iter().all(|share| !share.is_empty()), "{shares:?}");
            for uri in &uris {
                assert!(shares.iter().any(|share| share.contains(uri)), "{shares:?}");
            }
        }
    }

    #[test]
    fn latencies_are_kept_to_three_digits() {
        let mut histogram = latency_histogram();
        histogram.saturating_record(1_234_567);
        let kept = histogram.max();
        assert!(kept.abs_diff(1_234_567) < 2000, "{kept}");
    }
}
