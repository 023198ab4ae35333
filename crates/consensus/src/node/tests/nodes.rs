//! Nodes that die, fall silent, sleep and stop.

use super::*;

#[test]
fn a_group_at_rest_costs_nothing_and_a_pair_of_nodes_one_beat() {
    let mut net = Net::with_groups(3, 200, |_| {});
    net.run_until("all groups rest", Net::all_at_rest);
    net.run(1000);
    let before = *net.counters(A);
    net.packets = 0;
    net.run(10_000);
    let after = *net.counters(A);
    assert_eq!((net.packets, after.messages_sent), (0, before.messages_sent));
    assert_eq!(after.packets_sent - before.packets_sent, 2 * 100);
    assert_eq!(after.beats_sent - before.beats_sent, 2 * 100);
    let deadline = net.node(A).next_deadline().expect("the next beat");
    assert!(net.now < deadline && net.node(A).books.timers.next().is_none());
}

#[test]
fn a_lone_node_sleeps() {
    let mut net = Net::with_groups(1, 3, |_| {});
    net.run_until("all groups rest", Net::all_at_rest);
    net.run(1000);
    assert_eq!(net.node(A).next_deadline(), None);
    assert_eq!(net.counters(A).packets_sent, 0);
}

#[test]
fn a_dead_nodes_groups_find_new_leaders_and_the_others_keep_theirs() {
    let mut net = Net::with_groups(3, 60, |_| {});
    net.run_until("all groups rest", Net::all_at_rest);
    let led: BTreeMap<GroupId, Option<NodeId>> =
        net.groups().into_iter().map(|group| (group, net.leader(group))).collect();
    net.kill(A);
    let took = net.run_until("all groups are led", Net::all_led);
    assert!((500..2000).contains(&took), "{took}");
    for (group, leader) in led {
        assert!(leader == Some(A) || net.leader(group) == leader, "{group}");
    }
    assert_eq!(net.counters(B).suspicions_by_silence, 1);
}

#[test]
fn a_lost_connection_needs_no_patience() {
    let mut net = Net::with_groups(3, 30, |_| {});
    net.run_until("all groups rest", Net::all_at_rest);
    net.kill(A);
    net.input(B, NodeInput::Disconnected { peer: A });
    net.input(C, NodeInput::Disconnected { peer: A });
    let took = net.run_until("all groups are led", Net::all_led);
    assert!(took < 490, "{took}");
}

#[test]
fn only_the_groups_of_a_peer_hear_of_it() {
    let mut net = Net::new(4, |_| {});
    let d = NodeId(4);
    net.add_group(GroupId(1), &[A, B, C]);
    net.add_group(GroupId(2), &[A, B, d]);
    net.run_until("all groups rest", Net::all_at_rest);
    net.kill(d);
    net.run(1500);
    assert!(!net.node(A).peer(d).is_some_and(|peer| peer.up));
    assert!(!net.core(A, GroupId(2)).is_up(d));
    assert!(net.core(A, GroupId(1)).is_up(d), "it was never told");
    assert!(net.all_led());
}

#[test]
fn a_link_that_works_in_one_direction_is_no_link() {
    let mut net = Net::with_groups(3, 30, |_| {});
    net.run_until("all groups rest", Net::all_at_rest);
    net.cut.insert((A, B));
    net.run(1500);
    let up = |net: &Net, one, other| net.node(one).peer(other).is_some_and(|peer| peer.up);
    assert!(!up(&net, A, B) && !up(&net, B, A));
    assert!(up(&net, A, C) && up(&net, C, B));
    assert_eq!(net.counters(A).suspicions_one_way, 1);
    assert_eq!(net.counters(B).suspicions_by_silence, 1);
    net.cut.clear();
    net.run_until("they meet again", |net| up(net, A, B) && up(net, B, A));
    net.run_until("all groups rest", Net::all_at_rest);
}

