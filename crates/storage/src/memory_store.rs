//! A store in memory that keeps the contract and can lose its un-synced tail, for tests and the
//! simulator.
//!
//! It has no threads and no clock. With [`Delivery::Immediate`] every request is done and reported
//! within the call. With [`Delivery::Stepped`] requests wait until [`MemoryStore::step`], so a test
//! decides what is written when, what is fsynced, and what a power loss takes away.

use crate::batch::{AppendBatch, AppendKind, CheckpointBatch, Report, Sink};
use crate::disk_space::DiskState;
use crate::error::{ReadError, Refused, RefusedReason, StorageError};
use crate::group_log::GroupLog;
use crate::log_store::{GroupRecord, LogBounds, LogStore, QueueRecords};
use crate::records::GroupState;
use crate::statistics::StoreStats;
use flintmq_consensus::{Entry, Epoch, GroupId, HardState, Index, LogPosition};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// When requests are done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Delivery {
    /// Within the call that makes them; the report comes before the call returns, unless another
    /// report is just being delivered.
    #[default]
    Immediate,
    /// When [`MemoryStore::step`] is called.
    Stepped,
}

/// See the module. Cheap to clone; clones share their content.
#[derive(Clone)]
pub struct MemoryStore {
    delivery: Delivery,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// What an earlier fsync has made durable.
    synced: Disk,
    /// What was done since, in order: a power loss keeps some of it, from the front.
    unsynced: Vec<(GroupId, Change)>,
    /// Both together: what readers see.
    disk: Disk,
    /// Groups that were appended to since their last `Synced` report.
    appended: BTreeSet<GroupId>,
    loss_epoch: Epoch,
    waiting: VecDeque<(GroupId, Change)>,
    /// Requests that may wait before batches are refused.
    capacity: usize,
    starved: Vec<GroupId>,
    sinks: BTreeMap<GroupId, Arc<Mutex<Sink>>>,
    outbox: VecDeque<(GroupId, Report)>,
    /// Somebody empties the outbox.
    sending: bool,
    broken: BTreeMap<GroupId, StorageError>,
    failed: Option<StorageError>,
    low_disk: Option<(u64, u64)>,
    stats: StoreStats,
}

/// The content of the pretended disk.
#[derive(Clone, Default)]
struct Disk {
    groups: BTreeMap<GroupId, Group>,
}

#[derive(Clone, Default)]
struct Group {
    hard_state: HardState,
    log: GroupLog,
    entries: BTreeMap<Index, Entry>,
    queue: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// What a request does to the disk.
#[derive(Clone)]
enum Change {
    Create(HardState),
    Drop,
    Append(Arc<AppendBatch>),
    HardState { save: u64, state: HardState },
    Checkpoint(Arc<CheckpointBatch>),
    Rejoined,
}

impl MemoryStore {
    /// An empty store.
    pub fn new(delivery: Delivery) -> Self {
        let state = State { capacity: 65_536, ..State::default() };
        Self { delivery, state: Arc::new(Mutex::new(state)) }
    }

    /// Sets how many batches may wait. Default: 65,536.
    pub fn set_capacity(&self, requests: usize) {
        self.lock().capacity = requests;
    }

    /// Pretends that the disk is nearly full, with (free bytes, reserve), or that it is not.
    pub fn set_low_disk(&self, low: Option<(u64, u64)>) {
        self.lock().low_disk = low;
    }

    /// Does the request that has waited longest and reports it; false if none waits.
    pub fn step(&self) -> bool {
        let mut state = self.lock();
        if state.failed.is_some() {
            return false;
        }
        let Some((group, change)) = state.waiting.pop_front() else {
            return false;
        };
        let mut reports = state.perform(group, change);
        if state.waiting.len() <= state.capacity / 2 {
            let starved = std::mem::take(&mut state.starved);
            reports.extend(starved.into_iter().map(|group| (group, Report::Room)));
        }
        self.send(state, reports);
        true
    }

    /// Does everything that waits.
    pub fn run(&self) {
        while self.step() {}
    }

    /// Fsyncs what is written, and reports it.
    pub fn sync(&self) {
        let mut state = self.lock();
        if state.failed.is_some() {
            return;
        }
        let reports = state.sync();
        self.send(state, reports);
    }

    /// Changes that a power loss could take.
    pub fn unsynced_changes(&self) -> usize {
        self.lock().unsynced.len()
    }

