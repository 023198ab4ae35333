//! One group's replica on this node: the consensus core, joined with the store that keeps its log.
//!
//! The owner (a partition's or the controller's task) proposes payloads and hands in the store's
//! reports; it gets back committed entries, in order, to apply. The same path serves a group of one
//! and will serve a cluster.

mod at_risk;
mod clock;
mod effects;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use flintmq_consensus::{
    ConfigRegister, Core, CreationId, Effect, Entry, EntryKind, GroupId, History, Index, Input,
    LogPosition, LogTerms, NodeId, ProposeError, RestoreError, Restored, Settings, StopReason,
    Term,
};
use flintmq_storage::{
    AppendBatch, AppendKind, CheckpointBatch, DiskState, GroupRecord, LogStore, ReadError, Refused,
    RefusedReason, Report, StorageError,
};

use at_risk::AtRisk;
use clock::Alarm;
pub(crate) use clock::CoreClock;

/// Bytes that may be proposed and not decided. Owners stop far below; what one of them proposes
/// last must still fit, and that may be the largest message.
const WINDOW_BYTES: u64 = 192 << 20;

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

impl Committed {
    /// The error for an entry of a kind that nothing here proposes.
    pub(crate) fn not_known(&self, group: GroupId) -> ReplicaError {
        ReplicaError::UnknownKind { group, index: self.index }
    }
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
    Restore(#[from] RestoreError),
    /// The group's configuration does not let this node vote.
    #[error(
        "this node is not a voter of the group: start it with the data directory that belongs to it, node={node} group={group}"
    )]
    NotAVoter {
        /// The group.
        group: GroupId,
        /// This node.
        node: NodeId,
    },
    /// The group has members on other nodes, which this version does not replicate to.
    #[error(
        "groups of more than one voter are not served by this version, group={group} members={members}"
    )]
    SeveralMembers {
        /// The group.
        group: GroupId,
        /// How many members the configuration lists.
        members: usize,
    },
    /// An entry that this version does not apply.
    #[error(
        "the log holds an entry that a newer version wrote: start that version, group={group} index={index}"
    )]
    UnknownKind {
        /// The group.
        group: GroupId,
        /// The entry.
        index: Index,
    },
    /// The core gave up.
    #[error("{reason}, group={group}")]
    Stopped {
        /// The group.
        group: GroupId,
        /// Why.
        reason: StopReason,
    },
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

/// What all replicas of the node share.
#[derive(Clone)]
pub(crate) struct ReplicaHost {
    /// This node.
    pub(crate) node: NodeId,
    /// Where their logs are.
    pub(crate) store: Arc<dyn LogStore>,
    clock: CoreClock,
    settings: Arc<Settings>,
}

impl ReplicaHost {
    /// Replicas of `node` in `store`, told the time by `clock`.
    pub(crate) fn new(node: NodeId, store: Arc<dyn LogStore>, clock: CoreClock) -> Self {
        let settings = Settings { proposal_window_bytes: WINDOW_BYTES, ..Settings::default() };
        Self { node, store, clock, settings: Arc::new(settings) }
    }
}

/// The replica. Not shared: its owner's task is the only one that touches it.
pub(crate) struct Replica {
    group: GroupId,
    core: Core,
    store: Arc<dyn LogStore>,
    clock: CoreClock,
    alarm: Alarm,
    /// Entries of the log that are not applied yet, oldest first.
    unapplied: VecDeque<Entry>,
    /// Batches that the store had no room for; later ones wait behind them.
    waiting: VecDeque<AppendBatch>,
    applied: LogPosition,
    at_risk: AtRisk,
    effects: Vec<Effect>,
    /// An effect was met that this version cannot carry out, and the log says so.
    told_not_served: bool,
}

impl Replica {
    /// Opens the replica of a group that the store has, with all entries behind its checkpoint
    /// loaded. They come back from [`Self::next_committed`] as soon as the barrier is committed.
    ///
    /// # Errors
    /// The log cannot be read, does not belong together, or belongs to another node.
    pub(crate) fn open(record: &GroupRecord, host: &ReplicaHost) -> Result<Self, ReplicaError> {
        let (group, node) = (record.id, host.node);
        check_members(group, node, &record.hard_state.config)?;
        let applied = record.applied.unwrap_or_default();
        let unapplied = load_tail(&*host.store, group, applied.index, record.bounds.last.index)?;
        let restored = Restored {
            group,
            // Told apart by the controller once groups come and go on several nodes.
            creation: CreationId::default(),
            node,
            hard_state: record.hard_state.clone(),
            // Below the checkpoint entries are deleted as they die, so nothing relies on them.
            log: LogTerms::from_positions(applied, unapplied.iter().map(Entry::position)),
            applied: applied.index,
            recovering: record.recovering,
        };
        // Replicas of a group must not draw the same delays.
        let seed = (u64::from(node.0) << 32) | u64::from(group.0);
        Ok(Self {
            group,
            core: Core::new(restored, Arc::clone(&host.settings), seed)?,
            store: Arc::clone(&host.store),
            clock: host.clock,
            alarm: Alarm::new(host.clock),
            unapplied,
            waiting: VecDeque::new(),
            applied,
            at_risk: AtRisk::default(),
            effects: Vec::new(),
            told_not_served: false,
        })
    }

