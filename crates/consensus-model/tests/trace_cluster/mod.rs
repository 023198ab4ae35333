//! A few bare cores, with a network and disks that do what they may, and nothing that checks them
//! but the model.

mod disk;
mod events;
mod random;

use bytes::Bytes;
use disk::Disk;
use flintmq_consensus::{
    ConfigRegister, Core, CreationId, Effect, GroupId, Input, LogPosition, Message, Mutant, NodeId,
    Restored, Role, Settings, SnapshotId, Time,
};
use flintmq_consensus_model::trace::{Mismatch, TraceChecker};
use random::Random;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Why a run ended early.
#[derive(Debug)]
pub(crate) enum End {
    /// The model does not explain what a core did.
    Mismatch(Box<Mismatch>),
    /// A core asked for what makes no sense; only broken ones do.
    Senseless(&'static str),
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Mismatch(mismatch) => write!(f, "{mismatch}"),
            Self::Senseless(what) => write!(f, "a core asked for {what}"),
        }
    }
}

impl From<Mismatch> for End {
    fn from(mismatch: Mismatch) -> Self {
        Self::Mismatch(Box::new(mismatch))
    }
}

#[derive(Default)]
struct Host {
    core: Option<Core>,
    disk: Disk,
    starts: u64,
}

/// How often what happens, drawn for each run.
struct Profile {
    crashes: usize,
    losses: usize,
    drops: usize,
    overtakes: usize,
    batches: usize,
    cuts: usize,
    stands: usize,
    /// Leaders follow quickly upon each other.
    restless: bool,
    changes: usize,
    orders: usize,
    proposals: usize,
}

/// One group.
pub(crate) struct Cluster {
    pub(crate) checker: TraceChecker,
    hosts: Vec<Host>,
    network: Vec<Message>,
    now: Time,
    random: Random,
    settings: Arc<Settings>,
    profile: Profile,
    /// Off for good.
    gone: BTreeSet<NodeId>,
    /// Number of the operator's last order.
    orders: u32,
    verbose: bool,
}

impl Cluster {
    /// A group whose shape and life the seed decides.
    pub(crate) fn new(seed: u64, mutant: Option<Mutant>, verbose: bool) -> Self {
        let mut random = Random::new(seed);
        let count = 3 + random.below(3) as u32;
        let voters = if random.percent(50) { 3 } else { count };
        let nodes: Vec<NodeId> = (1..=count).map(NodeId).collect();
        let register = ConfigRegister::of_voters(nodes[..voters as usize].iter().copied());
        let settings = Settings {
            message_entries: 2,
            window_entries: 6,
            cache_bytes: if random.percent(30) { 8 } else { 1 << 10 },
            mutant,
            ..Settings::default()
        };
        let host = |node: &NodeId| {
            let mut host = Host::default();
            if register.is_voter(*node) {
                host.disk.hard.config = register.clone();
            }
            host
        };
        let profile = Profile {
            crashes: random.below(40),
            losses: random.below(60),
            drops: random.below(20),
            overtakes: random.below(100),
            batches: if random.percent(30) { random.below(80) } else { 0 },
            cuts: random.below(100),
            stands: random.below(60),
            restless: random.percent(30),
            changes: if random.percent(50) { random.below(100) } else { 0 },
            orders: if random.percent(20) { random.below(100) } else { 0 },
            proposals: random.below(100),
        };
        Self {
            checker: TraceChecker::new(&nodes, &register.voters),
            hosts: nodes.iter().map(host).collect(),
            network: Vec::new(),
            now: Time(0),
            random,
            settings: Arc::new(settings),
            profile,
            gone: BTreeSet::new(),
            orders: 0,
            verbose,
        }
    }

    fn nodes(&self) -> Vec<NodeId> {
        (1..=self.hosts.len() as u32).map(NodeId).collect()
    }

    fn host(&mut self, node: NodeId) -> &mut Host {
        &mut self.hosts[node.0 as usize - 1]
    }

    fn is_on(&self, node: NodeId) -> bool {
        self.hosts[node.0 as usize - 1].core.is_some()
    }

    fn leaders(&self) -> Vec<NodeId> {
        let ready = |node: &NodeId| {
            let core = &self.hosts[node.0 as usize - 1].core;
            core.as_ref().is_some_and(|core| core.role() == Role::Ready)
        };
        self.nodes().into_iter().filter(ready).collect()
    }

    fn tell(&self, what: impl FnOnce() -> String) {
        if self.verbose {
            println!("{}", what());
        }
    }

