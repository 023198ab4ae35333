//! Scouting, votes, and loyalty to a living leader (docs/internals/consensus.md#election).

use std::sync::Arc;
use std::time::Duration;

use crate::core::{Core, Turn};
use crate::durability::After;
use crate::leading::Leading;
use crate::mutants::broken;
use crate::recovery::{Forced, order_of};
use crate::{
    Answer, Body, Cession, ConfigRegister, ConfigStamp, LogPosition, NodeId, Role, Term, Time,
};

/// What a replica keeps for elections.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Election {
    /// When to act: scout as a follower, give a round up as a scout or candidate.
    pub(crate) deadline: Option<Time>,
    pub(crate) round: Option<Box<Round>>,
    /// A better replica was let go first once; not again.
    pub(crate) deferred: bool,
    /// The newest cession heard of.
    pub(crate) cession: Option<Cession>,
    /// Others go first, by far.
    pub(crate) reluctant: bool,
    /// Loyalty that a lease promised, whatever is known of the leader.
    pub(crate) loyal_until: Option<Time>,
    /// An operator's order to go on without some voters.
    pub(crate) forced: Option<Box<Forced>>,
    /// Rounds that were too short for voters that live, or split the votes: each doubles the time
    /// for the next, and the delays before it.
    pub(crate) too_short: u8,
}

/// A reluctant replica waits for this many of the longest delays of others before its own.
const RELUCTANCE: u32 = 4;

/// How often the time for a round is doubled at most.
const MAX_DOUBLED: u8 = 3;

/// One attempt to become the leader.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Round {
    /// The term stood for.
    pub(crate) next: Term,
    /// Who would vote, or did.
    pub(crate) granted: Vec<NodeId>,
    /// Who answered at all.
    answered: Vec<NodeId>,
    /// Leaderships that others are loyal to.
    loyalties: Vec<Cession>,
    /// Leaderships that are over for sure.
    ceded: Vec<Cession>,
    /// A replica that would vote has more, and all of it.
    outrun: bool,
    /// Asked for by an operator or a ceding leader: no other goes first.
    chosen: bool,
    /// Shown to those who are loyal.
    cession: Option<Cession>,
    /// What the voters of this round have, their answers to a sync request in advance.
    pub(crate) answers: Vec<(NodeId, Answer)>,
}

/// The content of a scout's answer.
pub(crate) struct ScoutAnswer {
    pub(crate) granted: bool,
    pub(crate) last: LogPosition,
    pub(crate) recovering: bool,
    pub(crate) leader: Option<Cession>,
    pub(crate) ceded: Option<Cession>,
}

impl Core {
    pub(crate) fn on_started(&mut self, turn: &mut Turn<'_>) {
        // A voter that restarted cannot know what it promised within the last lease.
        self.election.loyal_until = self.settings.lease.map(|lease| turn.now + lease.duration);
        if self.hard.void {
            self.reset_disk(turn);
        }
        if broken!(self, W18ResumeLeadership) && self.hard.voted_for == Some(self.node) {
            self.resume_leadership(turn);
            return;
        }
        let config = &self.hard.config;
        if config.is_quorum(|node| node == self.node) {
            // Nobody else could refuse, so there is nobody to ask.
            self.stand(turn, self.next_term(), None);
        } else {
            self.await_election(turn);
        }
    }

    /// Draws the delay before this replica scouts, if it may lead at all.
    pub(crate) fn await_election(&mut self, turn: &mut Turn<'_>) {
        self.election.deadline = None;
        if self.hard.config.is_voter(self.node) && !self.follows_living_leader() {
            let (min, max) = (self.settings.election_delay_min, self.settings.election_delay_max);
            // Recovering replicas lead only when nobody else does.
            let rank = if self.recovering.is_some() { 3 } else { 1 };
            // Two that stand before they hear of each other split the votes.
            let max = max * (1 << self.election.too_short);
            let delay = self.jitter.between(min, max) * rank;
            self.election.deadline = Some(turn.now + self.reluctance() + delay);
        }
    }

    /// How much longer this replica waits because it should not lead.
    pub(crate) fn reluctance(&self) -> Duration {
        let waits = if self.election.reluctant { RELUCTANCE } else { 0 };
        self.settings.election_delay_max * waits
    }

