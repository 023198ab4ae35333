//! How faults are done to the cluster.

use std::collections::BTreeSet;

use flintmq_consensus::{
    Body, GroupId, Input, MemberChange, NodeId, NodeInput, Packet, RejoinTarget, UnfitReasons,
};

use crate::coverage::Situation;
use crate::event::Event;
use crate::fault::{Fault, FaultKind, Target};
use crate::ghost::Check;
use crate::node::{Live, Node};
use crate::random::Random;
use crate::world::{World, creation};

/// How long an ambush waits for its moment.
const PATIENCE: u64 = 3_000_000;
/// Nodes that a cluster may have, those lost for good included.
const MOST_NODES: u32 = 12;

impl World {
    pub(crate) fn on_fault(&mut self, number: usize) -> Check {
        let Some(fault) = self.faults.get(number).cloned() else { return Ok(()) };
        if fault.moment.is_some() {
            self.ambushes.push((number, self.schedule.now + PATIENCE));
            return Ok(());
        }
        let target = self.find(&fault);
        self.inject(&fault, target)
    }

    /// Faults whose moment came.
    pub(crate) fn spring_ambushes(&mut self) -> Check {
        let moments = std::mem::take(&mut self.moments);
        if moments.is_empty() || self.ambushes.is_empty() {
            return Ok(());
        }
        let now = self.schedule.now;
        self.ambushes.retain(|(_, until)| *until > now);
        let mut sprung = Vec::new();
        let faults = &self.faults;
        self.ambushes.retain(|(number, _)| {
            let Some(fault) = faults.get(*number) else { return false };
            let there = moments.iter().find(|(moment, _)| Some(*moment) == fault.moment);
            if let Some((_, node)) = there {
                sprung.push((*number, *node));
            }
            there.is_none()
        });
        for (number, node) in sprung {
            if let Some(fault) = self.faults.get(number).cloned() {
                self.inject(&fault, Some(node))?;
            }
        }
        Ok(())
    }

    fn up(&self) -> Vec<NodeId> {
        self.nodes.values().filter(|node| node.is_up()).map(|node| node.id).collect()
    }

    fn find(&self, fault: &Fault) -> Option<NodeId> {
        let pick = |from: &[NodeId], choice: u64| -> Option<NodeId> {
            from.get(usize::try_from(choice % (from.len().max(1) as u64)).ok()?).copied()
        };
        match fault.target {
            Target::Any(choice) => pick(&self.up(), choice),
            Target::Leader(group) => self.leader(group).or_else(|| pick(&self.up(), fault.choice)),
            Target::Follower(group, choice) => {
                let leader = self.leader(group);
                let others: Vec<NodeId> = self
                    .up()
                    .into_iter()
                    .filter(|node| Some(*node) != leader && self.core(*node, group).is_some())
                    .collect();
                pick(&others, choice)
            }
            Target::There => None,
        }
    }

    /// Who leads a group, of the latest term.
    pub(crate) fn leader(&self, group: GroupId) -> Option<NodeId> {
        self.nodes
            .values()
            .filter_map(|node| self.core(node.id, group))
            .filter(|core| core.role() == flintmq_consensus::Role::Ready)
            .max_by_key(|core| core.term())
            .map(|core| core.node())
    }

