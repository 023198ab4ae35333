//! What is found after a stop that was not clean: whose word counts, and that the store is some
//! earlier state of its own history over all groups and families at once, whatever part of its last
//! log file is missing or damaged.
#![allow(clippy::unwrap_used)]

mod damage;

use damage::{copy_dir, options, plain, truncate, wal_files};
use flintmq_consensus::{GroupId, LogPosition, NodeId};
use flintmq_storage::conformance::{GroupDump, Reports, batch, dump, entry, hard_state};
use flintmq_storage::{
    AppendBatch, CheckpointBatch, Delivery, DiskState, Durability, FreeSpace, LogStore,
    MemoryStore, OpenError, ReadError, RefusedReason, Report, Shutdown, Store, StoreOptions,
};
use proptest::prelude::*;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Duration;
use tempfile::TempDir;

const ONE: GroupId = GroupId(1);
const TWO: GroupId = GroupId(2);

fn create(store: &dyn LogStore, group: GroupId) -> Reports {
    let reports = Reports::of(store, group);
    store.create_group(group, hard_state(1)).unwrap();
    assert_eq!(reports.next(), Report::Created);
    reports
}

/// Some requests that touch every family, and what the store held after each of them.
fn history(store: &dyn LogStore, steps: u64) -> Vec<Vec<GroupDump>> {
    let reports = [create(store, ONE), create(store, TWO)];
    let mut states = vec![dump(store)];
    for step in 0..steps {
        let which = (step % 2) as usize;
        let (group, reports) = ([ONE, TWO][which], &reports[which]);
        let last = store.bounds(group).unwrap().last;
        let applied = store.applied(group).unwrap().unwrap_or_default();
        match step % 5 {
            0 | 1 => {
                let appended = batch(last.term.max(1), last.index + 1, last.index + 3);
                store.try_append(group, appended).unwrap();
                reports.appended(last.index + 3);
            }
            2 if last.index > applied.index => {
                let from = last.index;
                let batch =
                    AppendBatch { truncate_from: Some(from), ..batch(last.term + 1, from, from) };
                store.try_append(group, batch).unwrap();
                assert!(matches!(reports.next(), Report::Appended { .. }));
            }
            _ if last.index > 0 => {
                let to = (applied.index + 2).min(last.index);
                let found = store.entry(group, to).unwrap();
                let at = found.map_or(applied, |e| LogPosition { term: e.term, index: to });
                let newly_dead = (applied.index + 1..at.index).filter(|index| index % 2 == 0);
                let checkpoint = CheckpointBatch {
                    applied: at,
                    puts: vec![(vec![step as u8 % 7], step.to_be_bytes().to_vec())],
                    deletes: vec![vec![step as u8 % 3]],
                    dead_entries: newly_dead.collect(),
                };
                store.try_checkpoint(group, checkpoint).unwrap();
                assert_eq!(reports.next(), Report::Checkpointed { applied: at });
            }
            _ => {}
        }
        states.push(dump(store));
    }
    states
}

#[test]
fn a_killed_process_has_lost_nothing() {
    let place = tempfile::tempdir().unwrap();
    let opened = Store::open(options(&place, "a")).unwrap();
    assert_eq!((opened.shutdown, opened.groups.len()), (Shutdown::New, 0));
    let last = history(&opened.store, 30).pop().unwrap();
    drop(opened.store);
    let opened = Store::open(options(&place, "a")).unwrap();
    assert_eq!(opened.shutdown, Shutdown::ProcessCrash);
    assert_eq!(dump(&opened.store), last);
    assert!(opened.groups.iter().all(|group| group.recovering.is_none()));
    opened.store.close().unwrap();
    drop(opened);
    let opened = Store::open(options(&place, "a")).unwrap();
    assert_eq!(opened.shutdown, Shutdown::Clean);
    assert_eq!(dump(&opened.store), last);
}

