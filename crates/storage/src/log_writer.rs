//! What is written to the database, one write at a time: by its own thread, or, when it is little,
//! by the thread that asks for it (`small_writes`).
//!
//! Everything that waits in the inbox becomes one `WriteBatch`, so batches grow with the load by
//! themselves and nobody waits for a timer. Reports go out only after the write call has returned
//! and the witness knows of it.

use crate::database::{Database, Family};
use crate::inbox::{Delivery, Inbox, Request, SyncMark, SyncedMarks, Work};
use crate::options::Durability;
use crate::records::{self, EntryHeader};
use crate::side_clearing::Clearing;
use crate::small_writes;
use crate::statistics::Counters;
use crate::vouching::Vouching;
use crate::wal_sync::Unsynced;
use flintmq_consensus::{Entry, Epoch, GroupId, HardState, Index, LogPosition};
use flintmq_log_store::StorageError;
use flintmq_log_store::parts::group_log::{self, GroupLog, MemtableProgress};
use flintmq_log_store::parts::group_record::{self, GroupState, Slot};
use flintmq_log_store::parts::snapshot_staging::Staging;
use flintmq_log_store::{AppendBatch, CheckpointBatch, HardStates, OnSaved, Report, Sink};
use rocksdb::{WriteBatch, WriteOptions};
use std::collections::{HashMap, VecDeque};
use std::io::IoSlice;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

/// Everything that the writer's thread needs.
pub(crate) struct LogWriter {
    pub(crate) database: Arc<Database>,
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) unsynced: Arc<Unsynced>,
    pub(crate) vouching: Arc<Vouching>,
    pub(crate) durability: Durability,
    pub(crate) write_bytes: usize,
    pub(crate) loss_epoch: Epoch,
    pub(crate) groups: HashMap<GroupId, Group>,
    /// What is being deleted, oldest first.
    pub(crate) clearing: VecDeque<Clearing>,
    pub(crate) pending: Pending,
    /// Room for requests, used again and again.
    pub(crate) requests: Vec<Request>,
}

/// How a round of the writer's thread has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Round {
    /// Everything that waited is done.
    Idle,
    /// Something is left to be cleared: the next round need not wait.
    Clearing,
    /// There are no more rounds.
    Ended,
}

/// A group in the writer.
#[derive(Default)]
pub(crate) struct Group {
    /// `None`: the group does not exist; only its sink is known.
    pub(crate) log: Option<GroupLog>,
    pub(crate) sink: Option<Sink>,
    /// A batch did not fit: nothing more is written for this group.
    pub(crate) broken: bool,
    /// Place in the reports of the last append of the present write: earlier ones are not sent.
    pub(crate) last_append: usize,
    /// The snapshot that comes in on the spare side.
    pub(crate) staging: Option<Staging>,
    /// The spare side may hold something.
    pub(crate) is_spare_dirty: bool,
}

impl Group {
    pub(crate) fn with_log(log: GroupLog) -> Self {
        Self { log: Some(log), ..Self::default() }
    }

    fn is_synchronous(&self) -> bool {
        self.log.as_ref().is_some_and(|log| log.state.synchronous)
    }

    pub(crate) fn report(&self, report: Report) {
        if let Some(sink) = &self.sink {
            sink(report);
        }
    }
}

/// The write that is being put together.
#[derive(Default)]
pub(crate) struct Pending {
    pub(crate) batch: WriteBatch,
    /// Something in it must be on the disk before it is reported.
    pub(crate) sync: bool,
    entries: u64,
    requests: u64,
    /// What its deletions leave behind in table files.
    dead_entries: u64,
    dead_bytes: u64,
    /// Entries that it deletes because nobody needs them, wherever they are.
    died: u64,
    pub(crate) reports: Vec<(GroupId, Report)>,
    /// Who wants to know that hard states are saved.
    saved: Vec<OnSaved>,
    /// How far it takes the log of each group that it appends to.
    pub(crate) marks: Vec<(GroupId, SyncMark)>,
    /// Sides that it puts out of use.
    pub(crate) replaced: Vec<Slot>,
}

