//! Brings a group to the members that the roster wants, one step at a time.
//!
//! Only the group's leader does anything, and only what is missing now: a crash or another leader
//! on the way costs nothing, for the next one goes on from what it finds. New members come before
//! old ones go, so that a group never has fewer than it needs.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use flintmq_consensus::{ConfigRegister, GroupId, MemberChange, NodeId};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::{Replica, ReplicaError, ReplicaStatus};
use crate::controller::{Place, Roster};

/// Groups that a node brings new members up for at a time: each may take a snapshot of everything.
const CATCH_UPS: usize = 4;

/// How soon a step follows another.
const SOON: Duration = Duration::from_millis(150);

/// What all groups' reconcilers of a node share.
#[derive(Clone)]
pub(crate) struct Membership {
    roster: watch::Receiver<Arc<Roster>>,
    /// The controller here: a roster that hears of no changes is not acted upon.
    controller: watch::Receiver<ReplicaStatus>,
    catch_ups: Arc<Semaphore>,
}

impl Membership {
    /// Follows this roster, for as long as the controller is led.
    pub(crate) fn new(
        roster: watch::Receiver<Arc<Roster>>,
        controller: watch::Receiver<ReplicaStatus>,
    ) -> Self {
        Self { roster, controller, catch_ups: Arc::new(Semaphore::new(CATCH_UPS)) }
    }
}

/// One group's.
pub(crate) struct Reconciler {
    membership: Membership,
    /// Other nodes that can be reached, whether they hold the group or not.
    in_reach: BTreeSet<NodeId>,
    /// While the group has a new member that catches up.
    permit: Option<OwnedSemaphorePermit>,
    /// When something is to be done next, or to be looked at.
    due: Option<Instant>,
}

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
        let votes = |id: u32| config.voters.contains(&NodeId(id));
        let to_vote = |id: &NodeId| place.voters.contains(&id.0);
        if let Some(left_over) = config.learners.iter().find(|id| !place.holds(**id)) {
            return Some(Step::RemoveLearner(*left_over));
        }
        // One that is gone holds up no other.
        let coming = config.learners.iter().copied().filter(|id| to_vote(id) && in_reach(*id));
        if let Some(ready) = coming.clone().find(|id| fit(*id)) {
            return Some(Step::Promote(ready));
        }
        let is_new = |id: &NodeId| !config.is_member(*id) && in_reach(*id);
        let mut new_voters = place.voters.iter().map(|id| NodeId(*id)).filter(is_new);
        if coming.count() == 0
            && let Some(new) = new_voters.next()
        {
            return Some(Step::AddLearner(new));
        }
        if !place.voters.iter().all(|id| votes(*id)) {
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
        let mut new_learners = place.learners.iter().map(|id| NodeId(*id)).filter(is_new);
        new_learners.next().map(Step::AddLearner)
    }
}

impl Reconciler {
    pub(crate) fn new(membership: &Membership) -> Self {
        Self { membership: membership.clone(), in_reach: BTreeSet::new(), permit: None, due: None }
    }

    /// A node can be reached, or not any more.
    pub(crate) fn note(&mut self, node: NodeId, is_up: bool) {
        if is_up {
            self.in_reach.insert(node);
        } else {
            self.in_reach.remove(&node);
        }
    }

    /// The other nodes that can be reached, whether they hold the group or not.
    pub(crate) fn in_reach(&self) -> impl Iterator<Item = NodeId> {
        self.in_reach.iter().copied()
    }

    /// Whether the roster wants the node to hold the group; true while it says nothing.
    pub(crate) fn wants(&self, group: GroupId, node: NodeId) -> bool {
        self.membership.roster.borrow().place(group).is_none_or(|place| place.holds(node))
    }

    /// Waits until the next step follows a step that was taken; for ever when none was. May be
    /// dropped and asked again.
    pub(crate) async fn due(&self) {
        match self.due {
            Some(due) => tokio::time::sleep_until(due.into()).await,
            None => std::future::pending().await,
        }
    }

