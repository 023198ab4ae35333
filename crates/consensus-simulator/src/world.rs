//! The simulated cluster: all nodes, the network between them, and the agenda.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use flintmq_consensus::{
    ConfigRegister, CreationId, GroupId, HardState, Liveness, NodeCore, NodeId, NodeInput,
    NodeSettings, Restored, UnfitReasons,
};

use crate::client::Client;
use crate::coverage::{Coverage, Situation};
use crate::disk::Disk;
use crate::event::{Event, Schedule};
use crate::fault::{Fault, Moment};
use crate::ghost::{Check, Ghost, Violation, ensure};
use crate::machine::Snapshots;
use crate::network::Network;
use crate::node::{Beats, Clock, Live, Node, Process};
use crate::profile::{Durability, Profile};
use crate::random::{Random, Trace};

/// Events at one moment that no sound host could have: something turns in circles.
const STORM: u64 = 50_000;

/// See the module.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) seed: u64,
    pub(crate) profile: Profile,
    pub(crate) faults: Vec<Fault>,
    pub(crate) schedule: Schedule,
    pub(crate) network: Network,
    pub(crate) nodes: BTreeMap<NodeId, Node>,
    /// Nodes that are not lost for good.
    pub(crate) cluster: BTreeSet<NodeId>,
    pub(crate) ghosts: Vec<Ghost>,
    pub(crate) snapshots: Snapshots,
    pub(crate) clients: Vec<Client>,
    pub(crate) coverage: Coverage,
    pub(crate) trace: Trace,
    pub(crate) random: Random,
    pub(crate) steps: u64,
    /// Faults that wait for their moment, and until when.
    pub(crate) ambushes: Vec<(usize, u64)>,
    pub(crate) moments: Vec<(Moment, NodeId)>,
    /// Who takes the place of whom.
    pub(crate) replacements: BTreeMap<NodeId, NodeId>,
    /// Since when a group has nobody who serves.
    pub(crate) leaderless: Vec<u64>,
    pub(crate) forced: BTreeSet<GroupId>,
    /// When faults ended.
    pub(crate) healed_at: Option<u64>,
    /// All that was decided when the run was looked at, and since when it is no more.
    pub(crate) progress: Option<(u64, u64)>,
    pub(crate) elections_at_heal: Vec<u64>,
    /// A node that stays one that should not lead.
    pub(crate) unfit_at_end: Option<NodeId>,
    pub(crate) done: bool,
    #[cfg(feature = "model")]
    pub(crate) follower: crate::follower::Follower,
    pub(crate) verbose: bool,
    storm: (u64, u64),
}

impl World {
    pub(crate) fn new(seed: u64, profile: Profile, faults: Vec<Fault>) -> Self {
        let groups = profile.groups.len();
        let mut world = Self {
            seed,
            network: Network::new(seed, profile.weather, profile.datagrams),
            faults,
            schedule: Schedule::default(),
            nodes: BTreeMap::new(),
            cluster: (1..=profile.nodes)
                .filter_map(|n| u32::try_from(n).ok())
                .map(NodeId)
                .collect(),
            ghosts: vec![Ghost::default(); groups],
            snapshots: Snapshots::default(),
            clients: Vec::new(),
            coverage: Coverage::default(),
            trace: Trace::default(),
            random: Random::new(seed, 3),
            steps: 0,
            ambushes: Vec::new(),
            moments: Vec::new(),
            replacements: BTreeMap::new(),
            leaderless: vec![0; groups],
            forced: BTreeSet::new(),
            healed_at: None,
            progress: None,
            elections_at_heal: vec![0; groups],
            unfit_at_end: None,
            done: false,
            #[cfg(feature = "model")]
            follower: crate::follower::Follower::default(),
            verbose: false,
            storm: (0, 0),
            profile,
        };
        world.set_up();
        world
    }

    fn set_up(&mut self) {
        for id in self.cluster.clone() {
            self.make_node(id);
        }
        let ids: Vec<NodeId> = self.cluster.iter().copied().collect();
        for (number, spec) in self.profile.groups.clone().into_iter().enumerate() {
            let group = GroupId(u32::try_from(number).unwrap_or(0));
            let voters = (0..spec.voters)
                .filter_map(|at| {
                    ids.get(usize::try_from((spec.first + at) % ids.len() as u64).ok()?)
                })
                .copied();
            let state =
                HardState { config: ConfigRegister::of_voters(voters), ..HardState::default() };
            #[cfg(feature = "model")]
            self.follower.add(group, &spec, &self.cluster, &state.config.voters);
            for voter in state.config.voters.clone() {
                if let Some(node) = self.nodes.get_mut(&voter) {
                    node.disk.create(group, creation(group), state.clone());
                }
            }
        }
        for id in ids {
            let delay = self.random.below(50_000);
            self.schedule.after(delay, Event::Start { node: id });
        }
        for (number, fault) in self.faults.iter().enumerate() {
            self.schedule.at(fault.at, Event::Fault { number });
        }
        self.make_clients();
        self.schedule.at(200_000, Event::Operator);
        self.schedule.at(self.profile.faults_end, Event::Heal);
    }