impl LogWriter {
    /// Does what waits, on the writer's own thread.
    pub(crate) fn round(&mut self) -> Round {
        let requests = std::mem::take(&mut self.requests);
        let mut delivery = self.inbox.take(self.write_bytes, requests);
        if let Some(error) = delivery.failed {
            return self.fail(&error);
        }
        if delivery.abandon {
            return Round::Ended;
        }
        if let Err(error) = self.deliver(&mut delivery) {
            return self.fail(&error);
        }
        if let Some(done) = delivery.close {
            // The other side may have given up waiting; that changes nothing.
            let _ = done.send(());
            return Round::Ended;
        }
        self.requests = delivery.requests;
        match self.clear_some() {
            Ok(()) if self.clearing.is_empty() => Round::Idle,
            Ok(()) => Round::Clearing,
            Err(error) => self.fail(&error),
        }
    }

    /// Writes what waits, if it is little and all of it is to go to the page cache alone; for the
    /// thread of whoever asked. True when nothing is left to be done.
    pub(crate) fn write_small(&mut self) -> bool {
        if self.durability == Durability::Sync {
            return false;
        }
        let is_small = |request: &Request| {
            small_writes::is_small(request)
                && self.groups.get(&request.group).is_some_and(|group| !group.is_synchronous())
        };
        let requests = std::mem::take(&mut self.requests);
        let mut delivery = match self.inbox.take_small(is_small, requests) {
            Ok(delivery) => delivery,
            Err(requests) => {
                self.requests = requests;
                return false;
            }
        };
        if let Err(error) = self.deliver(&mut delivery) {
            // The writer's thread finds it and tells everybody.
            self.inbox.fail(error);
        }
        self.requests = delivery.requests;
        true
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
        // Hard states of several groups look for themselves.
        if broken && !matches!(work, Work::Drop | Work::Remove | Work::HardStates(_)) {
            return Ok(());
        }
        self.pending.requests += 1;
        match work {
            Work::Register(_) => Ok(()),
            Work::Create(new) => self.create(group, &new),
            Work::Drop => self.drop_group(group),
            Work::Remove => self.remove_group(group),
            Work::Append(batch) => self.append(group, &batch),
            Work::Reset { write } => self.reset(group, write),
            Work::HardState { save, state } => self.save_hard_state(group, save, &state),
            Work::HardStates(batch) => {
                self.save_hard_states(batch);
                Ok(())
            }
            Work::Checkpoint(batch) => self.checkpoint(group, &batch),
            Work::Rejoined => self.rejoined(group),
            Work::Stage(piece) => self.stage(group, &piece),
            Work::Install { id, keep_log_after } => self.install(group, id, keep_log_after),
        }
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

    /// A state that does not fit ends its group; the others' are saved.
    fn save_hard_states(&mut self, HardStates { states, then }: HardStates) {
        for (group, creation, state) in states {
            let known = self.groups.get(&group);
            if known.is_some_and(|known| known.broken) {
                continue;
            }
            match known.and_then(|known| known.log.as_ref()) {
                None => self.break_group(group, "there is no such group".to_owned()),
                Some(log) if log.state.creation != creation => {
                    let detail = format!(
                        "the hard state is of another making of the group here={} given={}",
                        log.state.creation.0, creation.0
                    );
                    self.break_group(group, detail);
                }
                Some(_) => self.put_hard_state(group, &state),
            }
        }
        self.pending.sync = true;
        self.pending.saved.push(then);
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
            None => self.live_log_of(group)?.check_entries(&batch.entries)?,
        }
        let memtables = self.memtables();
        let written = self.database.db().latest_sequence_number();
        // Looked up field by field, so that the batch can be filled meanwhile.
        let Some(known) = self.groups.get_mut(&group) else { return Ok(()) };
        let Some(log) = known.log.as_mut() else { return Ok(()) };
        log.memtables_moved(memtables);
        let family = self.database.family(Family::Log);
        let slot = log.state.slot(group);
        for entry in &batch.entries {
            put_entry(&mut self.pending.batch, family, slot, entry)?;
            let position = LogPosition { term: entry.term, index: entry.index };
            log.appended(position, entry.payload.len());
        }
        log.sequenced(written + self.pending.batch.len() as u64);
        self.pending.entries += batch.entries.len() as u64;
        known.last_append = self.pending.reports.len();
        self.pending.reports.push((group, Report::Appended { write: batch.write, upto: log.last }));
        let mark = SyncMark { upto: log.last.index, truncations: log.truncations };
        self.pending.sync |= log.state.synchronous;
        self.pending.marks.push((group, mark));
        Ok(())
    }

