//! Replicas whose log may have lost its tail: how they come to count again (design, sections 8 and
//! 9).

use std::collections::BTreeSet;

use crate::core::{Core, Turn};
use crate::durability::After;
use crate::mutants::broken;
use crate::{
    Body, ConfigRegister, Effect, Epoch, History, LogPosition, NodeId, RejoinTarget, Role, Term,
};

/// A leader's word of what has to be here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct HeldGrant {
    term: Term,
    target: RejoinTarget,
}

/// An operator's order to go on without some voters.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Forced {
    pub(crate) dead: BTreeSet<NodeId>,
}

impl Forced {
    /// The configuration in which the dead are no members: they come back as new ones only.
    pub(crate) fn without_the_dead(&self, config: &ConfigRegister) -> ConfigRegister {
        let alive = |nodes: &[NodeId]| -> Vec<NodeId> {
            nodes.iter().copied().filter(|node| !self.dead.contains(node)).collect()
        };
        let mut voters = alive(&config.voters);
        voters.extend(alive(&config.outgoing));
        voters.sort_unstable();
        voters.dedup();
        let mut stamp = config.stamp;
        stamp.version += 1;
        ConfigRegister { stamp, voters, outgoing: Vec::new(), learners: alive(&config.learners) }
    }
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
        self.rejoined(turn, epoch);
        if let Some(leader) = self.leader.filter(|leader| *leader != self.node) {
            self.send_ack(turn, leader, Ok(self.verified));
        }
    }

    pub(crate) fn rejoined(&mut self, turn: &mut Turn<'_>, epoch: Epoch) {
        self.grant = None;
        self.recovering = None;
        turn.effects.push(Effect::Rejoined { epoch });
        // The longer delay of a recovering replica is over.
        if self.role == Role::Follower && self.election.deadline.is_some() {
            self.await_election(turn);
        }
    }

    pub(crate) fn on_force_recover(
        &mut self,
        turn: &mut Turn<'_>,
        dead: BTreeSet<NodeId>,
        expect_history: History,
    ) {
        let config = &self.hard.config;
        let possible = expect_history == self.hard.history
            && config.is_voter(self.node)
            && !dead.contains(&self.node)
            && self.role != Role::Ready;
        if !possible {
            return;
        }
        self.election.forced = Some(Box::new(Forced { dead }));
        if self.role == Role::Syncing {
            self.go_on_syncing(turn);
        } else {
            self.on_stand(turn, true);
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