    pub(crate) fn make_node(&mut self, id: NodeId) {
        let mut random = Random::new(self.seed, 100 + u64::from(id.0));
        let drift = random.below(2 * self.profile.drift_ppm + 1);
        let drift =
            i64::try_from(drift).unwrap_or(0) - i64::try_from(self.profile.drift_ppm).unwrap_or(0);
        let offset = random.below(1_000_000_000);
        self.nodes.insert(
            id,
            Node {
                id,
                clock: Clock::new(offset, drift),
                disk: Disk::default(),
                process: None,
                dead: false,
                random,
                suspended_until: 0,
                stalled_until: 0,
                slow: (0, 1),
                full_until: 0,
                no_snapshots_until: 0,
                writing: false,
                saving: false,
                snapshots_made: 0,
            },
        );
    }

    /// One event. False when there is nothing left to do.
    pub(crate) fn step(&mut self) -> Result<bool, Violation> {
        if self.done {
            return Ok(false);
        }
        let Some(event) = self.schedule.next() else { return Ok(false) };
        self.steps += 1;
        let now = self.schedule.now;
        self.storm = if self.storm.0 == now { (now, self.storm.1 + 1) } else { (now, 0) };
        ensure!(self.storm.1 < STORM, "Busy", "{} events at {now}", self.storm.1);
        if let Some(node) = event.runs_on()
            && let Some(until) = self.nodes.get(&node).map(|node| node.runs_again(&event))
            && until > now
        {
            self.schedule.at(until, event);
            return Ok(true);
        }
        std::mem::discriminant(&event).hash(&mut self.trace);
        (now, event.runs_on()).hash(&mut self.trace);
        if self.verbose {
            self.tell(&event);
        }
        self.dispatch(event)?;
        self.spring_ambushes()?;
        Ok(true)
    }

    pub(crate) fn hash(&self) -> u64 {
        self.trace.finish()
    }

    fn dispatch(&mut self, event: Event) -> Check {
        match event {
            Event::Deliver { packet, run, connection, .. } => {
                let (from, to) = (packet.from, packet.to);
                let reaches = self.network.datagrams
                    || (self.run(to) == Some(run)
                        && self.network.connection(from, to) == connection);
                if reaches && self.network.works(from, to) {
                    self.on_delivery(&packet);
                    self.input(to, NodeInput::Packet(*packet))?;
                }
            }
            Event::Link { node, peer, up } => {
                let input = if up && self.network.works(peer, node) {
                    NodeInput::Connected { peer }
                } else {
                    NodeInput::Disconnected { peer }
                };
                self.input(node, input)?;
            }
            Event::Timer { node, run, at } => {
                let process = self.process(node, run);
                if process.is_some_and(|process| process.timer_at.take_if(|t| *t == at).is_some()) {
                    self.input(node, NodeInput::Tick)?;
                }
            }
            Event::Beat { node, run, at } => self.on_beat(node, run, at),
            Event::Told { node, run } => self.on_told(node, run)?,
            Event::Fit { node, run } => {
                if self.process(node, run).is_some() && self.unfit_at_end != Some(node) {
                    self.input(node, NodeInput::Unfit { reasons: UnfitReasons::NONE })?;
                }
            }
            Event::NotStepped { node, run } => self.on_not_stepped(node, run),
            Event::Flush { node, run } => {
                if self.process(node, run).is_some() {
                    self.flush(node)?;
                }
            }
            Event::Written { node, run, count } => self.on_written(node, run, count)?,
            Event::SyncDue { node, run } => self.on_sync_due(node, run),
            Event::Synced { node, run } => self.on_synced(node, run)?,
            Event::HardSynced { node, run, count } => self.on_hard_synced(node, run, count)?,
            Event::Answer { node, run, group, input } => {
                if self.process(node, run).is_some() {
                    self.answer(node, group, input)?;
                }
            }
            Event::Apply { node, run, group } => {
                if self.process(node, run).is_some() {
                    self.apply(node, group)?;
                }
            }
            Event::Checkpoint { node, run } => self.on_checkpoint(node, run),
            Event::Start { node } => self.start(node)?,
            Event::StopClean { node, run, down } => self.stop_clean(node, run, down),
            Event::Fault { number } => self.on_fault(number)?,
            Event::Block { directions } => self.block(directions, None),
            Event::Unblock { directions } => self.unblock(&directions),
            Event::ResetWeather { weather } => self.network.weather = weather,
            Event::Resumed { node, run } => {
                if self.process(node, run).is_some() {
                    self.input(node, NodeInput::Resumed)?;
                }
            }
            Event::LosePower { node, down } => self.lose_power(node, down),
            Event::Delete { node, run, group, born } => {
                if self.live(node, group).is_some_and(|live| live.born == born) {
                    self.delete_replica(node, run, group)?;
                }
            }
            Event::Client { client } => self.on_client(client),
            Event::Arrive { client, node, request } => self.on_request(client, node, request)?,
            Event::Answered { client, reply } => self.on_reply(client, reply)?,
            Event::Operator => self.on_operator()?,
            Event::Heal => self.heal()?,
            Event::Watch => self.watch()?,
        }
        Ok(())
    }