#[test]
fn elections_after_a_death_are_bounded_at_any_time_and_all_come_about() {
    let mut net = Net::with_groups(3, 400, |settings| settings.max_elections = 8);
    net.run_until("all groups rest", Net::all_at_rest);
    net.kill(A);
    let mut most = 0;
    for _ in 0..5000 {
        net.step();
        most = most.max(net.electing(B)).max(net.electing(C));
        if net.all_led() {
            break;
        }
    }
    assert!(net.all_led());
    assert!((4..=8).contains(&most), "{most}");
    assert!(net.counters(B).elections_held > 0);
}

#[test]
fn groups_without_a_quorum_do_not_hold_up_the_others() {
    let mut net = Net::new(4, |settings| settings.max_elections = 4);
    let d = NodeId(4);
    for group in 1..=300 {
        let members = if group <= 200 { vec![A, d] } else { vec![A, B, C] };
        net.add_group(GroupId(group), &members);
    }
    net.run_until("all groups rest", Net::all_at_rest);
    let led = net.led_by(A);
    net.kill(d);
    net.kill(B);
    net.run_until("all with a quorum are led", |net| {
        (201..=300).all(|group| net.leader(GroupId(group)).is_some())
    });
    assert!(led > 0 && net.electing(A) <= 4);
}

#[test]
fn a_clean_stop_hands_everything_over_at_once() {
    let mut net = Net::with_groups(3, 60, |_| {});
    net.run_until("all groups rest", Net::all_at_rest);
    net.input(A, NodeInput::CedeAll);
    let took = net.run_until("all groups are led", Net::all_led);
    assert!(took < 30, "{took}");
    net.run(2000);
    assert_eq!(net.led_by(A), 0, "a node that stops does not lead again");
    assert!(net.led_by(B) > 15 && net.led_by(C) > 15);
}

#[test]
fn a_stalled_group_goes_elsewhere_and_a_stalled_node_falls_silent() {
    let mut net = Net::with_groups(3, 9, |_| {});
    net.run_until("all groups rest", Net::all_at_rest);
    let leader = net.leader(GroupId(1)).expect("it is led");
    let led = net.led_by(leader);
    net.input(leader, NodeInput::GroupStalled { group: GroupId(1) });
    net.run_until("the group moved", |net| net.leader(GroupId(1)).is_some_and(|new| new != leader));
    assert_eq!(net.led_by(leader), led - 1);

    net.input(leader, NodeInput::Stalled);
    let silent = *net.counters(leader);
    net.run_until("nobody follows it", |net| net.led_by(leader) == 0);
    assert_eq!(net.counters(leader).packets_sent, silent.packets_sent);
    net.input(leader, NodeInput::Resumed);
    net.run_until("all groups rest", Net::all_at_rest);
}

#[test]
fn a_stalled_group_that_no_other_can_lead_stays() {
    let mut net = Net::new(3, |_| {});
    net.add_group(GroupId(1), &[A]);
    net.add_group(GroupId(2), &[A, B, C]);
    net.run_until("all groups are led", Net::all_led);
    net.input(A, NodeInput::GroupStalled { group: GroupId(1) });
    net.run(3);
    assert_eq!(net.leader(GroupId(1)), Some(A));
    // Told of a group that is led elsewhere, or is not here, a node does nothing.
    net.run_until("all groups rest", Net::all_at_rest);
    let leader = net.leader(GroupId(2)).expect("it is led");
    for node in [A, B, C] {
        if node != leader {
            net.input(node, NodeInput::GroupStalled { group: GroupId(2) });
        }
        net.input(node, NodeInput::GroupStalled { group: GroupId(7) });
    }
    net.run(1000);
    assert_eq!((net.leader(GroupId(2)), net.core(leader, GroupId(2)).term()), (Some(leader), 1));
}

