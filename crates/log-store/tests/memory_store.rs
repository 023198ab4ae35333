//! The in-memory store refuses, stalls and fails where the real one would.

#![allow(clippy::unwrap_used, clippy::disallowed_types)]

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use flintmq_consensus::{Entry, EntryKind, GroupId, HardState, Index, LogPosition};
use flintmq_log_store::{
    AppendBatch, AppendKind, CheckpointBatch, Delivery, LogStore, MemoryStore, ReadError,
    RefusedReason, Report, StorageError,
};

const GROUP: GroupId = GroupId(1);

struct Store {
    store: MemoryStore,
    reports: Arc<Mutex<Vec<Report>>>,
}

impl Store {
    fn new(delivery: Delivery) -> Self {
        let store = MemoryStore::new(delivery);
        let reports = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&reports);
        store.register(GROUP, Box::new(move |report| sink.lock().unwrap().push(report)));
        store.create_group(GROUP, HardState::default()).unwrap();
        store.run();
        Self { store, reports }
    }

    /// What was reported since this was asked last.
    fn reported(&self) -> Vec<Report> {
        std::mem::take(&mut self.reports.lock().unwrap())
    }

    fn append(&self, index: Index, size: usize, kind: AppendKind) -> Result<(), RefusedReason> {
        let payload = Bytes::from(vec![0; size]);
        let entry = Entry { index, term: 1, history: 0, kind: EntryKind::Commands, payload };
        let batch = AppendBatch { write: index, truncate_from: None, entries: vec![entry], kind };
        self.store.try_append(GROUP, batch).map_err(|refused| refused.reason)
    }

    fn checkpoint(&self, index: Index) -> Result<(), RefusedReason> {
        let applied = LogPosition { term: 1, index };
        let batch = CheckpointBatch { applied, ..CheckpointBatch::default() };
        self.store.try_checkpoint(GROUP, batch).map_err(|refused| refused.reason)
    }

    fn open(&self) -> Result<u64, ReadError> {
        let found = Arc::new(Mutex::new(None));
        let slot = Arc::clone(&found);
        self.store.open_snapshot(
            GROUP,
            Box::new(move |opened| {
                *slot.lock().unwrap() = Some(opened.map(|open| open.number));
            }),
        );
        found.lock().unwrap().take().unwrap()
    }
}

#[test]
fn snapshots_are_refused_above_the_bound_until_one_is_closed() {
    let store = Store::new(Delivery::Immediate);
    store.append(1, 10, AppendKind::Growing).unwrap();
    store.checkpoint(1).unwrap();
    store.store.set_max_snapshots(2);
    let first = store.open().unwrap();
    store.open().unwrap();
    assert_eq!(store.open(), Err(ReadError::Busy { group: GROUP }));
    store.store.close_snapshot(first);
    store.open().unwrap();
}

#[test]
fn reads_fail_while_they_are_made_to() {
    let store = Store::new(Delivery::Immediate);
    store.append(1, 10, AppendKind::Growing).unwrap();
    store.checkpoint(1).unwrap();
    let number = store.open().unwrap();
    store.store.fail_reads(true);
    assert!(matches!(store.open(), Err(ReadError::Failed { .. })));
    assert!(matches!(store.store.entry(GROUP, 1), Err(ReadError::Failed { .. })));
    assert!(matches!(store.store.entries(GROUP, 1, 1, 9), Err(ReadError::Failed { .. })));
    assert!(store.store.queue_records(GROUP, b"", b"").any(|record| record.is_err()));
    let failed = Arc::new(Mutex::new(false));
    let slot = Arc::clone(&failed);
    store.store.read_snapshot(
        GROUP,
        number,
        Bytes::new(),
        4096,
        Box::new(move |piece| {
            *slot.lock().unwrap() = matches!(piece, Err(ReadError::Failed { .. }));
        }),
    );
    assert!(*failed.lock().unwrap());
    store.store.fail_reads(false);
    assert!(store.store.entry(GROUP, 1).unwrap().is_some());
}

#[test]
fn a_stalled_store_takes_what_fits_and_does_nothing() {
    for delivery in [Delivery::Immediate, Delivery::Stepped] {
        let store = Store::new(delivery);
        store.reported();
        store.store.set_stalled(true);
        store.store.set_capacity(2);
        store.append(1, 10, AppendKind::Growing).unwrap();
        store.append(2, 10, AppendKind::Growing).unwrap();
        assert_eq!(store.append(3, 10, AppendKind::Growing), Err(RefusedReason::Full));
        // What must not wait behind messages has places of its own, but not without end.
        for _ in 0..65_536 {
            store.store.mark_rejoined(GROUP).unwrap();
        }
        let refused = store.store.mark_rejoined(GROUP).unwrap_err();
        assert_eq!(refused.reason, RefusedReason::Full);
        assert!(!store.store.step());
        store.store.sync();
        assert_eq!(store.reported(), []);
        store.store.set_stalled(false);
        store.store.run();
        let reported = store.reported();
        assert!(matches!(
            reported[..2],
            [Report::Appended { write: 1, .. }, Report::Appended { write: 2, .. }]
        ));
        assert!(reported.contains(&Report::Room));
    }
}

#[test]
fn what_frees_space_has_a_quarter_of_the_room_on_top() {
    let store = Store::new(Delivery::Stepped);
    store.store.set_capacity_bytes(4000);
    store.append(1, 3600, AppendKind::Growing).unwrap();
    assert_eq!(store.append(2, 600, AppendKind::Growing), Err(RefusedReason::Full));
    store.append(2, 600, AppendKind::Relief).unwrap();
    store.checkpoint(0).unwrap();
    assert!(matches!(
        store.append(3, 5000, AppendKind::Growing),
        Err(RefusedReason::TooLarge { limit: 4000, .. })
    ));
    store.store.run();
    store.append(3, 3600, AppendKind::Growing).unwrap();
}

#[test]
fn a_nearly_full_disk_refuses_what_grows_only() {
    let store = Store::new(Delivery::Immediate);
    store.store.set_low_disk(Some((1, 2)));
    let full = RefusedReason::DiskFull { free: 1, reserve: 2 };
    assert_eq!(store.append(1, 10, AppendKind::Growing), Err(full));
    store.append(1, 10, AppendKind::Relief).unwrap();
    store.checkpoint(1).unwrap();
}

#[test]
fn a_checkpoint_ahead_of_the_log_or_behind_the_last_breaks_the_group() {
    for wrong in [3, 1] {
        let store = Store::new(Delivery::Immediate);
        store.append(1, 10, AppendKind::Growing).unwrap();
        store.append(2, 10, AppendKind::Growing).unwrap();
        store.checkpoint(2).unwrap();
        store.reported();
        store.checkpoint(wrong).unwrap();
        let reported = store.reported();
        assert!(
            matches!(reported[..], [Report::Failed(StorageError::BrokenLog { .. })]),
            "{wrong}: {reported:?}"
        );
        store.append(3, 10, AppendKind::Growing).unwrap();
        assert_eq!(store.reported(), [], "nothing more is done for it");
    }
}
