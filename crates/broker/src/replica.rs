//! One group's replica on this node: the consensus core, joined with the store that keeps its log.
//!
//! The owner (a partition's or the controller's task) proposes payloads and hands in the store's
//! reports; it gets back committed entries, in order, to apply. The same path serves a group of one
//! and will serve a cluster.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use flintmq_consensus::{
    Core, Effect, Entry, EntryKind, GroupId, History, Index, Input, LogPosition, NodeId, Restored,
    Role, Term,
};
use flintmq_storage::{
    AppendBatch, AppendKind, CheckpointBatch, DiskState, GroupRecord, LogStore, ReadError, Refused,
    RefusedReason, Report, StorageError,
};

use crate::metrics::ELECTIONS;

/// Bytes that may be proposed and not decided. Owners stop far below; what one of them proposes
/// last must still fit, and that may be the largest message.
const WINDOW_BYTES: usize = 192 << 20;

/// A decided entry, to be applied.
#[derive(Clone, Debug)]
pub(crate) struct Committed {
    /// Its place in the log.
    pub(crate) index: Index,
    /// What it is for.
    pub(crate) kind: EntryKind,
    /// The commands.
    pub(crate) payload: Bytes,
}

/// Why a proposal was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotProposed {
    /// This replica does not lead now.
    NotLeader,
    /// Too much is under way; propose again after the next commit.
    WindowFull,
}

/// Why a replica cannot go on. The node stops: an operator has to look at it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReplicaError {
    /// The store failed.
    #[error("group={group}: {source}")]
    Storage {
        /// The group.
        group: GroupId,
        /// What failed.
        source: StorageError,
    },
    /// The log cannot be read back.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The store's content does not belong together.
    #[error(transparent)]
    Restore(#[from] flintmq_consensus::RestoreError),
    /// The store refused a write that it must take.
    #[error("the store refuses to write: {reason}, group={group}")]
    Refused {
        /// The group.
        group: GroupId,
        /// Why.
        reason: RefusedReason,
    },
}

/// Present state of a replica, for status pages and metrics.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ReplicaStatus {
    pub(crate) leader: Option<NodeId>,
    pub(crate) serving: bool,
    pub(crate) term: Term,
    pub(crate) history: History,
    pub(crate) commit_index: Index,
    pub(crate) applied_index: Index,
    pub(crate) last_index: Index,
    pub(crate) fsynced_index: Index,
    /// Payload bytes of decided entries that are not on the disk yet.
    pub(crate) at_risk_bytes: u64,
}

/// The replica. Not shared: its owner's task is the only one that touches it.
pub(crate) struct Replica {
    group: GroupId,
    core: Core,
    store: Arc<dyn LogStore>,
    /// Entries handed to the core and not applied yet, oldest first.
    unapplied: VecDeque<Entry>,
    /// Terms of hard states on their way to the disk.
    syncing_terms: VecDeque<Term>,
    /// Batches that the store had no room for; later ones wait behind them.
    waiting: VecDeque<AppendBatch>,
    applied: LogPosition,
    fsynced: Index,
    /// Payload bytes of each applied entry that is not on the disk yet, oldest first.
    at_risk: VecDeque<(Index, u64)>,
    at_risk_bytes: u64,
    effects: Vec<Effect>,
    /// The store vouched for less than all; to be told it when the sync phase is over.
    recovering: bool,
}

impl Replica {
    /// Opens the replica of a group that the store has, with all entries behind its checkpoint
    /// loaded. They come back from [`Self::next_committed`] as soon as the barrier is committed.
    ///
    /// # Errors
    /// The log cannot be read, or does not belong together.
    pub(crate) fn open(
        record: &GroupRecord,
        node: NodeId,
        store: Arc<dyn LogStore>,
    ) -> Result<Self, ReplicaError> {
        let applied = record.applied.unwrap_or_default();
        let last = record.bounds.last;
        let mut core = Core::new(Restored {
            group: record.id,
            node,
            hard_state: record.hard_state.clone(),
            last,
            applied: applied.index,
            recovering: record.recovering,
        })?;
        core.set_window_bytes(WINDOW_BYTES);
        let mut replica = Self {
            group: record.id,
            core,
            store,
            unapplied: VecDeque::new(),
            syncing_terms: VecDeque::new(),
            waiting: VecDeque::new(),
            applied,
            fsynced: 0,
            at_risk: VecDeque::new(),
            at_risk_bytes: 0,
            effects: Vec::new(),
            recovering: record.recovering,
        };
        replica.load_tail(last.index)?;
        Ok(replica)
    }