    /// Stands for election. The service opens when [`Self::is_serving`] says so.
    ///
    /// # Errors
    /// The store refuses.
    pub(crate) fn start(&mut self) -> Result<(), ReplicaError> {
        self.step(Input::Started)
    }

    /// Waits until the core wants to be told the time; for ever while it does not.
    /// [`Self::on_deadline`] is due then. May be dropped and asked again.
    pub(crate) async fn deadline(&mut self) {
        self.alarm.ring(self.core.next_deadline()).await;
    }

    /// Tells the core the time.
    ///
    /// # Errors
    /// The replica cannot go on.
    pub(crate) fn on_deadline(&mut self) -> Result<(), ReplicaError> {
        self.step(Input::Tick)
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
        let now = self.clock.now();
        let proposed = self.core.propose(now, EntryKind::Commands, payload, &mut self.effects);
        self.carry_out(kind)?;
        Ok(proposed.map_err(|error| match error {
            ProposeError::NotLeader { .. } => NotProposed::NotLeader,
            ProposeError::WindowFull { .. } => NotProposed::WindowFull,
        }))
    }

    /// Takes a report of the store.
    ///
    /// # Errors
    /// The store failed: nothing is acknowledged any more.
    pub(crate) fn on_report(&mut self, report: Report) -> Result<(), ReplicaError> {
        match report {
            Report::Appended { write, .. } => self.step(Input::Appended { write }),
            Report::HardStateSynced { save } => self.step(Input::HardStateSynced { save }),
            Report::Synced { upto } => {
                self.step(Input::Synced { upto })?;
                self.at_risk.synced(self.core.synced_index());
                Ok(())
            }
            Report::Checkpointed { applied } => self.step(Input::Compacted { upto: applied }),
            Report::Room => self.send_waiting(),
            Report::Failed(source) => {
                // That the core stops too is no news beside the failure itself.
                self.core.step(self.clock.now(), Input::StorageFailed, &mut self.effects);
                self.effects.clear();
                Err(ReplicaError::Storage { group: self.group, source })
            }
            // Nothing that it tells of is asked for here yet.
            Report::Created
            | Report::Dropped
            | Report::Rejoined
            | Report::Removed
            | Report::Snapshot(_) => Ok(()),
        }
    }

    /// The next decided entry that was not returned yet.
    pub(crate) fn next_committed(&mut self) -> Option<Committed> {
        if self.unapplied.front()?.index > self.core.commit_index() {
            return None;
        }
        let entry = self.unapplied.pop_front()?;
        self.applied = entry.position();
        if entry.index > self.core.synced_index() {
            self.at_risk.add(entry.index, entry.payload.len());
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
    pub(crate) fn bytes_under_way(&self) -> u64 {
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
        self.core.is_serving()
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
            fsynced_index: self.core.synced_index(),
            at_risk_bytes: self.at_risk.bytes(),
        }
    }

    fn step(&mut self, input: Input) -> Result<(), ReplicaError> {
        let now = self.clock.now();
        self.core.step(now, input, &mut self.effects);
        // A task with much to do may not come to wait for the alarm.
        if self.core.next_deadline().is_some_and(|deadline| deadline <= now) {
            self.core.step(now, Input::Tick, &mut self.effects);
        }
        self.carry_out(AppendKind::Relief)
    }
}

/// Refuses a directory that is not this node's, and groups that need other nodes.
fn check_members(
    group: GroupId,
    node: NodeId,
    config: &ConfigRegister,
) -> Result<(), ReplicaError> {
    if !config.is_voter(node) {
        return Err(ReplicaError::NotAVoter { group, node });
    }
    match config.members().len() {
        1 => Ok(()),
        members => Err(ReplicaError::SeveralMembers { group, members }),
    }
}

/// All entries behind the checkpoint.
fn load_tail(
    store: &dyn LogStore,
    group: GroupId,
    applied: Index,
    last: Index,
) -> Result<VecDeque<Entry>, ReadError> {
    const CHUNK: usize = 8 << 20;
    let mut tail = VecDeque::new();
    let mut next = applied + 1;
    while next <= last {
        let entries = store.entries(group, next, last, CHUNK)?;
        next += entries.len().max(1) as u64;
        tail.extend(entries);
    }
    Ok(tail)
}
