//! Brings the node's groups up from its store: creates them on a new directory, restores their
//! state, starts the shard that runs them.

use std::collections::BTreeMap;
use std::sync::Arc;

use flintmq_consensus::{ConfigRegister, CreationId, GroupId, HardState, NodeId, NodeSettings};
use flintmq_controller::{ControllerMachine, Metadata};
use flintmq_node::NodeMachine;
use flintmq_partition::{DomainUsage, PartitionEngine, PartitionUsage};
use flintmq_queue::Partition;
use flintmq_shard::{ReplicaStatus, Shard, ShardParts, StoredGroup};
use flintmq_storage::{GroupRecord, LogStore, NewGroup, ReadError, RefusedReason, Report};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::cluster::PeerLinks;
use crate::controller::{Controller, Policy};
use crate::entry_reader::EntryReader;
use crate::fatal::FatalSignal;
use crate::host::{
    self, CoreClock, CreatedQueue, Fitness, GroupAdmin, HostParts, PartitionHandle, SessionTable,
    ShardHost, ShardNetwork, ShardSender, Signal, Tickets,
};
use crate::metrics::Metrics;

/// Why the groups do not come up.
#[derive(Debug, thiserror::Error)]
pub enum GroupsError {
    /// The store cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The store takes no new group.
    #[error("a group cannot be created: {reason}, group={group}")]
    Create {
        /// The group.
        group: GroupId,
        /// Why.
        reason: String,
    },
    /// A group's log and state do not belong together, or its records cannot be read.
    #[error("a group cannot be restored: {reason}, group={group}")]
    Restore {
        /// The group.
        group: GroupId,
        /// Why.
        reason: String,
    },
    /// A failure while the groups stood for election.
    #[error("{0}")]
    Failed(String),
}

/// The node's groups, serving.
pub(crate) struct Groups {
    pub(crate) controller: Controller,
    pub(crate) partitions: Vec<PartitionHandle>,
    /// The way to each group's replica for administrators, the controller's first.
    pub(crate) replicas: Vec<GroupAdmin>,
    pub(crate) shard: ShardSender,
    /// Queues that were created in partitions which this node leads; taken once.
    pub(crate) created: Option<mpsc::UnboundedReceiver<CreatedQueue>>,
    /// What this node knows of the time and of itself.
    pub(crate) fitness: Fitness,
    pub(crate) tasks: TaskTracker,
}

/// What groups are brought up with.
pub(crate) struct GroupsContext {
    pub(crate) node: NodeSettings,
    pub(crate) store: Arc<dyn LogStore>,
    pub(crate) clock: CoreClock,
    /// Where answers find the sessions that asked.
    pub(crate) sessions: Arc<SessionTable>,
    /// The way to other nodes; none for a cluster of one.
    pub(crate) peers: Option<PeerLinks>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) fatal: FatalSignal,
    pub(crate) inventory: Inventory,
    /// How many groups there are, or are to be, the controller among them.
    pub(crate) count: u32,
    pub(crate) policy: Policy,
    /// The first members of a cluster; this node alone otherwise. Empty for a node that comes
    /// later: it is no member of a group until the group's leader makes it one.
    pub(crate) members: Vec<NodeId>,
    /// Tells the groups to write what they have and to end.
    pub(crate) stopping: CancellationToken,
    /// What uses the store: it is closed after these have ended.
    pub(crate) tasks: TaskTracker,
}

/// Which groups a directory has.
pub(crate) struct Inventory {
    present: Vec<GroupId>,
}

impl Inventory {
    /// Looks into the store.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(crate) fn take(store: &dyn LogStore) -> Result<Self, ReadError> {
        let present = store.groups()?.iter().map(|record| record.id).collect();
        Ok(Self { present })
    }

    /// True for a directory without groups.
    pub(crate) fn is_new(&self) -> bool {
        self.present.is_empty()
    }

    /// How many groups the directory is to have, the controller among them: one that has its
    /// controller keeps what it has, any other gets this many partitions.
    pub(crate) fn count(&self, partitions: u32) -> u32 {
        if is_complete(&self.present) {
            u32::try_from(self.present.len()).unwrap_or(u32::MAX)
        } else {
            partitions.saturating_add(1)
        }
    }
}

/// The controller is created last, so that a directory without one is a directory whose first start
/// was cut short.
fn is_complete(present: &[GroupId]) -> bool {
    present.contains(&GroupId::CONTROLLER)
}