#[test]
fn a_stalled_group_goes_to_a_fit_voter() {
    let mut net = Net::with_groups(3, 12, |_| {});
    net.run_until("all groups rest", Net::all_at_rest);
    net.input(B, NodeInput::Unfit { reasons: UnfitReasons::CLOCK_OFF });
    net.run_until("B leads nothing", |net| net.led_by(B) == 0 && net.all_led());
    for group in net.groups() {
        net.input(A, NodeInput::GroupStalled { group });
    }
    net.run_until("C leads all", |net| net.led_by(C) == 12);
}

#[test]
fn a_stalled_half_that_beats_is_down_for_the_others_and_hears_them() {
    let mut net = Net::new(3, |_| {});
    let up = |net: &Net, one, other| net.node(one).peer(other).is_some_and(|peer| peer.up);
    net.run_until("all have met", |net| up(net, A, B) && up(net, B, A) && up(net, C, A));
    net.input(A, NodeInput::Stalled);
    let sent = net.counters(A).packets_sent;
    let took = net.run_until("A is down", |net| !up(net, B, A) && !up(net, C, A));
    assert!((300..=1100).contains(&took), "{took}");
    net.input(A, NodeInput::Stalled);
    net.run(2000);
    assert_eq!(net.counters(A).packets_sent, sent);
    assert!(net.node(A).peer(B).is_some_and(|peer| peer.heard.is_some()));
    net.input(A, NodeInput::Resumed);
    net.input(A, NodeInput::Resumed);
    let took = net.run_until("A is up", |net| up(net, B, A) && up(net, C, A) && up(net, A, B));
    assert!(took <= 200, "{took}");
}

#[test]
fn last_words_are_said_even_by_a_stalled_node() {
    let mut net = Net::with_groups(3, 30, |_| {});
    net.run_until("all groups rest", Net::all_at_rest);
    assert!(net.led_by(A) > 0);
    net.input(A, NodeInput::Stalled);
    net.input(A, NodeInput::StorageFailed);
    let took = net.run_until("all groups are led", Net::all_led);
    assert!(took < 490, "the cessions arrived: {took}");
    net.input(A, NodeInput::Resumed);
    let sent = net.counters(A).packets_sent;
    net.run(500);
    assert_eq!(net.counters(A).packets_sent, sent, "it does not speak again");
}

#[test]
fn a_failing_disk_ends_the_node_after_its_last_words() {
    let mut net = Net::with_groups(3, 30, |_| {});
    net.run_until("all groups rest", Net::all_at_rest);
    net.input(A, NodeInput::StorageFailed);
    let took = net.run_until("all groups are led", Net::all_led);
    assert!(took < 490, "the cessions arrived: {took}");
    let sent = net.counters(A).packets_sent;
    net.run(2000);
    assert_eq!(net.counters(A).packets_sent, sent);
    assert!(net.node(A).groups().all(|core| core.role() == Role::Failed));
    assert!(!net.node(B).peer(A).is_some_and(|peer| peer.up));
}

#[test]
fn a_node_that_slept_blames_nobody() {
    let mut net = Net::with_groups(3, 9, |_| {});
    net.run_until("all groups rest", Net::all_at_rest);
    // Everything stands still for five seconds.
    net.now = net.now + std::time::Duration::from_secs(5);
    net.run(3000);
    for node in [A, B, C] {
        assert_eq!(net.counters(node).suspicions, 0);
        assert_eq!(net.counters(node).late_steps, 1);
    }
}

#[test]
fn peers_come_and_go() {
    let mut net = Net::with_groups(3, 9, |_| {});
    net.run_until("all groups rest", Net::all_at_rest);
    net.input(A, NodeInput::RemovePeer { peer: B });
    assert_eq!(net.node(A).peer(B), None);
    net.run(1000);
    assert!(!net.core(A, GroupId(1)).is_up(B));
    assert!(net.counters(A).packets_misdirected > 0);
    net.input(A, NodeInput::AddPeer { peer: B });
    net.run_until("it is up again", |net| net.node(A).peer(B).is_some_and(|peer| peer.up));
    net.run_until("all groups rest", Net::all_at_rest);
    assert!(net.core(A, GroupId(1)).is_up(B));
}
