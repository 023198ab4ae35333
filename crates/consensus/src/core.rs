//! The state of one group's replica, as a pure function of its inputs.

use bytes::Bytes;

use crate::{
    ConfigRegister, Effect, Entry, EntryKind, GroupId, HardState, History, Index, Input,
    LogPosition, NodeId, Term,
};

/// What a replica is doing in its group (design, section 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Not leading.
    Follower,
    /// Asking for votes; the own vote is being made durable.
    Candidate,
    /// Elected; the barrier that ends the sync phase is not committed yet. Proposals are taken,
    /// nothing is served.
    Syncing,
    /// Leader that serves.
    Ready,
    /// The store failed; this replica does nothing any more.
    Failed,
}

/// What the store knows of a replica when the process starts.
#[derive(Clone, Debug)]
pub struct Restored {
    /// The group.
    pub group: GroupId,
    /// This node.
    pub node: NodeId,
    /// The fsynced hard state; its configuration names the voters.
    pub hard_state: HardState,
    /// The last entry in the log.
    pub last: LogPosition,
    /// Up to where the state machine's checkpoint has applied the log.
    pub applied: Index,
    /// True when an unclean stop may have cost the tail of the log (design, section 2).
    pub recovering: bool,
}

/// Why a core cannot be built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// The configuration does not list this node.
    #[error(
        "this node is not a voter of the group: start it with the data directory that belongs to it, node={node} group={group}"
    )]
    NotAMember {
        /// The group.
        group: GroupId,
        /// This node.
        node: NodeId,
    },
    /// More than one voter, which this version cannot replicate to.
    #[error(
        "groups of more than one voter are not served by this version, group={group} voters={voters}"
    )]
    SeveralVoters {
        /// The group.
        group: GroupId,
        /// How many voters the configuration lists.
        voters: usize,
    },
    /// The checkpoint is ahead of the log, which no order of writes allows.
    #[error(
        "the checkpoint is ahead of the log: restore the data directory from a good copy, group={group} applied={applied} last={last}"
    )]
    AppliedBeyondLog {
        /// The group.
        group: GroupId,
        /// Index of the checkpoint.
        applied: Index,
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
        uncommitted_bytes: usize,
    },
}

/// One replica of one group. See the crate's page for the order of calls.
#[derive(Debug)]
pub struct Core {
    group: GroupId,
    node: NodeId,
    hard: HardState,
    role: Role,
    recovering: bool,
    /// Last entry handed to the log writer.
    last: LogPosition,
    /// Last entry that the log writer reported as written; never above `last`.
    written: Index,
    commit: Index,
    /// First entry of the own term: commit counting starts there (rule 7.3).
    barrier: Index,
    /// Payload sizes of entries between `commit` and `last`, oldest first.
    uncommitted: std::collections::VecDeque<usize>,
    uncommitted_bytes: usize,
    max_uncommitted_bytes: usize,
}

impl Core {
    /// Bytes that may be proposed and not committed before [`ProposeError::WindowFull`].
    pub const DEFAULT_WINDOW_BYTES: usize = 32 << 20;

    /// Builds the replica from what the store holds. It does nothing before [`Input::Started`].
    ///
    /// # Errors
    /// [`RestoreError`] when the store's content does not belong together.
    pub fn new(restored: Restored) -> Result<Self, RestoreError> {
        let Restored { group, node, hard_state, last, applied, recovering } = restored;
        let voters = &hard_state.config.voters;
        if !voters.contains(&node) {
            return Err(RestoreError::NotAMember { group, node });
        }
        if voters.len() > 1 {
            return Err(RestoreError::SeveralVoters { group, voters: voters.len() });
        }
        if applied > last.index {
            return Err(RestoreError::AppliedBeyondLog { group, applied, last: last.index });
        }
        Ok(Self {
            group,
            node,
            hard: hard_state,
            role: Role::Follower,
            recovering,
            last,
            written: last.index,
            commit: applied,
            barrier: Index::MAX,
            uncommitted: std::collections::VecDeque::new(),
            uncommitted_bytes: 0,
            max_uncommitted_bytes: Self::DEFAULT_WINDOW_BYTES,
        })
    }

    /// The hard state of a group that is born with `node` as its only voter.
    #[must_use]
    pub fn sole_member(node: NodeId) -> HardState {
        HardState {
            config: ConfigRegister { voters: vec![node], ..ConfigRegister::default() },
            ..HardState::default()
        }
    }

    /// Bounds the bytes that may be proposed and not committed. A single proposal is always let in
    /// when nothing waits.
    pub fn set_window_bytes(&mut self, bytes: usize) {
        self.max_uncommitted_bytes = bytes;
    }

    /// Takes one input and adds what is to be done to `effects`, in order.
    pub fn step(&mut self, input: Input, effects: &mut Vec<Effect>) {
        match input {
            Input::Started => self.campaign(effects),
            Input::HardStateSynced { term } => self.on_hard_state_synced(term, effects),
            Input::Appended { upto } => self.on_appended(upto, effects),
            Input::StorageFailed => self.change_role(Role::Failed, effects),
        }
    }

