//! Scenarios in which the past of a group is replaced as a whole, and of reading beside the caller.

use super::{
    ONE, Reports, Subject, TWO, batch, dead, dump, entry, group, hard_state, indexes, position,
};
use crate::{
    CheckpointBatch, HardStates, LogBounds, LogStore, NewGroup, OnRead, OpenSnapshot, ReadError,
    Report, SnapshotPiece, SnapshotReport, StagedPiece, StorageError,
};
use bytes::Bytes;
use flintmq_consensus::{CreationId, Entry, GroupId, HardState, Index, NodeId, SnapshotId};
use std::sync::mpsc;
use std::time::Duration;

pub(super) fn scenarios<S: Subject>() -> Vec<fn(&mut S)> {
    vec![
        a_reset_leaves_the_hard_state_alone,
        a_group_is_reset_again_and_again,
        a_snapshot_goes_from_one_group_to_another,
        a_snapshot_stays_what_it_was,
        a_snapshot_keeps_the_log_behind_it,
        what_is_not_all_there_is_not_installed,
        what_replaces_a_past_is_fsynced,
        a_removed_group_comes_back_with_its_votes,
        a_group_knows_its_making,
        hard_states_of_many_groups_are_saved_at_once,
        a_synchronous_group_hears_of_its_fsync,
        entries_are_read_beside_the_caller,
    ]
}

/// Asks for something and waits for the answer.
pub fn ask<T: Send + 'static>(ask: impl FnOnce(OnRead<T>)) -> Result<T, ReadError> {
    let (sender, answer) = mpsc::channel();
    ask(Box::new(move |found| drop(sender.send(found))));
    answer.recv_timeout(Duration::from_secs(60)).unwrap()
}

/// Opens a snapshot.
pub fn open(store: &dyn LogStore, group: GroupId) -> Result<OpenSnapshot, ReadError> {
    ask(|then| store.open_snapshot(group, then))
}

/// Reads a piece of a snapshot.
pub fn piece(
    store: &dyn LogStore,
    group: GroupId,
    number: u64,
    cursor: Bytes,
    max_bytes: usize,
) -> Result<SnapshotPiece, ReadError> {
    ask(|then| store.read_snapshot(group, number, cursor, max_bytes, then))
}

/// All pieces of an open snapshot, with where each begins.
pub fn pieces(
    store: &dyn LogStore,
    group: GroupId,
    number: u64,
    max_bytes: usize,
) -> Vec<(Bytes, SnapshotPiece)> {
    let mut found = Vec::new();
    let mut cursor = Some(Bytes::new());
    while let Some(at) = cursor {
        let piece = piece(store, group, number, at.clone(), max_bytes).unwrap();
        cursor = piece.next.clone();
        found.push((at, piece));
    }
    found
}

/// The name of a snapshot that was opened.
pub fn id(opened: OpenSnapshot) -> SnapshotId {
    SnapshotId { source: NodeId(9), number: opened.number, position: opened.position }
}

/// Stages pieces, and sees that each is reported.
pub fn stage(
    store: &dyn LogStore,
    group: GroupId,
    reports: &Reports,
    id: SnapshotId,
    pieces: &[(Bytes, SnapshotPiece)],
) {
    for (cursor, piece) in pieces {
        let staged = StagedPiece { id, cursor: cursor.clone(), data: piece.data.clone() };
        store.try_stage(group, staged).unwrap();
    }
    for (cursor, _) in pieces {
        let cursor = cursor.clone();
        reports.expect(&Report::Snapshot(SnapshotReport::Staged { id, cursor }));
    }
}

/// What a group has, its hard state and what is behind `upto` excepted.
fn content(
    store: &dyn LogStore,
    id: GroupId,
    upto: Index,
) -> (Vec<Entry>, Vec<crate::QueueRecord>) {
    let found = dump(store).into_iter().find(|dump| dump.record.id == id).unwrap();
    let entries = found.entries.into_iter().filter(|entry| entry.index <= upto).collect();
    (entries, found.records)
}

