//! Reads of what is decided, without an entry in the log (docs/internals/consensus.md#reads).

use std::collections::VecDeque;
use std::time::Duration;

use crate::core::{Core, Turn};
use crate::durability::After;
use crate::mutants::broken;
use crate::{Body, Effect, History, Index, NodeId, Role, Term, Time};

/// Reads that wait for a confirmation of the leadership. One question is under way at a time; reads
/// that come meanwhile share the next.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Reads {
    round: u64,
    /// When the round under way began, and the commit index that its reads get.
    under_way: Option<(Time, Index)>,
    asked: VecDeque<u64>,
    waiting: VecDeque<u64>,
    pub(crate) lease_until: Option<Time>,
    pub(crate) retry_at: Option<Time>,
}

impl Reads {
    pub(crate) fn is_empty(&self) -> bool {
        self.asked.is_empty() && self.waiting.is_empty()
    }
}

/// What a reader has seen last: the state of any replica that has applied as much is as new.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReadToken {
    /// The history number of what was seen.
    pub history: History,
    /// The index of what was seen.
    pub index: Index,
}

/// Whether a replica may answer a read with a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TokenRead {
    /// Its state is new enough.
    Ready,
    /// Once this index is applied.
    Wait {
        /// The index.
        index: Index,
    },
    /// A forced recovery changed the past since: what the reader saw may be undone.
    HistoryChanged {
        /// The present history number.
        now: History,
    },
    /// Its own log may lack what was acknowledged; ask another replica.
    Recovering,
}

impl Core {
    /// Whether the state of this replica, applied up to `applied`, answers a reader with this
    /// token. Leader or not.
    #[must_use]
    pub fn read_at(&self, token: ReadToken, applied: Index) -> TokenRead {
        if self.recovering.is_some() {
            TokenRead::Recovering
        } else if self.hard.history > token.history {
            TokenRead::HistoryChanged { now: self.hard.history }
        } else if self.hard.history < token.history || applied < token.index {
            TokenRead::Wait { index: token.index }
        } else {
            TokenRead::Ready
        }
    }

    pub(crate) fn on_read(&mut self, turn: &mut Turn<'_>, read: u64) {
        let commit = self.commit;
        let Some(leading) = self.leading.as_mut().filter(|_| self.role == Role::Ready) else {
            let leased = self.election.loyal_until.is_some_and(|until| turn.now < until);
            if broken!(self, W19LeaseOutlivesCession) && leased && self.leader.is_none() {
                turn.effects.push(Effect::ReadReady { read, index: commit });
            } else {
                turn.effects.push(Effect::ReadRefused { read });
            }
            return;
        };
        if leading.serving && leading.reads.lease_until.is_some_and(|until| turn.now < until) {
            turn.effects.push(Effect::ReadReady { read, index: commit });
            return;
        }
        leading.reads.waiting.push_back(read);
        self.wake(turn);
        self.serve_reads(turn);
    }

    /// Begins a round for the reads that wait, unless one is under way or the barrier is not
    /// committed: before, the commit index may be behind what others acknowledged.
    pub(crate) fn serve_reads(&mut self, turn: &mut Turn<'_>) {
        let commit = self.commit;
        let Some(leading) = self.leading.as_mut().filter(|leading| leading.serving) else {
            return;
        };
        let reads = &mut leading.reads;
        if reads.under_way.is_some() || reads.waiting.is_empty() {
            return;
        }
        reads.round += 1;
        reads.under_way = Some((turn.now, commit));
        reads.asked = std::mem::take(&mut reads.waiting);
        self.ask_again(turn);
        self.count_confirmations(turn);
    }

    /// Asks those who have not confirmed the round under way.
    pub(crate) fn ask_again(&mut self, turn: &mut Turn<'_>) {
        let retry_at = turn.now + self.settings.append_retry;
        let voters = self.other_voters();
        let Some(leading) = &mut self.leading else { return };
        if leading.reads.under_way.is_none() {
            return;
        }
        leading.reads.retry_at = Some(retry_at);
        let round = leading.reads.round;
        let open: Vec<NodeId> = voters
            .into_iter()
            .filter(|node| leading.progress(*node).is_some_and(|p| p.confirmed_round < round))
            .collect();
        for node in open {
            self.send(turn, node, Body::Confirm { round }, After::HardState);
        }
    }

    /// A bare sign of life confirms nothing: only the durable term of *this* group does.
    pub(crate) fn on_confirm(&mut self, turn: &mut Turn<'_>, from: NodeId, term: Term, round: u64) {
        if term > self.hard.term {
            self.adopt_term(turn, term, Some(from));
        }
        if term < self.hard.term || self.role != Role::Follower {
            self.send(turn, from, Body::Refused { newer: None }, After::HardState);
            return;
        }
        if let Some(lease) = self.settings.lease {
            let ceded = self.election.cession.is_some_and(|c| c.leader == from && c.term == term);
            if ceded {
                return;
            }
            let until = turn.now + lease.duration;
            self.election.loyal_until = self.election.loyal_until.max(Some(until));
        }
        self.send(turn, from, Body::Confirmed { round }, After::HardState);
    }

    pub(crate) fn on_confirmed(
        &mut self,
        turn: &mut Turn<'_>,
        from: NodeId,
        term: Term,
        round: u64,
    ) {
        if term > self.hard.term {
            self.adopt_term(turn, term, None);
            return;
        }
        if term < self.hard.term || self.role != Role::Ready {
            return;
        }
        if let Some(peer) = self.leading.as_mut().and_then(|leading| leading.progress_mut(from)) {
            peer.confirmed_round = peer.confirmed_round.max(round);
        }
        self.count_confirmations(turn);
    }

    pub(crate) fn count_confirmations(&mut self, turn: &mut Turn<'_>) {
        let lease = self.settings.lease;
        let Some(leading) = &self.leading else { return };
        let Some((began, index)) = leading.reads.under_way else { return };
        let round = leading.reads.round;
        let confirmed = self.durability.is_hard_state_synced()
            && self.hard.config.is_quorum(|node| {
                node == self.node
                    || leading.progress(node).is_some_and(|peer| peer.confirmed_round >= round)
            });
        if !confirmed {
            return;
        }
        let Some(leading) = &mut self.leading else { return };
        let reads = &mut leading.reads;
        reads.under_way = None;
        reads.retry_at = None;
        reads.lease_until = lease.map(|lease| {
            let drift = lease.duration.as_micros() * u128::from(lease.drift_ppm) / 1_000_000;
            let drift = Duration::from_micros(u64::try_from(drift).unwrap_or(u64::MAX));
            began + lease.duration.saturating_sub(drift)
        });
        for read in reads.asked.drain(..) {
            turn.effects.push(Effect::ReadReady { read, index });
        }
        self.serve_reads(turn);
    }

    /// The leadership is over: nobody confirms it any more.
    pub(crate) fn refuse_reads(&mut self, turn: &mut Turn<'_>) {
        if let Some(leading) = &mut self.leading {
            let reads = &mut leading.reads;
            for read in reads.asked.drain(..).chain(reads.waiting.drain(..)) {
                turn.effects.push(Effect::ReadRefused { read });
            }
            reads.under_way = None;
        }
    }
}
