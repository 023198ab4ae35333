//! The nodes of the cluster: `/api/v1/nodes`. Which of them belong to it, and how to change that.
//!
//! What is asked for here is only written down, in the cluster's membership. The leaders of the
//! groups then do it, step by step, and go on after any failure.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::answer::{Answer, Failure};
use super::leader::Handed;
use super::{AdminState, Node, fresh};
use crate::config::is_peer_address;
use crate::controller::{ClusterMembership, MembershipCommand, NodeRecord, NodeState};
use crate::operations::group_states::{self, GroupState};

/// How long a request waits for a cluster that has just been born.
const PATIENCE: Duration = Duration::from_secs(5);

/// Nodes that a cluster must keep unless an administrator insists.
const FEW: u32 = 3;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AddRequest {
    id: u32,
    peers: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ReplaceRequest {
    with: u32,
    peers: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct DrainRequest {
    #[serde(default)]
    undo: bool,
}

#[derive(Debug, Deserialize)]
pub(super) struct RemoveQuery {
    #[serde(default)]
    force: bool,
}

/// `GET /api/v1/nodes`
pub(super) async fn list(State(state): State<AdminState>, handed: Handed) -> Answer {
    let node = state.node()?;
    let groups = group_states::all(node, handed.is_some()).await;
    Ok(Json(rows(node, &groups)))
}

/// `POST /api/v1/nodes`: one more node may come.
pub(super) async fn add(State(state): State<AdminState>, body: String) -> Answer {
    let request: AddRequest = read(&body, "send {\"id\": NODE, \"peers\": \"HOST:PORT\"}")?;
    let AddRequest { id, peers } = request;
    let node = state.node()?;
    let roster = known_roster(node).await?;
    check_new(&roster, id, &peers)?;
    change(node, MembershipCommand::Add { id, peers, replaces: None }).await?;
    answer(node, id)
}

/// `POST /api/v1/nodes/{id}/replace`: a new node takes the place of one that leaves.
pub(super) async fn replace(
    State(state): State<AdminState>,
    Path(id): Path<u32>,
    body: String,
) -> Answer {
    let request: ReplaceRequest = read(&body, "send {\"with\": NODE, \"peers\": \"HOST:PORT\"}")?;
    let ReplaceRequest { with, peers } = request;
    let node = state.node()?;
    let roster = known_roster(node).await?;
    let old = present(node, &roster, id).await?;
    if old.directory.is_none() {
        return Err(conflict(
            format!("the node has never come, so there is nothing to replace, node={id}"),
            "remove it and add the other one",
        ));
    }
    check_new(&roster, with, &peers)?;
    change(node, MembershipCommand::Add { id: with, peers, replaces: Some(id) }).await?;
    answer(node, with)
}

/// `POST /api/v1/nodes/{id}/drain`: the node is to lead nothing, or may again.
pub(super) async fn drain(
    State(state): State<AdminState>,
    Path(id): Path<u32>,
    body: String,
) -> Answer {
    let DrainRequest { undo } = read(&body, "send {\"undo\": false}")?;
    let node = state.node()?;
    let roster = known_roster(node).await?;
    let record = present(node, &roster, id).await?;
    if record.state == NodeState::Leaving {
        let error = format!("the node is leaving the cluster, node={id}");
        return Err(conflict(error, "it leads nothing any more already"));
    }
    let leads = |other: &NodeRecord| {
        other.id != id && other.directory.is_some() && other.state == NodeState::Active
    };
    if !undo && !roster.nodes().any(leads) {
        let error = format!("no other node could lead, node={id}");
        return Err(conflict(error, "take the draining of another one back first"));
    }
    change(node, MembershipCommand::Drain { id, draining: !undo }).await?;
    answer(node, id)
}

/// `DELETE /api/v1/nodes/{id}`: what the node holds moves to others, then it is forgotten.
pub(super) async fn remove(
    State(state): State<AdminState>,
    Path(id): Path<u32>,
    Query(query): Query<RemoveQuery>,
) -> Answer {
    let node = state.node()?;
    let roster = known_roster(node).await?;
    let record = present(node, &roster, id).await?;
    if record.directory.is_some() {
        let stays: Vec<u32> =
            roster.nodes().filter(|n| n.id != id && roster.is_home(n)).map(|n| n.id).collect();
        check_rest(node, &roster, id, &stays, query.force)?;
    }
    change(node, MembershipCommand::Remove { id }).await?;
    answer(node, id)
}

/// Whether the cluster can do without the node.
fn check_rest(
    node: &Node,
    roster: &ClusterMembership,
    id: u32,
    stays: &[u32],
    force: bool,
) -> Result<(), Failure> {
    let left = stays.len();
    if left == 0 {
        let error = format!("no node would be left, node={id}");
        return Err(conflict(error, "stop it, if the cluster is to end"));
    }
    let wanted = roster.replicas().unwrap_or(FEW);
    if left < wanted as usize && !force {
        return Err(conflict(
            format!(
                "too few nodes would be left to outlive a failure as before, node={id} left={left} wanted={wanted}"
            ),
            "add one first, put one in its place with `flintmq admin node replace`, or insist with --force",
        ));
    }
    let there = stays.iter().filter(|other| node.reaches(**other)).count();
    if 2 * there <= left && !force {
        return Err(conflict(
            format!(
                "too few of the other nodes can be reached to decide anything without this one, node={id} left={left} reachable={there}"
            ),
            "bring them back first",
        ));
    }
    Ok(())
}

fn check_new(roster: &ClusterMembership, id: u32, peers: &str) -> Result<(), Failure> {
    if id == 0 {
        let error = "numbers of nodes start at 1, node=0";
        return Err(Failure::new(StatusCode::BAD_REQUEST, error, ""));
    }
    if !is_peer_address(peers) {
        return Err(Failure::new(
            StatusCode::BAD_REQUEST,
            format!("the node's address cannot be used, peers={peers:?}"),
            "write HOST:PORT as other nodes reach its `peers.listen`",
        ));
    }
    if let Some(known) = roster.node(id) {
        return Err(match known.state {
            NodeState::Removed => conflict(
                format!("a node of this number was removed, node={id}"),
                "numbers are never used again: choose another one",
            ),
            _ => conflict(
                format!("the cluster has a node of this number, node={id}"),
                "a node with an empty disk needs a new number: `flintmq admin node replace`",
            ),
        });
    }
    let in_use = |node: &&NodeRecord| node.peers == peers && node.state == NodeState::Active;
    match roster.nodes().find(in_use) {
        Some(other) => Err(conflict(
            format!("another node has this address, node={} peers={peers}", other.id),
            "correct the address, or remove the other one first",
        )),
        None => Ok(()),
    }
}

/// The membership, once the controller's first leader has written it down, with everything that
/// was changed before.
async fn known_roster(node: &Node) -> Result<Arc<ClusterMembership>, Failure> {
    if node.peers.is_none() {
        return Err(conflict(
            "this node is alone, and not set up for others".to_owned(),
            "a cluster begins with several nodes in [[cluster_nodes]]",
        ));
    }
    fresh::fresh_metadata(node).await?;
    let mut roster = node.controller.watch_membership();
    let known = timeout(PATIENCE, roster.wait_for(|roster| roster.is_known())).await;
    match known {
        Ok(Ok(roster)) => Ok(Arc::clone(&roster)),
        _ => Err(Failure::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "the cluster's nodes are not written down yet",
            "ask again when the controller has a leader: `flintmq admin group show 0`",
        )),
    }
}

async fn present(node: &Node, roster: &ClusterMembership, id: u32) -> Result<NodeRecord, Failure> {
    let found = |roster: &ClusterMembership| {
        roster.node(id).filter(|node| node.state != NodeState::Removed).cloned()
    };
    if let Some(record) = found(roster) {
        return Ok(record);
    }
    // It may have been added through another node just now.
    node.controller.catch_up().await?;
    match found(&node.controller.membership()) {
        Some(record) => Ok(record),
        None => {
            let error = format!("the cluster has no such node, node={id}");
            Err(Failure::not_found(error, "`flintmq admin node list`"))
        }
    }
}

async fn change(node: &Node, change: MembershipCommand) -> Result<(), Failure> {
    tracing::info!(?change, "the cluster's nodes change as asked");
    Ok(node.controller.change_membership(change).await?)
}

/// What the membership says of the node now.
fn answer(node: &Node, id: u32) -> Answer {
    let roster = node.controller.membership();
    let membership = roster.node(id).map_or("removed", membership);
    Ok(Json(json!({ "node": id, "membership": membership })))
}

fn read<T: DeserializeOwned>(body: &str, form: &'static str) -> Result<T, Failure> {
    serde_json::from_str(body).map_err(|error| {
        let error = format!("the request cannot be read: {error}");
        Failure::new(StatusCode::BAD_REQUEST, error, form)
    })
}

fn conflict(error: String, hint: &'static str) -> Failure {
    Failure::new(StatusCode::CONFLICT, error, hint)
}

/// One word for what a node is to the cluster.
fn membership(node: &NodeRecord) -> &'static str {
    match node.state {
        NodeState::Active | NodeState::Draining if node.directory.is_none() => "joining",
        NodeState::Active => "active",
        NodeState::Draining => "draining",
        NodeState::Leaving => "leaving",
        NodeState::Removed => "removed",
    }
}

