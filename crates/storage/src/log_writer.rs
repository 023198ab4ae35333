//! The one thread that writes to the database, and the handle by which it is asked to.
//!
//! Everything that waits in the inbox becomes one `WriteBatch`, so batches grow with the load by
//! themselves and nobody waits for a timer. Reports go out only after the write call has returned
//! and the witness knows of it.

use crate::batch::{AppendBatch, AppendKind, CheckpointBatch, Report, Sink};
use crate::database::{Database, Family};
use crate::disk_space::{DiskMonitor, DiskState};
use crate::error::{Refused, RefusedReason, StorageError};
use crate::group_log::{self, GroupLog, MemtableProgress};
use crate::inbox::{Class, Delivery, Inbox, Request, SyncMark, SyncedMarks, Work};
use crate::options::Durability;
use crate::records::{self, EntryHeader, GroupState};
use crate::statistics::Counters;
use crate::wal_sync::Unsynced;
use crate::witness::Witness;
use flintmq_consensus::{Entry, Epoch, GroupId, HardState, Index, LogPosition};
use rocksdb::{WriteBatch, WriteOptions};
use std::collections::HashMap;
use std::io::IoSlice;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

/// Asks the log writer to write. Cheap to clone; never waits. See [`crate::LogStore`] for what each
/// request does.
#[derive(Clone)]
pub struct LogHandle {
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) disk: Arc<DiskMonitor>,
    pub(crate) counters: Arc<Counters>,
}

impl LogHandle {
    /// See [`crate::LogStore::register`].
    pub fn register(&self, group: GroupId, sink: Sink) {
        self.inbox.register(group, sink);
    }

    /// See [`crate::LogStore::create_group`].
    pub fn create_group(&self, group: GroupId, hard_state: HardState) -> Result<(), Refused<()>> {
        self.inbox.push_urgent(group, (), |()| Work::Create(hard_state))
    }

    /// See [`crate::LogStore::drop_group`].
    pub fn drop_group(&self, group: GroupId) -> Result<(), Refused<()>> {
        self.inbox.push_urgent(group, (), |()| Work::Drop)
    }

    /// See [`crate::LogStore::try_append`].
    pub fn try_append(
        &self,
        group: GroupId,
        batch: AppendBatch,
    ) -> Result<(), Refused<AppendBatch>> {
        if batch.kind == AppendKind::Growing
            && let DiskState::Low { free, reserve } = self.disk.state()
        {
            self.counters.refused_disk_full.fetch_add(1, Relaxed);
            let reason = RefusedReason::DiskFull { free, reserve };
            return Err(Refused { returned: batch, reason });
        }
        let class = match batch.kind {
            AppendKind::Growing => Class::Growing,
            AppendKind::Relief => Class::Relief,
        };
        self.counted(self.inbox.push(group, (batch.size(), class), batch, Work::Append))
    }

    /// See [`crate::LogStore::save_hard_state`].
    pub fn save_hard_state(
        &self,
        group: GroupId,
        save: u64,
        hard_state: HardState,
    ) -> Result<(), Refused<()>> {
        let state = hard_state;
        self.inbox.push_urgent(group, (), |()| Work::HardState { save, state })
    }

    /// See [`crate::LogStore::try_checkpoint`].
    pub fn try_checkpoint(
        &self,
        group: GroupId,
        batch: CheckpointBatch,
    ) -> Result<(), Refused<CheckpointBatch>> {
        let size = (batch.size(), Class::Relief);
        self.counted(self.inbox.push(group, size, batch, Work::Checkpoint))
    }

    /// See [`crate::LogStore::mark_rejoined`].
    pub fn mark_rejoined(&self, group: GroupId) -> Result<(), Refused<()>> {
        self.inbox.push_urgent(group, (), |()| Work::Rejoined)
    }

    fn counted<T>(&self, result: Result<(), Refused<T>>) -> Result<(), Refused<T>> {
        if let Err(Refused { reason: RefusedReason::Full, .. }) = &result {
            self.counters.refused_full.fetch_add(1, Relaxed);
        }
        result
    }
}

/// Everything that the writer's thread needs.
pub(crate) struct LogWriter {
    pub(crate) database: Arc<Database>,
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) unsynced: Arc<Unsynced>,
    pub(crate) witness: Option<Witness>,
    pub(crate) durability: Durability,
    pub(crate) write_bytes: usize,
    pub(crate) loss_epoch: Epoch,
    pub(crate) groups: HashMap<GroupId, Group>,
    pub(crate) pending: Pending,
}

