//! The shard: its groups, what it is made of, and what can be seen of it.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;

use flintmq_consensus::{
    ConfigRegister, Core, GroupId, Index, Input, Liveness, NodeCore, NodeCounters, NodeEffect,
    NodeId, NodeInput, NodeSettings, Settings, Time,
};
use flintmq_log_store::LogStore;

use crate::assignment::Assignment;
use crate::clock::GroupTime;
use crate::effect::{ShardEffect, ShardError};
use crate::fitness::Fitness;
use crate::group::InGroup;
use crate::host::Host;
use crate::input::{FromStore, StoreEvent, StoreEvents};
use crate::machine::Machine;
use crate::mutants::{Mutant, breaks};
use crate::network::Network;
use crate::peers::Peers;
use crate::replica::{LedAs, Replica, StoredGroup, StoredState, is_led};
use crate::status::ReplicaStatus;
use crate::ticks::Ticks;

/// Bytes that may be proposed and not committed. Machines stop far below; what one of them proposes
/// last must still fit, and that may be the largest message.
const WINDOW_BYTES: u64 = 192 << 20;

/// How a shard reaches the world.
pub struct ShardParts {
    /// The consensus of this node.
    pub node: NodeSettings,
    /// Whether the cluster has other nodes at all, or may get some.
    pub clustered: bool,
    /// Where the logs and states are.
    pub store: Arc<dyn LogStore>,
    /// Takes the store's callbacks, which are inputs for the shard.
    pub events: StoreEvents,
    /// The way to other nodes.
    pub network: Box<dyn Network + Send>,
}

/// A group with its machine.
pub(crate) struct Hosted<M> {
    pub(crate) machine: M,
    pub(crate) replica: Replica,
    /// It is in the list of groups that have something to do.
    pub(crate) dirty: bool,
    /// When its alarm goes off.
    pub(crate) armed: Option<Time>,
}

/// The host of a node's consensus groups: it runs their cores ([`NodeCore`]) and their machines
/// ([`Machine`]), keeps the order between what they ask for, and talks to store and network.
///
/// It does no I/O itself, and reads no clock: see the crate's page for how it is driven.
pub struct Shard<M: Machine> {
    pub(crate) core: NodeCore,
    pub(crate) host: Host,
    pub(crate) groups: BTreeMap<GroupId, Hosted<M>>,
    /// Groups that have something to do, in the order in which they got it.
    pub(crate) dirty: Vec<GroupId>,
    pub(crate) ticks: Ticks,
    /// Groups whose data are being dropped: nothing may be written to them meanwhile.
    pub(crate) dropping: BTreeSet<GroupId>,
    /// Groups that are not stopped yet, once the node is to stop.
    pub(crate) stopping: Option<BTreeSet<GroupId>>,
    pub(crate) done: bool,
    // Reused from turn to turn.
    pub(crate) node_effects: Vec<NodeEffect>,
    pub(crate) machine_effects: Vec<M::Effect>,
    pub(crate) spare: Vec<GroupId>,
}

impl<M: Machine> Shard<M> {
    /// A shard without groups. All other nodes count as out of reach until they are told.
    #[must_use]
    pub fn new(parts: ShardParts) -> Self {
        let ShardParts { mut node, clustered, store, events, network } = parts;
        let group = (*node.group).clone();
        let peers = if breaks(Mutant::PeersStartUp) { node.peers.clone() } else { Vec::new() };
        node.liveness = Liveness::Told;
        node.group = Arc::new(Settings { proposal_window_bytes: WINDOW_BYTES, ..group });
        let host = Host {
            node: node.node,
            clustered,
            store,
            events,
            network,
            now: Time(0),
            time: GroupTime::default(),
            fitness: Fitness::default(),
            peers: Peers::default(),
            assignment: Arc::new(Assignment::default()),
            controller_led: false,
            catching_up: BTreeSet::new(),
            told: Vec::new(),
            no_members: ConfigRegister::default(),
            failure: None,
        };
        let mut shard = Self {
            core: NodeCore::new(node),
            host,
            groups: BTreeMap::new(),
            dirty: Vec::new(),
            ticks: Ticks::new(),
            dropping: BTreeSet::new(),
            stopping: None,
            done: false,
            node_effects: Vec::new(),
            machine_effects: Vec::new(),
            spare: Vec::new(),
        };
        for peer in peers {
            shard.on_peer(peer, true, 1, false);
        }
        shard
    }

    /// Adds a group and starts it. The machine is new: it is given the stored state, and then all
    /// entries behind it as soon as they are known to be committed. The store's reports of the
    /// group come here from now on.
    ///
    /// # Errors
    /// The store's content does not belong together or to this node, or the machine cannot read
    /// it. Nothing was added.
    pub fn add_group(
        &mut self,
        now: Time,
        stored: StoredGroup,
        machine: M,
    ) -> Result<(), ShardError> {
        self.host.now = self.host.now.max(now);
        let (node, group) = (self.host.node, stored.id());
        if !self.host.clustered {
            stored.check_alone(node)?;
        }
        let (restored, replica, state) = stored.into_parts(node);
        let upto = restored.log.last().index;
        self.core.add_group(now, restored)?;
        let teller = self.host.teller(group);
        self.host.store.register(group, Box::new(move |report| teller(StoreEvent::Report(report))));
        // The store has fsynced what it found when it was opened.
        self.core.step(now, NodeInput::Group { group, input: Input::Synced { upto } });
        let mut hosted = Hosted { machine, replica, dirty: false, armed: None };
        hosted.replica.take_wishes(&self.core, &self.host);
        if let Some(StoredState { records, entries }) = state {
            let (core, host) = (&mut self.core, &mut self.host);
            let replica = &mut hosted.replica;
            let in_group = &mut InGroup { core, host, replica };
            if let Err(source) = hosted.machine.restore(in_group, records) {
                self.core.remove_group(now, group);
                return Err(ShardError::Machine { group, source });
            }
            hosted.machine.reclaim(in_group, &entries);
        }
        let peers: Vec<NodeId> = self.host.peers.in_reach().collect();
        for peer in peers {
            let (core, host) = (&mut self.core, &mut self.host);
            let replica = &mut hosted.replica;
            hosted.machine.on_peer(&mut InGroup { core, host, replica }, peer, true);
        }
        self.groups.insert(group, hosted);
        self.ticks.add(group);
        if let Some(stopping) = &mut self.stopping {
            stopping.insert(group);
        }
        self.mark(group);
        Ok(())
    }

