//! The node and its groups. How far each member is only a group's leader knows, so the leaders are
//! asked; where one cannot be, this node tells what it knows itself.

use std::collections::BTreeSet;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::Method;
use flintmq_consensus::{GroupId, NodeId};
use flintmq_shard::GroupView;
use flintmq_storage::DiskState;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::answer::Answer;
use super::leader::{Handed, unknown_group};
use super::{AdminState, Node, nodes, unserved};
use crate::host::GroupAdmin;

/// How long a leader may take to tell about its groups.
const PATIENCE: Duration = Duration::from_secs(2);

#[derive(Debug, Deserialize)]
pub(super) struct ShowFrom {
    #[serde(default)]
    pub(super) here: bool,
}

/// `GET /api/v1/status`
pub(super) async fn status(State(state): State<AdminState>, handed: Handed) -> Answer {
    let node = state.node()?;
    let groups = rows(node, &handed).await;
    let healthy = node.fatal.reason().is_none() && groups.iter().all(is_healthy);
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
        let views = look_at_all(&node.replicas).await;
        return Ok(Json(views.iter().map(|(id, view)| row(node, *id, view)).collect()));
    }
    Ok(Json(rows(node, &handed).await.into()))
}

/// `GET /api/v1/groups/{id}`
pub(super) async fn show(
    State(state): State<AdminState>,
    Path(id): Path<u32>,
    handed: Handed,
) -> Answer {
    let node = state.node()?;
    let found = rows(node, &handed).await.into_iter().find(|group| group["id"] == id);
    found.map(Json).ok_or_else(|| unknown_group(id))
}

/// All groups as their leaders see them; asked by another node, as this one does.
pub(super) async fn rows(node: &Node, handed: &Handed) -> Vec<Value> {
    let views = look_at_all(&node.replicas).await;
    let mut rows: Vec<Value> = views.iter().map(|(id, view)| row(node, *id, view)).collect();
    let (None, Some(peers)) = (handed, &node.peers) else { return rows };
    let leaders: BTreeSet<NodeId> = views
        .iter()
        .filter_map(|(group, _)| node.watch(group.0)?.borrow().leader)
        .filter(|leader| leader.0 != node.id)
        .collect();
    let mut asked = JoinSet::new();
    for leader in leaders {
        let peers = peers.clone();
        asked.spawn(async move {
            let path = "/api/v1/groups";
            let reply = peers.ask(leader, Method::GET, path, &Value::Null, PATIENCE).await;
            (leader, reply)
        });
    }
    while let Some(answered) = asked.join_next().await {
        let Ok((leader, Ok(reply))) = answered else { continue };
        let theirs = reply.body.as_array().into_iter().flatten();
        for led in theirs.filter(|row| row["leader"] == leader.0) {
            if let Some(row) = rows
                .iter_mut()
                .find(|row| row["id"] == led["id"] && row["term"].as_u64() <= led["term"].as_u64())
            {
                *row = led.clone();
            }
        }
    }
    rows
}

/// What each replica of this node knows of its group; without those that are stopping.
async fn look_at_all(replicas: &[GroupAdmin]) -> Vec<(GroupId, GroupView)> {
    let mut views = Vec::with_capacity(replicas.len());
    for replica in replicas {
        if let Some(view) = replica.inspect().await {
            views.push((replica.group(), view));
        }
    }
    views
}

/// One group as this node sees it.
fn row(node: &Node, id: GroupId, view: &GroupView) -> Value {
    let status = &view.status;
    // Elected and not serving yet is not leading.
    let leader = status.leader.filter(|leader| leader.0 != node.id || status.serving);
    let members: Vec<Value> = view
        .config
        .members()
        .into_iter()
        .map(|member| {
            let peer = view.peers.iter().find(|peer| peer.node == member);
            let (state, matched) = if member.0 == node.id {
                (if status.recovering { "recovering" } else { "normal" }, Some(view.last.index))
            } else {
                let state = match peer {
                    _ if !node.reaches(member.0) => "unreachable",
                    Some(peer) if peer.recovering => "recovering",
                    Some(peer) if peer.snapshot => "snapshot",
                    _ => "normal",
                };
                (state, peer.map(|peer| peer.matched))
            };
            json!({
                "node": member.0,
                "role": if view.config.is_voter(member) { "voter" } else { "learner" },
                "state": state,
                "match_index": matched,
            })
        })
        .collect();
    json!({
        "id": id.0,
        "kind": if id == GroupId::CONTROLLER { "controller" } else { "partition" },
        "leader": leader.map(|leader| leader.0),
        "term": status.term,
        "history": status.history,
        "commit_index": status.commit_index,
        "applied_index": status.applied_index,
        "fsynced_index": status.fsynced_index,
        "at_risk_entries": status.commit_index.saturating_sub(status.fsynced_index),
        "at_risk_bytes": status.at_risk_bytes,
        "settled": view.settled,
        "members": members,
    })
}

/// Led, and nobody is missing.
fn is_healthy(group: &Value) -> bool {
    let members = group["members"].as_array().map_or(&[][..], Vec::as_slice);
    !group["leader"].is_null() && members.iter().all(|member| member["state"] == "normal")
}

impl Node {
    /// Whether a node of the cluster is there.
    pub(super) fn reaches(&self, node: u32) -> bool {
        node == self.id || self.peers.as_ref().is_some_and(|peers| peers.is_reachable(NodeId(node)))
    }
}
