//! Replicas whose log may have lost its tail: how they come to count again
//! (docs/internals/consensus.md#lost-tails).

use std::collections::BTreeSet;

use crate::core::{Core, Turn};
use crate::durability::After;
use crate::mutants::broken;
use crate::{
    Answer, Body, ConfigRegister, Effect, Epoch, History, LogPosition, NodeId, RejoinTarget, Role,
    Term,
};

/// A leader's word of what has to be here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct HeldGrant {
    term: Term,
    target: RejoinTarget,
}

/// No node loses its power this often.
const VOID: Epoch = 1 << 63;

/// Names the loss of a replica that gave its past up for this history, which it does once.
pub(crate) fn void_epoch(history: History) -> Epoch {
    VOID | Epoch::from(history)
}

/// An operator's order to go on without some voters.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Forced {
    pub(crate) dead: BTreeSet<NodeId>,
    /// The order is void once the history moved on.
    expect_history: History,
    /// No other order ever has it.
    pub(crate) number: u32,
}

/// The number of the order in whose time a term is: the upper half of the term. The dead cannot be
/// asked what they voted for, so an election by an order takes a term that none of them can have
/// used. No group counts this far by itself.
pub(crate) fn order_of(term: Term) -> u64 {
    term >> 32
}

/// The configuration without these voters. Each list of a joint configuration is thinned on its
/// own, for a quorum of one merged list would not meet every quorum of both.
fn without(config: &ConfigRegister, dead: &[NodeId]) -> ConfigRegister {
    let alive = |nodes: &[NodeId]| -> Vec<NodeId> {
        nodes.iter().copied().filter(|node| !dead.contains(node)).collect()
    };
    let mut rest = ConfigRegister {
        stamp: config.stamp,
        voters: alive(&config.voters),
        outgoing: alive(&config.outgoing),
        learners: alive(&config.learners),
    };
    if rest.voters.is_empty() {
        rest.voters = std::mem::take(&mut rest.outgoing);
    }
    rest
}

impl Core {
    /// A member told whether it recovers. The target is named when a loss is first heard of in this
    /// term, and only by a leader that has everything.
    pub(crate) fn on_member_recovering(
        &mut self,
        turn: &mut Turn<'_>,
        from: NodeId,
        recovering: Option<Epoch>,
    ) {
        let target = self.log.last();
        let Some(peer) = self.leading.as_mut().and_then(|leading| leading.progress_mut(from))
        else {
            return;
        };
        if peer.recovering == recovering {
            return;
        }
        peer.recovering = recovering;
        peer.grant = recovering.map(|epoch| RejoinTarget { epoch, target });
        if let Some(grant) = peer.grant {
            self.send(turn, from, Body::RejoinGrant(grant), After::HardState);
        }
    }

    pub(crate) fn on_rejoin_grant(
        &mut self,
        turn: &mut Turn<'_>,
        from: NodeId,
        term: Term,
        target: RejoinTarget,
    ) {
        let mine = self.recovering == Some(target.epoch)
            || (broken!(self, W03GrantWithoutEpoch) && self.recovering.is_some());
        let current = term >= self.hard.term || broken!(self, W05GrantOfOlderTerm);
        if !mine || !current {
            return;
        }
        if term > self.hard.term {
            self.adopt_term(turn, term, Some(from));
        }
        self.grant = Some(HeldGrant { term, target });
        self.try_rejoin(turn);
    }

    /// Counts again once the log has what the leader named: by log matching it then has all that
    /// was acknowledged before the loss.
    pub(crate) fn try_rejoin(&mut self, turn: &mut Turn<'_>) {
        let (Some(grant), Some(epoch)) = (self.grant, self.recovering) else { return };
        if grant.term < self.hard.term && !broken!(self, W05GrantOfOlderTerm) {
            self.grant = None;
            return;
        }
        let target = grant.target.target;
        let reached = target.index <= self.log.floor().index || self.log.contains(target);
        if !reached && !broken!(self, W08RejoinWithoutLog) {
            return;
        }
        if self.hard.void && !self.durability.is_all_written() {
            // Saying that nothing is missing here has to wait until nothing is.
            return;
        }
        self.rejoined(turn, epoch);
        if let Some(leader) = self.leader.filter(|leader| *leader != self.node) {
            self.send_ack(turn, leader, Ok(self.verified));
        }
    }

    pub(crate) fn rejoined(&mut self, turn: &mut Turn<'_>, epoch: Epoch) {
        self.grant = None;
        self.recovering = None;
        if self.hard.void {
            self.hard.void = false;
            self.save(turn);
        }
        self.tell_rejoined(turn, epoch);
        // The longer delay of a recovering replica is over.
        if self.role == Role::Follower && self.election.deadline.is_some() {
            self.await_election(turn);
        }
    }

