//! A power loss around a reset, a removal and an installed snapshot: what is found is the old past
//! of the group or the new one, never some of each, and what was reported stays.
#![allow(clippy::unwrap_used)]

mod damage;
mod dumps;

use bytes::Bytes;
use damage::{Place, copy_dir, options, truncate, wal_files};
use dumps::plain;
use flintmq_consensus::{CreationId, Entry, GroupId, Index, LogPosition, Term};
use flintmq_storage::conformance::replacing::{id, open, pieces, stage};
use flintmq_storage::conformance::{GroupDump, Reports, batch, dump, entry, hard_state};
use flintmq_storage::{
    AppendBatch, CheckpointBatch, Delivery, LogStore, MemoryStore, NewGroup, Report, Shutdown,
    SnapshotReport, Store, StoreOptions,
};
use std::fs;

const ONE: GroupId = GroupId(1);
const TWO: GroupId = GroupId(2);

/// One request, with what the store held before and after it.
struct Step {
    what: &'static str,
    /// Whether its report says that it is on the disk.
    synced: bool,
    before: Vec<GroupDump>,
    after: Vec<GroupDump>,
    /// Bytes of the log file before and after.
    wal: (u64, u64),
}

/// Does requests one by one and takes down what they lead to.
struct Recorder<'a> {
    store: &'a dyn LogStore,
    wal_bytes: &'a dyn Fn() -> u64,
    steps: Vec<Step>,
    /// Steps to do; then the history breaks off.
    until: usize,
}

impl Recorder<'_> {
    /// `None`: no more steps are to be done.
    fn step(
        &mut self,
        what: &'static str,
        synced: bool,
        request: impl FnOnce(&dyn LogStore),
    ) -> Option<()> {
        if self.steps.len() == self.until {
            return None;
        }
        let before = plain(dump(self.store));
        let wal = (self.wal_bytes)();
        request(self.store);
        let after = plain(dump(self.store));
        self.steps.push(Step { what, synced, before, after, wal: (wal, (self.wal_bytes)()) });
        Some(())
    }

    fn append(&mut self, group: GroupId, reports: &Reports, term: Term, count: u64) -> Option<()> {
        self.step("append", false, |store| {
            let last = store.bounds(group).unwrap().last.index;
            store.try_append(group, batch(term, last + 1, last + count)).unwrap();
            reports.appended(last + count);
        })
    }

    fn checkpoint(
        &mut self,
        group: GroupId,
        reports: &Reports,
        to: LogPosition,
        dead: &[Index],
    ) -> Option<()> {
        self.step("checkpoint", false, |store| {
            let puts = (0..40u8).map(|key| (vec![key], vec![to.index as u8; 90])).collect();
            let dead_entries = dead.to_vec();
            let batch = CheckpointBatch { applied: to, puts, dead_entries, ..Default::default() };
            store.try_checkpoint(group, batch).unwrap();
            reports.expect(&Report::Checkpointed { applied: to });
        })
    }
}

fn new(term: Term) -> NewGroup {
    NewGroup { creation: CreationId(3), hard_state: hard_state(term), ..NewGroup::default() }
}

/// The first steps of a history in which pasts are replaced in every way, in two groups.
fn history(store: &dyn LogStore, wal_bytes: &dyn Fn() -> u64, until: usize) -> Vec<Step> {
    let reports = [ONE, TWO].map(|group| {
        let reports = Reports::of(store, group);
        store.create(group, new(1)).unwrap();
        assert_eq!(reports.next(), Report::Created);
        reports
    });
    let mut all = Recorder { store, wal_bytes, steps: Vec::new(), until };
    // Where it breaks off is what was asked for.
    let _ = (1..=4).try_for_each(|round| replace(&mut all, &reports, round));
    all.steps
}

fn replace(all: &mut Recorder<'_>, [one, two]: &[Reports; 2], round: u64) -> Option<()> {
    let store = all.store;
    all.append(ONE, one, round, 12)?;
    all.step("a large entry", false, |store| {
        let last = store.bounds(ONE).unwrap().last.index;
        let large = Entry { payload: Bytes::from(vec![7; 9000]), ..entry(round, last + 1) };
        let entries = vec![large];
        store.try_append(ONE, AppendBatch { entries, ..AppendBatch::default() }).unwrap();
        one.appended(last + 1);
    })?;
    let last = store.bounds(ONE).unwrap().last.index;
    let applied = LogPosition { term: round, index: last - 1 };
    all.checkpoint(ONE, one, applied, &[last - 12, last - 10, last - 4])?;
    let found = store.bounds(TWO).unwrap().last;
    all.append(TWO, two, found.term.max(round), 5)?;
    let keep = round.is_multiple_of(2);
    if keep {
        // The receiver's log has what the snapshot stands for, and more.
        all.step("reset", true, |store| {
            store.reset(TWO, round).unwrap();
            two.expect(&Report::Appended { write: round, upto: LogPosition::default() });
        })?;
        all.append(TWO, two, round, applied.index + 3)?;
    }
    let opened = open(store, ONE).unwrap();
    assert_eq!(opened.position, applied);
    let id = id(opened);
    let parts = pieces(store, ONE, opened.number, 2000);
    for (at, part) in parts.chunks(1).enumerate() {
        all.step("stage", false, |store| stage(store, TWO, two, id, part))?;
        if at % 3 == 1 {
            all.append(ONE, one, round, 1)?;
        }
    }
    all.step("install", true, |store| {
        store.install(TWO, id, keep).unwrap();
        two.expect(&Report::Snapshot(SnapshotReport::Installed { id }));
    })?;
    store.close_snapshot(opened.number);
    all.append(TWO, two, round, 2)?;
    all.step("reset", true, |store| {
        store.reset(ONE, round).unwrap();
        one.expect(&Report::Appended { write: round, upto: LogPosition::default() });
    })?;
    if round == 3 {
        all.step("remove", true, |store| {
            store.remove_group(TWO).unwrap();
            two.expect(&Report::Removed);
        })?;
        all.step("create", true, |store| {
            store.create(TWO, new(2)).unwrap();
            two.expect(&Report::Created);
        })?;
    }
    Some(())
}

