//! Reads beside their askers' tasks: entries for peers that lag, and snapshots for those that lag
//! too far. Few threads that stay, which sleep while nobody asks.
//!
//! A snapshot keeps RocksDB from giving back what dies after it was opened. So it does not live for
//! ever: it is closed when it was not read from for [`Limits::idle`], and after [`Limits::life`] in
//! any case.

use crate::database::Family;
use crate::records;
use crate::statistics::Counters;
use crate::store_reader::{self, StoreReader};
use bytes::Bytes;
use flintmq_consensus::{Entry, GroupId, Index, LogPosition};
use flintmq_log_store::ReadError;
use flintmq_log_store::parts::snapshot_pieces::{Kind, PieceBuilder, Place, SnapshotPiece};
use flintmq_log_store::{OnRead, OpenSnapshot};
use rocksdb::{ReadOptions, Snapshot};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Threads that read entries: two, so that one slow read does not hold up everybody.
pub(crate) const LOG_THREADS: usize = 2;

/// Reads that may wait.
const MAX_WAITING: usize = 65_536;

/// How long snapshots live, and how many at a time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) idle: Duration,
    pub(crate) life: Duration,
    pub(crate) open: usize,
}

/// Where reads are asked for.
pub(crate) struct BackgroundReads {
    log: Sender<LogJob>,
    snapshots: Sender<SnapshotJob>,
    waiting: Arc<AtomicUsize>,
}

/// Entries that are wanted.
pub(crate) struct LogRead {
    pub(crate) group: GroupId,
    pub(crate) after: Index,
    pub(crate) upto: Index,
    pub(crate) max_bytes: usize,
}

enum LogJob {
    Read(LogRead, OnRead<Vec<Entry>>),
    End,
}

enum SnapshotJob {
    Open {
        group: GroupId,
        then: OnRead<OpenSnapshot>,
    },
    Read {
        group: GroupId,
        number: u64,
        cursor: Bytes,
        max_bytes: usize,
        then: OnRead<SnapshotPiece>,
    },
    Close {
        number: u64,
    },
    End,
}

impl BackgroundReads {
    /// The asking side, and what the threads are to run.
    pub(crate) fn new(
        reader: &StoreReader,
        counters: &Arc<Counters>,
        limits: Limits,
        first_number: u64,
    ) -> (Self, [LogReads; LOG_THREADS], SnapshotReads) {
        let waiting = Arc::new(AtomicUsize::new(0));
        let (log, log_jobs) = channel();
        let (snapshots, jobs) = channel();
        let log_jobs = Arc::new(Mutex::new(log_jobs));
        let log_reads = std::array::from_fn(|_| LogReads {
            reader: reader.clone(),
            jobs: Arc::clone(&log_jobs),
            waiting: Arc::clone(&waiting),
        });
        let snapshot_reads = SnapshotReads {
            reader: reader.clone(),
            counters: Arc::clone(counters),
            jobs,
            waiting: Arc::clone(&waiting),
            limits,
            next_number: first_number,
        };
        (Self { log, snapshots, waiting }, log_reads, snapshot_reads)
    }

    pub(crate) fn read_log(&self, read: LogRead, then: OnRead<Vec<Entry>>) {
        let group = read.group;
        let Some(then) = self.has_room(group, then) else { return };
        if let Err(returned) = self.log.send(LogJob::Read(read, then))
            && let LogJob::Read(_, then) = returned.0
        {
            then(Err(ReadError::Stopped { group }));
        }
    }

    pub(crate) fn open_snapshot(&self, group: GroupId, then: OnRead<OpenSnapshot>) {
        let Some(then) = self.has_room(group, then) else { return };
        if let Err(returned) = self.snapshots.send(SnapshotJob::Open { group, then })
            && let SnapshotJob::Open { then, .. } = returned.0
        {
            then(Err(ReadError::Stopped { group }));
        }
    }