/// A group with an applied state, living and dead entries, and entries behind its checkpoint.
fn applied(store: &dyn LogStore, id: GroupId) -> Reports {
    let reports = group(store, id);
    store.try_append(id, batch(1, 1, 20)).unwrap();
    let big = Entry { payload: Bytes::from(vec![9; 100_000]), ..entry(2, 21) };
    let more = crate::AppendBatch { entries: vec![big], ..crate::AppendBatch::default() };
    store.try_append(id, more).unwrap();
    store.try_append(id, batch(2, 22, 30)).unwrap();
    let puts = (0..200u8).map(|key| (vec![b'k', key], vec![key; usize::from(key) * 40])).collect();
    let checkpoint = CheckpointBatch { puts, ..dead(2, 25, &[1, 2, 3, 5, 8, 13]) };
    store.try_checkpoint(id, checkpoint).unwrap();
    reports.appended(30);
    assert_eq!(reports.next(), Report::Checkpointed { applied: position(2, 25) });
    reports
}

fn a_reset_leaves_the_hard_state_alone<S: Subject>(subject: &mut S) {
    let store = subject.store();
    let (reports, other) = (applied(store, ONE), applied(store, TWO));
    store.save_hard_state(ONE, 1, hard_state(7)).unwrap();
    store.try_append(ONE, crate::AppendBatch { write: 5, ..batch(2, 31, 31) }).unwrap();
    store.reset(ONE, 6).unwrap();
    store.try_append(ONE, crate::AppendBatch { write: 7, ..batch(9, 1, 2) }).unwrap();
    let last = Report::Appended { write: 7, upto: position(9, 2) };
    let mut seen = Vec::new();
    while seen.last() != Some(&last) {
        seen.push(reports.next());
    }
    let writes: Vec<u64> = seen
        .iter()
        .filter_map(|report| match report {
            Report::Appended { write, .. } => Some(*write),
            _ => None,
        })
        .collect();
    assert!(writes.is_sorted(), "{seen:?}");
    let expected = |store: &dyn LogStore| {
        let bounds = LogBounds { first_index: 1, contiguous_from: 1, last: position(9, 2) };
        assert_eq!(store.bounds(ONE), Ok(bounds));
        assert_eq!(store.applied(ONE), Ok(None));
        assert_eq!(content(store, ONE, 99), (vec![entry(9, 1), entry(9, 2)], Vec::new()));
        assert_eq!(store.queue_record(ONE, b"k\x07"), Ok(None));
        assert_eq!(store.group(ONE).unwrap().unwrap().hard_state, hard_state(7));
        assert_eq!(store.bounds(TWO).unwrap().last, position(2, 30), "others are not touched");
        assert_eq!(content(store, TWO, 99).1.len(), 200);
    };
    expected(store);
    subject.reopen();
    expected(subject.store());
    drop(other);
}

fn a_group_is_reset_again_and_again<S: Subject>(subject: &mut S) {
    let reports = group(subject.store(), ONE);
    for round in 1..9u64 {
        let store = subject.store();
        let last = 10 + round;
        store.try_append(ONE, batch(round, 1, last)).unwrap();
        let puts = vec![(vec![round as u8], vec![1])];
        store.try_checkpoint(ONE, CheckpointBatch { puts, ..dead(round, 5, &[2]) }).unwrap();
        reports.expect(&Report::Checkpointed { applied: position(round, 5) });
        assert_eq!(indexes(store.entries(ONE, 3, 99, usize::MAX)), (3..=last).collect::<Vec<_>>());
        let records: Vec<_> = store.queue_records(ONE, b"", b"").map(Result::unwrap).collect();
        assert_eq!(records.len(), 1, "of this round alone");
        // Now and then twice, with nothing in between.
        for write in 0..=round % 2 {
            store.reset(ONE, write).unwrap();
        }
        let write = round % 2;
        reports.expect(&Report::Appended { write, upto: position(0, 0) });
        assert_eq!(store.entries(ONE, 1, 9, 9), Err(ReadError::Missing { group: ONE, index: 1 }));
        assert_eq!(store.queue_records(ONE, b"", b"").count(), 0);
    }
    subject.reopen();
    assert_eq!(content(subject.store(), ONE, 99), (Vec::new(), Vec::new()));
}

