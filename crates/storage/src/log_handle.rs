//! The handle by which the log writer is asked to write.

use crate::disk_space::DiskMonitor;
use crate::inbox::{Class, Inbox, Work};
use crate::small_writes::SharedWriter;
use crate::statistics::Counters;
use flintmq_consensus::{GroupId, HardState, SnapshotId};
use flintmq_log_store::DiskState;
use flintmq_log_store::{
    AppendBatch, AppendKind, CheckpointBatch, HardStates, NewGroup, Sink, StagedPiece,
};
use flintmq_log_store::{Refused, RefusedReason};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// Asks the log writer to write. Cheap to clone; never waits. See [`crate::LogStore`] for what each
/// request does.
#[derive(Clone)]
pub struct LogHandle {
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) disk: Arc<DiskMonitor>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) writer: Arc<SharedWriter>,
}

impl LogHandle {
    /// See [`crate::LogStore::register`].
    pub fn register(&self, group: GroupId, sink: Sink) {
        self.inbox.register(group, sink);
    }

    /// See [`crate::LogStore::create`].
    pub fn create(&self, group: GroupId, new: NewGroup) -> Result<(), Refused<()>> {
        self.inbox.push_urgent(group, (), |()| Work::Create(new))
    }

    /// See [`crate::LogStore::drop_group`].
    pub fn drop_group(&self, group: GroupId) -> Result<(), Refused<()>> {
        self.inbox.push_urgent(group, (), |()| Work::Drop)
    }

    /// See [`crate::LogStore::remove_group`].
    pub fn remove_group(&self, group: GroupId) -> Result<(), Refused<()>> {
        self.inbox.push_urgent(group, (), |()| Work::Remove)
    }

    /// See [`crate::LogStore::try_append`].
    pub fn try_append(
        &self,
        group: GroupId,
        batch: AppendBatch,
    ) -> Result<(), Refused<AppendBatch>> {
        let (batch, class) = match batch.kind {
            AppendKind::Growing => (self.while_there_is_room(batch)?, Class::Growing),
            AppendKind::Relief => (batch, Class::Relief),
        };
        let size = batch.size();
        let put = self.inbox.push(group, (size, class), batch, Work::Append);
        self.arrived(size, put)
    }

    /// See [`crate::LogStore::reset`].
    pub fn reset(&self, group: GroupId, write: u64) -> Result<(), Refused<()>> {
        self.inbox.push_urgent(group, (), |()| Work::Reset { write })
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

    /// See [`crate::LogStore::save_hard_states`].
    pub fn save_hard_states(&self, batch: HardStates) -> Result<(), Refused<HardStates>> {
        let group = batch.states.first().map_or(GroupId::CONTROLLER, |(group, ..)| *group);
        self.inbox.push_urgent(group, batch, Work::HardStates)
    }

    /// See [`crate::LogStore::try_checkpoint`].
    pub fn try_checkpoint(
        &self,
        group: GroupId,
        batch: CheckpointBatch,
    ) -> Result<(), Refused<CheckpointBatch>> {
        let size = batch.size();
        let put = self.inbox.push(group, (size, Class::Relief), batch, Work::Checkpoint);
        self.arrived(size, put)
    }

    /// See [`crate::LogStore::mark_rejoined`].
    pub fn mark_rejoined(&self, group: GroupId) -> Result<(), Refused<()>> {
        self.inbox.push_urgent(group, (), |()| Work::Rejoined)
    }

    /// See [`crate::LogStore::try_stage`].
    pub fn try_stage(
        &self,
        group: GroupId,
        piece: StagedPiece,
    ) -> Result<(), Refused<StagedPiece>> {
        let piece = self.while_there_is_room(piece)?;
        let size = piece.size();
        let put = self.inbox.push(group, (size, Class::Growing), piece, Work::Stage);
        self.arrived(size, put)
    }

    /// See [`crate::LogStore::install`].
    pub fn install(
        &self,
        group: GroupId,
        id: SnapshotId,
        keep_log_after: bool,
    ) -> Result<(), Refused<()>> {
        self.inbox.push_urgent(group, (), |()| Work::Install { id, keep_log_after })
    }

    fn while_there_is_room<T>(&self, request: T) -> Result<T, Refused<T>> {
        let DiskState::Low { free, reserve } = self.disk.state() else { return Ok(request) };
        self.counters.refused_disk_full.fetch_add(1, Relaxed);
        Err(Refused { returned: request, reason: RefusedReason::DiskFull { free, reserve } })
    }

    fn arrived<T>(&self, size: usize, put: Result<bool, Refused<T>>) -> Result<(), Refused<T>> {
        match put {
            Ok(first) => {
                self.writer.arrived(size, first);
                Ok(())
            }
            Err(refused) => {
                if refused.reason == RefusedReason::Full {
                    self.counters.refused_full.fetch_add(1, Relaxed);
                }
                Err(refused)
            }
        }
    }
}
