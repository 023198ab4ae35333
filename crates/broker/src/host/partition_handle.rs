//! What sessions and the administration ask of a partition, and how they wait for its answers.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use flintmq_consensus::GroupId;
use flintmq_partition::{
    AdminRefusal, Answer, OpenRefusal, Purged, QueueSnapshot, Removable, Request, SessionEnded,
    SessionId, Ticket,
};
use flintmq_protocol::guid::MessageGuid;
use flintmq_queue::{Attributes, Domain, Location, Partition, QueueId};
use flintmq_shard::ReplicaStatus;
use flintmq_storage::LogStore;
use tokio::sync::{oneshot, watch};

use super::inbox::RequestSender;
use super::tickets::Tickets;

/// Bytes of application data that one peek returns at most.
const MAX_PEEKED_BYTES: usize = 8 << 20;

/// A way to a partition; cheap to clone.
#[derive(Clone)]
pub(crate) struct PartitionHandle {
    group: GroupId,
    requests: RequestSender,
    tickets: Arc<Tickets<Answer>>,
    status: watch::Receiver<ReplicaStatus>,
}

/// The node is stopping: there will be no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the node is stopping")]
pub(crate) struct Stopping;

/// One message as an administrator sees it.
#[derive(Clone, Debug)]
pub(crate) struct Peeked {
    pub(crate) guid: MessageGuid,
    pub(crate) arrival_ms: u64,
    pub(crate) attributes: Attributes,
    pub(crate) app_data: Bytes,
}

impl PartitionHandle {
    pub(crate) fn new(
        group: GroupId,
        requests: RequestSender,
        tickets: Arc<Tickets<Answer>>,
        status: watch::Receiver<ReplicaStatus>,
    ) -> Self {
        Self { group, requests, tickets, status }
    }

    /// The group.
    pub(crate) fn group(&self) -> GroupId {
        self.group
    }

    /// State of the group's replica, to wait for.
    pub(crate) fn watch(&self) -> watch::Receiver<ReplicaStatus> {
        self.status.clone()
    }

    /// State of the group's replica.
    pub(crate) fn status(&self) -> ReplicaStatus {
        *self.status.borrow()
    }

    /// Hands over a request that has no answer here, waiting while the partition is busy. False
    /// when it is gone: the node is stopping.
    pub(crate) async fn send(&self, request: Request) -> bool {
        self.requests.send(request).await
    }

    /// Opens a queue; `open` makes the request with the ticket of its answer.
    pub(crate) async fn open(
        &self,
        open: impl FnOnce(Ticket) -> Request,
    ) -> Result<Result<(), OpenRefusal>, Stopping> {
        match self.ask(open).await? {
            Answer::Opened(result) => Ok(result),
            _ => Err(Stopping),
        }
    }

    /// Ends a session; answered when everything received before is answered and all handles are
    /// closed.
    pub(crate) async fn end_session(
        &self,
        session: SessionId,
        lost: bool,
    ) -> oneshot::Receiver<Answer> {
        self.begin(|ticket| Request::SessionEnded(SessionEnded { session, lost, ticket })).await
    }

    /// Drops the messages of a queue.
    pub(crate) async fn purge(
        &self,
        queue: QueueId,
    ) -> Result<Result<Purged, AdminRefusal>, Stopping> {
        match self.ask(|ticket| Request::Purge { ticket, queue }).await? {
            Answer::Purged(result) => Ok(result),
            _ => Err(Stopping),
        }
    }

    /// Deletes a queue, if it is what it must be for that.
    pub(crate) async fn delete(
        &self,
        queue: QueueId,
        only_if: Removable,
    ) -> Result<Result<(), AdminRefusal>, Stopping> {
        match self.ask(|ticket| Request::Delete { ticket, queue, only_if }).await? {
            Answer::Deleted(result) => Ok(result),
            _ => Err(Stopping),
        }
    }

    /// Brings the settings of a domain into force for its queues in the partition, which
    /// this node or another leads.
    pub(crate) async fn set_domain(
        &self,
        domain: Arc<Domain>,
    ) -> Result<Result<(), AdminRefusal>, Stopping> {
        match self.begin_set_domain(domain).await.await {
            Ok(Answer::DomainSet(result)) => Ok(result),
            _ => Err(Stopping),
        }
    }

