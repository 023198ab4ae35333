//! One group's replica on this node: the consensus core, joined with the store that keeps its log.
//!
//! The owner (a partition's or the controller's task) proposes payloads and hands in the store's
//! reports; it gets back committed entries, in order, to apply. The same path serves a group of one
//! and will serve a cluster.

mod at_risk;
mod clock;
mod effects;
mod events;
mod leaderless;
mod leftover;
mod members;
mod orders;
mod retention;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use flintmq_consensus::{
    ConfigRegister, Core, Effect, Entry, EntryKind, Flow, GroupId, History, Index, Input,
    LogPosition, LogTerms, Message, NodeId, ProposeError, RestoreError, Restored, Settings,
    SnapshotId, StopReason, Term,
};
use flintmq_storage::{
    AppendBatch, AppendKind, CheckpointBatch, DiskState, GroupRecord, LogStore, QueueRecord,
    ReadError, Refused, RefusedReason, Report, SnapshotReport, StagedPiece, StorageError,
};

use tokio::sync::watch;

use at_risk::AtRisk;
pub(crate) use clock::{Alarm, CoreClock};
pub(crate) use events::{StoreEvent, StoreEventSender, StoreEvents};
use leaderless::Leaderless;
use leftover::{DROPPING, Leftover};
pub(crate) use members::{Membership, Reconciler};
use orders::HandingOver;
#[cfg(test)]
pub(crate) use orders::PeerView;
pub(crate) use orders::{Ceded, GroupOrders, GroupView, NotCeded, Order, Recovery};
use retention::Retention;

use crate::cluster::PeerLinks;

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
    /// The group's configuration does not let this node vote, and there is nobody to ask.
    #[error(
        "this node is not a voter of the group: start it with the data directory that belongs to it, node={node} group={group}"
    )]
    NotAVoter {
        /// The group.
        group: GroupId,
        /// This node.
        node: NodeId,
    },
    /// The group has members on other nodes, of which the configuration knows nothing.
    #[error(
        "the group has members on other nodes: list them as [[cluster_nodes]] and set [peers], group={group} members={members}"
    )]
    SeveralMembers {
        /// The group.
        group: GroupId,
        /// How many members the configuration lists.
        members: usize,
    },
    /// A snapshot from a peer does not fit.
    #[error(
        "a snapshot from another node cannot be used: restart this node, group={group}: {detail}"
    )]
    Snapshot {
        /// The group.
        group: GroupId,
        /// What is wrong with it.
        detail: String,
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ReplicaStatus {
    pub(crate) leader: Option<NodeId>,
    pub(crate) serving: bool,
    /// Whether the group has a leader that serves, here or elsewhere, as far as is known here.
    pub(crate) led: bool,
    /// How long it had none, since this process started.
    pub(crate) leaderless: Leaderless,
    /// Whether it may have lost its tail and does not count until that is made good.
    pub(crate) recovering: bool,
    pub(crate) term: Term,
    pub(crate) history: History,
    pub(crate) commit_index: Index,
    pub(crate) applied_index: Index,
    pub(crate) last_index: Index,
    pub(crate) fsynced_index: Index,
    /// Payload bytes of decided entries that are not on the disk yet.
    pub(crate) at_risk_bytes: u64,
}

impl ReplicaStatus {
    /// Publishes what is so now. Whoever waits is woken when the leadership has changed: how far
    /// the log is, is read and not waited for.
    pub(crate) fn publish(self, status: &watch::Sender<Self>) {
        status.send_if_modified(|known| {
            let is_news = known.led_as() != self.led_as();
            *known = self;
            is_news
        });
    }

    fn led_as(&self) -> (Option<NodeId>, bool, bool, Term, History) {
        (self.leader, self.serving, self.led, self.term, self.history)
    }
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
    /// The other nodes; none for a cluster of one.
    pub(crate) peers: Option<PeerLinks>,
}

impl ReplicaHost {
    /// Replicas of `node` in `store`, told the time by `clock`.
    pub(crate) fn new(
        node: NodeId,
        store: Arc<dyn LogStore>,
        clock: CoreClock,
        peers: Option<PeerLinks>,
        settings: Settings,
    ) -> Self {
        let settings = Settings { proposal_window_bytes: WINDOW_BYTES, ..settings };
        Self { node, store, clock, settings: Arc::new(settings), peers }
    }
}

/// What became of a replica's state, other than by applying entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Replaced {
    /// Nothing is left of it: the group's past is another one.
    Emptied,
    /// It is that of a snapshot, in the store.
    Installed,
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
    retention: Retention,
    effects: Vec<Effect>,
    peers: Option<PeerLinks>,
    events: StoreEventSender,
    /// The owner has to take up another state before it applies on.
    replaced: Option<Replaced>,
    /// A piece of a snapshot that the store had no room for.
    staging: Option<StagedPiece>,
    /// How far each checkpoint under way makes holes in the log.
    holes: VecDeque<(Index, LogPosition)>,
    handing_over: Option<HandingOver>,
    /// An administrator wants this node to lead.
    keeps_lead: bool,
    /// Who should lead, where that is planned.
    wanted_leader: Option<NodeId>,
    /// Voters that must not lead.
    barred: Vec<NodeId>,
    leaderless: Leaderless,
    leftover: Leftover,
    settings: Arc<Settings>,
    seed: u64,
}