    /// Starts the process; `lost_power` since it last ran.
    fn start(&mut self, node: NodeId, lost_power: bool) -> Result<(), End> {
        let settings = Arc::clone(&self.settings);
        let host = self.host(node);
        host.starts += 1;
        let (disk, seed) = (&host.disk, host.starts * 100 + u64::from(node.0));
        let restored = Restored {
            group: GroupId(1),
            creation: CreationId(1),
            node,
            hard_state: disk.hard.clone(),
            log: disk.now.terms(),
            applied: disk.now.applied,
            recovering: (disk.now.rejoined < disk.losses).then_some(disk.losses),
        };
        let first = host.starts == 1;
        let core = Core::new(restored, settings, seed).map_err(|_| End::Senseless("a store"))?;
        host.core = Some(core);
        self.tell(|| format!("{node} starts, power lost: {lost_power}"));
        let core = self.hosts[node.0 as usize - 1].core.as_ref();
        if let Some(core) = core.filter(|_| !first) {
            self.checker.restarted(core, lost_power)?;
        }
        self.input(node, Input::Started)?;
        for peer in self.nodes() {
            if peer != node && self.is_on(peer) {
                self.input(peer, Input::PeerUp { peer: node, restarted: true })?;
            } else if peer != node {
                self.input(node, Input::PeerDown { peer })?;
            }
        }
        Ok(())
    }

    fn stop(&mut self, node: NodeId) -> Result<(), End> {
        self.tell(|| format!("{node} stops"));
        self.host(node).core = None;
        self.network.retain(|message| message.from != node && message.to != node);
        for peer in self.nodes() {
            self.input(peer, Input::PeerDown { peer: node })?;
        }
        Ok(())
    }

    fn input(&mut self, node: NodeId, input: Input) -> Result<(), End> {
        self.with_core(node, |core, now, effects| {
            let told = format!("{input:?}");
            core.step(now, input, effects);
            told
        })
    }

    /// Lets a core take a step, shows it to the model, and does what the core asks for.
    fn with_core(
        &mut self,
        node: NodeId,
        step: impl FnOnce(&mut Core, Time, &mut Vec<Effect>) -> String,
    ) -> Result<(), End> {
        let now = self.now;
        let Some(core) = &mut self.hosts[node.0 as usize - 1].core else { return Ok(()) };
        let mut effects = Vec::new();
        let told = step(core, now, &mut effects);
        if self.verbose {
            println!("{node} <- {told}");
            effects.iter().for_each(|effect| println!("    {effect:?}"));
        }
        self.checker.stepped(core, &effects)?;
        effects.into_iter().try_for_each(|effect| self.carry_out(node, effect))
    }

    fn carry_out(&mut self, node: NodeId, effect: Effect) -> Result<(), End> {
        match effect {
            Effect::Send(message) if self.network.len() < 300 => self.network.push(message),
            Effect::SaveHardState { save, state } => {
                self.host(node).disk.saves.push_back((save, state));
            }
            Effect::Append { .. }
            | Effect::Reset { .. }
            | Effect::Rejoined { .. }
            | Effect::SnapshotInstall { .. }
            | Effect::Commit { .. } => self.host(node).disk.writes.push_back(effect),
            Effect::ReadLog { read, after, upto, .. } => {
                let log = &self.host(node).disk.now.log;
                let wanted = log.iter().filter(|entry| entry.index > after && entry.index <= upto);
                let mut entries: Vec<_> = wanted.take(2).cloned().collect();
                if entries.first().is_some_and(|entry| entry.index != after + 1) {
                    entries.clear();
                }
                self.input(node, Input::LogRead { read, entries })?;
            }
            Effect::SnapshotOpen { to } => {
                let host = self.host(node);
                let store = &host.disk.now;
                let term = store.terms().term_at(store.applied).unwrap_or(0);
                let position = LogPosition { term, index: store.applied };
                let id = SnapshotId { source: node, number: host.starts, position };
                self.input(node, Input::SnapshotOpened { to, id })?;
            }
            Effect::SnapshotRead { to, id, cursor, .. } => {
                let next = cursor.is_empty().then(|| Bytes::from_static(b"rest"));
                let data = Bytes::from_static(b"piece");
                self.input(node, Input::SnapshotRead { to, id, cursor, data, next })?;
            }
            Effect::SnapshotStage { id, cursor, .. } => {
                self.input(node, Input::SnapshotStaged { id, cursor })?;
            }
            _ => {}
        }
        Ok(())
    }
}