fn a_snapshot_goes_from_one_group_to_another<S: Subject>(subject: &mut S) {
    for max_bytes in [1, 5_000, 1 << 20] {
        let store = subject.store();
        let from = applied(store, ONE);
        let reports = applied(store, TWO);
        // What the receiver had is of no account, if it is less, more, or other.
        let others = vec![(b"other".to_vec(), b"state".to_vec())];
        let checkpoint = CheckpointBatch { puts: others, ..dead(2, 29, &[4, 29]) };
        store.try_checkpoint(TWO, checkpoint).unwrap();
        let opened = open(store, ONE).unwrap();
        assert_eq!(opened.position, position(2, 25));
        let pieces = pieces(store, ONE, opened.number, max_bytes);
        assert!(pieces.iter().all(|(_, piece)| piece.data.len() <= max_bytes.max(1024)));
        assert_eq!(pieces.len() > 1, max_bytes < 1 << 20);
        // Any piece can be read again.
        let (cursor, third) = &pieces[pieces.len() / 3];
        let again = piece(store, ONE, opened.number, cursor.clone(), max_bytes);
        assert_eq!(again.as_ref(), Ok(third));
        // An attempt that was given up leaves nothing behind.
        let id = id(opened);
        let half = SnapshotId { number: id.number + 1, ..id };
        stage(store, TWO, &reports, half, &pieces[..pieces.len() / 2]);
        stage(store, TWO, &reports, id, &pieces);
        store.install(TWO, id, false).unwrap();
        reports.expect(&Report::Snapshot(SnapshotReport::Installed { id }));
        store.close_snapshot(opened.number);
        let gone = ReadError::SnapshotGone { group: ONE, number: opened.number };
        assert_eq!(piece(store, ONE, opened.number, Bytes::new(), 1), Err(gone));
        for _ in 0..2 {
            let store = subject.store();
            assert_eq!(content(store, TWO, 99), content(store, ONE, 25));
            let bounds = LogBounds { first_index: 4, contiguous_from: 26, last: position(2, 25) };
            assert_eq!(store.bounds(TWO), Ok(bounds));
            assert_eq!(store.applied(TWO), Ok(Some(position(2, 25))));
            subject.reopen();
        }
        // And the group goes on from there.
        let store = subject.store();
        let reports = Reports::of(store, TWO);
        store.try_append(TWO, batch(3, 26, 28)).unwrap();
        store.try_checkpoint(TWO, dead(3, 27, &[4, 6, 26])).unwrap();
        reports.appended(28);
        assert_eq!(reports.next(), Report::Checkpointed { applied: position(3, 27) });
        assert_eq!(store.entry(TWO, 6), Ok(None));
        drop((from, Reports::of(store, ONE)));
        for id in [ONE, TWO] {
            let reports = Reports::of(store, id);
            store.drop_group(id).unwrap();
            assert_eq!(reports.next(), Report::Dropped);
        }
    }
}

fn a_snapshot_stays_what_it_was<S: Subject>(subject: &mut S) {
    let store = subject.store();
    let (reports, other) = (applied(store, ONE), group(store, TWO));
    let nothing = ReadError::NothingApplied { group: TWO };
    assert_eq!(open(store, TWO), Err(nothing));
    assert_eq!(open(store, GroupId(77)), Err(ReadError::NothingApplied { group: GroupId(77) }));
    let opened = open(store, ONE).unwrap();
    let before = pieces(store, ONE, opened.number, 3000);
    let puts = vec![(b"k\x01".to_vec(), b"later".to_vec())];
    let checkpoint = CheckpointBatch { puts, ..dead(2, 29, &[4, 6, 7, 9, 26]) };
    store.try_checkpoint(ONE, checkpoint).unwrap();
    reports.next();
    let later = open(store, ONE).unwrap();
    assert_ne!(later.number, opened.number);
    assert_eq!(later.position, position(2, 29));
    store.reset(ONE, 1).unwrap();
    reports.next();
    store.try_append(ONE, batch(9, 1, 9)).unwrap();
    reports.appended(9);
    assert_eq!(pieces(store, ONE, opened.number, 3000), before);
    let strange = piece(store, ONE, opened.number, Bytes::from_static(b"\x01\0\0\0\x09k"), 99);
    assert!(matches!(strange, Err(ReadError::BadCursor { group: ONE, .. })), "{strange:?}");
    let foreign = piece(store, TWO, opened.number, Bytes::new(), 99);
    assert!(matches!(foreign, Err(ReadError::SnapshotGone { group: TWO, .. })), "{foreign:?}");
    drop(other);
}

