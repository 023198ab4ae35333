//! The leader's side of replication: what goes to whom, and what is decided
//! (docs/internals/consensus.md#replication).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::core::{Core, Turn};
use crate::durability::After;
use crate::mutants::broken;
use crate::progress::Flow;
use crate::{
    Body, ConfigStamp, Effect, Entry, EntryKind, Epoch, Index, LogPosition, NodeId, Role, Term,
};

/// The content of an acknowledgement.
pub(crate) struct Ack {
    pub(crate) outcome: Result<Index, LogPosition>,
    pub(crate) synced: Index,
    pub(crate) config: ConfigStamp,
    pub(crate) recovering: Option<Epoch>,
}

impl Core {
    /// Appends to the own log as the leader.
    pub(crate) fn lead_append(
        &mut self,
        turn: &mut Turn<'_>,
        proposals: impl IntoIterator<Item = (EntryKind, Bytes)>,
    ) {
        let (term, history) = (self.hard.term, self.hard.history);
        let mut index = self.log.last().index;
        let entries: Vec<Entry> = proposals
            .into_iter()
            .map(|(kind, payload)| {
                index += 1;
                Entry { index, term, history, kind, payload }
            })
            .collect();
        if entries.is_empty() {
            return;
        }
        let cache_bytes = self.settings.cache_bytes;
        let Some(leading) = &mut self.leading else { return };
        leading.last_activity = turn.now;
        for entry in &entries {
            leading.cache.push(entry.clone(), cache_bytes);
            leading.uncommitted.push_back(entry.payload.len() as u64);
            leading.uncommitted_bytes += entry.payload.len() as u64;
        }
        self.wake(turn);
        self.write(turn, None, entries);
    }

    pub(crate) fn pump_all(&mut self, turn: &mut Turn<'_>) {
        let count = self.leading.as_ref().map_or(0, |leading| leading.progress.len());
        for at in 0..count {
            if let Some(peer) = self.leading.as_ref().and_then(|l| l.progress.get(at)) {
                let node = peer.node;
                self.pump(turn, node);
            }
        }
    }

    /// Sends this member what it may be sent now.
    pub(crate) fn pump(&mut self, turn: &mut Turn<'_>, node: NodeId) {
        while self.role == Role::Ready && self.is_up(node) {
            let (last, floor) = (self.log.last().index, self.log.floor().index);
            let settings = Arc::clone(&self.settings);
            let Some(leading) = &mut self.leading else { return };
            let cache_first = leading.cache.first().unwrap_or(last + 1);
            let Ok(at) = leading.progress.binary_search_by_key(&node, |peer| peer.node) else {
                return;
            };
            let peer = &mut leading.progress[at];
            if !peer.may_send(settings.window_entries, settings.window_bytes) {
                return;
            }
            if peer.next <= floor {
                self.start_snapshot(turn, node);
                return;
            }
            let probing = matches!(peer.flow, Flow::Probe { .. });
            let blocked = peer.allowance == Some(0);
            if !probing && (peer.next > last || blocked) {
                return;
            }
            let next = peer.next;
            let window =
                u64::from(settings.window_entries).saturating_sub(peer.in_flight_entries());
            let count = u64::from(settings.message_entries).min(window);
            let entries = if blocked || next < cache_first {
                Vec::new()
            } else {
                let count = usize::try_from(count).unwrap_or(usize::MAX).max(1);
                leading.cache.from(next, count, u64::from(settings.message_bytes))
            };
            if entries.is_empty() && !probing {
                if peer.reading.is_none() {
                    self.reads_issued += 1;
                    let read = self.reads_issued;
                    peer.reading = Some(read);
                    let upto = (cache_first - 1).min(next + count.max(1) - 1);
                    let max_bytes = settings.message_bytes;
                    let effect = Effect::ReadLog { read, after: next - 1, upto, max_bytes };
                    self.hold(turn, effect, After::Writes);
                }
                return;
            }
            self.send_append(turn, node, next - 1, entries);
        }
    }

