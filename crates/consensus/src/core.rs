//! The state of one group's replica, as a pure function of its inputs.

use std::ops::RangeInclusive;
use std::sync::Arc;

use bytes::Bytes;

use crate::durability::Durability;
use crate::election::Election;
use crate::jitter::Jitter;
use crate::leading::Leading;
use crate::mutants::broken;
use crate::recovery::{HeldGrant, void_epoch};
use crate::snapshot::{Receiving, Sending};
use crate::{
    Body, ConfigRegister, CreationId, Effect, EntryKind, Epoch, GroupId, HardState, History, Index,
    Input, LogPosition, LogTerms, Message, NodeId, Progress, Settings, StopReason, Term, Time,
};

/// What a replica is doing in its group (docs/internals/consensus.md#roles). Orthogonal to it, a
/// replica may be recovering: [`Core::recovering`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Not leading.
    Follower,
    /// Asking whether anybody would vote for it.
    Scout,
    /// Asking for votes.
    Candidate,
    /// Elected; finding out what was acknowledged and fetching what it lacks.
    Syncing,
    /// Leader that has all that was acknowledged. Takes proposals; serves once its barrier is
    /// committed: [`Core::is_serving`].
    Ready,
    /// Stopped for good: a write failed, or what must not be was found.
    Failed,
}

/// What the store knows of a replica when the process starts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Restored {
    /// The group.
    pub group: GroupId,
    /// Which making of the group.
    pub creation: CreationId,
    /// This node.
    pub node: NodeId,
    /// The fsynced hard state. A member to be has an empty configuration; a replica whose
    /// configuration does not list it waits for a leader that does.
    pub hard_state: HardState,
    /// The shape of the log.
    pub log: LogTerms,
    /// Up to where the state machine's checkpoint has applied the log.
    pub applied: Index,
    /// The node's loss epoch, when an unclean stop may have cost the tail of this log
    /// (docs/internals/storage.md#what-an-unclean-stop-leaves). Never for groups of synchronous
    /// durability.
    pub recovering: Option<Epoch>,
}

/// Why a core cannot be built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// The checkpoint is not within the log, which no order of writes allows.
    #[error(
        "the checkpoint is not within the log: restore the data directory from a good copy, group={group} applied={applied} first={first} last={last}"
    )]
    AppliedOutsideLog {
        /// The group.
        group: GroupId,
        /// Index of the checkpoint.
        applied: Index,
        /// First index of the log.
        first: Index,
        /// Last index of the log.
        last: Index,
    },
}

/// Why a proposal was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// This replica does not lead; ask again at the leader or wait for one.
    #[error("this node does not lead the group: retry at its leader, leader={leader:?}")]
    NotLeader {
        /// Who leads, where known.
        leader: Option<NodeId>,
    },
    /// Too much is proposed and not yet committed; try again after the next [`Effect::Commit`].
    #[error(
        "too many bytes await their commit: retry after the next commit, uncommitted_bytes={uncommitted_bytes}"
    )]
    WindowFull {
        /// Bytes proposed and not committed.
        uncommitted_bytes: u64,
    },
}

/// One step's time and effects.
pub(crate) struct Turn<'a> {
    pub(crate) now: Time,
    pub(crate) effects: &'a mut Vec<Effect>,
}

/// One replica of one group. See the crate's page for the order of calls.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Core {
    pub(crate) group: GroupId,
    pub(crate) creation: CreationId,
    pub(crate) node: NodeId,
    pub(crate) settings: Arc<Settings>,
    pub(crate) jitter: Jitter,
    /// The newest hard state, on its way to the disk or there.
    pub(crate) hard: HardState,
    pub(crate) durability: Durability,
    pub(crate) role: Role,
    /// Who leads the present term, where known.
    pub(crate) leader: Option<NodeId>,
    pub(crate) recovering: Option<Epoch>,
    pub(crate) grant: Option<HeldGrant>,
    pub(crate) log: LogTerms,
    pub(crate) commit: Index,
    /// Up to where the log equals the log of the present term's leader.
    pub(crate) verified: Index,
    /// Up to where the log survives a power loss.
    pub(crate) synced: Index,
    /// Peers whose process cannot be reached.
    pub(crate) down: Vec<NodeId>,
    pub(crate) quiesced: bool,
    pub(crate) election: Election,
    pub(crate) leading: Option<Box<Leading>>,
    pub(crate) receiving: Option<Box<Receiving>>,
    pub(crate) sending: Vec<Sending>,
    pub(crate) reads_issued: u64,
    /// Reads of the log for a syncing leader that fetches from here.
    pub(crate) fetch_read: Option<(u64, NodeId, LogPosition)>,
    /// The write that drops a log which does not count any more.
    pub(crate) resetting: Option<u64>,
}