    #[allow(clippy::too_many_lines)] // one arm per kind of fault
    fn inject(&mut self, fault: &Fault, target: Option<NodeId>) -> Check {
        if self.healed_at.is_some() {
            return Ok(());
        }
        let now = self.schedule.now;
        let (group, lasts) = (fault.group, fault.lasts);
        let mut random = Random::new(fault.choice, 5);
        if self.verbose {
            println!("{now:>10} fault {:?} at {target:?}, {lasts} µs", fault.kind);
        }
        match fault.kind {
            FaultKind::PowerLossOfSeveral | FaultKind::PowerLossOfAll => {
                for id in self.cluster.clone() {
                    if fault.kind == FaultKind::PowerLossOfAll || random.chance(600_000) {
                        let delay = random.below(2) * random.below(100_000);
                        let down = random.between(lasts / 4, lasts);
                        self.schedule.after(delay, Event::LosePower { node: id, down });
                    }
                }
                return Ok(());
            }
            FaultKind::Split => {
                let side: Vec<NodeId> =
                    self.cluster.iter().copied().filter(|_| random.chance(500_000)).collect();
                let cut = self.between(&side, random.chance(200_000));
                self.block(cut, Some(lasts));
                return Ok(());
            }
            FaultKind::BadWeather => {
                self.network.weather = fault.weather;
                let weather = self.profile.weather;
                self.schedule.after(lasts, Event::ResetWeather { weather });
                return Ok(());
            }
            FaultKind::ChangeMember => return self.change_member(group, &mut random),
            FaultKind::ChangeMembers => return self.change_members(group, &mut random),
            _ => {}
        }
        let Some(id) = target else { return Ok(()) };
        match fault.kind {
            FaultKind::Crash => self.crash(id, lasts),
            FaultKind::PowerLoss => self.lose_power(id, lasts),
            FaultKind::PowerLossTwice => {
                self.lose_power(id, lasts / 8);
                let again = lasts / 8 + random.between(1_000, 300_000);
                self.schedule.after(again, Event::LosePower { node: id, down: lasts });
            }
            FaultKind::CleanStop => {
                if let Some(run) = self.run(id) {
                    if let Some(process) = self.process(id, run) {
                        process.stopping = true;
                    }
                    self.input(id, NodeInput::CedeAll)?;
                    let wait = random.between(100, 200_000);
                    self.schedule.after(wait, Event::StopClean { node: id, run, down: lasts });
                }
            }
            FaultKind::Suspend => {
                if let Some(node) = self.nodes.get_mut(&id) {
                    node.suspended_until = now + lasts;
                    self.coverage.saw(Situation::Suspended);
                }
            }
            FaultKind::ClockJump => {
                if let Some(node) = self.nodes.get_mut(&id) {
                    node.clock.jump(now, lasts);
                }
                let run = self.run(id).unwrap_or(0);
                if let Some(process) = self.process(id, run) {
                    process.timer_at = None;
                    if let Some(beats) = &mut process.beats {
                        beats.timer_at = None;
                    }
                }
                self.step_beats(id, NodeInput::Tick);
                self.input(id, NodeInput::Tick)?;
            }
            FaultKind::Isolate => {
                let cut = self.between(&[id], random.chance(200_000));
                self.block(cut, Some(lasts));
            }
            FaultKind::OneWay => {
                let out = random.chance(500_000);
                let others: Vec<NodeId> =
                    self.cluster.iter().copied().filter(|peer| *peer != id).collect();
                let some = random.chance(500_000);
                let cut = others
                    .into_iter()
                    .filter(|_| !some || random.chance(500_000))
                    .map(|peer| if out { (id, peer) } else { (peer, id) })
                    .collect();
                self.coverage.saw(Situation::OneWay);
                self.block(cut, Some(lasts));
            }
            FaultKind::Flap => {
                let Some(peer) = self.other(id, &mut random) else { return Ok(()) };
                let directions = BTreeSet::from([(id, peer), (peer, id)]);
                let period = random.between(10_000, 1_000_000);
                let mut at = now;
                while at < now + lasts {
                    let directions = directions.clone();
                    self.schedule.at(at, Event::Block { directions: directions.clone() });
                    self.schedule.at(at + period / 2, Event::Unblock { directions });
                    at += period;
                }
            }
            FaultKind::LoseConnection => {
                let Some(peer) = self.other(id, &mut random) else { return Ok(()) };
                self.network.lose_connection(id, peer);
                let (one, two) = (random.between(100, 5_000), random.between(100, 5_000));
                self.schedule.after(one, Event::Link { node: id, peer, up: false });
                self.schedule.after(two, Event::Link { node: peer, peer: id, up: false });
                let again = random.between(5_000, 100_000);
                self.schedule.after(again, Event::Link { node: id, peer, up: true });
                self.schedule.after(again, Event::Link { node: peer, peer: id, up: true });
            }
            FaultKind::SlowDisk => {
                let factor = random.skewed(2, 100);
                if let Some(node) = self.nodes.get_mut(&id) {
                    node.slow = (now + lasts, factor);
                }
            }
            FaultKind::FullDisk => {
                self.coverage.saw(Situation::DiskFull);
                if let Some(node) = self.nodes.get_mut(&id) {
                    node.full_until = now + lasts;
                }
            }
            FaultKind::FailSnapshots => {
                if let Some(node) = self.nodes.get_mut(&id) {
                    node.no_snapshots_until = now + lasts;
                }
            }
            FaultKind::FailDisk => {
                self.coverage.saw(Situation::DiskFailed);
                let run = self.run(id).unwrap_or(0);
                if let Some(process) = self.process(id, run) {
                    process.failed = true;
                    self.input(id, NodeInput::StorageFailed)?;
                }
            }
            FaultKind::Replace => self.replace(id),
            FaultKind::Transfer | FaultKind::ForcedTransfer => {
                let force = fault.kind == FaultKind::ForcedTransfer;
                self.transfer(group, force, &mut random)?;
            }
            FaultKind::Cede => {
                if let Some(leader) = self.leader(group) {
                    self.answer(leader, group, Input::Cede)?;
                }
            }
            FaultKind::Stand => {
                let scout = random.chance(500_000);
                // Who knows least of the members is the most tempting.
                let outdated = self
                    .up()
                    .into_iter()
                    .filter_map(|id| self.core(id, group))
                    .filter(|core| core.config().is_voter(core.node()));
                let outdated = outdated.min_by_key(|core| core.config().stamp).map(|c| c.node());
                let id = outdated.filter(|_| random.chance(500_000)).unwrap_or(id);
                self.answer(id, group, Input::Stand { scout })?;
            }
            FaultKind::Stall if self.profile.halves => self.stall(id, lasts),
            FaultKind::Stall => {
                self.input(id, NodeInput::Stalled)?;
                let run = self.run(id).unwrap_or(0);
                self.schedule.after(lasts, Event::Resumed { node: id, run });
            }
            FaultKind::Unfit => {
                let reasons = random.pick(&[
                    UnfitReasons::CLOCK_OFF,
                    UnfitReasons::DISK_FULL,
                    UnfitReasons::DISK_STALLED | UnfitReasons::CLOCK_OFF,
                ]);
                let reasons = reasons.unwrap_or_default();
                self.input(id, NodeInput::Unfit { reasons })?;
                let run = self.run(id).unwrap_or(0);
                self.schedule.after(lasts, Event::Fit { node: id, run });
            }
            FaultKind::GroupStalled => {
                let leader = self.leader(group).unwrap_or(id);
                self.input(leader, NodeInput::GroupStalled { group })?;
            }
            FaultKind::PowerLossOfSeveral
            | FaultKind::PowerLossOfAll
            | FaultKind::Split
            | FaultKind::BadWeather
            | FaultKind::ChangeMember
            | FaultKind::ChangeMembers => {}
        }
        Ok(())
    }

