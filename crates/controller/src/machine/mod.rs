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
mod turn;
mod work;

use flintmq_consensus::{Index, NodeId, Time};

use crate::command::ChangeId;
use crate::metadata::{AppliedChange, Metadata, MetadataState, Seen};
use crate::planning::PlanningSettings;
use crate::request::{CatchUpError, ChangeError, Counters, Effect};
use catch_up::CatchUps;
use changes::PendingChanges;
use outgoing::Outgoing;
use role::Role;

/// The machine of the controller's group.
///
/// Its collections are bounded: this node's changes by [`crate::metadata::CHANGE_WINDOW`] and 32
/// MiB, its requests to catch up by 16,384, the changes of other nodes that wait to be proposed by
/// 4,096 and 64 MiB, answers to other nodes by one question and one window of each.
pub struct ControllerMachine {
    state: MetadataState,
    /// It was given the stored state, or an entry.
    has_state: bool,
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
    /// The machine of `node`, whose present process has this number. A later process of a node has
    /// a greater number: changes of a smaller one are refused.
    ///
    /// The group gives it the stored state, see [`flintmq_shard::Machine::restore`].
    pub fn new(node: NodeId, process: u64) -> Self {
        Self {
            state: MetadataState::default(),
            has_state: false,
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
