//! The end of a run: everything is mended, and then everything has to come right by itself.

use flintmq_consensus::{GroupId, NodeId, NodeInput, Role, UnfitReasons};

use crate::coverage::Situation;
use crate::event::Event;
use crate::ghost::{Check, ensure, violated};
use crate::world::World;

/// How long nothing may be decided while not all is well, in microseconds.
const PATIENCE: u64 = 90_000_000;
/// How often that much time may pass in all: with the smallest budgets one entry crosses at a time.
const LONGEST: u64 = 10;
/// Leaderships that a group may go through once everything works again.
const LEADERSHIPS: u64 = 40;

impl World {
    pub(crate) fn heal(&mut self) -> Check {
        let now = self.schedule.now;
        self.done = !self.profile.settles;
        self.healed_at = Some(now);
        self.network.heal();
        self.ambushes.clear();
        self.profile.weather = crate::network::Weather::CALM;
        self.profile.failing_snapshots = 0;
        for node in self.nodes.values_mut() {
            // What is deferred comes at its time; what comes from now on is not.
            node.slow = (0, 1);
            node.full_until = 0;
            node.no_snapshots_until = 0;
        }
        for id in self.cluster.clone() {
            let delay = self.random.between(1_000, 100_000);
            if self.run(id).is_none() {
                self.schedule.after(delay, Event::Start { node: id });
            }
            for peer in self.cluster.clone() {
                if peer != id {
                    self.schedule.after(delay, Event::Link { node: id, peer, up: true });
                }
            }
        }
        for (number, ghost) in self.ghosts.iter().enumerate() {
            self.elections_at_heal[number] = ghost.elections();
        }
        self.schedule.after(3_000_000, Event::Watch);
        let ids: Vec<NodeId> = self.cluster.iter().copied().collect();
        for id in &ids {
            self.input(*id, NodeInput::Unfit { reasons: UnfitReasons::NONE })?;
        }
        if self.profile.unfit_at_end {
            self.unfit_at_end = self.random.pick(&ids);
        }
        match self.unfit_at_end {
            Some(id) => self.input(id, NodeInput::Unfit { reasons: UnfitReasons::CLOCK_OFF }),
            None => Ok(()),
        }
    }

    pub(crate) fn watch(&mut self) -> Check {
        let now = self.schedule.now;
        let healed = self.healed_at.unwrap_or(now);
        let decided = (0..self.profile.groups.len() as u32).map(|g| self.decided(GroupId(g))).sum();
        if self.progress.is_none_or(|(before, _)| decided > before) {
            self.progress = Some((decided, now));
        }
        let since = self.progress.map_or(healed, |(_, at)| at);
        let impatient = now > since + PATIENCE || now > healed + LONGEST * PATIENCE;
        match self.unsettled() {
            None => {
                self.done = true;
                if self.unfit_at_end.is_some() {
                    self.coverage.saw(Situation::SettledWithUnfit);
                }
                self.check_all_quorums()
            }
            Some((invariant, why)) if impatient => violated(invariant, why),
            Some(_) => {
                self.schedule.after(250_000, Event::Watch);
                Ok(())
            }
        }?;
        for (number, ghost) in self.ghosts.iter().enumerate() {
            let before = self.elections_at_heal[number];
            ensure!(
                ghost.elections() <= before + LEADERSHIPS,
                "L1 Elections",
                "group {number} went from {before} to {} leaderships since all works",
                ghost.elections()
            );
        }
        Ok(())
    }

    /// What is not well yet.
    fn unsettled(&self) -> Option<(&'static str, String)> {
        for id in &self.cluster {
            if self.run(*id).is_none() {
                return Some(("L1", format!("node {id} is down")));
            }
        }
        for number in 0..self.profile.groups.len() {
            let group = GroupId(u32::try_from(number).unwrap_or(0));
            if let Some(why) = self.group_unsettled(group) {
                return Some(why);
            }
        }
        for node in self.nodes.values() {
            let open = node.open_snapshots();
            if open > 0 {
                return Some(("L3", format!("node {} keeps {open} snapshots open", node.id)));
            }
        }
        for (number, client) in self.clients.iter().enumerate() {
            if !client.is_done() {
                let group = client.group();
                return Some(("L1", format!("client {number} of group {group} has no answer")));
            }
        }
        None
    }

    fn group_unsettled(&self, group: GroupId) -> Option<(&'static str, String)> {
        let serving: Vec<NodeId> = self
            .cluster
            .iter()
            .copied()
            .filter(|id| self.core(*id, group).is_some_and(|core| core.is_serving()))
            .collect();
        let [leader] = serving[..] else {
            return Some(("L1", format!("group {group} is served by {serving:?}")));
        };
        let lead = self.core(leader, group)?;
        if self.unfit_at_end == Some(leader) && lead.config().voters.len() > 1 {
            return Some(("L4", format!("group {group} is led by {leader}, which is unfit")));
        }
        if lead.config().is_joint() {
            return Some(("L1", format!("group {group} stays {:?}", lead.config())));
        }
        let machine = |id: NodeId| {
            let live = self.nodes.get(&id)?.process.as_ref()?.groups.get(&group)?;
            Some((live.machine.applied, live.machine.digest, live.reads.len()))
        };
        for member in lead.config().members() {
            let Some(core) = self.core(member, group) else {
                return Some(("L2", format!("group {group}: member {member} does not have it")));
            };
            if core.recovering().is_some() {
                return Some(("L2", format!("group {group}: {member} still recovers")));
            }
            if (core.last(), core.commit_index()) != (lead.last(), lead.last().index) {
                return Some((
                    "L2",
                    format!(
                        "group {group}: {member} has {:?}, decided {}; the leader has {:?}",
                        core.last(),
                        core.commit_index(),
                        lead.last()
                    ),
                ));
            }
            if machine(member).map(|m| (m.0, m.1)) != machine(leader).map(|m| (m.0, m.1)) {
                return Some(("L2", format!("group {group}: {member} applied something else")));
            }
            if machine(member).is_some_and(|m| m.2 > 0) {
                return Some(("L1", format!("group {group}: {member} did not answer a read")));
            }
            if core.config() != lead.config() || core.history() != lead.history() {
                return Some(("L2", format!("group {group}: {member} has an older configuration")));
            }
            // A follower that does not know that its leader rests has no timer either.
            let rests = core.is_quiesced() || member != leader;
            if !rests || core.next_deadline().is_some() {
                return Some(("Quiescence", format!("group {group}: {member} does not rest")));
            }
            if member != leader && core.role() != Role::Follower {
                return Some(("L1", format!("group {group}: {member} is {:?}", core.role())));
            }
        }
        (lead.last().index != self.decided(group))
            .then(|| ("L2", format!("group {group}: {:?} is not all that is decided", lead.last())))
    }
}
