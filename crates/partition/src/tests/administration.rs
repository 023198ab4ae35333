//! Purging and deleting while leaderships move.

use std::sync::Arc;
use std::time::Duration;

use flintmq_queue::{DomainSettings, QueueId};

use super::clients::{Seen, close, configure, domain, open, put};
use super::world::World;
use crate::{AdminRefusal, Answer, Purged, Removable, Request, Ticket};

fn delete(ticket: u64, only_if: Removable) -> Request {
    Request::Delete { ticket: Ticket(ticket), queue: QueueId(1), only_if }
}

fn purge(ticket: u64) -> Request {
    Request::Purge { ticket: Ticket(ticket), queue: QueueId(1) }
}

const UNUSED: Removable = Removable::UnusedFor(Duration::from_secs(5));

/// A queue that was used and is closed and empty for long.
fn idle_queue() -> World {
    let mut world = World::led(3);
    world.ask(0, open(1, 11, false));
    world.ask(0, close(1, 11, 1));
    world.ticks(10);
    world
}

#[test]
fn a_queue_that_is_unused_for_long_is_deleted_through_a_forwarder() {
    let mut world = idle_queue();
    world.ask(2, delete(50, UNUSED));
    assert!(matches!(world.answers(2, 50), [Answer::Deleted(Ok(()))]));
    world.ask(1, open(5, 25, false));
    assert!(matches!(world.answers(1, 25), [Answer::Opened(Err(_))]), "its number is given up");
}

#[test]
fn a_forwarded_deletion_of_an_unused_queue_is_refused_when_a_message_came_in_between() {
    let mut world = idle_queue();
    world.ask(0, open(1, 12, false));
    world.ask(0, put(1, 12, 1));
    world.ask(0, close(1, 12, 2));
    // What the node that looked for idle queues knows is old, and the leadership moves.
    for round in 0..3 {
        world.elect(round);
        let ticket = 60 + round as u64;
        world.ask(2, delete(ticket, UNUSED));
        world.ticks(8);
        let [answer] = world.answers(2, ticket) else { panic!("answered once") };
        assert!(matches!(answer, Answer::Deleted(Err(AdminRefusal::Used))), "{answer:?}");
        assert_eq!(world.messages(0, 1), 1);
    }
}

#[test]
fn a_new_leader_removes_no_queue_that_is_open_behind_a_node_that_has_not_attached() {
    let mut world = idle_queue();
    world.ask(2, open(1, 31, true));
    world.ask(2, configure(1, 31, 1, 10));
    world.cut.insert((2, 1));
    world.elect(1);
    world.ticks(20);
    world.ask(1, delete(50, UNUSED));
    world.ask(1, delete(51, Removable::Closed));
    assert!(matches!(world.answers(1, 50), [Answer::Deleted(Err(_))]));
    assert!(matches!(world.answers(1, 51), [Answer::Deleted(Err(_))]));
    world.cut.clear();
    world.ticks(60);
    world.ask(0, open(2, 12, false));
    world.ask(0, put(2, 12, 1));
    assert_eq!(world.nodes[2].client.pushed(1), [1], "the consumer goes on");
}

#[test]
fn a_session_whose_queue_is_gone_ends() {
    let mut world = idle_queue();
    world.ask(2, open(1, 31, true));
    // The node is out of reach when the queue is deleted, and hears of it from the next leader.
    world.isolated.insert(2);
    for at in [0, 1] {
        world.peer(at, 2, false);
        world.peer(2, at, false);
        world.cut.extend([(at, 2), (2, at)]);
    }
    world.ticks(8);
    world.ask(0, delete(50, UNUSED));
    assert!(matches!(world.answers(0, 50), [Answer::Deleted(Ok(()))]));
    world.cut.clear();
    for at in [0, 1] {
        world.peer(at, 2, true);
        world.peer(2, at, true);
    }
    // It holds no replica here: what it is told by the leader is all that it knows.
    world.ticks(5);
    assert_eq!(world.seen(2, 1), [Seen::SessionEnds]);
}

#[test]
fn a_deletion_that_came_to_nothing_leaves_the_queue_open_to_clients() {
    let mut world = idle_queue();
    world.isolated.insert(0);
    world.commits = false;
    world.ask(0, delete(50, UNUSED));
    world.elect(1);
    world.heal(0);
    world.settle();
    assert!(matches!(world.answers(0, 50), [Answer::Deleted(Err(_))]));
    world.commits = true;
    world.elect(0);
    world.ask(0, open(1, 12, false));
    let answers = world.answers(0, 12);
    assert!(matches!(answers, [Answer::Opened(Ok(()))]), "{answers:?}");
}

#[test]
fn a_purge_behind_a_deletion_is_answered() {
    let mut world = idle_queue();
    world.commits = false;
    for node in [0, 1] {
        world.ask(node, delete(50, UNUSED));
        world.ask(node, purge(51));
    }
    world.commits = true;
    world.settle();
    for node in [0, 1] {
        assert_eq!(world.answers(node, 50).len(), 1);
        assert_eq!(world.answers(node, 51).len(), 1);
    }
}

#[test]
fn a_purge_through_a_forwarder_tells_what_it_dropped() {
    let mut world = World::led(2);
    world.ask(0, open(1, 11, false));
    world.ask(0, put(1, 11, 1));
    world.ask(1, purge(50));
    let [Answer::Purged(Ok(purged))] = world.answers(1, 50) else { panic!("purged") };
    assert_eq!(*purged, Purged { messages: 1, bytes: 100 });
}

#[test]
fn administrators_are_answered_once_whatever_becomes_of_the_leader() {
    let mut world = World::led(3);
    world.ask(0, open(1, 11, false));
    world.commits = false;
    for node in 0..3 {
        world.ask(node, purge(50));
        world.ask(node, delete(51, UNUSED));
        let domain = Arc::new(domain(2, DomainSettings::priority()));
        world.ask(node, Request::SetDomain { ticket: Ticket(52), domain });
        world.ask(node, Request::StopDelivery { ticket: Ticket(53) });
    }
    world.commits = true;
    world.elect(1);
    world.ticks(5);
    for node in 0..3 {
        for ticket in 50..=53 {
            let answers = world.answers(node, ticket);
            assert_eq!(answers.len(), 1, "node={node} ticket={ticket} {answers:?}");
        }
    }
}