    pub(crate) fn run(&self, node: NodeId) -> Option<u64> {
        self.nodes.get(&node).and_then(Node::run)
    }

    pub(crate) fn process(&mut self, node: NodeId, run: u64) -> Option<&mut Process> {
        self.nodes.get_mut(&node)?.process.as_mut().filter(|process| process.run == run)
    }

    pub(crate) fn spec(&self, group: GroupId) -> &crate::profile::GroupSpec {
        &self.profile.groups[group.0 as usize]
    }

    /// Steps a process, and sees to it that its effects are carried out.
    pub(crate) fn input(&mut self, id: NodeId, input: NodeInput) -> Check {
        let Some(input) = self.input_of_beats(id, input) else { return Ok(()) };
        let now = self.schedule.now;
        let Some(node) = self.nodes.get_mut(&id) else { return Ok(()) };
        let local = node.local(now);
        let Some(process) = &mut node.process else { return Ok(()) };
        if let NodeInput::Group { group, .. } = &input {
            process.touched.insert(*group);
        }
        let before = *process.core.counters();
        process.core.step(local, input);
        let after = process.core.counters();
        if after.packets_early > before.packets_early {
            self.coverage.saw(Situation::EarlyPacket);
        }
        if after.unfit_hand_overs > before.unfit_hand_overs {
            self.coverage.saw(Situation::UnfitHandsOver);
        }
        self.after_step(id)
    }

    pub(crate) fn after_step(&mut self, id: NodeId) -> Check {
        if !self.profile.batching {
            return self.flush(id);
        }
        let delay = self.random.below(200);
        if let Some(process) = self.nodes.get_mut(&id).and_then(|node| node.process.as_mut())
            && !process.flushing
        {
            process.flushing = true;
            let run = process.run;
            self.schedule.after(delay, Event::Flush { node: id, run });
        }
        Ok(())
    }

    /// Answers an effect of a group.
    pub(crate) fn answer(
        &mut self,
        id: NodeId,
        group: GroupId,
        input: flintmq_consensus::Input,
    ) -> Check {
        self.input(id, NodeInput::Group { group, input })
    }