/// A group in the writer.
#[derive(Default)]
pub(crate) struct Group {
    /// `None`: the group does not exist; only its sink is known.
    pub(crate) log: Option<GroupLog>,
    sink: Option<Sink>,
    /// A batch did not fit: nothing more is written for this group.
    broken: bool,
    /// Place in the reports of the last append of the present write: earlier ones are not sent.
    last_append: usize,
}

impl Group {
    pub(crate) fn with_log(log: GroupLog) -> Self {
        Self { log: Some(log), ..Self::default() }
    }

    fn report(&self, report: Report) {
        if let Some(sink) = &self.sink {
            sink(report);
        }
    }
}

/// The write that is being put together.
#[derive(Default)]
pub(crate) struct Pending {
    batch: WriteBatch,
    /// Something in it must be on the disk before it is reported.
    sync: bool,
    entries: u64,
    requests: u64,
    /// What its deletions leave behind in table files.
    dead_entries: u64,
    dead_bytes: u64,
    reports: Vec<(GroupId, Report)>,
    /// How far it takes the log of each group that it appends to.
    marks: Vec<(GroupId, SyncMark)>,
}

impl LogWriter {
    /// Works until the inbox is closed, abandoned or failed.
    pub(crate) fn run(mut self) {
        let _end = End(Arc::clone(&self.inbox));
        let mut requests = Vec::new();
        loop {
            let mut delivery = self.inbox.take(self.write_bytes, requests);
            if let Some(error) = delivery.failed {
                return self.fail(error);
            }
            if delivery.abandon {
                return;
            }
            if let Err(error) = self.deliver(&mut delivery) {
                return self.fail(error);
            }
            if let Some(done) = delivery.close {
                // The other side may have given up waiting; that changes nothing.
                let _ = done.send(());
                return;
            }
            requests = delivery.requests;
        }
    }

    fn deliver(&mut self, delivery: &mut Delivery) -> Result<(), StorageError> {
        let bytes = delivery.requests.iter().map(|request| request.size).sum();
        let count = delivery.requests.len();
        let mut failed = Ok(());
        for request in delivery.requests.drain(..) {
            let group = request.group;
            // After a failure sinks are still taken in, because they must hear of it.
            if failed.is_err() && !matches!(request.work, Work::Register(_)) {
                continue;
            }
            match self.take_in(request) {
                Ok(()) => {}
                Err(Trouble::Misfit(detail)) => self.break_group(group, detail),
                Err(Trouble::Failed(error)) => failed = Err(error),
            }
        }
        failed?;
        self.write()?;
        for marks in delivery.synced.drain(..) {
            self.report_synced(marks);
        }
        if count > 0 {
            for group in self.inbox.release(bytes, count) {
                if let Some(group) = self.groups.get(&group) {
                    group.report(Report::Room);
                }
            }
        }
        Ok(())
    }

    fn take_in(&mut self, Request { group, work, .. }: Request) -> Result<(), Trouble> {
        if let Work::Register(sink) = work {
            self.groups.entry(group).or_default().sink = Some(sink);
            return Ok(());
        }
        let broken = self.groups.get(&group).is_some_and(|known| known.broken);
        if broken && !matches!(work, Work::Drop) {
            return Ok(());
        }
        self.pending.requests += 1;
        match work {
            Work::Register(_) => Ok(()),
            Work::Create(hard_state) => self.create(group, &hard_state),
            Work::Drop => self.drop_group(group),
            Work::Append(batch) => self.append(group, &batch),
            Work::HardState { save, state } => self.save_hard_state(group, save, &state),
            Work::Checkpoint(batch) => self.checkpoint(group, &batch),
            Work::Rejoined => self.rejoined(group),
        }
    }

    fn create(&mut self, group: GroupId, hard_state: &HardState) -> Result<(), Trouble> {
        let known = self.groups.entry(group).or_default();
        if known.log.is_some() {
            return Err(Trouble::Misfit("the group exists already".to_owned()));
        }
        let state = GroupState {
            contiguous_from: 1,
            rejoined_epoch: self.loss_epoch,
            ..GroupState::default()
        };
        known.log = Some(GroupLog::new(state, LogPosition::default(), 0));
        self.put_hard_state(group, hard_state);
        self.put_group(group, &state);
        self.pending.sync = true;
        self.pending.reports.push((group, Report::Created));
        Ok(())
    }

