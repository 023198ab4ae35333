//! Deletes what the spare side of a group holds: a past that was replaced, or a snapshot that was
//! never finished. In steps, so that other groups' writes go on in between.

use crate::database::{Database, Family};
use crate::statistics::Counters;
use flintmq_log_store::parts::group_record::Slot;
use rocksdb::{ReadOptions, WriteBatch};
use std::collections::BTreeSet;
use std::sync::atomic::Ordering::Relaxed;

/// Entries deleted in one step: about a millisecond.
const KEYS_PER_STEP: usize = 1024;

/// A deletion under way.
pub(crate) struct Clearing {
    pub(crate) slot: Slot,
    /// What an entry of it is estimated to take.
    entry_bytes: u64,
    /// Where the next step begins: what lies before is deleted, and slow to skip.
    next: Vec<u8>,
}

impl Clearing {
    pub(crate) fn new(slot: Slot, entry_bytes: u64) -> Self {
        Self { slot, entry_bytes, next: slot.prefix().to_vec() }
    }

    /// Deletes some more; true: there is nothing left. Nothing is synced: after a power loss the
    /// rest is found again.
    pub(crate) fn step(
        &mut self,
        database: &Database,
        counters: &Counters,
    ) -> Result<bool, rocksdb::Error> {
        let db = database.db();
        let log = database.family(Family::Log);
        let mut batch = WriteBatch::default();
        // One by one: keys of the log may only ever be deleted by `SingleDelete`, each once.
        let mut keys = db.raw_iterator_cf_opt(log, keys_only(&self.next, self.slot));
        keys.seek_to_first();
        while let Some(key) = keys.key()
            && batch.len() < KEYS_PER_STEP
        {
            batch.single_delete_cf(log, key);
            self.next.clear();
            self.next.extend_from_slice(key);
            keys.next();
        }
        let rest = keys.valid();
        keys.status()?;
        let deleted = batch.len() as u64;
        if deleted > 0 {
            // The key that was deleted last need not be looked at again.
            self.next.push(0);
        }
        if !rest {
            let queue = database.family(Family::Queue);
            let (begin, end) = (self.slot.prefix().to_vec(), self.slot.end());
            let mut records = db.raw_iterator_cf_opt(queue, keys_only(&begin, self.slot));
            records.seek_to_first();
            // A range that is deleted costs later readers something: not for nothing.
            if records.valid() {
                batch.delete_range_cf(queue, begin, end);
            }
            records.status()?;
        }
        if !batch.is_empty() {
            db.write(&batch)?;
            // Only now: a flush that this asks for must find the deletions in the memtable.
            counters.died_entries.fetch_add(deleted, Relaxed);
            counters.dead_flushed_entries.fetch_add(deleted, Relaxed);
            counters.dead_flushed_bytes.fetch_add(deleted * self.entry_bytes, Relaxed);
        }
        Ok(!rest)
    }
}

/// The slots that hold something and are not in use.
pub(crate) fn leftovers(
    database: &Database,
    is_used: impl Fn(Slot) -> bool,
) -> Result<BTreeSet<Slot>, rocksdb::Error> {
    let mut found = BTreeSet::new();
    for family in [Family::Log, Family::Queue] {
        let mut options = ReadOptions::default();
        options.set_allow_unprepared_value(true);
        let mut keys = database.db().raw_iterator_cf_opt(database.family(family), options);
        keys.seek_to_first();
        // From slot to slot, whatever they hold.
        while let Some(slot) = keys.key().and_then(Slot::of_key) {
            if !is_used(slot) {
                found.insert(slot);
            }
            keys.seek(slot.end());
        }
        keys.status()?;
    }
    Ok(found)
}

