//! The controller as a machine of its group: it proposes or forwards changes, applies what is
//! committed, and answers when the outcome is known here.
//!
//! A change has a name, [`ChangeId`], that travels with it through messages and the log. So a node
//! finds the outcome of its own changes in its own log, whoever led when they were committed: no
//! leader has to remember who waits for which entry, and nothing is matched by an index. A change
//! may be sent and proposed as often as needed; it is applied once.

mod catch_up;
mod changes;
mod outgoing;
mod role;
#[cfg(test)]
mod tests;
mod work;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use flintmq_consensus::{EntryKind, Index, LogPosition, NodeId, Term, Time};
use flintmq_shard::{
    CheckpointBatch, Committed, Group, Machine, MachineFailure, QueueRecord, ReadError,
};

use crate::command::{ChangeId, UnreadableRecord};
use crate::message::ControllerMessage;
use crate::metadata::{AppliedChange, Metadata, MetadataState, Seen};
use crate::planning::PlanningSettings;
use crate::request::{CatchUpError, ChangeError, Counters, Effect, Request};
use catch_up::CatchUps;
use changes::PendingChanges;
use outgoing::Outgoing;
use role::Role;

/// Applied entries after which a checkpoint is due, so that a restart replays few.
const CHECKPOINT_EVERY: usize = 256;

/// Most entries that one checkpoint gives up.
const MAX_RELEASED: Index = 65_536;

/// After which time something that was handed to a leader and not heard of is sent again. Nothing
/// gets lost on a connection that stays up, so this is only for what has no other end.
const RESEND: Duration = Duration::from_secs(2);

/// The machine of the controller's group.
///
/// Its collections are bounded: this node's changes by [`crate::metadata::CHANGE_WINDOW`] and 32
/// MiB, its requests to catch up by 16,384, the changes of other nodes that wait to be proposed by
/// 4,096 and 64 MiB, answers to other nodes by one question and one window of each.
pub struct ControllerMachine {
    state: MetadataState,
    role: Role,
    changes: PendingChanges,
    catch_ups: CatchUps,
    outgoing: Outgoing,
    planning: Option<PlanningSettings>,
    /// Whether the plan is to be looked at.
    plan_due: bool,
    /// The number of the planned change that is under way.
    planned: Option<u64>,
    /// Nothing is sent or proposed again before; none: nothing is held back.
    retry_at: Option<Time>,
    /// Entries applied since the last checkpoint.
    since_checkpoint: usize,
    checkpoint_due: bool,
    /// The store had no room for a checkpoint: not before the next tick.
    checkpoint_held: bool,
    metadata_changed: bool,
    membership_changed: bool,
    answers: Vec<Effect>,
    counters: Counters,
}

impl ControllerMachine {
    /// The machine of `node`, whose present process has this number, with the state that its last
    /// checkpoint left, applied up to this entry. A later process of a node has a greater number:
    /// changes of a smaller one are refused.
    pub fn new(node: NodeId, process: u64, mut state: MetadataState, applied: LogPosition) -> Self {
        state.set_applied(applied);
        if state.released(node).is_none() {
            state.set_released(node, applied.index);
        }
        Self {
            state,
            role: Role::Leaderless,
            changes: PendingChanges::new(node, process),
            catch_ups: CatchUps::default(),
            outgoing: Outgoing::default(),
            planning: None,
            plan_due: false,
            planned: None,
            retry_at: None,
            since_checkpoint: 0,
            checkpoint_due: false,
            checkpoint_held: false,
            metadata_changed: false,
            membership_changed: false,
            answers: Vec::new(),
            counters: Counters::default(),
        }
    }

    /// The metadata as applied here.
    pub fn metadata(&self) -> &Metadata {
        self.state.metadata()
    }