    /// Older entries were read back from the log.
    pub(crate) fn on_log_read(&mut self, turn: &mut Turn<'_>, read: u64, entries: Vec<Entry>) {
        if let Some((_, to, prev)) = self.fetch_read.take_if(|fetch| fetch.0 == read) {
            self.on_fetch_read(turn, to, prev, entries);
            return;
        }
        let retry = self.settings.append_retry;
        let Some(leading) = self.leading.as_mut().filter(|_| self.role == Role::Ready) else {
            return;
        };
        let Some(peer) = leading.progress.iter_mut().find(|peer| peer.reading == Some(read)) else {
            return;
        };
        let (node, next) = (peer.node, peer.next);
        peer.reading = None;
        let wanted = entries.first().is_some_and(|first| first.index == next)
            && peer.flow == Flow::Replicate;
        if entries.is_empty() && next > self.log.floor().index {
            // Not there for a moment only (or the disk fails, which is told elsewhere).
            peer.retry_at = Some(turn.now + retry);
            return;
        }
        if wanted && entries.iter().all(|entry| self.log.contains(entry.position())) {
            self.send_append(turn, node, next - 1, entries);
        }
        self.pump(turn, node);
    }

    /// One message to a member: entries behind `prev`, or none.
    fn send_append(&mut self, turn: &mut Turn<'_>, node: NodeId, prev: Index, entries: Vec<Entry>) {
        let Some(prev) = self.log.position_at(prev) else { return };
        let stamp = self.hard.config.stamp;
        let retry = self.settings.append_retry;
        let commit = self.commit;
        let Some(peer) = self.leading.as_mut().and_then(|leading| leading.progress_mut(node))
        else {
            return;
        };
        let last = entries.last().map_or(prev.index, |entry| entry.index);
        let bytes = entries.iter().map(|entry| entry.payload.len() as u64).sum();
        // An empty message may stand behind what was sent, when that is compacted.
        peer.sent(entries.last().map_or(0, |entry| entry.index), bytes);
        peer.commit_sent = peer.commit_sent.max(commit.min(last));
        if peer.awaits_answer() && peer.retry_at.is_none() {
            peer.retry_at = Some(turn.now + backed_off(retry, peer.retries));
        }
        let (older, rejoin) = (peer.config < stamp, peer.grant);
        let newer = older.then(|| Arc::new(self.hard.config.clone()));
        let body = Body::Append {
            prev,
            entries,
            commit,
            history: self.hard.history,
            config: stamp,
            newer,
            rejoin,
        };
        self.send(turn, node, body, After::HardState);
    }

    /// Speaks to a member although there is nothing to send: news of the commit index or of the
    /// configuration, or a sign of life.
    pub(crate) fn send_empty(&mut self, turn: &mut Turn<'_>, node: NodeId) {
        let floor = self.log.floor().index;
        let Some(peer) = self.leading.as_ref().and_then(|leading| leading.progress(node)) else {
            return;
        };
        // Where the logs have met, or are thought to.
        let prev = if peer.acked > 0 { peer.acked } else { peer.next - 1 };
        self.send_append(turn, node, prev.max(floor), Vec::new());
    }

    pub(crate) fn on_ack(&mut self, turn: &mut Turn<'_>, from: NodeId, term: Term, ack: &Ack) {
        if term > self.hard.term {
            self.adopt_term(turn, term, None);
            return;
        }
        let any_counts = broken!(self, W12CountAcksOfOlderTerms);
        let stale = term < self.hard.term && !any_counts;
        if stale || self.role != Role::Ready {
            return;
        }
        let last = self.log.last().index;
        let retry = self.settings.append_retry;
        let stamp = self.hard.config.stamp;
        let Some(peer) = self.leading.as_mut().and_then(|leading| leading.progress_mut(from))
        else {
            return;
        };
        // Of a time before it became a member, perhaps with another log.
        if ack.config < peer.joined && !any_counts {
            peer.config = ack.config;
            self.send_empty(turn, from);
            return;
        }
        if ack.recovering.is_some() && peer.recovering != ack.recovering {
            // What was on its disk may not be.
            peer.synced = 0;
        }
        peer.synced = peer.synced.max(ack.synced.min(last));
        let held_before = peer.config;
        peer.config = peer.config.max(ack.config);
        let learnt_config = peer.config > held_before && peer.config == stamp;
        let mut news = learnt_config;
        match ack.outcome {
            Ok(verified) => {
                news |= peer.acknowledged(verified.min(last));
                peer.retry_at = peer.awaits_answer().then(|| turn.now + retry);
                if peer.flow != Flow::Snapshot && !self.sending.is_empty() {
                    self.stop_sending_snapshot(turn, from);
                }
            }
            Err(hint) => {
                news = true;
                peer.retry_at = None;
                // A log that ends before the floor, or with terms before the floor's, cannot have
                // it: only a snapshot helps.
                let floor = self.log.floor();
                let next = if hint < floor {
                    hint.index.saturating_add(1).min(floor.index)
                } else {
                    self.log.greatest_at_most(hint.index, hint.term).index + 1
                };
                if let Some(peer) =
                    self.leading.as_mut().and_then(|leading| leading.progress_mut(from))
                {
                    peer.probe(next);
                }
            }
        }
        if news && let Some(leading) = &mut self.leading {
            leading.last_activity = turn.now;
        }
        if ack.outcome.is_err() {
            self.wake(turn);
        }
        self.on_member_recovering(turn, from, ack.recovering);
        self.advance_commit(turn);
        self.forget_what_all_have();
        self.pump(turn, from);
        self.go_on_changing(turn);
        self.finish_transfer(turn);
    }