#[test]
fn without_a_witness_boot_and_mount_decide() {
    let place = tempfile::tempdir().unwrap();
    let no_witness = || StoreOptions { witness_dir: None, ..options(&place, "a") };
    drop(Store::open(no_witness()).unwrap());
    let opened = Store::open(no_witness()).unwrap();
    assert_eq!(opened.shutdown, Shutdown::ProcessCrash);
    drop(opened);
    let untrusted = StoreOptions { trust_page_cache: false, ..no_witness() };
    let opened = Store::open(untrusted).unwrap();
    assert!(matches!(opened.shutdown, Shutdown::TailMayBeLost { .. }));
}

#[test]
fn a_lost_witness_makes_every_group_recover_until_it_has_rejoined() {
    let place = tempfile::tempdir().unwrap();
    let store = Store::open(options(&place, "a")).unwrap().store;
    create(&store, ONE);
    create(&store, TWO);
    drop(store);
    for file in fs::read_dir(place.path()).unwrap() {
        let path = file.unwrap().path();
        if path.is_file() {
            fs::remove_file(path).unwrap();
        }
    }
    let opened = Store::open(options(&place, "a")).unwrap();
    assert!(matches!(opened.shutdown, Shutdown::TailMayBeLost { .. }));
    assert!(opened.groups.iter().all(|group| group.recovering == Some(1)));
    let reports = Reports::of(&opened.store, ONE);
    opened.store.mark_rejoined(ONE).unwrap();
    assert_eq!(reports.next(), Report::Rejoined);
    let recovering = |store: &dyn LogStore| -> Vec<Option<u64>> {
        store.groups().unwrap().iter().map(|group| group.recovering).collect()
    };
    assert_eq!(recovering(&opened.store), [None, Some(1)]);
    // Still so after a start that lost nothing; and a group that is born later never recovers.
    opened.store.close().unwrap();
    drop(opened);
    let opened = Store::open(options(&place, "a")).unwrap();
    assert_eq!(opened.shutdown, Shutdown::Clean);
    create(&opened.store, GroupId(3));
    assert_eq!(recovering(&opened.store), [None, Some(1), None]);
}

#[test]
fn synced_writes_need_no_witness() {
    let place = tempfile::tempdir().unwrap();
    let synced = || StoreOptions {
        durability: Durability::Sync,
        witness_dir: None,
        trust_page_cache: false,
        ..options(&place, "a")
    };
    let store = Store::open(synced()).unwrap().store;
    let reports = create(&store, ONE);
    store.try_append(ONE, batch(1, 1, 3)).unwrap();
    reports.appended(3);
    drop(store);
    let opened = Store::open(synced()).unwrap();
    assert_eq!(opened.shutdown, Shutdown::Synced);
    assert_eq!(opened.groups[0].bounds.last.index, 3);
}

#[test]
fn a_lost_tail_leaves_an_earlier_state_and_is_noticed() {
    let place = tempfile::tempdir().unwrap();
    let store = Store::open(options(&place, "a")).unwrap().store;
    let states: Vec<_> = history(&store, 60).into_iter().map(plain).collect();
    copy_dir(&place.path().join("a"), &place.path().join("image"));
    // The run goes on, so that its witness stays where it was.
    let image = place.path().join("image");
    let wal = wal_files(&image).pop().unwrap();
    let length = fs::metadata(&wal).unwrap().len();
    let mut seen = std::collections::BTreeSet::new();
    for cut in 1..=40 {
        let name = format!("cut-{cut}");
        let dir = place.path().join(&name);
        copy_dir(&image, &dir);
        // Hard states and groups were synced, everything behind them may go.
        truncate(&dir.join("db").join(wal.file_name().unwrap()), length - length * cut / 50);
        let no_others = StoreOptions { witness_dir: None, ..options(&place, &name) };
        let opened = match Store::open(no_others) {
            Ok(opened) => opened,
            Err(error) => panic!("cut {cut}: {error}"),
        };
        let found = plain(dump(&opened.store));
        let place = states.iter().position(|state| *state == found);
        let Some(place) = place else {
            panic!("cut {cut}: not a state of the history: {found:#?}")
        };
        seen.insert(place);
        assert!(matches!(opened.shutdown, Shutdown::TailMayBeLost { .. }), "cut {cut}");
        opened.store.close().unwrap();
    }
    assert!(seen.len() > 20, "the cuts must hit different states: {seen:?}");
    drop(store);
}