    fn other(&self, id: NodeId, random: &mut Random) -> Option<NodeId> {
        let others: Vec<NodeId> = self.cluster.iter().copied().filter(|peer| *peer != id).collect();
        random.pick(&others)
    }

    fn between(&self, side: &[NodeId], one_way: bool) -> BTreeSet<(NodeId, NodeId)> {
        let mut cut = BTreeSet::new();
        for a in &self.cluster {
            for b in &self.cluster {
                if side.contains(a) && !side.contains(b) {
                    cut.insert((*a, *b));
                    if !one_way {
                        cut.insert((*b, *a));
                    }
                }
            }
        }
        cut
    }

    pub(crate) fn block(&mut self, directions: BTreeSet<(NodeId, NodeId)>, lasts: Option<u64>) {
        if self.healed_at.is_some() {
            return;
        }
        self.network.block(&directions);
        if let Some(lasts) = lasts {
            self.schedule.after(lasts, Event::Unblock { directions });
        }
    }

    pub(crate) fn unblock(&mut self, directions: &BTreeSet<(NodeId, NodeId)>) {
        self.network.unblock(directions);
        for (from, to) in directions.clone() {
            if self.network.works(from, to)
                && self.network.works(to, from)
                && self.random.chance(500_000)
            {
                let delay = self.random.between(100, 20_000);
                self.schedule.after(delay, Event::Link { node: from, peer: to, up: true });
            }
        }
    }