fn a_snapshot_keeps_the_log_behind_it<S: Subject>(subject: &mut S) {
    let store = subject.store();
    let (from, reports) = (applied(store, ONE), group(store, TWO));
    let opened = open(store, ONE).unwrap();
    let id = id(opened);
    let pieces = pieces(store, ONE, opened.number, 1 << 20);
    // A log that contradicts the snapshot cannot stay; nothing changes.
    store.try_append(TWO, batch(1, 1, 28)).unwrap();
    stage(store, TWO, &reports, id, &pieces);
    store.install(TWO, id, true).unwrap();
    let refused = reports.next();
    assert!(
        matches!(&refused, Report::Snapshot(SnapshotReport::Refused { id: of, .. }) if *of == id),
        "{refused:?}"
    );
    assert_eq!(store.bounds(TWO).unwrap().last, position(1, 28));
    let agreeing = crate::AppendBatch { truncate_from: Some(21), ..batch(2, 21, 29) };
    store.try_append(TWO, agreeing).unwrap();
    stage(store, TWO, &reports, id, &pieces);
    store.install(TWO, id, true).unwrap();
    reports.expect(&Report::Snapshot(SnapshotReport::Installed { id }));
    for _ in 0..2 {
        let store = subject.store();
        assert_eq!(content(store, TWO, 25), content(store, ONE, 25));
        assert_eq!(store.bounds(TWO).unwrap().last, position(2, 29));
        assert_eq!(indexes(store.entries(TWO, 26, 99, usize::MAX)), [26, 27, 28, 29]);
        subject.reopen();
    }
    drop(from);
}

fn what_is_not_all_there_is_not_installed<S: Subject>(subject: &mut S) {
    let store = subject.store();
    let (from, reports) = (applied(store, ONE), applied(store, TWO));
    let before = dump(store);
    let opened = open(store, ONE).unwrap();
    let id = id(opened);
    let pieces = pieces(store, ONE, opened.number, 3000);
    let refused = |reports: &Reports| {
        let report = reports.next();
        assert!(matches!(report, Report::Snapshot(SnapshotReport::Refused { .. })), "{report:?}");
    };
    let staged = |at: usize| {
        let (cursor, piece) = &pieces[at];
        StagedPiece { id, cursor: cursor.clone(), data: piece.data.clone() }
    };
    // Nothing staged; not all; another one; a gap; damage; no beginning.
    store.install(TWO, id, false).unwrap();
    refused(&reports);
    stage(store, TWO, &reports, id, &pieces[..pieces.len() - 1]);
    store.install(TWO, id, false).unwrap();
    refused(&reports);
    stage(store, TWO, &reports, id, &pieces);
    store.install(TWO, SnapshotId { number: id.number + 1, ..id }, false).unwrap();
    refused(&reports);
    stage(store, TWO, &reports, id, &pieces[..1]);
    store.try_stage(TWO, staged(2)).unwrap();
    refused(&reports);
    store
        .try_stage(TWO, StagedPiece { data: Bytes::from_static(b"nonsense"), ..staged(0) })
        .unwrap();
    refused(&reports);
    store.try_stage(TWO, staged(1)).unwrap();
    refused(&reports);
    assert_eq!(dump(store), before);
    // What is staged does not survive a restart, and nothing is left of it.
    stage(store, TWO, &reports, id, &pieces[..pieces.len() / 2]);
    subject.reopen();
    let store = subject.store();
    assert_eq!(dump(store), before);
    let reports = Reports::of(store, TWO);
    store.try_stage(TWO, staged(pieces.len() / 2)).unwrap();
    refused(&reports);
    stage(store, TWO, &reports, id, &pieces);
    store.install(TWO, id, false).unwrap();
    reports.expect(&Report::Snapshot(SnapshotReport::Installed { id }));
    assert_eq!(content(store, TWO, 99), content(store, ONE, 25));
    drop(from);
}