/// Memtables so small that several log files are alive at any time.
fn small_memtables(place: &TempDir, name: &str) -> StoreOptions {
    let mut options = options(place, name);
    options.witness_dir = None;
    options.tuning.memtable_bytes = 64 << 10;
    options.tuning.memtables_per_flush = 4;
    options.tuning.memtables = 8;
    // Few files are alive, so that the others are used again.
    options.tuning.wal_bytes = 192 << 10;
    options
}

/// Stops at several points, damages each log file in each of these ways, and compares what is found
/// with every state that there was.
fn every_log_file_damaged(name: &str, ways: &[fn(&Path, &Path)]) {
    let place = tempfile::tempdir().unwrap();
    let (mut opened, mut refused) = (0, 0);
    for steps in [30, 45, 60, 75] {
        let name = format!("{name}-{steps}");
        let store = Store::open(small_memtables(&place, &name)).unwrap().store;
        let states = big_history(&store, steps);
        drop(store);
        let dir = place.path().join(&name);
        let files = wal_files(&dir);
        assert!(files.len() > 1, "{files:?}");
        for (victim, way) in (0..files.len()).flat_map(|at| ways.iter().map(move |way| (at, way))) {
            let image = format!("image-{}", opened + refused);
            copy_dir(&dir, &place.path().join(&image));
            let other = &files[(victim + 1) % files.len()];
            let victim = &files[victim];
            way(&place.path().join(&image).join("db").join(victim.file_name().unwrap()), other);
            match Store::open(small_memtables(&place, &image)) {
                Ok(found) => {
                    let found = plain(dump(&found.store));
                    let what = format!("{} of {name}: {found:#?}", victim.display());
                    assert!(found.len() < 2 || states.contains(&found), "{what}");
                    opened += 1;
                }
                // Right where the database knows that what is missing had been synced: that is no
                // lost tail, but a lost disk.
                Err(OpenError::Database { .. } | OpenError::Damaged { .. }) => refused += 1,
                Err(error) => panic!("{image}: {error}"),
            }
        }
    }
    assert!(opened > 20, "opened {opened}, refused {refused}");
}

#[test]
fn a_hole_between_log_files_never_mixes_two_states() {
    fn cut(victim: &Path, part: u64) {
        let whole = fs::metadata(victim).unwrap().len();
        truncate(victim, whole.checked_div(part).unwrap_or(0));
    }
    // All records are of about the same size, so a half is the end of one.
    every_log_file_damaged(
        "cut",
        &[
            |file, _| cut(file, 2),
            |file, _| cut(file, 3),
            |file, _| {
                cut(file, 0);
            },
        ],
    );
}

#[test]
fn a_log_file_never_brings_back_what_was_in_it_before() {
    /// From there on the file holds what another one held, as if the disk had not taken what was
    /// written over it.
    fn stale(victim: &Path, other: &Path, from: fn(usize) -> usize) {
        let (mut new, old) = (fs::read(victim).unwrap(), fs::read(other).unwrap());
        let from = from(new.len().min(old.len()));
        new.truncate(from);
        new.extend_from_slice(&old[from..]);
        fs::write(victim, new).unwrap();
    }
    every_log_file_damaged(
        "stale",
        &[
            |file, other| stale(file, other, |whole| whole / 2),
            |file, other| stale(file, other, |whole| whole / 3 + 5),
            // Where RocksDB writes in blocks.
            |file, other| stale(file, other, |whole| whole.min(32 << 10)),
            |file, other| stale(file, other, |_| 0),
        ],
    );
}