    fn save_hard_state(
        &mut self,
        group: GroupId,
        save: u64,
        hard_state: &HardState,
    ) -> Result<(), Trouble> {
        self.log_of(group)?;
        self.put_hard_state(group, hard_state);
        self.pending.sync = true;
        self.pending.reports.push((group, Report::HardStateSynced { save }));
        Ok(())
    }

    fn rejoined(&mut self, group: GroupId) -> Result<(), Trouble> {
        let loss_epoch = self.loss_epoch;
        let log = self.log_of(group)?;
        log.state.rejoined_epoch = loss_epoch;
        let state = log.state;
        self.put_group(group, &state);
        self.pending.reports.push((group, Report::Rejoined));
        Ok(())
    }

    fn append(&mut self, group: GroupId, batch: &AppendBatch) -> Result<(), Trouble> {
        match batch.truncate_from {
            Some(from) => self.truncate(group, from, &batch.entries)?,
            None => self.log_of(group)?.check_entries(&batch.entries)?,
        }
        let memtables = self.memtables();
        let written = self.database.db().latest_sequence_number();
        // Looked up field by field, so that the batch can be filled meanwhile.
        let Some(known) = self.groups.get_mut(&group) else { return Ok(()) };
        let Some(log) = known.log.as_mut() else { return Ok(()) };
        log.memtables_moved(memtables);
        let family = self.database.family(Family::Log);
        for entry in &batch.entries {
            put_entry(&mut self.pending.batch, family, group, entry)?;
            let position = LogPosition { term: entry.term, index: entry.index };
            log.appended(position, entry.payload.len());
        }
        log.sequenced(written + self.pending.batch.len() as u64);
        self.pending.entries += batch.entries.len() as u64;
        known.last_append = self.pending.reports.len();
        self.pending.reports.push((group, Report::Appended { write: batch.write, upto: log.last }));
        let mark = SyncMark { upto: log.last.index, truncations: log.truncations };
        self.pending.marks.push((group, mark));
        Ok(())
    }

    /// Deletes the entries from `from` on, if `entries` fit behind what is left.
    fn truncate(&mut self, group: GroupId, from: Index, entries: &[Entry]) -> Result<(), Trouble> {
        let doomed = self.log_of(group)?.check_truncation(from)?;
        if doomed.is_empty() {
            return Ok(self.log_of(group)?.check_entries(entries)?);
        }
        // The new end's term is read back, so what is pending must be there to be read. Rare
        // enough.
        self.write()?;
        let new_last = self.position(group, from - 1)?;
        let log = self.log_of(group)?;
        group_log::check_entries(new_last, entries)?;
        log.truncated(new_last);
        let family = self.database.family(Family::Log);
        for index in doomed {
            self.pending.batch.single_delete_cf(family, records::log_key(group, index));
        }
        Ok(())
    }

    /// Term and index of an entry, which must be the applied one, in the log, or 0.
    fn position(&mut self, group: GroupId, index: Index) -> Result<LogPosition, Trouble> {
        let applied = self.log_of(group)?.applied();
        if index == 0 || index == applied.index {
            return Ok(LogPosition { index, ..applied });
        }
        let family = self.database.family(Family::Log);
        let value = self.database.db().get_pinned_cf(family, records::log_key(group, index));
        let value = value.map_err(|error| Trouble::Misfit(error.to_string()))?;
        let value = value.ok_or_else(|| Trouble::Misfit(format!("no entry index={index}")))?;
        let entry = records::decode_entry(index, &value)?;
        Ok(LogPosition { term: entry.term, index })
    }