    fn forget_what_all_have(&mut self) {
        let commit = self.commit;
        let down = &self.down;
        let Some(leading) = &mut self.leading else { return };
        let all = leading
            .progress
            .iter()
            .filter(|peer| !down.contains(&peer.node) && peer.flow == Flow::Replicate)
            .map(|peer| peer.acked)
            .min();
        leading.cache.forget_upto(all.unwrap_or(commit).min(commit));
    }

    /// Decides what a quorum has: entries of the own term only, older ones by implication (rule
    /// 7.3).
    pub(crate) fn advance_commit(&mut self, turn: &mut Turn<'_>) {
        // Quorums are those of a durable configuration (C5).
        if !self.durability.is_hard_state_synced() && !broken!(self, W04TermNotDurable) {
            return;
        }
        let Some(leading) = self.leading.as_ref().filter(|_| self.role == Role::Ready) else {
            return;
        };
        let own = if self.durability.is_written(leading.barrier_write) {
            self.durability.written().min(self.log.last().index)
        } else {
            0
        };
        let reached = self.hard.config.quorum_index(|node| {
            if node == self.node {
                own
            } else {
                leading.progress(node).map_or(0, |peer| peer.matched)
            }
        });
        let counted = reached >= leading.barrier || broken!(self, W06CommitOldTermsByCounting);
        if !counted || reached <= self.commit {
            return;
        }
        let before = self.commit.max(leading.barrier - 1);
        let serves = !leading.serving && reached >= leading.barrier;
        self.raise_commit(turn, reached);
        let due = turn.now + self.settings.commit_delay;
        if let Some(leading) = &mut self.leading {
            for _ in before..reached {
                leading.uncommitted_bytes -= leading.uncommitted.pop_front().unwrap_or(0);
            }
            leading.serving |= serves;
            if !leading.progress.is_empty() {
                leading.commit_due = leading.commit_due.or(Some(due));
            }
        }
        if serves {
            turn.effects.push(Effect::Serving { term: self.hard.term });
            self.serve_reads(turn);
        }
        self.forget_what_all_have();
        self.go_on_changing(turn);
        self.finish_transfer(turn);
    }

    pub(crate) fn on_allowance(&mut self, turn: &mut Turn<'_>, node: NodeId, bytes: u64) {
        if let Some(peer) = self.leading.as_mut().and_then(|leading| leading.progress_mut(node)) {
            peer.allowance = Some(peer.allowance.unwrap_or(0).saturating_add(bytes));
        }
        self.pump(turn, node);
    }

    /// Payload bytes, as far as they are in memory, that could be sent to this member if there were
    /// an allowance. At least one byte when there is anything.
    #[must_use]
    pub fn wants_to_send(&self, node: NodeId) -> u64 {
        let last = self.log.last().index;
        let Some(leading) = self.leading.as_ref().filter(|_| self.role == Role::Ready) else {
            return 0;
        };
        let Some(peer) = leading.progress(node).filter(|_| self.is_up(node)) else { return 0 };
        let settings = &self.settings;
        if peer.next > last || !peer.may_send(settings.window_entries, settings.window_bytes) {
            return 0;
        }
        let max = u64::from(settings.message_bytes);
        let entries = usize::try_from(settings.message_entries).unwrap_or(usize::MAX);
        leading.cache.bytes_from(peer.next, entries, max).max(1)
    }

    /// Up to where the log may be compacted without making a snapshot necessary for a member that
    /// can be reached; a member more than `max_log` entries behind gets one all the same.
    #[must_use]
    pub fn compaction_limit(&self, max_log: u64) -> Index {
        let reachable = self
            .progress()
            .iter()
            .filter(|peer| self.is_up(peer.node))
            .map(|peer| peer.acked)
            .min()
            .unwrap_or(self.commit);
        reachable.max(self.log.last().index.saturating_sub(max_log)).min(self.commit)
    }

