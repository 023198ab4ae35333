//! Changes: made once, answered once, with their own outcome.

use super::cluster::Cluster;
use super::{assign, change, put, unassign};
use crate::command::PutCondition;
use crate::membership::tests::membership_of;
use crate::metadata::CHANGE_WINDOW;
use crate::planning::PlanningSettings;
use crate::refusal::Refusal;
use crate::request::{ChangeError, Effect, Request};

#[test]
fn a_change_is_answered_where_it_was_asked_for_once_it_is_applied_there() {
    for node in 1..=3 {
        let mut cluster = Cluster::led(3);
        cluster.lagging = vec![node];
        cluster.request(node, change(5, assign("bmq://d/a")));
        cluster.settle();
        assert_eq!(cluster.node(node).changed(), [], "node {node} has not applied it");
        cluster.lagging.clear();
        cluster.settle();
        assert_eq!(cluster.node(node).changed(), [(5, Ok(()))]);
        assert!(cluster.node(node).machine.metadata().queue("bmq://d/a").is_some());
        let published = |effect: &Effect| match effect {
            Effect::MetadataChanged(metadata) => metadata.queue("bmq://d/a").is_some(),
            _ => false,
        };
        let effects = &cluster.node(node).effects;
        let answer = effects.iter().position(|e| matches!(e, Effect::Changed { .. }));
        assert!(effects.iter().position(published).unwrap() < answer.unwrap());
        assert_eq!(cluster.log.len(), 2, "the no-op entry, and one for the change");
    }
}

#[test]
fn another_leaders_entry_of_the_same_index_answers_nothing() {
    let mut cluster = Cluster::led(3);
    cluster.request(1, change(1, assign("bmq://d/mine")));
    cluster.work(1);
    // It is proposed as entry 2, and lost: node 2 is elected without it and appends its own.
    cluster.depose();
    cluster.elect(2);
    cluster.request(2, change(2, assign("bmq://d/other")));
    cluster.work(2);
    cluster.commit();
    assert_eq!(cluster.log.len(), 3);
    cluster.apply(1);
    cluster.work(1);
    assert_eq!(cluster.node(1).changed(), [], "entries 2 and 3 are not its own");
    cluster.settle();
    assert_eq!(cluster.node(1).changed(), [(1, Ok(()))]);
    assert_eq!(cluster.node(2).changed(), [(2, Ok(()))]);
    assert_eq!(cluster.node(3).machine.metadata().queue_count(), 2);
}

#[test]
fn a_change_that_survives_its_leader_is_made_once() {
    let mut cluster = Cluster::led(3);
    cluster.request(3, change(1, assign("bmq://d/a")));
    cluster.work(3);
    cluster.deliver();
    cluster.work(1);
    // The entry is committed by the next leader, which the node asks again before it has it.
    cluster.commit();
    cluster.elect(2);
    cluster.lagging = vec![3];
    let queue = cluster.node(2).machine.metadata().queue("bmq://d/a").unwrap().queue;
    cluster.request(2, change(9, unassign("bmq://d/a", queue)));
    cluster.settle();
    cluster.lagging.clear();
    cluster.settle();
    assert_eq!(cluster.node(3).changed(), [(1, Ok(()))]);
    assert!(cluster.node(3).machine.metadata().queue("bmq://d/a").is_none(), "not made again");
    assert!(cluster.node(2).machine.counters().repeated > 0, "it was asked again");
}

#[test]
fn a_change_in_two_entries_is_made_once_and_answered_with_its_first_outcome() {
    let mut cluster = Cluster::led(3);
    cluster.request(3, change(1, put("d", PutCondition::New)));
    cluster.work(3);
    cluster.deliver();
    cluster.work(1);
    let first = cluster.network.clone();
    cluster.commit();
    let entry = cluster.log.last().unwrap().clone();
    // A second copy of the entry follows, as of a leader that knew nothing of the first.
    let mut copy = entry;
    copy.position.index += 1;
    cluster.log.push(copy);
    cluster.settle();
    assert!(first.is_empty());
    assert_eq!(cluster.node(3).changed(), [(1, Ok(()))]);
    assert_eq!(cluster.node(1).machine.counters().repeated, 1);
    let version = cluster.node(1).machine.metadata().domain("d").unwrap().version;
    assert_eq!(version.index, 2);
}

