//! Partitions: each a task that owns one replicated log and the queues in it.
//!
//! A message's way through the files: `task` collects what sessions ask for and proposes it as one
//! entry, `publish` decides what a PUT becomes, `apply` turns decided entries into
//! acknowledgements, `deliver` gives messages to consumers, `links` sends both out by session.
//! `handles` opens and closes, `upkeep` expires and checkpoints, `views` answers administrators.

mod apply;
mod clock;
mod deliver;
mod gateway;
mod handles;
mod leadership;
mod links;
mod publish;
mod requests;
mod settings;
mod task;
mod upkeep;
mod views;

use flintmq_consensus::GroupId;
use tokio::sync::{mpsc, watch};

use crate::replica::ReplicaStatus;
pub(crate) use requests::{
    AdminRefusal, Close, Configure, Confirm, HandleRole, Open, OpenRefusal, Peeked, Publish, Put,
    QueueSnapshot, Removable, Request, SessionEnded,
};
pub(crate) use settings::{keep_domain_settings, queue_settings, send_domain_settings};
pub(crate) use task::{PartitionParts, PartitionTask};

/// Requests that may wait for a partition; then sessions wait, and their clients.
const REQUESTS: usize = 1024;

/// A way to a partition's task; cheap to clone.
#[derive(Clone)]
pub(crate) struct PartitionHandle {
    group: GroupId,
    requests: mpsc::Sender<Request>,
    status: watch::Receiver<ReplicaStatus>,
}

impl PartitionHandle {
    /// A handle, and what the task at its other end needs.
    pub(crate) fn new(
        group: GroupId,
    ) -> (Self, mpsc::Receiver<Request>, watch::Sender<ReplicaStatus>) {
        let (requests, receiver) = mpsc::channel(REQUESTS);
        let (sender, status) = watch::channel(ReplicaStatus::default());
        (Self { group, requests, status }, receiver, sender)
    }

    /// The group.
    pub(crate) fn group(&self) -> GroupId {
        self.group
    }

    /// Hands over a request, waiting while the partition is busy. False when it is gone: the node
    /// is stopping.
    pub(crate) async fn send(&self, request: Request) -> bool {
        self.requests.send(request).await.is_ok()
    }

    /// State of the group's replica, to wait for.
    pub(crate) fn watch(&self) -> watch::Receiver<ReplicaStatus> {
        self.status.clone()
    }

    /// State of the group's replica.
    pub(crate) fn status(&self) -> ReplicaStatus {
        *self.status.borrow()
    }
}

/// The way to one partition by its number, which counts from 1.
pub(crate) fn partition_of(
    partitions: &[PartitionHandle],
    number: u32,
) -> Option<&PartitionHandle> {
    partitions.get((number as usize).checked_sub(1)?)
}
