//! The store of a node: opening and closing it.

use crate::background_reads::{BackgroundReads, LogRead};
use crate::database::Database;
use crate::disk_space::DiskListener;
use crate::log_handle::LogHandle;
use crate::marker::{Marker, State};
use crate::shutdown_signal::ShutdownSignal;
use crate::store_reader::StoreReader;
use crate::witness::Witness;
use bytes::Bytes;
use flintmq_consensus::{Entry, GroupId, HardState, Index, LogPosition, SnapshotId};
use flintmq_log_store::DiskState;
use flintmq_log_store::SnapshotPiece;
use flintmq_log_store::StoreStats;
use flintmq_log_store::{AppendBatch, CheckpointBatch, HardStates, NewGroup, Sink, StagedPiece};
use flintmq_log_store::{GroupRecord, LogBounds, LogStore, OnRead, OpenSnapshot, QueueRecords};
use flintmq_log_store::{ReadError, Refused, StorageError};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

/// What was found on opening.
pub struct Opened {
    /// The open store.
    pub store: Store,
    /// All groups, ascending.
    pub groups: Vec<GroupRecord>,
    /// How the directory was left.
    pub shutdown: Shutdown,
}

/// How a directory was left by its last user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shutdown {
    /// The directory is new.
    New,
    /// Closed; everything is there.
    Clean,
    /// The process ended without closing, and nothing acknowledged is missing: the witness, or boot
    /// and mount id, vouch for it.
    ProcessCrash,
    /// Not closed, but every acknowledged write had been fsynced ([`crate::Durability::Sync`]).
    Synced,
    /// Acknowledged writes may be missing: every group is recovering.
    TailMayBeLost {
        /// Why.
        reason: String,
    },
}

/// The open store of a node. Dropping it without [`Store::close`] leaves the directory like a
/// killed process does: what was reported is there, what was not may be.
pub struct Store {
    pub(crate) handle: LogHandle,
    pub(crate) reader: StoreReader,
    pub(crate) reads: BackgroundReads,
    pub(crate) stop: Arc<ShutdownSignal>,
    pub(crate) running: Mutex<Option<Running>>,
}

/// What ends with the store.
pub(crate) struct Running {
    pub(crate) threads: Vec<JoinHandle<()>>,
    pub(crate) dir: PathBuf,
    pub(crate) marker: Marker,
    pub(crate) witness_dir: Option<PathBuf>,
}

impl Store {
    /// The handle by which entries, hard states and checkpoints are written.
    pub fn handle(&self) -> LogHandle {
        self.handle.clone()
    }

    /// A reader that can go to another thread.
    pub fn reader(&self) -> StoreReader {
        self.reader.clone()
    }

    /// Calls `listener` whenever the disk gets low or has room again.
    pub fn subscribe_disk(&self, listener: DiskListener) {
        self.handle.disk.subscribe(listener);
    }

    /// Writes and syncs what waits, then marks the directory as cleanly closed. Requests after this
    /// are refused; reading goes on until the last reader is dropped. A second call does nothing.
    pub fn close(&self) -> Result<(), StorageError> {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(running) = running else { return Ok(()) };
        let done = self.handle.inbox.close().is_some_and(|closed| closed.recv().is_ok());
        self.end_threads(running.threads);
        let sync = |detail: String| StorageError::Sync { detail };
        if !done {
            let detail = "the log writer had ended before".to_owned();
            return Err(StorageError::Write { detail });
        }
        let db = self.reader.database.db();
        db.flush_wal(true).map_err(|error| sync(error.to_string()))?;
        let clean = Marker { state: State::Clean, ..running.marker };
        clean.write(&running.dir).map_err(|error| sync(error.to_string()))?;
        if let Some(dir) = &running.witness_dir {
            Witness::remove_others(dir, &clean.node_uuid, None);
        }
        Ok(())
    }

    fn end_threads(&self, threads: Vec<JoinHandle<()>>) {
        self.stop.raise();
        self.reads.end();
        // Payloads that are just being moved stay where they were.
        self.reader.database.db().disable_manual_compaction();
        for thread in threads {
            // A panic was printed by the thread; what it means is told by the writer's missing
            // answer.
            let _ = thread.join();
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let running = self.running.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        let Some(running) = running else { return };
        self.handle.inbox.abandon();
        self.end_threads(running.threads);
    }
}

impl LogStore for Store {
    fn register(&self, group: GroupId, sink: Sink) {
        self.handle.register(group, sink);
    }

    fn create(&self, group: GroupId, new: NewGroup) -> Result<(), Refused<()>> {
        self.handle.create(group, new)
    }

    fn remove_group(&self, group: GroupId) -> Result<(), Refused<()>> {
        self.handle.remove_group(group)
    }

    fn drop_group(&self, group: GroupId) -> Result<(), Refused<()>> {
        self.handle.drop_group(group)
    }

    fn try_append(&self, group: GroupId, batch: AppendBatch) -> Result<(), Refused<AppendBatch>> {
        self.handle.try_append(group, batch)
    }

    fn reset(&self, group: GroupId, write: u64) -> Result<(), Refused<()>> {
        self.handle.reset(group, write)
    }

    fn save_hard_states(&self, batch: HardStates) -> Result<(), Refused<HardStates>> {
        self.handle.save_hard_states(batch)
    }

