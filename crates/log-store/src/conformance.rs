//! The contract of [`LogStore`] as scenarios that any implementation must pass.
//!
//! A scenario panics with what it expected. Reports are waited for, never slept for.

#![allow(clippy::unwrap_used)] // Scenarios are tests: a failed expectation is to panic.

pub mod replacing;

use crate::{
    AppendBatch, CheckpointBatch, GroupRecord, LogBounds, LogStore, ReadError, Report, StorageError,
};
use bytes::Bytes;
use flintmq_consensus::{
    ConfigRegister, ConfigStamp, Entry, EntryKind, GroupId, HardState, Index, LogPosition, NodeId,
    ProducerSequence, Term,
};
use std::sync::mpsc;
use std::time::Duration;

/// An implementation under test.
pub trait Subject {
    /// The store.
    fn store(&self) -> &dyn LogStore;
    /// Fsyncs what is written, or has it done soon by itself.
    fn sync(&self);
    /// Closes the store and opens it again: everything that was reported must be there.
    fn reopen(&mut self);
}

/// Runs every scenario, each on a new and empty store from `make`.
pub fn run_all<S: Subject>(mut make: impl FnMut() -> S) {
    let scenarios: Vec<fn(&mut S)> = vec![
        appended_entries_are_read_back,
        reads_are_bounded,
        the_indexes_of_what_is_left_are_found,
        truncated_entries_are_replaced,
        checkpoint_deletes_what_is_dead,
        a_log_can_be_dead_to_its_end,
        records_stay_within_their_group_and_in_order,
        the_last_hard_state_counts,
        a_dropped_group_leaves_nothing,
        a_misfit_ends_its_group_only,
        reports_keep_the_order_of_requests,
        the_synced_index_follows,
        reopening_changes_nothing,
    ];
    for scenario in scenarios.into_iter().chain(replacing::scenarios()) {
        scenario(&mut make());
    }
}

/// The reports of a group, to be waited for.
pub struct Reports {
    receiver: mpsc::Receiver<Report>,
}

impl Reports {
    /// Has the reports of `group` collected.
    pub fn of(store: &dyn LogStore, group: GroupId) -> Self {
        let (sender, receiver) = mpsc::channel();
        // A scenario that is over does not read on.
        store.register(group, Box::new(move |report| drop(sender.send(report))));
        Self { receiver }
    }

    /// The next report but [`Report::Synced`]; fails after a minute.
    pub fn next(&self) -> Report {
        loop {
            match self.receiver.recv_timeout(Duration::from_secs(60)).unwrap() {
                Report::Synced { .. } => {}
                report => return report,
            }
        }
    }

    /// Waits until the log is appended up to `index`.
    pub fn appended(&self, index: Index) {
        loop {
            match self.next() {
                Report::Appended { upto, .. } if upto.index == index => return,
                Report::Appended { upto, .. } if upto.index < index => {}
                other => panic!("expected appended {index}, got {other:?}"),
            }
        }
    }

    /// Waits for a report but for those of appends.
    pub fn expect(&self, expected: &Report) {
        loop {
            match self.next() {
                found if found == *expected => return,
                Report::Appended { .. } | Report::Checkpointed { .. } => {}
                other => panic!("expected {expected:?}, got {other:?}"),
            }
        }
    }

    fn synced(&self, index: Index) {
        loop {
            match self.receiver.recv_timeout(Duration::from_secs(60)).unwrap() {
                Report::Synced { upto } if upto == index => return,
                Report::Synced { upto } => assert!(upto < index, "synced {upto} of {index}"),
                _ => {}
            }
        }
    }
}

/// An entry whose payload tells where it belongs.
pub fn entry(term: Term, index: Index) -> Entry {
    let payload = Bytes::from(format!("entry {index} of term {term}"));
    Entry { index, term, history: 0, kind: EntryKind::Commands, payload }
}

/// A batch with the entries of the indexes `from..=to`.
pub fn batch(term: Term, from: Index, to: Index) -> AppendBatch {
    let entries = (from..=to).map(|index| entry(term, index)).collect();
    AppendBatch { entries, ..AppendBatch::default() }
}

/// A hard state that uses all of its fields.
pub fn hard_state(term: Term) -> HardState {
    let config = ConfigRegister {
        stamp: ConfigStamp { term, version: 1 },
        voters: vec![NodeId(1)],
        outgoing: vec![NodeId(1), NodeId(3)],
        learners: vec![NodeId(2)],
    };
    HardState { term, voted_for: Some(NodeId(1)), config, history: 3, void: false }
}

