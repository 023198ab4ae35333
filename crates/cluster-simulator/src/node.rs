//! A node: its clock, its disk, and the process that runs on it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use flintmq_consensus::{
    ClusterClock, GroupId, Index, Liveness, NodeCore, NodeId, NodeInput, NodeSettings, Term, Time,
};
use flintmq_controller::{ControllerMachine, DomainVersion, Metadata, PlanningSettings};
use flintmq_log_store::LogStore as _;
use flintmq_node::{NodeMachine, NodeRequest};
use flintmq_partition::{DomainUsage, PartitionEngine, PartitionUsage, Request};
use flintmq_queue::Partition;
use flintmq_shard::{FromStore, Shard, ShardInput, ShardParts, StoredGroup};

use crate::network::{Way, Wire};
use crate::store::SimStore;

/// When the simulated world began, in milliseconds since 1970.
const BEGINNING_MS: u64 = 1_800_000_000_000;

/// A node's clocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    pub(crate) base: u64,
    pub(crate) ppm: i64,
    pub(crate) wall_offset_ms: i64,
}

impl Clock {
    /// The monotonic clock.
    pub(crate) fn time(&self, now: u64) -> Time {
        let rate = i128::from(1_000_000 + self.ppm);
        let passed = i128::from(now) * rate / 1_000_000;
        Time(self.base + u64::try_from(passed).unwrap_or_default())
    }

    /// When the monotonic clock shows this.
    pub(crate) fn when(&self, time: Time) -> u64 {
        let rate = i128::from(1_000_000 + self.ppm);
        let passed = i128::from(time.0.saturating_sub(self.base));
        u64::try_from(passed * 1_000_000 / rate + 1).unwrap_or_default()
    }

    /// The wall clock, in milliseconds since 1970.
    pub(crate) fn wall_ms(&self, now: u64) -> u64 {
        (BEGINNING_MS + now / 1000).saturating_add_signed(self.wall_offset_ms)
    }
}

/// A node.
pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) store: SimStore,
    pub(crate) clock: Clock,
    pub(crate) process: Option<Process>,
    pub(crate) incarnation: u64,
    /// The number that its data directory drew.
    pub(crate) directory: u64,
    /// The nodes that it knows of when it starts.
    pub(crate) first_peers: Vec<NodeId>,
    /// It never starts again: its disk is lost, or it was removed from the cluster.
    pub(crate) gone: bool,
    pub(crate) paused_until: u64,
    pub(crate) shard_stalled_until: u64,
    pub(crate) disk_stalled_until: u64,
    pub(crate) slow_disk_until: u64,
    /// Something happened to it, or to its links, until then.
    pub(crate) troubled_until: u64,
}

/// A process of a node.
pub(crate) struct Process {
    pub(crate) incarnation: u64,
    pub(crate) shard: Shard<NodeMachine>,
    pub(crate) liveness: NodeCore,
    pub(crate) cluster_clock: ClusterClock,
    pub(crate) from_store: Arc<Mutex<Vec<FromStore>>>,
    pub(crate) wire: Wire,
    /// What the controller has published here.
    pub(crate) metadata: Metadata,
    /// The leaderships of partitions here, with the version of all domains that they were sent.
    pub(crate) domains_sent: BTreeMap<GroupId, (Term, DomainVersion)>,
    /// The nodes that it connects to.
    pub(crate) known: BTreeSet<NodeId>,
    pub(crate) inbox: VecDeque<ShardInput<NodeRequest>>,
    pub(crate) waiting: BTreeMap<GroupId, VecDeque<Request>>,
    pub(crate) wake_at: Option<u64>,
    /// How often it ran in a row although nothing had happened, and when it did last.
    pub(crate) ran_for_nothing: u32,
    pub(crate) ran_at: u64,
    pub(crate) live_at: Option<u64>,
    pub(crate) disk_at: Option<u64>,
    pub(crate) sync_at: Option<u64>,
    /// When the last word of the liveness, and of the store, reaches the shard.
    pub(crate) last_word: u64,
    pub(crate) last_store_word: u64,
    /// Committed entries that were looked at.
    pub(crate) seen: BTreeMap<GroupId, Index>,
    /// The leadership that its clients are served by.
    pub(crate) served_by: BTreeMap<GroupId, Option<(NodeId, Term)>>,
    /// Since when it leads groups without a majority in reach.
    pub(crate) alone_since: BTreeMap<GroupId, u64>,
    pub(crate) stopping: Stopping,
}