/// Payloads in blob files are not to be read for the sake of their keys.
fn keys_only(from: &[u8], slot: Slot) -> ReadOptions {
    let mut options = ReadOptions::default();
    options.fill_cache(false);
    options.set_allow_unprepared_value(true);
    options.set_iterate_lower_bound(from);
    options.set_iterate_upper_bound(slot.end());
    options
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::replacing::{id, open, piece, pieces, stage};
    use crate::conformance::{Reports, batch, hard_state};
    use crate::{
        AppendBatch, CheckpointBatch, LogStore, NodeIdentity, ReadError, Report, Store,
        StoreOptions,
    };
    use bytes::Bytes;
    use flintmq_consensus::{GroupId, LogPosition, NodeId};
    use std::time::{Duration, Instant};

    const ONE: GroupId = GroupId(1);
    const TWO: GroupId = GroupId(2);

    fn options(place: &tempfile::TempDir) -> StoreOptions {
        let identity = NodeIdentity { cluster: "test".to_owned(), node: NodeId(1) };
        let mut options = StoreOptions::new(place.path().join("data"), identity);
        options.disk_reserve = 0;
        options.witness_dir = None;
        options
    }

    fn filled(store: &Store, group: GroupId) -> Reports {
        let reports = Reports::of(store, group);
        store.create_group(group, hard_state(1)).unwrap();
        for last in (1000..=5000u64).step_by(1000) {
            store.try_append(group, batch(1, last - 999, last)).unwrap();
        }
        let puts = (0..=255u8).map(|key| (vec![key], vec![key; 99])).collect();
        let applied = LogPosition { term: 1, index: 4990 };
        let dead_entries = (1..2000).collect();
        let batch = CheckpointBatch { applied, puts, dead_entries, ..Default::default() };
        store.try_checkpoint(group, batch).unwrap();
        assert_eq!(reports.next(), Report::Created);
        reports.expect(&Report::Checkpointed { applied });
        reports
    }

    /// The slots that hold something, once nothing is being deleted any more.
    fn wait_for_slots(store: &Store, expected: usize) {
        let began = Instant::now();
        loop {
            let found = leftovers(&store.reader.database, |_| false).unwrap();
            if found.len() == expected {
                return;
            }
            assert!(began.elapsed() < Duration::from_secs(60), "{found:?}");
            std::thread::yield_now();
        }
    }

    #[test]
    fn what_was_replaced_or_never_finished_is_deleted() {
        let place = tempfile::tempdir().unwrap();
        let store = Store::open(options(&place)).unwrap().store;
        let (one, two) = (filled(&store, ONE), filled(&store, TWO));
        wait_for_slots(&store, 2);
        // Only half of a snapshot: it goes when the next begins, and when the store opens.
        let opened = open(&store, ONE).unwrap();
        let all = pieces(&store, ONE, opened.number, 9000);
        stage(&store, TWO, &two, id(opened), &all[..all.len() - 1]);
        wait_for_slots(&store, 3);
        store.reset(ONE, 1).unwrap();
        one.expect(&Report::Appended { write: 1, upto: LogPosition::default() });
        wait_for_slots(&store, 2);
        drop(store);
        let store = Store::open(options(&place)).unwrap().store;
        wait_for_slots(&store, 1);
        assert_eq!(store.bounds(TWO).unwrap().first_index, 2000);
        assert_eq!(store.queue_records(TWO, b"", b"").count(), 256);
        let reports = Reports::of(&store, TWO);
        store.remove_group(TWO).unwrap();
        assert_eq!(reports.next(), Report::Removed);
        wait_for_slots(&store, 0);
        store.close().unwrap();
    }

    #[test]
    fn other_groups_write_while_a_large_past_is_deleted() {
        let place = tempfile::tempdir().unwrap();
        let store = Store::open(options(&place)).unwrap().store;
        let (one, two) = (filled(&store, ONE), filled(&store, TWO));
        for write in 1..20 {
            store.reset(ONE, write).unwrap();
            let relief = AppendBatch { write, ..batch(2, 4990 + 10 + write, 4990 + 10 + write) };
            store.try_append(TWO, relief).unwrap();
            two.appended(5000 + write);
            one.expect(&Report::Appended { write, upto: LogPosition::default() });
        }
        wait_for_slots(&store, 1);
    }

    #[test]
    fn snapshots_are_closed_by_themselves() {
        let place = tempfile::tempdir().unwrap();
        for (idle, life) in [(20, 3_600_000), (3_600_000, 20)] {
            let place = place.path().join(format!("{idle}"));
            let identity = NodeIdentity { cluster: "test".to_owned(), node: NodeId(1) };
            let mut short = StoreOptions::new(place, identity);
            short.disk_reserve = 0;
            short.witness_dir = None;
            short.snapshot_idle = Duration::from_millis(idle);
            short.snapshot_life = Duration::from_millis(life);
            short.snapshots = 1;
            let store = Store::open(short).unwrap().store;
            filled(&store, ONE);
            let opened = open(&store, ONE).unwrap();
            // Others have to wait for their turn, and it comes.
            let began = Instant::now();
            let next = loop {
                match open(&store, ONE) {
                    Err(ReadError::Busy { .. }) => {}
                    found => break found.unwrap(),
                }
                assert!(began.elapsed() < Duration::from_secs(60));
            };
            assert_ne!(next.number, opened.number);
            let gone = piece(&store, ONE, opened.number, Bytes::new(), 1);
            assert_eq!(gone, Err(ReadError::SnapshotGone { group: ONE, number: opened.number }));
            store.close().unwrap();
            let stopped = piece(&store, ONE, next.number, Bytes::new(), 1);
            assert_eq!(stopped, Err(ReadError::Stopped { group: ONE }));
        }
    }
}
