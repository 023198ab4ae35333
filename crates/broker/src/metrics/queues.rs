//! Series of queues. They vanish with their queue, and only so many queues have series of their
//! own.

use super::definitions as d;
use super::exposition::{Exposition, labels};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Stands for domain and queue of the row that sums up queues without series of their own. Not a
/// possible name.
pub const OTHER: &str = "(other)";

/// Why a publish was refused: the label `reason` of `flintmq_messages_rejected_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RejectReason {
    /// The queue or its domain has as many messages as it may.
    LimitMessages,
    /// The queue or its domain has as many bytes as it may.
    LimitBytes,
    /// The disk is full or failing.
    Storage,
    /// The queue's group has no leader that serves, or the node is stopping.
    Unavailable,
    /// The message itself is wrong.
    Invalid,
}

impl RejectReason {
    /// All reasons, in the order of their declaration.
    pub const ALL: [Self; 5] =
        [Self::LimitMessages, Self::LimitBytes, Self::Storage, Self::Unavailable, Self::Invalid];

    /// The label's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::LimitMessages => "limit_messages",
            Self::LimitBytes => "limit_bytes",
            Self::Storage => "storage",
            Self::Unavailable => "unavailable",
            Self::Invalid => "invalid",
        }
    }
}

/// Why a stored message left without a confirmation: the label `reason` of
/// `flintmq_messages_dropped_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropReason {
    /// Its time to live was over.
    Expired,
    /// Too many consumers died with it.
    Attempts,
    /// An administrator purged the queue.
    Purged,
}

impl DropReason {
    /// All reasons, in the order of their declaration.
    pub const ALL: [Self; 3] = [Self::Expired, Self::Attempts, Self::Purged];

    /// The label's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Attempts => "attempts",
            Self::Purged => "purged",
        }
    }
}

/// What a queue holds at a moment: the values of its gauges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueLevels {
    /// Messages stored and not confirmed.
    pub backlog_messages: u64,
    /// Their bytes.
    pub backlog_bytes: u64,
    /// When the oldest of them arrived, in milliseconds since 1970.
    pub oldest_arrival_ms: Option<u64>,
    /// Messages that consumers have and have not confirmed.
    pub unconfirmed_messages: u64,
    /// Messages waiting to be sent again.
    pub redelivery_messages: u64,
    /// Clients reading.
    pub consumers: u64,
    /// Clients writing.
    pub producers: u64,
}

/// The series of one queue. Updates are single relaxed additions and stores; cheap enough for each
/// batch.
#[derive(Debug, Default)]
pub struct QueueSeries {
    counters: [AtomicU64; COUNTERS.len()],
    rejected: [AtomicU64; RejectReason::ALL.len()],
    dropped: [AtomicU64; DropReason::ALL.len()],
    levels: [AtomicU64; GAUGES.len()],
    /// Milliseconds since 1970; 0 is none.
    oldest_arrival_ms: AtomicU64,
}

impl QueueSeries {
    /// Messages were stored.
    pub fn published(&self, messages: u64, bytes: u64) {
        self.counters[0].fetch_add(messages, Relaxed);
        self.counters[1].fetch_add(bytes, Relaxed);
    }

    /// Publishes were acknowledged that had been stored before.
    pub fn duplicates(&self, messages: u64) {
        self.counters[2].fetch_add(messages, Relaxed);
    }

    /// Messages were sent to consumers, `redelivered` of them again.
    pub fn delivered(&self, messages: u64, bytes: u64, redelivered: u64) {
        self.counters[3].fetch_add(messages, Relaxed);
        self.counters[4].fetch_add(bytes, Relaxed);
        self.counters[5].fetch_add(redelivered, Relaxed);
    }

    /// Messages were confirmed.
    pub fn confirmed(&self, messages: u64) {
        self.counters[6].fetch_add(messages, Relaxed);
    }

    /// Publishes were refused.
    pub fn rejected(&self, reason: RejectReason, messages: u64) {
        self.rejected[reason as usize].fetch_add(messages, Relaxed);
    }

    /// Stored messages were removed without a confirmation.
    pub fn dropped(&self, reason: DropReason, messages: u64) {
        self.dropped[reason as usize].fetch_add(messages, Relaxed);
    }

    /// Replaces all gauges.
    pub fn set_levels(&self, levels: &QueueLevels) {
        let values = [
            levels.backlog_messages,
            levels.backlog_bytes,
            levels.unconfirmed_messages,
            levels.redelivery_messages,
            levels.consumers,
            levels.producers,
        ];
        for (gauge, value) in self.levels.iter().zip(values) {
            gauge.store(value, Relaxed);
        }
        self.oldest_arrival_ms.store(levels.oldest_arrival_ms.unwrap_or(0), Relaxed);
    }

    fn read(&self) -> Row {
        let load = |value: &AtomicU64| value.load(Relaxed);
        let oldest = load(&self.oldest_arrival_ms);
        Row {
            counters: self.counters.each_ref().map(load),
            rejected: self.rejected.each_ref().map(load),
            dropped: self.dropped.each_ref().map(load),
            levels: self.levels.each_ref().map(load),
            oldest_arrival_ms: (oldest > 0).then_some(oldest),
        }
    }
}

/// The series of all queues of the node.
#[derive(Debug)]
pub struct QueueRegistry {
    max_own: usize,
    queues: Mutex<Queues>,
}

impl QueueRegistry {
    /// A registry in which the first `max_own` queues get series of their own.
    pub fn new(max_own: u32) -> Self {
        Self { max_own: max_own as usize, queues: Mutex::default() }
    }