fn what_replaces_a_past_is_fsynced<S: Subject>(subject: &mut S) {
    let store = subject.store();
    let (from, reports) = (applied(store, ONE), applied(store, TWO));
    let opened = open(store, ONE).unwrap();
    let id = id(opened);
    stage(store, TWO, &reports, id, &pieces(store, ONE, opened.number, 3000));
    // Nothing else is written meanwhile that would fsync for them.
    type Request<'a> = (&'a dyn Fn(), Report);
    let requests: [Request<'_>; 4] = [
        (
            &|| store.install(TWO, id, false).unwrap(),
            Report::Snapshot(SnapshotReport::Installed { id }),
        ),
        (&|| store.reset(TWO, 3).unwrap(), Report::Appended { write: 3, upto: position(0, 0) }),
        (&|| store.remove_group(TWO).unwrap(), Report::Removed),
        (&|| store.create_group(TWO, hard_state(2)).unwrap(), Report::Created),
    ];
    for (request, expected) in requests {
        let before = store.stats().log_write_syncs;
        request();
        assert_eq!(reports.next(), expected);
        assert!(store.stats().log_write_syncs > before, "{expected:?}");
    }
    drop(from);
}

fn a_removed_group_comes_back_with_its_votes<S: Subject>(subject: &mut S) {
    let store = subject.store();
    let new = |hard_state: HardState| NewGroup {
        creation: CreationId(5),
        hard_state,
        ..NewGroup::default()
    };
    let reports = Reports::of(store, ONE);
    store.create(ONE, new(hard_state(3))).unwrap();
    assert_eq!(reports.next(), Report::Created);
    store.try_append(ONE, batch(1, 1, 9)).unwrap();
    let puts = vec![(b"a".to_vec(), b"b".to_vec())];
    store.try_checkpoint(ONE, CheckpointBatch { puts, ..dead(1, 4, &[2]) }).unwrap();
    for _ in 0..2 {
        store.remove_group(ONE).unwrap();
        reports.expect(&Report::Removed);
    }
    store.save_hard_state(ONE, 8, hard_state(4)).unwrap();
    assert_eq!(reports.next(), Report::HardStateSynced { save: 8 });
    subject.reopen();
    let store = subject.store();
    let record = store.group(ONE).unwrap().unwrap();
    assert!(record.removed && record.recovering.is_none());
    assert_eq!((record.creation, &record.hard_state), (CreationId(5), &hard_state(4)));
    assert_eq!((record.applied, record.bounds.last), (None, position(0, 0)));
    assert_eq!(content(store, ONE, 99), (Vec::new(), Vec::new()));
    assert_eq!(store.groups(), Ok(vec![record]));
    // It takes no entries, and it does not come back without what it knew.
    let forgetful: [fn(&dyn LogStore, NewGroup); 3] = [
        |store, _| store.try_append(ONE, batch(5, 1, 1)).unwrap(),
        |store, new| {
            store.create(ONE, NewGroup { hard_state: hard_state(3), ..new }).unwrap();
        },
        |store, new| {
            let hard_state = HardState { voted_for: Some(NodeId(2)), ..hard_state(4) };
            store.create(ONE, NewGroup { hard_state, ..new }).unwrap();
        },
    ];
    for forgetful in forgetful {
        let reports = Reports::of(store, ONE);
        forgetful(store, new(hard_state(4)));
        let failed = reports.next();
        assert!(matches!(failed, Report::Failed(StorageError::BrokenLog { .. })), "{failed:?}");
        store.remove_group(ONE).unwrap();
        assert_eq!(reports.next(), Report::Removed, "what is broken may still be removed");
    }
    let reports = Reports::of(store, ONE);
    store.create(ONE, new(hard_state(5))).unwrap();
    assert_eq!(reports.next(), Report::Created);
    store.try_append(ONE, batch(6, 1, 2)).unwrap();
    reports.appended(2);
    subject.reopen();
    let record = subject.store().group(ONE).unwrap().unwrap();
    assert!(!record.removed);
    assert_eq!((record.hard_state, record.bounds.last), (hard_state(5), position(6, 2)));
}