impl Replica {
    /// Opens the replica of a group that the store has, with all entries behind its checkpoint
    /// loaded. They come back from [`Self::next_committed`] as soon as the barrier is committed.
    ///
    /// # Errors
    /// The log cannot be read, does not belong together, or belongs to another node.
    pub(crate) fn open(
        record: &GroupRecord,
        host: &ReplicaHost,
        events: StoreEventSender,
    ) -> Result<Self, ReplicaError> {
        let (group, node) = (record.id, host.node);
        if host.peers.is_none() {
            check_members(group, node, &record.hard_state.config)?;
        }
        let applied = record.applied.unwrap_or_default();
        let unapplied = load_tail(&*host.store, group, applied.index, record.bounds.last.index)?;
        let restored = Restored {
            group,
            creation: record.creation,
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
            retention: Retention::default(),
            effects: Vec::new(),
            peers: host.peers.clone(),
            events,
            replaced: None,
            staging: None,
            holes: VecDeque::new(),
            handing_over: None,
            keeps_lead: false,
            wanted_leader: None,
            barred: Vec::new(),
            leaderless: Leaderless::default(),
            leftover: Leftover::default(),
            settings: Arc::clone(&host.settings),
            seed,
        })
    }

    /// Stands for election. The service opens when [`Self::is_serving`] says so.
    ///
    /// # Errors
    /// The store refuses.
    pub(crate) fn start(&mut self) -> Result<(), ReplicaError> {
        // The store has fsynced what it found when it was opened.
        let upto = self.core.last().index;
        self.step(Input::Started)?;
        self.step(Input::Synced { upto })
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

    /// Takes a message of another member.
    ///
    /// # Errors
    /// The replica cannot go on.
    pub(crate) fn on_message(&mut self, message: Message) -> Result<(), ReplicaError> {
        if self.leftover.dropping {
            return Ok(());
        }
        self.step(Input::Message(message))
    }

    /// A peer's process can be reached, or not any more.
    ///
    /// # Errors
    /// The replica cannot go on.
    pub(crate) fn on_peer(&mut self, input: Input) -> Result<(), ReplicaError> {
        self.step(input)
    }

    /// Gives the leadership up, if there is one.
    ///
    /// # Errors
    /// The replica cannot go on.
    pub(crate) fn cede(&mut self) -> Result<(), ReplicaError> {
        self.step(Input::Cede)
    }

    /// The records of another state, which the owner has to take up before it asks for entries to
    /// apply.
    ///
    /// # Errors
    /// They cannot be read.
    pub(crate) fn take_replaced(&mut self) -> Result<Option<Vec<QueueRecord>>, ReplicaError> {
        let Some(replaced) = self.replaced.take() else { return Ok(None) };
        tracing::info!(group = self.group.0, ?replaced, "another state is taken up");
        match replaced {
            Replaced::Emptied => Ok(Some(Vec::new())),
            Replaced::Installed => {
                let records = self.store.queue_records(self.group, &[], &[]);
                Ok(Some(records.collect::<Result<_, _>>()?))
            }
        }
    }

    /// Takes a report or an answer of the store.
    ///
    /// # Errors
    /// The store failed: nothing is acknowledged any more.
    pub(crate) fn on_store(&mut self, event: StoreEvent) -> Result<(), ReplicaError> {
        match event {
            StoreEvent::Report(report) => self.on_report(report),
            StoreEvent::Order(order) => self.on_order(order),
            StoreEvent::LogRead { read, entries } => {
                let entries = match entries {
                    Ok(entries) => entries,
                    Err(error) => self.unread("entries for another node", &error),
                };
                self.step(Input::LogRead { read, entries })
            }
            StoreEvent::SnapshotOpened { to, opened } => match opened {
                Ok(opened) => {
                    let (number, position) = (opened.number, opened.position);
                    let id = SnapshotId { source: self.core.node(), number, position };
                    self.step(Input::SnapshotOpened { to, id })
                }
                // The core asks again when the member does.
                Err(error) => {
                    self.unread::<()>("a snapshot", &error);
                    Ok(())
                }
            },
            StoreEvent::SnapshotRead { to, id, cursor, piece } => match piece {
                Ok(piece) => {
                    let (data, next) = (piece.data, piece.next);
                    self.step(Input::SnapshotRead { to, id, cursor, data, next })
                }
                Err(error) => {
                    self.unread::<()>("a snapshot", &error);
                    // It is opened anew when the member is taken for one that came back.
                    self.step(Input::PeerDown { peer: to })?;
                    self.step(Input::PeerUp { peer: to, restarted: false })
                }
            },
        }
    }

    fn unread<T: Default>(&self, what: &str, error: &ReadError) -> T {
        tracing::warn!(group = self.group.0, what, %error, "cannot be read for another node");
        T::default()
    }

    fn on_report(&mut self, report: Report) -> Result<(), ReplicaError> {
        match report {
            Report::Appended { write: DROPPING, .. } => self.begin_anew(),
            Report::Appended { write, .. } => self.step(Input::Appended { write }),
            Report::HardStateSynced { save } => self.step(Input::HardStateSynced { save }),
            Report::Synced { upto } => {
                self.step(Input::Synced { upto })?;
                self.at_risk.synced(self.core.synced_index());
                Ok(())
            }
            Report::Checkpointed { applied } => {
                let mut upto = None;
                while self.holes.front().is_some_and(|(index, _)| *index <= applied.index) {
                    upto = self.holes.pop_front().map(|(_, hole)| hole);
                }
                upto.map_or(Ok(()), |upto| self.step(Input::Compacted { upto }))
            }
            Report::Room => self.send_waiting(),
            Report::Failed(source) => {
                // That the core stops too is no news beside the failure itself.
                self.core.step(self.clock.now(), Input::StorageFailed, &mut self.effects);
                self.effects.clear();
                Err(ReplicaError::Storage { group: self.group, source })
            }
            Report::Snapshot(SnapshotReport::Staged { id, cursor }) => {
                self.step(Input::SnapshotStaged { id, cursor })
            }
            Report::Snapshot(SnapshotReport::Installed { id }) => {
                while self.unapplied.front().is_some_and(|e| e.index <= id.position.index) {
                    self.unapplied.pop_front();
                }
                self.applied = id.position;
                self.holes.clear();
                self.replaced = Some(Replaced::Installed);
                self.step(Input::SnapshotInstalled { id })
            }
            Report::Snapshot(SnapshotReport::Refused { detail, .. }) => {
                Err(ReplicaError::Snapshot { group: self.group, detail })
            }
            Report::Created | Report::Dropped | Report::Rejoined | Report::Removed => Ok(()),
        }
    }

    /// The next decided entry that was not returned yet.
    pub(crate) fn next_committed(&mut self) -> Option<Committed> {
        if self.replaced.is_some() || self.unapplied.front()?.index > self.core.commit_index() {
            return None;
        }
        let entry = self.unapplied.pop_front()?;
        self.applied = entry.position();
        self.retention.applied(entry.index, entry.payload.len());
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
        // What is told to be dead is gone from the log: from there on a member that lacks it needs
        // a snapshot.
        let hole = batch.dead_entries.iter().max().copied();
        let hole = hole.and_then(|index| self.core.log().position_at(index));
        let applied = batch.applied.index;
        let written = self.write_checkpoint(batch)?;
        if let (Ok(()), Some(hole)) = (&written, hole) {
            self.holes.push_back((applied, hole));
        }
        Ok(written)
    }

    fn write_checkpoint(
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

    /// Who leads, where known; this node only once it serves.
    pub(crate) fn leader(&self) -> Option<NodeId> {
        self.core.leader().filter(|leader| *leader != self.core.node() || self.is_serving())
    }

    /// The term.
    pub(crate) fn term(&self) -> Term {
        self.core.term()
    }

    /// This node.
    pub(crate) fn node(&self) -> NodeId {
        self.core.node()
    }

    /// Whether a node holds the group, as far as is known here.
    pub(crate) fn holds(&self, node: NodeId) -> bool {
        self.core.config().is_member(node)
    }

    /// Whether this node holds the group, as far as it knows.
    pub(crate) fn is_member(&self) -> bool {
        self.holds(self.core.node())
    }

    /// Whether enough members can be reached to decide anything.
    pub(crate) fn is_quorum_in_reach(&self) -> bool {
        let node = self.core.node();
        self.core.config().is_quorum(|member| member == node || self.core.is_up(member))
    }

    /// Another node that leads, as far as is known, and can be reached.
    pub(crate) fn leader_in_reach(&self) -> Option<NodeId> {
        let node = self.core.node();
        let leader = self.core.leader().filter(|_| self.is_member());
        leader.filter(|leader| *leader != node && self.core.is_up(*leader))
    }

    /// Up to where what is dead may go from the log. Behind that, members that are a little late,
    /// or the next leader's, would need a snapshot instead of the log.
    pub(crate) fn compaction_limit(&self) -> Index {
        if self.peers.is_none() {
            return Index::MAX;
        }
        let reached = self.core.is_serving().then(|| self.core.compaction_limit(Index::MAX));
        self.retention.limit(reached)
    }

    /// True while a transfer of the leadership is under way.
    pub(crate) fn is_transferring(&self) -> bool {
        self.core.is_transferring()
    }

    /// The member that this leader had better make room for, if it is up to date: the one that
    /// should lead, or that the group's number falls to. So leaders spread over the nodes, and come
    /// back after a failure.
    pub(crate) fn preferred_leader(&self) -> Option<NodeId> {
        let voters = self.core.config().voters.iter().copied();
        let may_lead: Vec<NodeId> = voters.filter(|voter| !self.barred.contains(voter)).collect();
        let wanted = self.wanted_leader.filter(|wanted| may_lead.contains(wanted));
        let in_turn = || may_lead.get(self.group.0 as usize % may_lead.len().max(1)).copied();
        let preferred = wanted.or_else(in_turn)?;
        let fit = preferred != self.core.node() && self.is_fit(preferred);
        (fit && !self.keeps_lead).then_some(preferred)
    }

    /// The member that should lead when this node stops.
    pub(crate) fn successor(&self) -> Option<NodeId> {
        let voters = self.core.config().voters.iter().copied();
        let (node, start) = (self.core.node(), self.group.0 as usize);
        let mut fit: Vec<NodeId> =
            voters.filter(|voter| *voter != node && self.is_fit(*voter)).collect();
        // Who must not lead leads only if nobody else can.
        if fit.iter().any(|voter| !self.barred.contains(voter)) {
            fit.retain(|voter| !self.barred.contains(voter));
        }
        let count = fit.len().max(1);
        (!fit.is_empty()).then(|| fit.swap_remove(start % count))
    }

    /// Whether this follower could lead without much to fetch.
    fn is_fit(&self, node: NodeId) -> bool {
        /// What it may lack; a graceful transfer lets it catch up first.
        const BEHIND: u64 = 4096;
        let peer = self.core.progress().iter().find(|peer| peer.node == node);
        self.core.is_up(node)
            && peer.is_some_and(|peer| {
                peer.recovering.is_none()
                    && peer.flow == Flow::Replicate
                    && peer.acked + BEHIND >= self.core.commit_index()
            })
    }

    /// An entry of the log that is not applied yet.
    pub(crate) fn unapplied(&self, index: Index) -> Option<&Entry> {
        let first = self.unapplied.front()?.index;
        self.unapplied.get(usize::try_from(index.checked_sub(first)?).ok()?)
    }

    /// As the leader: the term of an entry that this follower has in its log.
    pub(crate) fn term_held_by(&self, node: NodeId, index: Index) -> Option<Term> {
        let peer = self.core.progress().iter().find(|peer| peer.node == node)?;
        let held = peer.flow == Flow::Replicate && peer.matched >= index;
        held.then(|| self.core.log().term_at(index)).flatten()
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
            led: self.is_led(),
            leaderless: self.leaderless,
            recovering: self.core.recovering().is_some(),
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
        // Whoever does not hold the group has no part in its elections.
        let led = self.is_led() || !self.is_member();
        self.leaderless.note(led, std::time::Instant::now);
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