/// How far a stop in good order is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stopping {
    No,
    /// Leaderships are handed over; so many answers are missing.
    Delivery {
        missing: u32,
        since: u64,
    },
    /// The shard settles.
    Shard {
        since: u64,
    },
}

impl Process {
    /// Starts a process with what the store has. Without `planning` the cluster is one of one node.
    pub(crate) fn start(
        node: &Node,
        now: u64,
        planning: Option<PlanningSettings>,
    ) -> Result<Self, String> {
        let (id, incarnation, time) = (node.id, node.incarnation, node.clock.time(now));
        node.store.begin();
        let from_store: Arc<Mutex<Vec<FromStore>>> = Arc::default();
        let told = Arc::clone(&from_store);
        let wire = Wire::default();
        let own = NodeSettings::new(id, incarnation, node.first_peers.iter().copied());
        let settings = NodeSettings { liveness: Liveness::Told, ..own.clone() };
        let mut shard = Shard::new(ShardParts {
            node: settings,
            clustered: planning.is_some(),
            store: Arc::new(node.store.clone()),
            events: Arc::new(move |event| {
                told.lock().unwrap_or_else(PoisonError::into_inner).push(event);
            }),
            network: Box::new(wire.clone()),
        });
        let usage = Arc::<DomainUsage>::default();
        let nodes = node.first_peers.len() + 1;
        let name = incarnation << 8 | u64::from(id.0);
        let mut seen = BTreeMap::new();
        for record in node.store.groups().map_err(|error| error.to_string())? {
            let group = record.id;
            let stored = StoredGroup::read(&node.store, record).map_err(|e| e.to_string())?;
            let machine = if group == GroupId::CONTROLLER {
                NodeMachine::Controller(Box::new(ControllerMachine::new(id, incarnation)))
            } else {
                let part = PartitionUsage::new(Arc::clone(&usage));
                let engine = PartitionEngine::new(Partition::default(), part, name);
                NodeMachine::Partition(Box::new(engine))
            };
            shard.add_group(time, stored, machine).map_err(|error| error.to_string())?;
            seen.insert(group, 0);
        }
        let plan = planning.map(flintmq_controller::Request::Plan).map(NodeRequest::Controller);
        let plan = plan.map(|request| ShardInput::Request { group: GroupId::CONTROLLER, request });
        Ok(Self {
            incarnation,
            shard,
            liveness: NodeCore::new(own),
            cluster_clock: ClusterClock::new(time, node.clock.wall_ms(now), nodes),
            from_store,
            wire,
            metadata: Metadata::default(),
            domains_sent: BTreeMap::new(),
            known: node.first_peers.iter().copied().collect(),
            inbox: plan.into_iter().collect(),
            waiting: BTreeMap::new(),
            wake_at: None,
            ran_for_nothing: 0,
            ran_at: 0,
            live_at: None,
            disk_at: None,
            sync_at: None,
            last_word: 0,
            last_store_word: 0,
            seen,
            served_by: BTreeMap::new(),
            alone_since: BTreeMap::new(),
            stopping: Stopping::No,
        })
    }

    /// One of the partitions.
    pub(crate) fn engine(&self, group: GroupId) -> Option<&PartitionEngine> {
        match self.shard.machine(group)? {
            NodeMachine::Partition(engine) => Some(engine),
            NodeMachine::Controller(_) => None,
        }
    }

    /// The controller's metadata, published or not.
    pub(crate) fn applied_metadata(&self) -> Option<&Metadata> {
        match self.shard.machine(GroupId::CONTROLLER)? {
            NodeMachine::Controller(machine) => Some(machine.metadata()),
            NodeMachine::Partition(_) => None,
        }
    }

    /// Sets whether there is a connection to a node.
    pub(crate) fn set_way(&self, to: NodeId, open: bool, limit: usize) -> bool {
        let mut wire = self.wire.lock();
        let way = wire.ways.entry(to).or_default();
        let starved = way.starved;
        *way = Way { open, in_flight: 0, starved: false, limit };
        starved && open
    }

    pub(crate) fn take_store_events(&self) -> Vec<FromStore> {
        std::mem::take(&mut self.from_store.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Tells the liveness something; what it says of peers comes back.
    pub(crate) fn step_liveness(&mut self, time: Time, input: NodeInput) {
        self.liveness.step(time, input);
    }
}