    /// Appends one entry with these commands and tells its index. It is acknowledged by a later
    /// [`Effect::Commit`] that reaches the index, or never, when the leadership or the store is
    /// lost before.
    ///
    /// # Errors
    /// [`ProposeError`]; nothing was appended.
    pub fn propose(
        &mut self,
        payload: Bytes,
        effects: &mut Vec<Effect>,
    ) -> Result<Index, ProposeError> {
        if !matches!(self.role, Role::Syncing | Role::Ready) {
            return Err(ProposeError::NotLeader { leader: None });
        }
        let full =
            self.uncommitted_bytes.saturating_add(payload.len()) > self.max_uncommitted_bytes;
        if full && self.uncommitted_bytes > 0 {
            return Err(ProposeError::WindowFull { uncommitted_bytes: self.uncommitted_bytes });
        }
        Ok(self.append(EntryKind::Commands, payload, effects))
    }

    /// The group.
    #[must_use]
    pub fn group(&self) -> GroupId {
        self.group
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

    /// Who leads, where known.
    #[must_use]
    pub fn leader(&self) -> Option<NodeId> {
        matches!(self.role, Role::Syncing | Role::Ready).then_some(self.node)
    }

    /// Last decided entry.
    #[must_use]
    pub fn commit_index(&self) -> Index {
        self.commit
    }

    /// Last entry of the log, written or on its way to the writer.
    #[must_use]
    pub fn last(&self) -> LogPosition {
        self.last
    }

    /// Payload bytes proposed and not committed.
    #[must_use]
    pub fn uncommitted_bytes(&self) -> usize {
        self.uncommitted_bytes
    }

    /// A group of one needs no scouting: nobody else could refuse. Its own durable vote elects it.
    fn campaign(&mut self, effects: &mut Vec<Effect>) {
        self.hard.term += 1;
        self.hard.voted_for = Some(self.node);
        if self.recovering {
            // Policy AllReported: every voter, namely this one, has told what it still has. Waiting
            // reveals nothing more.
            self.hard.history += 1;
            effects.push(Effect::HistoryForked { history: self.hard.history, last: self.last });
        }
        self.hard.config.stamp.term = self.hard.term;
        self.change_role(Role::Candidate, effects);
        effects.push(Effect::SyncHardState(self.hard.clone()));
    }

    fn on_hard_state_synced(&mut self, term: Term, effects: &mut Vec<Effect>) {
        if self.role != Role::Candidate || term != self.hard.term {
            return;
        }
        // The own log is the best of all answers, so there is nothing to fetch: straight to the
        // barrier.
        self.recovering = false;
        self.barrier = self.last.index + 1;
        self.change_role(Role::Syncing, effects);
        self.append(EntryKind::Barrier, Bytes::new(), effects);
    }

    fn on_appended(&mut self, upto: LogPosition, effects: &mut Vec<Effect>) {
        // A report of an earlier term says nothing about this one's entries (W12); one beyond the
        // log is nonsense.
        if upto.term != self.hard.term || upto.index > self.last.index || self.role == Role::Failed
        {
            return;
        }
        self.written = self.written.max(upto.index);
        // Rule 7.3: only entries of the own term are counted, older ones commit by implication.
        if self.written < self.barrier || self.written <= self.commit {
            return;
        }
        let first_uncounted = self.commit.max(self.barrier - 1);
        for _ in first_uncounted..self.written {
            self.uncommitted_bytes -= self.uncommitted.pop_front().unwrap_or(0);
        }
        self.commit = self.written;
        effects.push(Effect::Commit { upto: self.commit });
        if self.role == Role::Syncing {
            self.change_role(Role::Ready, effects);
        }
    }

    fn append(&mut self, kind: EntryKind, payload: Bytes, effects: &mut Vec<Effect>) -> Index {
        let index = self.last.index + 1;
        self.last = LogPosition { term: self.hard.term, index };
        self.uncommitted.push_back(payload.len());
        self.uncommitted_bytes += payload.len();
        let entry =
            Entry { index, term: self.hard.term, history: self.hard.history, kind, payload };
        match effects.last_mut() {
            Some(Effect::Append(entries)) => entries.push(entry),
            _ => effects.push(Effect::Append(vec![entry])),
        }
        index
    }

    fn change_role(&mut self, role: Role, effects: &mut Vec<Effect>) {
        if self.role != role {
            self.role = role;
            effects.push(Effect::RoleChanged { role, term: self.hard.term });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn restored(last: LogPosition, applied: Index, recovering: bool) -> Restored {
        Restored {
            group: GroupId(3),
            node: NodeId(1),
            hard_state: HardState { term: last.term, ..Core::sole_member(NodeId(1)) },
            last,
            applied,
            recovering,
        }
    }

    /// Answers every effect at once, as a store without delay would, and returns what was
    /// committed.
    fn drive(core: &mut Core, mut effects: Vec<Effect>) -> Vec<Index> {
        let mut commits = Vec::new();
        while !effects.is_empty() {
            let mut next = Vec::new();
            for effect in effects {
                match effect {
                    Effect::SyncHardState(hard) => {
                        core.step(Input::HardStateSynced { term: hard.term }, &mut next);
                    }
                    Effect::Append(entries) => {
                        let last = entries.last().expect("appends are not empty");
                        let upto = LogPosition { term: last.term, index: last.index };
                        core.step(Input::Appended { upto }, &mut next);
                    }
                    Effect::Commit { upto } => commits.push(upto),
                    Effect::RoleChanged { .. } | Effect::HistoryForked { .. } => {}
                }
            }
            effects = next;
        }
        commits
    }

    fn start(core: &mut Core) -> Vec<Index> {
        let mut effects = Vec::new();
        core.step(Input::Started, &mut effects);
        drive(core, effects)
    }

    #[test]
    fn a_new_group_leads_after_its_vote_is_durable_and_its_barrier_written() {
        let mut core = Core::new(restored(LogPosition::default(), 0, false)).expect("valid");
        let mut effects = Vec::new();
        core.step(Input::Started, &mut effects);
        assert_eq!(core.role(), Role::Candidate);
        assert!(matches!(
            core.propose(Bytes::new(), &mut Vec::new()),
            Err(ProposeError::NotLeader { .. })
        ));
        assert_eq!(drive(&mut core, effects), vec![1]);
        assert_eq!((core.role(), core.term(), core.commit_index()), (Role::Ready, 1, 1));
    }

    #[test]
    fn the_log_behind_the_checkpoint_commits_with_the_barrier() {
        let last = LogPosition { term: 4, index: 90 };
        let mut core = Core::new(restored(last, 70, false)).expect("valid");
        assert_eq!(start(&mut core), vec![91]);
        assert_eq!(core.term(), 5);
        assert_eq!(core.uncommitted_bytes(), 0);
    }

    #[test]
    fn nothing_commits_before_it_is_written_or_by_a_report_of_an_older_term() {
        let mut core =
            Core::new(restored(LogPosition { term: 1, index: 5 }, 5, false)).expect("valid");
        start(&mut core);
        let mut effects = Vec::new();
        let index = core.propose(Bytes::from_static(b"x"), &mut effects).expect("leads");
        effects.clear();
        core.step(Input::Appended { upto: LogPosition { term: 1, index } }, &mut effects);
        core.step(
            Input::Appended { upto: LogPosition { term: 2, index: index + 1 } },
            &mut effects,
        );
        assert_eq!(effects, vec![]);
        core.step(Input::Appended { upto: LogPosition { term: 2, index } }, &mut effects);
        assert_eq!(effects, vec![Effect::Commit { upto: index }]);
    }

    #[test]
    fn a_lost_tail_is_told_and_changes_the_history() {
        let last = LogPosition { term: 2, index: 9 };
        let mut core = Core::new(restored(last, 9, true)).expect("valid");
        let mut effects = Vec::new();
        core.step(Input::Started, &mut effects);
        assert!(effects.contains(&Effect::HistoryForked { history: 1, last }));
        assert_eq!(core.history(), 1);
    }

    #[test]
    fn the_window_bounds_what_awaits_its_commit_but_lets_one_big_entry_in() {
        let mut core = Core::new(restored(LogPosition::default(), 0, false)).expect("valid");
        start(&mut core);
        core.set_window_bytes(10);
        let mut effects = Vec::new();
        core.propose(Bytes::from(vec![0; 50]), &mut effects).expect("nothing waits");
        assert_eq!(
            core.propose(Bytes::from(vec![0; 1]), &mut effects),
            Err(ProposeError::WindowFull { uncommitted_bytes: 50 })
        );
        drive(&mut core, effects);
        assert_eq!(core.uncommitted_bytes(), 0);
        core.propose(Bytes::from(vec![0; 1]), &mut Vec::new()).expect("there is room again");
    }

    #[test]
    fn a_failed_store_ends_the_leadership() {
        let mut core = Core::new(restored(LogPosition::default(), 0, false)).expect("valid");
        start(&mut core);
        core.step(Input::StorageFailed, &mut Vec::new());
        assert_eq!(core.role(), Role::Failed);
        assert!(core.propose(Bytes::new(), &mut Vec::new()).is_err());
    }

    #[test]
    fn what_does_not_belong_together_is_refused() {
        let none = LogPosition::default();
        let mut other = restored(none, 0, false);
        other.node = NodeId(2);
        assert!(matches!(Core::new(other), Err(RestoreError::NotAMember { .. })));
        let mut several = restored(none, 0, false);
        several.hard_state.config.voters.push(NodeId(2));
        assert!(matches!(Core::new(several), Err(RestoreError::SeveralVoters { voters: 2, .. })));
        assert!(matches!(
            Core::new(restored(none, 7, false)),
            Err(RestoreError::AppliedBeyondLog { applied: 7, .. })
        ));
    }
}
