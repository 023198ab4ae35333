//! The machine as its shard calls it, turn by turn.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use flintmq_consensus::{EntryKind, Index, NodeId, Term, Time};
use flintmq_shard::{
    CheckpointBatch, Committed, Group, Machine, MachineFailure, QueueRecord, ReadError,
};

use super::ControllerMachine;
use super::role::Role;
use crate::command::UnreadableRecord;
use crate::message::ControllerMessage;
use crate::metadata::MetadataState;
use crate::request::{CatchUpError, ChangeError, Effect, Request};

/// Applied entries after which a checkpoint is due, so that a restart replays few.
const CHECKPOINT_EVERY: usize = 256;

/// Most entries that one checkpoint gives up.
const MAX_RELEASED: Index = 65_536;

/// After which time something that was handed to a leader and not heard of is sent again. Nothing
/// gets lost on a connection that stays up, so this is only for what has no other end.
const RESEND: Duration = Duration::from_secs(2);

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
        self.catch_ups.resend_older_than(then);
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
        let (node, applied) = (group.node(), group.applied());
        let mut state = MetadataState::restore(records).map_err(failure)?;
        state.set_applied(applied);
        // The state of another node says nothing of this one's log, which begins behind it.
        if self.has_state || state.released(node).is_none_or(|index| index > applied.index) {
            state.set_released(node, applied.index);
        }
        self.state = state;
        self.has_state = true;
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

    fn apply(&mut self, group: &mut dyn Group, entry: &Committed) -> Result<(), MachineFailure> {
        if !std::mem::replace(&mut self.has_state, true) {
            // A new group: the log begins here.
            self.state.set_released(group.node(), entry.position.index.saturating_sub(1));
        }
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
