//! Removing queues: on an administrator's word, and those that were not used for long.

use std::time::Duration;

use flintmq_partition::{AdminRefusal, Removable};
use flintmq_queue::QueueId;
use tokio_util::sync::CancellationToken;

use crate::controller::{Controller, ControllerError};
use crate::host::{PartitionHandle, partition_of};

/// Why a queue was not removed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RemovalError {
    /// Its partition refuses.
    #[error(transparent)]
    Refused(#[from] AdminRefusal),
    /// Its place cannot be given up.
    #[error(transparent)]
    Controller(#[from] ControllerError),
    /// The node is stopping.
    #[error("the node is stopping: ask again when it is back")]
    Stopping,
}

/// Deletes a queue with its messages, then its place. A client that opens it meanwhile gets a new
/// queue: the partition takes no open for a number that was deleted, and the client's session asks
/// for a new place.
///
/// # Errors
/// A client has it open, it is not what `only_if` asks for, or the node is not ready.
pub(crate) async fn remove(
    controller: &Controller,
    partitions: &[PartitionHandle],
    uri: &str,
    only_if: Removable,
) -> Result<(), RemovalError> {
    let Some((place, _)) = controller.find(uri).await? else { return Ok(()) };
    if let Some(partition) = partition_of(partitions, place.partition) {
        delete(partition, place.id(), only_if).await?;
    }
    controller.forget_queue(uri, place.queue).await?;
    Ok(())
}

/// Deletes a queue in its partition, where it may be gone already.
async fn delete(
    partition: &PartitionHandle,
    queue: QueueId,
    only_if: Removable,
) -> Result<(), RemovalError> {
    let deleted = partition.delete(queue, only_if).await;
    match deleted.map_err(|_| RemovalError::Stopping)? {
        Ok(()) | Err(AdminRefusal::NoSuchQueue) => Ok(()),
        Err(refusal) => Err(refusal.into()),
    }
}

/// Finishes the removal of a queue that is deleted in its partition and still has its place:
/// the node that deleted it had no answer, or stopped in between. Does nothing while another one is
/// about to do it, or where the queue is there after all.
pub(crate) async fn finish(
    controller: &Controller,
    partition: &PartitionHandle,
    uri: &str,
    queue: QueueId,
) {
    if delete(partition, queue, Removable::UnusedFor(Duration::ZERO)).await.is_ok()
        && let Err(error) = controller.forget_queue(uri, queue.0).await
    {
        tracing::debug!(uri, %error, "a deleted queue keeps its place until it is opened again");
    }
}

/// Removes queues that have been empty and closed for `timeout`, until stopped. Zero: never.
pub(crate) async fn remove_idle(
    controller: Controller,
    partitions: Vec<PartitionHandle>,
    timeout: Duration,
    stop: CancellationToken,
) {
    if timeout.is_zero() {
        return;
    }
    let pace = (timeout / 4).clamp(Duration::from_millis(250), Duration::from_secs(60));
    let mut tick = tokio::time::interval(pace);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        for partition in &partitions {
            for uri in partition.idle_queues(timeout).await {
                let unused = Removable::UnusedFor(timeout);
                match remove(&controller, &partitions, &uri, unused).await {
                    Ok(()) => tracing::info!(uri, "queue removed: empty and unused for long"),
                    Err(error) => tracing::debug!(uri, %error, "an idle queue stays"),
                }
            }
        }
    }
}