    pub(crate) fn on_reluctant(&mut self, turn: &mut Turn<'_>, reluctant: bool) {
        let before = std::mem::replace(&mut self.election.reluctant, reluctant);
        if before != reluctant && self.role == Role::Follower && self.election.deadline.is_some() {
            self.await_election(turn);
        }
    }

    /// True when the next tick lets a follower stand for election, or ends a round.
    pub(crate) fn is_election_due(&self, now: Time) -> bool {
        self.election.deadline.is_some_and(|deadline| deadline <= now)
    }

    fn follows_living_leader(&self) -> bool {
        self.leader.is_some_and(|leader| leader != self.node && self.is_up(leader))
    }

    pub(crate) fn on_election_deadline(&mut self, turn: &mut Turn<'_>) {
        match self.role {
            Role::Follower => {
                if !self.follows_living_leader() && self.hard.config.is_voter(self.node) {
                    let cession = self.election.cession;
                    self.scout(turn, cession, false);
                }
            }
            // The round begins when the own vote is on the disk, however slow that is.
            Role::Candidate if !self.durability.is_hard_state_synced() => {
                self.election.deadline = Some(turn.now + self.round_time());
            }
            Role::Scout | Role::Candidate => {
                // Nobody won, or the votes were split: each waits for another while.
                if self.is_unanswered() {
                    self.election.too_short = MAX_DOUBLED.min(self.election.too_short + 1);
                }
                self.election.round = None;
                self.set_role(turn, Role::Follower, None);
                self.await_election(turn);
            }
            Role::Syncing | Role::Ready | Role::Failed => {}
        }
    }

    /// Somebody was elected. What was slow may be so no more; if it still is, that costs one round.
    pub(crate) fn elections_succeed(&mut self) {
        self.election.too_short = self.election.too_short.saturating_sub(1);
    }

    /// How long answers are waited for. Links may be slower than anybody has configured.
    fn round_time(&self) -> Duration {
        self.settings.round_timeout * (1 << self.election.too_short)
    }

    /// Whether a voter that lives has not said yet what it would do, or did not vote.
    fn is_unanswered(&self) -> bool {
        self.election.round.as_ref().is_some_and(|round| {
            let scouts = self.role == Role::Scout;
            let heard = if scouts { &round.answered } else { &round.granted };
            self.other_voters().iter().any(|voter| self.is_up(*voter) && !heard.contains(voter))
        })
    }

    pub(crate) fn on_stand(&mut self, turn: &mut Turn<'_>, scout: bool) {
        if !self.hard.config.is_voter(self.node) || self.leading.is_some() {
            return;
        }
        if scout {
            self.scout(turn, self.election.cession, true);
        } else {
            self.stand(turn, self.next_term(), self.election.cession);
        }
    }

    /// Asks all voters whether they would vote, without any of them changing.
    fn scout(&mut self, turn: &mut Turn<'_>, cession: Option<Cession>, chosen: bool) {
        let next = self.next_term();
        self.election.round = Some(Box::new(Round {
            next,
            granted: vec![self.node],
            answered: vec![self.node],
            cession,
            chosen,
            ..Round::default()
        }));
        self.set_role(turn, Role::Scout, None);
        self.quiesced = false;
        self.election.deadline = Some(turn.now + self.round_time());
        let (config, last) = (self.hard.config.stamp, self.log.last());
        for peer in self.other_voters() {
            self.send(turn, peer, Body::Scout { next, config, last, cession }, After::HardState);
        }
        self.count_scouting(turn);
    }

    pub(crate) fn other_voters(&self) -> Vec<NodeId> {
        let config = &self.hard.config;
        let mut voters: Vec<NodeId> =
            config.voters.iter().chain(&config.outgoing).copied().collect();
        voters.sort_unstable();
        voters.dedup();
        voters.retain(|voter| *voter != self.node);
        voters
    }