    /// Takes the next step, if there is one and this node leads. To be called now and then, and
    /// whenever one is [`due`](Self::due).
    ///
    /// # Errors
    /// The replica cannot go on.
    pub(crate) fn step(&mut self, replica: &mut Replica) -> Result<(), ReplicaError> {
        self.due = None;
        let roster = Arc::clone(&self.membership.roster.borrow());
        replica.take_wishes(&roster);
        let is_current = self.membership.controller.borrow().led;
        if !replica.is_serving() || replica.is_transferring() || !is_current {
            self.permit = None;
            return Ok(());
        }
        let node = replica.core.node();
        let Some(place) = roster.place(replica.group()) else { return Ok(()) };
        let step = {
            let fit = |id: NodeId| replica.is_fit(id);
            let in_reach = |id: NodeId| id == node || self.in_reach.contains(&id);
            let config = replica.core.config();
            let situation = Situation { node, config, place, fit: &fit, in_reach: &in_reach };
            situation.next_step()
        };
        let to_vote = |id: &NodeId| place.voters.contains(&id.0);
        let comes = |id: &NodeId| to_vote(id) && self.in_reach.contains(id);
        if !replica.core.config().learners.iter().any(comes) {
            self.permit = None;
        }
        if step.is_some() || self.permit.is_some() {
            self.due = Some(Instant::now() + SOON);
        }
        match step {
            Some(Step::AddLearner(id)) if to_vote(&id) => {
                if self.permit.is_none() {
                    let catch_ups = Arc::clone(&self.membership.catch_ups);
                    // Other groups have their turn first.
                    let Ok(permit) = catch_ups.try_acquire_owned() else { return Ok(()) };
                    self.permit = Some(permit);
                }
                replica.change_members(&MemberChange::AddLearner(id))
            }
            Some(Step::AddLearner(id)) => replica.change_members(&MemberChange::AddLearner(id)),
            Some(Step::Promote(id)) => replica.change_members(&MemberChange::Promote(id)),
            Some(Step::RemoveLearner(id)) => {
                replica.change_members(&MemberChange::RemoveLearner(id))
            }
            Some(Step::RemoveVoter(id)) => replica.change_members(&MemberChange::RemoveVoter(id)),
            Some(Step::HandOver) => replica.hand_over_to_any(),
            None if roster.is_barred(node) => replica.hand_over_to_any(),
            None => Ok(()),
        }
    }
}

impl Replica {
    /// Takes up who should lead and who must not.
    fn take_wishes(&mut self, roster: &Roster) {
        let place = roster.place(self.group);
        self.wanted_leader = place.and_then(|place| place.leader).map(NodeId);
        self.barred.clear();
        let voters = self.core.config().voters.iter().copied();
        // A voter that the group loses next had better not begin to lead.
        let goes = |id: &NodeId| place.is_some_and(|place| !place.voters.contains(&id.0));
        self.barred.extend(voters.filter(|id| roster.is_barred(*id) || goes(id)));
    }

    fn hand_over_to_any(&mut self) -> Result<(), ReplicaError> {
        match self.successor().filter(|to| !self.barred.contains(to)) {
            Some(to) => {
                tracing::info!(group = self.group.0, to = to.0, "makes room for another leader");
                self.transfer(to, false)
            }
            None => Ok(()),
        }
    }

    fn change_members(&mut self, change: &MemberChange) -> Result<(), ReplicaError> {
        let now = self.clock.now();
        match self.core.change_members(now, change, &mut self.effects) {
            Ok(_) => tracing::info!(group = self.group.0, ?change, "members change"),
            // The change before, or the barrier, is not held by a majority yet: next time.
            Err(why) => tracing::debug!(group = self.group.0, ?change, %why, "members stay"),
        }
        self.carry_out(flintmq_storage::AppendKind::Relief)
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
        let place = Place { voters: wanted.to_vec(), learners: hearers.to_vec(), leader: None };
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
        let place = Place { voters: wanted.to_vec(), learners: hearers.to_vec(), leader: None };
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
        assert_eq!(gone, Some(Step::AddLearner(NodeId(5))), "nobody waits for one that is gone");
    }

    #[test]
    fn who_goes_waits_until_the_new_ones_vote() {
        let wanted: (&[u32], &[u32]) = (&[1, 2, 4], &[]);
        assert_eq!(step((&[1, 2, 3], &[4]), wanted, &[4]), None);
        assert_eq!(step((&[1, 2, 3, 4], &[]), wanted, &[]), Some(Step::RemoveVoter(NodeId(3))));
        let gone_first = step((&[1, 2, 3, 5], &[]), (&[1, 2], &[]), &[5]);
        assert_eq!(gone_first, Some(Step::RemoveVoter(NodeId(5))));
    }

    #[test]
    fn nobody_goes_whom_the_others_need() {
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
    fn those_who_only_hear_come_last_and_go_at_once() {
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
        let place = Place { voters: vec![1, 2, 4], ..Place::default() };
        let (node, config, place) = (NodeId(1), &config, &place);
        let yes = |_| true;
        let situation = Situation { node, config, place, fit: &yes, in_reach: &yes };
        assert_eq!(situation.next_step(), None);
    }
}
