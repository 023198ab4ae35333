//! Answers keep their place among messages.

use flintmq_protocol::ack::AckStatus;

use super::clients::{Seen, close, configure, end, open, put};
use super::world::World;
use crate::Answer;

/// Node 2 has a consumer with messages that wait for entries to be read.
fn waiting_for_reads() -> World {
    let mut world = World::led(2);
    world.ask(0, open(1, 11, false));
    for message in 1..=5 {
        world.ask(0, put(1, 11, message));
    }
    world.reads = false;
    world.ask(1, open(2, 21, true));
    world.ask(1, configure(2, 21, 1, 5));
    // The leader reads the old entries first, then the forwarder.
    world.read(0);
    world.settle();
    assert_eq!(world.seen(1, 2), [Seen::Response(1)]);
    assert!(!world.nodes[1].group.reads.is_empty(), "a message waits for its entry");
    world
}

#[test]
fn messages_that_wait_for_an_entry_leave_before_the_answer_to_a_later_configure() {
    let mut world = waiting_for_reads();
    world.ask(1, configure(2, 21, 2, 10));
    assert_eq!(world.seen(1, 2), [Seen::Response(1)]);
    world.reads = true;
    world.settle();
    let seen = world.seen(1, 2);
    let answer = seen.iter().position(|seen| *seen == Seen::Response(2)).unwrap();
    for (at, seen) in seen.iter().enumerate() {
        if let Seen::Push { subscription, .. } = seen {
            assert_eq!(*subscription, if at < answer { 1 } else { 2 });
        }
    }
    assert!(seen[..answer].iter().filter(|seen| matches!(seen, Seen::Push { .. })).count() >= 5);
}

#[test]
fn messages_that_wait_for_an_entry_leave_before_the_answer_to_a_close() {
    let mut world = waiting_for_reads();
    world.ask(1, close(2, 21, 9));
    assert_eq!(world.seen(1, 2), [Seen::Response(1)]);
    world.reads = true;
    world.settle();
    assert_eq!(world.seen(1, 2).len(), 7);
    assert_eq!(world.seen(1, 2).last(), Some(&Seen::Response(9)));
}

#[test]
fn an_entry_that_cannot_be_read_here_is_fetched_from_the_leader() {
    let mut world = waiting_for_reads();
    let lost = world.nodes[1].group.reads[0] as usize - 1;
    world.nodes[1].group.log.truncate(lost);
    world.read(1);
    world.reads = true;
    world.nodes[1].group.commit = world.nodes[0].group.commit;
    world.settle();
    assert_eq!(world.nodes[1].client.pushed(2), [1, 2, 3, 4, 5]);
}

/// Node 1 has a consumer with room for all of thirty messages, each in an entry of its own. It gets
/// none of them: what the leader sends is lost.
fn with_lost_deliveries() -> World {
    let mut world = World::led(2);
    world.nodes[0].group.no_references = true;
    world.ask(0, open(1, 11, false));
    world.ask(1, open(2, 21, true));
    world.ask(1, configure(2, 21, 1, 100));
    world.cut.insert((0, 1));
    for message in 1..=30 {
        world.ask(0, put(1, 11, message));
    }
    assert_eq!(world.seen(1, 2), [Seen::Response(1)]);
    world
}

#[test]
fn attachments_in_quick_succession_change_nothing_in_the_order_of_first_deliveries() {
    for read_before in 0..=4 {
        let mut world = with_lost_deliveries();
        // The leader reads messages again that nobody has confirmed, a few at a time.
        world.reads = false;
        world.cut.clear();
        world.peer(0, 1, true);
        world.settle();
        assert_eq!(world.seen(1, 2), [Seen::Response(1)]);
        // What it has read is sent to the second attachment and arrives nowhere.
        world.cut.insert((0, 1));
        for _ in 0..read_before {
            world.read(0);
            world.settle();
        }
        world.cut.clear();
        world.peer(0, 1, true);
        world.reads = true;
        world.settle();
        world.ask(0, put(1, 11, 31));
        let pushed = world.nodes[1].client.pushed(2);
        assert_eq!(pushed, (1..=31).collect::<Vec<_>>(), "read_before={read_before}");
    }
}

#[test]
fn a_close_in_the_same_turn_as_publishes_is_answered_behind_their_acknowledgements() {
    for node in [0, 1] {
        let mut world = World::led(2);
        world.ask(node, open(1, 11, false));
        world.give(node, put(1, 11, 1));
        world.give(node, close(1, 11, 9));
        world.settle();
        let ack = Seen::Ack { message: 1, status: AckStatus::Success };
        assert_eq!(world.seen(node, 1), [ack, Seen::Response(9)], "node={node}");
    }
}

#[test]
fn a_goodbye_in_the_same_turn_as_publishes_is_answered_behind_their_acknowledgements() {
    for node in [0, 1] {
        let mut world = World::led(2);
        world.ask(node, open(1, 11, false));
        world.give(node, put(1, 11, 1));
        world.give(node, end(1, false, 100));
        world.settle();
        assert_eq!(world.nodes[node].client.acked(1), [1], "node={node}");
        assert!(matches!(world.answers(node, 100), [Answer::Ended]));
    }
}

#[test]
fn an_open_whose_session_ends_first_is_answered_and_leaves_nothing_open() {
    for (node, lost) in [(0, false), (0, true), (1, false), (1, true)] {
        let mut world = World::led(2);
        world.commits = false;
        world.ask(node, open(1, 11, true));
        world.ask(node, end(1, lost, 100));
        world.commits = true;
        world.settle();
        assert_eq!(world.answers(node, 11).len(), 1, "node={node} lost={lost}");
        assert!(matches!(world.answers(node, 100), [Answer::Ended]), "node={node} lost={lost}");
        let view = world.nodes[0].engine.machine().view(flintmq_queue::QueueId(1)).unwrap();
        assert_eq!(view.apps[0].consumers, 0, "node={node} lost={lost}");
    }
}
