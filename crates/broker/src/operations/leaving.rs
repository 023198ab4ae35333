//! Forgets nodes that leave, once no group needs them any more. Done by the node that leads the
//! controller, for as long as it does.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::group_states::{self, GroupKind, GroupState, Role};
use super::{Node, NodeCell};
use crate::controller::{MembershipCommand, NodeState};

/// How often it is looked.
const LOOK: Duration = Duration::from_secs(1);

/// Runs until `stop`.
pub(crate) async fn run(cell: NodeCell, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = stop.cancelled() => return,
        }
        if let Some(node) = cell.get()
            && node.controller.status().serving
        {
            forget_leaving(node).await;
        }
    }
}

async fn forget_leaving(node: &Node) {
    let roster = node.controller.membership();
    let leaving = roster
        .nodes()
        .filter(|node| node.state == NodeState::Leaving && !roster.is_wanted(node.id));
    let leaving: Vec<u32> = leaving.map(|node| node.id).collect();
    if leaving.is_empty() {
        return;
    }
    let groups = group_states::all(node, false).await;
    if groups.len() != node.replicas.len() {
        return;
    }
    for id in leaving {
        if !groups.iter().all(|group| is_free_of(group, id)) {
            continue;
        }
        match node.controller.change_membership(MembershipCommand::Forget { id }).await {
            Ok(()) => tracing::info!(node = id, "no group needs the leaving node any more"),
            Err(error) => tracing::debug!(node = id, %error, "it is tried again"),
        }
    }
}

/// Whether the group's leader says that the group has everything without this node. In the
/// controller's group it may go on listening.
fn is_free_of(group: &GroupState, id: u32) -> bool {
    let listens = |role: Role| group.kind == GroupKind::Controller && role == Role::Learner;
    let mut members = group.members.iter();
    group.settled && !members.any(|member| member.node == id && !listens(member.role))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_needed_until_all_leaders_say_otherwise() {
        use GroupKind::{Controller, Partition};
        let free = |kind, settled, role, id| {
            let group = group_states::tests::group(kind, settled, &[(1, Role::Voter), (2, role)]);
            is_free_of(&group, id)
        };
        assert!(free(Partition, true, Role::Voter, 3));
        assert!(!free(Partition, false, Role::Voter, 3), "no leader, or a late one");
        assert!(!free(Partition, true, Role::Voter, 2));
        assert!(!free(Partition, true, Role::Learner, 2));
        assert!(!free(Controller, true, Role::Voter, 2));
        assert!(free(Controller, true, Role::Learner, 2));
    }
}