    /// As [`Self::set_domain`], without waiting for the answer.
    pub(crate) async fn begin_set_domain(&self, domain: Arc<Domain>) -> oneshot::Receiver<Answer> {
        self.begin(|ticket| Request::SetDomain { ticket, domain }).await
    }

    /// What stands in a queue.
    pub(crate) async fn view(&self, queue: QueueId) -> Result<Option<QueueSnapshot>, Stopping> {
        match self.ask(|ticket| Request::View { ticket, queue }).await? {
            Answer::View(view) => Ok(view),
            _ => Err(Stopping),
        }
    }

    /// What stands in all queues.
    pub(crate) async fn view_all(&self) -> Result<Vec<QueueSnapshot>, Stopping> {
        match self.ask(|ticket| Request::ViewAll { ticket }).await? {
            Answer::ViewAll(views) => Ok(views),
            _ => Err(Stopping),
        }
    }

    /// The oldest messages of a queue, without taking them. They are read beside the shard,
    /// so that a disk read holds up nothing.
    pub(crate) async fn peek(
        &self,
        store: &Arc<dyn LogStore>,
        queue: QueueId,
        count: usize,
    ) -> Result<Result<Vec<Peeked>, AdminRefusal>, Stopping> {
        let found = match self.ask(|ticket| Request::Peek { ticket, queue, count }).await? {
            Answer::Peek(found) => found,
            _ => return Err(Stopping),
        };
        let locations = match found {
            Ok(locations) => locations,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let (group, store) = (self.group, Arc::clone(store));
        let read = tokio::task::spawn_blocking(move || read(group, &*store, &locations)).await;
        read.map_err(|_| Stopping)
    }

    /// Which queues have been empty and closed for this long, by URI.
    pub(crate) async fn idle_queues(&self, timeout: Duration) -> Vec<String> {
        match self.ask(|ticket| Request::IdleQueues { ticket, timeout }).await {
            Ok(Answer::Idle(idle)) => idle,
            _ => Vec::new(),
        }
    }

    /// The node is stopping: hand over, or deliver nothing more; answered when nothing is left to
    /// wait for.
    pub(crate) async fn stop_delivery(&self) -> oneshot::Receiver<Answer> {
        self.begin(|ticket| Request::StopDelivery { ticket }).await
    }

    async fn ask(&self, request: impl FnOnce(Ticket) -> Request) -> Result<Answer, Stopping> {
        self.begin(request).await.await.map_err(|_| Stopping)
    }

    async fn begin(&self, request: impl FnOnce(Ticket) -> Request) -> oneshot::Receiver<Answer> {
        let (ticket, answer) = self.tickets.issue();
        if !self.requests.send(request(Ticket(ticket))).await {
            self.tickets.close();
        }
        answer
    }
}

/// The way to one partition by its number, which counts from 1.
pub(crate) fn partition_of(
    partitions: &[PartitionHandle],
    number: u32,
) -> Option<&PartitionHandle> {
    partitions.get((number as usize).checked_sub(1)?)
}

fn read(
    group: GroupId,
    store: &dyn LogStore,
    locations: &[Location],
) -> Result<Vec<Peeked>, AdminRefusal> {
    let failed = |error: &dyn std::fmt::Display| AdminRefusal::Failed(error.to_string());
    let mut peeked = Vec::new();
    let mut bytes = 0;
    let mut last: Option<(u64, Bytes)> = None;
    for location in locations {
        let payload = match &last {
            Some((index, payload)) if *index == location.index => payload.clone(),
            _ => match store.entry(group, location.index).map_err(|error| failed(&error))? {
                Some(entry) => entry.payload,
                // Confirmed and compacted between the look at the queue and this read.
                None => continue,
            },
        };
        let message = Partition::read(location, &payload).map_err(|error| failed(&error))?;
        last = Some((location.index, payload));
        bytes += message.app_data.len();
        if bytes > MAX_PEEKED_BYTES && !peeked.is_empty() {
            break;
        }
        peeked.push(Peeked {
            guid: MessageGuid(message.guid.0),
            arrival_ms: location.arrival_ms,
            attributes: message.attributes,
            app_data: message.app_data,
        });
    }
    Ok(peeked)
}
