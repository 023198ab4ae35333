//! Deletes what the spare side of a group holds: a past that was replaced, or a snapshot that was
//! never finished. In steps, so that other groups' writes go on in between.

use crate::database::{Database, Family};
use crate::group_record::Slot;
use crate::statistics::Counters;
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
