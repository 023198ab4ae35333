//! Brings the node's groups up from its store: creates them on a new directory, restores their
//! state, starts their tasks.

use std::sync::Arc;
use std::sync::RwLock;

use flintmq_consensus::{Core, GroupId};
use flintmq_queue::Partition;
use flintmq_storage::{GroupRecord, ReadError, RefusedReason, Report};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::controller::{Controller, ControllerTask, Metadata, Policy, UnreadableRecord};
use crate::domain_usage::{DomainUsage, PartitionUsage};
use crate::entry_reader::EntryReader;
use crate::fatal::FatalSignal;
use crate::metrics::Metrics;
use crate::partition::{PartitionHandle, PartitionParts, PartitionTask};
use crate::replica::{Replica, ReplicaError, ReplicaHost, ReplicaStatus};

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
    pub(crate) tasks: TaskTracker,
}

/// What groups are brought up with.
pub(crate) struct GroupsContext {
    pub(crate) host: ReplicaHost,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) fatal: FatalSignal,
    pub(crate) stop: CancellationToken,
    /// Partitions of a new directory; an existing one keeps its number.
    pub(crate) partitions: u32,
    pub(crate) policy: Policy,
}

type Reports = mpsc::UnboundedReceiver<Report>;

impl Groups {
    /// Opens all groups and waits until each serves.
    pub(crate) async fn start(context: GroupsContext) -> Result<Self, GroupsError> {
        let (records, mut reports) = open_or_create(&context).await?;
        let partitions = u32::try_from(records.len() - 1).unwrap_or(u32::MAX);
        let tasks = TaskTracker::new();
        let policy = Policy { partitions, ..context.policy };
        let controller_reports = reports.remove(0);
        let (controller, mut serving) =
            start_controller(&context, &records[0], controller_reports, policy, &tasks)?;
        let reader = EntryReader::start(&context.host.store)
            .map_err(|error| GroupsError::Failed(format!("no thread to read the log: {error}")))?;
        let usage = Arc::<DomainUsage>::default();
        let mut handles = Vec::new();
        for (record, reports) in records[1..].iter().zip(reports) {
            let (handle, status) =
                start_partition(&context, record, reports, reader.clone(), &usage, &tasks)?;
            handles.push(handle);
            serving.push(status);
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
        Ok(Self { controller, partitions: handles, tasks })
    }
}

/// All groups as the store has them, with the reports of each: the controller first, then
/// partitions by number.
async fn open_or_create(
    context: &GroupsContext,
) -> Result<(Vec<GroupRecord>, Vec<Reports>), GroupsError> {
    let present: Vec<GroupId> =
        context.host.store.groups()?.iter().map(|record| record.id).collect();
    // The controller is created last, so that a directory without one is a directory whose first
    // start was cut short.
    let complete = present.contains(&GroupId::CONTROLLER);
    let count = if complete { present.len() } else { context.partitions as usize + 1 };
    let mut reports = Vec::with_capacity(count);
    for number in 0..count {
        let (sender, receiver) = mpsc::unbounded_channel();
        // A report to a group whose task has ended is of no use to anybody.
        context
            .host
            .store
            .register(group_id(number), Box::new(move |report| drop(sender.send(report))));
        reports.push(receiver);
    }
    if !complete {
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
    reports: &mut Reports,
) -> Result<(), GroupsError> {
    let failed = |reason: String| GroupsError::Create { group, reason };
    let hard_state = Core::sole_member(context.host.node);
    context
        .host
        .store
        .create_group(group, hard_state)
        .map_err(|refused| failed(RefusedReason::to_string(&refused.reason)))?;
    match reports.recv().await {
        Some(Report::Created) => Ok(()),
        Some(Report::Failed(error)) => Err(failed(error.to_string())),
        other => Err(failed(format!("unexpected report {other:?}"))),
    }
}

fn start_controller(
    context: &GroupsContext,
    record: &GroupRecord,
    reports: Reports,
    policy: Policy,
    tasks: &TaskTracker,
) -> Result<(Controller, Vec<watch::Receiver<ReplicaStatus>>), GroupsError> {
    let failed = |reason: String| GroupsError::Restore { group: record.id, reason };
    let records: Vec<_> =
        context.host.store.queue_records(record.id, &[], &[]).collect::<Result<_, ReadError>>()?;
    let metadata =
        Metadata::restore(records).map_err(|e: UnreadableRecord| failed(e.to_string()))?;
    let metadata = Arc::new(RwLock::new(metadata));
    let replica = open_replica(context, record)?;
    let (status, serving) = watch::channel(ReplicaStatus::default());
    let (changes, receiver) = mpsc::channel(CHANGES);
    let task = ControllerTask::new(
        replica,
        Arc::clone(&metadata),
        status,
        receiver,
        reports,
        context.fatal.clone(),
        context.stop.clone(),
    );
    tasks.spawn(task.run());
    Ok((Controller::new(metadata, serving.clone(), changes, policy), vec![serving]))
}

fn start_partition(
    context: &GroupsContext,
    record: &GroupRecord,
    reports: Reports,
    reader: EntryReader,
    usage: &Arc<DomainUsage>,
    tasks: &TaskTracker,
) -> Result<(PartitionHandle, watch::Receiver<ReplicaStatus>), GroupsError> {
    let records: Vec<_> =
        context.host.store.queue_records(record.id, &[], &[]).collect::<Result<_, ReadError>>()?;
    let machine = Partition::restore(records)
        .map_err(|error| GroupsError::Restore { group: record.id, reason: error.to_string() })?;
    let replica = open_replica(context, record)?;
    let (handle, requests, status) = PartitionHandle::new(record.id);
    let serving = status.subscribe();
    let task = PartitionTask::new(PartitionParts {
        replica,
        machine,
        reader,
        usage: PartitionUsage::new(Arc::clone(usage)),
        requests,
        reports,
        status,
        metrics: Arc::clone(&context.metrics),
        fatal: context.fatal.clone(),
        stop: context.stop.clone(),
    });
    tasks.spawn(task.run());
    Ok((handle, serving))
}

fn open_replica(context: &GroupsContext, record: &GroupRecord) -> Result<Replica, GroupsError> {
    Replica::open(record, &context.host).map_err(|error: ReplicaError| GroupsError::Restore {
        group: record.id,
        reason: error.to_string(),
    })
}
