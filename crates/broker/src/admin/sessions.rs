//! Sessions: `/api/v1/sessions`. Who is connected, to which node, and with what client.

use std::time::Duration;

use axum::Json;
use axum::extract::{Query, State};
use axum::http::Method;
use flintmq_consensus::NodeId;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::answer::Answer;
use super::leader::Handed;
use super::{AdminState, Node};
use crate::session::SessionEntry;

/// Sessions in one answer at most, and unless the request says otherwise. With what a client may
/// say of itself at most, so many fit into an answer between nodes.
const MAX_ROWS: usize = 1000;

/// How long another node may take to tell about its sessions.
const PATIENCE: Duration = Duration::from_secs(2);

#[derive(Debug, Deserialize)]
pub(super) struct ListFilter {
    node: Option<u32>,
    count: Option<usize>,
}

/// `GET /api/v1/sessions[?node=NODE][&count=N]`: `{"total", "unanswered_nodes", "sessions"}`. The
/// total counts also what `count` leaves out. Asked by another node, this one tells its own.
pub(super) async fn list(
    State(state): State<AdminState>,
    Query(filter): Query<ListFilter>,
    handed: Handed,
) -> Answer {
    let node = state.node()?;
    let count = filter.count.unwrap_or(MAX_ROWS).clamp(1, MAX_ROWS);
    let wanted = |id: u32| filter.node.is_none_or(|only| only == id);
    let mut found = Found::default();
    if wanted(node.id) {
        let (total, sessions) = node.sessions.first(count);
        found.total = total as u64;
        found.rows = sessions.iter().map(|session| row(node.id, session)).collect();
    }
    if handed.is_none() {
        others(node, count, wanted, &mut found).await;
    }
    found.rows.sort_by_key(|row| (row["node"].as_u64(), row["id"].as_u64()));
    found.rows.truncate(count);
    found.unanswered.sort_unstable();
    Ok(Json(json!({
        "total": found.total,
        "unanswered_nodes": found.unanswered,
        "sessions": found.rows,
    })))
}

#[derive(Default)]
struct Found {
    total: u64,
    rows: Vec<Value>,
    unanswered: Vec<u32>,
}

/// Adds what the other nodes tell.
async fn others(node: &Node, count: usize, wanted: impl Fn(u32) -> bool, found: &mut Found) {
    let Some(peers) = &node.peers else { return };
    let mut asked = JoinSet::new();
    for other in node.others().into_iter().filter(|id| wanted(*id)) {
        let (peers, path) = (peers.clone(), format!("/api/v1/sessions?count={count}"));
        asked.spawn(async move {
            let to = NodeId(other);
            (other, peers.ask(to, Method::GET, &path, &Value::Null, PATIENCE).await)
        });
    }
    while let Some(answered) = asked.join_next().await {
        let Ok((other, reply)) = answered else { continue };
        match reply {
            Ok(reply) if reply.status.is_success() => {
                found.total += reply.body["total"].as_u64().unwrap_or_default();
                found.rows.extend(reply.body["sessions"].as_array().into_iter().flatten().cloned());
            }
            // An older version does not know the path.
            Ok(_) | Err(_) => found.unanswered.push(other),
        }
    }
}

fn row(node: u32, session: &SessionEntry) -> Value {
    let client = &session.client;
    let told = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    json!({
        "node": node,
        "id": session.id.0,
        "address": session.peer.to_string(),
        "client": told(&client.process),
        "language": client.language,
        "version": client.version,
        "user_agent": told(&client.user_agent),
        "host": told(&client.host),
        "pid": client.pid,
        "since": humantime::format_rfc3339_seconds(session.since).to_string(),
        "handles": session.handles(),
    })
}
