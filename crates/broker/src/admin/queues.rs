//! Queues: `/api/v1/queues`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::{Method, StatusCode};
use flintmq_consensus::NodeId;
use flintmq_partition::{AdminRefusal, QueueSnapshot, Removable};
use flintmq_protocol::compression::Compression;
use flintmq_protocol::flags::PutFlags;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::answer::{Answer, Failure, stopping};
use super::fresh;
use super::groups::ShowFrom;
use super::leader::{ForLeader, Handed, ask_leader};
use super::{AdminState, Node};
use crate::controller::QueuePlace;
use crate::host::{PartitionHandle, Peeked, partition_of};
use crate::queue_removal;

/// Bytes of a message's data that a peek shows.
const SHOWN_BYTES: usize = 4096;

/// How long a leader may take to tell about its queues.
const LEADERS_PATIENCE: Duration = Duration::from_secs(5);

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
    let mut snapshots = BTreeMap::new();
    for partition in &node.partitions {
        for snapshot in partition.view_all().await.map_err(stopping)? {
            snapshots.insert(snapshot.view.uri.clone(), snapshot);
        }
    }
    let mut rows: BTreeMap<String, Value> = {
        let metadata = node.controller.metadata();
        let wanted = |place: &QueuePlace| {
            filter.domain.as_ref().is_none_or(|domain| *domain == place.domain)
        };
        let queues = metadata.queues().filter(|(_, place)| wanted(place));
        queues.map(|(uri, place)| (uri.to_owned(), shown(uri, place, snapshots.get(uri)))).collect()
    };
    if handed.is_some() {
        rows.retain(|_, row| row["leader"] == node.id);
    } else {
        for row in led_elsewhere(node, filter.domain.as_deref()).await {
            if let Some(known) = row["uri"].as_str().and_then(|uri| rows.get_mut(uri)) {
                *known = row;
            }
        }
    }
    Ok(Json(rows.into_values().collect()))
}

/// What other nodes tell about queues that they lead; nothing of those that do not answer.
async fn led_elsewhere(node: &Node, domain: Option<&str>) -> Vec<Value> {
    let Some(peers) = &node.peers else { return Vec::new() };
    let leaders: BTreeSet<NodeId> = node
        .partitions
        .iter()
        .filter_map(|partition| partition.status().leader)
        .filter(|leader| leader.0 != node.id)
        .collect();
    let filter = domain.map(|domain| format!("?domain={domain}")).unwrap_or_default();
    let mut asked = JoinSet::new();
    for leader in leaders {
        let (peers, path) = (peers.clone(), format!("/api/v1/queues{filter}"));
        asked.spawn(async move {
            peers.ask(leader, Method::GET, &path, &Value::Null, LEADERS_PATIENCE).await
        });
    }
    let mut rows = Vec::new();
    while let Some(answered) = asked.join_next().await {
        if let Ok(Ok(reply)) = answered
            && let Value::Array(theirs) = reply.body
        {
            rows.extend(theirs);
        }
    }
    rows
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
        return look_here(node, &domain, &queue).await;
    }
    look(node, &domain, &queue, &handed).await
}

/// One queue as its leader sees it.
async fn look(node: &Node, domain: &str, queue: &str, handed: &Handed) -> Answer {
    let (_, place) = find(node, domain, queue).await?;
    let path = format!("/api/v1/queues/{domain}/{queue}");
    let asked = ForLeader::get(&path);
    if let Some(answer) = ask_leader(node, place.partition, handed, &asked).await? {
        return Ok(answer);
    }
    look_here(node, domain, queue).await
}

async fn look_here(node: &Node, domain: &str, queue: &str) -> Answer {
    let (uri, place) = find(node, domain, queue).await?;
    let snapshot = view(node, &place).await?;
    Ok(Json(shown(&uri, &place, snapshot.as_ref())))
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
    if let Some(answer) = ask_leader(node, place.partition, &handed, &ForLeader::get(&path)).await?
    {
        return Ok(answer);
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
    let Json(seen) = look(node, domain, queue, &None).await?;
    let apps = seen["apps"].as_array().map_or(&[][..], Vec::as_slice);
    let consumers: u64 = apps.iter().filter_map(|app| app["consumers"].as_u64()).sum();
    let producers = seen["producers"].as_u64().unwrap_or_default();
    if consumers + producers == 0 {
        return Ok(());
    }
    let count = |clients: u64| usize::try_from(clients).unwrap_or(usize::MAX);
    let (consumers, producers) = (count(consumers), count(producers));
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

fn shown(uri: &str, place: &QueuePlace, snapshot: Option<&QueueSnapshot>) -> Value {
    let Some(QueueSnapshot { group, node, view }) = snapshot else {
        return json!({
            "uri": uri, "group": place.partition, "leader": null,
            "backlog_messages": 0, "backlog_bytes": 0, "producers": 0, "apps": [],
        });
    };
    let age = view.oldest_arrival_ms.map_or(0.0, age_seconds);
    let apps: Vec<Value> = view
        .apps
        .iter()
        .map(|app| {
            json!({
                "id": if app.name.is_empty() { "__default" } else { app.name.as_str() },
                "backlog_messages": app.messages,
                "backlog_bytes": app.bytes,
                "unconfirmed_messages": app.unconfirmed,
                "oldest_age_seconds": if app.messages == 0 { 0.0 } else { age },
                "redelivery_messages": app.redelivery,
                "consumers": app.consumers,
            })
        })
        .collect();
    json!({
        "uri": uri,
        "group": group.0,
        "leader": node,
        "backlog_messages": view.messages,
        "backlog_bytes": view.bytes,
        "oldest_age_seconds": age,
        "producers": view.producers,
        "history_guids": view.history_guids,
        "history_bytes": view.history_bytes,
        "apps": apps,
    })
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

fn age_seconds(arrival_ms: u64) -> f64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
    now_ms.saturating_sub(arrival_ms) as f64 / 1000.0
}
