//! Brings a group to the members that are assigned to it, one step at a time.
//!
//! Only the group's leader does anything, and only what is missing now: a crash or another leader
//! on the way costs nothing, for the next one goes on from what it finds. New members come before
//! old ones go, so that a group never has fewer than it needs.

use std::sync::Arc;
use std::time::Duration;

use flintmq_consensus::{ConfigRegister, MemberChange, NodeCore, NodeId};

use crate::assignment::Place;
use crate::host::Host;
use crate::leadership::is_fit;
use crate::replica::Replica;

/// Groups that a shard brings new members up for at a time: each may take a snapshot of everything.
const CATCH_UPS: usize = 4;

/// How soon a step follows another.
const SOON: Duration = Duration::from_millis(150);

/// What leads a group to its wanted members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    AddLearner(NodeId),
    Promote(NodeId),
    RemoveLearner(NodeId),
    RemoveVoter(NodeId),
    /// The leader has to go, or must not lead: one of these leads then, the first that can.
    HandOver,
}

/// What a group's leader knows.
struct Situation<'a> {
    node: NodeId,
    config: &'a ConfigRegister,
    place: &'a Place,
    /// Whether a member has nearly everything.
    fit: &'a dyn Fn(NodeId) -> bool,
    /// Whether a node can be reached; this one can.
    in_reach: &'a dyn Fn(NodeId) -> bool,
}

impl Situation<'_> {
    /// The next step; none when all is well, or something has to be waited for.
    fn next_step(&self) -> Option<Step> {
        let Self { node, config, place, fit, in_reach } = self;
        if config.is_joint() {
            return None;
        }
        let votes = |id: &NodeId| config.voters.contains(id);
        let to_vote = |id: &NodeId| place.voters.contains(id);
        if let Some(left_over) = config.learners.iter().find(|id| !place.holds(**id)) {
            return Some(Step::RemoveLearner(*left_over));
        }
        // One that is gone holds up no other.
        let coming = config.learners.iter().copied().filter(|id| to_vote(id) && in_reach(*id));
        if let Some(ready) = coming.clone().find(|id| fit(*id)) {
            return Some(Step::Promote(ready));
        }
        let is_new = |id: &NodeId| !config.is_member(*id) && in_reach(*id);
        let mut new_voters = place.voters.iter().copied().filter(is_new);
        if coming.count() == 0
            && let Some(new) = new_voters.next()
        {
            return Some(Step::AddLearner(new));
        }
        if !place.voters.iter().all(votes) {
            return None;
        }
        let mut going: Vec<NodeId> =
            config.voters.iter().copied().filter(|id| !to_vote(id)).collect();
        // Those who are gone anyway first.
        going.sort_by_key(|id| (*id == *node, in_reach(*id)));
        match going.first() {
            Some(id) if *id == *node => return Some(Step::HandOver),
            Some(id) => {
                let stay = config.voters.iter().filter(|voter| *voter != id);
                let there = stay.clone().filter(|voter| in_reach(**voter)).count();
                // With this one gone the others have to be able to go on.
                return (2 * there > stay.count()).then_some(Step::RemoveVoter(*id));
            }
            None => {}
        }
        let mut new_learners = place.learners.iter().copied().filter(is_new);
        new_learners.next().map(Step::AddLearner)
    }
}

impl Replica {
    /// Takes up who should lead and who must not.
    pub(crate) fn take_wishes(&mut self, core: &NodeCore, host: &Host) {
        let Some(core) = core.group(self.group) else { return };
        let place = host.assignment.groups.get(&self.group);
        self.wanted_leader = place.and_then(|place| place.leader);
        self.ineligible.clear();
        // A voter that the group loses next should not begin to lead.
        let goes = |id: &NodeId| place.is_some_and(|place| !place.voters.contains(id));
        let ineligible =
            |id: &NodeId| host.assignment.ineligible.contains(id) || goes(id) || host.is_unfit(*id);
        self.ineligible.extend(core.config().voters.iter().copied().filter(ineligible));
    }

