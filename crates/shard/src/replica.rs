//! What a shard keeps for one group's replica, beside its core and its machine.

use std::collections::VecDeque;

use flintmq_consensus::{
    Core, Entry, GroupId, History, Index, LogPosition, LogTerms, NodeId, Restored, Term, Time,
};
use flintmq_log_store::{
    AppendKind, CheckpointBatch, GroupRecord, LogStore, QueueRecord, ReadError, RefusedReason,
};

use crate::at_risk::AtRisk;
use crate::effect::ShardError;
use crate::host::Host;
use crate::leadership::HandingOver;
use crate::leftover::Leftover;
use crate::machine::Committed;
use crate::own_writes::OwnWrites;
use crate::retention::Retention;
use crate::status::{Leaderless, ReplicaStatus};
use crate::store_queue::{Request, StoreQueue};

/// What became of a replica's state, other than by applying entries.
#[derive(Debug, Default)]
pub(crate) enum Replaced {
    /// Nothing: the machine's state is the group's.
    #[default]
    No,
    /// Nothing is left of it: the group's past is another one.
    Emptied,
    /// It is that of a snapshot, which is being read from the store under this number.
    Reading(u64),
    /// It is this.
    Read(StoredState),
}

/// A group's applied state, as it is in the store.
#[derive(Debug, Default)]
pub struct StoredState {
    pub(crate) records: Vec<QueueRecord>,
    /// Entries at or below it that are in the log.
    pub(crate) entries: Vec<Index>,
}

impl Replaced {
    /// Whether another state has to be taken up before anything is applied or written.
    pub(crate) fn is_pending(&self) -> bool {
        !matches!(self, Self::No)
    }
}

/// One group's replica.
pub(crate) struct Replica {
    pub(crate) group: GroupId,
    /// Counts the cores that this group had here: answers to one before are void.
    pub(crate) life: u64,
    /// Entries of the log that are not applied yet, oldest first.
    pub(crate) tail: VecDeque<Entry>,
    /// Last entry given to the machine.
    pub(crate) applied: LogPosition,
    pub(crate) queue: StoreQueue,
    pub(crate) own_writes: OwnWrites,
    pub(crate) at_risk: AtRisk,
    pub(crate) retention: Retention,
    /// How far each checkpoint under way makes holes in the log.
    pub(crate) holes: VecDeque<(Index, LogPosition)>,
    pub(crate) replaced: Replaced,
    /// Counts the states that were read.
    pub(crate) states_read: u64,
    /// The snapshot that is taking the place of the state, and whether the log behind it stays.
    pub(crate) installing: Option<(flintmq_consensus::SnapshotId, bool)>,
    /// The term for which the machine was told that this node leads.
    pub(crate) led_term: Option<Term>,
    pub(crate) handing_over: Option<HandingOver>,
    /// An administrator wants this node to lead.
    pub(crate) keeps_leadership: bool,
    /// Who should lead, where that is planned.
    pub(crate) wanted_leader: Option<NodeId>,
    /// Voters that must not lead.
    pub(crate) ineligible: Vec<NodeId>,
    /// When the members are looked at next, after a step was taken.
    pub(crate) members_due: Option<Time>,
    pub(crate) leaderless: Leaderless,
    pub(crate) leftover: Leftover,
    /// What new entries count as, until the next flush.
    pub(crate) append_kind: AppendKind,
    pub(crate) reads_issued: u64,
    /// What the host was told of the leadership last.
    pub(crate) known: LedAs,
    /// The group settled and wrote its last checkpoint.
    pub(crate) stopped: bool,
}

/// What there is to be told of a group's leadership.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LedAs {
    leader: Option<NodeId>,
    serving: bool,
    led: bool,
    term: Term,
    history: History,
}

impl LedAs {
    pub(crate) fn of(status: &ReplicaStatus) -> Self {
        let ReplicaStatus { leader, serving, led, term, history, .. } = *status;
        Self { leader, serving, led, term, history }
    }
}

/// A group as it was read from the store, to be added to a shard.
#[derive(Debug)]
pub struct StoredGroup {
    record: GroupRecord,
    tail: VecDeque<Entry>,
    state: Option<StoredState>,
}