impl Core {
    /// Builds the replica from what the store holds. It does nothing before [`Input::Started`].
    /// The seed drives its election delays.
    ///
    /// # Errors
    /// [`RestoreError`] when the store's content does not belong together.
    pub fn new(
        restored: Restored,
        settings: Arc<Settings>,
        seed: u64,
    ) -> Result<Self, RestoreError> {
        let Restored { group, creation, node, hard_state, log, applied, recovering } = restored;
        let (log, applied) =
            if hard_state.void { (LogTerms::default(), 0) } else { (log, applied) };
        let recovering =
            recovering.or_else(|| hard_state.void.then(|| void_epoch(hard_state.history)));
        let (first, last) = (log.first(), log.last().index);
        if applied > last || applied + 1 < first {
            return Err(RestoreError::AppliedOutsideLog { group, applied, first, last });
        }
        let mut core = Self {
            group,
            creation,
            node,
            settings,
            jitter: Jitter::new(seed),
            hard: hard_state,
            durability: Durability::restored(last),
            role: Role::Follower,
            leader: None,
            recovering,
            grant: None,
            log,
            commit: applied,
            verified: 0,
            synced: 0,
            down: Vec::new(),
            quiesced: false,
            election: Election::default(),
            leading: None,
            receiving: None,
            sending: Vec::new(),
            reads_issued: 0,
            fetch_read: None,
            resetting: None,
        };
        if broken!(core, W01LossUndetected) {
            core.recovering = None;
        }
        Ok(core)
    }

    /// The hard state of a group that is born with `node` as its only voter.
    #[must_use]
    pub fn sole_member(node: NodeId) -> HardState {
        HardState { config: ConfigRegister::of_voters([node]), ..HardState::default() }
    }

    /// Takes one input and adds what is to be done to `effects`, in order. What is in there
    /// already must be this core's, and not carried out yet: writes are joined with it.
    pub fn step(&mut self, now: Time, input: Input, effects: &mut Vec<Effect>) {
        if self.role == Role::Failed {
            return;
        }
        let turn = &mut Turn { now, effects };
        match input {
            Input::Started => self.on_started(turn),
            Input::Tick => self.on_tick(turn),
            Input::Message(message) => self.on_message(turn, message),
            Input::HardStateSynced { save } => self.on_hard_state_synced(turn, save),
            Input::Appended { write } => self.on_appended(turn, write),
            Input::Synced { upto } => self.on_synced(turn, upto),
            Input::LogRead { read, entries } => self.on_log_read(turn, read, entries),
            Input::Compacted { upto } => self.on_compacted(upto),
            Input::PeerDown { peer } => self.on_peer_down(turn, peer),
            Input::PeerUp { peer, restarted } => self.on_peer_up(turn, peer, restarted),
            Input::Read { read } => self.on_read(turn, read),
            Input::Stand { scout } => self.on_stand(turn, scout),
            Input::Reluctant { reluctant } => self.on_reluctant(turn, reluctant),
            Input::Transfer { to, force } => self.on_transfer(turn, to, force),
            Input::Cede => self.cede(turn, None),
            Input::ForceRecover { dead, expect_history, newest, number } => {
                self.on_force_recover(turn, dead, expect_history, &newest, number);
            }
            Input::Wake => self.on_wake_asked(turn),
            Input::Allowance { peer, bytes } => self.on_allowance(turn, peer, bytes),
            Input::SnapshotOpened { to, id } => self.on_snapshot_opened(turn, to, id),
            Input::SnapshotRead { to, id, cursor, data, next } => {
                self.on_snapshot_read(turn, to, id, cursor, data, next);
            }
            Input::SnapshotFailed { to } => self.on_snapshot_failed(turn, to),
            Input::SnapshotStaged { id, cursor } => self.on_snapshot_staged(turn, id, &cursor),
            Input::SnapshotInstalled { id } => self.on_snapshot_installed(turn, id),
            Input::SnapshotRefused { id } => self.on_snapshot_refused(id),
            Input::StorageFailed => self.stop(turn, StopReason::StorageFailed),
        }
    }