    /// A node is lost for good, and an empty one joins the cluster. The operator sees to the rest.
    fn replace(&mut self, id: NodeId) {
        let newest = self.nodes.keys().next_back().map_or(0, |id| id.0);
        if newest >= MOST_NODES || !self.cluster.contains(&id) || self.is_last_voter(id) {
            return;
        }
        self.coverage.saw(Situation::NodeReplaced);
        self.end_process(id);
        if let Some(node) = self.nodes.get_mut(&id) {
            node.dead = true;
        }
        for ghost in &mut self.ghosts {
            ghost.forget_holder(id);
        }
        #[cfg(feature = "model")]
        self.follower.leave_all();
        let new = NodeId(newest + 1);
        self.cluster.remove(&id);
        self.cluster.insert(new);
        self.replacements.insert(id, new);
        self.make_node(new);
        for peer in self.up() {
            let _ = self.input(peer, NodeInput::AddPeer { peer: new });
        }
        self.schedule.after(100_000, Event::Start { node: new });
    }

    /// True when without this node nothing would be left of some group.
    fn is_last_voter(&self, id: NodeId) -> bool {
        (0..self.profile.groups.len()).any(|number| {
            let group = GroupId(u32::try_from(number).unwrap_or(0));
            let configs = self.nodes.values().filter_map(|node| node.disk.hard_state(group));
            let newest = configs.map(|state| &state.config).max_by_key(|config| config.stamp);
            // One that is a voter and knows it: only such a one can be told to go on.
            let knows = |voter: NodeId| {
                let state = self.nodes.get(&voter).and_then(|node| node.disk.hard_state(group));
                state.is_some_and(|state| state.config.is_voter(voter))
            };
            let others = |voters: &[NodeId]| {
                voters
                    .iter()
                    .any(|voter| *voter != id && self.cluster.contains(voter) && knows(*voter))
            };
            newest.is_some_and(|config| {
                !others(&config.voters) || !(config.outgoing.is_empty() || others(&config.outgoing))
            })
        })
    }

    fn transfer(&mut self, group: GroupId, force: bool, random: &mut Random) -> Check {
        let Some(leader) = self.leader(group) else { return Ok(()) };
        let voters = self.core(leader, group).map(|core| core.config().voters.clone());
        let others: Vec<NodeId> =
            voters.unwrap_or_default().into_iter().filter(|voter| *voter != leader).collect();
        let Some(to) = random.pick(&others) else { return Ok(()) };
        if let Some(live) = self.live(leader, group) {
            live.handed_to = Some((to, force));
        }
        self.answer(leader, group, Input::Transfer { to, force })
    }

    /// Sees to it that a node has the group, as a member to be.
    pub(crate) fn host(&mut self, id: NodeId, group: GroupId) -> Check {
        let now = self.schedule.now;
        let settings = self.spec(group).settings.clone();
        let Some(node) = self.nodes.get_mut(&id) else { return Ok(()) };
        let local = node.local(now);
        let Some(process) = &mut node.process else { return Ok(()) };
        if process.core.group(group).is_some() {
            return Ok(());
        }
        node.disk.create(group, creation(group), flintmq_consensus::HardState::default());
        let hard_state = node.disk.hard_state(group).cloned().unwrap_or_default();
        let hard_state_history = hard_state.history;
        let restored = flintmq_consensus::Restored {
            group,
            creation: creation(group),
            node: id,
            hard_state,
            log: flintmq_consensus::LogTerms::default(),
            applied: 0,
            recovering: None,
        };
        let live = Live { born: self.steps, history: hard_state_history, ..Live::default() };
        process.groups.insert(group, live);
        if let Err(why) = process.core.add_group_with(local, restored, settings) {
            return crate::ghost::violated("Restore", why.to_string());
        }
        self.flush(id)
    }