impl StoredGroup {
    /// Reads a group's state and all entries behind it. Does I/O, on any thread.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn read(store: &dyn LogStore, record: GroupRecord) -> Result<Self, ReadError> {
        let applied = record.applied.unwrap_or_default().index;
        let tail = read_tail(store, record.id, applied, record.bounds.last.index)?;
        let state = record.applied.map(|_| read_state(store, record.id)).transpose()?;
        Ok(Self { record, tail, state })
    }

    /// The group.
    #[must_use]
    pub fn id(&self) -> GroupId {
        self.record.id
    }

    pub(crate) fn into_parts(self, node: NodeId) -> (Restored, Replica, Option<StoredState>) {
        let Self { record, tail, state } = self;
        let applied = record.applied.unwrap_or_default();
        let restored = Restored {
            group: record.id,
            creation: record.creation,
            node,
            hard_state: record.hard_state,
            // Below the checkpoint entries are deleted as they die, so nothing relies on them.
            log: LogTerms::from_positions(applied, tail.iter().map(Entry::position)),
            applied: applied.index,
            recovering: record.recovering,
        };
        (restored, Replica::new(record.id, applied, tail), state)
    }

    /// Refuses a directory that is not this node's, and groups that need other nodes.
    pub(crate) fn check_alone(&self, node: NodeId) -> Result<(), ShardError> {
        let (group, config) = (self.record.id, &self.record.hard_state.config);
        if !config.is_voter(node) {
            return Err(ShardError::NotAVoter { group, node });
        }
        match config.members().len() {
            1 => Ok(()),
            members => Err(ShardError::SeveralMembers { group, members }),
        }
    }
}

/// Reads a group's applied state, as [`crate::ShardEffect::ReadState`] asks.
///
/// # Errors
/// It cannot be read.
pub fn read_state(store: &dyn LogStore, group: GroupId) -> Result<StoredState, ReadError> {
    let applied = store.applied(group)?.unwrap_or_default();
    let records = store.queue_records(group, &[], &[]).collect::<Result<_, _>>()?;
    Ok(StoredState { records, entries: store.indexes(group, applied.index)? })
}