const ONE: GroupId = GroupId(1);
const TWO: GroupId = GroupId(2);

fn position(term: Term, index: Index) -> LogPosition {
    LogPosition { term, index }
}

fn group(store: &dyn LogStore, id: GroupId) -> Reports {
    let reports = Reports::of(store, id);
    store.create_group(id, hard_state(1)).unwrap();
    assert_eq!(reports.next(), Report::Created);
    reports
}

fn dead(term: Term, applied: Index, dead: &[Index]) -> CheckpointBatch {
    CheckpointBatch {
        applied: position(term, applied),
        dead_entries: dead.to_vec(),
        ..CheckpointBatch::default()
    }
}

fn indexes(entries: Result<Vec<Entry>, ReadError>) -> Vec<Index> {
    entries.unwrap().iter().map(|entry| entry.index).collect()
}

fn appended_entries_are_read_back<S: Subject>(subject: &mut S) {
    let store = subject.store();
    let reports = group(store, ONE);
    let empty = LogBounds { first_index: 1, contiguous_from: 1, last: position(0, 0) };
    assert_eq!(store.bounds(ONE), Ok(empty));
    store.try_append(ONE, batch(1, 1, 3)).unwrap();
    let barrier =
        Entry { kind: EntryKind::Barrier, history: 7, payload: Bytes::new(), ..entry(2, 4) };
    let sequenced = EntryKind::Sequenced(ProducerSequence { producer: 11, sequence: u64::MAX });
    let sequenced = Entry { kind: sequenced, ..entry(2, 5) };
    let mixed = vec![barrier.clone(), sequenced.clone()];
    store.try_append(ONE, AppendBatch { entries: mixed, ..AppendBatch::default() }).unwrap();
    reports.appended(5);
    assert_eq!(store.entry(ONE, 2), Ok(Some(entry(1, 2))));
    assert_eq!(store.entry(ONE, 4), Ok(Some(barrier)));
    let size = sequenced.payload.len();
    assert_eq!(store.entries(ONE, 5, 9, size), Ok(vec![sequenced]));
    assert_eq!(store.entry(ONE, 6), Ok(None));
    assert_eq!(store.entry(TWO, 1), Ok(None));
    let bounds = LogBounds { first_index: 1, contiguous_from: 1, last: position(2, 5) };
    assert_eq!(store.bounds(ONE), Ok(bounds));
}

fn reads_are_bounded<S: Subject>(subject: &mut S) {
    let store = subject.store();
    let reports = group(store, ONE);
    store.try_append(ONE, batch(1, 1, 9)).unwrap();
    reports.appended(9);
    let size = entry(1, 1).payload.len();
    assert_eq!(indexes(store.entries(ONE, 2, 4, usize::MAX)), [2, 3, 4]);
    assert_eq!(indexes(store.entries(ONE, 8, 99, usize::MAX)), [8, 9]);
    assert_eq!(indexes(store.entries(ONE, 2, 9, 2 * size)), [2, 3]);
    assert_eq!(indexes(store.entries(ONE, 2, 9, 0)), [2], "one at least");
    assert_eq!(indexes(store.entries(ONE, 5, 4, 0)), [0; 0]);
    let missing = Err(ReadError::Missing { group: ONE, index: 10 });
    assert_eq!(store.entries(ONE, 10, 11, 1), missing);
}

fn the_indexes_of_what_is_left_are_found<S: Subject>(subject: &mut S) {
    let store = subject.store();
    let reports = group(store, ONE);
    let other = group(store, TWO);
    store.try_append(ONE, batch(1, 1, 6)).unwrap();
    store.try_append(TWO, batch(1, 1, 2)).unwrap();
    reports.appended(6);
    other.appended(2);
    let (applied, dead_entries) = (position(1, 5), vec![1, 4]);
    let checkpoint = CheckpointBatch { applied, dead_entries, ..CheckpointBatch::default() };
    store.try_checkpoint(ONE, checkpoint).unwrap();
    while reports.next() != (Report::Checkpointed { applied }) {}
    assert_eq!(store.indexes(ONE, 5), Ok(vec![2, 3, 5]));
    assert_eq!(store.indexes(ONE, 99), Ok(vec![2, 3, 5, 6]));
    assert_eq!(store.indexes(TWO, 1), Ok(vec![1]));
    assert_eq!(store.indexes(GroupId(77), 9), Ok(Vec::new()));
}