    /// The leadership that forbids a vote for `candidate` in the term `next`: one that is alive and
    /// was not ceded.
    fn loyalty(
        &self,
        now: Time,
        candidate: NodeId,
        next: Term,
        cession: Option<Cession>,
    ) -> Option<Cession> {
        // An order needs the vote of everybody who is left, and so of a leader that serves. One
        // that waits for the dead to tell what they have must not be in its way.
        let by_order = order_of(next) > order_of(self.hard.term);
        if self.leading.is_some() && !(by_order && self.role == Role::Syncing) {
            return Some(Cession { leader: self.node, term: self.hard.term });
        }
        let leader = self.leader.filter(|_| self.role == Role::Follower)?;
        let mine = Cession { leader, term: self.hard.term };
        // A leader that stands again has ended its leadership, and proof of a cession is proof.
        if leader == candidate || cession == Some(mine) {
            return None;
        }
        let leased = self.election.loyal_until.is_some_and(|until| now < until);
        (leased || self.is_up(leader) && !by_order).then_some(mine)
    }

    /// A lease forbids votes even when the leader that it was given to is forgotten.
    fn is_leased(&self, now: Time, candidate: NodeId, cession: Option<Cession>) -> bool {
        let ceded = cession.is_some_and(|shown| {
            shown.term == self.hard.term && self.leader.is_none_or(|leader| leader == shown.leader)
        });
        self.election.loyal_until.is_some_and(|until| now < until)
            && !ceded
            && self.leader != Some(candidate)
    }

    fn newer_than(&self, stamp: ConfigStamp) -> Option<Arc<ConfigRegister>> {
        (self.hard.config.stamp > stamp).then(|| Arc::new(self.hard.config.clone()))
    }

    pub(crate) fn on_scout(
        &mut self,
        turn: &mut Turn<'_>,
        from: NodeId,
        next: Term,
        config: ConfigStamp,
        last: LogPosition,
        cession: Option<Cession>,
    ) {
        self.break_w09(turn, last);
        let newer = self.newer_than(config);
        let leader = self.loyalty(turn.now, from, next, cession);
        let granted = next > self.hard.term
            && newer.is_none()
            && leader.is_none()
            && !self.is_leased(turn.now, from, cession);
        let reply = Body::ScoutReply {
            next,
            granted,
            last: self.log.last(),
            recovering: self.recovering.is_some(),
            leader,
            ceded: self.election.cession,
            newer,
        };
        self.send(turn, from, reply, After::HardState);
        if self.role == Role::Ready && leader.is_some() {
            // Whoever asks follows nobody any more. A leader at rest would not speak to it again.
            self.wake(turn);
            self.send_empty(turn, from);
        }
        if let Some(Cession { leader: followed, .. }) = leader
            && next > self.hard.term + 1
            && followed != self.node
        {
            // A later term than the own was led: the leader followed here may have gone on without
            // a word, for whom it left out of the group in between.
            self.send(turn, followed, Body::Wake, After::HardState);
        }
    }

    pub(crate) fn on_scout_reply(
        &mut self,
        turn: &mut Turn<'_>,
        from: NodeId,
        term: Term,
        next: Term,
        answer: &ScoutAnswer,
    ) {
        let own = self.log.last();
        let Some(round) = self.election.round.as_mut().filter(|round| {
            self.role == Role::Scout && round.next == next && !round.answered.contains(&from)
        }) else {
            return;
        };
        if !answer.granted && term >= next {
            // Refusing without telling why would leave this one behind for ever.
            let (cession, chosen) = (round.cession, round.chosen);
            self.adopt_term(turn, term, None);
            self.scout(turn, cession, chosen);
            return;
        }
        round.answered.push(from);
        if answer.granted {
            round.granted.push(from);
            round.outrun |= answer.last > own && !answer.recovering;
        }
        round.loyalties.extend(answer.leader);
        round.ceded.extend(answer.ceded);
        self.count_scouting(turn);
    }

    fn count_scouting(&mut self, turn: &mut Turn<'_>) {
        let Some(round) = &self.election.round else { return };
        if self.is_quorum_for_me(round) {
            if round.outrun && !round.chosen && !self.election.deferred {
                // Somebody has more: it goes first, this once.
                self.election.deferred = true;
                self.election.round = None;
                self.set_role(turn, Role::Follower, None);
                self.await_election(turn);
                return;
            }
            let (next, cession) = (round.next, round.cession);
            self.stand(turn, next, cession);
            return;
        }
        // Somebody is loyal to a leader that has ceded: the news was lost, and is brought now.
        let over = round
            .loyalties
            .iter()
            .find(|loyalty| round.ceded.contains(loyalty) && round.cession != Some(**loyalty));
        if let Some(over) = over.copied() {
            let chosen = round.chosen;
            self.scout(turn, Some(over), chosen);
        }
    }

