//! A node's store: the one in memory, with the faults that it does not have itself, and a note of
//! everything that was ever appended.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use flintmq_consensus::{Entry, GroupId, HardState, Index, LogPosition, SnapshotId};
use flintmq_log_store::{
    AppendBatch, CheckpointBatch, Delivery, DiskState, GroupRecord, HardStates, LogBounds, LogStore,
    MemoryStore, NewGroup, OnRead, OpenSnapshot, QueueRecords, ReadError, Refused, Sink,
    SnapshotPiece, StagedPiece, StoreStats,
};

/// See the module. Clones share everything.
#[derive(Clone)]
pub(crate) struct SimStore {
    pub(crate) inner: MemoryStore,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    logs: BTreeMap<GroupId, BTreeMap<Index, Entry>>,
    fail_snapshots: bool,
    fail_reads: bool,
    snapshots_failed: u64,
    reads_failed: u64,
}

impl SimStore {
    pub(crate) fn new() -> Self {
        Self { inner: MemoryStore::new(Delivery::Stepped), state: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// No snapshot is opened or read.
    pub(crate) fn set_fail_snapshots(&self, fail: bool) {
        self.lock().fail_snapshots = fail;
    }

    /// No entry is read.
    pub(crate) fn set_fail_reads(&self, fail: bool) {
        self.lock().fail_reads = fail;
    }

    pub(crate) fn fails_reads(&self) -> bool {
        let mut state = self.lock();
        state.reads_failed += u64::from(state.fail_reads);
        state.fail_reads
    }

    /// How many snapshots and entries could not be read.
    pub(crate) fn failed(&self) -> (u64, u64) {
        let state = self.lock();
        (state.snapshots_failed, state.reads_failed)
    }

    /// An entry as it was appended last, written or not.
    pub(crate) fn appended(&self, group: GroupId, index: Index) -> Option<Entry> {
        self.lock().logs.get(&group)?.get(&index).cloned()
    }

    /// A process begins: what it has is what was written.
    pub(crate) fn begin(&self) {
        let mut logs = BTreeMap::new();
        for record in self.inner.groups().unwrap_or_default() {
            let log: &mut BTreeMap<Index, Entry> = logs.entry(record.id).or_default();
            let mut next = record.bounds.first_index;
            while next <= record.bounds.last.index {
                if let Ok(Some(entry)) = self.inner.entry(record.id, next) {
                    log.insert(next, entry);
                }
                next += 1;
            }
        }
        self.lock().logs = logs;
    }
}

impl LogStore for SimStore {
    fn register(&self, group: GroupId, sink: Sink) {
        self.inner.register(group, sink);
    }

    fn create(&self, group: GroupId, new: NewGroup) -> Result<(), Refused<()>> {
        self.inner.create(group, new)
    }

    fn remove_group(&self, group: GroupId) -> Result<(), Refused<()>> {
        self.inner.remove_group(group)
    }

    fn drop_group(&self, group: GroupId) -> Result<(), Refused<()>> {
        self.inner.drop_group(group)
    }

    fn try_append(&self, group: GroupId, batch: AppendBatch) -> Result<(), Refused<AppendBatch>> {
        let (from, entries) = (batch.truncate_from, batch.entries.clone());
        self.inner.try_append(group, batch)?;
        let mut state = self.lock();
        let log = state.logs.entry(group).or_default();
        if let Some(from) = from {
            log.split_off(&from);
        }
        log.extend(entries.into_iter().map(|entry| (entry.index, entry)));
        Ok(())
    }

    fn reset(&self, group: GroupId, write: u64) -> Result<(), Refused<()>> {
        self.inner.reset(group, write)?;
        self.lock().logs.remove(&group);
        Ok(())
    }

    fn save_hard_state(
        &self,
        group: GroupId,
        save: u64,
        hard_state: HardState,
    ) -> Result<(), Refused<()>> {
        self.inner.save_hard_state(group, save, hard_state)
    }

    fn save_hard_states(&self, batch: HardStates) -> Result<(), Refused<HardStates>> {
        self.inner.save_hard_states(batch)
    }

    fn try_checkpoint(
        &self,
        group: GroupId,
        batch: CheckpointBatch,
    ) -> Result<(), Refused<CheckpointBatch>> {
        self.inner.try_checkpoint(group, batch)
    }

    fn mark_rejoined(&self, group: GroupId) -> Result<(), Refused<()>> {
        self.inner.mark_rejoined(group)
    }

    fn try_stage(&self, group: GroupId, piece: StagedPiece) -> Result<(), Refused<StagedPiece>> {
        self.inner.try_stage(group, piece)
    }

    fn install(&self, group: GroupId, id: SnapshotId, keep: bool) -> Result<(), Refused<()>> {
        self.inner.install(group, id, keep)
    }

    fn open_snapshot(&self, group: GroupId, then: OnRead<OpenSnapshot>) {
        if self.lock().fail_snapshots {
            self.lock().snapshots_failed += 1;
            return then(Err(ReadError::Busy { group }));
        }
        self.inner.open_snapshot(group, then);
    }

    fn read_snapshot(
        &self,
        group: GroupId,
        number: u64,
        cursor: Bytes,
        max_bytes: usize,
        then: OnRead<SnapshotPiece>,
    ) {
        if self.lock().fail_snapshots {
            self.lock().snapshots_failed += 1;
            return then(Err(ReadError::SnapshotGone { group, number }));
        }
        self.inner.read_snapshot(group, number, cursor, max_bytes, then);
    }

    fn close_snapshot(&self, number: u64) {
        self.inner.close_snapshot(number);
    }

    fn read_log(
        &self,
        group: GroupId,
        after: Index,
        upto: Index,
        max_bytes: usize,
        then: OnRead<Vec<Entry>>,
    ) {
        if self.fails_reads() {
            return then(Err(ReadError::Busy { group }));
        }
        self.inner.read_log(group, after, upto, max_bytes, then);
    }

    fn group(&self, group: GroupId) -> Result<Option<GroupRecord>, ReadError> {
        self.inner.group(group)
    }

    fn groups(&self) -> Result<Vec<GroupRecord>, ReadError> {
        self.inner.groups()
    }

    fn bounds(&self, group: GroupId) -> Result<LogBounds, ReadError> {
        self.inner.bounds(group)
    }

    fn entry(&self, group: GroupId, index: Index) -> Result<Option<Entry>, ReadError> {
        self.inner.entry(group, index)
    }

    fn entries(
        &self,
        group: GroupId,
        from: Index,
        to: Index,
        max_bytes: usize,
    ) -> Result<Vec<Entry>, ReadError> {
        self.inner.entries(group, from, to, max_bytes)
    }

    fn indexes(&self, group: GroupId, upto: Index) -> Result<Vec<Index>, ReadError> {
        self.inner.indexes(group, upto)
    }

    fn applied(&self, group: GroupId) -> Result<Option<LogPosition>, ReadError> {
        self.inner.applied(group)
    }

    fn queue_record(&self, group: GroupId, suffix: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        self.inner.queue_record(group, suffix)
    }

    fn queue_records(&self, group: GroupId, prefix: &[u8], from: &[u8]) -> QueueRecords<'_> {
        self.inner.queue_records(group, prefix, from)
    }

    fn disk_state(&self) -> DiskState {
        self.inner.disk_state()
    }

    fn stats(&self) -> StoreStats {
        self.inner.stats()
    }
}
