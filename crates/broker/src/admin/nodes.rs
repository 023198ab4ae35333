//! The nodes of the cluster: `/api/v1/nodes`.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use super::answer::Answer;
use super::leader::Handed;
use super::{AdminState, Node, groups};

/// `GET /api/v1/nodes`
pub(super) async fn list(State(state): State<AdminState>, handed: Handed) -> Answer {
    let node = state.node()?;
    let groups = groups::rows(node, &handed).await;
    Ok(Json(rows(node, &groups)))
}

/// One row per node: whether it can be reached from here, and how many groups it leads.
pub(super) fn rows(node: &Node, groups: &[Value]) -> Value {
    let mut leads: BTreeMap<u64, u32> = BTreeMap::new();
    for leader in groups.iter().filter_map(|group| group["leader"].as_u64()) {
        *leads.entry(leader).or_default() += 1;
    }
    let alone = [(node.id, String::new())];
    let members = if node.members.is_empty() { &alone[..] } else { &node.members[..] };
    members
        .iter()
        .map(|(id, address)| {
            json!({
                "node": id,
                "state": if node.reaches(*id) { "up" } else { "unreachable" },
                "address": (!address.is_empty()).then_some(address),
                "leads": leads.get(&u64::from(*id)).copied().unwrap_or(0),
            })
        })
        .collect()
}
