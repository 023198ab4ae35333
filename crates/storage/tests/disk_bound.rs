//! The directory stays small while messages pass, whatever single message stays behind, and shrinks
//! when a backlog is consumed.
#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use flintmq_consensus::{Entry, EntryKind, GroupId, HardState, LogPosition, NodeId};
use flintmq_storage::conformance::{Reports, replacing};
use flintmq_storage::{
    AppendBatch, CheckpointBatch, LogStore, NodeIdentity, Report, Store, StoreOptions,
};
use std::path::Path;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const GROUP: GroupId = GroupId(1);
const ENTRY_BYTES: u64 = 64 << 10;

/// What may be left of a backlog: up to 64 MiB of dead payloads, which are not worth the work, and
/// the write-ahead log.
const GIVEN_BACK: u64 = 100 << 20;

fn open(place: &TempDir) -> (Store, Reports) {
    let identity = NodeIdentity { cluster: "test".to_owned(), node: NodeId(1) };
    let mut options = StoreOptions::new(place.path().join("data"), identity);
    options.disk_reserve = 0;
    options.disk_check_interval = Duration::from_millis(20);
    options.tuning.memtable_bytes = 2 << 20;
    options.tuning.blob_file_bytes = 4 << 20;
    options.tuning.wal_bytes = 16 << 20;
    let store = Store::open(options).unwrap().store;
    let reports = Reports::of(&store, GROUP);
    store.create_group(GROUP, HardState::default()).unwrap();
    assert_eq!(reports.next(), Report::Created);
    (store, reports)
}

fn append(store: &Store, reports: &Reports, from: u64, to: u64) {
    append_sized(store, reports, from, to, ENTRY_BYTES as usize);
}

fn append_sized(store: &Store, reports: &Reports, from: u64, to: u64, bytes: usize) {
    let payload = Bytes::from(vec![7; bytes]);
    for first in (from..=to).step_by(16) {
        let last = to.min(first + 15);
        let entry = |index| Entry {
            index,
            term: 1,
            history: 0,
            kind: EntryKind::Commands,
            payload: payload.clone(),
        };
        let entries = (first..=last).map(entry).collect();
        store.try_append(GROUP, AppendBatch { entries, ..AppendBatch::default() }).unwrap();
        reports.appended(last);
    }
}

fn kill(store: &Store, reports: &Reports, dead: impl Iterator<Item = u64>, applied: u64) {
    let applied = LogPosition { term: 1, index: applied };
    let dead_entries = dead.collect();
    let batch = CheckpointBatch { applied, dead_entries, ..CheckpointBatch::default() };
    store.try_checkpoint(GROUP, batch).unwrap();
    assert_eq!(reports.next(), Report::Checkpointed { applied });
}

fn directory_bytes(dir: &Path) -> u64 {
    let Ok(files) = std::fs::read_dir(dir) else { return 0 };
    let size = |file: std::fs::DirEntry| match file.metadata() {
        Ok(found) if found.is_dir() => directory_bytes(&file.path()),
        Ok(found) => found.len(),
        // Files go away meanwhile.
        Err(_) => 0,
    };
    files.flatten().map(size).sum()
}

/// Waits until the directory has given back what a backlog held.
fn wait_until_small(place: &TempDir, store: &Store) {
    wait_until_within(place, store, GIVEN_BACK);
}

/// Waits until the directory is no larger: on a busy machine the work in the background is late.
fn wait_until_within(place: &TempDir, store: &Store, bound: u64) {
    let began = Instant::now();
    while directory_bytes(place.path()) > bound {
        assert!(
            began.elapsed() < Duration::from_secs(60),
            "{} MiB are left: {:?}",
            directory_bytes(place.path()) >> 20,
            store.stats()
        );
        std::thread::yield_now();
    }
}

#[test]
fn one_entry_left_alive_pins_nothing_else() {
    let place = tempfile::tempdir().unwrap();
    let (store, reports) = open(&place);
    // Log files, the backlog's memtables, four table files with payloads, and dead bytes not worth
    // the work yet: far less than the 256 MiB that pass.
    let bound = 160 << 20;
    let mut alive_from = 2;
    for last in (64..=4096).step_by(64) {
        append(&store, &reports, last - 63, last);
        // Consumers are one step behind, so that much is flushed before it dies.
        let until = last.saturating_sub(64).max(1);
        kill(&store, &reports, alive_from..=until, until);
        alive_from = until + 1;
        wait_until_within(&place, &store, bound);
    }
    assert!(store.entry(GROUP, 1).unwrap().is_some());
}

#[test]
fn a_consumed_backlog_gives_its_space_back() {
    let place = tempfile::tempdir().unwrap();
    let (store, reports) = open(&place);
    let last = 4096;
    append(&store, &reports, 1, last);
    let full = directory_bytes(place.path());
    assert!(full > 2 * GIVEN_BACK, "there is a backlog: {} MiB", full >> 20);
    // One entry in a hundred stays: every payload file still holds something alive.
    kill(&store, &reports, (1..=last).filter(|index| index % 100 != 0), last);
    wait_until_small(&place, &store);
    for index in (100..=last).step_by(100) {
        assert_eq!(store.entry(GROUP, index).unwrap().unwrap().payload.len() as u64, ENTRY_BYTES);
    }
}

#[test]
fn confirms_do_not_hide_how_much_a_backlog_held() {
    let place = tempfile::tempdir().unwrap();
    let (store, reports) = open(&place);
    let last = 4096;
    append(&store, &reports, 1, last);
    // As a consumer does: a few messages die with each of many small entries, which die at once.
    let confirms = 2 * last;
    for confirm in (last + 1..=last + confirms).step_by(16) {
        append_sized(&store, &reports, confirm, confirm + 15, 20);
        let first = (confirm - last) / 2 + 1;
        let dead = (first..first + 8).chain(confirm..confirm + 16);
        kill(&store, &reports, dead, confirm + 15);
    }
    wait_until_small(&place, &store);
}

#[test]
fn a_replaced_past_gives_its_space_back() {
    let place = tempfile::tempdir().unwrap();
    let (store, reports) = open(&place);
    append(&store, &reports, 1, 4096);
    let full = directory_bytes(place.path());
    assert!(full > 2 * GIVEN_BACK, "there is a backlog: {} MiB", full >> 20);
    store.reset(GROUP, 1).unwrap();
    let upto = LogPosition::default();
    reports.expect(&Report::Appended { write: 1, upto });
    wait_until_small(&place, &store);
}

#[test]
fn what_a_snapshot_has_kept_is_given_back_when_it_is_closed() {
    let place = tempfile::tempdir().unwrap();
    let (store, reports) = open(&place);
    let last = 4096;
    append(&store, &reports, 1, last);
    kill(&store, &reports, 1..=1, 1);
    let opened = replacing::open(&store, GROUP).unwrap();
    let before = store.stats();
    kill(&store, &reports, 2..=last, last);
    // In vain, as long as the snapshot is open.
    let began = Instant::now();
    while store.stats().compactions <= before.compactions || store.stats().memtable_bytes > 65_536 {
        assert!(began.elapsed() < Duration::from_secs(60), "{:?}", store.stats());
        std::thread::yield_now();
    }
    let kept = directory_bytes(place.path());
    assert!(kept > 2 * GIVEN_BACK, "{} MiB", kept >> 20);
    store.close_snapshot(opened.number);
    wait_until_small(&place, &store);
}