    /// Appends one entry and tells its index. It is acknowledged by a later [`Effect::Commit`] that
    /// reaches the index; when the leadership ends before, its outcome is unknown.
    ///
    /// # Errors
    /// [`ProposeError`]; nothing was appended.
    pub fn propose(
        &mut self,
        now: Time,
        kind: EntryKind,
        payload: Bytes,
        effects: &mut Vec<Effect>,
    ) -> Result<Index, ProposeError> {
        self.propose_all(now, [(kind, payload)], effects).map(|indexes| *indexes.start())
    }

    /// Appends several entries at once, which go to the followers in common messages. All of them
    /// are let in when the window has room for the first.
    ///
    /// # Errors
    /// [`ProposeError`]; nothing was appended.
    ///
    /// # Panics
    /// Never; an empty batch returns an empty range.
    pub fn propose_all(
        &mut self,
        now: Time,
        proposals: impl IntoIterator<Item = (EntryKind, Bytes)>,
        effects: &mut Vec<Effect>,
    ) -> Result<RangeInclusive<Index>, ProposeError> {
        let not_leader =
            ProposeError::NotLeader { leader: self.leader.filter(|l| *l != self.node) };
        let window = self.settings.proposal_window_bytes;
        let Some(leading) = self.leading.as_ref().filter(|_| self.role == Role::Ready) else {
            return Err(not_leader);
        };
        if let Some(transfer) = &leading.transfer {
            return Err(ProposeError::NotLeader { leader: Some(transfer.to) });
        }
        if leading.uncommitted_bytes >= window {
            return Err(ProposeError::WindowFull { uncommitted_bytes: leading.uncommitted_bytes });
        }
        let turn = &mut Turn { now, effects };
        let first = self.log.last().index + 1;
        self.lead_append(turn, proposals);
        self.pump_all(turn);
        Ok(first..=self.log.last().index)
    }

