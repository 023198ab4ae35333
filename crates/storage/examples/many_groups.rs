//! Measures what many groups cost: to create, to write to, to save hard states of, while they rest,
//! and to open; and how fast a snapshot goes from one group to another.
//!
//! ```text
//! cargo run --release -p flintmq-storage --example many_groups -- 1000 256
//! ```
//!
//! The arguments are the number of groups and the MiB of the snapshot. It works in a fresh
//! directory under the system's temporary one.

use bytes::Bytes;
use flintmq_consensus::{
    CreationId, Entry, EntryKind, GroupId, HardState, LogPosition, NodeId, SnapshotId,
};
use flintmq_storage::{
    AppendBatch, CheckpointBatch, HardStates, LogStore, NodeIdentity, OnRead, ReadError, Report,
    SnapshotReport, StagedPiece, Store, StoreOptions,
};
use std::error::Error;
use std::path::Path;
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

type Reports = Receiver<(GroupId, Report)>;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let groups: u32 = arguments.next().map_or(Ok(1000), |text| text.parse())?;
    let mib: u64 = arguments.next().map_or(Ok(256), |text| text.parse())?;
    let place = tempfile::tempdir()?;
    measure_groups(place.path(), groups)?;
    measure_snapshot(place.path(), mib)
}

fn options(dir: &Path) -> StoreOptions {
    let identity = NodeIdentity { cluster: "measure".to_owned(), node: NodeId(1) };
    StoreOptions { disk_reserve: 0, ..StoreOptions::new(dir, identity) }
}

fn register(store: &Store, groups: u32) -> Reports {
    let (sender, reports) = mpsc::channel();
    for group in (0..groups).map(GroupId) {
        let sender = sender.clone();
        store.register(group, Box::new(move |report| drop(sender.send((group, report)))));
    }
    reports
}

/// Waits until so many reports are as they should be.
fn wait(reports: &Reports, count: u32, is: impl Fn(&Report) -> bool) -> Result<(), Box<dyn Error>> {
    let mut left = count;
    while left > 0 {
        let (group, report) = reports.recv_timeout(Duration::from_secs(60))?;
        if let Report::Failed(error) = &report {
            return Err(format!("group {group}: {error}").into());
        }
        left -= u32::from(is(&report));
    }
    Ok(())
}

fn entries(from: u64, to: u64, bytes: usize) -> Vec<Entry> {
    let payload = Bytes::from(vec![b'x'; bytes]);
    let entry = |index| Entry {
        index,
        term: 1,
        history: 0,
        kind: EntryKind::Commands,
        payload: payload.clone(),
    };
    (from..=to).map(entry).collect()
}

fn measure_groups(place: &Path, groups: u32) -> Result<(), Box<dyn Error>> {
    let dir = place.join("groups");
    let store = Store::open(options(&dir))?.store;
    let reports = register(&store, groups);
    let all = || (0..groups).map(GroupId);
    let state = |term| HardState { term, ..HardState::default() };
    let mut told = Told { store: &store, began: Instant::now(), writes: 0 };

    told.begin();
    for group in all() {
        store.create_group(group, state(1))?;
    }
    wait(&reports, groups, |report| *report == Report::Created)?;
    told.end(&format!("create {groups} groups"));

    told.begin();
    for group in all() {
        let entries = entries(1, 10, 1024);
        store.try_append(group, AppendBatch { entries, ..AppendBatch::default() })?;
        let applied = LogPosition { term: 1, index: 5 };
        let puts = (0..20u8).map(|key| (vec![key], vec![key; 100])).collect();
        let dead_entries = vec![1, 2, 3];
        let batch = CheckpointBatch { applied, puts, dead_entries, ..Default::default() };
        store.try_checkpoint(group, batch)?;
    }
    wait(&reports, groups, |report| matches!(report, Report::Checkpointed { .. }))?;
    told.end("ten entries of 1 KiB and a checkpoint for each");

    told.begin();
    for group in all() {
        store.save_hard_state(group, 1, state(2))?;
    }
    wait(&reports, groups, |report| matches!(report, Report::HardStateSynced { .. }))?;
    told.end("a hard state of each, asked for one by one");

    told.begin();
    let (sender, saved) = mpsc::channel();
    let states = all().map(|group| (group, CreationId::default(), state(3))).collect();
    store.save_hard_states(HardStates {
        states,
        then: Box::new(move || sender.send(()).unwrap_or_default()),
    })?;
    saved.recv_timeout(Duration::from_secs(60))?;
    told.end("a hard state of each, asked for together");

    let before = cpu_seconds()?;
    let rest = Duration::from_secs(3);
    std::thread::sleep(rest);
    let used = (cpu_seconds()? - before) / rest.as_secs_f64();
    println!("{:>9.2} % of a CPU while all rest", used * 100.0);

    told.begin();
    for group in all() {
        store.reset(group, 2)?;
    }
    wait(&reports, groups, |report| matches!(report, Report::Appended { write: 2, .. }))?;
    told.end("reset each");
    store.close()?;
    drop(store);
    measure_open(&dir, "closed")?;
    drop(Store::open(options(&dir))?);
    measure_open(&dir, "killed")
}

