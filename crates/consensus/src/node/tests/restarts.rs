//! New processes of the same nodes.

use super::*;

#[test]
fn a_restart_ends_what_the_node_led_before_anybody_gets_impatient() {
    let mut net = Net::with_groups(3, 30, |_| {});
    net.run_until("all groups rest", Net::all_at_rest);
    let led = net.led_by(A);
    net.restart(A);
    let took = net.run_until("all groups are led", Net::all_led);
    assert!(led > 0 && took < 490, "{took}");
    assert_eq!(net.counters(B).restarts_seen, 1);
    net.run_until("all groups rest", Net::all_at_rest);
}

#[test]
fn packets_of_the_process_before_are_dropped() {
    let mut net = Net::with_groups(3, 3, |_| {});
    net.run_until("all groups rest", Net::all_at_rest);
    net.run_until("a beat is under way", |net| {
        net.wires.iter().any(|(_, packet)| packet.from == A && packet.to == B)
    });
    let late: Vec<Packet> = net.wires.iter().map(|(_, packet)| packet.clone()).collect();
    net.restart(A);
    net.run_until("they met", |net| {
        net.counters(B).restarts_seen == 1 && net.node(B).peer(A).is_some_and(|peer| peer.up)
    });
    for packet in late {
        if packet.from == A || packet.to == A {
            net.input(packet.to, NodeInput::Packet(packet));
        }
    }
    assert_eq!(net.counters(B).packets_outlived, 1);
    assert!(net.counters(A).packets_for_others > 0);
    net.run_until("all groups rest", Net::all_at_rest);
}

#[test]
fn thousands_of_groups_rejoin_within_a_few_packets_and_round_trips() {
    const GROUPS: u32 = 2000;
    let mut net = Net::with_groups(3, GROUPS, |_| {});
    net.run_until("all groups rest", Net::all_at_rest);
    // Nothing of interest here is led by the node that loses its tail.
    let now = net.now;
    for group in net.groups() {
        let input = Input::Transfer { to: B, force: false };
        if net.leader(group) == Some(A) {
            net.host_mut(A).node.step(now, NodeInput::Group { group, input });
        }
    }
    net.run_until("it leads nothing", |net| net.all_at_rest() && net.led_by(A) == 0);
    net.lose_power(A, 0);
    net.packets = 0;
    let took = net.run_until("all rejoined", |net| {
        net.node(A).groups().all(|core| core.recovering().is_none())
    });
    // Two trips to meet, then: probe and answer, grant and entries with their answer.
    assert!(took <= 12, "{took} trips");
    assert!(net.packets <= 40, "{} packets", net.packets);
    assert_eq!(net.counters(A).elections, 0);
    net.run_until("all groups rest", Net::all_at_rest);
}

#[test]
fn saves_of_many_groups_are_one_batch() {
    let mut net = Net::with_groups(3, 500, |settings| settings.max_elections = 500);
    net.run_until("all groups rest", Net::all_at_rest);
    let counters = net.counters(A);
    assert!(counters.hard_states >= 500);
    // Elections are spread over a quarter of a second, and a step is a millisecond.
    assert!(counters.hard_state_batches < 350, "{}", counters.hard_state_batches);
    net.kill(A);
    let before = *net.counters(B);
    net.input(B, NodeInput::Disconnected { peer: A });
    net.input(C, NodeInput::Disconnected { peer: A });
    net.run_until("all groups are led", Net::all_led);
    assert!(net.counters(B).hard_states > before.hard_states);
}

#[test]
fn a_power_cut_of_all_nodes_heals_itself() {
    let mut net = Net::with_groups(3, 300, |_| {});
    net.run_until("all groups rest", Net::all_at_rest);
    for group in net.groups() {
        let leader = net.leader(group).expect("it is led");
        for _ in 0..10 {
            net.propose(leader, group, 10);
        }
    }
    net.run_until("all groups rest", Net::all_at_rest);
    // One disk has a little more than the others; some of it was only decided by two that lost it.
    net.lose_power(A, 2);
    net.lose_power(B, 3);
    net.lose_power(C, 7);
    net.packets = 0;
    net.run_until("all groups rest", Net::all_at_rest);
    for group in net.groups() {
        let core = net.core(A, group);
        assert_eq!((core.history(), core.recovering()), (1, None));
        assert_eq!(core.last().index, 8, "what the best disk has, and a barrier");
    }
}
