//! Bytes on the way between two nodes, shared by their groups.

use super::*;
use crate::Body;

const WINDOW: u64 = 64 << 10;
const MESSAGE: u32 = 8 << 10;

/// Three nodes with narrow windows; A leads all groups.
pub(super) fn led_by_a(groups: u32) -> Net {
    let mut net = Net::with_groups(3, groups, |settings| {
        settings.pair_window_bytes = WINDOW;
        settings.pair_quantum_bytes = 4 << 10;
        let group = Settings { message_bytes: MESSAGE, ..Settings::default() };
        settings.group = Arc::new(group);
    });
    net.run_until("all groups are led", Net::all_led);
    let now = net.now;
    for group in net.groups() {
        let input = Input::Transfer { to: A, force: true };
        if let Some(leader) = net.leader(group).filter(|leader| *leader != A) {
            net.host_mut(leader).node.step(now, NodeInput::Group { group, input });
        }
    }
    net.run_until("one leads all", |net| net.led_by(A) == groups as usize);
    net
}

fn in_flight(net: &Net, peer: NodeId) -> u64 {
    net.node(A).peer(peer).map_or(0, |peer| peer.in_flight_bytes)
}

#[test]
fn proposals_of_one_flush_share_a_message() {
    let mut net = led_by_a(1);
    net.run(50);
    let before = *net.counters(A);
    for _ in 0..50 {
        net.propose(A, GroupId(1), 10);
    }
    net.step();
    let sent = net.counters(A).messages_sent - before.messages_sent;
    assert_eq!(sent, 2, "one for each follower");
    let appends =
        net.host(A).effects.iter().filter(|effect| {
            matches!(effect, NodeEffect::Group { effect: Effect::Append { .. }, .. })
        });
    assert_eq!(appends.count(), 1);
}

#[test]
fn what_is_on_the_way_stays_bounded_and_all_arrives() {
    let mut net = led_by_a(20);
    for group in net.groups() {
        for _ in 0..50 {
            net.propose(A, group, 1000);
        }
    }
    let mut most = 0;
    for _ in 0..2000 {
        net.step();
        most = most.max(in_flight(&net, B));
    }
    let bound = WINDOW + u64::from(MESSAGE);
    assert!((WINDOW / 2..=bound).contains(&most), "{most}");
    assert!(net.groups().into_iter().all(|group| net.all_decided(group)));
    assert!(net.counters(A).window_full > 0);
    assert_eq!((in_flight(&net, B), in_flight(&net, C)), (0, 0));
}

#[test]
fn groups_progress_side_by_side() {
    let mut net = led_by_a(10);
    for group in net.groups() {
        for _ in 0..200 {
            net.propose(A, group, 1000);
        }
    }
    let mut widest = 0;
    for _ in 0..2000 {
        net.step();
        let done: Vec<Index> = net.node(A).groups().map(|core| core.commit_index()).collect();
        let spread = done.iter().max().zip(done.iter().min()).map_or(0, |(max, min)| max - min);
        widest = widest.max(spread);
    }
    // A message has eight of these entries, and a turn may overdraw by one message.
    assert!(widest <= 32, "{widest}");
    assert!(net.groups().into_iter().all(|group| net.all_decided(group)));
}

#[test]
fn lost_acknowledgements_stall_nothing_for_ever() {
    let mut net = led_by_a(5);
    net.lost = |message| matches!(message.body, Body::Ack { .. });
    for group in net.groups() {
        for _ in 0..60 {
            net.propose(A, group, 1000);
        }
    }
    net.run(3000);
    assert!(in_flight(&net, B) <= WINDOW + u64::from(MESSAGE));
    net.lost = |_| false;
    net.run_until("all is decided", |net| {
        net.groups().into_iter().all(|group| net.all_decided(group))
    });
    assert_eq!((in_flight(&net, B), in_flight(&net, C)), (0, 0));
}

#[test]
fn a_group_that_catches_up_does_not_starve_the_others() {
    let mut net = led_by_a(2);
    let (behind, live) = (GroupId(1), GroupId(2));
    net.kill(C);
    for _ in 0..4000 {
        net.run_until("there is room", |net| net.core(A, behind).uncommitted_bytes() < 1 << 20);
        net.propose(A, behind, 1000);
    }
    net.run_until("B has it", |net| net.core(A, behind).commit_index() > 4000);
    // C returns with nothing; B dies, so that the live group needs C for every entry.
    net.boot(C);
    for group in [behind, live] {
        let config = ConfigRegister::of_voters([A, B, C]);
        let hard = HardState { config, ..HardState::default() };
        net.host_mut(C).hard.insert(group, hard);
        net.restore(C, group);
    }
    net.run_until("C is back", |net| {
        net.counters(A).restarts_seen == 1 && net.node(A).peer(C).is_some_and(|peer| peer.up)
    });
    net.kill(B);
    net.input(A, NodeInput::Disconnected { peer: B });
    net.run_until("the live group goes on", |net| {
        let last = net.core(A, live).last().index;
        net.core(A, live).progress().iter().any(|peer| peer.node == C && peer.acked == last)
    });
    let mut slowest = 0;
    for _ in 0..100 {
        let index = net.propose(A, live, 100);
        let took = net.run_until("it is decided", |net| net.core(A, live).commit_index() >= index);
        slowest = slowest.max(took);
    }
    assert!(slowest <= 6, "{slowest} ms for a round trip and a write each");
    assert!(net.counters(A).catch_up_grants > 0);
    net.run_until("C has caught up", |net| net.core(C, behind).commit_index() > 4000);
}

#[test]
fn a_flood_of_live_entries_does_not_starve_those_who_catch_up() {
    let mut net = led_by_a(2);
    let (behind, live) = (GroupId(1), GroupId(2));
    net.cut.extend([(A, C), (C, A)]);
    net.run(1500);
    for _ in 0..500 {
        net.propose(A, behind, 1000);
    }
    net.run_until("B has it", |net| net.core(A, behind).uncommitted_bytes() == 0);
    net.cut.clear();
    let last = net.core(A, behind).last().index;
    let done = |net: &Net| net.core(C, behind).last().index == last;
    for _ in 0..4000 {
        while net.core(A, live).uncommitted_bytes() < 4 * WINDOW {
            net.propose(A, live, 1000);
        }
        net.step();
        if done(&net) {
            break;
        }
    }
    assert!(done(&net), "{:?} of {last}", net.core(C, behind).last());
}