    /// Takes the next step to the wanted members, if there is one and this node leads.
    pub(crate) fn step_members(&mut self, core: &mut NodeCore, host: &mut Host) {
        self.members_due = None;
        self.take_wishes(core, host);
        let (id, node) = (self.group, host.node);
        let Some(group) = core.group(id) else { return };
        if !group.is_serving() || group.is_transferring() || !host.controller_led {
            host.catching_up.remove(&id);
            return;
        }
        let assignment = Arc::clone(&host.assignment);
        let Some(place) = assignment.groups.get(&id) else { return };
        let config = group.config();
        let step = Situation {
            node,
            config,
            place,
            fit: &|id| is_fit(group, id),
            in_reach: &|id| id == node || host.peers.is_up(id),
        }
        .next_step();
        let to_vote = |id: &NodeId| place.voters.contains(id);
        if !config.learners.iter().any(|id| to_vote(id) && host.peers.is_up(*id)) {
            host.catching_up.remove(&id);
        }
        if step.is_some() || host.catching_up.contains(&id) {
            self.members_due = Some(host.now + SOON);
        }
        let change = match step {
            Some(Step::AddLearner(new)) => {
                let waits = to_vote(&new) && host.catching_up.len() >= CATCH_UPS;
                if waits && !host.catching_up.contains(&id) {
                    // Other groups have their turn first.
                    return;
                }
                if to_vote(&new) {
                    host.catching_up.insert(id);
                }
                MemberChange::AddLearner(new)
            }
            Some(Step::Promote(id)) => MemberChange::Promote(id),
            Some(Step::RemoveLearner(id)) => MemberChange::RemoveLearner(id),
            Some(Step::RemoveVoter(id)) => MemberChange::RemoveVoter(id),
            Some(Step::HandOver) => return self.make_room(core, host),
            None if assignment.ineligible.contains(&node) => return self.make_room(core, host),
            None => return,
        };
        match core.change_members(host.now, id, change.clone()) {
            Ok(_) => tracing::info!(group = id.0, ?change, "members change"),
            // The change before, or the no-op entry, is not held by a majority yet: next time.
            Err(why) => tracing::debug!(group = id.0, ?change, %why, "members stay"),
        }
    }