#[test]
fn what_is_written_after_a_lost_tail_stays() {
    let place = tempfile::tempdir().unwrap();
    let store = Store::open(options(&place, "a")).unwrap().store;
    let states: Vec<_> = history(&store, 40).into_iter().map(plain).collect();
    drop(store);
    let image = place.path().join("a");
    for cut in 1..8 {
        let name = format!("cut-{cut}");
        copy_dir(&image, &place.path().join(&name));
        let wal = wal_files(&place.path().join(&name)).pop().unwrap();
        truncate(&wal, fs::metadata(&wal).unwrap().len() * (20 - cut) / 20);
        let no_witness = || StoreOptions { witness_dir: None, ..options(&place, &name) };
        let mut expected = None;
        for round in 0..3 {
            let store = Store::open(no_witness()).unwrap().store;
            let found = plain(dump(&store));
            match &expected {
                None => assert!(states.contains(&found), "{name}"),
                Some(expected) => assert_eq!(&found, expected, "{name}, round {round}"),
            }
            let reports = Reports::of(&store, ONE);
            let last = store.bounds(ONE).unwrap().last;
            store.try_append(ONE, batch(last.term + 1, last.index + 1, last.index + 2)).unwrap();
            reports.appended(last.index + 2);
            expected = Some(plain(dump(&store)));
            drop(store);
        }
    }
}

/// Big entries and checkpoints of two groups, and what the store held after each of them.
fn big_history(store: &dyn LogStore, steps: u64) -> Vec<Vec<GroupDump>> {
    let reports = [create(store, ONE), create(store, TWO)];
    let mut states = vec![plain(dump(store))];
    for step in 0..steps {
        let which = (step % 2) as usize;
        let (group, reports) = ([ONE, TWO][which], &reports[which]);
        let last = store.bounds(group).unwrap().last.index;
        let payload = bytes::Bytes::from(vec![step as u8; 8 << 10]);
        let big = flintmq_consensus::Entry { payload, ..entry(1, last + 1) };
        let append = AppendBatch { entries: vec![big], ..AppendBatch::default() };
        store.try_append(group, append).unwrap();
        reports.appended(last + 1);
        states.push(plain(dump(store)));
        if last % 3 == 2 {
            let applied = LogPosition { term: 1, index: last };
            let puts = vec![(b"k".to_vec(), step.to_be_bytes().to_vec())];
            let dead_entries = vec![last];
            let batch = CheckpointBatch { applied, puts, dead_entries, ..Default::default() };
            store.try_checkpoint(group, batch).unwrap();
            assert_eq!(reports.next(), Report::Checkpointed { applied });
            states.push(plain(dump(store)));
        }
    }
    states
}

#[test]
fn the_witness_notices_a_tail_that_was_lost_without_a_restart_of_the_machine() {
    let place = tempfile::tempdir().unwrap();
    let store = Store::open(options(&place, "a")).unwrap().store;
    history(&store, 20);
    drop(store);
    let wal = wal_files(&place.path().join("a")).pop().unwrap();
    truncate(&wal, fs::metadata(&wal).unwrap().len() - 1);
    let opened = Store::open(options(&place, "a")).unwrap();
    let Shutdown::TailMayBeLost { reason } = opened.shutdown else {
        panic!("{:?}", opened.shutdown)
    };
    assert!(reason.contains("witness"), "{reason}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn a_damaged_tail_is_cut_off(at in 0.3..1.0f64, flip in 1..=255u8, steps in 10..40u64) {
        let place = tempfile::tempdir().unwrap();
        let store = Store::open(options(&place, "a")).unwrap().store;
        let states: Vec<_> = history(&store, steps).into_iter().map(plain).collect();
        drop(store);
        let wal = wal_files(&place.path().join("a")).pop().unwrap();
        let mut bytes = fs::read(&wal).unwrap();
        let position = ((bytes.len() - 1) as f64 * at) as usize;
        bytes[position] ^= flip;
        fs::write(&wal, bytes).unwrap();
        let opened = Store::open(options(&place, "a")).unwrap();
        let found = plain(dump(&opened.store));
        // Damage in front of the first group's synced creation leaves less than the first state.
        prop_assert!(found.len() < 2 || states.contains(&found), "{found:#?}");
        let lost = matches!(opened.shutdown, Shutdown::TailMayBeLost { .. });
        prop_assert!(lost, "{:?}", opened.shutdown);
    }
}

