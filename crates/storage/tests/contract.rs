//! The contract of `LogStore`, kept by RocksDB and by the double in memory, and the two against
//! each other under random requests.
#![allow(clippy::unwrap_used)]

use flintmq_consensus::{CreationId, GroupId, LogPosition, NodeId};
use flintmq_storage::conformance::{self, Reports, Subject, batch, dump, hard_state, replacing};
use flintmq_storage::{
    AppendBatch, CheckpointBatch, Delivery, Durability, HardStates, LogStore, MemoryStore,
    NodeIdentity, Report, Shutdown, SnapshotReport, Store, StoreOptions,
};
use proptest::prelude::*;
use std::sync::mpsc;
use std::time::Duration;
use tempfile::TempDir;

struct Rocks {
    dir: TempDir,
    durability: Durability,
    store: Option<Store>,
}

impl Rocks {
    fn new(durability: Durability) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Some(Store::open(options(&dir, durability)).unwrap().store);
        Self { dir, durability, store }
    }
}

fn options(dir: &TempDir, durability: Durability) -> StoreOptions {
    let identity = NodeIdentity { cluster: "test".to_owned(), node: NodeId(1) };
    let mut options = StoreOptions::new(dir.path().join("data"), identity);
    options.durability = durability;
    options.flush_interval = Duration::from_millis(5);
    options.disk_reserve = 0;
    options.witness_dir = Some(dir.path().to_owned());
    options
}

impl Subject for Rocks {
    fn store(&self) -> &dyn LogStore {
        self.store.as_ref().unwrap()
    }

    fn sync(&self) {}

    fn reopen(&mut self) {
        self.store.take().unwrap().close().unwrap();
        let opened = Store::open(options(&self.dir, self.durability)).unwrap();
        assert_eq!(opened.shutdown, Shutdown::Clean);
        self.store = Some(opened.store);
    }
}

struct Memory(MemoryStore);

impl Subject for Memory {
    fn store(&self) -> &dyn LogStore {
        &self.0
    }

    fn sync(&self) {
        self.0.sync();
    }

    fn reopen(&mut self) {
        self.0.crash();
    }
}

#[test]
fn rocksdb_keeps_the_contract() {
    conformance::run_all(|| Rocks::new(Durability::Background));
}

#[test]
fn rocksdb_keeps_the_contract_when_every_write_is_synced() {
    conformance::run_all(|| Rocks::new(Durability::Sync));
}

#[test]
fn a_thousand_groups_come_back() {
    let mut rocks = Rocks::new(Durability::Background);
    let store = rocks.store();
    let groups: Vec<GroupId> = (0..1000).map(GroupId).collect();
    let reports: Vec<Reports> = groups.iter().map(|group| Reports::of(store, *group)).collect();
    for group in &groups {
        store.create_group(*group, hard_state(1)).unwrap();
    }
    for (group, reports) in groups.iter().zip(&reports) {
        assert_eq!(reports.next(), Report::Created);
        store.try_append(*group, batch(1, 1, u64::from(group.0 % 3))).unwrap();
    }
    let (sender, saved) = mpsc::channel();
    let states = groups.iter().map(|group| (*group, CreationId::default(), hard_state(2)));
    let then = Box::new(move || sender.send(()).unwrap());
    store.save_hard_states(HardStates { states: states.collect(), then }).unwrap();
    saved.recv_timeout(Duration::from_secs(60)).unwrap();
    let before = dump(store);
    rocks.reopen();
    let after = dump(rocks.store());
    assert_eq!(after, before);
    for (group, found) in groups.iter().zip(after) {
        let (last, state) = (found.record.bounds.last.index, found.record.hard_state);
        assert_eq!((found.record.id, last), (*group, u64::from(group.0 % 3)));
        assert_eq!(state, hard_state(2));
    }
}

/// A request that fits, chosen by numbers.
#[derive(Clone, Debug)]
enum Action {
    Append {
        count: u64,
    },
    Replace {
        back: u64,
        count: u64,
    },
    Checkpoint {
        forward: u64,
        kill: u64,
        put: u8,
    },
    HardState {
        term: u64,
    },
    DropAndCreate,
    Reset,
    Remove,
    /// The next group gets this one's snapshot, in pieces of so many bytes, all or only the first.
    Snapshot {
        max_bytes: usize,
        all: bool,
    },
    Reopen,
}

fn action() -> impl Strategy<Value = (u32, Action)> {
    let action = prop_oneof![
        4 => (1..9u64).prop_map(|count| Action::Append { count }),
        2 => (0..9u64, 0..5u64).prop_map(|(back, count)| Action::Replace { back, count }),
        4 => (0..9u64, any::<u64>(), any::<u8>())
            .prop_map(|(forward, kill, put)| Action::Checkpoint { forward, kill, put }),
        1 => (0..99u64).prop_map(|term| Action::HardState { term }),
        1 => Just(Action::DropAndCreate),
        1 => Just(Action::Reset),
        1 => Just(Action::Remove),
        2 => (0..9000usize, prop::bool::weighted(0.8))
            .prop_map(|(max_bytes, all)| Action::Snapshot { max_bytes, all }),
        1 => Just(Action::Reopen),
    ];
    (0..3u32, action)
}