fn truncated_entries_are_replaced<S: Subject>(subject: &mut S) {
    let store = subject.store();
    let reports = group(store, ONE);
    store.try_append(ONE, batch(1, 1, 6)).unwrap();
    reports.appended(6);
    let replacing = AppendBatch { truncate_from: Some(4), ..batch(3, 4, 4) };
    store.try_append(ONE, replacing).unwrap();
    assert_eq!(reports.next(), Report::Appended { write: 0, upto: position(3, 4) });
    assert_eq!(store.entry(ONE, 4), Ok(Some(entry(3, 4))));
    assert_eq!(indexes(store.entries(ONE, 1, 9, usize::MAX)), [1, 2, 3, 4]);
    let only = AppendBatch { truncate_from: Some(3), ..AppendBatch::default() };
    store.try_append(ONE, only).unwrap();
    assert_eq!(reports.next(), Report::Appended { write: 0, upto: position(1, 2) });
    store.try_append(ONE, batch(4, 3, 5)).unwrap();
    reports.appended(5);
    let all = AppendBatch { truncate_from: Some(1), ..batch(5, 1, 1) };
    store.try_append(ONE, all).unwrap();
    assert_eq!(reports.next(), Report::Appended { write: 0, upto: position(5, 1) });
    assert_eq!(store.entries(ONE, 1, 9, usize::MAX), Ok(vec![entry(5, 1)]));
}

fn checkpoint_deletes_what_is_dead<S: Subject>(subject: &mut S) {
    let store = subject.store();
    let reports = group(store, ONE);
    assert_eq!(store.applied(ONE), Ok(None));
    store.try_append(ONE, batch(1, 1, 8)).unwrap();
    let first = CheckpointBatch {
        puts: vec![(b"a".to_vec(), b"1".to_vec()), (b"b".to_vec(), b"2".to_vec())],
        ..dead(1, 5, &[1, 3])
    };
    store.try_checkpoint(ONE, first).unwrap();
    reports.appended(8);
    assert_eq!(reports.next(), Report::Checkpointed { applied: position(1, 5) });
    assert_eq!(store.applied(ONE), Ok(Some(position(1, 5))));
    assert_eq!((store.entry(ONE, 1), store.entry(ONE, 3)), (Ok(None), Ok(None)));
    assert_eq!(store.entry(ONE, 2), Ok(Some(entry(1, 2))), "the living stay");
    let bounds = LogBounds { first_index: 2, contiguous_from: 4, last: position(1, 8) };
    assert_eq!(store.bounds(ONE), Ok(bounds));
    assert_eq!(indexes(store.entries(ONE, 2, 9, usize::MAX)), [2], "up to the first hole");
    let second = CheckpointBatch {
        deletes: vec![b"a".to_vec(), b"never".to_vec(), b"b".to_vec()],
        puts: vec![(b"b".to_vec(), b"3".to_vec())],
        ..dead(1, 6, &[2])
    };
    store.try_checkpoint(ONE, second).unwrap();
    assert_eq!(reports.next(), Report::Checkpointed { applied: position(1, 6) });
    assert_eq!(store.queue_record(ONE, b"a"), Ok(None));
    assert_eq!(store.queue_record(ONE, b"b"), Ok(Some(b"3".to_vec())), "deleted, then put");
}

fn a_log_can_be_dead_to_its_end<S: Subject>(subject: &mut S) {
    let store = subject.store();
    let reports = group(store, ONE);
    store.try_append(ONE, batch(4, 1, 3)).unwrap();
    store.try_checkpoint(ONE, dead(4, 3, &[1, 2, 3])).unwrap();
    reports.appended(3);
    reports.next();
    let bounds = LogBounds { first_index: 4, contiguous_from: 4, last: position(4, 3) };
    assert_eq!(store.bounds(ONE), Ok(bounds));
    subject.reopen();
    let store = subject.store();
    assert_eq!(store.bounds(ONE), Ok(bounds));
    let reports = Reports::of(store, ONE);
    let replacing = AppendBatch { truncate_from: Some(4), ..batch(4, 4, 5) };
    store.try_append(ONE, replacing).unwrap();
    reports.appended(5);
    let again = AppendBatch { truncate_from: Some(4), ..batch(6, 4, 4) };
    store.try_append(ONE, again).unwrap();
    assert_eq!(reports.next(), Report::Appended { write: 0, upto: position(6, 4) });
}

