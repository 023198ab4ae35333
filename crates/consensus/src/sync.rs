//! From elected to ready: whatever was acknowledged before has to be here first
//! (docs/internals/consensus.md#sync-phase).

use crate::append::follow_each_other;
use crate::core::{Core, Turn};
use crate::durability::After;
use crate::mutants::broken;
use crate::{
    Answer, Body, Effect, Entry, EntryKind, FetchOutcome, Index, LogPosition, NodeId, Progress,
    RecoveryPolicy, Role, Term, Time,
};

/// How often a source is asked again before its answer is given up. Each time is waited for twice
/// as long, and as long for the answers after it: they are large, and over a slow link a repeated
/// question only delays them.
const FETCH_ATTEMPTS: u32 = 3;

/// The longest that an answer is waited for, in looks
/// ([`sync_retry`](crate::Settings::sync_retry)).
const MAX_PATIENCE: u32 = 16;

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct SyncPhase {
    /// What the other voters have; the own answer is always the present log.
    pub(crate) answers: Vec<(NodeId, Answer)>,
    pub(crate) fetching: Option<Fetching>,
    finishing: Option<Finishing>,
    pub(crate) retry_at: Option<Time>,
}

/// The copying of a better log.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Fetching {
    pub(crate) source: NodeId,
    upto: LogPosition,
    prev: LogPosition,
    attempts: u32,
    /// Looks until the question is repeated.
    patience: u32,
    /// Looks in vain since it was asked.
    waited: u32,
}

/// The last durable step before the barrier.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Finishing {
    save: u64,
    forked: bool,
    commit_bound: Index,
}

#[cfg(feature = "mutants")]
impl SyncPhase {
    /// See [`Core::renumber`].
    pub(crate) fn renumber(&mut self, saves: u64) {
        if let Some(finishing) = &mut self.finishing {
            finishing.save = finishing.save.saturating_sub(saves);
        }
    }
}

impl Core {
    /// What the other voters told in the sync phase; empty outside of it. While it does not decide,
    /// those who are missing here, or recovering, are what the group waits for.
    #[must_use]
    pub fn reported(&self) -> &[(NodeId, Answer)] {
        let syncing = self.leading.as_ref().filter(|_| self.role == Role::Syncing);
        syncing.map_or(&[], |leading| &leading.sync.answers)
    }

    pub(crate) fn begin_sync(&mut self, turn: &mut Turn<'_>, answers: Vec<(NodeId, Answer)>) {
        if let Some(leading) = &mut self.leading {
            leading.sync.answers = answers;
        }
        if broken!(self, W10GrantWhileSyncing) {
            self.grant_to_all(turn);
        }
        self.go_on_syncing(turn);
        let finishing =
            self.leading.as_ref().is_some_and(|leading| leading.sync.finishing.is_some());
        self.ask_voters(turn, finishing);
    }

    /// Asks the voters what they have. Those who told hear it as a sign of life: while the leader
    /// waits or fetches, nobody else has to stand.
    fn ask_voters(&mut self, turn: &mut Turn<'_>, only_the_rest: bool) {
        let retry_at = turn.now + self.settings.sync_retry;
        let voters = self.other_voters();
        let config = self.hard.config.stamp;
        let Some(leading) = self.leading.as_mut().filter(|_| self.role == Role::Syncing) else {
            return;
        };
        leading.sync.retry_at = Some(retry_at);
        let answered: Vec<NodeId> = leading.sync.answers.iter().map(|(node, _)| *node).collect();
        for voter in voters {
            if !(only_the_rest && answered.contains(&voter)) {
                self.send(turn, voter, Body::SyncRequest { config }, After::HardState);
            }
        }
    }

    pub(crate) fn on_sync_request(
        &mut self,
        turn: &mut Turn<'_>,
        from: NodeId,
        term: Term,
        config: crate::ConfigStamp,
    ) {
        if self.follow(turn, from, term, config, None) {
            self.send_answer(turn, from, false);
        }
    }

    pub(crate) fn on_sync_answer(&mut self, turn: &mut Turn<'_>, from: NodeId, answer: Answer) {
        if let Some(leading) = &mut self.leading {
            let answers = &mut leading.sync.answers;
            if !answers.iter().any(|(node, _)| *node == from) {
                answers.push((from, answer));
            }
        }
        if broken!(self, W10GrantWhileSyncing) {
            self.grant_to_all(turn);
        }
        self.go_on_syncing(turn);
    }