#[test]
fn a_corrupt_entry_is_named_and_leaves_the_others_readable() {
    let place = tempfile::tempdir().unwrap();
    let mut small = options(&place, "a");
    // Entries must be in a blob file to be damaged there.
    small.tuning.memtable_bytes = 64 << 10;
    small.tuning.min_blob_bytes = Some(512);
    let store = Store::open(small.clone()).unwrap().store;
    let reports = create(&store, ONE);
    for index in 1..=400 {
        let big = flintmq_consensus::Entry {
            payload: bytes::Bytes::from(format!("{index:08}").repeat(128)),
            ..entry(1, index)
        };
        let batch = AppendBatch { entries: vec![big], ..AppendBatch::default() };
        store.try_append(ONE, batch).unwrap();
        reports.appended(index);
    }
    store.close().unwrap();
    drop(store);
    let blobs = fs::read_dir(place.path().join("a/db")).unwrap().map(|file| file.unwrap().path());
    let mut blobs: Vec<_> =
        blobs.filter(|path| path.extension().is_some_and(|ending| ending == "blob")).collect();
    blobs.sort();
    let mut bytes = fs::read(&blobs[0]).unwrap();
    let needle = b"0000000700000007";
    let position = bytes.windows(needle.len()).position(|window| window == needle).unwrap();
    bytes[position] ^= 1;
    fs::write(&blobs[0], bytes).unwrap();
    let store = Store::open(small).unwrap().store;
    assert!(store.entry(ONE, 6).unwrap().is_some());
    assert!(store.entry(ONE, 8).unwrap().is_some());
    let single = store.entry(ONE, 7).unwrap_err();
    let range = store.entries(ONE, 5, 9, usize::MAX).unwrap_err();
    for error in [single, range] {
        assert!(matches!(error, ReadError::CorruptEntry { group: ONE, index: 7, .. }), "{error:?}");
    }
}

#[test]
fn a_directory_has_one_user_and_one_owner() {
    let place = tempfile::tempdir().unwrap();
    let store = Store::open(options(&place, "a")).unwrap().store;
    let refused = |options| Store::open(options).err().unwrap();
    assert!(matches!(refused(options(&place, "a")), OpenError::Locked { .. }));
    store.close().unwrap();
    let reader = store.reader();
    drop(store);
    assert!(matches!(refused(options(&place, "a")), OpenError::Locked { .. }), "still read from");
    drop(reader);
    let mut other = options(&place, "a");
    other.identity.cluster = "other".to_owned();
    assert!(matches!(refused(other), OpenError::ForeignCluster { .. }));
    let mut other = options(&place, "a");
    other.identity.node = NodeId(9);
    assert!(matches!(refused(other), OpenError::ForeignNode { found: NodeId(1), .. }));
    assert_eq!(Store::open(options(&place, "a")).unwrap().shutdown, Shutdown::Clean);
}

