//! The operator: replaces members that are lost for good, and forces groups that cannot go on by
//! themselves.

use std::collections::BTreeSet;

use flintmq_consensus::{ConfigRegister, GroupId, Input, MemberChange, NodeId};

use crate::coverage::Situation;
use crate::event::Event;
use crate::ghost::Check;
use crate::inject::is_lost;
use crate::world::World;

/// How often the operator looks.
const INTERVAL: u64 = 200_000;
/// How long a group has nobody who serves before the operator forces anything.
const PATIENCE: u64 = 4_000_000;

impl World {
    pub(crate) fn on_operator(&mut self) -> Check {
        self.schedule.after(INTERVAL, Event::Operator);
        for number in 0..self.profile.groups.len() {
            let group = GroupId(u32::try_from(number).unwrap_or(0));
            let serving = self
                .leader(group)
                .filter(|leader| self.core(*leader, group).is_some_and(|core| core.is_serving()));
            if let Some(leader) = serving {
                self.leaderless[number] = 0;
                self.replace_lost(leader, group)?;
            } else {
                self.leaderless[number] += INTERVAL;
                if self.leaderless[number] > PATIENCE {
                    self.leaderless[number] = PATIENCE - 5 * INTERVAL;
                    self.force(group)?;
                }
            }
            self.notice_joint_end(group);
        }
        Ok(())
    }

    fn notice_joint_end(&mut self, group: GroupId) {
        let done = self
            .leader(group)
            .and_then(|leader| self.core(leader, group))
            .is_some_and(|core| core.config().stamp.version > 1 && !core.config().is_joint());
        if done && self.coverage.count(Situation::JointBegun) > 0 {
            self.coverage.saw(Situation::JointDone);
        }
    }

    /// The newest configuration that any node of the cluster holds.
    pub(crate) fn newest_config(&self, group: GroupId) -> Option<ConfigRegister> {
        self.cluster
            .iter()
            .filter_map(|id| self.nodes.get(id)?.disk.hard_state(group))
            .map(|state| &state.config)
            .max_by_key(|config| config.stamp)
            .cloned()
    }

    /// One step towards a configuration without nodes that are lost for good.
    fn replace_lost(&mut self, leader: NodeId, group: GroupId) -> Check {
        let Some(core) = self.core(leader, group) else { return Ok(()) };
        let config = core.config().clone();
        let lost = config.members().into_iter().find(|id| is_lost(self.nodes.get(id)));
        let Some(lost) = lost else { return Ok(()) };
        let mut new = lost;
        while let Some(next) = self.replacements.get(&new) {
            new = *next;
        }
        let ready = self.nodes.get(&new).is_some_and(|node| node.is_up());
        let change = if config.learners.contains(&lost) {
            MemberChange::RemoveLearner(lost)
        } else if config.voters.contains(&new) || !ready {
            // Of two voters the one who is left cannot do without the other.
            MemberChange::RemoveVoter(lost)
        } else if config.learners.contains(&new) {
            MemberChange::Promote(new)
        } else {
            self.host(new, group)?;
            MemberChange::AddLearner(new)
        };
        self.change(leader, group, &change)
    }

    /// Orders a group to go on, where it cannot by itself: because voters are lost for good, or
    /// because its policy leaves the decision to the operator.
    fn force(&mut self, group: GroupId) -> Check {
        let Some(config) = self.newest_config(group) else { return Ok(()) };
        let dead: BTreeSet<NodeId> = config
            .voters
            .iter()
            .chain(&config.outgoing)
            .copied()
            .filter(|id| is_lost(self.nodes.get(id)))
            .collect();
        let core = |id: NodeId| self.core(id, group);
        let everyone = config.is_everyone(|id| dead.contains(&id) || core(id).is_some());
        let trusted = config.is_quorum(|id| core(id).is_some_and(|c| c.recovering().is_none()));
        if !everyone || trusted {
            return Ok(());
        }
        // What is not durable yet may never have been: the operator looks again.
        if !self.nodes.keys().filter_map(|id| core(*id)).all(|core| core.is_hard_state_synced()) {
            return Ok(());
        }
        let left = self.nodes.keys().filter_map(|id| Some(core(*id)?.config()));
        let Some(newest) = left.max_by_key(|config| config.stamp).cloned() else { return Ok(()) };
        let alive: Vec<NodeId> = config
            .voters
            .iter()
            .chain(&config.outgoing)
            .copied()
            .filter(|id| core(*id).is_some_and(|core| core.config().is_voter(*id)))
            .collect();
        // Whoever has an older history would not get far.
        let latest = alive.iter().filter_map(|id| Some(core(*id)?.history())).max();
        let alive: Vec<NodeId> =
            alive.into_iter().filter(|id| core(*id).map(|core| core.history()) == latest).collect();
        let Some(chosen) = self.random.pick(&alive) else { return Ok(()) };
        let Some(expect_history) = self.core(chosen, group).map(|core| core.history()) else {
            return Ok(());
        };
        if self.verbose {
            println!("{:>10} operator forces group {group} at {chosen}", self.schedule.now);
        }
        self.forced.insert(group);
        // As an operator's tool would do it: the time names the order.
        let number = u32::try_from(self.schedule.now / 1000).unwrap_or(u32::MAX);
        #[cfg(feature = "model")]
        if let Some(core) = self
            .nodes
            .get(&chosen)
            .and_then(|node| node.process.as_ref().and_then(|process| process.core.group(group)))
        {
            self.follower.ordered(core, &dead, expect_history, &newest, number);
        }
        let order = Input::ForceRecover { dead, expect_history, newest, number };
        self.answer(chosen, group, order)
    }
}
