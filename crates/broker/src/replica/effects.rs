//! What the core asks for, done at the store.

use flintmq_consensus::{Effect, Entry, Index, LogPosition, Role};
use flintmq_storage::{AppendBatch, AppendKind, Refused, RefusedReason, StagedPiece};

use super::at_risk::AtRisk;
use super::{Replaced, Replica, ReplicaError, StoreEvent};
use crate::metrics::{ELECTIONS, HISTORY_FORKS};

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
                let events = self.events.clone();
                let then = move |entries| {
                    let _task_gone = events.send(StoreEvent::LogRead { read, entries });
                };
                self.store.read_log(self.group, after, upto, max_bytes as usize, Box::new(then));
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
                if !matches!(role, Role::Syncing | Role::Ready) {
                    self.leads_no_more(term);
                }
            }
            Effect::Rejoined { .. } => {
                let marked = self.store.mark_rejoined(self.group);
                marked.map_err(|refused| self.refused(refused.reason))?;
            }
            Effect::HistoryForked { history, last, commit_bound } => {
                let group = self.group.0.to_string();
                HISTORY_FORKS.counter(&[group.as_str()]).increment(1);
                tracing::error!(
                    group,
                    history,
                    last_index = last.index,
                    decided_index = commit_bound,
                    "the end of the log may be lost after an unclean stop of the machine; going on with what is there"
                );
            }
            Effect::Stop { reason } => {
                return Err(ReplicaError::Stopped { group: self.group, reason });
            }
            Effect::Send(message) => {
                if let Some(peers) = &self.peers {
                    peers.send(message);
                }
            }
            // Nothing is read through the log here: what followers tell is told as of then.
            Effect::ReadReady { .. } | Effect::ReadRefused { .. } => {}
            Effect::SnapshotOpen { to } => {
                let events = self.events.clone();
                let then = move |opened| {
                    let _task_gone = events.send(StoreEvent::SnapshotOpened { to, opened });
                };
                self.store.open_snapshot(self.group, Box::new(then));
            }
            Effect::SnapshotRead { to, id, cursor, max_bytes } => {
                let (events, at) = (self.events.clone(), cursor.clone());
                let then = move |piece| {
                    let read = StoreEvent::SnapshotRead { to, id, cursor: at, piece };
                    let _task_gone = events.send(read);
                };
                let max_bytes = max_bytes as usize;
                self.store.read_snapshot(self.group, id.number, cursor, max_bytes, Box::new(then));
            }
            Effect::SnapshotClose { id, .. } => self.store.close_snapshot(id.number),
            Effect::SnapshotStage { id, cursor, data } => {
                let staged = self.store.try_stage(self.group, StagedPiece { id, cursor, data });
                match staged {
                    Ok(()) => {}
                    Err(Refused { returned, reason: RefusedReason::Full }) => {
                        self.staging = Some(returned);
                    }
                    Err(Refused { reason, .. }) => return Err(self.refused(reason)),
                }
            }
            Effect::SnapshotInstall { id, keep_log_after } => {
                let installed = self.store.install(self.group, id, keep_log_after);
                installed.map_err(|refused| self.refused(refused.reason))?;
                if !keep_log_after {
                    self.unapplied.clear();
                }
            }
            Effect::Reset { write } => {
                self.unapplied.clear();
                self.waiting.clear();
                self.applied = LogPosition::default();
                self.at_risk = AtRisk::default();
                self.holes.clear();
                self.replaced = Some(Replaced::Emptied);
                let reset = self.store.reset(self.group, write);
                reset.map_err(|refused| self.refused(refused.reason))?;
            }
            Effect::TransferAbandoned { to } => {
                tracing::warn!(
                    group = self.group.0,
                    to = to.0,
                    "a transfer of leadership was given up"
                );
                self.transfer_abandoned(to);
            }
            Effect::Removed => {
                tracing::info!(
                    group = self.group.0,
                    "this node is no longer a member of the group"
                );
            }
        }
        Ok(())
    }

    /// Hands the store what it had no room for before.
    pub(super) fn send_waiting(&mut self) -> Result<(), ReplicaError> {
        if let Some(piece) = self.staging.take()
            && let Err(Refused { returned, reason }) = self.store.try_stage(self.group, piece)
        {
            match reason {
                RefusedReason::Full => self.staging = Some(returned),
                reason => return Err(self.refused(reason)),
            }
        }
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

    pub(super) fn refused(&self, reason: RefusedReason) -> ReplicaError {
        ReplicaError::Refused { group: self.group, reason }
    }
}