    /// Ends the process and starts it again: what waits is lost, what was written is there.
    pub fn crash(&self) {
        let mut state = self.lock();
        state.end_process();
    }

    /// Cuts the power and starts again: of the un-synced changes only the first `keep` survive. The
    /// groups are recovering afterwards.
    pub fn lose_power(&self, keep: usize) {
        let mut state = self.lock();
        state.end_process();
        let mut disk = state.synced.clone();
        let loss_epoch = state.loss_epoch;
        let survivors = keep.min(state.unsynced.len());
        state.unsynced.truncate(survivors);
        for (group, change) in &state.unsynced {
            disk.apply(*group, change, loss_epoch);
        }
        state.unsynced.clear();
        state.synced = disk.clone();
        state.disk = disk;
        state.loss_epoch += 1;
    }

    /// Makes the next write fail, which is final.
    pub fn fail(&self, error: StorageError) {
        let mut state = self.lock();
        state.failed = Some(error.clone());
        state.waiting.clear();
        let reports =
            state.sinks.keys().map(|group| (*group, Report::Failed(error.clone()))).collect();
        self.send(state, reports);
    }

    fn request<T>(
        &self,
        group: GroupId,
        value: T,
        urgent: bool,
        change: impl FnOnce(T) -> Change,
    ) -> Result<(), Refused<T>> {
        let mut state = self.lock();
        if state.failed.is_some() {
            return Err(Refused { returned: value, reason: RefusedReason::Stopped });
        }
        if !urgent && state.waiting.len() >= state.capacity {
            if !state.starved.contains(&group) {
                state.starved.push(group);
            }
            state.stats.refused_full += 1;
            return Err(Refused { returned: value, reason: RefusedReason::Full });
        }
        state.waiting.push_back((group, change(value)));
        drop(state);
        if self.delivery == Delivery::Immediate {
            self.run();
        }
        Ok(())
    }

    /// Calls the sinks, outside the lock, so that they may ask the store for something. One caller
    /// at a time does it for all, so that reports keep their order.
    fn send<'a>(&'a self, mut state: MutexGuard<'a, State>, reports: Vec<(GroupId, Report)>) {
        state.outbox.extend(reports);
        if state.sending {
            return;
        }
        state.sending = true;
        while let Some((group, report)) = state.outbox.pop_front() {
            let sink = match report {
                Report::Dropped => state.sinks.remove(&group),
                _ => state.sinks.get(&group).map(Arc::clone),
            };
            let Some(sink) = sink else { continue };
            drop(state);
            sink.lock().unwrap_or_else(PoisonError::into_inner)(report);
            state = self.lock();
        }
        state.sending = false;
    }

    fn read<T>(
        &self,
        group: GroupId,
        missing: T,
        read: impl FnOnce(&Group) -> T,
    ) -> Result<T, ReadError> {
        Ok(self.lock().disk.groups.get(&group).map_or(missing, read))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn perform(&mut self, group: GroupId, change: Change) -> Vec<(GroupId, Report)> {
        if self.broken.contains_key(&group) && !matches!(change, Change::Drop) {
            return Vec::new();
        }
        if matches!(change, Change::Drop) {
            self.broken.remove(&group);
        }
        if let Err(detail) = self.disk.check(group, &change) {
            let error = StorageError::BrokenLog { group, detail };
            self.broken.insert(group, error.clone());
            return vec![(group, Report::Failed(error))];
        }
        self.disk.apply(group, &change, self.loss_epoch);
        let must_sync =
            matches!(change, Change::Create(_) | Change::Drop | Change::HardState { .. });
        let report = match &change {
            Change::Create(_) => Report::Created,
            Change::Drop => Report::Dropped,
            Change::HardState { save, .. } => Report::HardStateSynced { save: *save },
            Change::Checkpoint(batch) => Report::Checkpointed { applied: batch.applied },
            Change::Rejoined => Report::Rejoined,
            Change::Append(batch) => {
                self.appended.insert(group);
                self.stats.log_write_entries += batch.entries.len() as u64;
                let upto = self.disk.groups.get(&group).map(|group| group.log.last);
                Report::Appended { write: batch.write, upto: upto.unwrap_or_default() }
            }
        };
        self.stats.log_write_batches += 1;
        self.unsynced.push((group, change));
        if must_sync {
            // One log for all groups: what was written before becomes durable with it.
            self.synced = self.disk.clone();
            self.unsynced.clear();
        }
        vec![(group, report)]
    }

    fn sync(&mut self) -> Vec<(GroupId, Report)> {
        self.synced = self.disk.clone();
        self.unsynced.clear();
        let appended = std::mem::take(&mut self.appended);
        let synced = |group| {
            let upto = self.disk.groups.get(&group)?.log.last.index;
            Some((group, Report::Synced { upto }))
        };
        appended.into_iter().filter_map(synced).collect()
    }

    fn end_process(&mut self) {
        self.waiting.clear();
        self.sinks.clear();
        self.starved.clear();
        self.outbox.clear();
        self.appended.clear();
        self.broken.clear();
        self.failed = None;
    }
}

impl Disk {
    fn check(&self, group: GroupId, change: &Change) -> Result<(), String> {
        let known = self.groups.get(&group);
        if let Change::Create(_) = change {
            return match known {
                Some(_) => Err("the group exists already".to_owned()),
                None => Ok(()),
            };
        }
        let known = known.ok_or("there is no such group")?;
        match change {
            Change::Append(batch) => {
                let mut last = known.log.last;
                if let Some(from) = batch.truncate_from
                    && !known.log.check_truncation(from)?.is_empty()
                {
                    last = known.position(from - 1)?;
                }
                crate::group_log::check_entries(last, &batch.entries)
            }
            Change::Checkpoint(batch) => known.log.check_checkpoint(batch),
            _ => Ok(()),
        }
    }