    /// The series of a queue, new or as they are.
    pub fn open(&self, domain: &str, queue: &str) -> Arc<QueueSeries> {
        let mut queues = self.lock();
        let key = (domain.to_owned(), queue.to_owned());
        if let Some(known) = queues.known.get(&key) {
            return Arc::clone(&known.series);
        }
        let own = queues.own < self.max_own;
        queues.own += usize::from(own);
        let series = Arc::new(QueueSeries::default());
        queues.known.insert(key, Known { series: Arc::clone(&series), own });
        series
    }

    /// The queue is gone: so are its series. Totals of a queue that had none of its own stay in the
    /// sum, because a counter must not fall.
    pub fn remove(&self, domain: &str, queue: &str) {
        let mut queues = self.lock();
        let Some(known) = queues.known.remove(&(domain.to_owned(), queue.to_owned())) else {
            return;
        };
        if known.own {
            queues.own -= 1;
        } else {
            let mut last = known.series.read();
            last.levels = Default::default();
            last.oldest_arrival_ms = None;
            queues.retired.get_or_insert_default().add(&last);
        }
    }

    /// Number of queues, and how many of them have no series of their own.
    pub(super) fn counts(&self) -> (usize, usize) {
        let queues = self.lock();
        (queues.known.len(), queues.known.len() - queues.own)
    }

    pub(super) fn render(&self, now_ms: u64, out: &mut Exposition) {
        let rows = self.rows();
        if rows.is_empty() {
            return;
        }
        for (index, metric) in COUNTERS.iter().enumerate() {
            out.metric(metric);
            for (labels, row) in &rows {
                out.value(metric, labels, row.counters[index]);
            }
            out.end();
        }
        let rejected = RejectReason::ALL.map(RejectReason::as_str);
        render_reasons(out, &d::REJECTED_MESSAGES, &rejected, &rows, |row| &row.rejected);
        let dropped = DropReason::ALL.map(DropReason::as_str);
        render_reasons(out, &d::DROPPED_MESSAGES, &dropped, &rows, |row| &row.dropped);
        for (index, metric) in GAUGES.iter().enumerate() {
            out.metric(metric);
            for (labels, row) in &rows {
                out.value(metric, labels, row.levels[index]);
            }
            out.end();
        }
        out.metric(&d::OLDEST_MESSAGE_AGE);
        for (labels, row) in &rows {
            let age_ms = row.oldest_arrival_ms.map_or(0, |arrival| now_ms.saturating_sub(arrival));
            out.value(&d::OLDEST_MESSAGE_AGE, labels, age_ms as f64 / 1_000.0);
        }
        out.end();
    }

    /// A row per queue with series of its own, and one for all others if there are any.
    fn rows(&self) -> Vec<(String, Row)> {
        let queues = self.lock();
        let mut other = queues.retired.clone();
        let mut rows = Vec::with_capacity(queues.own + 1);
        for ((domain, queue), known) in &queues.known {
            let row = known.series.read();
            if known.own {
                rows.push((labels(&[("domain", domain), ("queue", queue)]), row));
            } else {
                other.get_or_insert_default().add(&row);
            }
        }
        drop(queues);
        rows.extend(other.map(|row| (labels(&[("domain", OTHER), ("queue", OTHER)]), row)));
        rows
    }

    fn lock(&self) -> MutexGuard<'_, Queues> {
        // Nothing under the lock leaves the map half changed.
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The plain counters, in the order of `QueueSeries::counters`.
const COUNTERS: [d::Metric; 7] = [
    d::PUBLISHED_MESSAGES,
    d::PUBLISHED_BYTES,
    d::DUPLICATE_MESSAGES,
    d::DELIVERED_MESSAGES,
    d::DELIVERED_BYTES,
    d::REDELIVERED_MESSAGES,
    d::CONFIRMED_MESSAGES,
];

/// The plain gauges, in the order of `QueueSeries::levels`.
const GAUGES: [d::Metric; 6] = [
    d::BACKLOG_MESSAGES,
    d::BACKLOG_BYTES,
    d::UNCONFIRMED_MESSAGES,
    d::REDELIVERY_MESSAGES,
    d::CONSUMERS,
    d::PRODUCERS,
];

#[derive(Debug, Default)]
struct Queues {
    known: BTreeMap<(String, String), Known>,
    /// How many of `known` have series of their own.
    own: usize,
    /// Totals of removed queues that had none.
    retired: Option<Row>,
}

#[derive(Debug)]
struct Known {
    series: Arc<QueueSeries>,
    own: bool,
}

/// The values of a queue, or the sum of several.
#[derive(Clone, Debug, Default)]
struct Row {
    counters: [u64; COUNTERS.len()],
    rejected: [u64; RejectReason::ALL.len()],
    dropped: [u64; DropReason::ALL.len()],
    levels: [u64; GAUGES.len()],
    oldest_arrival_ms: Option<u64>,
}

impl Row {
    fn add(&mut self, other: &Self) {
        fn sum<const N: usize>(into: &mut [u64; N], from: &[u64; N]) {
            for (into, from) in into.iter_mut().zip(from) {
                *into = into.saturating_add(*from);
            }
        }
        sum(&mut self.counters, &other.counters);
        sum(&mut self.rejected, &other.rejected);
        sum(&mut self.dropped, &other.dropped);
        sum(&mut self.levels, &other.levels);
        let both = [self.oldest_arrival_ms, other.oldest_arrival_ms];
        self.oldest_arrival_ms = both.into_iter().flatten().min();
    }
}

fn render_reasons(
    out: &mut Exposition,
    metric: &d::Metric,
    reasons: &[&str],
    rows: &[(String, Row)],
    values: impl Fn(&Row) -> &[u64],
) {
    out.metric(metric);
    for (labels, row) in rows {
        for (reason, value) in reasons.iter().zip(values(row)) {
            out.value(metric, &format!("{labels},reason=\"{reason}\""), value);
        }
    }
    out.end();
}
