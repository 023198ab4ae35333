//! A majority is lost for good, and operators let groups go on with what is left.

use std::collections::BTreeSet;

use flintmq_consensus::{ConfigRegister, GroupId, Index, NodeId};
use flintmq_shard::{AdminCommand, GroupView, Recovery};

use crate::coverage::Situation;
use crate::event::{Event, Waits};
use crate::oracle::{Violation, violation};
use crate::world::World;

/// How soon an operator looks again, in microseconds.
const AGAIN: u64 = 2_500_000;

/// For how long those that stay are cut off before a majority is lost, in microseconds.
const CUT_OFF: u64 = 250_000;

/// How often a group with a majority is looked at before an operator orders anything.
const PATIENCE: u32 = 3;

/// The first number of an order: the time in seconds.
const FIRST_ORDER: u64 = 1_800_000_000;

/// Where the members of a group stand, as far as they have told.
#[derive(Clone, Debug)]
pub(crate) struct Standings {
    number: u64,
    missing: BTreeSet<NodeId>,
    told: Vec<(NodeId, GroupView)>,
}

impl World {
    /// A majority is lost at once, or after those that stay were cut off for a moment: then they
    /// lack what was committed meanwhile.
    pub(crate) fn lose_majority_soon(&mut self, choice: u64) {
        if (choice / 32).is_multiple_of(2) || !self.operators.lost.is_empty() {
            return self.lose_majority(choice);
        }
        let alive = self.running();
        let stays = who_stays(&alive, choice);
        for id in &stays {
            for other in alive.iter().filter(|other| !stays.contains(other)) {
                self.cut(*id, *other, CUT_OFF, true);
                self.cut(*other, *id, CUT_OFF, true);
            }
        }
        self.after(CUT_OFF, Event::LoseMajority(choice));
    }

    fn running(&self) -> Vec<NodeId> {
        self.nodes.values().filter(|node| node.process.is_some()).map(|node| node.id).collect()
    }

    /// More than half of the nodes lose their disks, but of each group one voter stays.
    pub(crate) fn lose_majority(&mut self, choice: u64) {
        let alive = self.running();
        let all_run = self.nodes.values().all(|node| node.process.is_some());
        if alive.len() < 3 || !all_run || !self.operators.lost.is_empty() {
            return;
        }
        let stays = who_stays(&alive, choice);
        let groups: Vec<GroupId> =
            std::iter::once(GroupId::CONTROLLER).chain(self.groups.keys().copied()).collect();
        let has_voter = |group: &GroupId| {
            self.newest_config(*group).is_some_and(|config| {
                let mut voters = config.voters.iter();
                !config.is_joint() && voters.any(|voter| stays.contains(voter))
            })
        };
        if !groups.iter().all(has_voter) {
            return;
        }
        self.coverage.saw(Situation::MajorityLost);
        for id in alive.into_iter().filter(|id| !stays.contains(id)) {
            self.operators.lost.insert(id);
            self.bury(id);
        }
        for group in groups {
            let later = self.operator_random.between(1_000_000, 4_000_000);
            self.after(later, Event::Recover(group));
        }
    }

    /// The newest configuration of a group on a node that runs.
    fn newest_config(&self, group: GroupId) -> Option<ConfigRegister> {
        let processes = self.nodes.values().filter_map(|node| node.process.as_ref());
        let configs = processes.filter_map(|process| Some(process.shard.core(group)?.config()));
        configs.max_by_key(|config| config.stamp).cloned()
    }

    /// An operator asks the members that are left where they stand, if the group needs help.
    pub(crate) fn look_where_members_stand(&mut self, group: GroupId) {
        let Some(config) = self.newest_config(group) else {
            return self.after(AGAIN, Event::Recover(group));
        };
        let lost = self.operators.lost.clone();
        let votes = |node: &NodeId| config.voters.contains(node) || config.outgoing.contains(node);
        if !lost.iter().any(votes) {
            return;
        }
        self.after(AGAIN, Event::Recover(group));
        // With a majority left it goes on by itself, unless one of them has lost its tail.
        let leaderless = self.operators.leaderless.entry(group).or_default();
        if config.is_quorum(|node| !lost.contains(&node)) && *leaderless < PATIENCE {
            *leaderless += 1;
            return;
        }
        *leaderless = 0;
        let left = config.members().into_iter().filter(|member| !lost.contains(member));
        let missing: BTreeSet<NodeId> = left.collect();
        // Whoever does not answer may hold messages that no other has.
        if missing.iter().any(|id| self.process_of(*id).is_none()) {
            return;
        }
        let number = self.name();
        let told = Vec::new();
        let standings = Standings { number, missing: missing.clone(), told };
        self.operators.standings.insert(group, standings);
        for node in missing {
            let waits = Waits::Standing { sweep: number, group, node };
            self.command(node, group, AdminCommand::Inspect, waits);
        }
    }

