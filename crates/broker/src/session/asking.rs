//! What a session asks for and goes on meanwhile: the place of a queue, and its opening.

use std::sync::Arc;

use flintmq_partition::OpenRefusal;
use flintmq_protocol::control::StatusCategory;
use flintmq_queue::HandleId;
use flintmq_session::{Input, OpenInPartition, PlaceQueue, Placed, Refusal};

use super::context::SessionContext;
use crate::controller::{ControllerError, QueuePlace};
use crate::queue_removal;

/// Finds the place of a queue, or gives it one.
pub(super) async fn place(context: Arc<SessionContext>, wanted: PlaceQueue) -> Input {
    let result = find_place(&context, &wanted).await;
    Input::Placed { open: wanted.open, result: result.map(Box::new) }
}

/// Opens a queue in its partition.
pub(super) async fn open(context: Arc<SessionContext>, wanted: OpenInPartition) -> Input {
    let result = open_in_partition(&context, &wanted).await;
    Input::Opened { open: wanted.open, result }
}

async fn find_place(context: &SessionContext, wanted: &PlaceQueue) -> Result<Placed, Refusal> {
    let controller = context.controller().await.ok_or_else(|| {
        Refusal::new(StatusCategory::NotReady, "the node does not serve yet: open it again")
    })?;
    wanted.check(&controller.metadata())?;
    if let Some((place, _)) = controller.lookup(&wanted.uri)
        && !is_created(context, &place).await
    {
        // Its partition may have to create it. By metadata that are old that could be a queue that
        // was deleted, beside the one that has its name now, or one under settings that are over.
        controller.catch_up().await.map_err(refusal_of)?;
    }
    let placed = controller.place(&wanted.uri, &wanted.domain).await;
    let (place, domain) = placed.map_err(refusal_of)?;
    Ok(Placed { place, domain })
}

/// Whether the queue is there, as far as this node's replica of its partition knows.
async fn is_created(context: &SessionContext, place: &QueuePlace) -> bool {
    let Some(partition) = context.partition(place.partition) else { return false };
    matches!(partition.view(place.id()).await, Ok(Some(_)))
}

async fn open_in_partition(
    context: &SessionContext,
    wanted: &OpenInPartition,
) -> Result<HandleId, OpenRefusal> {
    let message = "the queue's partition is not on this node: connect to another node";
    let partition = context.partition(wanted.partition).ok_or(OpenRefusal::NotReady(message))?;
    let handle = context.next_handle();
    let opened = partition.open(|ticket| wanted.request(ticket, handle)).await;
    if matches!(opened, Ok(Err(OpenRefusal::Deleted)))
        && let Some(controller) = context.controller().await
    {
        queue_removal::finish(controller, partition, &wanted.uri, wanted.queue).await;
    }
    opened.unwrap_or(Err(OpenRefusal::NotReady("the node is stopping"))).map(|()| handle)
}

fn refusal_of(error: ControllerError) -> Refusal {
    let category = match error {
        ControllerError::Refused(flintmq_controller::Refusal::UnknownDomain { .. }) => {
            StatusCategory::Unknown
        }
        ControllerError::NotReady(_) | ControllerError::Stopping => StatusCategory::NotReady,
        _ => StatusCategory::Refused,
    };
    Refusal::new(category, error.to_string())
}