    pub(crate) fn read_snapshot(
        &self,
        group: GroupId,
        number: u64,
        (cursor, max_bytes): (Bytes, usize),
        then: OnRead<SnapshotPiece>,
    ) {
        let Some(then) = self.has_room(group, then) else { return };
        let job = SnapshotJob::Read { group, number, cursor, max_bytes, then };
        if let Err(returned) = self.snapshots.send(job)
            && let SnapshotJob::Read { then, .. } = returned.0
        {
            then(Err(ReadError::Stopped { group }));
        }
    }

    pub(crate) fn close_snapshot(&self, number: u64) {
        self.waiting.fetch_add(1, Relaxed);
        // Without the thread there are no snapshots.
        let _ = self.snapshots.send(SnapshotJob::Close { number });
    }

    /// Lets the threads end once they have done what waits.
    pub(crate) fn end(&self) {
        for _ in 0..LOG_THREADS {
            let _ = self.log.send(LogJob::End);
        }
        let _ = self.snapshots.send(SnapshotJob::End);
    }

    /// Takes a place for a read; without one the asker is told at once.
    fn has_room<T>(&self, group: GroupId, then: OnRead<T>) -> Option<OnRead<T>> {
        if self.waiting.fetch_add(1, Relaxed) < MAX_WAITING {
            return Some(then);
        }
        self.waiting.fetch_sub(1, Relaxed);
        then(Err(ReadError::Busy { group }));
        None
    }
}

/// A thread that reads entries.
pub(crate) struct LogReads {
    reader: StoreReader,
    jobs: Arc<Mutex<Receiver<LogJob>>>,
    waiting: Arc<AtomicUsize>,
}

impl LogReads {
    /// Works until it is told to end.
    pub(crate) fn run(self) {
        loop {
            let job = self.jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok(LogJob::Read(read, then)) = job else { return };
            self.waiting.fetch_sub(1, Relaxed);
            let from = read.after.saturating_add(1);
            let found = self.reader.entries(read.group, from, read.upto, read.max_bytes);
            then(match found {
                Err(ReadError::Missing { .. }) => Ok(Vec::new()),
                found => found,
            });
        }
    }
}

/// The thread that holds the open snapshots.
pub(crate) struct SnapshotReads {
    reader: StoreReader,
    counters: Arc<Counters>,
    jobs: Receiver<SnapshotJob>,
    waiting: Arc<AtomicUsize>,
    limits: Limits,
    next_number: u64,
}

struct Open<'db> {
    group: GroupId,
    position: LogPosition,
    slot: flintmq_log_store::parts::group_record::Slot,
    snapshot: Snapshot<'db>,
    opened: Instant,
    used: Instant,
    /// Entries that had died when it was opened.
    died: u64,
}

impl SnapshotReads {
    /// Works until it is told to end.
    pub(crate) fn run(mut self) {
        let reader = self.reader.clone();
        let mut open: BTreeMap<u64, Open<'_>> = BTreeMap::new();
        loop {
            let job = match self.next_end(&open) {
                None => self.jobs.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(end) => self.jobs.recv_timeout(end.saturating_duration_since(Instant::now())),
            };
            let now = Instant::now();
            let old = open.iter().filter(|(_, open)| self.end_of(open) <= now);
            for number in old.map(|(number, _)| *number).collect::<Vec<_>>() {
                tracing::info!(number, "a snapshot was not read from for long, or is old: closed");
                self.close(&mut open, number);
            }
            let job = match job {
                Ok(SnapshotJob::End) | Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => continue,
                Ok(job) => job,
            };
            self.waiting.fetch_sub(1, Relaxed);
            match job {
                SnapshotJob::Open { group, then } => {
                    let opened = self.open(&reader, group, &mut open);
                    then(opened);
                }
                SnapshotJob::Read { group, number, cursor, max_bytes, then } => {
                    let found = open.get_mut(&number).filter(|open| open.group == group);
                    then(match found {
                        Some(open) => {
                            open.used = now;
                            read_piece(&reader, open, &cursor, max_bytes)
                        }
                        None => Err(ReadError::SnapshotGone { group, number }),
                    });
                }
                SnapshotJob::Close { number } => self.close(&mut open, number),
                SnapshotJob::End => return,
            }
        }
    }

