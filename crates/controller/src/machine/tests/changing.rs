//! Changes: made once, answered once, with their own outcome.

use flintmq_consensus::GroupId;
use flintmq_shard::Machine as _;

use super::cluster::Cluster;
use super::{assign, change, put, unassign};
use crate::command::PutCondition;
use crate::membership::tests::membership_of;
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
    cluster.commit();
    let entry = cluster.log.last().unwrap().clone();
    // A second copy of the entry follows, as of a leader that knew nothing of the first.
    let mut copy = entry;
    copy.position.index += 1;
    cluster.log.push(copy);
    cluster.settle();
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
fn an_earlier_process_of_a_node_makes_no_changes_any_more() {
    let mut cluster = Cluster::led(3);
    cluster.request(2, change(1, assign("bmq://d/a")));
    cluster.settle();
    let node = cluster.node(2);
    assert!(node.machine.checkpoint(&mut node.group));
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
    assert_eq!(membership.place(GroupId(2)).unwrap().voters, [1, 2, 3]);
    let told = |effect: &Effect| matches!(effect, Effect::MembershipChanged(_));
    assert!(cluster.node(3).effects.iter().any(told));
    cluster.tick();
    cluster.settle();
    assert_eq!(cluster.log.len(), 3, "and nothing after that");
}