#[test]
fn a_directory_without_its_marker_is_taken_over_on_purpose_only() {
    let place = tempfile::tempdir().unwrap();
    let marker = place.path().join("a/marker");
    let store = Store::open(options(&place, "a")).unwrap().store;
    create(&store, ONE);
    store.close().unwrap();
    drop(store);
    fs::remove_file(&marker).unwrap();
    let error = Store::open(options(&place, "a")).err().unwrap();
    assert!(matches!(error, OpenError::MarkerMissing { .. }));
    let opened = Store::open(StoreOptions { replace: true, ..options(&place, "a") }).unwrap();
    assert!(matches!(opened.shutdown, Shutdown::TailMayBeLost { .. }));
    assert_eq!(opened.groups[0].recovering, Some(1));
    // The second time is another loss, although the marker that counted the first is gone.
    let reports = Reports::of(&opened.store, ONE);
    opened.store.mark_rejoined(ONE).unwrap();
    assert_eq!(reports.next(), Report::Rejoined);
    opened.store.close().unwrap();
    drop(opened);
    fs::remove_file(&marker).unwrap();
    let opened = Store::open(StoreOptions { replace: true, ..options(&place, "a") }).unwrap();
    assert_eq!(opened.groups[0].recovering, Some(2));
}

#[test]
fn a_database_that_vanished_is_not_created_anew() {
    let place = tempfile::tempdir().unwrap();
    Store::open(options(&place, "a")).unwrap().store.close().unwrap();
    fs::remove_dir_all(place.path().join("a/db")).unwrap();
    let error = Store::open(options(&place, "a")).err().unwrap();
    assert!(matches!(error, OpenError::Database { .. }), "{error}");
}

struct Pretended(AtomicU64);

impl FreeSpace for Pretended {
    fn free_bytes(&self, _: &Path) -> std::io::Result<u64> {
        Ok(self.0.load(Ordering::SeqCst))
    }
}

#[test]
fn a_nearly_full_disk_refuses_messages_but_not_relief() {
    let place = tempfile::tempdir().unwrap();
    let space = Arc::new(Pretended(AtomicU64::new(5_000)));
    let mut limited = options(&place, "a");
    limited.disk_reserve = 1_000;
    limited.disk_check_interval = Duration::from_millis(1);
    limited.free_space = Some(Arc::clone(&space) as Arc<dyn FreeSpace>);
    let store = Store::open(limited).unwrap().store;
    let (sender, changes) = mpsc::channel();
    store.subscribe_disk(Box::new(move |state| sender.send(state).unwrap()));
    let reports = create(&store, ONE);
    store.try_append(ONE, batch(1, 1, 2)).unwrap();
    reports.appended(2);
    space.0.store(999, Ordering::SeqCst);
    let low = DiskState::Low { free: 999, reserve: 1_000 };
    assert_eq!(changes.recv_timeout(Duration::from_secs(60)), Ok(low));
    let refused = store.try_append(ONE, batch(1, 3, 3)).unwrap_err();
    assert_eq!(refused.reason, RefusedReason::DiskFull { free: 999, reserve: 1_000 });
    let relief = AppendBatch { kind: flintmq_storage::AppendKind::Relief, ..refused.returned };
    store.try_append(ONE, relief).unwrap();
    reports.appended(3);
    let applied = LogPosition { term: 1, index: 3 };
    let checkpoint =
        CheckpointBatch { applied, dead_entries: vec![1, 2], ..CheckpointBatch::default() };
    store.try_checkpoint(ONE, checkpoint).unwrap();
    assert_eq!(reports.next(), Report::Checkpointed { applied });
    space.0.store(5_000, Ordering::SeqCst);
    assert_eq!(changes.recv_timeout(Duration::from_secs(60)), Ok(DiskState::Ok));
    store.try_append(ONE, batch(1, 4, 4)).unwrap();
    reports.appended(4);
    assert_eq!(store.stats().refused_disk_full, 1);
}

#[test]
fn the_double_loses_its_tail_like_a_disk() {
    for keep in 0..40 {
        let store = MemoryStore::new(Delivery::Immediate);
        let states: Vec<_> = history(&store, 40).into_iter().map(plain).collect();
        let unsynced = store.unsynced_changes();
        store.lose_power(keep);
        let found = dump(&store);
        assert!(found.iter().all(|group| group.record.recovering.is_some()));
        let found = plain(found);
        assert!(states.contains(&found), "keep {keep} of {unsynced}");
        if keep >= unsynced {
            assert_eq!(Some(&found), states.last());
        }
    }
}