    /// Takes the next step that is possible now; harmless at any time.
    pub(crate) fn go_on_syncing(&mut self, turn: &mut Turn<'_>) {
        // While a snapshot replaces the log there is no log to go on with.
        if self.is_replacing_log() {
            return;
        }
        let Some(leading) = self.leading.as_ref().filter(|_| self.role == Role::Syncing) else {
            return;
        };
        let sync = &leading.sync;
        if let Some(finishing) = &sync.finishing {
            if self.durability.is_saved(finishing.save) {
                self.become_ready(turn);
            }
            return;
        }
        if !self.durability.is_hard_state_synced() && !broken!(self, W04TermNotDurable) {
            return;
        }
        let Some(forked) = self.may_decide(&sync.answers) else {
            if self.order_is_outdated(&sync.answers) {
                // The operator has to look again; whoever gets the next order needs this vote.
                self.cede(turn, None);
                self.election.forced = None;
            }
            return;
        };
        let own = self.log.last();
        let best = sync.answers.iter().max_by_key(|(_, answer)| self.rank(answer.last));
        match best {
            Some((source, best))
                if self.rank(best.last) > self.rank(own) && !broken!(self, W07ServeWithoutSync) =>
            {
                let (source, upto) = (*source, best.last);
                if sync.fetching.as_ref().is_none_or(|f| f.source != source || f.upto != upto) {
                    let prev = self.log.greatest_at_most(upto.index, upto.term);
                    let (attempts, patience, waited) = (0, 1, 0);
                    let fetching = Fetching { source, upto, prev, attempts, patience, waited };
                    self.fetch(turn, fetching);
                }
            }
            _ => self.finish_sync(turn, forked),
        }
    }

    /// Greater is better: the later last term decides, then the longer log.
    fn rank(&self, last: LogPosition) -> (u64, u64) {
        if broken!(self, W13ChooseLongestLog) {
            (last.index, last.term)
        } else {
            (last.term, last.index)
        }
    }

    /// Whether the answers tell all that may have been acknowledged. `Some(true)`: not for sure,
    /// but nobody who could tell more will ever answer, or has not.
    fn may_decide(&self, answers: &[(NodeId, Answer)]) -> Option<bool> {
        let trusted = |node: NodeId| {
            if node == self.node {
                self.recovering.is_none()
            } else {
                answers.iter().any(|(n, answer)| *n == node && answer.recovering.is_none())
            }
        };
        let answered = |node: NodeId| node == self.node || answers.iter().any(|(n, _)| *n == node);
        let config = &self.hard.config;
        let counts = |node: NodeId| {
            trusted(node) || (broken!(self, W02RecoveringCountsInSync) && answered(node))
        };
        if config.is_quorum(counts) || broken!(self, W07ServeWithoutSync) {
            return Some(false);
        }
        if let Some(forced) = self.order_for(self.hard.term)
            && !self.order_is_outdated(answers)
        {
            let everyone_else =
                config.is_everyone(|node| answered(node) || forced.dead.contains(&node));
            if everyone_else {
                return Some(true);
            }
        }
        let all_reported =
            self.settings.recovery == RecoveryPolicy::AllReported && config.is_everyone(answered);
        all_reported.then_some(true)
    }

    fn fetch(&mut self, turn: &mut Turn<'_>, fetching: Fetching) {
        let Fetching { source, upto, prev, .. } = fetching;
        let max_bytes = self.settings.message_bytes;
        if let Some(leading) = &mut self.leading {
            leading.sync.fetching = Some(fetching);
        }
        self.send(turn, source, Body::Fetch { prev, upto, max_bytes }, After::HardState);
    }

    /// A follower in whose log the leader looks. The log is frozen: it obeys this leader only, who
    /// is not appending.
    pub(crate) fn on_fetch(
        &mut self,
        turn: &mut Turn<'_>,
        from: NodeId,
        term: Term,
        prev: LogPosition,
        upto: LogPosition,
        max_bytes: u32,
    ) {
        if term != self.hard.term || self.role != Role::Follower {
            return;
        }
        let outcome = if !self.log.contains(upto) {
            FetchOutcome::Gone
        } else if prev.index <= self.log.floor().index && prev != self.log.floor() {
            self.start_snapshot(turn, from);
            FetchOutcome::Compacted
        } else if !self.log.contains(prev) {
            FetchOutcome::Conflict(self.log.greatest_at_most(prev.index, prev.term))
        } else {
            self.reads_issued += 1;
            let read = self.reads_issued;
            self.fetch_read = Some((read, from, prev));
            let max_bytes = max_bytes.min(self.settings.message_bytes);
            let effect = Effect::ReadLog { read, after: prev.index, upto: upto.index, max_bytes };
            self.hold(turn, effect, After::Writes);
            return;
        };
        self.send(turn, from, Body::FetchReply { prev, outcome }, After::Writes);
    }