    /// Deletes the entries from `from` on, if `entries` fit behind what is left.
    fn truncate(&mut self, group: GroupId, from: Index, entries: &[Entry]) -> Result<(), Trouble> {
        let doomed = self.live_log_of(group)?.check_truncation(from)?;
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
        let slot = log.state.slot(group);
        let family = self.database.family(Family::Log);
        for index in doomed {
            self.pending.batch.single_delete_cf(family, records::log_key(slot, index));
        }
        Ok(())
    }

    /// Term and index of an entry, which must be the applied one, in the log, or 0.
    pub(crate) fn position(
        &mut self,
        group: GroupId,
        index: Index,
    ) -> Result<LogPosition, Trouble> {
        let log = self.log_of(group)?;
        let (applied, slot) = (log.applied(), log.state.slot(group));
        if index == 0 || index == applied.index {
            return Ok(LogPosition { index, ..applied });
        }
        let family = self.database.family(Family::Log);
        let value = self.database.db().get_pinned_cf(family, records::log_key(slot, index));
        let value = value.map_err(|error| Trouble::Misfit(error.to_string()))?;
        let value = value.ok_or_else(|| Trouble::Misfit(format!("no entry index={index}")))?;
        Ok(LogPosition { term: records::check_entry(&value)?, index })
    }

    fn checkpoint(&mut self, group: GroupId, batch: &CheckpointBatch) -> Result<(), Trouble> {
        let memtables = self.memtables();
        let log = self.live_log_of(group)?;
        log.check_checkpoint(batch)?;
        log.checkpointed(batch);
        log.memtables_moved(memtables);
        let (dead_entries, dead_bytes) = log.dead_on_disk(&batch.dead_entries);
        let state = log.state;
        self.pending.dead_entries += dead_entries;
        self.pending.dead_bytes += dead_bytes;
        self.pending.died += batch.dead_entries.len() as u64;
        self.pending.sync |= state.synchronous;
        self.put_group(group, &state);
        let queue = self.database.family(Family::Queue);
        let write = &mut self.pending.batch;
        let prefix = state.slot(group).prefix();
        for suffix in &batch.deletes {
            write.delete_cf_vectored(queue, &[IoSlice::new(&prefix), IoSlice::new(suffix)])?;
        }
        for (suffix, value) in &batch.puts {
            let key = [IoSlice::new(&prefix), IoSlice::new(suffix)];
            write.put_cf_vectored(queue, &key, &[IoSlice::new(value)])?;
        }
        let log = self.database.family(Family::Log);
        for index in &batch.dead_entries {
            write.single_delete_cf(log, records::log_key(state.slot(group), *index));
        }
        self.pending.reports.push((group, Report::Checkpointed { applied: batch.applied }));
        Ok(())
    }

    fn memtables(&self) -> MemtableProgress {
        MemtableProgress {
            closed: self.counters.log_memtables_closed.load(Relaxed),
            flushed_sequence: self.counters.log_flushed_sequence.load(Relaxed),
        }
    }

    /// The log of a group, which must exist and not be removed.
    pub(crate) fn live_log_of(&mut self, group: GroupId) -> Result<&mut GroupLog, Trouble> {
        let log = self.log_of(group)?;
        if log.state.removed {
            return Err(Trouble::Misfit("the group was removed".to_owned()));
        }
        Ok(log)
    }