    fn checkpoint(&mut self, group: GroupId, batch: &CheckpointBatch) -> Result<(), Trouble> {
        let memtables = self.memtables();
        let log = self.log_of(group)?;
        log.check_checkpoint(batch)?;
        log.checkpointed(batch);
        log.memtables_moved(memtables);
        let (dead_entries, dead_bytes) = log.dead_on_disk(&batch.dead_entries);
        let state = log.state;
        self.pending.dead_entries += dead_entries;
        self.pending.dead_bytes += dead_bytes;
        self.put_group(group, &state);
        let queue = self.database.family(Family::Queue);
        let write = &mut self.pending.batch;
        let prefix = records::group_key(group);
        for suffix in &batch.deletes {
            write.delete_cf_vectored(queue, &[IoSlice::new(&prefix), IoSlice::new(suffix)])?;
        }
        for (suffix, value) in &batch.puts {
            let key = [IoSlice::new(&prefix), IoSlice::new(suffix)];
            write.put_cf_vectored(queue, &key, &[IoSlice::new(value)])?;
        }
        let log = self.database.family(Family::Log);
        for index in &batch.dead_entries {
            write.single_delete_cf(log, records::log_key(group, *index));
        }
        self.pending.reports.push((group, Report::Checkpointed { applied: batch.applied }));
        Ok(())
    }

    /// Deletes a group in steps that each are synced: first it is marked, so that a crash half-way
    /// is completed at the next start.
    fn drop_group(&mut self, group: GroupId) -> Result<(), Trouble> {
        let state = GroupState { dropping: true, ..self.log_of(group)?.state };
        self.put_group(group, &state);
        self.pending
            .batch
            .delete_cf(self.database.family(Family::HardState), records::group_key(group));
        self.pending.sync = true;
        self.write()?;
        delete_group_data(&self.database, group)
            .map_err(|error| StorageError::Write { detail: error.to_string() })?;
        if let Some(gone) = self.groups.remove(&group) {
            gone.report(Report::Dropped);
        }
        Ok(())
    }

    fn memtables(&self) -> MemtableProgress {
        MemtableProgress {
            closed: self.counters.log_memtables_closed.load(Relaxed),
            flushed_sequence: self.counters.log_flushed_sequence.load(Relaxed),
        }
    }

    fn log_of(&mut self, group: GroupId) -> Result<&mut GroupLog, Trouble> {
        self.groups
            .get_mut(&group)
            .and_then(|known| known.log.as_mut())
            .ok_or_else(|| Trouble::Misfit("there is no such group".to_owned()))
    }

    fn put_hard_state(&mut self, group: GroupId, hard_state: &HardState) {
        let family = self.database.family(Family::HardState);
        let value = records::encode_hard_state(hard_state);
        self.pending.batch.put_cf(family, records::group_key(group), value);
    }

    fn put_group(&mut self, group: GroupId, state: &GroupState) {
        let family = self.database.family(Family::Group);
        let value = records::encode_group(state);
        self.pending.batch.put_cf(family, records::group_key(group), value);
    }

    /// Writes what is pending and reports it.
    fn write(&mut self) -> Result<(), StorageError> {
        if !self.pending.batch.is_empty() {
            let sync = self.pending.sync || self.durability == Durability::Sync;
            let mut options = WriteOptions::default();
            options.set_sync(sync);
            let bytes = self.pending.batch.size_in_bytes() as u64;
            let began = Instant::now();
            let written = self.database.db().write_opt(&self.pending.batch, &options);
            written.map_err(|error| StorageError::Write { detail: error.to_string() })?;
            self.counters.log_write.record(began.elapsed());
            self.counters.log_write_batches.fetch_add(self.pending.requests, Relaxed);
            self.counters.wrote_entries(self.pending.entries);
            self.counters.log_write_bytes.fetch_add(bytes, Relaxed);
            // Only now: a flush that this asks for must find the deletions in the memtable.
            self.counters.dead_flushed_entries.fetch_add(self.pending.dead_entries, Relaxed);
            self.counters.dead_flushed_bytes.fetch_add(self.pending.dead_bytes, Relaxed);
            if let Some(witness) = &self.witness {
                witness
                    .record(self.database.db().latest_sequence_number())
                    .map_err(|error| StorageError::Witness { detail: error.to_string() })?;
            }
            if self.durability == Durability::Sync {
                self.pending.marks.clear();
            } else {
                // Even after a synced write: the next fsync has nothing to do, and reports it.
                self.unsynced.note(self.pending.marks.drain(..));
            }
        }
        // The buffer is used again, but one giant does not keep its memory for ever.
        if self.pending.batch.size_in_bytes() > 2 * self.write_bytes {
            self.pending.batch = WriteBatch::default();
        } else {
            self.pending.batch.clear();
        }
        self.pending.sync = false;
        self.pending.entries = 0;
        self.pending.requests = 0;
        self.pending.dead_entries = 0;
        self.pending.dead_bytes = 0;
        let synced = self.durability == Durability::Sync;
        for (place, (group, report)) in self.pending.reports.drain(..).enumerate() {
            let Some(group) = self.groups.get(&group) else { continue };
            match report {
                Report::Appended { .. } if group.last_append != place => {}
                Report::Appended { write, upto } if synced => {
                    group.report(Report::Appended { write, upto });
                    group.report(Report::Synced { upto: upto.index });
                }
                report => group.report(report),
            }
        }
        Ok(())
    }

