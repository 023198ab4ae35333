//! What the core asks for, done at the store.

use flintmq_consensus::{Effect, Entry, Index, Input, Role};
use flintmq_storage::{AppendBatch, AppendKind, ReadError, Refused, RefusedReason};

use super::{Replica, ReplicaError};
use crate::metrics::ELECTIONS;

impl Replica {
    /// Does everything that the core has asked for, in order; new entries count as `kind`.
    pub(super) fn carry_out(&mut self, kind: AppendKind) -> Result<(), ReplicaError> {
        while !self.effects.is_empty() {
            let mut effects = std::mem::take(&mut self.effects);
            for effect in effects.drain(..) {
                self.carry_out_one(effect, kind)?;
            }
            // The room is used again, unless a step on the way has taken new.
            if self.effects.is_empty() {
                self.effects = effects;
            }
        }
        Ok(())
    }

    fn carry_out_one(&mut self, effect: Effect, kind: AppendKind) -> Result<(), ReplicaError> {
        match effect {
            Effect::SaveHardState { save, state } => {
                let saved = self.store.save_hard_state(self.group, save, state);
                saved.map_err(|refused| self.refused(refused.reason))?;
            }
            Effect::Append { write, truncate_from, entries } => {
                self.take_into_tail(truncate_from, &entries);
                self.waiting.push_back(AppendBatch { write, truncate_from, entries, kind });
                self.send_waiting()?;
            }
            Effect::ReadLog { read, after, upto, max_bytes } => {
                let entries = self.read_log(after, upto, max_bytes)?;
                let now = self.clock.now();
                self.core.step(now, Input::LogRead { read, entries }, &mut self.effects);
            }
            // The owner asks with `next_committed`.
            Effect::Commit { .. } => {}
            Effect::Serving { term } => {
                tracing::debug!(group = self.group.0, term, "serving");
                ELECTIONS.counter(&["won"]).increment(1);
            }
            Effect::RoleChanged { role, term, leader } => {
                tracing::debug!(group = self.group.0, ?role, term, ?leader, "role");
                if role == Role::Candidate {
                    ELECTIONS.counter(&["started"]).increment(1);
                }
            }
            Effect::Rejoined { .. } => {
                let marked = self.store.mark_rejoined(self.group);
                marked.map_err(|refused| self.refused(refused.reason))?;
            }
            Effect::HistoryForked { history, last, commit_bound } => tracing::error!(
                group = self.group.0,
                history,
                last_index = last.index,
                decided_index = commit_bound,
                "the end of the log may be lost after an unclean stop of the machine; going on with what is there"
            ),
            Effect::Stop { reason } => {
                return Err(ReplicaError::Stopped { group: self.group, reason });
            }
            Effect::Send(_) => self.not_served("messages to peers"),
            Effect::ReadReady { .. } | Effect::ReadRefused { .. } => {
                self.not_served("reads through the log");
            }
            Effect::SnapshotOpen { .. }
            | Effect::SnapshotRead { .. }
            | Effect::SnapshotClose { .. }
            | Effect::SnapshotStage { .. }
            | Effect::SnapshotInstall { .. } => self.not_served("snapshots"),
            Effect::Reset { .. } => self.not_served("dropping a past that others have changed"),
            Effect::TransferAbandoned { .. } => self.not_served("transfers of leadership"),
            Effect::Removed => self.not_served("the removal of this replica"),
        }
        Ok(())
    }

    /// Hands the store what it had no room for before.
    pub(super) fn send_waiting(&mut self) -> Result<(), ReplicaError> {
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
                reason => return Err(self.refused(reason)),
            }
        }
        Ok(())
    }

    /// Keeps the log's tail as it will be once the write is done.
    fn take_into_tail(&mut self, truncate_from: Option<Index>, entries: &[Entry]) {
        if let Some(from) = truncate_from {
            while self.unapplied.back().is_some_and(|entry| entry.index >= from) {
                self.unapplied.pop_back();
            }
        }
        self.unapplied.extend(entries.iter().cloned());
    }

    /// Entries for a member that is behind; none when they are gone. Reads on the owner's task, for
    /// which an entry of the page cache is no wait.
    pub(super) fn read_log(
        &self,
        after: Index,
        upto: Index,
        max_bytes: u32,
    ) -> Result<Vec<Entry>, ReplicaError> {
        match self.store.entries(self.group, after + 1, upto, max_bytes as usize) {
            Err(ReadError::Missing { .. }) => Ok(Vec::new()),
            read => Ok(read?),
        }
    }

    fn refused(&self, reason: RefusedReason) -> ReplicaError {
        ReplicaError::Refused { group: self.group, reason }
    }

    /// Groups of one never ask for this; were it otherwise, an operator must hear of it, once.
    fn not_served(&mut self, what: &str) {
        if !std::mem::replace(&mut self.told_not_served, true) {
            tracing::error!(
                group = self.group.0,
                what,
                "the group needs what this version does not do; it is left undone"
            );
        }
    }
}