/// Does the action to a store and waits for the report. What it does depends on the store's content
/// alone, so two equal stores do the same.
fn perform(subject: &mut impl Subject, group: GroupId, action: &Action, step: u64) {
    if matches!(action, Action::Reopen) {
        return subject.reopen();
    }
    let store = subject.store();
    let reports = Reports::of(store, group);
    let bounds = store.bounds(group).unwrap();
    let applied = store.applied(group).unwrap().unwrap_or_default();
    let (last, term) = (bounds.last.index, bounds.last.term);
    match action {
        Action::Append { count } => {
            store.try_append(group, batch(term + step % 2, last + 1, last + count)).unwrap();
            reports.appended(last + count);
        }
        Action::Replace { back, count } => {
            let from = (applied.index + 1).max((last + 1).saturating_sub(*back));
            let entries = batch(term + 1, from, from + count - 1 + u64::from(*count == 0)).entries;
            let entries = entries.into_iter().take(*count as usize).collect();
            let replacing =
                AppendBatch { truncate_from: Some(from), entries, ..AppendBatch::default() };
            store.try_append(group, replacing).unwrap();
            assert!(matches!(reports.next(), Report::Appended { .. }));
        }
        Action::Checkpoint { forward, kill, put } => {
            let to = (applied.index + forward).min(last);
            let live: Vec<u64> =
                (1..=to).filter(|index| store.entry(group, *index).unwrap().is_some()).collect();
            let at = match store.entry(group, to).unwrap() {
                Some(entry) => LogPosition { term: entry.term, index: to },
                None => applied,
            };
            let chosen = |index: &u64| *index <= at.index && kill >> (index % 64) & 1 == 1;
            let checkpoint = CheckpointBatch {
                applied: at,
                puts: vec![(vec![*put % 16], vec![*put; usize::from(*put)])],
                deletes: vec![vec![*put / 16]],
                dead_entries: live.into_iter().filter(chosen).collect(),
            };
            store.try_checkpoint(group, checkpoint).unwrap();
            assert_eq!(reports.next(), Report::Checkpointed { applied: at });
        }
        Action::HardState { term } => {
            store.save_hard_state(group, step, hard_state(*term)).unwrap();
            assert_eq!(reports.next(), Report::HardStateSynced { save: step });
        }
        Action::DropAndCreate => {
            store.drop_group(group).unwrap();
            assert_eq!(reports.next(), Report::Dropped);
            create(store, group);
        }
        Action::Reset => {
            store.reset(group, step).unwrap();
            let upto = LogPosition::default();
            assert_eq!(reports.next(), Report::Appended { write: step, upto });
        }
        Action::Remove => {
            store.remove_group(group).unwrap();
            assert_eq!(reports.next(), Report::Removed);
            let hard_state = store.group(group).unwrap().unwrap().hard_state;
            store.create_group(group, hard_state).unwrap();
            assert_eq!(reports.next(), Report::Created);
        }
        Action::Snapshot { max_bytes, all } => {
            let Ok(opened) = replacing::open(store, group) else {
                return assert!(store.applied(group).unwrap().is_none());
            };
            let to = GroupId((group.0 + 1) % 3);
            let reports = Reports::of(store, to);
            let pieces = replacing::pieces(store, group, opened.number, *max_bytes);
            let some = if *all { &pieces[..] } else { &pieces[..1] };
            let id = replacing::id(opened);
            replacing::stage(store, to, &reports, id, some);
            let whole = some.len() == pieces.len();
            let last = store.bounds(to).unwrap().last;
            // The log behind it stays now and then, where it agrees. Never behind a snapshot that
            // goes back: entries between it and what is applied may be gone already.
            let applied = store.applied(to).unwrap();
            let keep = last > opened.position
                && applied.is_none_or(|applied| applied.index <= opened.position.index)
                && store.entry(to, opened.position.index).unwrap().map(|entry| entry.position())
                    == Some(opened.position);
            if whole || *all {
                store.install(to, id, keep).unwrap();
                assert_eq!(
                    reports.next(),
                    Report::Snapshot(SnapshotReport::Installed { id }),
                    "{whole}"
                );
            }
            store.close_snapshot(opened.number);
        }
        Action::Reopen => {}
    }
}

fn create(store: &dyn LogStore, group: GroupId) {
    let reports = Reports::of(store, group);
    store.create_group(group, hard_state(1)).unwrap();
    assert_eq!(reports.next(), Report::Created);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn both_are_alike(actions in prop::collection::vec(action(), 1..60)) {
        let mut rocks = Rocks::new(Durability::Background);
        let mut memory = Memory(MemoryStore::new(Delivery::Immediate));
        for group in 0..3 {
            create(rocks.store(), GroupId(group));
            create(memory.store(), GroupId(group));
        }
        for (step, (group, action)) in actions.iter().enumerate() {
            perform(&mut rocks, GroupId(*group), action, step as u64);
            perform(&mut memory, GroupId(*group), action, step as u64);
            prop_assert_eq!(dump(rocks.store()), dump(memory.store()));
        }
    }
}
