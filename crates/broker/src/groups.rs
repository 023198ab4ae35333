//! Brings the node's groups up from its store: creates them on a new directory, restores their
//! state, starts their tasks.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::RwLock;

use flintmq_consensus::{ConfigRegister, CreationId, GroupId, HardState, NodeId};
use flintmq_queue::Partition;
use flintmq_storage::{GroupRecord, LogStore, NewGroup, ReadError, RefusedReason, Report};
use rustc_hash::FxHashMap;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::cluster::{Mailbox, PeerLinks};
use crate::controller::{
    Controller, ControllerParts, ControllerTask, MetadataState, Policy, UnreadableRecord,
};
use crate::domain_usage::{DomainUsage, PartitionUsage};
use crate::entry_reader::EntryReader;
use crate::fatal::FatalSignal;
use crate::metrics::Metrics;
use crate::partition::{PartitionHandle, PartitionParts, PartitionTask};
use crate::replica::{
    GroupOrders, Membership, Reconciler, Replica, ReplicaError, ReplicaHost, ReplicaStatus,
    StoreEvent, StoreEventSender, StoreEvents,
};

/// Changes of metadata that may wait for the controller; then openers wait.
const CHANGES: usize = 256;

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
    pub(crate) orders: Vec<GroupOrders>,
    pub(crate) tasks: TaskTracker,
}

/// What groups are brought up with.
pub(crate) struct GroupsContext {
    pub(crate) host: ReplicaHost,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) fatal: FatalSignal,
    pub(crate) stop: CancellationToken,
    pub(crate) inventory: Inventory,
    /// How many groups there are, or are to be, the controller among them.
    pub(crate) count: u32,
    pub(crate) policy: Policy,
    /// The first members of a cluster; this node alone otherwise. Empty for a node that comes
    /// later: it is no member of a group until the group's leader makes it one.
    pub(crate) members: Vec<NodeId>,
    /// Where each group hears of other nodes; empty for a cluster of one.
    pub(crate) mailboxes: FxHashMap<GroupId, Mailbox>,
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

/// A group's events, and the way to add to them.
struct Events {
    sender: StoreEventSender,
    receiver: StoreEvents,
}

