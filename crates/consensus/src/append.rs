//! The follower's side of replication (docs/internals/consensus.md#replication).

use crate::core::{Core, Turn};
use crate::durability::After;
use crate::mutants::broken;
use crate::{Body, Entry, History, Index, LogPosition, NodeId, RejoinTarget, StopReason, Term};

/// True when the entries come one after the other behind `prev`, with terms that do not fall and
/// are not beyond the sender's. Anything else is no message of a leader.
pub(crate) fn follow_each_other(prev: LogPosition, entries: &[Entry], term: Term) -> bool {
    let mut before = prev;
    entries.iter().all(|entry| {
        let follows = before.index.checked_add(1) == Some(entry.index)
            && entry.term >= before.term
            && entry.term <= term;
        before = entry.position();
        follows
    })
}

impl Core {
    #[allow(clippy::too_many_arguments)] // the fields of one message
    pub(crate) fn on_append(
        &mut self,
        turn: &mut Turn<'_>,
        from: NodeId,
        prev: LogPosition,
        entries: Vec<Entry>,
        commit: Index,
        history: History,
        rejoin: Option<RejoinTarget>,
    ) {
        if self.is_replacing_log() || !follow_each_other(prev, &entries, self.hard.term) {
            return;
        }
        self.break_w08(turn);
        // It speaks as a leader that serves: no snapshot for its sync phase is wanted any more.
        if !self.sending.is_empty() {
            self.stop_sending_snapshot(turn, from);
        }
        if !entries.is_empty() {
            self.quiesced = false;
        }
        let later = history > self.hard.history;
        let outcome = match self.take_entries(turn, prev, &entries, later) {
            // A forced recovery without this replica: its past is not the group's any more.
            Err(_) if later => {
                self.reset(turn, history);
                Ok(Err(LogPosition::default()))
            }
            outcome => outcome,
        };
        match outcome {
            Err(reason) => {
                self.stop(turn, reason);
                return;
            }
            Ok(Ok(verified)) => {
                self.verified = self.verified.max(verified);
                if later && self.verified >= self.commit {
                    self.hard.history = history;
                    self.save(turn);
                }
                self.raise_commit(turn, commit.min(self.verified));
            }
            Ok(Err(_)) => {}
        }
        if let Some(target) = rejoin {
            self.on_rejoin_grant(turn, from, self.hard.term, target);
        }
        self.try_rejoin(turn);
        if let Ok(outcome) = outcome {
            self.send_ack(turn, from, outcome);
        }
    }

    /// Up to where the log now equals the leader's, or where the leader should look next. Fails
    /// when the leader contradicts what is decided here; `later`: which it may, being of a later
    /// history.
    fn take_entries(
        &mut self,
        turn: &mut Turn<'_>,
        prev: LogPosition,
        entries: &[Entry],
        later: bool,
    ) -> Result<Result<Index, LogPosition>, StopReason> {
        let floor = self.log.floor().index;
        // What is at or below the floor is decided, so it is the same in a leader's log of the
        // same history.
        let known = if prev.index < floor { !later } else { self.log.contains(prev) };
        if known {
            return self.merge(turn, prev, entries).map(Ok);
        }
        if prev.index <= self.commit {
            return Err(self.contradicted(prev.index));
        }
        // Nothing at or below the commit index can differ.
        let hint = self.log.greatest_at_most(prev.index, prev.term);
        Ok(Err(self.log.position_at(self.commit).map_or(hint, |decided| hint.max(decided))))
    }

    pub(crate) fn contradicted(&self, index: Index) -> StopReason {
        StopReason::DecidedEntryContradicted { index, leader_term: self.hard.term }
    }

    /// The append rule: what is there already stays, the log is cut only where it differs.
    pub(crate) fn merge(
        &mut self,
        turn: &mut Turn<'_>,
        prev: LogPosition,
        entries: &[Entry],
    ) -> Result<Index, StopReason> {
        let upto = entries.last().map_or(prev.index, |last| last.index);
        let floor = self.log.floor().index;
        let new = entries
            .iter()
            .position(|entry| entry.index > floor && !self.log.contains(entry.position()));
        if let Some(first) = new {
            let index = entries[first].index;
            let truncate_from = (index <= self.log.last().index).then_some(index);
            if truncate_from.is_some() && index <= self.commit {
                return Err(self.contradicted(index));
            }
            self.write(turn, truncate_from, entries[first..].to_vec());
        }
        Ok(upto)
    }

    /// Answers the leader, once what is acknowledged is written.
    pub(crate) fn send_ack(
        &mut self,
        turn: &mut Turn<'_>,
        to: NodeId,
        outcome: Result<Index, LogPosition>,
    ) {
        let outcome = if broken!(self, W11AckUnverified) {
            outcome.map(|_| self.log.last().index)
        } else {
            outcome
        };
        let ack = Body::Ack {
            outcome,
            // What lies behind may not be the leader's.
            synced: self.synced.min(self.verified),
            config: self.hard.config.stamp,
            recovering: self.recovering,
        };
        self.send(turn, to, ack, After::Writes);
    }
}