    /// When [`Input::Tick`] is due next. None: not before another input. May change with every
    /// call.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Time> {
        if self.role == Role::Failed {
            return None;
        }
        let leading = self.leading.as_ref().and_then(|leading| leading.next_deadline());
        let snapshots = self.next_snapshot_retry();
        [self.election.deadline, leading, snapshots].into_iter().flatten().min()
    }

    fn on_message(&mut self, turn: &mut Turn<'_>, message: Message) {
        if message.group != self.group
            || message.creation != self.creation
            || message.to != self.node
            || message.from == self.node
        {
            return;
        }
        let Message { from, term, body, .. } = message;
        match body {
            Body::Scout { next, config, last, cession } => {
                self.on_scout(turn, from, next, config, last, cession);
            }
            Body::ScoutReply { next, granted, last, recovering, leader, ceded, newer } => {
                let newer = newer.as_deref();
                if self.learn_config(turn, newer) {
                    return;
                }
                let answer =
                    crate::election::ScoutAnswer { granted, last, recovering, leader, ceded };
                self.on_scout_reply(turn, from, term, next, &answer);
            }
            Body::Propose { config, cession } => self.on_propose(turn, from, term, config, cession),
            Body::SyncRequest { config } => self.on_sync_request(turn, from, term, config),
            Body::Reply(answer) => self.on_reply(turn, from, term, answer),
            Body::Refused { newer } => self.on_refused(turn, term, newer.as_deref()),
            Body::Fetch { prev, upto, max_bytes } => {
                self.on_fetch(turn, from, term, prev, upto, max_bytes);
            }
            Body::FetchReply { prev, outcome } => {
                self.on_fetch_reply(turn, from, term, prev, outcome);
            }
            Body::Append { prev, entries, commit, history, config, newer, rejoin } => {
                if !self.follow(turn, from, term, config, newer.as_deref()) {
                    return;
                }
                self.on_append(turn, from, prev, entries, commit, history, rejoin);
            }
            Body::Ack { outcome, synced, config, recovering } => {
                let ack = crate::replication::Ack { outcome, synced, config, recovering };
                self.on_ack(turn, from, term, &ack);
            }
            Body::RejoinGrant(target) => self.on_rejoin_grant(turn, from, term, target),
            Body::Confirm { round } => self.on_confirm(turn, from, term, round),
            Body::Confirmed { round } => self.on_confirmed(turn, from, term, round),
            Body::Cede { successor } => self.on_cede(turn, from, term, successor),
            Body::Quiesce { last, lagging: _ } => self.on_quiesce(turn, from, term, last),
            Body::Quiesced { last } => self.on_quiesced(turn, from, term, last),
            Body::Wake => self.on_wake(turn, from, term),
            Body::SnapshotOffer { id, history, config, newer } => {
                let newer = newer.as_deref();
                self.on_snapshot_offer(turn, from, term, id, history, config, newer);
            }
            Body::SnapshotWanted { id, cursor } => {
                self.on_snapshot_wanted(turn, from, term, id, cursor);
            }
            Body::SnapshotChunk { id, cursor, data, crc, next } => {
                let piece = crate::snapshot::Piece { cursor, data, crc, next };
                self.on_snapshot_chunk(turn, from, term, id, piece);
            }
        }
    }

    fn on_tick(&mut self, turn: &mut Turn<'_>) {
        if self.election.deadline.is_some_and(|deadline| deadline <= turn.now) {
            self.election.deadline = None;
            self.on_election_deadline(turn);
        }
        if self.leading.is_some() {
            self.on_leader_tick(turn);
        }
        if !self.sending.is_empty() {
            self.on_snapshot_tick(turn);
        }
    }

    /// A save of the hard state reached the disk: what waited for it goes on.
    pub(crate) fn after_hard_state(&mut self, turn: &mut Turn<'_>) {
        match self.role {
            Role::Candidate => self.count_votes(turn),
            Role::Syncing => self.go_on_syncing(turn),
            Role::Ready => self.after_config_saved(turn),
            Role::Follower | Role::Scout | Role::Failed => {}
        }
    }

    /// A write of the log returned.
    pub(crate) fn after_write(&mut self, turn: &mut Turn<'_>) {
        match self.role {
            Role::Ready => {
                self.advance_commit(turn);
                self.go_on_changing(turn);
            }
            Role::Syncing if self.hard.void => self.go_on_syncing(turn),
            _ if self.hard.void => self.try_rejoin(turn),
            _ => {}
        }
    }

    fn on_synced(&mut self, turn: &mut Turn<'_>, upto: Index) {
        let upto = upto.min(self.durability.written_for_good()).min(self.log.last().index);
        if upto <= self.synced {
            return;
        }
        self.synced = upto;
        // The leader hears of it with the next acknowledgement; when none will come, by one more.
        if let Some(leader) = self.leader.filter(|leader| *leader != self.node)
            && self.role == Role::Follower
            && !self.quiesced
            && upto == self.verified
        {
            self.send_ack(turn, leader, Ok(self.verified));
        }
    }

    /// Nothing more is done here, for good.
    pub(crate) fn stop(&mut self, turn: &mut Turn<'_>, reason: StopReason) {
        if self.leading.is_some() {
            self.announce_cession(turn, None);
            self.refuse_reads(turn);
        }
        self.leading = None;
        self.sending.clear();
        self.receiving = None;
        self.election.deadline = None;
        self.set_role(turn, Role::Failed, None);
        turn.effects.push(Effect::Stop { reason });
    }

    pub(crate) fn set_role(&mut self, turn: &mut Turn<'_>, role: Role, leader: Option<NodeId>) {
        if self.role != role || self.leader != leader {
            self.role = role;
            self.leader = leader;
            self.close_snapshots_of_the_past(turn);
            turn.effects.push(Effect::RoleChanged { role, term: self.hard.term, leader });
        }
    }

    pub(crate) fn raise_commit(&mut self, turn: &mut Turn<'_>, upto: Index) {
        if upto > self.commit {
            self.commit = upto;
            turn.effects.push(Effect::Commit { upto });
        }
    }

    /// True unless the host said that this node cannot be reached.
    #[must_use]
    pub fn is_up(&self, node: NodeId) -> bool {
        !self.down.contains(&node)
    }
}

/// What a replica tells of itself.
impl Core {
    /// The group.
    #[must_use]
    pub fn group(&self) -> GroupId {
        self.group
    }