    /// A member has told where it stands. The one with the most stands for election once all have.
    pub(crate) fn told_standing(
        &mut self,
        number: u64,
        group: GroupId,
        node: NodeId,
        view: GroupView,
    ) {
        let Some(standings) = self.operators.standings.get_mut(&group) else { return };
        // What is not durable yet may never have been.
        if standings.number != number || !view.durable {
            return;
        }
        standings.missing.remove(&node);
        standings.told.push((node, view));
        if !standings.missing.is_empty() {
            return;
        }
        let Some(Standings { told, .. }) = self.operators.standings.remove(&group) else { return };
        let lost = self.operators.lost.clone();
        let Some((candidate, history, newest)) = plan(&lost, &told) else { return };
        let number = (FIRST_ORDER + self.now / 1_000_000) as u32;
        self.say(|| format!("node {} is to recover group {}", candidate.0, group.0));
        let recovery = Recovery { dead: lost, history, newest, number };
        self.command(candidate, group, AdminCommand::Recover(recovery), Waits::Recover);
    }

    /// A leader goes on with what is left of a group's log.
    pub(crate) fn history_forked(
        &mut self,
        id: NodeId,
        group: GroupId,
        last: Index,
    ) -> Result<(), Violation> {
        if self.operators.lost.is_empty() {
            let detail = format!("node {} group {}: nothing was lost", id.0, group.0);
            return violation("HistoryGoesOn", detail);
        }
        let known = match self.groups.get(&group) {
            Some(oracle) => oracle.applied,
            None => self.controller.last(),
        };
        let process = self.nodes.get(&id).and_then(|node| node.process.as_ref());
        let Some(core) = process.and_then(|process| process.shard.core(group)) else {
            return Ok(());
        };
        let agrees = |index: Index| {
            let committed = match self.groups.get(&group) {
                Some(oracle) => oracle.position(index),
                None => self.controller.position(index),
            };
            let own = core.log().term_at(index);
            own.is_none_or(|own| committed.is_none_or(|committed| committed.term == own))
        };
        let mut common = known.min(last);
        while common > 0 && !agrees(common) {
            common -= 1;
        }
        self.coverage.saw(Situation::GroupRecovered);
        self.trouble(0);
        self.coverage.saw_times(Situation::CommittedLost, known - common);
        self.say(|| format!("group {} goes on behind {common} of {known}", group.0));
        for node in self.nodes.values_mut() {
            if let Some(process) = &mut node.process
                && let Some(seen) = process.seen.get_mut(&group)
            {
                *seen = (*seen).min(common);
            }
        }
        let now = self.now;
        let Some(oracle) = self.groups.get_mut(&group) else {
            return self.controller.fork(common);
        };
        oracle.fork(group, now, common)?;
        self.acknowledged
            .retain(|key, (place, queue)| *place != group || oracle.is_stored(*queue, *key));
        Ok(())
    }
}

/// Who of these is left when a majority of them is lost.
fn who_stays(alive: &[NodeId], choice: u64) -> BTreeSet<NodeId> {
    let kept = alive.len().saturating_sub(alive.len() / 2 + 1);
    let first = (choice % alive.len().max(1) as u64) as usize;
    (0..kept).filter_map(|at| alive.get((first + at) % alive.len()).copied()).collect()
}

/// Who is to stand, by what: as the broker's administration decides it.
fn plan(
    lost: &BTreeSet<NodeId>,
    told: &[(NodeId, GroupView)],
) -> Option<(NodeId, u32, ConfigRegister)> {
    if told.iter().any(|(_, view)| view.status.serving) {
        return None;
    }
    let configs = told.iter().map(|(_, view)| &view.config);
    let newest = configs.max_by_key(|config| config.stamp)?.clone();
    let votes = |node: &NodeId| newest.voters.contains(node) || newest.outgoing.contains(node);
    if !lost.iter().any(votes) {
        return None;
    }
    let history = told.iter().map(|(_, view)| view.status.history).max()?;
    let fit = told.iter().filter(|(node, view)| view.status.history == history && votes(node));
    let best =
        fit.max_by_key(|(_, view)| (!view.status.recovering, (view.last.term, view.last.index)));
    best.map(|(node, _)| (*node, history, newest.clone()))
}
