//! The configuration register: members change one at a time, or several at once through a joint
//! configuration (docs/internals/consensus.md#members).

use crate::core::{Core, Turn};
use crate::mutants::broken;
use crate::{ConfigRegister, ConfigStamp, Effect, Index, NodeId, Progress, Role, Time};

/// Voters that a group may have.
pub const MAX_VOTERS: usize = 15;

/// A change of members.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum MemberChange {
    /// Adds a member that receives the log and does not vote.
    AddLearner(NodeId),
    /// Removes a learner.
    RemoveLearner(NodeId),
    /// Makes a learner a voter, once it has nearly everything and does not recover.
    Promote(NodeId),
    /// Removes a voter, but not the leader: transfer first.
    RemoveVoter(NodeId),
    /// Changes several members at once: quorums need majorities of the old and the new voters until
    /// the change is complete, which the leader sees to by itself. New voters need not be learners
    /// first.
    Joint {
        /// The voters of after.
        voters: Vec<NodeId>,
        /// The learners of after.
        learners: Vec<NodeId>,
    },
}

/// Why members were not changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// Ask the leader.
    #[error("this node does not lead the group: retry at its leader, leader={leader:?}")]
    NotLeader {
        /// Who leads, where known.
        leader: Option<NodeId>,
    },
    /// The change before this one, or the leader's first entry, is not held by a majority yet.
    #[error("an earlier change is not complete yet: retry in a moment")]
    NotYet,
    /// The learner lacks too much, or recovers.
    #[error("the new member is still catching up: retry later, node={node} missing={missing}")]
    NotCaughtUp {
        /// The learner.
        node: NodeId,
        /// Entries that it lacks.
        missing: u64,
    },
    /// The leader cannot be removed, or made a learner, while it leads.
    #[error("the leader cannot leave while it leads: transfer the leadership first, node={node}")]
    LeaderMustStay {
        /// The leader.
        node: NodeId,
    },
    /// The members already are as asked, or are not what the change supposes.
    #[error("nothing to change: {why}")]
    Pointless {
        /// What is the matter.
        why: &'static str,
    },
    /// The change would leave no voter, or too many.
    #[error("a group has 1 to {MAX_VOTERS} voters, asked={asked}")]
    VoterCount {
        /// How many there would be.
        asked: usize,
    },
}

fn with(list: &[NodeId], node: NodeId) -> Vec<NodeId> {
    let mut list = list.to_vec();
    list.push(node);
    list.sort_unstable();
    list.dedup();
    list
}

fn without(list: &[NodeId], node: NodeId) -> Vec<NodeId> {
    list.iter().copied().filter(|member| *member != node).collect()
}

impl MemberChange {
    /// The configuration after this change, but for its stamp.
    fn apply(&self, config: &ConfigRegister) -> Result<ConfigRegister, ChangeError> {
        let mut next = config.clone();
        let pointless = |why| Err(ChangeError::Pointless { why });
        match self {
            Self::AddLearner(node) => {
                if config.is_member(*node) {
                    return pointless("it is a member already");
                }
                next.learners = with(&config.learners, *node);
            }
            Self::RemoveLearner(node) => {
                if !config.learners.contains(node) {
                    return pointless("it is no learner");
                }
                next.learners = without(&config.learners, *node);
            }
            Self::Promote(node) => {
                if !config.learners.contains(node) {
                    return pointless("it is no learner: add it as one first");
                }
                next.learners = without(&config.learners, *node);
                next.voters = with(&config.voters, *node);
            }
            Self::RemoveVoter(node) => {
                if !config.voters.contains(node) {
                    return pointless("it is no voter");
                }
                next.voters = without(&config.voters, *node);
            }
            Self::Joint { voters, learners } => {
                next.voters = ConfigRegister::of_voters(voters.iter().copied()).voters;
                next.learners = ConfigRegister::of_voters(learners.iter().copied()).voters;
                next.learners.retain(|learner| !next.voters.contains(learner));
                if next.voters == config.voters && next.learners == config.learners {
                    return pointless("these are the members already");
                }
                if next.voters != config.voters {
                    next.outgoing.clone_from(&config.voters);
                }
            }
        }
        let asked = next.voters.len();
        if !(1..=MAX_VOTERS).contains(&asked) {
            return Err(ChangeError::VoterCount { asked });
        }
        Ok(next)
    }
}