    /// The entries that a syncing leader asked for.
    pub(crate) fn on_fetch_read(
        &mut self,
        turn: &mut Turn<'_>,
        to: NodeId,
        prev: LogPosition,
        entries: Vec<Entry>,
    ) {
        let outcome =
            if entries.is_empty() { FetchOutcome::Gone } else { FetchOutcome::Entries(entries) };
        self.send(turn, to, Body::FetchReply { prev, outcome }, After::Writes);
    }

    pub(crate) fn on_fetch_reply(
        &mut self,
        turn: &mut Turn<'_>,
        from: NodeId,
        term: Term,
        prev: LogPosition,
        outcome: FetchOutcome,
    ) {
        if term > self.hard.term {
            self.adopt_term(turn, term, None);
            return;
        }
        if self.is_replacing_log() {
            return;
        }
        let Some(fetching) = self
            .leading
            .as_ref()
            .filter(|_| self.role == Role::Syncing && term == self.hard.term)
            .and_then(|leading| leading.sync.fetching.clone())
            .filter(|fetching| fetching.source == from && fetching.prev == prev)
        else {
            return;
        };
        match outcome {
            FetchOutcome::Entries(entries) => self.on_fetched(turn, fetching, &entries),
            FetchOutcome::Conflict(hint) => {
                // Nothing at or below the commit index can differ.
                let decided = self.log.position_at(self.commit).unwrap_or_default();
                let next = self.log.greatest_at_most(hint.index, hint.term).max(decided);
                if next.index >= prev.index {
                    self.on_source_contradicts(turn, fetching);
                    return;
                }
                self.fetch(turn, Fetching { prev: next, waited: 0, ..fetching });
            }
            // The offer of the snapshot follows.
            FetchOutcome::Compacted => {}
            FetchOutcome::Gone => {
                self.forget_answer(turn, from);
            }
        }
    }

    fn on_fetched(&mut self, turn: &mut Turn<'_>, fetching: Fetching, entries: &[Entry]) {
        let Fetching { prev, upto, .. } = fetching;
        if !follow_each_other(prev, entries, self.hard.term) {
            return;
        }
        match self.merge(turn, prev, entries) {
            Err(_) => self.on_source_contradicts(turn, fetching),
            Ok(_) if self.log.contains(upto) => {
                if let Some(leading) = &mut self.leading {
                    leading.sync.fetching = None;
                }
                self.go_on_syncing(turn);
            }
            Ok(verified) => {
                let prev = self.log.position_at(verified).unwrap_or(prev);
                self.fetch(turn, Fetching { prev, attempts: 0, waited: 0, ..fetching });
            }
        }
    }

    /// The best log is not this one's future. It may be so when its history is a later one.
    fn on_source_contradicts(&mut self, turn: &mut Turn<'_>, fetching: Fetching) {
        let answers = self.leading.as_ref().map_or(&[][..], |leading| &leading.sync.answers);
        let source = answers.iter().find(|(node, _)| *node == fetching.source);
        let history = source.map_or(0, |(_, answer)| answer.history);
        if history > self.hard.history {
            self.reset(turn, history);
            // Asked again once the old log is gone.
            if let Some(leading) = &mut self.leading {
                let prev = LogPosition::default();
                leading.sync.fetching = Some(Fetching { prev, attempts: 0, waited: 0, ..fetching });
            }
        } else {
            let reason = self.contradicted(fetching.prev.index);
            self.stop(turn, reason);
        }
    }

    /// The source lost what it told of, or is gone: decide without it, or ask again.
    fn forget_answer(&mut self, turn: &mut Turn<'_>, source: NodeId) {
        if let Some(leading) = &mut self.leading {
            leading.sync.answers.retain(|(node, _)| *node != source);
            leading.sync.fetching = None;
        }
        self.go_on_syncing(turn);
        self.ask_voters(turn, true);
    }

    pub(crate) fn on_sync_tick(&mut self, turn: &mut Turn<'_>) {
        let Some(leading) = &self.leading else { return };
        let fetching = leading.sync.fetching.clone();
        self.ask_voters(turn, false);
        if let Some(fetching) = fetching {
            let receiving = self.receiving.as_ref().is_some_and(|r| r.advanced);
            if let Some(receiving) = &mut self.receiving {
                receiving.advanced = false;
            }
            let waited = if receiving { 0 } else { fetching.waited + 1 };
            let attempts = if receiving { 0 } else { fetching.attempts };
            let next = Fetching { attempts, waited, ..fetching };
            let due = receiving || next.waited >= next.patience;
            if !self.is_up(next.source) || (due && next.attempts == FETCH_ATTEMPTS) {
                self.forget_answer(turn, next.source);
            } else if receiving {
                self.fetch(turn, next);
            } else if due {
                let (attempts, patience) =
                    (next.attempts + 1, (next.patience * 2).min(MAX_PATIENCE));
                self.fetch(turn, Fetching { attempts, patience, waited: 0, ..next });
            } else if let Some(leading) = &mut self.leading {
                leading.sync.fetching = Some(next);
            }
        }
    }