    /// Stands for election. The service opens when [`Self::is_serving`] says so.
    ///
    /// # Errors
    /// The store refuses.
    pub(crate) fn start(&mut self) -> Result<(), ReplicaError> {
        self.core.step(Input::Started, &mut self.effects);
        self.carry_out(AppendKind::Relief)
    }

    /// Proposes one entry and tells its index. It is decided when [`Self::next_committed`] returns
    /// it.
    ///
    /// # Errors
    /// Outer: the replica cannot go on. Inner: the entry was not taken.
    pub(crate) fn propose(
        &mut self,
        payload: Bytes,
        kind: AppendKind,
    ) -> Result<Result<Index, NotProposed>, ReplicaError> {
        let proposed = self.core.propose(payload, &mut self.effects);
        self.carry_out(kind)?;
        Ok(proposed.map_err(|error| match error {
            flintmq_consensus::ProposeError::NotLeader { .. } => NotProposed::NotLeader,
            flintmq_consensus::ProposeError::WindowFull { .. } => NotProposed::WindowFull,
        }))
    }

    /// Takes a report of the store.
    ///
    /// # Errors
    /// The store failed: nothing is acknowledged any more.
    pub(crate) fn on_report(&mut self, report: Report) -> Result<(), ReplicaError> {
        match report {
            Report::Appended { upto } => {
                self.core.step(Input::Appended { upto }, &mut self.effects);
            }
            Report::HardStateSynced => {
                if let Some(term) = self.syncing_terms.pop_front() {
                    self.core.step(Input::HardStateSynced { term }, &mut self.effects);
                }
            }
            Report::Synced { upto } => self.on_synced(upto),
            Report::Room => self.send_waiting()?,
            Report::Failed(source) => {
                self.core.step(Input::StorageFailed, &mut self.effects);
                return Err(ReplicaError::Storage { group: self.group, source });
            }
            Report::Created | Report::Dropped | Report::Checkpointed { .. } | Report::Rejoined => {}
        }
        self.carry_out(AppendKind::Relief)
    }

    /// The next decided entry that was not returned yet.
    pub(crate) fn next_committed(&mut self) -> Option<Committed> {
        if self.unapplied.front()?.index > self.core.commit_index() {
            return None;
        }
        let entry = self.unapplied.pop_front()?;
        self.applied = LogPosition { term: entry.term, index: entry.index };
        if entry.index > self.fsynced {
            let bytes = entry.payload.len() as u64;
            self.at_risk.push_back((entry.index, bytes));
            self.at_risk_bytes += bytes;
        }
        Some(Committed { index: entry.index, kind: entry.kind, payload: entry.payload })
    }

    /// Writes a checkpoint of the applied state. False when the store has no room for it now.
    ///
    /// # Errors
    /// The store takes no more writes.
    pub(crate) fn checkpoint(
        &mut self,
        batch: CheckpointBatch,
    ) -> Result<Result<(), CheckpointBatch>, ReplicaError> {
        match self.store.try_checkpoint(self.group, batch) {
            Ok(()) => Ok(Ok(())),
            Err(Refused { returned, reason: RefusedReason::Full }) => Ok(Err(returned)),
            Err(Refused { reason, .. }) => Err(ReplicaError::Refused { group: self.group, reason }),
        }
    }

    /// The group.
    pub(crate) fn group(&self) -> GroupId {
        self.group
    }

    /// Payload bytes proposed and not yet decided.
    pub(crate) fn bytes_under_way(&self) -> usize {
        self.core.uncommitted_bytes()
    }

    /// Entries proposed and not yet decided.
    pub(crate) fn under_way(&self) -> usize {
        let decided = self.core.commit_index();
        usize::try_from(self.core.last().index.saturating_sub(decided)).unwrap_or(usize::MAX)
    }