/// All entries behind the checkpoint.
fn read_tail(
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

impl Replica {
    fn new(group: GroupId, applied: LogPosition, tail: VecDeque<Entry>) -> Self {
        Self {
            group,
            life: 0,
            tail,
            applied,
            queue: StoreQueue::default(),
            own_writes: OwnWrites::default(),
            at_risk: AtRisk::default(),
            retention: Retention::default(),
            holes: VecDeque::new(),
            replaced: Replaced::No,
            states_read: 0,
            installing: None,
            led_term: None,
            handing_over: None,
            keeps_leadership: false,
            wanted_leader: None,
            ineligible: Vec::new(),
            members_due: None,
            leaderless: Leaderless::default(),
            leftover: Leftover::default(),
            append_kind: AppendKind::Relief,
            reads_issued: 0,
            known: LedAs::default(),
            stopped: false,
        }
    }

    /// The next committed entry that the machine does not have; none while another state is to be
    /// taken up first.
    pub(crate) fn next_committed(&mut self, core: &Core) -> Option<Committed> {
        if self.replaced.is_pending() || self.tail.front()?.index > core.commit_index() {
            return None;
        }
        let entry = self.tail.pop_front()?;
        self.applied = entry.position();
        self.retention.applied(entry.index, entry.payload.len());
        if entry.index > core.synced_index() {
            self.at_risk.add(entry.index, entry.payload.len());
        }
        Some(Committed { position: self.applied, kind: entry.kind, payload: entry.payload })
    }

    /// Keeps the log's tail as it will be once the write is done.
    pub(crate) fn take_into_tail(&mut self, truncate_from: Option<Index>, entries: &[Entry]) {
        if let Some(from) = truncate_from {
            while self.tail.back().is_some_and(|entry| entry.index >= from) {
                self.tail.pop_back();
            }
        }
        self.tail.extend(entries.iter().cloned());
    }

    /// An entry of the log that is not applied yet.
    pub(crate) fn unapplied(&self, index: Index) -> Option<&Entry> {
        let first = self.tail.front()?.index;
        self.tail.get(usize::try_from(index.checked_sub(first)?).ok()?)
    }

    /// Nothing is left of log and state.
    pub(crate) fn empty(&mut self) {
        self.tail.clear();
        self.queue.clear();
        self.own_writes = OwnWrites::default();
        self.applied = LogPosition::default();
        self.at_risk = AtRisk::default();
        self.holes.clear();
        self.installing = None;
        self.replaced = Replaced::Emptied;
    }

    /// The state is that of a snapshot at this position, which has to be read.
    pub(crate) fn installed(&mut self, position: LogPosition, keeps_log_after: bool) {
        if keeps_log_after {
            while self.tail.front().is_some_and(|entry| entry.index <= position.index) {
                self.tail.pop_front();
            }
            self.at_risk.synced(position.index);
        } else {
            self.tail.clear();
            self.own_writes = OwnWrites::default();
            self.at_risk = AtRisk::default();
        }
        self.applied = position;
        self.holes.clear();
        self.states_read += 1;
        self.replaced = Replaced::Reading(self.states_read);
    }

    /// Everything is dropped but what was voted for, and another core has begun.
    pub(crate) fn begin_anew(&mut self) {
        self.life += 1;
        self.empty();
        self.retention = Retention::default();
        self.leftover = Leftover::default();
    }

    /// Gives the store a request, in its order.
    pub(crate) fn ask_store(&mut self, host: &mut Host, request: Request) {
        let asked = self.queue.push(&*host.store, self.group, request);
        self.look_at(host, asked);
    }

    /// Gives the store what it had no room for.
    pub(crate) fn go_on_asking(&mut self, host: &mut Host) {
        let asked = self.queue.go_on(&*host.store, self.group);
        self.look_at(host, asked);
    }

    pub(crate) fn look_at(&self, host: &mut Host, asked: Result<(), RefusedReason>) {
        if let Err(reason) = asked {
            host.fail(ShardError::Refused { group: self.group, reason });
        }
    }

    /// Writes a checkpoint of the applied state; it comes back when that must wait.
    pub(crate) fn checkpoint(
        &mut self,
        core: &Core,
        host: &mut Host,
        batch: CheckpointBatch,
    ) -> Result<(), CheckpointBatch> {
        let is_replacing =
            self.replaced.is_pending() || self.installing.is_some() || self.leftover.dropping;
        if is_replacing || self.queue.has_checkpoint() {
            return Err(batch);
        }
        // What is told to be dead is gone from the log: from there on a member that lacks it needs
        // a snapshot.
        let hole = batch.dead_entries.iter().max().copied();
        let hole = hole.and_then(|index| core.log().position_at(index));
        self.holes.extend(hole.map(|hole| (batch.applied.index, hole)));
        self.ask_store(host, Request::Checkpoint(batch));
        Ok(())
    }

    /// A checkpoint is written: how far it made holes in the log.
    pub(crate) fn checkpointed(&mut self, applied: LogPosition) -> Option<LogPosition> {
        let mut upto = None;
        while self.holes.front().is_some_and(|(index, _)| *index <= applied.index) {
            upto = self.holes.pop_front().map(|(_, hole)| hole);
        }
        upto
    }

    /// Present state, as the replica itself knows it.
    pub(crate) fn status(&self, core: &Core) -> ReplicaStatus {
        ReplicaStatus {
            leader: core.leader(),
            serving: core.is_serving(),
            led: is_led(core),
            leaderless: self.leaderless,
            recovering: core.recovering().is_some(),
            term: core.term(),
            history: core.history(),
            commit_index: core.commit_index(),
            applied_index: self.applied.index,
            last_index: core.last().index,
            fsynced_index: core.synced_index(),
            at_risk_bytes: self.at_risk.bytes(),
        }
    }
}

/// Whether the group has a leader that serves, as far as is known here: something of its term is
/// committed.
pub(crate) fn is_led(core: &Core) -> bool {
    match core.leader() {
        None => false,
        Some(leader) if leader == core.node() => core.is_serving(),
        Some(_) => core.log().term_at(core.commit_index()) == Some(core.term()),
    }
}