    /// Lets the host remember that the loss of its node is made good.
    pub(crate) fn tell_rejoined(&mut self, turn: &mut Turn<'_>, epoch: Epoch) {
        if epoch < VOID {
            // The entry that completes the target may still be on its way to the disk.
            self.hold(turn, Effect::Rejoined { epoch }, After::Writes);
        }
    }

    pub(crate) fn on_force_recover(
        &mut self,
        turn: &mut Turn<'_>,
        dead: BTreeSet<NodeId>,
        expect_history: History,
        newest: &ConfigRegister,
        number: u32,
    ) {
        let own = &self.hard.config;
        let config = if newest.stamp > own.stamp { newest } else { own };
        let possible = expect_history == self.hard.history
            && number > self.hard.history
            && u64::from(number) > order_of(self.hard.term.max(config.stamp.term))
            && config.is_voter(self.node)
            && !dead.contains(&self.node)
            && self.role != Role::Ready;
        if !possible {
            return;
        }
        self.learn_config(turn, Some(newest));
        if self.leading.is_some() {
            self.announce_cession(turn, None);
            self.leave_leadership(turn);
        }
        // Always by a new election: one of the dead may have helped to elect another in this term.
        self.election.forced = Some(Box::new(Forced { dead, expect_history, number }));
        self.on_stand(turn, true);
    }

    /// The term to stand in next.
    pub(crate) fn next_term(&self) -> Term {
        let next = self.hard.term + 1;
        self.order().map_or(next, |order| next.max(u64::from(order.number) << 32))
    }

    /// The operator's order, while it is in force.
    fn order(&self) -> Option<&Forced> {
        self.election.forced.as_deref().filter(|order| {
            order.expect_history == self.hard.history
                && u64::from(order.number) >= order_of(self.hard.term)
        })
    }

    /// The order, as far as it counts in an election or a sync phase of this term.
    pub(crate) fn order_for(&self, term: Term) -> Option<&Forced> {
        self.order().filter(|order| u64::from(order.number) == order_of(term))
    }

    /// True when somebody answered whose history the operator had not seen.
    pub(crate) fn order_is_outdated(&self, answers: &[(NodeId, Answer)]) -> bool {
        self.order_for(self.hard.term).is_some_and(|order| {
            answers.iter().any(|(_, answer)| answer.history > order.expect_history)
        })
    }

    /// Once the rest of the voters, by a majority of their own, hold the chosen log and the
    /// re-stamped configuration, the dead are dropped from it. Not before: a majority of the rest
    /// that lacks the log could elect a leader without it.
    pub(crate) fn drop_the_dead(&mut self, turn: &mut Turn<'_>) {
        let Some(leading) = self.leading.as_ref().filter(|leading| !leading.dead.is_empty()) else {
            return;
        };
        let rest = without(&self.hard.config, &leading.dead);
        if self.role == Role::Ready && self.holds(&rest) {
            if let Some(leading) = &mut self.leading {
                leading.dead.clear();
            }
            self.enter_config(turn, rest);
        }
    }

    /// Whether those who are needed can be reached.
    pub(crate) fn reaches_quorum(&self) -> bool {
        let reached = |node: NodeId| node == self.node || self.is_up(node);
        let config = &self.hard.config;
        let Some(leading) = &self.leading else { return false };
        if !leading.dead.is_empty() {
            return without(config, &leading.dead).is_quorum(reached);
        }
        match self.order_for(self.hard.term).filter(|_| self.role == Role::Syncing) {
            Some(order) => config.is_everyone(|node| reached(node) || order.dead.contains(&node)),
            None => config.is_quorum(reached),
        }
    }

    /// Wrong on purpose (W8): normal again upon the first word of a leader.
    pub(crate) fn break_w08(&mut self, turn: &mut Turn<'_>) {
        if broken!(self, W08RejoinOnContact)
            && let Some(epoch) = self.recovering
        {
            self.rejoined(turn, epoch);
        }
    }

    /// Wrong on purpose (W9): normal again once the log of any one peer is here.
    pub(crate) fn break_w09(&mut self, turn: &mut Turn<'_>, last: LogPosition) {
        if broken!(self, W09RejoinFromAnyPeer)
            && let Some(epoch) = self.recovering
            && self.log.contains(last)
        {
            self.rejoined(turn, epoch);
        }
    }

    /// Wrong on purpose (W10): targets named by a leader that does not know yet what there is.
    pub(crate) fn grant_to_all(&mut self, turn: &mut Turn<'_>) {
        let target = self.log.last();
        let answers = self.leading.as_ref().map(|leading| leading.sync.answers.clone());
        for (node, answer) in answers.unwrap_or_default() {
            if let Some(epoch) = answer.recovering {
                let grant = Body::RejoinGrant(RejoinTarget { epoch, target });
                self.send(turn, node, grant, After::HardState);
            }
        }
    }
}