    /// Last entry returned by [`Self::next_committed`].
    pub(crate) fn applied(&self) -> LogPosition {
        self.applied
    }

    /// True when this replica leads and everything decided before is there to be applied.
    pub(crate) fn is_serving(&self) -> bool {
        self.core.role() == Role::Ready
    }

    /// Whether new messages are taken, as far as the disk is concerned.
    pub(crate) fn disk_state(&self) -> DiskState {
        self.store.disk_state()
    }

    /// The store, for reading entries.
    pub(crate) fn store(&self) -> &Arc<dyn LogStore> {
        &self.store
    }

    /// Present state.
    pub(crate) fn status(&self) -> ReplicaStatus {
        ReplicaStatus {
            leader: self.core.leader(),
            serving: self.is_serving(),
            term: self.core.term(),
            history: self.core.history(),
            commit_index: self.core.commit_index(),
            applied_index: self.applied.index,
            last_index: self.core.last().index,
            fsynced_index: self.fsynced,
            at_risk_bytes: self.at_risk_bytes,
        }
    }

    fn load_tail(&mut self, last: Index) -> Result<(), ReplicaError> {
        const CHUNK: usize = 8 << 20;
        let mut next = self.applied.index + 1;
        while next <= last {
            let entries = self.store.entries(self.group, next, last, CHUNK)?;
            next += entries.len().max(1) as u64;
            self.unapplied.extend(entries);
        }
        Ok(())
    }

    fn carry_out(&mut self, kind: AppendKind) -> Result<(), ReplicaError> {
        for effect in std::mem::take(&mut self.effects) {
            match effect {
                Effect::SyncHardState(hard_state) => {
                    self.syncing_terms.push_back(hard_state.term);
                    self.store.save_hard_state(self.group, hard_state).map_err(|refused| {
                        ReplicaError::Refused { group: self.group, reason: refused.reason }
                    })?;
                }
                Effect::Append(entries) => {
                    self.unapplied.extend(entries.iter().cloned());
                    self.waiting.push_back(AppendBatch { truncate_from: None, entries, kind });
                    self.send_waiting()?;
                }
                // The owner asks with `next_committed`.
                Effect::Commit { .. } => {}
                Effect::RoleChanged { role, term } => self.on_role(role, term)?,
                Effect::HistoryForked { history, last } => tracing::error!(
                    group = self.group.0,
                    history,
                    last_index = last.index,
                    "the end of the log may be lost after an unclean stop of the machine; going on with what is there"
                ),
            }
        }
        Ok(())
    }

    fn on_role(&mut self, role: Role, term: Term) -> Result<(), ReplicaError> {
        tracing::debug!(group = self.group.0, ?role, term, "role");
        match role {
            Role::Candidate => ELECTIONS.counter(&["started"]).increment(1),
            Role::Ready => ELECTIONS.counter(&["won"]).increment(1),
            Role::Follower | Role::Syncing | Role::Failed => {}
        }
        if role == Role::Ready && std::mem::take(&mut self.recovering) {
            self.store.mark_rejoined(self.group).map_err(|refused| ReplicaError::Refused {
                group: self.group,
                reason: refused.reason,
            })?;
        }
        Ok(())
    }

    fn on_synced(&mut self, upto: Index) {
        self.fsynced = self.fsynced.max(upto);
        while self.at_risk.front().is_some_and(|(index, _)| *index <= upto) {
            self.at_risk_bytes -= self.at_risk.pop_front().map_or(0, |(_, bytes)| bytes);
        }
    }

    fn send_waiting(&mut self) -> Result<(), ReplicaError> {
        while let Some(batch) = self.waiting.pop_front() {
            let Err(Refused { mut returned, reason }) = self.store.try_append(self.group, batch)
            else {
                continue;
            };
            match reason {
                RefusedReason::Full => {
                    self.waiting.push_front(returned);
                    return Ok(());
                }
                // The entry has its index already; the reserve is there for what cannot be taken
                // back.
                RefusedReason::DiskFull { .. } if returned.kind == AppendKind::Growing => {
                    returned.kind = AppendKind::Relief;
                    self.waiting.push_front(returned);
                }
                reason => return Err(ReplicaError::Refused { group: self.group, reason }),
            }
        }
        Ok(())
    }
}