    fn make_room(&mut self, core: &mut NodeCore, host: &Host) {
        let Some(group) = core.group(self.group) else { return };
        let to = self.successor(group).filter(|to| !self.ineligible.contains(to));
        if let Some(to) = to {
            tracing::info!(group = self.group.0, to = to.0, "makes room for another leader");
            self.hand_over(core, host, to, false, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(ids: &[u32]) -> Vec<NodeId> {
        ids.iter().copied().map(NodeId).collect()
    }

    /// The next step of node 1, which leads; all are fit, and all but `away` are there.
    fn step(
        (voters, learners): (&[u32], &[u32]),
        (wanted, hearers): (&[u32], &[u32]),
        away: &[u32],
    ) -> Option<Step> {
        let config = ConfigRegister {
            learners: nodes(learners),
            ..ConfigRegister::of_voters(nodes(voters))
        };
        let place = Place { voters: nodes(wanted), learners: nodes(hearers), leader: None };
        let there = |id: NodeId| !away.contains(&id.0);
        let (node, config, place) = (NodeId(1), &config, &place);
        Situation { node, config, place, fit: &there, in_reach: &there }.next_step()
    }

    /// The same with learners that are behind.
    fn busy_step(
        (voters, learners): (&[u32], &[u32]),
        (wanted, hearers): (&[u32], &[u32]),
    ) -> Option<Step> {
        let config = ConfigRegister {
            learners: nodes(learners),
            ..ConfigRegister::of_voters(nodes(voters))
        };
        let place = Place { voters: nodes(wanted), learners: nodes(hearers), leader: None };
        let (node, config, place) = (NodeId(1), &config, &place);
        let fit = |id: NodeId| !learners.contains(&id.0);
        Situation { node, config, place, fit: &fit, in_reach: &|_| true }.next_step()
    }

    #[test]
    fn a_new_member_hears_first_and_votes_then() {
        let wanted: (&[u32], &[u32]) = (&[1, 2, 3, 4], &[]);
        assert_eq!(step((&[1, 2, 3], &[]), wanted, &[]), Some(Step::AddLearner(NodeId(4))));
        assert_eq!(step((&[1, 2, 3], &[]), wanted, &[4]), None, "it has not come yet");
        assert_eq!(step((&[1, 2, 3], &[4]), wanted, &[]), Some(Step::Promote(NodeId(4))));
        assert_eq!(busy_step((&[1, 2, 3], &[4]), wanted), None, "it is behind");
        assert_eq!(step((&[1, 2, 3, 4], &[]), wanted, &[]), None);
    }

    #[test]
    fn one_comes_after_the_other() {
        let wanted: (&[u32], &[u32]) = (&[1, 4, 5], &[]);
        assert_eq!(busy_step((&[1], &[4]), wanted), None);
        assert_eq!(step((&[1, 4], &[]), wanted, &[]), Some(Step::AddLearner(NodeId(5))));
        let gone = step((&[1], &[4]), wanted, &[4]);
        assert_eq!(gone, Some(Step::AddLearner(NodeId(5))), "one that is gone holds up no other");
    }

    #[test]
    fn a_voter_goes_once_the_new_ones_vote() {
        let wanted: (&[u32], &[u32]) = (&[1, 2, 4], &[]);
        assert_eq!(step((&[1, 2, 3], &[4]), wanted, &[4]), None);
        assert_eq!(step((&[1, 2, 3, 4], &[]), wanted, &[]), Some(Step::RemoveVoter(NodeId(3))));
        let gone_first = step((&[1, 2, 3, 5], &[]), (&[1, 2], &[]), &[5]);
        assert_eq!(gone_first, Some(Step::RemoveVoter(NodeId(5))));
    }

    #[test]
    fn a_voter_that_the_others_need_stays() {
        assert_eq!(step((&[1, 2, 3], &[]), (&[1, 2], &[]), &[2]), None);
        let dead = step((&[1, 2, 3], &[]), (&[1, 2], &[]), &[3]);
        assert_eq!(dead, Some(Step::RemoveVoter(NodeId(3))));
    }

    #[test]
    fn the_leader_goes_last_and_hands_over_first() {
        let wanted: (&[u32], &[u32]) = (&[2, 3], &[]);
        assert_eq!(step((&[1, 2, 3, 4], &[]), wanted, &[]), Some(Step::RemoveVoter(NodeId(4))));
        assert_eq!(step((&[1, 2, 3], &[]), wanted, &[]), Some(Step::HandOver));
    }

    #[test]
    fn learners_come_last_and_go_at_once() {
        let wanted: (&[u32], &[u32]) = (&[1, 2], &[6, 7]);
        assert_eq!(step((&[1, 2], &[]), wanted, &[6]), Some(Step::AddLearner(NodeId(7))));
        assert_eq!(step((&[1, 2], &[5, 6, 7]), wanted, &[]), Some(Step::RemoveLearner(NodeId(5))));
        assert_eq!(step((&[1, 2], &[6, 7]), wanted, &[]), None);
        let demoted = step((&[1, 2, 3], &[]), (&[1, 2], &[3]), &[]);
        assert_eq!(demoted, Some(Step::RemoveVoter(NodeId(3))));
    }

    #[test]
    fn several_changes_at_once_are_the_cores_business() {
        let config = ConfigRegister {
            outgoing: nodes(&[1, 2, 3]),
            ..ConfigRegister::of_voters(nodes(&[1, 2]))
        };
        let place = Place { voters: nodes(&[1, 2, 4]), ..Place::default() };
        let (node, config, place) = (NodeId(1), &config, &place);
        let yes = |_| true;
        let situation = Situation { node, config, place, fit: &yes, in_reach: &yes };
        assert_eq!(situation.next_step(), None);
    }
}
