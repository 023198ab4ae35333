//! Requests to catch up: answered when this node has all that was committed when they came.

use flintmq_consensus::NodeId;

use super::cluster::Cluster;
use super::{assign, catch_up, change};
use crate::message::ControllerMessage;
use crate::request::{CatchUpError, Effect, Request};

#[test]
fn a_follower_catches_up_before_it_answers() {
    let mut cluster = Cluster::led(3);
    cluster.lagging = vec![2];
    cluster.request(1, change(1, assign("bmq://d/a")));
    cluster.settle();
    assert_eq!(cluster.node(1).changed(), [(1, Ok(()))], "a client may know of it now");
    cluster.request(2, catch_up(4));
    cluster.settle();
    assert_eq!(cluster.node(2).caught_up(), [], "its metadata are old");
    cluster.lagging.clear();
    cluster.settle();
    assert_eq!(cluster.node(2).caught_up(), [(4, Ok(()))]);
    let effects = &cluster.node(2).effects;
    let published = effects.iter().position(|e| matches!(e, Effect::MetadataChanged(_)));
    let answered = effects.iter().position(|e| matches!(e, Effect::CaughtUp { .. }));
    assert!(published.unwrap() < answered.unwrap());
}

#[test]
fn the_leader_asks_its_group_before_it_answers() {
    let mut cluster = Cluster::led(3);
    cluster.request(1, catch_up(4));
    cluster.work(1);
    assert_eq!(cluster.node(1).caught_up(), [], "another node may lead by now");
    cluster.settle();
    assert_eq!(cluster.node(1).caught_up(), [(4, Ok(()))]);
}

#[test]
fn requests_share_a_question() {
    let mut cluster = Cluster::led(3);
    for ticket in 0..100 {
        cluster.request(2, catch_up(ticket));
        cluster.request(3, catch_up(ticket));
    }
    cluster.work_all();
    assert_eq!(cluster.network.len(), 2);
    cluster.request(2, catch_up(100));
    cluster.settle();
    assert_eq!(cluster.node(2).caught_up().len(), 101);
    assert_eq!(cluster.node(3).caught_up().len(), 100);
    assert_eq!(cluster.node(1).machine.counters().reads, 2);
}

#[test]
fn a_request_that_comes_after_the_question_has_one_of_its_own() {
    let mut cluster = Cluster::led(3);
    cluster.lagging = vec![2];
    cluster.request(2, catch_up(1));
    cluster.work(2);
    cluster.deliver();
    cluster.work(1);
    cluster.answer_reads();
    // The leader has answered the first one. A change, and a second request after it.
    cluster.request(1, change(7, assign("bmq://d/a")));
    cluster.work(1);
    cluster.commit();
    cluster.apply(1);
    cluster.request(2, catch_up(2));
    cluster.settle();
    assert_eq!(cluster.node(2).caught_up(), [(1, Ok(()))]);
    cluster.lagging.clear();
    cluster.settle();
    assert_eq!(cluster.node(2).caught_up(), [(1, Ok(())), (2, Ok(()))]);
}

#[test]
fn a_change_of_leadership_asks_again() {
    let mut cluster = Cluster::led(3);
    cluster.request(3, catch_up(1));
    cluster.request(1, catch_up(2));
    cluster.work_all();
    cluster.deliver();
    cluster.work(1);
    cluster.depose();
    cluster.elect(2);
    cluster.settle();
    cluster.advance(100);
    cluster.settle();
    assert_eq!(cluster.node(3).caught_up(), [(1, Ok(()))]);
    assert_eq!(cluster.node(1).caught_up(), [(2, Ok(()))]);
    assert!(cluster.node(2).machine.counters().reads > 0);
}

#[test]
fn a_lost_question_is_asked_again() {
    let mut cluster = Cluster::led(3);
    cluster.request(3, catch_up(1));
    cluster.work(3);
    cluster.reconnect(1, 3);
    cluster.settle();
    assert_eq!(cluster.node(3).caught_up(), [(1, Ok(()))]);
    cluster.request(3, catch_up(2));
    cluster.work(3);
    cluster.network.clear();
    cluster.settle();
    assert_eq!(cluster.node(3).caught_up().len(), 1);
    cluster.advance(3000);
    cluster.tick();
    cluster.settle();
    assert_eq!(cluster.node(3).caught_up().len(), 2);
}

#[test]
fn an_answer_to_an_earlier_process_is_none() {
    let mut cluster = Cluster::led(3);
    cluster.lagging = vec![3];
    cluster.request(1, change(1, assign("bmq://d/a")));
    cluster.settle();
    cluster.restart(3, 101, Vec::new());
    cluster.request(3, catch_up(1));
    cluster.work(3);
    cluster.network.clear();
    let old = ControllerMessage::ReadAt { process: 100, number: 1, index: Some(0) };
    cluster.network.push_back((NodeId(1), NodeId(3), old.to_bytes()));
    cluster.deliver();
    cluster.work(3);
    assert_eq!(cluster.node(3).caught_up(), []);
}

#[test]
fn requests_are_bounded_and_end_at_their_deadline() {
    let mut cluster = Cluster::new(3);
    for ticket in 0..16_385 {
        cluster.request(2, catch_up(ticket));
    }
    cluster.work(2);
    assert_eq!(cluster.node(2).caught_up(), [(16_384, Err(CatchUpError::Busy))]);
    cluster.advance(10_000);
    cluster.work(2);
    let answers = cluster.node(2).caught_up();
    assert_eq!(answers.len(), 16_385);
    assert!(answers[1..].iter().all(|(_, result)| *result == Err(CatchUpError::TimedOut)));
    let deadline = flintmq_consensus::Time::from_millis(20_000);
    cluster.request(2, Request::CatchUp { ticket: 9, deadline });
    cluster.elect(1);
    cluster.settle();
    assert_eq!(cluster.node(2).caught_up().last(), Some(&(9, Ok(()))), "there is room again");
}

#[test]
fn messages_of_other_versions_are_counted() {
    let mut cluster = Cluster::led(2);
    for unknown in [&b""[..], b"\x02{}", b"\x01{\"unheard_of\":1}", b"{\"Decided\":{}}"] {
        let message = bytes::Bytes::copy_from_slice(unknown);
        cluster.network.push_back((NodeId(2), NodeId(1), message));
    }
    cluster.settle();
    assert_eq!(cluster.node(1).machine.counters().unknown_messages, 4);
}
