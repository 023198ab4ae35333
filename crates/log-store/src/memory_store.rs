//! A store in memory that keeps the contract and can lose its un-synced tail, for tests and the
//! simulator.
//!
//! It has no threads and no clock. With [`Delivery::Immediate`] every request is done and reported
//! within the call. With [`Delivery::Stepped`] requests wait until [`MemoryStore::step`], so a test
//! decides what is written when, what is fsynced, and what a power loss takes away.

// The contract lets any thread ask, so the double must be shared.
#![allow(clippy::disallowed_types)]

use crate::DiskState;
use crate::StoreStats;
use crate::memory_disk::{Change, Disk, Group, OpenedSnapshot};
use crate::memory_room::{Class, Reads, Room};
use crate::parts::snapshot_pieces::SnapshotPiece;
use crate::{
    AppendBatch, AppendKind, CheckpointBatch, HardStates, NewGroup, OnSaved, Report, Sink,
    SnapshotReport, StagedPiece,
};
use crate::{GroupRecord, LogBounds, LogStore, OnRead, OpenSnapshot, QueueRecords};
use crate::{ReadError, Refused, RefusedReason, StorageError};
use bytes::Bytes;
use flintmq_consensus::{Entry, Epoch, GroupId, HardState, Index, LogPosition, SnapshotId};
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
    /// With the bytes that each counts for.
    waiting: VecDeque<(usize, Task)>,
    room: Room,
    /// Requests are taken, and nothing is done.
    stalled: bool,
    reads: Reads,
    starved: Vec<GroupId>,
    sinks: BTreeMap<GroupId, Arc<Mutex<Sink>>>,
    outbox: VecDeque<Outgoing>,
    /// Somebody empties the outbox.
    sending: bool,
    snapshots: BTreeMap<u64, OpenedSnapshot>,
    /// Goes on over all pretended processes: numbers are never given twice.
    snapshots_opened: u64,
    broken: BTreeMap<GroupId, StorageError>,
    failed: Option<StorageError>,
    low_disk: Option<(u64, u64)>,
    stats: StoreStats,
}

/// What waits.
enum Task {
    Change(GroupId, Change),
    HardStates(HardStates),
}

/// What is to be told to somebody outside.
enum Outgoing {
    Report(GroupId, Report),
    Saved(OnSaved),
}

impl MemoryStore {
    /// An empty store.
    pub fn new(delivery: Delivery) -> Self {
        Self { delivery, state: Arc::default() }
    }

    /// Sets how many batches may wait. Default: 65,536.
    pub fn set_capacity(&self, requests: usize) {
        self.lock().room.max_requests = requests;
    }

    /// Sets how many bytes of batches may wait; batches that free space may exceed it by a quarter.
    /// Default: 256 MiB.
    pub fn set_capacity_bytes(&self, bytes: usize) {
        self.lock().room.max_bytes = bytes;
    }

    /// Sets how many snapshots may be open before [`ReadError::Busy`]. Default: 16.
    pub fn set_max_snapshots(&self, open: usize) {
        self.lock().reads.max_snapshots = open;
    }

    /// Makes reads of logs and snapshots, and opening snapshots, fail with [`ReadError::Failed`],
    /// or work again.
    pub fn fail_reads(&self, fail: bool) {
        self.lock().reads.fail = fail;
    }

    /// Pretends that the disk does not get on: requests are taken as long as there is room, nothing
    /// is written, fsynced or reported until this is called with `false`. What waits is done then,
    /// with [`Delivery::Immediate`] at once.
    pub fn set_stalled(&self, stalled: bool) {
        self.lock().stalled = stalled;
        if !stalled && self.delivery == Delivery::Immediate {
            self.run();
        }
    }

    /// Pretends that the disk is nearly full, with (free bytes, reserve), or that it is not.
    pub fn set_low_disk(&self, low: Option<(u64, u64)>) {
        self.lock().low_disk = low;
    }