    /// Starts a process on a node that has none.
    pub(crate) fn start(&mut self, id: NodeId) -> Check {
        let now = self.schedule.now;
        let peers: Vec<NodeId> = self.cluster.iter().copied().filter(|peer| *peer != id).collect();
        let synchronous: Vec<Durability> =
            self.profile.groups.iter().map(|spec| spec.durability).collect();
        let Some(node) = self.nodes.get_mut(&id) else { return Ok(()) };
        if node.process.is_some() || node.dead {
            return Ok(());
        }
        node.suspended_until = 0;
        node.stalled_until = 0;
        node.writing = false;
        node.saving = false;
        #[cfg(feature = "model")]
        let lost_power = node.disk.lossy && !node.disk.clean;
        node.disk.start();
        let run = node.disk.runs;
        let beats = NodeSettings { seed: self.seed, ..NodeSettings::new(id, run, peers) };
        let liveness = if self.profile.halves { Liveness::Told } else { Liveness::Own };
        let settings = NodeSettings {
            liveness,
            #[cfg(feature = "mutants")]
            mutant: self.profile.node_mutant,
            ..beats.clone()
        };
        let local = node.local(now);
        let mut core = NodeCore::new(settings);
        let mut groups = BTreeMap::new();
        let hosted: Vec<GroupId> = node.disk.groups().map(|(group, _)| group).collect();
        if hosted.iter().any(|g| synchronous[g.0 as usize] == Durability::Synchronous) {
            // What is handed over as written must be fsynced, as it will be acknowledged again.
            node.disk.begin_sync();
            node.disk.end_sync();
        }
        for group in hosted {
            let durability = synchronous[group.0 as usize];
            if durability == Durability::Memory && run > 1 {
                node.disk.forget_memory(group);
            }
            let Some(replica) = node.disk.replica(group) else { continue };
            let recovering = match durability {
                Durability::Synchronous => None,
                Durability::Memory => (replica.rejoined < run && run > 1).then_some(run),
                Durability::Background => {
                    (replica.rejoined < node.disk.loss_epoch).then_some(node.disk.loss_epoch)
                }
            };
            let hard_state = node.disk.hard_state(group).cloned().unwrap_or_default();
            let machine = (*replica.machine).clone();
            let live = Live {
                commit: machine.applied.index,
                history: hard_state.history,
                void: hard_state.void,
                machine,
                ..Live::default()
            };
            self.ghosts[group.0 as usize].has_term(id, hard_state.term)?;
            let restored = Restored {
                group,
                creation: replica.creation,
                node: id,
                hard_state,
                log: replica.log.shape(),
                applied: live.machine.applied.index,
                recovering,
            };
            let settings = Arc::clone(&self.profile.groups[group.0 as usize].settings);
            #[cfg(feature = "model")]
            if run > 1 {
                self.follower.restarted(&restored, &settings, lost_power)?;
            }
            if let Err(why) = core.add_group_with(local, restored, settings) {
                return crate::ghost::violated("Restore", why.to_string());
            }
            groups.insert(group, live);
        }
        let touched = groups.keys().copied().collect();
        let beats = self.profile.halves.then(|| Beats {
            core: NodeCore::new(beats),
            timer_at: None,
            words: VecDeque::new(),
        });
        node.process = Some(Process {
            core,
            beats,
            run,
            groups,
            timer_at: None,
            flushing: false,
            touched,
            failed: false,
            stopping: false,
        });
        let others: Vec<NodeId> = self
            .nodes
            .values()
            .filter(|other| other.id != id && other.is_up())
            .map(|other| other.id)
            .collect();
        for peer in others {
            if self.network.works(id, peer) && self.network.works(peer, id) {
                let delay = self.random.between(200, 3_000);
                self.schedule.after(delay, Event::Link { node: id, peer, up: true });
                self.schedule.after(delay, Event::Link { node: peer, peer: id, up: true });
            }
        }
        let sync = self.random.below(2 * self.profile.disk.sync_interval);
        self.schedule.after(sync, Event::SyncDue { node: id, run });
        let checkpoint = self.random.below(2 * self.profile.checkpoint_interval);
        self.schedule.after(checkpoint, Event::Checkpoint { node: id, run });
        self.flush_beats(id);
        if self.unfit_at_end == Some(id) {
            self.input(id, NodeInput::Unfit { reasons: UnfitReasons::CLOCK_OFF })?;
        }
        self.flush(id)?;
        self.check_all_quorums()
    }

    /// Ends a process, if there is one. What its disk keeps is decided by the caller.
    pub(crate) fn end_process(&mut self, id: NodeId) {
        let Some(process) = self.nodes.get_mut(&id).and_then(|node| node.process.take()) else {
            return;
        };
        self.trace.write_u64(u64::from(id.0));
        for core in process.core.groups() {
            if core.role() == flintmq_consensus::Role::Syncing {
                self.coverage.saw(Situation::SyncingLeaderLost);
            }
            if core.config().is_joint() && core.leader() == Some(id) {
                self.coverage.saw(Situation::JointInterrupted);
            }
        }
        for other in self.nodes.values() {
            let fetches = other
                .process
                .as_ref()
                .is_some_and(|process| process.groups.values().any(|live| live.source == Some(id)));
            if fetches {
                self.coverage.saw(Situation::FetchSourceLost);
            }
        }
    }

    /// Those who are left notice that the connection is gone, or not.
    pub(crate) fn tell_of_loss(&mut self, id: NodeId) {
        for peer in self.cluster.clone() {
            if peer != id
                && self.random.chance(self.profile.notices_loss)
                && self.network.works(id, peer)
            {
                let delay = self.random.between(100, 5_000);
                self.schedule.after(delay, Event::Link { node: peer, peer: id, up: false });
            }
        }
    }
}

/// Which making of the group it is; there is only one of each.
pub(crate) fn creation(group: GroupId) -> CreationId {
    CreationId(u64::from(group.0) + 7)
}
