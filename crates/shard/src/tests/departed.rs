//! What is left of a group on a node that is no member any more.

use std::sync::Arc;

use flintmq_consensus::{ConfigRegister, ConfigStamp, HardState, LogPosition, NodeId, Time};

use super::alone::{entry, say_as_leader};
use super::bench::*;
use crate::leftover::Word;
use crate::network::own_number;
use crate::*;

const LEADER: NodeId = NodeId(2);

fn elsewhere() -> Arc<Assignment> {
    let place = Place { voters: vec![LEADER], ..Place::default() };
    Arc::new(Assignment { groups: [(GROUP, place)].into(), ..Assignment::default() })
}

/// A node with data of a group that it has left at term 9.
fn departed() -> (Node, ConfigRegister) {
    let hard_state =
        HardState { config: ConfigRegister::of_voters([NODE]), ..HardState::default() };
    let mut node = Node::open(&store_of(hard_state), NODE, &[LEADER], Time(0));
    node.run();
    node.ask(Ask::Propose(b"a"));
    node.run();
    let without = ConfigRegister {
        stamp: ConfigStamp { term: 9, version: 1 },
        ..ConfigRegister::of_voters([LEADER])
    };
    say_as_leader(&mut node, &without, LogPosition::default(), Vec::new());
    node.step(ShardInput::Assignment(elsewhere()));
    node.machine_mut().leader_elsewhere = Some((LEADER, 9));
    node.run();
    assert_eq!(node.status().leader, Some(LEADER), "as the machine knows");
    (node, without)
}

fn asked(node: &Node) -> usize {
    let sent = node.take_sent();
    sent.iter().filter(|sent| matches!(sent, Sent::Message(LEADER, ..))).count()
}

fn allow(node: &mut Node, from: NodeId) {
    let bytes = Word::Drop(9).encode();
    let group = own_number(GROUP);
    node.step(ShardInput::Message { from, process: incarnation(from), group, bytes });
}

#[test]
fn what_a_group_left_here_is_dropped_and_the_vote_is_not() {
    let (mut node, without) = departed();
    node.run_until(Time::from_millis(3000));
    assert_eq!(asked(&node), 0, "only just");
    node.run_until(Time::from_millis(8000));
    assert!(asked(&node) > 0);
    allow(&mut node, LEADER);
    node.run_until(Time::from_millis(9500));
    assert_eq!(node.status().last_index, 2, "the disk does not have all of it yet");
    node.store.sync();
    node.run();
    allow(&mut node, LEADER);
    node.run_until(Time::from_millis(11_000));
    let status = node.status();
    assert_eq!((status.last_index, status.applied_index, status.term), (0, 0, 9));
    assert!(node.take_calls().contains(&Call::Restored(Vec::new())));
    assert!(node.notices.contains(&Notice::LeftoverDropped));
    let kept = record(&node.store);
    assert_eq!((kept.hard_state.term, kept.bounds.last.index), (9, 0));
    assert_eq!(kept.hard_state.config, without);
    asked(&node);
    node.run_until(Time::from_millis(20_000));
    assert_eq!(asked(&node), 0, "nothing is left");

    // Taken back, it begins with nothing.
    let again = ConfigRegister {
        stamp: ConfigStamp { term: 9, version: 2 },
        learners: vec![NODE],
        ..without
    };
    let entries = vec![entry(1, 9), entry(2, 9)];
    say_as_leader(&mut node, &again, LogPosition::default(), entries);
    node.run();
    assert_eq!(node.machine().applied.len(), 2);
    assert_eq!(node.fatal, None);
}

#[test]
fn messages_are_lost_while_everything_is_dropped() {
    let (mut node, without) = departed();
    node.store.sync();
    node.run_until(Time::from_millis(8000));
    allow(&mut node, LEADER);
    node.stalled = true;
    node.run_until(Time::from_millis(9500));
    assert!(node.shard.dropping.contains(&GROUP));
    let again = ConfigRegister {
        stamp: ConfigStamp { term: 9, version: 2 },
        learners: vec![NODE],
        ..without
    };
    let prev = LogPosition { term: 1, index: 2 };
    say_as_leader(&mut node, &again, prev, vec![entry(3, 9)]);
    node.run();
    node.stalled = false;
    node.run();
    assert_eq!(node.status().last_index, 0);
    assert_eq!(node.fatal, None);
    say_as_leader(&mut node, &again, LogPosition::default(), vec![entry(1, 9)]);
    node.run();
    assert_eq!(node.status().last_index, 1);
}

#[test]
fn only_the_known_leader_lets_go_of_data() {
    let (mut node, _) = departed();
    node.store.sync();
    node.run_until(Time::from_millis(8000));
    node.step(ShardInput::Peer { peer: NodeId(3), up: true, incarnation: 103, restarted: false });
    allow(&mut node, NodeId(3));
    node.run_until(Time::from_millis(12_000));
    assert_eq!(node.status().last_index, 2);
}

#[test]
fn a_leader_lets_go_of_those_whom_no_member_needs() {
    let mut cluster = Cluster::new(3, 4);
    let leader = cluster.elect();
    cluster.pass(500);
    let say = |cluster: &mut Cluster, from: u32| {
        let term = cluster.node(leader).status().term;
        let bytes = Word::MayDrop(term).encode();
        let group = own_number(GROUP);
        let (from, to) = (NodeId(from), leader);
        let input = ShardInput::Message { from, process: incarnation(from), group, bytes };
        cluster.node(to).step(input);
        let sent = cluster.node(to).take_sent();
        sent.iter().any(|sent| matches!(sent, Sent::Message(..)))
    };
    assert!(!say(&mut cluster, 4), "no assignment says that it is not wanted");
    let place = Place { voters: vec![NodeId(1), NodeId(2), NodeId(3)], ..Place::default() };
    let assignment = Assignment { groups: [(GROUP, place)].into(), ..Assignment::default() };
    cluster.node(leader).step(ShardInput::Assignment(Arc::new(assignment)));
    let member = (1..=3).find(|id| *id != leader.0).unwrap();
    assert!(!say(&mut cluster, member), "a member is needed");
    assert!(say(&mut cluster, 4));
}