    /// A majority of the configuration; or, by an operator's order, everybody who is not dead.
    fn is_quorum_for_me(&self, round: &Round) -> bool {
        let granted = |node: NodeId| round.granted.contains(&node);
        match self.order_for(round.next) {
            Some(order) => {
                self.hard.config.is_everyone(|node| granted(node) || order.dead.contains(&node))
            }
            None => self.hard.config.is_quorum(granted),
        }
    }

    /// Stands in this term: the own vote first, durably, then the question to the others.
    pub(crate) fn stand(&mut self, turn: &mut Turn<'_>, next: Term, cession: Option<Cession>) {
        if self.is_leased(turn.now, self.node, cession) {
            // The own vote is promised to somebody else for a while.
            self.set_role(turn, Role::Follower, None);
            self.election.round = None;
            self.election.deadline = self.election.loyal_until;
            return;
        }
        self.leave_leadership(turn);
        self.raise_term(turn, next);
        self.hard.voted_for = Some(self.node);
        self.save(turn);
        self.election.round = Some(Box::new(Round { next, cession, ..Round::default() }));
        self.quiesced = false;
        self.set_role(turn, Role::Candidate, None);
        self.election.deadline = Some(turn.now + self.round_time());
        let config = self.hard.config.stamp;
        for peer in self.other_voters() {
            self.send(turn, peer, Body::Propose { config, cession }, After::HardState);
        }
        if broken!(self, W04TermNotDurable) {
            self.count_votes(turn);
        }
    }

    /// Goes on in this term as a follower. Whatever was led or awaited before is over.
    pub(crate) fn adopt_term(&mut self, turn: &mut Turn<'_>, term: Term, leader: Option<NodeId>) {
        if self.leading.is_some() {
            self.announce_cession(turn, None);
        }
        self.leave_leadership(turn);
        self.raise_term(turn, term);
        self.election.round = None;
        self.quiesced = false;
        self.set_role(turn, Role::Follower, leader);
        self.await_election(turn);
    }

    /// Raises the term durably, and drops what was true for the old one only.
    fn raise_term(&mut self, turn: &mut Turn<'_>, term: Term) {
        if term <= self.hard.term {
            return;
        }
        self.hard.term = term;
        self.hard.voted_for = None;
        self.verified = 0;
        if !broken!(self, W05GrantOfOlderTerm) {
            self.grant = None;
        }
        self.fetch_read = None;
        self.drop_held_before(term);
        self.save(turn);
    }

    pub(crate) fn on_propose(
        &mut self,
        turn: &mut Turn<'_>,
        from: NodeId,
        term: Term,
        config: ConfigStamp,
        cession: Option<Cession>,
    ) {
        let newer = if broken!(self, W14VoteForAnyConfig) { None } else { self.newer_than(config) };
        if newer.is_some() || term < self.hard.term {
            self.send(turn, from, Body::Refused { newer }, After::HardState);
            return;
        }
        if term == self.hard.term {
            // The answer was lost: it is given again, to the same candidate only.
            if self.hard.voted_for == Some(from) && self.role == Role::Follower {
                self.send_answer(turn, from, true);
            }
            return;
        }
        if self.loyalty(turn.now, from, term, cession).is_some()
            || self.is_leased(turn.now, from, cession)
        {
            self.send(turn, from, Body::Refused { newer: None }, After::HardState);
            return;
        }
        self.adopt_term(turn, term, None);
        self.hard.voted_for = Some(from);
        self.save(turn);
        self.send_answer(turn, from, true);
    }

    /// Tells what this replica has, as a vote or in answer to a sync request.
    pub(crate) fn send_answer(&mut self, turn: &mut Turn<'_>, to: NodeId, vote: bool) {
        let answer = self.own_answer(vote);
        self.send(turn, to, Body::Reply(answer), After::Writes);
    }

    pub(crate) fn own_answer(&self, vote: bool) -> Answer {
        Answer {
            vote,
            first: self.log.first(),
            last: self.log.last(),
            commit: self.commit,
            recovering: self.recovering,
            history: self.hard.history,
        }
    }

