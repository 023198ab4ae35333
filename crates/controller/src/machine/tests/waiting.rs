//! Changes that wait: for a leader, for room, up to their bounds and deadlines.

use flintmq_consensus::{NodeId, Time};
use flintmq_shard::Machine as _;

use super::cluster::Cluster;
use super::{assign, change};
use crate::metadata::CHANGE_WINDOW;
use crate::request::{ChangeError, Request};

#[test]
fn without_a_leader_in_time_a_change_is_not_made() {
    let mut cluster = Cluster::new(3);
    cluster.request(2, change(1, assign("bmq://d/a")));
    cluster.work(2);
    assert_eq!(cluster.node(2).machine.next_deadline().unwrap().0, 10_000_000);
    cluster.advance(10_000);
    cluster.work(2);
    assert_eq!(cluster.node(2).changed(), [(1, Err(ChangeError::NoLeader))]);
    cluster.elect(1);
    cluster.settle();
    assert_eq!(cluster.node(1).machine.metadata().queue_count(), 0);
}

#[test]
fn a_change_that_was_given_up_is_made_before_the_next_one_or_never() {
    let mut cluster = Cluster::led(3);
    cluster.request(2, change(1, assign("bmq://d/a")));
    cluster.work(2);
    let late = cluster.network.clone();
    cluster.network.clear();
    cluster.advance(10_000);
    cluster.work(2);
    assert_eq!(cluster.node(2).changed(), [(1, Err(ChangeError::Unknown))]);
    let deadline = Time::from_millis(20_000);
    let commands = assign("bmq://d/b");
    cluster.request(2, Request::Change { ticket: 2, commands, deadline });
    cluster.settle();
    cluster.network = late;
    cluster.settle();
    let metadata = cluster.node(1).machine.metadata();
    assert!(metadata.queue("bmq://d/b").is_some());
    assert!(metadata.queue("bmq://d/a").is_none());
}

#[test]
fn a_leader_tries_again_when_its_window_was_full() {
    let mut cluster = Cluster::led(1);
    cluster.node(1).group.window_full = true;
    cluster.request(1, change(1, assign("bmq://d/a")));
    cluster.request(1, change(2, assign("bmq://d/b")));
    cluster.work(1);
    assert!(cluster.node(1).machine.next_deadline().unwrap() < Time(1_000_000));
    cluster.node(1).group.window_full = false;
    cluster.advance(60);
    cluster.settle();
    assert_eq!(cluster.node(1).changed(), [(1, Ok(())), (2, Ok(()))]);
    assert_eq!(cluster.log.len(), 2, "both share an entry");
}

#[test]
fn what_waits_is_bounded_and_more_is_refused() {
    let mut cluster = Cluster::new(3);
    for ticket in 0..=CHANGE_WINDOW {
        cluster.request(2, change(ticket, assign(&format!("bmq://d/{ticket}"))));
    }
    cluster.work(2);
    assert_eq!(cluster.node(2).changed(), [(CHANGE_WINDOW, Err(ChangeError::Busy))]);
    cluster.elect(1);
    cluster.settle();
    assert_eq!(cluster.node(2).changed().len() as u64, CHANGE_WINDOW + 1);
    assert!(cluster.log.len() < 20, "many changes share an entry: {}", cluster.log.len());
    let large = assign(&"x".repeat(17 << 20));
    cluster.request(2, change(7777, large));
    cluster.work(2);
    let last = cluster.node(2).changed().pop().unwrap();
    assert!(matches!(last, (7777, Err(ChangeError::TooLarge { .. }))), "{last:?}");
}

#[test]
fn a_leader_takes_no_more_from_others_than_it_has_room_for() {
    let mut cluster = Cluster::led(8);
    cluster.node(1).group.window_full = true;
    for node in 2..=8 {
        for ticket in 0..CHANGE_WINDOW {
            cluster.request(node, change(ticket, assign(&format!("bmq://d/{node}-{ticket}"))));
        }
    }
    cluster.work_all();
    cluster.deliver();
    let not_taken = cluster.node(1).machine.counters().not_taken;
    assert_eq!(not_taken, 7 * CHANGE_WINDOW - 4096);
    cluster.node(1).group.window_full = false;
    for _ in 0..4 {
        cluster.settle();
        cluster.advance(60);
    }
    assert_eq!(cluster.node(8).machine.metadata().queue_count() as u64, 7 * CHANGE_WINDOW);
    for node in 2..=8 {
        let answered = cluster.node(node).changed();
        assert!(answered.iter().all(|(_, result)| result.is_ok()));
        assert_eq!(answered.len() as u64, CHANGE_WINDOW);
    }
}

#[test]
fn a_full_connection_is_waited_for() {
    let mut cluster = Cluster::led(3);
    cluster.node(2).group.connections_full = true;
    cluster.request(2, change(1, assign("bmq://d/a")));
    cluster.settle();
    assert_eq!(cluster.node(2).changed(), []);
    cluster.node(2).group.connections_full = false;
    cluster.settle();
    assert_eq!(cluster.node(2).changed(), [], "it waits for the word that there is room");
    let node = cluster.node(2);
    node.machine.on_room(&mut node.group, NodeId(1));
    cluster.settle();
    assert_eq!(cluster.node(2).changed(), [(1, Ok(()))]);
}

#[test]
fn a_machine_is_settled_when_nothing_is_under_way() {
    let mut cluster = Cluster::led(3);
    let settled = |cluster: &mut Cluster, id: u32| {
        let node = cluster.node(id);
        node.machine.is_settled(&node.group)
    };
    assert!(settled(&mut cluster, 1) && settled(&mut cluster, 2));
    cluster.request(2, change(1, assign("bmq://d/a")));
    assert!(!settled(&mut cluster, 2));
    cluster.work(2);
    cluster.deliver();
    assert!(!settled(&mut cluster, 1), "it took a change of another node");
    cluster.settle();
    assert!(settled(&mut cluster, 1) && settled(&mut cluster, 2));
}
