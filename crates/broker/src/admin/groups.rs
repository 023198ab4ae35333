//! The node and its groups.

use axum::Json;
use axum::extract::{Path, State};
use flintmq_storage::DiskState;
use serde_json::{Value, json};

use super::answer::{Answer, Failure};
use super::{AdminState, Node};
use crate::replica::ReplicaStatus;

/// `GET /api/v1/status`
pub(super) async fn status(State(state): State<AdminState>) -> Answer {
    let node = state.node()?;
    let groups: Vec<Value> = groups(node).collect();
    let healthy = node.fatal.reason().is_none() && groups.iter().all(|g| !g["leader"].is_null());
    let stats = node.store.stats();
    let (domains, queues) = {
        let metadata = node.controller.metadata();
        (metadata.domains().count(), metadata.queue_count())
    };
    let disk = match node.store.disk_state() {
        DiskState::Ok => "ok",
        DiskState::Low { .. } => "low: new messages are refused",
    };
    Ok(Json(json!({
        "cluster": node.cluster,
        "node": node.id,
        "version": env!("CARGO_PKG_VERSION"),
        "health": if healthy { "ok" } else { "degraded" },
        "nodes": [{ "node": node.id, "state": "up" }],
        "domains": domains,
        "queues": queues,
        "disk": { "state": disk, "free_bytes": stats.disk_free_bytes },
        "groups": groups,
    })))
}

/// `GET /api/v1/groups`
pub(super) async fn list(State(state): State<AdminState>) -> Answer {
    Ok(Json(groups(state.node()?).collect()))
}

/// `GET /api/v1/groups/{id}`
pub(super) async fn show(State(state): State<AdminState>, Path(id): Path<u32>) -> Answer {
    let node = state.node()?;
    let found = groups(node).find(|group| group["id"] == id);
    found.map(Json).ok_or_else(|| {
        Failure::not_found(format!("there is no such group, id={id}"), "`flintmq admin group list`")
    })
}

fn groups(node: &Node) -> impl Iterator<Item = Value> + '_ {
    let controller = std::iter::once((0, "controller", node.controller.status()));
    let partitions = node.partitions.iter().map(|p| (p.group().0, "partition", p.status()));
    controller.chain(partitions).map(|(id, kind, status)| group(node.id, id, kind, &status))
}

fn group(node: u32, id: u32, kind: &str, status: &ReplicaStatus) -> Value {
    json!({
        "id": id,
        "kind": kind,
        "leader": status.leader.map(|leader| leader.0),
        "term": status.term,
        "history": status.history,
        "commit_index": status.commit_index,
        "applied_index": status.applied_index,
        "fsynced_index": status.fsynced_index,
        "members": [{
            "node": node,
            "role": "voter",
            "state": "normal",
            "match_index": status.last_index,
        }],
    })
}