impl Core {
    /// Changes the members, as their leader. The change holds once a majority has it, which
    /// [`Self::config_held`] tells; a leader that fails before may take it back with it.
    ///
    /// # Errors
    /// [`ChangeError`]; nothing was changed.
    pub fn change_members(
        &mut self,
        now: Time,
        change: &MemberChange,
        effects: &mut Vec<Effect>,
    ) -> Result<ConfigStamp, ChangeError> {
        if self.role != Role::Ready {
            let leader = self.leader.filter(|leader| *leader != self.node);
            return Err(ChangeError::NotLeader { leader });
        }
        let next = change.apply(&self.hard.config)?;
        let dropping = self.leading.as_ref().is_some_and(|leading| !leading.dead.is_empty());
        if dropping || self.hard.config.is_joint() || !self.may_change() {
            return Err(ChangeError::NotYet);
        }
        if let MemberChange::Promote(node) = change {
            self.check_caught_up(*node)?;
        }
        if !next.is_voter(self.node)
            || (next.outgoing.is_empty() && !next.voters.contains(&self.node))
        {
            return Err(ChangeError::LeaderMustStay { node: self.node });
        }
        self.enter_config(&mut Turn { now, effects }, next);
        Ok(self.hard.config.stamp)
    }

    /// True when a quorum of the present configuration holds it, durably. Known to the leader.
    #[must_use]
    pub fn config_held(&self) -> bool {
        let stamp = self.hard.config.stamp;
        self.role == Role::Ready
            && self.durability.is_hard_state_synced()
            && self.leading.as_ref().is_some_and(|leading| {
                self.hard.config.is_quorum(|node| {
                    node == self.node
                        || leading.progress(node).is_some_and(|peer| peer.config == stamp)
                })
            })
    }

    /// True when the members of now have all that was ever committed, and hold the configuration:
    /// those who left it are not needed any more, and their data may be deleted. Known to the
    /// leader.
    #[must_use]
    pub fn change_complete(&self) -> bool {
        self.role == Role::Ready && !self.hard.config.is_joint() && self.may_change()
    }

    fn check_caught_up(&self, node: NodeId) -> Result<(), ChangeError> {
        let last = self.log.last().index;
        let window = u64::from(self.settings.window_entries);
        let peer = self.leading.as_ref().and_then(|leading| leading.progress(node));
        let missing = peer.map_or(last, |peer| last.saturating_sub(peer.acked));
        let recovering = peer.is_none_or(|peer| peer.recovering.is_some());
        if missing >= window || recovering {
            return Err(ChangeError::NotCaughtUp { node, missing });
        }
        Ok(())
    }

    /// C4 for the present configuration.
    fn may_change(&self) -> bool {
        self.holds(&self.hard.config)
    }

    /// C4: a quorum of `config` holds exactly the present configuration, in this term, and has all
    /// that was ever committed under this leader, at least its barrier.
    pub(crate) fn holds(&self, config: &ConfigRegister) -> bool {
        let Some(leading) = &self.leading else { return false };
        if !self.durability.is_hard_state_synced() {
            return false;
        }
        let stamp = self.hard.config.stamp;
        let holds_config = |node: NodeId| {
            node == self.node || leading.progress(node).is_some_and(|peer| peer.config == stamp)
        };
        if !config.is_quorum(holds_config) && !broken!(self, W16ChangeBeforeConfigIsHeld) {
            return false;
        }
        let matched: Index = config.quorum_index(|node| {
            if node == self.node {
                self.durability.written()
            } else {
                leading.progress(node).map_or(0, |peer| peer.matched)
            }
        });
        let written = self.durability.is_written(leading.barrier_write);
        (written && matched >= leading.need) || broken!(self, W17ChangeBeforeLogIsHeld)
    }

