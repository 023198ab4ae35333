//! What clients get while leaderships move.

use std::time::Duration;

use flintmq_protocol::ack::AckStatus;

use super::clients::{Seen, close, configure, confirm, end, open, open_queue, put};
use super::world::World;
use crate::{Answer, Request, SessionId};

const SUCCESS: AckStatus = AckStatus::Success;

#[test]
fn a_deposed_leader_answers_nothing_of_its_own_and_the_next_leader_answers_once() {
    let mut world = World::led(3);
    world.ask(0, open(1, 11, false));
    // Cut off, it appends what never comes to be.
    world.isolated.insert(0);
    world.commits = false;
    world.ask(0, put(1, 11, 7));
    let proposed = world.nodes[0].group.log.last().unwrap().index;
    assert_eq!(world.seen(0, 1), []);
    for (from, to) in [(0, 1), (1, 0), (0, 2), (2, 0)] {
        world.cut.insert((from, to));
    }
    world.elect(1);
    world.commits = true;
    world.ask(1, open(2, 21, false));
    world.ask(1, put(2, 21, 8));
    world.ask(1, put(2, 21, 9));
    let there = world.nodes[1].group.entry(proposed).unwrap();
    assert!(there.term == world.term, "another entry stands at the index of its own");
    // It hears of these entries before it hears of a leader.
    world.heal(0);
    world.turn(0);
    assert!(world.nodes[0].group.applied.index >= proposed);
    assert_eq!(world.seen(0, 1), [], "nothing of its own is committed");
    assert!(!world.nodes[0].engine.is_idle());
    world.cut.clear();
    world.ticks(5);
    assert_eq!(world.seen(0, 1), [Seen::Ack { message: 7, status: SUCCESS }]);
    assert_eq!(world.messages(1, 1), 3);
    assert!(world.nodes[0].engine.is_idle());
}

#[test]
fn an_entry_of_another_term_at_the_same_index_acknowledges_nothing_even_to_a_leader() {
    use flintmq_consensus::LogPosition;
    use flintmq_shard::{Committed, Machine as _};
    let mut world = World::led(3);
    world.ask(0, open(1, 11, false));
    world.commits = false;
    world.ask(0, put(1, 11, 7));
    let node = &mut world.nodes[0];
    let mine = node.group.log.last().unwrap().clone();
    let position = LogPosition { term: mine.term + 1, index: mine.index };
    let entry = Committed { position, kind: mine.kind, payload: mine.payload };
    node.engine.apply(&mut node.group, &entry).unwrap();
    node.group.applied = position;
    node.group.commit = mine.index;
    world.turn(0);
    assert_eq!(world.seen(0, 1), []);
}

#[test]
fn a_restarted_leader_is_not_followed_under_its_former_term() {
    use flintmq_shard::Machine as _;
    let mut world = World::led(3);
    world.ask(2, open(1, 31, false));
    // The third node hears neither of the new process's leadership nor of its announcement.
    world.isolated.insert(2);
    world.cut.insert((0, 2));
    world.restart(0, false);
    world.peer(2, 0, false);
    world.elect(0);
    world.cut.clear();
    world.peer(2, 0, true);
    world.settle();
    let followed = world.nodes[2].engine.leader_elsewhere();
    assert_eq!(followed, Some((super::world::id(0), world.term)));
}

#[test]
fn what_was_under_way_is_stored_once_when_the_next_leader_has_it() {
    let mut world = World::led(3);
    world.ask(2, open(1, 31, false));
    world.commits = false;
    world.ask(2, put(1, 31, 5));
    assert_eq!(flintmq_shard::Group::under_way(&world.nodes[0].group), 1);
    // The entry reached node 2 before the leader was cut off.
    let log = world.nodes[0].group.log.clone();
    world.nodes[1].group.log = log;
    world.commits = true;
    world.elect(1);
    world.ticks(5);
    assert_eq!(world.seen(2, 1), [Seen::Ack { message: 5, status: SUCCESS }]);
    assert_eq!(world.messages(2, 1), 1);
}

#[test]
fn a_consumer_behind_a_forwarder_goes_on_under_the_next_leader() {
    let mut world = World::led(3);
    world.ask(2, open(1, 31, true));
    world.ask(2, configure(1, 31, 9, 2));
    world.ask(1, open(2, 21, false));
    for message in 1..=4 {
        world.ask(1, put(2, 21, message));
    }
    assert_eq!(world.nodes[2].client.pushed(1), [1, 2]);
    world.elect(1);
    world.ask(2, confirm(31, 1));
    world.ask(2, confirm(31, 2));
    world.ticks(3);
    let pushed = world.nodes[2].client.pushed(1);
    assert!(pushed.contains(&3) && pushed.contains(&4), "{pushed:?}");
    world.ask(2, confirm(31, 3));
    world.ask(2, confirm(31, 4));
    world.ticks(2);
    assert_eq!(world.messages(0, 1), 0);
    assert!(world.nodes[2].engine.is_idle());
}