/// One row per node: whether it can be reached from here, what it is to the cluster, and how many
/// groups it leads and holds.
pub(super) fn rows(node: &Node, groups: &[GroupState]) -> Value {
    let mut leads: BTreeMap<u32, u32> = BTreeMap::new();
    let mut holds: BTreeMap<u32, u32> = BTreeMap::new();
    for group in groups {
        if let Some(leader) = group.leader {
            *leads.entry(leader).or_default() += 1;
        }
        for member in &group.members {
            *holds.entry(member.node).or_default() += 1;
        }
    }
    let roster = node.controller.membership();
    let of_roster = roster.present();
    let mut nodes: Vec<(u32, String, &str)> =
        of_roster.map(|node| (node.id, node.peers.clone(), membership(node))).collect();
    if nodes.is_empty() {
        nodes = node.members.iter().map(|(id, peers)| (*id, peers.clone(), "active")).collect();
    }
    if nodes.is_empty() {
        nodes.push((node.id, String::new(), "active"));
    }
    let count = |of: &BTreeMap<u32, u32>, id: u32| of.get(&id).copied().unwrap_or(0);
    nodes
        .into_iter()
        .map(|(id, address, membership)| {
            json!({
                "node": id,
                "state": if node.reaches(id) { "up" } else { "unreachable" },
                "membership": membership,
                "address": (!address.is_empty()).then_some(address),
                "leads": count(&leads, id),
                "holds": count(&holds, id),
            })
        })
        .collect()
}