fn records_stay_within_their_group_and_in_order<S: Subject>(subject: &mut S) {
    let store = subject.store();
    for id in [ONE, TWO] {
        let reports = group(store, id);
        let puts = [&b"b\x01"[..], b"a", b"b\x00", b"c", b"b\xff\xff", b""]
            .map(|suffix| (suffix.to_vec(), [suffix, &id.0.to_be_bytes()].concat()));
        let batch = CheckpointBatch { puts: puts.to_vec(), ..dead(0, 0, &[]) };
        store.try_checkpoint(id, batch).unwrap();
        reports.next();
    }
    let found = |prefix: &[u8], from: &[u8]| -> Vec<Vec<u8>> {
        let records = store.queue_records(ONE, prefix, from).map(Result::unwrap);
        let owner = |value: &[u8]| value.ends_with(&ONE.0.to_be_bytes());
        records.inspect(|(_, value)| assert!(owner(value))).map(|(suffix, _)| suffix).collect()
    };
    assert_eq!(found(b"", b""), [&b""[..], b"a", b"b\x00", b"b\x01", b"b\xff\xff", b"c"]);
    assert_eq!(found(b"b", b""), [&b"b\x00"[..], b"b\x01", b"b\xff\xff"]);
    assert_eq!(found(b"b", b"b\x01"), [&b"b\x01"[..], b"b\xff\xff"]);
    assert_eq!(found(b"b", b"c"), [b""; 0]);
    assert_eq!(found(b"d", b""), [b""; 0]);
}

fn the_last_hard_state_counts<S: Subject>(subject: &mut S) {
    let store = subject.store();
    let reports = group(store, ONE);
    for term in 2..5 {
        store.save_hard_state(ONE, 10 * term, hard_state(term)).unwrap();
    }
    for term in 2..5 {
        assert_eq!(reports.next(), Report::HardStateSynced { save: 10 * term });
    }
    subject.reopen();
    let groups = subject.store().groups().unwrap();
    assert_eq!(groups.len(), 1);
    assert_eq!((groups[0].id, &groups[0].hard_state), (ONE, &hard_state(4)));
    assert_eq!(groups[0].recovering, None);
}

fn a_dropped_group_leaves_nothing<S: Subject>(subject: &mut S) {
    let store = subject.store();
    let other = group(store, TWO);
    store.try_append(TWO, batch(1, 1, 2)).unwrap();
    other.appended(2);
    for _ in 0..2 {
        let reports = group(store, ONE);
        store.try_append(ONE, batch(1, 1, 5)).unwrap();
        let puts = vec![(b"x".to_vec(), b"y".to_vec())];
        store.try_checkpoint(ONE, CheckpointBatch { puts, ..dead(1, 2, &[1]) }).unwrap();
        store.drop_group(ONE).unwrap();
        reports.appended(5);
        reports.next();
        assert_eq!(reports.next(), Report::Dropped);
        assert_eq!(store.entry(ONE, 3), Ok(None));
        assert_eq!(store.queue_records(ONE, b"", b"").count(), 0);
        assert_eq!(store.applied(ONE), Ok(None));
    }
    let left: Vec<GroupId> = store.groups().unwrap().iter().map(|group| group.id).collect();
    assert_eq!(left, [TWO]);
    assert_eq!(indexes(store.entries(TWO, 1, 9, 99)), [1, 2]);
}