    pub(crate) fn log_of(&mut self, group: GroupId) -> Result<&mut GroupLog, Trouble> {
        self.groups
            .get_mut(&group)
            .and_then(|known| known.log.as_mut())
            .ok_or_else(|| Trouble::Misfit("there is no such group".to_owned()))
    }

    pub(crate) fn put_hard_state(&mut self, group: GroupId, hard_state: &HardState) {
        let family = self.database.family(Family::HardState);
        let value = records::encode_hard_state(hard_state);
        self.pending.batch.put_cf(family, records::group_key(group), value);
    }

    pub(crate) fn put_group(&mut self, group: GroupId, state: &GroupState) {
        let family = self.database.family(Family::Group);
        let value = group_record::encode_group(state);
        self.pending.batch.put_cf(family, records::group_key(group), value);
    }

    /// Writes what is pending and reports it.
    pub(crate) fn write(&mut self) -> Result<(), StorageError> {
        if !self.pending.batch.is_empty() {
            let sync = self.pending.sync || self.durability == Durability::Sync;
            let mut options = WriteOptions::default();
            options.set_sync(sync);
            let bytes = self.pending.batch.size_in_bytes() as u64;
            let began = Instant::now();
            let written = self.database.db().write_opt(&self.pending.batch, &options);
            written.map_err(|error| StorageError::Write { detail: error.to_string() })?;
            self.counters.log_write.record(began.elapsed());
            self.counters.log_write_syncs.fetch_add(u64::from(sync), Relaxed);
            self.counters.log_write_batches.fetch_add(self.pending.requests, Relaxed);
            self.counters.wrote_entries(self.pending.entries);
            self.counters.log_write_bytes.fetch_add(bytes, Relaxed);
            // Only now: a flush that this asks for must find the deletions in the memtable.
            self.counters.died_entries.fetch_add(self.pending.died, Relaxed);
            self.counters.dead_flushed_entries.fetch_add(self.pending.dead_entries, Relaxed);
            self.counters.dead_flushed_bytes.fetch_add(self.pending.dead_bytes, Relaxed);
            let sequence = self.database.db().latest_sequence_number();
            let mut vouched = self.vouching.acknowledging(sequence);
            if sync {
                vouched = vouched.and_then(|()| self.vouching.synced(sequence));
            }
            vouched.map_err(|error| StorageError::Witness { detail: error.to_string() })?;
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
        self.pending.died = 0;
        self.put_out_of_use();
        for (place, (group, report)) in self.pending.reports.drain(..).enumerate() {
            let Some(group) = self.groups.get(&group) else { continue };
            let synced = self.durability == Durability::Sync || group.is_synchronous();
            match report {
                Report::Appended { .. } if group.last_append != place => {}
                Report::Appended { write, upto } if synced => {
                    group.report(Report::Appended { write, upto });
                    group.report(Report::Synced { upto: upto.index });
                }
                report => group.report(report),
            }
        }
        for then in self.pending.saved.drain(..) {
            then();
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

    pub(crate) fn break_group(&mut self, group: GroupId, detail: String) {
        let error = StorageError::BrokenLog { group, detail };
        tracing::error!(%error, "nothing more is written for this group");
        // What the group has in the present write is whole and goes its way; its reports come
        // first.
        let known = self.groups.entry(group).or_default();
        known.broken = true;
        self.pending.reports.push((group, Report::Failed(error)));
    }

    fn fail(&self, error: &StorageError) -> Round {
        tracing::error!(%error, "the store has failed: nothing more is acknowledged");
        self.vouching.withdraw();
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
        Round::Ended
    }
}

fn put_entry(
    batch: &mut WriteBatch,
    family: &rocksdb::ColumnFamily,
    slot: Slot,
    entry: &Entry,
) -> Result<(), rocksdb::Error> {
    let key = records::log_key(slot, entry.index);
    let header = EntryHeader::of(entry);
    batch.put_cf_vectored(
        &family,
        &[IoSlice::new(&key)],
        &[IoSlice::new(header.as_slice()), IoSlice::new(&entry.payload)],
    )
}

/// Why a request was not done.
pub(crate) enum Trouble {
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
