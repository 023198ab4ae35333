//! The node and its groups: `/api/v1/status`, `/api/v1/groups`.

use axum::Json;
use axum::extract::{Path, Query, State};
use flintmq_storage::DiskState;
use serde::Deserialize;
use serde_json::json;

use super::answer::Answer;
use super::leader::Handed;
use super::{AdminState, nodes, unserved};
use crate::operations::Refused;
use crate::operations::group_states::{self, GroupState};

#[derive(Debug, Deserialize)]
pub(super) struct ShowFrom {
    #[serde(default)]
    pub(super) here: bool,
}

/// `GET /api/v1/status`
pub(super) async fn status(State(state): State<AdminState>, handed: Handed) -> Answer {
    let node = state.node()?;
    let groups = group_states::all(node, handed.is_some()).await;
    let healthy = node.fatal.reason().is_none() && groups.iter().all(GroupState::is_healthy);
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
        "reasons": unserved::reasons(node),
        "nodes": nodes::rows(node, &groups),
        "domains": domains,
        "queues": queues,
        "disk": { "state": disk, "free_bytes": stats.disk_free_bytes },
        "groups": groups,
    })))
}

/// `GET /api/v1/groups[?here=true]`: as their leaders see them, or this node's replicas.
pub(super) async fn list(
    State(state): State<AdminState>,
    Query(view): Query<ShowFrom>,
    handed: Handed,
) -> Answer {
    let node = state.node()?;
    if view.here {
        return Ok(Json(json!(group_states::here(node).await)));
    }
    Ok(Json(json!(group_states::all(node, handed.is_some()).await)))
}

/// `GET /api/v1/groups/{id}`
pub(super) async fn show(
    State(state): State<AdminState>,
    Path(id): Path<u32>,
    handed: Handed,
) -> Answer {
    let node = state.node()?;
    let groups = group_states::all(node, handed.is_some()).await;
    let found = groups.into_iter().find(|group| group.id == id);
    Ok(Json(json!(found.ok_or_else(|| Refused::unknown_group(id))?)))
}