fn a_misfit_ends_its_group_only<S: Subject>(subject: &mut S) {
    type Break = fn(&dyn LogStore);
    let misfits: [Break; 7] = [
        |store| store.try_append(ONE, batch(1, 7, 7)).unwrap(),
        |store| store.try_append(ONE, batch(0, 6, 6)).unwrap(),
        |store| {
            let applied = AppendBatch { truncate_from: Some(2), ..AppendBatch::default() };
            store.try_append(ONE, applied).unwrap();
        },
        |store| {
            let hole = AppendBatch { truncate_from: Some(4), ..batch(1, 5, 5) };
            store.try_append(ONE, hole).unwrap();
        },
        |store| store.try_checkpoint(ONE, dead(1, 9, &[])).unwrap(),
        |store| store.try_checkpoint(ONE, dead(1, 4, &[5])).unwrap(),
        |store| store.create_group(ONE, hard_state(1)).unwrap(),
    ];
    for misfit in misfits {
        let store = subject.store();
        let (one, two) = (group(store, ONE), group(store, TWO));
        store.try_append(ONE, batch(1, 1, 5)).unwrap();
        store.try_checkpoint(ONE, dead(1, 2, &[])).unwrap();
        misfit(store);
        store.try_append(ONE, batch(1, 6, 6)).unwrap();
        store.try_append(TWO, batch(1, 1, 1)).unwrap();
        two.appended(1);
        one.appended(5);
        one.next();
        let failed = one.next();
        assert!(
            matches!(&failed, Report::Failed(StorageError::BrokenLog { group: ONE, .. })),
            "{failed:?}"
        );
        assert_eq!(indexes(store.entries(ONE, 1, 9, usize::MAX)), [1, 2, 3, 4, 5]);
        for (id, reports) in [(ONE, &one), (TWO, &two)] {
            store.drop_group(id).unwrap();
            assert_eq!(reports.next(), Report::Dropped);
        }
    }
}

fn reports_keep_the_order_of_requests<S: Subject>(subject: &mut S) {
    let store = subject.store();
    let reports = group(store, ONE);
    store.try_append(ONE, AppendBatch { write: 7, ..batch(1, 1, 1) }).unwrap();
    store.save_hard_state(ONE, 3, hard_state(2)).unwrap();
    store.try_checkpoint(ONE, dead(1, 1, &[])).unwrap();
    store.mark_rejoined(ONE).unwrap();
    store.try_append(ONE, AppendBatch { write: 8, ..batch(2, 2, 2) }).unwrap();
    let second = Report::Appended { write: 8, upto: position(2, 2) };
    let mut seen = Vec::new();
    while seen.last() != Some(&second) {
        seen.push(reports.next());
    }
    // The first append may be covered by the second one's report.
    seen.retain(|report| *report != Report::Appended { write: 7, upto: position(1, 1) });
    let expected = [
        Report::HardStateSynced { save: 3 },
        Report::Checkpointed { applied: position(1, 1) },
        Report::Rejoined,
        second,
    ];
    assert_eq!(seen, expected);
}

fn the_synced_index_follows<S: Subject>(subject: &mut S) {
    let reports = group(subject.store(), ONE);
    subject.store().try_append(ONE, batch(1, 1, 4)).unwrap();
    subject.sync();
    reports.synced(4);
    let replacing = AppendBatch { truncate_from: Some(2), ..batch(2, 2, 3) };
    subject.store().try_append(ONE, replacing).unwrap();
    subject.sync();
    reports.synced(3);
    subject.store().try_append(ONE, batch(2, 4, 5)).unwrap();
    subject.store().save_hard_state(ONE, 1, hard_state(2)).unwrap();
    subject.sync();
    reports.synced(5);
}

fn reopening_changes_nothing<S: Subject>(subject: &mut S) {
    let store = subject.store();
    for id in [ONE, TWO] {
        let reports = group(store, id);
        store.try_append(id, batch(1, 1, 20)).unwrap();
        let replacing = AppendBatch { truncate_from: Some(15), ..batch(2, 15, 17) };
        store.try_append(id, replacing).unwrap();
        let puts = vec![(b"k".to_vec(), vec![7; 100_000])];
        let checkpoint = CheckpointBatch { puts, ..dead(1, 12, &[2, 4, 6]) };
        store.try_checkpoint(id, checkpoint).unwrap();
        while !matches!(reports.next(), Report::Checkpointed { .. }) {}
    }
    let before = dump(store);
    subject.reopen();
    assert_eq!(dump(subject.store()), before);
}

/// Everything that a store holds, to be compared.
pub fn dump(store: &dyn LogStore) -> Vec<GroupDump> {
    let groups = store.groups().unwrap();
    let dump_one = |record: GroupRecord| {
        let id = record.id;
        let range = record.bounds.first_index..=record.bounds.last.index;
        let entries = range.filter_map(|index| store.entry(id, index).unwrap()).collect();
        let records = store.queue_records(id, b"", b"").map(Result::unwrap).collect();
        GroupDump { record, entries, records }
    };
    groups.into_iter().map(dump_one).collect()
}

/// Everything that a store holds of a group.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupDump {
    /// The group's record.
    pub record: GroupRecord,
    /// Its entries.
    pub entries: Vec<Entry>,
    /// Its records of the `queue` family.
    pub records: Vec<crate::QueueRecord>,
}