impl Groups {
    /// Opens all groups and waits until each serves.
    pub(crate) async fn start(mut context: GroupsContext) -> Result<Self, GroupsError> {
        let (records, mut reports) = open_or_create(&context).await?;
        let orders = records.iter().zip(&reports);
        let orders =
            orders.map(|(record, events)| GroupOrders::new(record.id, events.sender.clone()));
        let orders = orders.collect();
        let mut mailboxes = std::mem::take(&mut context.mailboxes);
        let mut peers = |group: GroupId| -> Option<(PeerLinks, Mailbox)> {
            context.host.peers.clone().zip(mailboxes.remove(&group))
        };
        let partitions = u32::try_from(records.len() - 1).unwrap_or(u32::MAX);
        let tasks = TaskTracker::new();
        let policy = Policy { partitions, ..context.policy };
        let controller_reports = reports.remove(0);
        let of_controller = peers(records[0].id);
        let (controller, membership, mut serving) = start_controller(
            &context,
            &records[0],
            controller_reports,
            of_controller,
            policy,
            &tasks,
        )?;
        let reader = EntryReader::start(&context.host.store)
            .map_err(|error| GroupsError::Failed(format!("no thread to read the log: {error}")))?;
        let usage = Arc::<DomainUsage>::default();
        let mut handles = Vec::new();
        for (record, reports) in records[1..].iter().zip(reports) {
            let shared = Shared { reader: reader.clone(), usage: &usage, membership: &membership };
            let peers = peers(record.id);
            let (handle, status) =
                start_partition(&context, record, reports, peers, shared, &tasks)?;
            handles.push(handle);
            serving.push(status);
        }
        // Others may be waited for: clients wait with their requests, not the node with its start.
        if context.host.peers.is_some() {
            serving.clear();
        }
        for mut status in serving {
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
        Ok(Self { controller, partitions: handles, orders, tasks })
    }
}

/// All groups as the store has them, with the reports of each: the controller first, then
/// partitions by number.
async fn open_or_create(
    context: &GroupsContext,
) -> Result<(Vec<GroupRecord>, Vec<Events>), GroupsError> {
    let present = &context.inventory.present;
    let count = context.count as usize;
    let mut reports = Vec::with_capacity(count);
    for number in 0..count {
        let (sender, receiver) = mpsc::unbounded_channel();
        let reporting = sender.clone();
        // A report to a group whose task has ended is of no use to anybody.
        let sink = move |report| drop(reporting.send(StoreEvent::Report(report)));
        context.host.store.register(group_id(number), Box::new(sink));
        reports.push(Events { sender, receiver });
    }
    if !is_complete(present) {
        for (number, reports) in reports.iter_mut().enumerate().rev() {
            let group = group_id(number);
            if !present.contains(&group) {
                create(context, group, reports).await?;
            }
        }
    }
    let records = context.host.store.groups()?;
    if !records.iter().map(|record| record.id).eq((0..count).map(group_id)) {
        return Err(GroupsError::Failed(format!(
            "groups are missing in the data directory: restore it from a good copy, found={}",
            records.len()
        )));
    }
    Ok((records, reports))
}

fn group_id(number: usize) -> GroupId {
    GroupId(u32::try_from(number).unwrap_or(u32::MAX))
}

async fn create(
    context: &GroupsContext,
    group: GroupId,
    reports: &mut Events,
) -> Result<(), GroupsError> {
    let failed = |reason: String| GroupsError::Create { group, reason };
    let config = ConfigRegister::of_voters(context.members.iter().copied());
    let hard_state = HardState { config, ..HardState::default() };
    // The first making is known by its place: all members have to agree on it before they have met.
    let new = NewGroup { creation: CreationId::default(), hard_state, synchronous: false };
    context
        .host
        .store
        .create(group, new)
        .map_err(|refused| failed(RefusedReason::to_string(&refused.reason)))?;
    match reports.receiver.recv().await {
        Some(StoreEvent::Report(Report::Created)) => Ok(()),
        Some(StoreEvent::Report(Report::Failed(error))) => Err(failed(error.to_string())),
        _ => Err(failed("the store reports something else".to_owned())),
    }
}

fn start_controller(
    context: &GroupsContext,
    record: &GroupRecord,
    reports: Events,
    peers: Option<(PeerLinks, Mailbox)>,
    policy: Policy,
    tasks: &TaskTracker,
) -> Result<(Controller, Membership, Vec<watch::Receiver<ReplicaStatus>>), GroupsError> {
    let failed = |reason: String| GroupsError::Restore { group: record.id, reason };
    let records: Vec<_> =
        context.host.store.queue_records(record.id, &[], &[]).collect::<Result<_, ReadError>>()?;
    let state =
        MetadataState::restore(records).map_err(|e: UnreadableRecord| failed(e.to_string()))?;
    let metadata = state.metadata().clone();
    let (roster, followed) = watch::channel(Arc::clone(metadata.membership()));
    let (in_reach, reached) = watch::channel(BTreeSet::from([context.host.node]));
    let metadata = Arc::new(RwLock::new(metadata));
    let replica = open_replica(context, record, reports.sender)?;
    let (status, serving) = watch::channel(ReplicaStatus::default());
    let membership = Membership::new(followed.clone(), serving.clone());
    let (requests, receiver) = mpsc::channel(CHANGES);
    let task = ControllerTask::new(ControllerParts {
        replica,
        state,
        metadata: Arc::clone(&metadata),
        roster,
        in_reach,
        reconciler: Reconciler::new(&membership),
        status,
        requests: receiver,
        events: reports.receiver,
        peers,
        fatal: context.fatal.clone(),
        stop: context.stop.clone(),
    });
    tasks.spawn(task.run());
    let controller =
        Controller::new(metadata, serving.clone(), requests, followed, reached, policy);
    Ok((controller, membership, vec![serving]))
}

/// What the node's partitions share.
struct Shared<'a> {
    reader: EntryReader,
    usage: &'a Arc<DomainUsage>,
    membership: &'a Membership,
}

fn start_partition(
    context: &GroupsContext,
    record: &GroupRecord,
    reports: Events,
    peers: Option<(PeerLinks, Mailbox)>,
    shared: Shared<'_>,
    tasks: &TaskTracker,
) -> Result<(PartitionHandle, watch::Receiver<ReplicaStatus>), GroupsError> {
    let records: Vec<_> =
        context.host.store.queue_records(record.id, &[], &[]).collect::<Result<_, ReadError>>()?;
    let machine = Partition::restore(records)
        .map_err(|error| GroupsError::Restore { group: record.id, reason: error.to_string() })?;
    let replica = open_replica(context, record, reports.sender)?;
    let (handle, requests, status) = PartitionHandle::new(record.id);
    let serving = status.subscribe();
    let task = PartitionTask::new(PartitionParts {
        replica,
        machine,
        reader: shared.reader,
        usage: PartitionUsage::new(Arc::clone(shared.usage)),
        requests,
        events: reports.receiver,
        peers,
        reconciler: Reconciler::new(shared.membership),
        status,
        metrics: Arc::clone(&context.metrics),
        fatal: context.fatal.clone(),
        stop: context.stop.clone(),
    });
    tasks.spawn(task.run());
    Ok((handle, serving))
}

fn open_replica(
    context: &GroupsContext,
    record: &GroupRecord,
    events: StoreEventSender,
) -> Result<Replica, GroupsError> {
    let opened = Replica::open(record, &context.host, events);
    opened.map_err(|error: ReplicaError| GroupsError::Restore {
        group: record.id,
        reason: error.to_string(),
    })
}