/// Opens a copy of `dir` whose log file ends after `bytes`.
fn open_cut(place: &Place, dir: &str, bytes: u64, name: &str) -> Store {
    copy_dir(&place.path().join(dir), &place.path().join(name));
    let wal = wal_files(&place.path().join(name)).pop().unwrap();
    truncate(&wal, bytes);
    let no_witness = StoreOptions { witness_dir: None, ..options(place, name) };
    Store::open(no_witness).unwrap_or_else(|error| panic!("{name}: {error}")).store
}

#[test]
fn a_cut_log_file_has_the_old_past_or_the_new_one() {
    let place = Place::new();
    let store = Store::open(options(&place, "a")).unwrap().store;
    let wal = wal_files(&place.path().join("a")).pop().unwrap();
    // Nothing is large enough for another log file, so the bytes count from its beginning.
    let steps = history(&store, &|| fs::metadata(&wal).unwrap().len(), usize::MAX);
    drop(store);
    assert_eq!(wal_files(&place.path().join("a")), [wal]);
    let mut tried = 0;
    for (number, step) in steps.iter().enumerate().filter(|(_, step)| step.synced) {
        let (before, after) = step.wal;
        assert!(before < after, "{} writes", step.what);
        // What comes behind a switch deletes the old side: it must not be missed either.
        let cuts = [
            (before, &step.before),
            (before + 1, &step.before),
            ((before + after) / 2, &step.before),
            (after - 1, &step.before),
            (after, &step.after),
        ];
        for (place_of_cut, (bytes, expected)) in cuts.into_iter().enumerate() {
            let name = format!("cut-{number}-{place_of_cut}");
            let store = open_cut(&place, "a", bytes, &name);
            let found = plain(dump(&store));
            let whole = found == step.before || found == step.after;
            assert!(whole, "{name}: {} is neither done nor undone: {found:#?}", step.what);
            // Deletions of the side that went out of use may already follow in the file.
            if place_of_cut == 0 || place_of_cut == 4 {
                assert_eq!(&found, expected, "{name}: {}", step.what);
            }
            go_on(&store);
            drop(store);
            fs::remove_dir_all(place.path().join(&name)).unwrap();
            tried += 1;
        }
    }
    assert!(tried > 50, "{tried}");
}

/// A store that was cut takes resets and snapshots like any other.
fn go_on(store: &dyn LogStore) {
    let [one, two] = [ONE, TWO].map(|group| Reports::of(store, group));
    for (group, reports) in [(ONE, &one), (TWO, &two)] {
        if store.group(group).unwrap().unwrap().removed {
            store.create(group, new(3)).unwrap();
            assert_eq!(reports.next(), Report::Created);
        }
    }
    store.reset(ONE, 1).unwrap();
    store.try_append(ONE, batch(9, 1, 9)).unwrap();
    let applied = LogPosition { term: 9, index: 7 };
    let puts = vec![(b"new".to_vec(), b"state".to_vec())];
    let checkpoint =
        CheckpointBatch { applied, puts, dead_entries: vec![1, 6], ..Default::default() };
    store.try_checkpoint(ONE, checkpoint).unwrap();
    one.expect(&Report::Checkpointed { applied });
    let opened = open(store, ONE).unwrap();
    let parts = pieces(store, ONE, opened.number, 1 << 20);
    stage(store, TWO, &two, id(opened), &parts);
    store.install(TWO, id(opened), false).unwrap();
    two.expect(&Report::Snapshot(SnapshotReport::Installed { id: id(opened) }));
    let found = dump(store);
    assert_eq!(found[0].records, found[1].records);
    let living: Vec<Index> = found[1].entries.iter().map(|entry| entry.index).collect();
    assert_eq!(living, [2, 3, 4, 5, 7]);
}

#[test]
fn a_killed_process_leaves_nothing_staged() {
    let place = Place::new();
    let store = Store::open(options(&place, "a")).unwrap().store;
    let last = history(&store, &|| 0, usize::MAX).pop().unwrap().after;
    let opened = open(&store, TWO).unwrap();
    let parts = pieces(&store, TWO, opened.number, 2000);
    let reports = Reports::of(&store, ONE);
    stage(&store, ONE, &reports, id(opened), &parts);
    drop(store);
    let opened_again = Store::open(options(&place, "a")).unwrap();
    assert_eq!(opened_again.shutdown, Shutdown::ProcessCrash);
    assert_eq!(plain(dump(&opened_again.store)), last);
    go_on(&opened_again.store);
}

#[test]
fn the_double_loses_whole_pasts_only() {
    let count = history(&MemoryStore::new(Delivery::Immediate), &|| 0, usize::MAX).len();
    for until in 1..=count {
        for part in 0..=2 {
            let store = MemoryStore::new(Delivery::Immediate);
            let steps = history(&store, &|| 0, until);
            let last = steps.last().unwrap();
            let unsynced = store.unsynced_changes();
            assert!(unsynced == 0 || !last.synced, "{} was reported", last.what);
            store.lose_power(unsynced * part / 2);
            let found = plain(dump(&store));
            let whole = steps.iter().any(|step| step.before == found || step.after == found);
            assert!(whole, "step {until}, {}: {found:#?}", last.what);
            if part == 2 {
                assert_eq!(found, last.after, "step {until}");
            }
            go_on(&store);
        }
    }
}
