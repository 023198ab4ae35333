//! Giving leadership up, to somebody or to whoever wins
//! (docs/internals/consensus.md#giving-leadership-up).

use crate::core::{Core, Turn};
use crate::leading::Transfer;
use crate::mutants::broken;
use crate::{Body, Cession, Effect, Message, NodeId, Role, Term};

impl Core {
    /// Ends the own leadership for good and says so.
    pub(crate) fn cede(&mut self, turn: &mut Turn<'_>, successor: Option<NodeId>) {
        if self.leading.is_none() {
            return;
        }
        self.announce_cession(turn, successor);
        self.leave_leadership(turn);
        self.set_role(turn, Role::Follower, None);
        // The others go first.
        let (min, max) = (self.settings.election_delay_min, self.settings.election_delay_max);
        let first = max + self.settings.round_timeout + self.reluctance();
        self.election.deadline = Some(turn.now + first + self.jitter.between(min, max));
    }

    /// Tells all members. The term was made durable before it was led, so nothing need be awaited.
    pub(crate) fn announce_cession(&mut self, turn: &mut Turn<'_>, successor: Option<NodeId>) {
        for to in self.hard.config.members() {
            if to != self.node {
                turn.effects.push(Effect::Send(Message {
                    group: self.group,
                    creation: self.creation,
                    from: self.node,
                    to,
                    term: self.hard.term,
                    body: Body::Cede { successor },
                }));
            }
        }
    }

    /// Forgets what only a leader keeps.
    pub(crate) fn leave_leadership(&mut self, turn: &mut Turn<'_>) {
        if self.leading.is_none() {
            return;
        }
        self.refuse_reads(turn);
        // Kept, for those whom the announcement does not reach.
        self.election.cession = Some(Cession { leader: self.node, term: self.hard.term });
        if let Some(leading) = self.leading.take() {
            if broken!(self, W19LeaseOutlivesCession) {
                self.election.loyal_until = leading.reads.lease_until;
            }
            if let Some(transfer) = leading.transfer
                && self.role == Role::Ready
            {
                let done = leading
                    .progress
                    .iter()
                    .any(|peer| peer.node == transfer.to && peer.acked == self.log.last().index);
                if !done {
                    turn.effects.push(Effect::TransferAbandoned { to: transfer.to });
                }
            }
        }
        for sending in std::mem::take(&mut self.sending) {
            if let Some(id) = sending.id {
                turn.effects.push(Effect::SnapshotClose { to: sending.to, id });
            }
        }
        self.quiesced = false;
    }

    pub(crate) fn on_cede(
        &mut self,
        turn: &mut Turn<'_>,
        from: NodeId,
        term: Term,
        successor: Option<NodeId>,
    ) {
        if term < self.hard.term || (term == self.hard.term && self.leading.is_some()) {
            return;
        }
        if term > self.hard.term {
            self.adopt_term(turn, term, None);
        }
        if self.leader.is_some_and(|leader| leader != from) || self.role == Role::Candidate {
            return;
        }
        let cession = Cession { leader: from, term };
        self.election.cession = Some(cession);
        // It stopped to rely on its lease before it said so.
        self.election.loyal_until = None;
        self.election.round = None;
        self.quiesced = false;
        self.set_role(turn, Role::Follower, None);
        if successor == Some(self.node) && self.hard.config.is_voter(self.node) {
            self.stand(turn, term + 1, Some(cession));
        } else {
            self.await_election(turn);
            if successor.is_some()
                && let Some(deadline) = &mut self.election.deadline
            {
                *deadline = *deadline + self.settings.round_timeout;
            }
        }
    }

    pub(crate) fn on_transfer(&mut self, turn: &mut Turn<'_>, to: NodeId, force: bool) {
        let possible = to != self.node && self.hard.config.is_voter(to) && self.is_up(to);
        let deadline = turn.now + self.settings.election_timeout;
        let ready = self.role == Role::Ready;
        let Some(leading) = self.leading.as_mut().filter(|_| possible && (force || ready)) else {
            turn.effects.push(Effect::TransferAbandoned { to });
            return;
        };
        if force {
            self.cede(turn, Some(to));
        } else {
            if let Some(other) = leading.transfer.replace(Transfer { to, deadline })
                && other.to != to
            {
                turn.effects.push(Effect::TransferAbandoned { to: other.to });
            }
            self.wake(turn);
            self.finish_transfer(turn);
        }
    }

    /// Cedes as soon as the successor has everything and the barrier is committed: then the
    /// successor has nothing to fetch.
    pub(crate) fn finish_transfer(&mut self, turn: &mut Turn<'_>) {
        let last = self.log.last().index;
        let Some(leading) = self.leading.as_ref() else { return };
        let Some(transfer) = &leading.transfer else { return };
        let to = transfer.to;
        let has_all = leading.progress(to).is_some_and(|peer| peer.acked == last);
        if has_all && leading.serving && self.commit == last {
            self.cede(turn, Some(to));
        }
    }

    /// Nothing was handed over yet, so the leader simply goes on.
    pub(crate) fn abandon_transfer(&mut self, turn: &mut Turn<'_>) {
        let transfer = self.leading.as_mut().and_then(|leading| leading.transfer.take());
        if let Some(transfer) = transfer {
            turn.effects.push(Effect::TransferAbandoned { to: transfer.to });
        }
    }
}