    fn save_hard_state(
        &self,
        group: GroupId,
        save: u64,
        hard_state: HardState,
    ) -> Result<(), Refused<()>> {
        self.handle.save_hard_state(group, save, hard_state)
    }

    fn try_checkpoint(
        &self,
        group: GroupId,
        batch: CheckpointBatch,
    ) -> Result<(), Refused<CheckpointBatch>> {
        self.handle.try_checkpoint(group, batch)
    }

    fn mark_rejoined(&self, group: GroupId) -> Result<(), Refused<()>> {
        self.handle.mark_rejoined(group)
    }

    fn try_stage(&self, group: GroupId, piece: StagedPiece) -> Result<(), Refused<StagedPiece>> {
        self.handle.try_stage(group, piece)
    }

    fn install(
        &self,
        group: GroupId,
        id: SnapshotId,
        keep_log_after: bool,
    ) -> Result<(), Refused<()>> {
        self.handle.install(group, id, keep_log_after)
    }

    fn open_snapshot(&self, group: GroupId, then: OnRead<OpenSnapshot>) {
        self.reads.open_snapshot(group, then);
    }

    fn read_snapshot(
        &self,
        group: GroupId,
        number: u64,
        cursor: Bytes,
        max_bytes: usize,
        then: OnRead<SnapshotPiece>,
    ) {
        self.reads.read_snapshot(group, number, (cursor, max_bytes), then);
    }

    fn close_snapshot(&self, number: u64) {
        self.reads.close_snapshot(number);
    }

    fn read_log(
        &self,
        group: GroupId,
        after: Index,
        upto: Index,
        max_bytes: usize,
        then: OnRead<Vec<Entry>>,
    ) {
        self.reads.read_log(LogRead { group, after, upto, max_bytes }, then);
    }

    fn group(&self, group: GroupId) -> Result<Option<GroupRecord>, ReadError> {
        self.reader.group(group)
    }

    fn groups(&self) -> Result<Vec<GroupRecord>, ReadError> {
        self.reader.groups()
    }

    fn bounds(&self, group: GroupId) -> Result<LogBounds, ReadError> {
        self.reader.bounds(group)
    }

    fn entry(&self, group: GroupId, index: Index) -> Result<Option<Entry>, ReadError> {
        self.reader.entry(group, index)
    }

    fn entries(
        &self,
        group: GroupId,
        from: Index,
        to: Index,
        max_bytes: usize,
    ) -> Result<Vec<Entry>, ReadError> {
        self.reader.entries(group, from, to, max_bytes)
    }

    fn indexes(&self, group: GroupId, upto: Index) -> Result<Vec<Index>, ReadError> {
        self.reader.indexes(group, upto)
    }

    fn applied(&self, group: GroupId) -> Result<Option<LogPosition>, ReadError> {
        self.reader.applied(group)
    }

    fn queue_record(&self, group: GroupId, suffix: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
        self.reader.queue_record(group, suffix)
    }

    fn queue_records(&self, group: GroupId, prefix: &[u8], from: &[u8]) -> QueueRecords<'_> {
        self.reader.queue_records(group, prefix, from)
    }

    fn disk_state(&self) -> DiskState {
        self.handle.disk.state()
    }

    fn stats(&self) -> StoreStats {
        let mut stats = self.handle.counters.snapshot();
        stats.inbox_bytes = self.handle.inbox.bytes() as u64;
        stats.disk_free_bytes = self.handle.disk.free();
        self.reader.database.add_sizes(&mut stats);
        stats
    }
}

/// The reader of a database that was just opened.
pub(crate) fn reader(database: &Arc<Database>, loss_epoch: u64) -> StoreReader {
    StoreReader { database: Arc::clone(database), loss_epoch }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::{Reports, batch, hard_state};
    use crate::{NodeIdentity, RefusedReason, Report, StoreOptions};
    use flintmq_consensus::NodeId;

    #[test]
    fn a_failed_fsync_is_final() {
        let place = tempfile::tempdir().unwrap();
        let options = || {
            let identity = NodeIdentity { cluster: "test".to_owned(), node: NodeId(1) };
            let mut options = StoreOptions::new(place.path().join("data"), identity);
            options.witness_dir = Some(place.path().to_owned());
            options.disk_reserve = 0;
            options
        };
        let store = Store::open(options()).unwrap().store;
        let group = GroupId(1);
        let reports = Reports::of(&store, group);
        store.create_group(group, hard_state(1)).unwrap();
        assert_eq!(reports.next(), Report::Created);
        let error = StorageError::Sync { detail: "input/output error".to_owned() };
        store.handle.inbox.fail(error.clone());
        assert_eq!(reports.next(), Report::Failed(error.clone()));
        let refused = store.try_append(group, batch(1, 1, 1)).unwrap_err();
        assert_eq!(refused.reason, RefusedReason::Stopped);
        let late = Reports::of(&store, group);
        assert_eq!(late.next(), Report::Failed(error));
        assert!(store.close().is_err(), "nothing vouches for a failed store");
        drop(store);
        let opened = Store::open(options()).unwrap();
        assert!(matches!(opened.shutdown, Shutdown::TailMayBeLost { .. }));
        assert_eq!(opened.groups[0].recovering, Some(1));
    }
}