#[test]
fn confirmations_that_wait_for_a_leader_are_bounded() {
    let mut world = World::led(3);
    world.ask(2, open(1, 31, true));
    world.peer(2, 0, false);
    world.settle();
    for message in 0..100_000 {
        world.give(2, confirm(31, message));
    }
    assert!(world.nodes[2].engine.waiting_confirms() <= 64 << 10);
}

#[test]
fn without_a_leader_sessions_end_and_nothing_stays_behind() {
    let mut world = World::led(3);
    world.ask(2, open(1, 31, true));
    world.ask(2, open(2, 32, false));
    world.peer(2, 0, false);
    world.nodes[2].group.leader = None;
    world.give(2, open_queue(1, 33, true, 5));
    world.give(2, put(2, 32, 1));
    world.give(2, end(1, true, 101));
    world.ask(2, end(2, false, 102));
    assert!(matches!(world.answers(2, 101), [Answer::Ended]), "it vanished: nothing to wait for");
    assert!(matches!(world.answers(2, 33), [Answer::Opened(Err(_))]));
    assert!(world.answers(2, 102).is_empty(), "it wants its acknowledgements first");
    world.elect(1);
    world.ticks(3);
    assert!(matches!(world.answers(2, 102), [Answer::Ended]));
    assert_eq!(world.seen(2, 2), [Seen::Ack { message: 1, status: SUCCESS }]);
    assert!(world.nodes[2].engine.is_idle());
}

#[test]
fn a_node_that_lost_sight_of_its_leader_alone_attaches_again() {
    // The leader never noticed; the node holds no replica, so consensus does not tell it either.
    let mut world = World::led(3);
    world.ask(2, open(1, 31, false));
    world.ticks(4);
    world.nodes[2].group.leader = None;
    world.peer(2, 0, false);
    world.settle();
    world.peer(2, 0, true);
    world.ask(2, put(1, 31, 1));
    world.ticks(5);
    assert_eq!(world.nodes[2].client.acked(1), [1]);
}

#[test]
fn two_nodes_that_both_believe_to_lead_do_not_keep_answering_each_other() {
    let mut world = World::led(3);
    world.ask(1, open(1, 21, true));
    world.ask(1, configure(1, 21, 1, 10));
    world.isolated.insert(0);
    world.elect(1);
    // The old leader still tells its forwarder of what it has; `settle` fails if that never ends.
    world.ticks(3);
    world.heal(0);
    world.ticks(3);
}

#[test]
fn a_session_that_is_full_stays_paused_under_the_next_leader() {
    let mut world = World::led(3);
    world.ask(2, open(1, 31, true));
    world.ask(2, configure(1, 31, 1, 100));
    world.ask(2, Request::SessionFull(SessionId(1)));
    world.elect(1);
    world.ask(0, open(2, 11, false));
    world.ask(0, put(2, 11, 1));
    world.pass(Duration::from_millis(10));
    assert!(world.nodes[2].client.pushed(1).is_empty());
    world.ask(2, Request::SessionRoom(SessionId(1)));
    assert_eq!(world.nodes[2].client.pushed(1), [1]);
}

#[test]
fn a_reader_opened_while_its_session_is_full_gets_nothing_until_there_is_room() {
    let mut world = World::led(3);
    world.ask(2, open(1, 30, false));
    world.ask(2, Request::SessionFull(SessionId(1)));
    world.ask(2, open(1, 31, true));
    world.ask(2, configure(1, 31, 1, 100));
    world.ask(0, open(2, 11, false));
    world.ask(0, put(2, 11, 1));
    assert!(world.nodes[2].client.pushed(1).is_empty());
    world.ask(2, Request::SessionRoom(SessionId(1)));
    assert_eq!(world.nodes[2].client.pushed(1), [1]);
}

#[test]
fn an_entry_that_the_log_does_not_take_is_proposed_again() {
    let mut world = World::led(3);
    world.ask(0, open(1, 11, false));
    world.ask(0, open(1, 12, true));
    world.ask(0, configure(1, 12, 1, 10));
    world.ask(0, put(1, 11, 1));
    world.nodes[0].group.window_full = true;
    world.give(0, confirm(12, 1));
    world.ask(0, put(1, 11, 2));
    world.ask(0, open_queue(1, 13, false, 2));
    assert_eq!(world.nodes[0].client.acked(1), [1], "nothing is decided");
    world.nodes[0].group.window_full = false;
    world.tick();
    assert_eq!(world.nodes[0].client.acked(1), [1, 2]);
    assert!(matches!(world.answers(0, 13), [Answer::Opened(Ok(()))]));
    assert_eq!(world.messages(1, 1), 1, "the confirmation is committed");
    world.ask(0, close(1, 13, 1));
}