#[test]
fn what_is_lost_on_the_way_is_sent_again() {
    let mut cluster = Cluster::led(3);
    cluster.request(2, change(1, assign("bmq://d/a")));
    cluster.work(2);
    cluster.reconnect(1, 2);
    cluster.settle();
    assert_eq!(cluster.node(2).changed(), [(1, Ok(()))], "the connection was told to be a new one");
    cluster.request(3, change(2, assign("bmq://d/b")));
    cluster.work(3);
    cluster.network.clear();
    cluster.settle();
    assert_eq!(cluster.node(3).changed(), [], "and here it was not");
    cluster.advance(3000);
    cluster.tick();
    cluster.settle();
    assert_eq!(cluster.node(3).changed(), [(2, Ok(()))]);
    assert_eq!(cluster.node(1).machine.metadata().queue_count(), 2);
}

#[test]
fn one_that_does_not_lead_says_so_and_the_sender_finds_the_leader() {
    let mut cluster = Cluster::led(3);
    cluster.request(3, change(1, assign("bmq://d/a")));
    cluster.work(3);
    cluster.depose();
    cluster.deliver();
    cluster.work_all();
    cluster.deliver();
    assert_eq!(cluster.node(1).machine.counters().not_taken, 1);
    cluster.elect(2);
    cluster.settle();
    cluster.advance(100);
    cluster.settle();
    assert_eq!(cluster.node(3).changed(), [(1, Ok(()))]);
}

#[test]
fn what_does_not_fit_is_answered_with_the_reason_on_every_node() {
    let mut cluster = Cluster::led(3);
    cluster.request(1, change(1, put("d", PutCondition::New)));
    cluster.request(2, change(2, put("d", PutCondition::New)));
    cluster.settle();
    assert_eq!(cluster.node(1).changed(), [(1, Ok(()))]);
    let exists = ChangeError::Refused(Refusal::DomainExists { domain: "d".into() });
    assert_eq!(cluster.node(2).changed(), [(2, Err(exists))]);
}

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
    let deadline = flintmq_consensus::Time::from_millis(20_000);
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
    assert!(cluster.node(1).machine.next_deadline().unwrap() < flintmq_consensus::Time(1_000_000));
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
    flintmq_shard::Machine::on_room(
        &mut node.machine,
        &mut node.group,
        flintmq_consensus::NodeId(1),
    );
    cluster.settle();
    assert_eq!(cluster.node(2).changed(), [(1, Ok(()))]);
}

#[test]
fn an_earlier_process_of_a_node_makes_no_changes_any_more() {
    let mut cluster = Cluster::led(3);
    cluster.request(2, change(1, assign("bmq://d/a")));
    cluster.settle();
    let node = cluster.node(2);
    assert!(flintmq_shard::Machine::checkpoint(&mut node.machine, &mut node.group));
    let records = node.records();
    cluster.restart(2, 99, records);
    cluster.request(2, change(2, assign("bmq://d/b")));
    cluster.settle();
    let superseded = ChangeError::Refused(Refusal::Superseded);
    assert_eq!(cluster.node(2).changed(), [(2, Err(superseded))]);
}

#[test]
fn the_leader_records_the_first_nodes_and_places_everything() {
    let mut cluster = Cluster::led(3);
    let first: Vec<_> = membership_of(&[1, 2, 3]).nodes().cloned().collect();
    let settings = PlanningSettings { first, replicas: None, partitions: 2 };
    for node in 1..=3 {
        cluster.request(node, Request::Plan(settings.clone()));
    }
    cluster.settle();
    let membership = std::sync::Arc::clone(cluster.node(3).machine.metadata().membership());
    assert_eq!(membership.version(), 2, "the first nodes and one plan, by one node");
    assert_eq!(membership.place(flintmq_consensus::GroupId(2)).unwrap().voters, [1, 2, 3]);
    let told = |effect: &Effect| matches!(effect, Effect::MembershipChanged(_));
    assert!(cluster.node(3).effects.iter().any(told));
    cluster.tick();
    cluster.settle();
    assert_eq!(cluster.log.len(), 3, "and nothing after that");
}

#[test]
fn a_machine_is_settled_when_nothing_is_under_way() {
    use flintmq_shard::Machine as _;
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