    /// Applies a change that was checked.
    fn apply(&mut self, group: GroupId, change: &Change, loss_epoch: Epoch) {
        match change {
            Change::Create(hard_state) => {
                let state = GroupState {
                    contiguous_from: 1,
                    rejoined_epoch: loss_epoch,
                    ..GroupState::default()
                };
                let log = GroupLog::new(state, LogPosition::default(), 0);
                let hard_state = hard_state.clone();
                self.groups.insert(group, Group { hard_state, log, ..Group::default() });
            }
            Change::Drop => {
                self.groups.remove(&group);
            }
            _ => {
                if let Some(known) = self.groups.get_mut(&group) {
                    known.apply(change, loss_epoch);
                }
            }
        }
    }
}

impl Group {
    fn position(&self, index: Index) -> Result<LogPosition, String> {
        let applied = self.log.applied();
        if index == 0 || index == applied.index {
            return Ok(LogPosition { index, ..applied });
        }
        let entry = self.entries.get(&index).ok_or_else(|| format!("no entry index={index}"))?;
        Ok(LogPosition { term: entry.term, index })
    }

    fn apply(&mut self, change: &Change, loss_epoch: Epoch) {
        match change {
            Change::Create(_) | Change::Drop => {}
            Change::HardState { state, .. } => self.hard_state = state.clone(),
            Change::Rejoined => self.log.state.rejoined_epoch = loss_epoch,
            Change::Append(batch) => {
                if let Some(from) = batch.truncate_from
                    && from <= self.log.last.index
                    && let Ok(last) = self.position(from - 1)
                {
                    self.entries.split_off(&from);
                    self.log.truncated(last);
                }
                for entry in &batch.entries {
                    self.entries.insert(entry.index, entry.clone());
                    let last = LogPosition { term: entry.term, index: entry.index };
                    self.log.appended(last, entry.payload.len());
                }
            }
            Change::Checkpoint(batch) => {
                self.log.checkpointed(batch);
                for suffix in &batch.deletes {
                    self.queue.remove(suffix);
                }
                self.queue.extend(batch.puts.iter().cloned());
                for index in &batch.dead_entries {
                    self.entries.remove(index);
                }
            }
        }
    }

    fn bounds(&self) -> LogBounds {
        let last = self.log.last;
        let first_index = self.entries.keys().next().copied().unwrap_or(last.index + 1);
        LogBounds { first_index, contiguous_from: self.log.state.contiguous_from, last }
    }
}

impl LogStore for MemoryStore {
    fn register(&self, group: GroupId, sink: Sink) {
        let mut state = self.lock();
        state.sinks.insert(group, Arc::new(Mutex::new(sink)));
        if let Some(error) = state.failed.clone() {
            self.send(state, vec![(group, Report::Failed(error))]);
        }
    }

