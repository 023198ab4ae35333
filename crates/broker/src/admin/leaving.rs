//! Forgets nodes that leave, once nobody needs them any more. Done by the node that leads the
//! controller, for as long as it does.

use std::time::Duration;

use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::{AdminState, groups};
use crate::controller::{NodeState, MembershipCommand};

/// How often it is looked.
const LOOK: Duration = Duration::from_secs(1);

/// Runs until `stop`.
pub(super) async fn run(state: AdminState, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = stop.cancelled() => return,
        }
        let Ok(node) = state.node() else { continue };
        if !node.controller.status().serving {
            continue;
        }
        let roster = node.controller.membership();
        let leaving = roster
            .nodes()
            .filter(|node| node.state == NodeState::Leaving && !roster.is_wanted(node.id));
        let leaving: Vec<u32> = leaving.map(|node| node.id).collect();
        if leaving.is_empty() {
            continue;
        }
        let rows = groups::rows(node, &None).await;
        for id in leaving {
            if rows.len() != node.replicas.len() || !rows.iter().all(|row| is_free_of(row, id)) {
                continue;
            }
            match node.controller.change_membership(MembershipCommand::Forget { id }).await {
                Ok(()) => tracing::info!(node = id, "nobody needs the leaving node any more"),
                Err(error) => tracing::debug!(node = id, %error, "it is tried again"),
            }
        }
    }
}

/// Whether the group's leader says that the group has everything without this node. In the
/// controller's group it may go on listening.
fn is_free_of(group: &Value, id: u32) -> bool {
    let needs = |member: &Value| {
        member["node"] == id && (member["role"] == "voter" || group["kind"] != "controller")
    };
    group["settled"] == true && !group["members"].as_array().into_iter().flatten().any(needs)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_node_is_needed_until_all_leaders_say_otherwise() {
        let group = |kind: &str, settled: bool, role: &str| {
            json!({ "kind": kind, "settled": settled, "members": [
                { "node": 1, "role": "voter" }, { "node": 2, "role": role },
            ]})
        };
        assert!(is_free_of(&group("partition", true, "voter"), 3));
        assert!(!is_free_of(&group("partition", false, "voter"), 3), "no leader, or a late one");
        assert!(!is_free_of(&group("partition", true, "voter"), 2));
        assert!(!is_free_of(&group("partition", true, "learner"), 2));
        assert!(!is_free_of(&group("controller", true, "voter"), 2));
        assert!(is_free_of(&group("controller", true, "learner"), 2));
        assert!(!is_free_of(&json!({}), 2));
    }
}
