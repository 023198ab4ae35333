//! Frames that are lost, do not fit, or come from a process that is no more.

use super::clients::{Seen, close, configure, confirm, end, open, put, sized};
use super::world::World;
use crate::{Answer, Request, SessionId};
use flintmq_protocol::ack::AckStatus;

/// What clients of a freshly started node do: publish, consume, pause, close.
fn exchange(world: &mut World) {
    world.ask(1, open(1, 101, false));
    world.give(1, open(1, 102, true));
    world.settle();
    if matches!(world.answers(1, 102), [Answer::Opened(Ok(()))]) {
        world.ask(1, configure(1, 102, 5, 3));
    }
    for message in 1..=6 {
        world.ask(1, put(1, 101, message));
    }
    world.ask(1, Request::SessionFull(SessionId(1)));
    world.ask(1, Request::SessionRoom(SessionId(1)));
    for message in world.nodes[1].client.pushed(1).into_iter().take(2) {
        world.ask(1, confirm(102, message));
    }
}

#[test]
fn any_single_lost_frame_is_noticed_and_everything_is_answered_once() {
    // How many frames there are if none is lost.
    let mut world = World::led(2);
    let before = world.frames;
    world.restart(1, true);
    exchange(&mut world);
    world.ticks(6);
    let count = world.frames - before + 4;
    assert!(count > 20);
    for lost in 1..=count {
        let mut world = World::led(2);
        let before = world.frames;
        world.lost.insert(before + lost);
        world.restart(1, true);
        exchange(&mut world);
        world.ticks(8);
        if !matches!(world.answers(1, 102), [Answer::Opened(Ok(()))]) {
            panic!("lost={lost}: the reader is not open: {:?}", world.answers(1, 102));
        }
        world.ask(1, configure(1, 102, 6, 100));
        world.ticks(8);
        let client = &world.nodes[1].client;
        assert_eq!(client.acked(1), [1, 2, 3, 4, 5, 6], "lost={lost}");
        let mut pushed = client.pushed(1);
        pushed.sort_unstable();
        pushed.dedup();
        assert_eq!(pushed, [1, 2, 3, 4, 5, 6], "lost={lost}: a consumer with room waits");
        world.give(1, put(1, 101, 7));
        world.ask(1, close(1, 101, 77));
        world.ask(1, end(1, false, 900));
        world.ticks(8);
        let client = &world.nodes[1].client;
        let at = |what: &Seen| client.seen(1).iter().position(|seen| seen == what);
        let ack = at(&Seen::Ack { message: 7, status: AckStatus::Success });
        assert!(ack.is_some() && ack < at(&Seen::Response(77)), "lost={lost}: {ack:?}");
        assert!(matches!(world.answers(1, 900), [Answer::Ended]), "lost={lost}");
        assert!(world.nodes[1].engine.is_idle(), "lost={lost}");
    }
}

#[test]
fn any_two_frames_lost_in_a_row_are_noticed() {
    for lost in 1..=40 {
        let mut world = World::led(2);
        let before = world.frames;
        world.lost.extend([before + lost, before + lost + 1]);
        world.restart(1, true);
        exchange(&mut world);
        world.ticks(10);
        assert_eq!(world.nodes[1].client.acked(1), [1, 2, 3, 4, 5, 6], "lost={lost}");
    }
}

#[test]
fn a_restarted_process_gets_nothing_of_its_predecessor() {
    for told in [false, true] {
        let mut world = World::led(2);
        world.ask(1, open(1, 101, false));
        world.ask(1, open(1, 102, true));
        world.ask(1, configure(1, 102, 5, 3));
        world.commits = false;
        world.ask(1, put(1, 101, 1));
        world.ask(1, put(1, 101, 2));
        // An open that waits for its queue.
        world.ask(1, super::clients::open_queue(1, 103, false, 9));
        world.restart(1, told);
        // The same handles and numbers of another process.
        world.ask(1, open(1, 101, false));
        world.ask(1, put(1, 101, 3));
        assert_eq!(world.seen(1, 1), [], "told={told}");
        world.commits = true;
        world.settle();
        world.ticks(5);
        assert_eq!(world.nodes[1].client.acked(1), [3], "told={told}");
        assert!(world.answers(1, 103).is_empty() && world.answers(1, 102).is_empty());
        let view = world.nodes[0].engine.machine().view(flintmq_queue::QueueId(1)).unwrap();
        assert_eq!((view.producers, view.apps[0].consumers), (1, 0), "told={told}");
    }
}

#[test]
fn a_full_connection_loses_nothing_of_anybody() {
    let mut world = World::led(2);
    world.ask(1, open(1, 101, false));
    world.ask(1, open(2, 201, false));
    world.set_full(1, 0, true);
    for message in 1..=2000 {
        world.give(1, put(1 + message % 2, 101 + 100 * (message % 2), message));
    }
    world.ask(1, close(1, 101, 1));
    world.ticks(10);
    assert_eq!(world.messages(0, 1), 0);
    world.set_full(1, 0, false);
    world.settle();
    world.ticks(8);
    let client = &world.nodes[1].client;
    assert_eq!((client.acked(1).len(), client.acked(2).len()), (1000, 1000));
    assert_eq!(client.seen(1).last(), Some(&Seen::Response(1)));
    assert_eq!(world.messages(0, 1), 2000);
}

#[test]
fn a_connection_that_is_gone_loses_nothing() {
    let mut world = World::led(2);
    world.ask(1, open(1, 101, false));
    world.nodes[1].group.gone.insert(super::world::id(0));
    world.ask(1, put(1, 101, 1));
    world.nodes[1].group.gone.clear();
    world.ask(1, put(1, 101, 2));
    world.ticks(4);
    assert_eq!(world.nodes[1].client.acked(1), [1, 2]);
}

#[test]
fn one_message_of_sixty_mebibytes_passes_among_small_ones_in_frames_of_bounded_size() {
    let mut world = World::led(2);
    world.nodes[0].group.no_references = true;
    world.ask(1, open(1, 101, false));
    world.ask(1, open(2, 201, true));
    world.ask(1, configure(2, 201, 5, 1000));
    for message in 1..=20 {
        let bytes = if message == 10 { 60 << 20 } else { 300_000 };
        world.give(1, sized(1, 101, message, bytes));
    }
    world.settle();
    world.ticks(4);
    assert_eq!(world.nodes[1].client.acked(1), (1..=20).collect::<Vec<_>>());
    assert_eq!(world.nodes[1].client.pushed(2), (1..=20).collect::<Vec<_>>());
    assert!(world.largest < 62 << 20, "{}", world.largest);
}

#[test]
fn a_slow_connection_is_given_the_time_that_it_needs() {
    // What the leader says takes a minute to arrive.
    let mut world = World::led(2);
    world.ask(1, open(1, 101, false));
    world.cut.insert((0, 1));
    world.ask(1, put(1, 101, 1));
    let mut attached = Vec::new();
    for _ in 0..60 {
        let before = world.frames;
        world.tick();
        attached.push(world.frames - before);
    }
    // Attached again and again, it waits longer each time.
    let again = attached.iter().filter(|frames| **frames >= 5).count();
    assert!((2..=5).contains(&again), "{again} times in a minute: {attached:?}");
    world.cut.clear();
    world.ticks(70);
    assert_eq!(world.nodes[1].client.acked(1), [1]);
}