    pub(crate) fn on_member_down(&mut self, turn: &mut Turn<'_>, node: NodeId) {
        let last = self.log.last().index;
        if let Some(peer) = self.leading.as_mut().and_then(|leading| leading.progress_mut(node)) {
            peer.resume(false, last);
            peer.retry_at = None;
        }
        self.stop_sending_snapshot(turn, node);
        self.watch_quorum(turn);
        if self.role == Role::Syncing {
            self.on_sync_tick(turn);
        }
    }

    pub(crate) fn on_member_up(&mut self, turn: &mut Turn<'_>, node: NodeId, restarted: bool) {
        self.watch_quorum(turn);
        let last = self.log.last().index;
        let commit = self.commit;
        let Some(leading) = &mut self.leading else { return };
        let Some(peer) = leading.progress_mut(node) else { return };
        // A quiet group stays quiet when a member that has everything was only out of reach.
        let has_all = peer.acked == last && peer.commit_sent >= commit && !restarted;
        if has_all && self.quiesced {
            peer.flow = Flow::Replicate;
            peer.quiesced = true;
            return;
        }
        peer.resume(restarted, last);
        match self.role {
            Role::Syncing => self.on_sync_tick(turn),
            _ => {
                self.wake(turn);
                self.pump(turn, node);
            }
        }
    }

    /// A leader that cannot reach a majority cedes after a while
    /// (docs/internals/consensus.md#giving-leadership-up).
    pub(crate) fn watch_quorum(&mut self, turn: &mut Turn<'_>) {
        let reachable = self.reaches_quorum();
        let deadline = turn.now + self.settings.election_timeout;
        if let Some(leading) = &mut self.leading {
            leading.quorum_deadline =
                if reachable { None } else { leading.quorum_deadline.or(Some(deadline)) };
        }
    }

    pub(crate) fn on_leader_tick(&mut self, turn: &mut Turn<'_>) {
        let now = turn.now;
        let Some(leading) = &mut self.leading else { return };
        let due = |at: &mut Option<crate::Time>| at.take_if(|at| *at <= now).is_some();
        if due(&mut leading.quorum_deadline) {
            self.cede(turn, None);
            return;
        }
        let sync = due(&mut leading.sync.retry_at);
        let commit = due(&mut leading.commit_due);
        let quiesce = due(&mut leading.quiesce_due);
        let reads = due(&mut leading.reads.retry_at);
        let transfer = leading.transfer.as_ref().is_some_and(|transfer| transfer.deadline <= now);
        let late: Vec<NodeId> = leading
            .progress
            .iter_mut()
            .filter_map(|p| due(&mut p.retry_at).then_some(p.node))
            .collect();
        if sync && self.role == Role::Syncing {
            self.on_sync_tick(turn);
        }
        if transfer {
            self.abandon_transfer(turn);
        }
        if reads {
            self.ask_again(turn);
        }
        for node in late {
            self.retry(turn, node);
        }
        if commit {
            self.tell_commit(turn);
        }
        if quiesce {
            self.on_quiesce_due(turn);
        }
    }

    /// No answer for too long: one message at a time, from where it last was.
    fn retry(&mut self, turn: &mut Turn<'_>, node: NodeId) {
        if !self.is_up(node) {
            return;
        }
        let Some(peer) = self.leading.as_mut().and_then(|leading| leading.progress_mut(node))
        else {
            return;
        };
        peer.retries = peer.retries.saturating_add(1);
        if peer.flow == Flow::Snapshot {
            self.retry_snapshot(turn, node);
        } else {
            let next = match peer.flow {
                Flow::Probe { .. } => peer.next,
                _ => peer.acked + 1,
            };
            peer.probe(next);
            self.pump(turn, node);
        }
    }

    fn tell_commit(&mut self, turn: &mut Turn<'_>) {
        let commit = self.commit;
        let Some(leading) = &self.leading else { return };
        let behind: Vec<NodeId> = leading
            .progress
            .iter()
            .filter(|peer| peer.commit_sent < commit && peer.flow == Flow::Replicate)
            .map(|peer| peer.node)
            .collect();
        for node in behind {
            if self.is_up(node) {
                self.send_empty(turn, node);
            }
        }
    }
}

/// Twice as long with each attempt in vain, up to eight times.
pub(crate) fn backed_off(retry: Duration, attempts: u32) -> Duration {
    retry * (1 << attempts.min(3))
}