    pub(crate) fn change(
        &mut self,
        leader: NodeId,
        group: GroupId,
        change: &MemberChange,
    ) -> Check {
        let now = self.schedule.now;
        let Some(node) = self.nodes.get_mut(&leader) else { return Ok(()) };
        let local = node.local(now);
        let Some(process) = &mut node.process else { return Ok(()) };
        process.touched.insert(group);
        if let Ok(stamp) = process.core.change_members(local, group, change.clone()) {
            if let Some(live) = process.groups.get_mut(&group) {
                live.changed = Some(stamp);
            }
            self.moments.push((crate::fault::Moment::Changing, leader));
            self.coverage.saw(match change {
                MemberChange::AddLearner(_) => Situation::LearnerAdded,
                MemberChange::Promote(_) => Situation::Promoted,
                MemberChange::RemoveVoter(_) | MemberChange::RemoveLearner(_) => {
                    Situation::VoterRemoved
                }
                MemberChange::Joint { .. } => Situation::JointBegun,
            });
            if self.verbose {
                println!("{now:>10} {leader} changes group {group}: {change:?}");
            }
        }
        self.after_step(leader)
    }

    fn change_member(&mut self, group: GroupId, random: &mut Random) -> Check {
        let Some(leader) = self.leader(group) else { return Ok(()) };
        let Some(config) = self.core(leader, group).map(|core| core.config().clone()) else {
            return Ok(());
        };
        let outside: Vec<NodeId> = self
            .up()
            .into_iter()
            .filter(|node| self.cluster.contains(node) && !config.is_member(*node))
            .collect();
        let change = match random.below(4) {
            0 if config.voters.len() > 2 => {
                let others: Vec<NodeId> =
                    config.voters.iter().copied().filter(|voter| *voter != leader).collect();
                random.pick(&others).map(MemberChange::RemoveVoter)
            }
            1 => random.pick(&config.learners).map(MemberChange::RemoveLearner),
            2 | 3 if !config.learners.is_empty() => {
                random.pick(&config.learners).map(MemberChange::Promote)
            }
            _ => random.pick(&outside).map(MemberChange::AddLearner),
        };
        let Some(change) = change else { return Ok(()) };
        if let MemberChange::AddLearner(node) = change {
            self.host(node, group)?;
        }
        self.change(leader, group, &change)
    }

    fn change_members(&mut self, group: GroupId, random: &mut Random) -> Check {
        let Some(leader) = self.leader(group) else { return Ok(()) };
        let mut up: Vec<NodeId> =
            self.up().into_iter().filter(|node| self.cluster.contains(node)).collect();
        let wanted = random.pick(&[1, 2, 3, 3, 3, 5]).unwrap_or(3);
        let mut voters = Vec::new();
        while voters.len() < wanted && !up.is_empty() {
            let at = usize::try_from(random.below(up.len() as u64)).unwrap_or(0);
            voters.push(up.swap_remove(at));
        }
        up.retain(|_| random.chance(300_000));
        for node in voters.iter().chain(&up) {
            self.host(*node, group)?;
        }
        self.change(leader, group, &MemberChange::Joint { voters, learners: up })
    }

    /// Watches what arrives, for coverage.
    pub(crate) fn on_delivery(&mut self, packet: &Packet) {
        for message in &packet.messages {
            let Some(core) = self.core(packet.to, message.group) else { continue };
            let recovering = core.recovering();
            let old = |grant: &RejoinTarget| recovering.is_some_and(|epoch| epoch > grant.epoch);
            match &message.body {
                Body::RejoinGrant(grant) if old(grant) => {
                    self.coverage.saw(Situation::OldGrantArrived);
                }
                Body::Append { rejoin: Some(grant), .. } if old(grant) => {
                    self.coverage.saw(Situation::OldGrantArrived);
                }
                Body::FetchReply {
                    outcome: flintmq_consensus::FetchOutcome::Conflict(_), ..
                } => self.coverage.saw(Situation::FetchConflicted),
                Body::FetchReply { outcome: flintmq_consensus::FetchOutcome::Gone, .. } => {
                    self.coverage.saw(Situation::FetchSourceLost);
                }
                Body::SnapshotOffer { id, .. } => {
                    let staged = self.nodes.get(&packet.to).and_then(|node| {
                        node.disk.replica(message.group)?.staged.as_ref().map(|s| s.id)
                    });
                    if staged == Some(*id) {
                        self.coverage.saw(Situation::SnapshotResumed);
                    }
                }
                _ => {}
            }
        }
    }
}

/// True for a node of which everything may be gone since it was last seen.
pub(crate) fn is_lost(node: Option<&Node>) -> bool {
    node.is_none_or(|node| node.dead)
}