    /// Does the request that has waited longest and reports it; false if none waits.
    pub fn step(&self) -> bool {
        let mut state = self.lock();
        if state.failed.is_some() || state.stalled {
            return false;
        }
        let Some((size, task)) = state.waiting.pop_front() else { return false };
        let mut reports = match task {
            Task::Change(group, change) => state.perform(group, change),
            Task::HardStates(batch) => state.save_hard_states(batch),
        };
        state.room.give_back(size);
        if state.room.is_half_empty() {
            let starved = std::mem::take(&mut state.starved);
            let room = |group| Outgoing::Report(group, Report::Room);
            reports.extend(starved.into_iter().map(room));
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
        if state.failed.is_some() || state.stalled {
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
        disk.drop_staged();
        state.synced = disk.clone();
        state.disk = disk;
        state.loss_epoch += 1;
    }

    /// Closes all snapshots, as if each had lived for as long as one may.
    pub fn expire_snapshots(&self) {
        self.lock().snapshots.clear();
    }

    /// Makes the next write fail, which is final.
    pub fn fail(&self, error: StorageError) {
        let mut state = self.lock();
        state.failed = Some(error.clone());
        state.waiting.clear();
        state.room.clear();
        let failed = |group: &GroupId| Outgoing::Report(*group, Report::Failed(error.clone()));
        let reports = state.sinks.keys().map(failed).collect();
        self.send(state, reports);
    }

    fn request<T>(
        &self,
        group: GroupId,
        value: T,
        room: (Class, usize),
        change: impl FnOnce(T) -> Change,
    ) -> Result<(), Refused<T>> {
        self.enqueue(group, value, room, |value| Task::Change(group, change(value)))
    }

    fn urgent(&self, group: GroupId, change: Change) -> Result<(), Refused<()>> {
        self.request(group, (), (Class::Urgent, 0), |()| change)
    }

    fn enqueue<T>(
        &self,
        group: GroupId,
        value: T,
        (class, size): (Class, usize),
        task: impl FnOnce(T) -> Task,
    ) -> Result<(), Refused<T>> {
        let mut state = self.lock();
        if state.failed.is_some() {
            return Err(Refused { returned: value, reason: RefusedReason::Stopped });
        }
        if let Err(reason) = state.room.take(class, size) {
            if reason == RefusedReason::Full {
                if !state.starved.contains(&group) {
                    state.starved.push(group);
                }
                // As the real one counts: batches only.
                state.stats.refused_full += u64::from(class != Class::Urgent);
            }
            return Err(Refused { returned: value, reason });
        }
        state.waiting.push_back((size, task(value)));
        drop(state);
        if self.delivery == Delivery::Immediate {
            self.run();
        }
        Ok(())
    }

    /// Calls the sinks, outside the lock, so that they may ask the store for something. One caller
    /// at a time does it for all, so that reports keep their order.
    fn send<'a>(&'a self, mut state: MutexGuard<'a, State>, reports: Vec<Outgoing>) {
        state.outbox.extend(reports);
        if state.sending {
            return;
        }
        state.sending = true;
        while let Some(outgoing) = state.outbox.pop_front() {
            let (group, report) = match outgoing {
                Outgoing::Report(group, report) => (group, report),
                Outgoing::Saved(then) => {
                    drop(state);
                    then();
                    state = self.lock();
                    continue;
                }
            };
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

    fn while_there_is_room<T>(&self, request: T) -> Result<T, Refused<T>> {
        let DiskState::Low { free, reserve } = self.disk_state() else { return Ok(request) };
        self.lock().stats.refused_disk_full += 1;
        Err(Refused { returned: request, reason: RefusedReason::DiskFull { free, reserve } })
    }

    fn read<T>(
        &self,
        group: GroupId,
        missing: T,
        read: impl FnOnce(&Group) -> T,
    ) -> Result<T, ReadError> {
        let state = self.lock();
        state.reads.check(group)?;
        Ok(state.disk.groups.get(&group).map_or(missing, read))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn perform(&mut self, group: GroupId, mut change: Change) -> Vec<Outgoing> {
        let ends = matches!(change, Change::Drop | Change::Remove);
        if self.broken.contains_key(&group) && !ends {
            return Vec::new();
        }
        if let Err(detail) = self.disk.check(group, &change) {
            return vec![self.break_group(group, detail)];
        }
        if ends {
            self.broken.remove(&group);
        }
        let mut report = self.report_of(&change);
        if let Err(detail) = self.disk.check_snapshot(group, &change)
            && let Change::Stage(_) | Change::Install { .. } = &change
        {
            let id = match &change {
                Change::Stage(piece) => Some(piece.id),
                Change::Install { id, .. } => Some(*id),
                _ => None,
            };
            report = id.map(|id| Report::Snapshot(SnapshotReport::Refused { id, detail }));
            change = Change::Unstage;
        }
        self.disk.apply(group, &change, self.loss_epoch);
        let known = self.disk.groups.get(&group);
        let synchronous = known.is_some_and(|known| known.log.state.synchronous);
        let must_sync = synchronous
            || matches!(
                change,
                Change::Create(_)
                    | Change::Drop
                    | Change::Remove
                    | Change::Reset { .. }
                    | Change::HardState { .. }
                    | Change::Install { .. }
            );
        let upto = known.map(|group| group.log.last).unwrap_or_default();
        let mut reports = Vec::new();
        if let Change::Append(batch) = &change {
            self.appended.insert(group);
            self.stats.log_write_entries += batch.entries.len() as u64;
            report = Some(Report::Appended { write: batch.write, upto });
        }
        reports.extend(report.map(|report| Outgoing::Report(group, report)));
        if synchronous && matches!(change, Change::Append(_)) {
            reports.push(Outgoing::Report(group, Report::Synced { upto: upto.index }));
        }
        if matches!(change, Change::Install { .. }) {
            self.appended.insert(group);
        }
        self.stats.log_write_batches += 1;
        self.unsynced.push((group, change));
        if must_sync {
            self.stats.log_write_syncs += 1;
            // One log for all groups: what was written before becomes durable with it.
            self.synced = self.disk.clone();
            self.unsynced.clear();
        }
        reports
    }

    fn report_of(&self, change: &Change) -> Option<Report> {
        Some(match change {
            Change::Create(_) => Report::Created,
            Change::Drop => Report::Dropped,
            Change::Remove => Report::Removed,
            Change::HardState { save, .. } => Report::HardStateSynced { save: (*save)? },
            Change::Checkpoint(batch) => Report::Checkpointed { applied: batch.applied },
            Change::Rejoined => Report::Rejoined,
            Change::Reset { write } => {
                Report::Appended { write: *write, upto: LogPosition::default() }
            }
            Change::Stage(piece) => {
                let (id, cursor) = (piece.id, piece.cursor.clone());
                Report::Snapshot(SnapshotReport::Staged { id, cursor })
            }
            Change::Install { id, .. } => Report::Snapshot(SnapshotReport::Installed { id: *id }),
            Change::Append(_) | Change::Unstage => return None,
        })
    }

    fn save_hard_states(&mut self, HardStates { states, then }: HardStates) -> Vec<Outgoing> {
        let mut reports = Vec::new();
        for (group, creation, state) in states {
            let known = self.disk.groups.get(&group);
            if known.is_some_and(|known| known.log.state.creation != creation) {
                let detail = "the hard state is of another making of the group".to_owned();
                reports.push(self.break_group(group, detail));
            } else {
                reports.extend(self.perform(group, Change::HardState { save: None, state }));
            }
        }
        reports.push(Outgoing::Saved(then));
        reports
    }

    fn open_snapshot(&mut self, group: GroupId) -> Result<OpenSnapshot, ReadError> {
        self.reads.check(group)?;
        if self.snapshots.len() >= self.reads.max_snapshots {
            return Err(ReadError::Busy { group });
        }
        let known = self.disk.groups.get(&group).ok_or(ReadError::NothingApplied { group })?;
        self.snapshots_opened += 1;
        let number = self.snapshots_opened;
        let (content, opened) = OpenedSnapshot::new(group, known, number)?;
        self.snapshots.insert(number, content);
        Ok(opened)
    }

    fn break_group(&mut self, group: GroupId, detail: String) -> Outgoing {
        let error = StorageError::BrokenLog { group, detail };
        self.broken.insert(group, error.clone());
        Outgoing::Report(group, Report::Failed(error))
    }

    fn sync(&mut self) -> Vec<Outgoing> {
        self.synced = self.disk.clone();
        self.unsynced.clear();
        let appended = std::mem::take(&mut self.appended);
        let synced = |group| {
            let upto = self.disk.groups.get(&group)?.log.last.index;
            Some(Outgoing::Report(group, Report::Synced { upto }))
        };
        appended.into_iter().filter_map(synced).collect()
    }

    fn end_process(&mut self) {
        self.waiting.clear();
        self.room.clear();
        self.sinks.clear();
        self.starved.clear();
        self.outbox.clear();
        self.appended.clear();
        self.broken.clear();
        self.snapshots.clear();
        self.disk.drop_staged();
        self.failed = None;
    }
}

impl LogStore for MemoryStore {
    fn register(&self, group: GroupId, sink: Sink) {
        let mut state = self.lock();
        state.sinks.insert(group, Arc::new(Mutex::new(sink)));
        if let Some(error) = state.failed.clone() {
            self.send(state, vec![Outgoing::Report(group, Report::Failed(error))]);
        }
    }

    fn create(&self, group: GroupId, new: NewGroup) -> Result<(), Refused<()>> {
        self.urgent(group, Change::Create(new))
    }

    fn remove_group(&self, group: GroupId) -> Result<(), Refused<()>> {
        self.urgent(group, Change::Remove)
    }

    fn drop_group(&self, group: GroupId) -> Result<(), Refused<()>> {
        self.urgent(group, Change::Drop)
    }

    fn try_append(&self, group: GroupId, batch: AppendBatch) -> Result<(), Refused<AppendBatch>> {
        let (batch, class) = match batch.kind {
            AppendKind::Growing => (self.while_there_is_room(batch)?, Class::Growing),
            AppendKind::Relief => (batch, Class::Relief),
        };
        let size = batch.size();
        self.request(group, batch, (class, size), |batch| Change::Append(Arc::new(batch)))
    }

    fn reset(&self, group: GroupId, write: u64) -> Result<(), Refused<()>> {
        self.urgent(group, Change::Reset { write })
    }

    fn save_hard_states(&self, batch: HardStates) -> Result<(), Refused<HardStates>> {
        let group = batch.states.first().map_or(GroupId::CONTROLLER, |(group, ..)| *group);
        self.enqueue(group, batch, (Class::Urgent, 0), Task::HardStates)
    }

    fn save_hard_state(
        &self,
        group: GroupId,
        save: u64,
        hard_state: HardState,
    ) -> Result<(), Refused<()>> {
        let (save, state) = (Some(save), hard_state);
        self.urgent(group, Change::HardState { save, state })
    }

    fn try_checkpoint(
        &self,
        group: GroupId,
        batch: CheckpointBatch,
    ) -> Result<(), Refused<CheckpointBatch>> {
        let room = (Class::Relief, batch.size());
        self.request(group, batch, room, |batch| Change::Checkpoint(Arc::new(batch)))
    }

    fn mark_rejoined(&self, group: GroupId) -> Result<(), Refused<()>> {
        self.urgent(group, Change::Rejoined)
    }

    fn try_stage(&self, group: GroupId, piece: StagedPiece) -> Result<(), Refused<StagedPiece>> {
        let piece = self.while_there_is_room(piece)?;
        let room = (Class::Growing, piece.size());
        self.request(group, piece, room, |piece| Change::Stage(Arc::new(piece)))
    }

    fn install(
        &self,
        group: GroupId,
        id: SnapshotId,
        keep_log_after: bool,
    ) -> Result<(), Refused<()>> {
        self.urgent(group, Change::Install { id, keep_log_after })
    }

    fn open_snapshot(&self, group: GroupId, then: OnRead<OpenSnapshot>) {
        let opened = self.lock().open_snapshot(group);
        then(opened);
    }

    fn read_snapshot(
        &self,
        group: GroupId,
        number: u64,
        cursor: Bytes,
        max_bytes: usize,
        then: OnRead<SnapshotPiece>,
    ) {
        let state = self.lock();
        let found = state.snapshots.get(&number).filter(|open| open.group == group);
        let piece = state.reads.check(group).and_then(|()| match found {
            Some(open) => open.piece(&cursor, max_bytes),
            None => Err(ReadError::SnapshotGone { group, number }),
        });
        drop(state);
        then(piece);
    }

    fn close_snapshot(&self, number: u64) {
        self.lock().snapshots.remove(&number);
    }

    fn read_log(
        &self,
        group: GroupId,
        after: Index,
        upto: Index,
        max_bytes: usize,
        then: OnRead<Vec<Entry>>,
    ) {
        let found = self.entries(group, after.saturating_add(1), upto, max_bytes);
        then(match found {
            Err(ReadError::Missing { .. }) => Ok(Vec::new()),
            found => found,
        });
    }

    fn group(&self, group: GroupId) -> Result<Option<GroupRecord>, ReadError> {
        let state = self.lock();
        let known = state.disk.groups.get(&group);
        Ok(known.map(|known| known.record(group, state.loss_epoch)))
    }

    fn groups(&self) -> Result<Vec<GroupRecord>, ReadError> {
        let state = self.lock();
        let record = |(id, group): (&GroupId, &Group)| group.record(*id, state.loss_epoch);
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

    fn indexes(&self, group: GroupId, upto: Index) -> Result<Vec<Index>, ReadError> {
        self.read(group, Vec::new(), |known| {
            known.entries.range(..=upto).map(|(index, _)| *index).collect()
        })
    }

    fn applied(&self, group: GroupId) -> Result<Option<LogPosition>, ReadError> {
        self.read(group, None, |known| known.log.state.applied)
    }

    fn queue_record(&self, group: GroupId, suffix: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        self.read(group, None, |known| known.queue.get(suffix).cloned())
    }

    fn queue_records(&self, group: GroupId, prefix: &[u8], from: &[u8]) -> QueueRecords<'_> {
        let state = self.lock();
        if let Err(error) = state.reads.check(group) {
            return Box::new(std::iter::once(Err(error)));
        }
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