    /// Forgets a group, after it ceded if it led. Its data stay in the store. False when it was not
    /// there.
    pub fn remove_group(&mut self, now: Time, group: GroupId) -> bool {
        let Some(mut hosted) = self.groups.remove(&group) else { return false };
        self.core.remove_group(now, group);
        self.ticks.remove(group, &mut hosted.armed);
        self.dropping.remove(&group);
        self.host.catching_up.remove(&group);
        self.host.fitness.forget(group);
        if let Some(stopping) = &mut self.stopping {
            stopping.remove(&group);
        }
        true
    }

    /// When [`crate::ShardInput::Tick`], or another turn, is due at the latest. None: not before
    /// another input.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Time> {
        if self.done {
            return None;
        }
        [self.core.next_deadline(), self.ticks.next_deadline()].into_iter().flatten().min()
    }

    /// Present state of a group. Where this node holds no replica, it knows of the leader only what
    /// the machine does.
    #[must_use]
    pub fn status(&self, group: GroupId) -> Option<ReplicaStatus> {
        let hosted = self.groups.get(&group)?;
        Some(present_status(hosted, self.core.group(group)?))
    }

    /// All groups, ascending.
    pub fn groups(&self) -> impl Iterator<Item = GroupId> {
        self.groups.keys().copied()
    }

    /// A group's machine, to look at.
    #[must_use]
    pub fn machine(&self, group: GroupId) -> Option<&M> {
        self.groups.get(&group).map(|hosted| &hosted.machine)
    }

    /// A group's consensus, to look at.
    #[must_use]
    pub fn core(&self, group: GroupId) -> Option<&Core> {
        self.core.group(group)
    }

    /// Last entry that a group's machine has applied.
    #[must_use]
    pub fn applied(&self, group: GroupId) -> Option<Index> {
        self.groups.get(&group).map(|hosted| hosted.replica.applied.index)
    }

    /// What the consensus of the node counted.
    #[must_use]
    pub fn counters(&self) -> &NodeCounters {
        self.core.counters()
    }

    /// Lets a group have its part in the next turn.
    pub(crate) fn mark(&mut self, group: GroupId) {
        if let Some(hosted) = self.groups.get_mut(&group)
            && !hosted.dirty
        {
            hosted.dirty = true;
            self.dirty.push(group);
        }
    }

    /// Calls a group's machine, and lets the group have its part in the next turn.
    pub(crate) fn with<T>(
        &mut self,
        group: GroupId,
        call: impl FnOnce(&mut M, &mut InGroup<'_>) -> T,
    ) -> Option<T> {
        self.mark(group);
        let hosted = self.groups.get_mut(&group)?;
        let (core, host) = (&mut self.core, &mut self.host);
        let replica = &mut hosted.replica;
        Some(call(&mut hosted.machine, &mut InGroup { core, host, replica }))
    }

    /// Moves what there is to be done to `effects`.
    pub(crate) fn hand_out(&mut self, effects: &mut Vec<ShardEffect<M::Effect>>) {
        effects.extend(self.host.told.drain(..).map(ShardEffect::lift));
    }

    /// Gives the machine's effects to the host, in order with what was told before.
    pub(crate) fn take_effects_of(
        &mut self,
        group: GroupId,
        effects: &mut Vec<ShardEffect<M::Effect>>,
    ) {
        self.hand_out(effects);
        let Some(hosted) = self.groups.get_mut(&group) else { return };
        hosted.machine.take_effects(&mut self.machine_effects);
        let made = self.machine_effects.drain(..);
        effects.extend(made.map(|effect| ShardEffect::Machine { group, effect }));
    }

    /// Answers of the store for a batch of hard states.
    pub(crate) fn saved_teller(&self, batch: u64) -> impl FnOnce() + Send + 'static {
        let events = Arc::clone(&self.host.events);
        move || events(FromStore::HardStatesSaved { batch })
    }
}

/// How a group is doing.
pub(crate) fn present_status<M: Machine>(hosted: &Hosted<M>, core: &Core) -> ReplicaStatus {
    let status = hosted.replica.status(core);
    if core.config().is_member(core.node()) {
        return status;
    }
    let leader = hosted.machine.leader_elsewhere().map(|(leader, _)| leader);
    ReplicaStatus { leader, led: leader.is_some(), ..status }
}

impl<M: Machine> Hosted<M> {
    /// Takes down who leads; tells whether that is news.
    pub(crate) fn note_leadership(&mut self, core: &Core, now: Time) -> bool {
        // A node that does not hold the group has no part in its elections.
        let led = is_led(core) || !core.config().is_member(core.node());
        self.replica.leaderless.note(led, now);
        let present = LedAs::of(&present_status(self, core));
        std::mem::replace(&mut self.replica.known, present) != present
    }
}