    fn report_synced(&self, marks: SyncedMarks) {
        for (group, mark) in marks {
            let Some(known) = self.groups.get(&group) else { continue };
            // A log that was truncated meanwhile has a newer mark on its way.
            if known.log.as_ref().is_some_and(|log| log.truncations == mark.truncations) {
                known.report(Report::Synced { upto: mark.upto });
            }
        }
    }

    fn break_group(&mut self, group: GroupId, detail: String) {
        let error = StorageError::BrokenLog { group, detail };
        tracing::error!(%error, "nothing more is written for this group");
        // What the group has in the present write is whole and goes its way; its reports come
        // first.
        let known = self.groups.entry(group).or_default();
        known.broken = true;
        self.pending.reports.push((group, Report::Failed(error)));
    }

    fn fail(self, error: StorageError) {
        tracing::error!(%error, "the store has failed: nothing more is acknowledged");
        if let Some(witness) = &self.witness {
            witness.remove();
        }
        self.inbox.fail(error.clone());
        for group in self.groups.values() {
            group.report(Report::Failed(error.clone()));
        }
        // Sinks that were still waiting to be registered must hear of it too.
        for request in self.inbox.take(usize::MAX, Vec::new()).requests {
            if let Work::Register(sink) = request.work {
                sink(Report::Failed(error.clone()));
            }
        }
    }
}

/// Tells the inbox that the writer is gone, even if it panics.
struct End(Arc<Inbox>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// Deletes whatever there is of a group but its hard state, the record of the group last; synced.
pub(crate) fn delete_group_data(database: &Database, group: GroupId) -> Result<(), rocksdb::Error> {
    const KEYS_PER_WRITE: usize = 4096;
    let db = database.db();
    let log = database.family(Family::Log);
    let mut batch = WriteBatch::default();
    // One by one: keys of the log may only ever be deleted by `SingleDelete`.
    let mut keys = db.raw_iterator_cf(log);
    keys.seek(records::group_key(group));
    while let Some(key) = keys.key() {
        if records::key_group(key) != Some(group) {
            break;
        }
        batch.single_delete_cf(log, key);
        if batch.len() >= KEYS_PER_WRITE {
            db.write(&batch)?;
            batch.clear();
        }
        keys.next();
    }
    keys.status()?;
    let begin = records::group_key(group).to_vec();
    batch.delete_range_cf(database.family(Family::Queue), begin, records::group_end(group));
    batch.delete_cf(database.family(Family::Group), records::group_key(group));
    let mut options = WriteOptions::default();
    options.set_sync(true);
    db.write_opt(&batch, &options)
}

fn put_entry(
    batch: &mut WriteBatch,
    family: &rocksdb::ColumnFamily,
    group: GroupId,
    entry: &Entry,
) -> Result<(), rocksdb::Error> {
    let key = records::log_key(group, entry.index);
    let header = EntryHeader::of(entry);
    batch.put_cf_vectored(
        &family,
        &[IoSlice::new(&key)],
        &[IoSlice::new(header.as_slice()), IoSlice::new(&entry.payload)],
    )
}

/// Why a request was not done.
enum Trouble {
    /// It does not fit its group: that group ends.
    Misfit(String),
    /// The store ends.
    Failed(StorageError),
}

impl From<String> for Trouble {
    fn from(detail: String) -> Self {
        Self::Misfit(detail)
    }
}

impl From<StorageError> for Trouble {
    fn from(error: StorageError) -> Self {
        Self::Failed(error)
    }
}

impl From<rocksdb::Error> for Trouble {
    fn from(error: rocksdb::Error) -> Self {
        Self::Failed(StorageError::Write { detail: error.to_string() })
    }
}