    fn open<'db>(
        &mut self,
        reader: &'db StoreReader,
        group: GroupId,
        open: &mut BTreeMap<u64, Open<'db>>,
    ) -> Result<OpenSnapshot, ReadError> {
        if open.len() >= self.limits.open {
            return Err(ReadError::Busy { group });
        }
        // First: what dies from here on may be kept by the snapshot.
        let died = self.counters.died_entries.load(Relaxed);
        let snapshot = reader.database.db().snapshot();
        let state = store_reader::group_state_at(reader, &snapshot, group)?;
        let nothing = || ReadError::NothingApplied { group };
        let state = state.filter(|state| !state.removed).ok_or_else(nothing)?;
        let position = state.applied.ok_or_else(nothing)?;
        let number = self.next_number;
        self.next_number = self.next_number.wrapping_add(1);
        let now = Instant::now();
        let slot = state.slot(group);
        let (opened, used) = (now, now);
        open.insert(number, Open { group, position, slot, snapshot, opened, used, died });
        Ok(OpenSnapshot { number, position })
    }

    fn close(&self, open: &mut BTreeMap<u64, Open<'_>>, number: u64) {
        let Some(closed) = open.remove(&number) else { return };
        let died = closed.died;
        drop(closed);
        if self.counters.died_entries.load(Relaxed) != died {
            self.counters.snapshot_kept_dead.store(true, Relaxed);
        }
    }

    fn end_of(&self, open: &Open<'_>) -> Instant {
        (open.used + self.limits.idle).min(open.opened + self.limits.life)
    }

    fn next_end(&self, open: &BTreeMap<u64, Open<'_>>) -> Option<Instant> {
        open.values().map(|open| self.end_of(open)).min()
    }
}

fn read_piece(
    reader: &StoreReader,
    open: &Open<'_>,
    cursor: &[u8],
    max_bytes: usize,
) -> Result<SnapshotPiece, ReadError> {
    let group = open.group;
    let bad = |detail| ReadError::BadCursor { group, detail };
    let place = Place::decode(cursor).map_err(bad)?;
    let mut piece = PieceBuilder::new(place.clone(), max_bytes);
    let mut room = piece.head(open.position).map_err(bad)?;
    let behind = match open.position.index.checked_add(1) {
        Some(next) => records::log_key(open.slot, next).to_vec(),
        None => open.slot.end(),
    };
    let rows = [(Kind::State, Family::Queue, open.slot.end()), (Kind::Entry, Family::Log, behind)];
    for (kind, family, end) in rows {
        let Some(first) = place.first_key(kind).filter(|_| room) else { continue };
        let mut options = ReadOptions::default();
        options.fill_cache(false);
        options.set_iterate_upper_bound(end);
        let family = reader.database.family(family);
        let mut found = open.snapshot.raw_iterator_cf_opt(&family, options);
        found.seek([&open.slot.prefix(), first].concat());
        while room && let Some((key, value)) = found.item() {
            let key = key.get(4..).unwrap_or_default();
            if kind == Kind::Entry {
                let index = key.try_into().map(Index::from_be_bytes).unwrap_or_default();
                let damaged = |detail| ReadError::CorruptEntry { group, index, detail };
                records::check_entry(value).map_err(damaged)?;
            }
            room = piece.add(kind, key, value).map_err(bad)?;
            found.next();
        }
        found.status().map_err(|error| match kind {
            Kind::Entry => store_reader::entry_error(group, 0, &error),
            _ => store_reader::state_error(group, &error),
        })?;
    }
    if room {
        piece.end().map_err(bad)?;
    }
    Ok(piece.finish())
}