impl Groups {
    /// Opens all groups and, in a cluster of one, waits until each serves.
    pub(crate) async fn start(context: GroupsContext) -> Result<Self, GroupsError> {
        let records = open_or_create(&context).await?;
        let partitions = u32::try_from(records.len() - 1).unwrap_or(u32::MAX);
        let policy = Policy { partitions, ..context.policy };
        let numbers = records.iter().skip(1).map(|record| record.id);
        let (sender, requests, inbox) = host::inbox(numbers);
        let mut shard = Shard::new(ShardParts {
            node: context.node.clone(),
            clustered: context.peers.is_some(),
            store: Arc::clone(&context.store),
            events: {
                let sender = sender.clone();
                Arc::new(move |told| {
                    // Without the shard there is none to be told.
                    let _gone = sender.signal(Signal::Store(told));
                })
            },
            network: Box::new(ShardNetwork::new(context.peers.clone(), sender.clone())),
        });
        let (mut statuses, mut watched) = (BTreeMap::new(), BTreeMap::new());
        for record in &records {
            let (status, watch) = watch::channel(ReplicaStatus::default());
            statuses.insert(record.id, status);
            watched.insert(record.id, watch);
        }
        let usage = Arc::<DomainUsage>::default();
        let now = context.clock.now();
        let fitness = Fitness::new(context.clock, context.node.peers.len() + 1);
        for record in records.iter().cloned() {
            let id = record.id;
            let failed = |reason: String| GroupsError::Restore { group: id, reason };
            let machine = if id == GroupId::CONTROLLER {
                let process = context.node.incarnation;
                let machine = ControllerMachine::new(context.node.node, process);
                NodeMachine::Controller(Box::new(machine))
            } else {
                let usage = PartitionUsage::new(Arc::clone(&usage));
                let process = context.node.incarnation;
                let engine = PartitionEngine::new(Partition::default(), usage, process);
                NodeMachine::Partition(Box::new(engine))
            };
            let stored = StoredGroup::read(&*context.store, record)?;
            shard.add_group(now, stored, machine).map_err(|error| failed(error.to_string()))?;
        }
        let watch = |group: GroupId| watched[&group].clone();
        let (handle, effects) = host::controller(
            sender.clone(),
            Metadata::default(),
            watch(GroupId::CONTROLLER),
            context.clock,
        );
        let partition_tickets = Arc::default();
        let admin_tickets = Arc::<Tickets<_>>::default();
        let handles: Vec<PartitionHandle> = records
            .iter()
            .skip(1)
            .zip(requests)
            .map(|(record, requests)| {
                let tickets = Arc::clone(&partition_tickets);
                PartitionHandle::new(record.id, requests, tickets, watch(record.id))
            })
            .collect();
        let replicas = records
            .iter()
            .map(|record| GroupAdmin::new(record.id, sender.clone(), Arc::clone(&admin_tickets)));
        let replicas = replicas.collect();
        let reader = EntryReader::start(&context.store)
            .map_err(|error| GroupsError::Failed(format!("no thread to read the log: {error}")))?;
        let (created, new_queues) = mpsc::unbounded_channel();
        let host = ShardHost::new(HostParts {
            shard,
            clock: context.clock,
            fitness: fitness.clone(),
            inbox,
            sender: sender.clone(),
            store: Arc::clone(&context.store),
            reader,
            sessions: context.sessions,
            partition_tickets,
            admin_tickets,
            controller: effects,
            statuses,
            created,
            metrics: Arc::clone(&context.metrics),
            fatal: context.fatal.clone(),
        });
        let (tasks, stopping, to_shard) = (context.tasks, context.stopping, sender.clone());
        tasks.spawn(async move {
            stopping.cancelled().await;
            // It may have ended already.
            let _gone = to_shard.signal(Signal::Stop);
        });
        tasks.spawn(context.fatal.clone().guard("the shard", host.run()));
        // Others may be waited for: clients wait with their requests, not the node with its start.
        if context.peers.is_none() {
            for mut status in watched.into_values() {
                tokio::select! {
                    up = status.wait_for(|status| status.serving) => {
                        if up.is_err() {
                            let reason = context.fatal.reason().unwrap_or("its task ended");
                            return Err(GroupsError::Failed(reason.to_owned()));
                        }
                    }
                    reason = context.fatal.raised() => return Err(GroupsError::Failed(reason)),
                }
            }
        }
        let controller = Controller::new(handle, policy);
        let created = Some(new_queues);
        Ok(Self {
            controller,
            partitions: handles,
            replicas,
            shard: sender,
            created,
            fitness,
            tasks,
        })
    }
}

/// All groups as the store has them: the controller first, then partitions by number.
async fn open_or_create(context: &GroupsContext) -> Result<Vec<GroupRecord>, GroupsError> {
    let present = &context.inventory.present;
    let count = context.count as usize;
    if !is_complete(present) {
        for number in (0..count).rev() {
            let group = group_id(number);
            if !present.contains(&group) {
                create(context, group).await?;
            }
        }
    }
    let records = context.store.groups()?;
    if !records.iter().map(|record| record.id).eq((0..count).map(group_id)) {
        return Err(GroupsError::Failed(format!(
            "groups are missing in the data directory: restore it from a good copy, found={}",
            records.len()
        )));
    }
    Ok(records)
}

fn group_id(number: usize) -> GroupId {
    GroupId(u32::try_from(number).unwrap_or(u32::MAX))
}

async fn create(context: &GroupsContext, group: GroupId) -> Result<(), GroupsError> {
    let failed = |reason: String| GroupsError::Create { group, reason };
    let (sender, mut reports) = mpsc::unbounded_channel();
    let sink = move |report| drop(sender.send(report));
    context.store.register(group, Box::new(sink));
    let config = ConfigRegister::of_voters(context.members.iter().copied());
    let hard_state = HardState { config, ..HardState::default() };
    // The first making is known by its place: all members have to agree on it before they have met.
    let new = NewGroup { creation: CreationId::default(), hard_state, synchronous: false };
    let created = context.store.create(group, new);
    created.map_err(|refused| failed(RefusedReason::to_string(&refused.reason)))?;
    match reports.recv().await {
        Some(Report::Created) => Ok(()),
        Some(Report::Failed(error)) => Err(failed(error.to_string())),
        _ => Err(failed("the store reports something else".to_owned())),
    }
}
