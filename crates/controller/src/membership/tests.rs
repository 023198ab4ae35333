//! Nodes join, are drained, replaced and removed.

use super::*;

/// Nodes that have come, all active.
pub(crate) fn membership_of(ids: &[u32]) -> ClusterMembership {
    let mut membership = ClusterMembership::default();
    let nodes = ids.iter().map(|id| NodeRecord {
        id: *id,
        peers: format!("10.0.0.{id}:7114"),
        state: NodeState::Active,
        directory: Some(u64::from(*id)),
        founder: true,
        replaces: None,
    });
    membership.apply(MembershipCommand::Seed { nodes: nodes.collect(), replicas: None }).unwrap();
    membership
}

fn add(id: u32, replaces: Option<u32>) -> MembershipCommand {
    MembershipCommand::Add { id, peers: format!("10.0.0.{id}:7114"), replaces }
}

fn homes(membership: &ClusterMembership) -> Vec<u32> {
    membership.nodes().filter(|node| membership.is_home(node)).map(|node| node.id).collect()
}

#[test]
fn a_node_comes_with_one_directory_and_its_number_is_never_used_again() {
    let mut membership = membership_of(&[1, 2, 3]);
    assert!(membership.apply(add(3, None)).is_err());
    assert!(membership.apply(add(4, None)).is_ok());
    assert_eq!(homes(&membership), [1, 2, 3], "it has not come yet");
    assert!(membership.apply(MembershipCommand::Admit { id: 4, directory: 7 }).is_ok());
    assert!(membership.apply(MembershipCommand::Admit { id: 4, directory: 8 }).is_err());
    assert_eq!((membership.node(4).unwrap().directory, homes(&membership).len()), (Some(7), 4));
    assert!(membership.apply(MembershipCommand::Forget { id: 4 }).is_err(), "it holds groups");
    assert!(membership.apply(MembershipCommand::Remove { id: 4 }).is_ok());
    assert!(membership.is_barred(NodeId(4)) && homes(&membership) == [1, 2, 3]);
    assert!(membership.apply(MembershipCommand::Forget { id: 4 }).is_ok());
    assert!(membership.apply(add(4, None)).is_err());
    assert!(membership.apply(MembershipCommand::Remove { id: 4 }).is_err());
}

#[test]
fn one_that_never_came_can_be_added_again() {
    let mut membership = membership_of(&[1]);
    for _ in 0..2 {
        assert!(membership.apply(add(2, None)).is_ok());
        assert!(membership.apply(MembershipCommand::Remove { id: 2 }).is_ok());
        assert!(membership.node(2).is_none());
    }
    assert!(membership.apply(MembershipCommand::Remove { id: 1 }).is_err(), "nobody would be left");
}

#[test]
fn a_replaced_node_stays_until_the_new_one_is_there() {
    let mut membership = membership_of(&[1, 2, 3]);
    assert!(membership.apply(add(4, Some(9))).is_err() && membership.node(4).is_none());
    assert!(membership.apply(add(4, Some(2))).is_ok());
    assert_eq!(homes(&membership), [1, 2, 3]);
    assert!(membership.is_barred(NodeId(2)), "but it leads no more");
    assert!(membership.apply(MembershipCommand::Remove { id: 4 }).is_ok());
    assert!(!membership.is_barred(NodeId(2)), "nothing replaces it");
    assert!(membership.apply(add(4, Some(2))).is_ok());
    membership.apply(MembershipCommand::Admit { id: 4, directory: 7 }).unwrap();
    assert_eq!(homes(&membership), [1, 3, 4]);
}

#[test]
fn draining_is_taken_back_and_plans_for_another_membership_are_void() {
    let mut membership = membership_of(&[1, 2]);
    let version = membership.version();
    assert!(membership.apply(MembershipCommand::Drain { id: 1, draining: false }).is_err());
    assert!(membership.apply(MembershipCommand::Drain { id: 1, draining: true }).is_ok());
    assert!(membership.is_barred(NodeId(1)) && homes(&membership) == [1, 2]);
    let places = BTreeMap::from([(
        1,
        ReplicaAssignment { voters: vec![1], ..ReplicaAssignment::default() },
    )]);
    let late = MembershipCommand::Place { version, places: places.clone() };
    assert!(membership.apply(late).is_err());
    let version = membership.version();
    assert!(membership.apply(MembershipCommand::Place { version, places }).is_ok());
    assert!(membership.place(GroupId(1)).unwrap().holds(NodeId(1)));
    assert!(membership.apply(MembershipCommand::Drain { id: 1, draining: false }).is_ok());
    assert!(!membership.is_barred(NodeId(1)));
}
