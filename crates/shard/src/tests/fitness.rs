//! Nodes that should not lead hand over what they lead, and say so.

use flintmq_consensus::{ClockState, NodeId, UnfitReasons};

use super::bench::{Ask, Cluster, GROUP, Node};
use crate::{AdminAnswer, AdminCommand, NotCeded, ShardEffect, ShardInput};

/// What the node has said of itself since the last look.
fn said(node: &mut Node) -> Vec<UnfitReasons> {
    let said = |effect: &ShardEffect<_>| match effect {
        ShardEffect::Unfit { reasons } => Some(*reasons),
        _ => None,
    };
    let all = node.effects.iter().filter_map(said).collect();
    node.effects.clear();
    all
}

/// Makes the leader unfit and lets the others hear of it; the new leader.
fn make_unfit(
    cluster: &mut Cluster,
    spoil: impl FnOnce(&mut Node),
    reasons: UnfitReasons,
    patience: u64,
) -> NodeId {
    let leader = cluster.elect();
    spoil(cluster.node(leader));
    cluster.pass(patience);
    assert_eq!(said(cluster.node(leader)), [reasons], "once");
    cluster.beat(leader, reasons);
    cluster.pass(3000);
    let next = cluster.leader().unwrap();
    assert_ne!(next, leader);
    next
}

#[test]
fn a_node_whose_clock_is_off_hands_over_and_is_not_led_back_to() {
    let mut cluster = Cluster::new(3, 3);
    let off = UnfitReasons::CLOCK_OFF;
    let first = cluster.elect();
    let next = make_unfit(&mut cluster, |node| node.clock = ClockState::Off, off, 1100);
    assert!(!cluster.node(first).machine().leads);
    cluster.pass(60_000);
    assert_eq!(cluster.leader(), Some(next), "it stays there");
    let ask = |to, force| ShardInput::Admin {
        group: GROUP,
        ticket: 7,
        command: AdminCommand::Transfer { to, force },
    };
    cluster.node(next).step(ask(first, false));
    cluster.pass(100);
    let refused = AdminAnswer::Transferred(Err(NotCeded::Unfit));
    let answers = |node: &Node| {
        let of = |effect: &ShardEffect<_>| match effect {
            ShardEffect::Answer { answer, .. } => Some(answer.clone()),
            _ => None,
        };
        node.effects.iter().filter_map(of).collect::<Vec<_>>()
    };
    assert_eq!(answers(cluster.node(next)), [refused]);
    cluster.node(next).step(ask(first, true));
    cluster.pass(5000);
    assert!(cluster.leader().is_some_and(|leader| leader != first), "it hands it over again");
    // It is set right.
    cluster.node(first).clock = ClockState::Good;
    cluster.pass(1100);
    cluster.beat(first, UnfitReasons::NONE);
    let leader = cluster.elect();
    cluster.node(leader).step(ask(first, false));
    cluster.pass(1000);
    assert_eq!(cluster.leader(), Some(first));
}

#[test]
fn a_full_disk_hands_over_while_the_others_have_room() {
    let mut cluster = Cluster::new(3, 3);
    let full = UnfitReasons::DISK_FULL;
    make_unfit(&mut cluster, |node| node.store.set_low_disk(Some((1, 2))), full, 1100);
}

#[test]
fn a_disk_that_takes_nothing_hands_over() {
    let mut cluster = Cluster::new(3, 3);
    let spoil = |node: &mut Node| {
        node.stalled = true;
        node.ask(Ask::Propose(b"late"));
    };
    make_unfit(&mut cluster, spoil, UnfitReasons::DISK_STALLED, 4500);
}

#[test]
fn where_no_majority_could_go_on_the_leader_stays() {
    let mut cluster = Cluster::new(3, 3);
    let leader = cluster.elect();
    let full = UnfitReasons::DISK_FULL;
    for id in [1, 2, 3].map(NodeId) {
        cluster.node(id).store.set_low_disk(Some((1, 2)));
        cluster.beat(id, full);
    }
    cluster.pass(20_000);
    assert_eq!(cluster.leader(), Some(leader));
    assert!(cluster.node(leader).machine().leads);
}

#[test]
fn nothing_is_led_before_the_time_is_known() {
    let mut cluster = Cluster::new(3, 3);
    for node in cluster.nodes.values_mut() {
        node.clock = ClockState::Unknown;
    }
    cluster.pass(5000);
    assert_eq!(cluster.leader(), None);
    for node in cluster.nodes.values_mut() {
        node.clock = ClockState::Good;
    }
    cluster.pass(100);
    assert!(cluster.leader().is_some());
}