    /// What it counted since the process started.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    fn answer_change(&mut self, ticket: u64, result: Result<(), ChangeError>) {
        self.answers.push(Effect::Changed { ticket, result });
    }

    fn answer_caught_up(&mut self, ticket: u64, result: Result<(), CatchUpError>) {
        self.answers.push(Effect::CaughtUp { ticket, result });
    }

    /// Ends the wait for a change of this node whose outcome is known.
    fn finish(&mut self, id: &ChangeId, outcome: Seen) {
        let result = match outcome {
            Seen::New => return,
            Seen::Applied(outcome) => outcome.map_err(ChangeError::Refused),
            Seen::Over => Err(ChangeError::Unknown),
        };
        if let Some(ticket) = self.changes.take(id) {
            self.answer_change(ticket, result);
        }
    }

    fn on_applied(&mut self, applied: Vec<AppliedChange>) {
        for AppliedChange { id, outcome, repeated } in applied {
            self.counters.repeated += u64::from(repeated);
            let Some(id) = id else { continue };
            if let Role::Leader(leader) = &mut self.role {
                leader.applied(&id);
            }
            self.finish(&id, outcome);
        }
    }

    fn note_applied(&mut self, index: Index) {
        for ticket in self.catch_ups.reached(index) {
            self.answer_caught_up(ticket, Ok(()));
        }
    }

    fn note_membership(&mut self, before: u64) {
        if self.state.metadata().membership().version() != before {
            self.membership_changed = true;
            self.plan_due = true;
            // After a restart this node has to find the others before anything more is committed.
            self.checkpoint_due = true;
        }
    }

    fn membership_version(&self) -> u64 {
        self.state.metadata().membership().version()
    }
}

impl Machine for ControllerMachine {
    type Request = Request;
    type Effect = Effect;

    fn on_request(&mut self, _: &mut dyn Group, request: Request) {
        match request {
            Request::Change { ticket, commands, deadline } => {
                if let Err(error) = self.changes.add(Some(ticket), commands, deadline) {
                    self.counters.busy += u64::from(error == ChangeError::Busy);
                    self.answer_change(ticket, Err(error));
                }
            }
            Request::CatchUp { ticket, deadline } => {
                if !self.catch_ups.add(ticket, deadline) {
                    self.counters.busy += 1;
                    self.answer_caught_up(ticket, Err(CatchUpError::Busy));
                }
            }
            Request::Plan(settings) => {
                self.planning = Some(settings);
                self.plan_due = true;
            }
        }
    }

    fn on_message(&mut self, group: &mut dyn Group, from: NodeId, message: Bytes) {
        match ControllerMessage::from_bytes(&message) {
            None => self.counters.unknown_messages += 1,
            Some(ControllerMessage::Forward { process, oldest, changes }) => {
                self.on_forwarded(from, process, oldest, changes);
            }
            Some(ControllerMessage::NotTaken { process, numbers }) => {
                self.on_not_taken(group.now(), process, &numbers);
            }
            Some(ControllerMessage::Read { process, number }) => {
                self.on_question(from, (process, number));
            }
            Some(ControllerMessage::ReadAt { process, number, index }) => {
                self.on_answer(group, (process, number), index);
            }
        }
    }

    fn on_peer(&mut self, _: &mut dyn Group, peer: NodeId, _up: bool) {
        // Whatever was under way to or from the node's former connection is gone.
        self.outgoing.forget(peer);
        self.plan_due = true;
        match &mut self.role {
            Role::Leader(leader) => leader.forget(peer),
            Role::Follower { leader, .. } if *leader == peer => self.start_over(),
            Role::Follower { .. } | Role::Leaderless => {}
        }
    }

    fn on_room(&mut self, _: &mut dyn Group, peer: NodeId) {
        self.outgoing.room(peer);
    }

    fn on_entry_read(&mut self, _: &mut dyn Group, _: Index, _: Result<Bytes, ReadError>) {
        // No entry is ever read again: the metadata have all of it.
    }

    fn on_read_index(&mut self, group: &mut dyn Group, read: u64, index: Option<Index>) {
        let Role::Leader(leader) = &mut self.role else { return };
        let Some(read) = leader.reads.remove(&read) else { return };
        for (node, question) in read.elsewhere {
            self.outgoing.read_at(node, question, index);
        }
        self.settle_read(group, read.here, index);
    }

    fn on_tick(&mut self, group: &mut dyn Group) {
        let then = before(group.now(), RESEND);
        self.changes.resend_older_than(then);
        self.catch_ups.withdraw_older_than(then);
        self.plan_due = true;
        self.checkpoint_held = false;
    }

    fn lose_leadership(&mut self, _: &mut dyn Group) {
        let Role::Leader(leader) = std::mem::replace(&mut self.role, Role::Leaderless) else {
            return;
        };
        if let Some(number) = self.planned.take() {
            self.changes.give_up(number);
        }
        self.end_leadership(*leader);
        self.start_over();
    }

