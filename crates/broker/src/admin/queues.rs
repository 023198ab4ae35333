//! Queues: `/api/v1/queues`.

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use flintmq_partition::{AdminRefusal, QueueSnapshot, Removable};
use flintmq_protocol::compression::Compression;
use flintmq_protocol::flags::PutFlags;
use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::{Answer, Failure, stopping};
use super::fresh;
use super::groups::ShowFrom;
use super::leader::Handed;
use super::{AdminState, Node};
use crate::controller::QueuePlace;
use crate::host::{PartitionHandle, Peeked, partition_of};
use crate::operations::leadership::{ForLeader, ask_leader};
use crate::operations::queue_states::{self, QueueState, age_seconds};
use crate::queue_removal;

/// Bytes of a message's data that a peek shows.
const SHOWN_BYTES: usize = 4096;

#[derive(Debug, Deserialize)]
pub(super) struct ListFilter {
    domain: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct PurgeFilter {
    app: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct PeekRange {
    #[serde(default = "ten")]
    count: usize,
}

fn ten() -> usize {
    10
}

/// `GET /api/v1/queues[?domain=NAME]`: what stands in queues that other nodes lead, they are asked
/// for. Asked by another node, this one answers for those that it leads.
pub(super) async fn list(
    State(state): State<AdminState>,
    Query(filter): Query<ListFilter>,
    handed: Handed,
) -> Answer {
    let node = state.node()?;
    if handed.is_none() {
        // Without it what this node knows is shown.
        fresh::fresh_if_led(node).await;
    }
    let domain = filter.domain.as_deref();
    let queues = queue_states::all(node, domain, handed.is_some()).await?;
    Ok(Json(queues.into_values().map(|queue| json!(queue)).collect()))
}

/// `GET /api/v1/queues/{domain}/{queue}[?here=true]`: as its leader sees it, or this node's
/// replica. A replica that follows knows of no clients.
pub(super) async fn show(
    State(state): State<AdminState>,
    Path((domain, queue)): Path<(String, String)>,
    Query(view): Query<ShowFrom>,
    handed: Handed,
) -> Answer {
    let node = state.node()?;
    if view.here {
        return Ok(Json(json!(look_here(node, &domain, &queue).await?)));
    }
    Ok(Json(json!(look(node, &domain, &queue, handed.is_some()).await?)))
}

/// One queue as its leader sees it.
async fn look(
    node: &Node,
    domain: &str,
    queue: &str,
    forwarded: bool,
) -> Result<QueueState, Failure> {
    let (_, place) = find(node, domain, queue).await?;
    let path = format!("/api/v1/queues/{domain}/{queue}");
    let asked = ForLeader::get(&path);
    if let Some(answer) = ask_leader(node, place.partition, forwarded, &asked).await? {
        return serde_json::from_value(answer).map_err(|_| {
            let error = format!("the answer of the queue's leader cannot be read, queue={queue}");
            let hint = "run the same version of flintmq on all nodes";
            Failure::new(StatusCode::BAD_GATEWAY, error, hint)
        });
    }
    look_here(node, domain, queue).await
}

async fn look_here(node: &Node, domain: &str, queue: &str) -> Result<QueueState, Failure> {
    let (uri, place) = find(node, domain, queue).await?;
    let snapshot = view(node, &place).await?;
    Ok(QueueState::new(&uri, &place, snapshot.as_ref()))
}

/// `POST /api/v1/queues/{domain}/{queue}/purge`
pub(super) async fn purge(
    State(state): State<AdminState>,
    Path((domain, queue)): Path<(String, String)>,
    Query(filter): Query<PurgeFilter>,
) -> Answer {
    let node = state.node()?;
    let (uri, place) = find(node, &domain, &queue).await?;
    if let Some(app) = filter.app {
        return Err(Failure::new(
            StatusCode::BAD_REQUEST,
            format!("this queue has no apps to purge one of, app={app}"),
            "purge the whole queue, without ?app=",
        ));
    }
    let purged = partition(node, &place)?.purge(place.id()).await;
    let purged = match purged.map_err(stopping)? {
        Ok(purged) => purged,
        // Assigned and never used: there is nothing in it.
        Err(AdminRefusal::NoSuchQueue) => Default::default(),
        Err(refusal) => return Err(refusal.into()),
    };
    tracing::info!(uri, messages = purged.messages, bytes = purged.bytes, "queue purged");
    Ok(Json(json!({ "uri": uri, "messages": purged.messages, "bytes": purged.bytes })))
}

/// `DELETE /api/v1/queues/{domain}/{queue}`
pub(super) async fn remove(
    State(state): State<AdminState>,
    Path((domain, queue)): Path<(String, String)>,
) -> Answer {
    let node = state.node()?;
    let (uri, _) = find(node, &domain, &queue).await?;
    remove_queue(node, &uri).await?;
    Ok(Json(json!({ "uri": uri })))
}

/// `GET /api/v1/queues/{domain}/{queue}/messages[?count=N]`: the oldest messages, left where they
/// are.
pub(super) async fn messages(
    State(state): State<AdminState>,
    Path((domain, queue)): Path<(String, String)>,
    Query(range): Query<PeekRange>,
    handed: Handed,
) -> Answer {
    let node = state.node()?;
    let (_, place) = find(node, &domain, &queue).await?;
    let path = format!("/api/v1/queues/{domain}/{queue}/messages?count={}", range.count);
    let asked = ForLeader::get(&path);
    if let Some(answer) = ask_leader(node, place.partition, handed.is_some(), &asked).await? {
        return Ok(Json(answer));
    }
    let peeked = partition(node, &place)?.peek(&node.store, place.id(), range.count).await;
    let peeked = match peeked.map_err(stopping)? {
        Ok(peeked) => peeked,
        Err(AdminRefusal::NoSuchQueue) => Vec::new(),
        Err(refusal) => return Err(refusal.into()),
    };
    Ok(Json(peeked.iter().map(message).collect()))
}

/// Refuses while a client has the queue open.
pub(super) async fn check_unused(node: &Node, uri: &str) -> Result<(), Failure> {
    let Some((domain, queue)) = uri.strip_prefix("bmq://").and_then(|rest| rest.split_once('/'))
    else {
        return Ok(());
    };
    if node.controller.find(uri).await?.is_none() {
        return Ok(());
    }
    let (consumers, producers) = look(node, domain, queue, false).await?.clients();
    if consumers + producers == 0 {
        return Ok(());
    }
    Err(AdminRefusal::InUse { consumers, producers }.into())
}

/// Deletes a queue with its messages, then its place.
pub(super) async fn remove_queue(node: &Node, uri: &str) -> Result<(), Failure> {
    queue_removal::remove(&node.controller, &node.partitions, uri, Removable::Closed).await?;
    Ok(())
}

async fn find(node: &Node, domain: &str, queue: &str) -> Result<(String, QueuePlace), Failure> {
    let uri = format!("bmq://{domain}/{queue}");
    let lookup = |node: &Node| node.controller.lookup(&uri).map(|(place, _)| place);
    let found = fresh::find(node, lookup).await?;
    let place = found.ok_or_else(|| {
        Failure::not_found(
            format!("there is no such queue, uri={uri}"),
            "`flintmq admin queue list`",
        )
    })?;
    Ok((uri, place))
}

fn partition<'a>(node: &'a Node, place: &QueuePlace) -> Result<&'a PartitionHandle, Failure> {
    partition_of(&node.partitions, place.partition).ok_or_else(|| {
        Failure::not_found("the queue's partition is not on this node", "ask another node")
    })
}

async fn view(node: &Node, place: &QueuePlace) -> Result<Option<QueueSnapshot>, Failure> {
    partition(node, place)?.view(place.id()).await.map_err(stopping)
}

fn message(peeked: &Peeked) -> Value {
    let data = &peeked.app_data[..peeked.app_data.len().min(SHOWN_BYTES)];
    let compression = Compression::from_wire(peeked.attributes.compression);
    json!({
        "guid": peeked.guid.to_string(),
        "age_seconds": age_seconds(peeked.arrival_ms),
        "bytes": peeked.app_data.len(),
        "has_properties": peeked.attributes.flags & PutFlags::MESSAGE_PROPERTIES.0 != 0,
        "compression": if compression == Some(Compression::Zlib) { "zlib" } else { "none" },
        "data": String::from_utf8_lossy(data),
        "data_cut": peeked.app_data.len() > SHOWN_BYTES,
    })
}