    /// The own log is the best there is. The re-stamped configuration (C3), and a forced recovery's
    /// history number, become durable before the barrier is appended.
    fn finish_sync(&mut self, turn: &mut Turn<'_>, forked: bool) {
        if self.hard.void && !self.durability.is_all_written() {
            // Saying that nothing is missing here has to wait until nothing is.
            return;
        }
        let Some(leading) = &self.leading else { return };
        let commit_bound =
            leading.sync.answers.iter().map(|(_, answer)| answer.commit).max().unwrap_or(0);
        let history = leading.sync.answers.iter().map(|(_, a)| a.history).max().unwrap_or(0);
        self.hard.history = self.hard.history.max(history);
        self.hard.void = false;
        if !broken!(self, W15NoRestamp) {
            self.hard.config.stamp.term = self.hard.term;
        }
        let mut dead = Vec::new();
        if forked {
            // Whoever answered is not dead, whatever was said.
            let answered = |node: &NodeId| leading.sync.answers.iter().any(|(n, _)| n == node);
            let mut number = self.hard.history + 1;
            if let Some(order) = self.order_for(self.hard.term) {
                dead = order.dead.iter().copied().filter(|node| !answered(node)).collect();
                number = number.max(order.number);
            }
            self.hard.history = number;
        }
        self.save(turn);
        let save = self.durability.last_save();
        if let Some(leading) = &mut self.leading {
            leading.sync.finishing = Some(Finishing { save, forked, commit_bound });
            leading.dead = dead;
        }
        self.watch_quorum(turn);
        if broken!(self, W04TermNotDurable) {
            self.become_ready(turn);
        }
    }

    fn become_ready(&mut self, turn: &mut Turn<'_>) {
        let Some(leading) = &mut self.leading else { return };
        let sync = std::mem::take(&mut leading.sync);
        let Some(finishing) = sync.finishing else { return };
        let last = self.log.last();
        leading.barrier = last.index + 1;
        leading.need = leading.barrier;
        leading.last_activity = turn.now;
        self.election.forced = None;
        self.elections_succeed();
        self.set_role(turn, Role::Ready, Some(self.node));
        if finishing.forked {
            turn.effects.push(Effect::HistoryForked {
                history: self.hard.history,
                last,
                commit_bound: finishing.commit_bound.max(self.commit),
            });
        }
        if let Some(epoch) = self.recovering.take() {
            self.grant = None;
            self.tell_rejoined(turn, epoch);
        }
        self.raise_commit(turn, finishing.commit_bound.min(last.index));
        self.arrange_progress(|node| {
            let answer = sync.answers.iter().find(|(n, _)| *n == node);
            let ends = answer.map_or(last.index, |(_, answer)| answer.last.index);
            Progress::new(node, ends.min(last.index) + 1)
        });
        self.lead_append(turn, [(EntryKind::Barrier, bytes::Bytes::new())]);
        if let Some(leading) = &mut self.leading {
            leading.barrier_write = self.durability.last_write();
        }
        self.pump_all(turn);
        self.plan_quiescence(turn.now);
    }

    /// Wrong on purpose: a restarted leader goes on leading its term (W18).
    pub(crate) fn resume_leadership(&mut self, turn: &mut Turn<'_>) {
        self.leading = Some(Box::default());
        self.set_role(turn, Role::Syncing, Some(self.node));
        if let Some(leading) = &mut self.leading {
            leading.sync.finishing =
                Some(Finishing { save: 0, forked: false, commit_bound: self.commit });
        }
        self.become_ready(turn);
    }

    /// Fits the list of members' progress to the configuration.
    pub(crate) fn arrange_progress(&mut self, new: impl Fn(NodeId) -> Progress) {
        let members = self.hard.config.members();
        let (node, joined) = (self.node, self.hard.config.stamp);
        let Some(leading) = &mut self.leading else { return };
        leading.progress.retain(|peer| members.contains(&peer.node));
        for member in members {
            if member != node
                && let Err(at) = leading.progress.binary_search_by_key(&member, |peer| peer.node)
            {
                let mut progress = new(member);
                progress.joined = joined;
                leading.progress.insert(at, progress);
            }
        }
    }
}