    /// Which making of the group.
    #[must_use]
    pub fn creation(&self) -> CreationId {
        self.creation
    }

    /// This node.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// The present role.
    #[must_use]
    pub fn role(&self) -> Role {
        self.role
    }

    /// The present term.
    #[must_use]
    pub fn term(&self) -> Term {
        self.hard.term
    }

    /// The present history number.
    #[must_use]
    pub fn history(&self) -> History {
        self.hard.history
    }

    /// The newest hard state; it may still be on its way to the disk.
    #[must_use]
    pub fn hard_state(&self) -> &HardState {
        &self.hard
    }

    /// True when the newest hard state is known to be fsynced.
    #[must_use]
    pub fn is_hard_state_synced(&self) -> bool {
        self.durability.is_hard_state_synced()
    }

    /// The members as this replica knows them.
    #[must_use]
    pub fn config(&self) -> &ConfigRegister {
        &self.hard.config
    }

    /// Who leads, where known. The replica itself from its election on.
    #[must_use]
    pub fn leader(&self) -> Option<NodeId> {
        self.leader
    }

    /// True when this replica leads and its barrier is committed: it acknowledges and answers
    /// reads.
    #[must_use]
    pub fn is_serving(&self) -> bool {
        self.leading.as_ref().is_some_and(|leading| leading.serving)
    }

    /// True while this replica tries to become the leader.
    #[must_use]
    pub fn is_electing(&self) -> bool {
        matches!(self.role, Role::Scout | Role::Candidate | Role::Syncing)
    }

    /// The loss that this replica still has to make good.
    #[must_use]
    pub fn recovering(&self) -> Option<Epoch> {
        self.recovering
    }

    /// True when the group does nothing and needs no timer.
    #[must_use]
    pub fn is_quiesced(&self) -> bool {
        self.quiesced
    }

    /// Last decided entry.
    #[must_use]
    pub fn commit_index(&self) -> Index {
        self.commit
    }

    /// Up to where the log is known to equal the log of the present term's leader.
    #[must_use]
    pub fn verified_index(&self) -> Index {
        if self.role == Role::Ready { self.log.last().index } else { self.verified }
    }

    /// Up to where the log survives a power loss.
    #[must_use]
    pub fn synced_index(&self) -> Index {
        self.synced
    }

    /// Up to where a quorum has the decided log on its disks; what lies between this and the commit
    /// index is safe by the protocol, not yet by the disks. Known to the leader only.
    #[must_use]
    pub fn synced_quorum(&self) -> Option<Index> {
        let leading = self.leading.as_ref().filter(|_| self.role == Role::Ready)?;
        let quorum = self.hard.config.quorum_index(|node| {
            if node == self.node {
                self.synced
            } else {
                leading.progress(node).map_or(0, |peer| peer.synced)
            }
        });
        Some(quorum.min(self.commit))
    }

    /// Last entry of the log, written or on its way.
    #[must_use]
    pub fn last(&self) -> LogPosition {
        self.log.last()
    }

    /// The shape of the log.
    #[must_use]
    pub fn log(&self) -> &LogTerms {
        &self.log
    }

    /// Payload bytes proposed here and not committed.
    #[must_use]
    pub fn uncommitted_bytes(&self) -> u64 {
        self.leading.as_ref().map_or(0, |leading| leading.uncommitted_bytes)
    }

    /// Payload bytes that a leader keeps in memory for its followers.
    #[must_use]
    pub fn cached_bytes(&self) -> u64 {
        self.leading.as_ref().map_or(0, |leading| leading.cache.bytes())
    }

    /// The members as the leader sees them, ascending; empty elsewhere.
    #[must_use]
    pub fn progress(&self) -> &[Progress] {
        self.leading.as_ref().map_or(&[], |leading| &leading.progress)
    }

    /// True while this leader waits for its successor to catch up, or for the transfer to fail.
    #[must_use]
    pub fn is_transferring(&self) -> bool {
        self.leading.as_ref().is_some_and(|leading| leading.transfer.is_some())
    }

    /// First index that a leader's barrier had in this term; commits are counted from there.
    #[must_use]
    pub fn barrier(&self) -> Option<Index> {
        self.leading.as_ref().filter(|_| self.role == Role::Ready).map(|leading| leading.barrier)
    }
}