fn measure_open(dir: &Path, how: &str) -> Result<(), Box<dyn Error>> {
    let began = Instant::now();
    let opened = Store::open(options(dir))?;
    println!("{:>9.2} ms to open {} groups of a {how} store", ms(began), opened.groups.len());
    opened.store.close()?;
    Ok(())
}

fn measure_snapshot(place: &Path, mib: u64) -> Result<(), Box<dyn Error>> {
    let store = Store::open(options(&place.join("snapshot")))?.store;
    let (from, to) = (GroupId(0), GroupId(1));
    let reports = register(&store, 2);
    for group in [from, to] {
        store.create_group(group, HardState::default())?;
    }
    wait(&reports, 2, |report| *report == Report::Created)?;
    let last = mib * 16;
    for upto in (16..=last).step_by(16) {
        let entries = entries(upto - 15, upto, 64 << 10);
        store.try_append(from, AppendBatch { write: upto, entries, ..AppendBatch::default() })?;
        wait(
            &reports,
            1,
            |report| matches!(report, Report::Appended { write, .. } if *write == upto),
        )?;
    }
    let applied = LogPosition { term: 1, index: last };
    let puts = (0..100_000u32).map(|key| (key.to_be_bytes().to_vec(), vec![1; 60])).collect();
    store.try_checkpoint(from, CheckpointBatch { applied, puts, ..Default::default() })?;
    wait(&reports, 1, |report| matches!(report, Report::Checkpointed { .. }))?;

    let began = Instant::now();
    let opened = ask(|then| store.open_snapshot(from, then))?;
    let id = SnapshotId { source: NodeId(1), number: opened.number, position: opened.position };
    let (mut cursor, mut bytes, mut pieces) = (Bytes::new(), 0, 0u32);
    loop {
        let at = cursor.clone();
        let piece = ask(|then| store.read_snapshot(from, opened.number, at, 1 << 20, then))?;
        bytes += piece.data.len();
        pieces += 1;
        store.try_stage(to, StagedPiece { id, cursor, data: piece.data })?;
        wait(&reports, 1, |report| {
            matches!(report, Report::Snapshot(SnapshotReport::Staged { .. }))
        })?;
        match piece.next {
            Some(next) => cursor = next,
            None => break,
        }
    }
    let moved = began.elapsed().as_secs_f64();
    let rate = bytes as f64 / moved / f64::from(1 << 20);
    println!("{rate:>9.0} MiB/s read and staged, {pieces} pieces, one at a time");
    let began = Instant::now();
    store.install(to, id, false)?;
    let installed = Report::Snapshot(SnapshotReport::Installed { id });
    wait(&reports, 1, |report| *report == installed)?;
    println!("{:>9.2} ms to install it", ms(began));
    store.close()?;
    Ok(())
}

/// Asks for something and waits for the answer.
fn ask<T: Send + 'static>(ask: impl FnOnce(OnRead<T>)) -> Result<T, Box<dyn Error>> {
    let (sender, answer) = mpsc::channel();
    ask(Box::new(move |found: Result<T, ReadError>| drop(sender.send(found))));
    Ok(answer.recv_timeout(Duration::from_secs(60))??)
}

/// Times a step and counts its writes.
struct Told<'a> {
    store: &'a Store,
    began: Instant,
    writes: u64,
}

impl Told<'_> {
    fn begin(&mut self) {
        self.began = Instant::now();
        self.writes = self.store.stats().log_write.count();
    }

    fn end(&self, what: &str) {
        let writes = self.store.stats().log_write.count() - self.writes;
        println!("{:>9.2} ms, {writes} writes: {what}", ms(self.began));
    }
}

fn ms(began: Instant) -> f64 {
    began.elapsed().as_secs_f64() * 1000.0
}

/// CPU seconds that this process has used.
fn cpu_seconds() -> Result<f64, Box<dyn Error>> {
    /// Of the kernel's clock for this file, on every platform that it is built for.
    const TICKS_PER_SECOND: f64 = 100.0;
    let text = std::fs::read_to_string("/proc/self/stat")?;
    let fields = text.rsplit_once(')').ok_or("no process name")?.1;
    let field = |at: usize| fields.split_whitespace().nth(at).ok_or("too few fields");
    let ticks: f64 = field(11)?.parse::<f64>()? + field(12)?.parse::<f64>()?;
    Ok(ticks / TICKS_PER_SECOND)
}