    fn create_group(&self, group: GroupId, hard_state: HardState) -> Result<(), Refused<()>> {
        self.request(group, (), true, |()| Change::Create(hard_state))
    }

    fn drop_group(&self, group: GroupId) -> Result<(), Refused<()>> {
        self.request(group, (), true, |()| Change::Drop)
    }

    fn try_append(&self, group: GroupId, batch: AppendBatch) -> Result<(), Refused<AppendBatch>> {
        if batch.kind == AppendKind::Growing
            && let DiskState::Low { free, reserve } = self.disk_state()
        {
            self.lock().stats.refused_disk_full += 1;
            let reason = RefusedReason::DiskFull { free, reserve };
            return Err(Refused { returned: batch, reason });
        }
        self.request(group, batch, false, |batch| Change::Append(Arc::new(batch)))
    }

    fn save_hard_state(
        &self,
        group: GroupId,
        save: u64,
        hard_state: HardState,
    ) -> Result<(), Refused<()>> {
        let state = hard_state;
        self.request(group, (), true, |()| Change::HardState { save, state })
    }

    fn try_checkpoint(
        &self,
        group: GroupId,
        batch: CheckpointBatch,
    ) -> Result<(), Refused<CheckpointBatch>> {
        self.request(group, batch, false, |batch| Change::Checkpoint(Arc::new(batch)))
    }

    fn mark_rejoined(&self, group: GroupId) -> Result<(), Refused<()>> {
        self.request(group, (), true, |()| Change::Rejoined)
    }

    fn groups(&self) -> Result<Vec<GroupRecord>, ReadError> {
        let state = self.lock();
        let record = |(id, group): (&GroupId, &Group)| GroupRecord {
            id: *id,
            hard_state: group.hard_state.clone(),
            bounds: group.bounds(),
            applied: group.log.state.applied,
            recovering: group.log.state.recovering(state.loss_epoch),
        };
        Ok(state.disk.groups.iter().map(record).collect())
    }

    fn bounds(&self, group: GroupId) -> Result<LogBounds, ReadError> {
        let empty = LogBounds { first_index: 1, contiguous_from: 1, last: LogPosition::default() };
        self.read(group, empty, Group::bounds)
    }

    fn entry(&self, group: GroupId, index: Index) -> Result<Option<Entry>, ReadError> {
        self.read(group, None, |known| known.entries.get(&index).cloned())
    }

    fn entries(
        &self,
        group: GroupId,
        from: Index,
        to: Index,
        max_bytes: usize,
    ) -> Result<Vec<Entry>, ReadError> {
        let mut found: Vec<Entry> = Vec::new();
        let mut bytes = 0;
        self.read(group, (), |known| {
            for (index, entry) in known.entries.range(from..) {
                bytes += entry.payload.len();
                let consecutive = *index == from + found.len() as Index;
                if *index > to || !consecutive || (bytes > max_bytes && !found.is_empty()) {
                    break;
                }
                found.push(entry.clone());
            }
        })?;
        if found.is_empty() && from <= to {
            return Err(ReadError::Missing { group, index: from });
        }
        Ok(found)
    }

    fn applied(&self, group: GroupId) -> Result<Option<LogPosition>, ReadError> {
        self.read(group, None, |known| known.log.state.applied)
    }

    fn queue_record(&self, group: GroupId, suffix: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        self.read(group, None, |known| known.queue.get(suffix).cloned())
    }

    fn queue_records(&self, group: GroupId, prefix: &[u8], from: &[u8]) -> QueueRecords<'_> {
        let state = self.lock();
        let Some(known) = state.disk.groups.get(&group) else {
            return Box::new(std::iter::empty());
        };
        let begin = prefix.max(from).to_vec();
        let found: Vec<_> = known
            .queue
            .range(begin..)
            .take_while(|(suffix, _)| suffix.starts_with(prefix))
            .map(|(suffix, value)| Ok((suffix.clone(), value.clone())))
            .collect();
        Box::new(found.into_iter())
    }

    fn disk_state(&self) -> DiskState {
        match self.lock().low_disk {
            Some((free, reserve)) => DiskState::Low { free, reserve },
            None => DiskState::Ok,
        }
    }

    fn stats(&self) -> StoreStats {
        self.lock().stats
    }
}
