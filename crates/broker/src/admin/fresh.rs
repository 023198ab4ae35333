//! Answers from this node's copy of the metadata that deny nothing that another node has already
//! shown to a client: before one says "there is no such thing", the copy is brought up to date.

use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use flintmq_consensus::GroupId;
use serde_json::json;
use tokio::time::Instant;

use super::answer::{Answer, Failure, stopping};
use super::leader::{ForLeader, ask_leader, leaderless, moved, unknown_group};
use super::{AdminState, Node};

/// How long this node's replica may take to apply what is committed.
const PATIENCE: Duration = Duration::from_secs(5);

/// A pause before it is looked again how far the replica is.
const AGAIN: Duration = Duration::from_millis(5);

/// Waits until this node's metadata are at least as new as what the controller had committed when
/// this was called; whatever any node has answered before is among that.
///
/// # Errors
/// The controller has no leader that can be asked, or this replica does not catch up in time.
pub(super) async fn fresh_metadata(node: &Node) -> Result<(), Failure> {
    if node.peers.is_none() {
        return Ok(());
    }
    let group = GroupId::CONTROLLER.0;
    let path = format!("/nodes/v1/groups/{group}/committed");
    let committed = match ask_leader(node, group, &None, &ForLeader::get(&path)).await {
        Ok(Some(Json(answer))) => answer["commit_index"].as_u64().unwrap_or_default(),
        Ok(None) => committed_here(node, group).await?,
        // A leader of an older release does not tell: its word is waited for no longer than then.
        Err(failure) if failure.is_not_found() => return Ok(()),
        Err(failure) => return Err(failure),
    };
    let deadline = Instant::now() + PATIENCE;
    while node.controller.status().applied_index < committed {
        if Instant::now() >= deadline {
            return Err(behind());
        }
        tokio::time::sleep(AGAIN).await;
    }
    Ok(())
}

/// [`fresh_metadata`] where the controller has a leader, as far as is known here; without one an
/// election is not waited for: what this node knows is better than nothing.
///
/// # Errors
/// As above. The metadata may be old then.
pub(super) async fn fresh_if_led(node: &Node) -> Result<(), Failure> {
    if !node.controller.status().led {
        return Err(leaderless(GroupId::CONTROLLER.0));
    }
    fresh_metadata(node).await
}

/// Looks something up, and before it is missed looks again in metadata that are fresh.
///
/// # Errors
/// It is not there as far as is known, but the metadata may be old.
pub(super) async fn find<T>(
    node: &Node,
    look: impl Fn(&Node) -> Option<T>,
) -> Result<Option<T>, Failure> {
    let fresh = fresh_if_led(node).await;
    if let Some(found) = look(node) {
        return Ok(Some(found));
    }
    if fresh.is_err() {
        fresh_metadata(node).await?;
    }
    Ok(look(node))
}

/// `GET /nodes/v1/groups/{id}/committed`: how far the group's log is committed, from its leader.
pub(super) async fn committed(State(state): State<AdminState>, Path(group): Path<u32>) -> Answer {
    let commit_index = committed_here(state.node()?, group).await?;
    Ok(Json(json!({ "commit_index": commit_index })))
}

/// Asked through the replica's own task: what it has already told anybody is counted.
async fn committed_here(node: &Node, group: u32) -> Result<u64, Failure> {
    let orders = node.orders(group).ok_or_else(|| unknown_group(group))?;
    let view = orders.look().await.ok_or_else(|| stopping(()))?;
    if view.status.serving { Ok(view.status.commit_index) } else { Err(moved(group)) }
}

fn behind() -> Failure {
    Failure::new(
        axum::http::StatusCode::SERVICE_UNAVAILABLE,
        "this node does not know yet what the others have decided",
        "ask again in a moment, or ask another node",
    )
}