fn a_group_knows_its_making<S: Subject>(subject: &mut S) {
    let store = subject.store();
    drop(group(store, TWO));
    let reports = Reports::of(store, ONE);
    let creation = CreationId(u64::MAX);
    let new = NewGroup { creation, hard_state: hard_state(1), synchronous: true };
    store.create(ONE, new.clone()).unwrap();
    assert_eq!(reports.next(), Report::Created);
    let highest = GroupId((u32::MAX >> 1) - 1);
    for (id, fits) in [(highest, true), (GroupId(highest.0 + 1), false), (GroupId(u32::MAX), false)]
    {
        let reports = Reports::of(store, id);
        store.create(id, new.clone()).unwrap();
        assert_eq!(reports.next() == Report::Created, fits, "{id}");
        assert_eq!(store.group(id).unwrap().is_some(), fits);
    }
    subject.reopen();
    let groups = subject.store().groups().unwrap();
    let known = |id| groups.iter().find(|group| group.id == id).unwrap();
    assert_eq!((known(ONE).creation, known(ONE).synchronous), (creation, true));
    assert_eq!((known(TWO).creation, known(TWO).synchronous), (CreationId(0), false));
    assert_eq!(groups.len(), 3);
}

fn hard_states_of_many_groups_are_saved_at_once<S: Subject>(subject: &mut S) {
    let store = subject.store();
    let reports: Vec<_> = (0..50).map(|id| group(store, GroupId(id))).collect();
    let before = store.stats().log_write.count();
    let states = (0..50).map(|id| (GroupId(id), CreationId(u64::from(id == 7)), hard_state(9)));
    let (sender, saved) = mpsc::channel();
    let then = Box::new(move || sender.send(()).unwrap());
    store.save_hard_states(HardStates { states: states.collect(), then }).unwrap();
    saved.recv_timeout(Duration::from_secs(60)).unwrap();
    assert!(store.stats().log_write.count() <= before + 1, "one write");
    let failed = reports[7].next();
    assert!(
        matches!(failed, Report::Failed(StorageError::BrokenLog { group: GroupId(7), .. })),
        "of another making: {failed:?}"
    );
    subject.reopen();
    for record in subject.store().groups().unwrap() {
        let expected = if record.id == GroupId(7) { hard_state(1) } else { hard_state(9) };
        assert_eq!(record.hard_state, expected, "{}", record.id);
    }
}

fn a_synchronous_group_hears_of_its_fsync<S: Subject>(subject: &mut S) {
    let store = subject.store();
    let reports = Reports::of(store, ONE);
    let new = NewGroup { synchronous: true, hard_state: hard_state(1), ..NewGroup::default() };
    store.create(ONE, new).unwrap();
    assert_eq!(reports.next(), Report::Created);
    store.try_append(ONE, batch(1, 1, 3)).unwrap();
    // Right behind the append, whoever fsyncs in the background or does not.
    let mut seen = Vec::new();
    while seen.len() < 2 {
        seen.push(reports.receiver.recv_timeout(Duration::from_secs(60)).unwrap());
    }
    let appended = Report::Appended { write: 0, upto: position(1, 3) };
    assert_eq!(seen, [appended, Report::Synced { upto: 3 }]);
}

fn entries_are_read_beside_the_caller<S: Subject>(subject: &mut S) {
    let store = subject.store();
    let reports = group(store, ONE);
    store.try_append(ONE, batch(1, 1, 9)).unwrap();
    reports.appended(9);
    let read = |after, upto, max_bytes| {
        indexes(ask(|then| store.read_log(ONE, after, upto, max_bytes, then)))
    };
    assert_eq!(read(0, 3, usize::MAX), [1, 2, 3]);
    assert_eq!(read(7, 99, usize::MAX), [8, 9]);
    assert_eq!(read(2, 9, 0), [3], "one at least");
    assert_eq!(read(9, 12, 99), [0; 0]);
    assert_eq!(read(u64::MAX, u64::MAX, 99), [0; 0]);
    // While it is cut and grows, what is read is one log that was.
    for term in 2..40 {
        let replacing = crate::AppendBatch { truncate_from: Some(4), ..batch(term, 4, 30) };
        store.try_append(ONE, replacing).unwrap();
        let found = ask(|then| store.read_log(ONE, 0, 99, usize::MAX, then)).unwrap();
        let terms: Vec<_> = found.iter().map(|entry| entry.term).collect();
        assert_eq!(terms[..3], [1, 1, 1]);
        assert!(terms[3..].iter().all(|found| *found == terms[3]), "{terms:?}");
        assert!(found.iter().map(|entry| entry.index).eq(1..=terms.len() as u64));
    }
}
