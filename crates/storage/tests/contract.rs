//! The contract of `LogStore`, kept by RocksDB and by the double in memory, and the two against
//! each other under random requests.
#![allow(clippy::unwrap_used)]

use flintmq_consensus::{GroupId, LogPosition, NodeId};
use flintmq_storage::conformance::{self, Reports, Subject, batch, dump, hard_state};
use flintmq_storage::{
    AppendBatch, CheckpointBatch, Delivery, Durability, LogStore, MemoryStore, NodeIdentity,
    Report, Shutdown, Store, StoreOptions,
};
use proptest::prelude::*;
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
fn the_double_keeps_the_contract() {
    conformance::run_all(|| Memory(MemoryStore::new(Delivery::Immediate)));
}

/// A request that fits, chosen by numbers.
#[derive(Clone, Debug)]
enum Action {
    Append { count: u64 },
    Replace { back: u64, count: u64 },
    Checkpoint { forward: u64, kill: u64, put: u8 },
    HardState { term: u64 },
    DropAndCreate,
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