    pub(crate) fn enter_config(&mut self, turn: &mut Turn<'_>, mut next: ConfigRegister) {
        let before = self.hard.config.members();
        next.stamp =
            ConfigStamp { term: self.hard.term, version: self.hard.config.stamp.version + 1 };
        self.hard.config = next;
        self.save(turn);
        let commit = self.commit;
        if let Some(leading) = &mut self.leading {
            leading.need = leading.barrier.max(commit);
            leading.last_activity = turn.now;
        }
        // Those who leave hear of it once, so that they stop asking for votes.
        for member in before {
            if member != self.node && !self.hard.config.is_member(member) {
                self.send_empty(turn, member);
                self.stop_sending_snapshot(turn, member);
            }
        }
        let next = self.log.last().index + 1;
        self.arrange_progress(|node| Progress::new(node, next));
        self.wake(turn);
        self.watch_quorum(turn);
    }

    /// The own change of the configuration is durable: now it may be told.
    pub(crate) fn after_config_saved(&mut self, turn: &mut Turn<'_>) {
        if !self.durability.is_hard_state_synced() {
            return;
        }
        let stamp = self.hard.config.stamp;
        let Some(leading) = &self.leading else { return };
        let older: Vec<NodeId> = leading
            .progress
            .iter()
            .filter(|peer| peer.config < stamp && self.is_up(peer.node))
            .map(|peer| peer.node)
            .collect();
        for node in older {
            let waits = self
                .leading
                .as_ref()
                .and_then(|leading| leading.progress(node))
                .is_some_and(|peer| peer.may_send(1, 1));
            if waits {
                self.pump(turn, node);
            }
            self.send_empty(turn, node);
        }
        self.advance_commit(turn);
        self.count_confirmations(turn);
        self.go_on_changing(turn);
    }

    /// Completes a change of several members as soon as that is safe.
    pub(crate) fn go_on_changing(&mut self, turn: &mut Turn<'_>) {
        self.drop_the_dead(turn);
        if self.role != Role::Ready || !self.hard.config.is_joint() || !self.may_change() {
            return;
        }
        if !self.hard.config.voters.contains(&self.node) {
            // The next leader, who stays, completes it.
            let last = self.log.last().index;
            let heir = self.leading.as_ref().and_then(|leading| {
                let stays = |peer: &&Progress| {
                    self.hard.config.voters.contains(&peer.node) && self.is_up(peer.node)
                };
                leading.progress.iter().filter(stays).max_by_key(|peer| peer.acked.min(last))
            });
            if let Some(heir) = heir.map(|peer| peer.node) {
                self.cede(turn, Some(heir));
            }
            return;
        }
        let next = ConfigRegister { outgoing: Vec::new(), ..self.hard.config.clone() };
        self.enter_config(turn, next);
    }

    /// C1: a greater stamp is adopted durably, and whoever leads or stands with an older one stops.
    /// True when that ended something.
    pub(crate) fn learn_config(
        &mut self,
        turn: &mut Turn<'_>,
        newer: Option<&ConfigRegister>,
    ) -> bool {
        let Some(newer) = newer.filter(|newer| newer.stamp > self.hard.config.stamp) else {
            return false;
        };
        let ends = self.role != Role::Follower;
        if ends || newer.stamp.term > self.hard.term {
            let (term, leader) = (newer.stamp.term.max(self.hard.term), self.leader);
            let leader = leader.filter(|leader| term == self.hard.term && *leader != self.node);
            self.adopt_term(turn, term, leader);
        }
        let was_member = self.hard.config.is_member(self.node);
        self.hard.config = newer.clone();
        self.save(turn);
        if was_member && !self.hard.config.is_member(self.node) {
            turn.effects.push(Effect::Removed);
        }
        self.await_election(turn);
        ends
    }
}