    fn take_leadership(&mut self, _: &mut dyn Group) {
        self.role = Role::Leader(Box::default());
        self.start_over();
        self.plan_due = true;
    }

    fn restore(
        &mut self,
        group: &mut dyn Group,
        records: Vec<QueueRecord>,
    ) -> Result<(), MachineFailure> {
        let before = self.membership_version();
        let applied = group.applied();
        let mut state = MetadataState::restore(records).map_err(failure)?;
        state.set_applied(applied);
        // The other node's log is not this one's: here nothing lies below the new state.
        state.set_released(group.node(), applied.index);
        self.state = state;
        self.since_checkpoint = 0;
        self.metadata_changed = true;
        self.note_membership(before);
        for number in self.changes.numbers() {
            let id = self.changes.id(number);
            let seen = self.state.seen(&id);
            self.finish(&id, seen);
        }
        self.note_applied(applied.index);
        Ok(())
    }

    fn apply(&mut self, _: &mut dyn Group, entry: &Committed) -> Result<(), MachineFailure> {
        match entry.kind {
            EntryKind::Barrier => self.state.set_applied(entry.position),
            EntryKind::Commands => {
                let before = self.membership_version();
                // Written by this program and checked by the store: what cannot be read is of a
                // newer version.
                let applied = self.state.apply(entry.position, &entry.payload).map_err(failure)?;
                self.metadata_changed = true;
                self.note_membership(before);
                self.on_applied(applied);
            }
            EntryKind::Sequenced(_) => {
                return Err(MachineFailure(format!(
                    "the controller's log has an entry of a kind that this version does not know: \
                     run a newer version, index={}",
                    entry.position.index
                )));
            }
        }
        self.since_checkpoint += 1;
        self.checkpoint_due |= self.since_checkpoint >= CHECKPOINT_EVERY;
        self.note_applied(entry.position.index);
        Ok(())
    }

    fn work(&mut self, group: &mut dyn Group) -> bool {
        self.do_work(group);
        false
    }

    fn next_deadline(&self) -> Option<Time> {
        let deadlines =
            [self.changes.next_deadline(), self.catch_ups.next_deadline(), self.retry_at];
        deadlines.into_iter().flatten().min()
    }

    fn checkpoint(&mut self, group: &mut dyn Group) -> bool {
        if self.since_checkpoint == 0 {
            self.checkpoint_due = false;
            return true;
        }
        let (node, applied) = (group.node(), group.applied());
        let released = self.state.released(node).unwrap_or(applied.index);
        let limit = group.compaction_limit().min(applied.index);
        let limit = limit.min(released.saturating_add(MAX_RELEASED));
        let dead_entries = (released + 1..=limit).collect();
        self.state.set_released(node, limit.max(released));
        let (puts, deletes) = self.state.take_changes();
        let batch = CheckpointBatch { applied, puts, deletes, dead_entries };
        if let Err(batch) = group.checkpoint(batch) {
            self.state.set_released(node, released);
            self.state.put_back(&batch.puts, &batch.deletes);
            self.checkpoint_held = true;
            return false;
        }
        self.checkpoint_due = false;
        self.since_checkpoint = 0;
        true
    }

    fn is_settled(&self, group: &dyn Group) -> bool {
        if !group.is_quorum_in_reach() {
            return true;
        }
        match &self.role {
            Role::Leader(leader) => leader.is_settled() && self.changes.is_empty(),
            Role::Follower { .. } => self.changes.is_empty(),
            Role::Leaderless => true,
        }
    }

    fn leader_elsewhere(&self) -> Option<(NodeId, Term)> {
        match self.role {
            Role::Follower { leader, term } => Some((leader, term)),
            Role::Leader(_) | Role::Leaderless => None,
        }
    }

    fn take_effects(&mut self, effects: &mut Vec<Effect>) {
        if std::mem::take(&mut self.metadata_changed) {
            effects.push(Effect::MetadataChanged(self.state.metadata().clone()));
        }
        if std::mem::take(&mut self.membership_changed) {
            let membership = Arc::clone(self.state.metadata().membership());
            effects.push(Effect::MembershipChanged(membership));
        }
        effects.append(&mut self.answers);
    }
}

fn before(now: Time, time: Duration) -> Time {
    Time(now.0.saturating_sub(u64::try_from(time.as_micros()).unwrap_or(u64::MAX)))
}

fn failure(error: UnreadableRecord) -> MachineFailure {
    MachineFailure(error.to_string())
}