    pub(crate) fn on_reply(
        &mut self,
        turn: &mut Turn<'_>,
        from: NodeId,
        term: Term,
        answer: Answer,
    ) {
        if term > self.hard.term {
            self.adopt_term(turn, term, None);
            return;
        }
        if term < self.hard.term {
            return;
        }
        match self.role {
            Role::Candidate => {
                let Some(round) = &mut self.election.round else { return };
                if answer.vote && !round.granted.contains(&from) {
                    round.granted.push(from);
                }
                if !round.answers.iter().any(|(node, _)| *node == from) {
                    round.answers.push((from, answer));
                }
                self.count_votes(turn);
            }
            Role::Syncing => self.on_sync_answer(turn, from, answer),
            Role::Follower | Role::Scout | Role::Ready | Role::Failed => {}
        }
    }

    /// Counts the votes, the own one only once it is on the disk.
    pub(crate) fn count_votes(&mut self, turn: &mut Turn<'_>) {
        if !self.durability.is_hard_state_synced() && !broken!(self, W04TermNotDurable) {
            return;
        }
        let node = self.node;
        let Some(round) = &mut self.election.round else { return };
        if !round.granted.contains(&node) {
            round.granted.push(node);
        }
        let Some(round) = &self.election.round else { return };
        if !self.is_quorum_for_me(round) {
            return;
        }
        let answers = self.election.round.take().map(|round| round.answers).unwrap_or_default();
        self.election.deadline = None;
        self.election.deferred = false;
        self.leading = Some(Box::new(Leading::default()));
        self.set_role(turn, Role::Syncing, Some(node));
        self.watch_quorum(turn);
        self.begin_sync(turn, answers);
    }

    pub(crate) fn on_refused(
        &mut self,
        turn: &mut Turn<'_>,
        term: Term,
        newer: Option<&ConfigRegister>,
    ) {
        if term > self.hard.term {
            self.adopt_term(turn, term, None);
        }
        self.learn_config(turn, newer);
    }

    pub(crate) fn on_peer_down(&mut self, turn: &mut Turn<'_>, peer: NodeId) {
        if !self.down.contains(&peer) {
            self.down.push(peer);
        }
        if self.leading.is_some() {
            self.on_member_down(turn, peer);
        } else if self.role == Role::Follower && self.leader == Some(peer) {
            self.stop_sending_snapshot(turn, peer);
            self.await_election(turn);
        }
    }

    pub(crate) fn on_peer_up(&mut self, turn: &mut Turn<'_>, peer: NodeId, restarted: bool) {
        self.down.retain(|node| *node != peer);
        if self.leading.is_some() {
            self.on_member_up(turn, peer, restarted);
        } else if self.role == Role::Follower && self.leader == Some(peer) {
            if restarted {
                // A process that just started leads nothing.
                self.election.cession = Some(Cession { leader: peer, term: self.hard.term });
                self.quiesced = false;
                self.set_role(turn, Role::Follower, None);
            }
            self.await_election(turn);
        }
    }

    /// Takes the sender for the leader of its term, unless that term or configuration is over.
    pub(crate) fn follow(
        &mut self,
        turn: &mut Turn<'_>,
        from: NodeId,
        term: Term,
        config: ConfigStamp,
        newer: Option<&ConfigRegister>,
    ) -> bool {
        let outdated = self.newer_than(config).filter(|_| !broken!(self, W14VoteForAnyConfig));
        if term < self.hard.term || outdated.is_some() {
            self.send(turn, from, Body::Refused { newer: outdated }, After::HardState);
            return false;
        }
        if self.leading.is_some() && term == self.hard.term {
            // Two leaders of one term cannot be; whoever says so is not listened to.
            return false;
        }
        if term > self.hard.term {
            self.elections_succeed();
            self.adopt_term(turn, term, Some(from));
        } else if self.leader != Some(from) || self.role != Role::Follower {
            if self.election.cession == Some(Cession { leader: from, term }) {
                // Sent before it ceded, arrived after.
                return false;
            }
            self.election.round = None;
            self.elections_succeed();
            self.set_role(turn, Role::Follower, Some(from));
        }
        // Somebody leads, so an order to go on without others is not needed.
        self.election.forced = None;
        self.learn_config(turn, newer);
        self.election.deferred = false;
        self.election.deadline = None;
        if !self.is_up(from) {
            // It speaks, but the host says that it cannot be reached: the host knows the node.
            self.await_election(turn);
        }
        true
    }
}
