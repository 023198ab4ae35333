//! Nodes that are told which peers can be reached.

use super::*;

fn told(settings: &mut NodeSettings) {
    settings.liveness = Liveness::Told;
}

impl Net {
    fn tell_up(&mut self, node: NodeId, peer: NodeId) {
        let incarnation = self.node(peer).settings().incarnation;
        self.input(node, NodeInput::PeerUp { peer, incarnation, restarted: false });
    }

    /// All nodes of these hear of each other.
    pub(super) fn introduce(&mut self, nodes: &[NodeId]) {
        for node in nodes {
            for peer in nodes.iter().filter(|peer| *peer != node) {
                self.tell_up(*node, *peer);
            }
        }
    }

    fn thinks_up(&self, node: NodeId, peer: NodeId) -> bool {
        self.node(node).groups().all(|core| core.is_up(peer))
    }
}

/// Three nodes that were told of each other, with groups at rest.
fn met(groups: u32) -> Net {
    let mut net = Net::with_groups(3, groups, told);
    net.introduce(&[A, B, C]);
    net.run_until("all groups rest", Net::all_at_rest);
    net
}

#[test]
fn peers_are_down_for_every_group_until_they_are_told_of() {
    let mut net = Net::with_groups(3, 5, told);
    assert!(net.node(A).groups().all(|core| !core.is_up(B) && !core.is_up(C)));
    net.run(3000);
    assert_eq!(net.packets, 0, "their processes are not known");
    assert!(net.groups().into_iter().all(|group| net.leader(group).is_none()));
    net.introduce(&[A, B]);
    net.run_until("all groups are led", Net::all_led);
    assert!(net.thinks_up(A, B) && !net.thinks_up(A, C));
}

#[test]
fn a_group_added_later_is_told_of_all_that_is_down() {
    let mut net = Net::new(3, told);
    net.introduce(&[A, B]);
    net.run(10);
    net.add_group(GroupId(1), &[A, B, C]);
    assert!(net.core(A, GroupId(1)).is_up(B) && !net.core(A, GroupId(1)).is_up(C));
}

#[test]
fn a_leader_whose_last_peers_die_one_after_the_other_cedes() {
    let mut net = Net::with_groups(3, 4, told);
    net.introduce(&[A, B]);
    net.run_until("all groups are led", Net::all_led);
    // C was never there.
    for (node, peer) in [(A, B), (B, A)] {
        net.input(node, NodeInput::PeerDown { peer });
    }
    net.run_until("nobody leads", |net| net.led_by(A) + net.led_by(B) == 0);
}

#[test]
fn a_node_that_is_told_neither_beats_nor_suspects() {
    let mut net = met(20);
    let before = *net.counters(A);
    net.run(10_000);
    let after = *net.counters(A);
    assert_eq!(after.packets_sent, before.packets_sent);
    assert_eq!((after.beats_sent, after.suspicions, after.late_steps), (0, 0, 0));
    assert_eq!(net.node(A).next_deadline(), None);
    // Connections are the business of the one that beats.
    net.input(A, NodeInput::Disconnected { peer: B });
    net.input(A, NodeInput::Connected { peer: B });
    net.run(100);
    assert!(net.thinks_up(A, B));
    assert_eq!(net.counters(A).packets_sent, before.packets_sent);
}

#[test]
fn what_is_down_is_so_until_it_is_told_to_be_up() {
    let mut net = met(12);
    let led = net.led_by(A);
    for peer in [B, C] {
        net.input(A, NodeInput::PeerDown { peer });
        net.input(peer, NodeInput::PeerDown { peer: A });
    }
    net.run_until("A leads nothing", |net| {
        net.led_by(A) == 0 && net.led_by(B) + net.led_by(C) == 12
    });
    assert!(led > 0, "{led}");
    net.run(2000);
    assert!(!net.thinks_up(B, A), "its messages are no sign of life");
    net.introduce(&[A, B, C]);
    net.run_until("all groups rest", Net::all_at_rest);
    assert!(net.thinks_up(B, A));
}

#[test]
fn messages_of_and_for_a_process_that_was_not_told_of_are_dropped() {
    let mut net = met(6);
    net.restart(A);
    let early = |net: &Net| net.counters(B).packets_early;
    net.tell_up(A, B);
    net.tell_up(A, C);
    // It scouts; B knows its predecessor only, and goes on to speak to that.
    net.run_until("it was dropped", |net| early(net) > 2);
    assert!(net.thinks_up(B, A) && net.node(B).peer(A).is_some_and(|peer| peer.up));
    for group in net.groups() {
        if net.leader(group) == Some(B) {
            net.propose(B, group, 10);
        }
    }
    net.run_until("its messages were not taken", |net| net.counters(A).packets_for_others > 0);
    let received = net.counters(A).messages_received;
    assert_eq!(received, 0);

    net.introduce(&[A, B, C]);
    let before = early(&net);
    net.run_until("all groups rest", Net::all_at_rest);
    assert_eq!((early(&net), net.counters(B).restarts_seen), (before, 1));
}

#[test]
fn a_new_process_ends_what_its_predecessor_led_although_nobody_said_that_it_was_down() {
    let mut net = met(30);
    let led = net.led_by(A);
    net.restart(A);
    net.introduce(&[A, B, C]);
    let took = net.run_until("all groups are led", Net::all_led);
    assert!(led > 0 && took < 490, "{took}");
    net.run_until("all groups rest", Net::all_at_rest);
}

#[test]
fn an_older_word_and_the_same_word_again_change_nothing() {
    let mut net = met(3);
    let before = *net.counters(B);
    let incarnation = net.node(A).settings().incarnation;
    for incarnation in [incarnation, incarnation - 1, 0] {
        net.input(B, NodeInput::PeerUp { peer: A, incarnation, restarted: true });
    }
    net.run(100);
    assert_eq!((net.counters(B).trusts, net.counters(B).restarts_seen), (before.trusts, 0));
    assert_eq!(net.node(B).peer(A).map(|peer| peer.incarnation), Some(incarnation));
    assert!(net.all_at_rest(), "no leadership ended");
}

#[test]
fn what_is_told_before_the_peer_is_added_counts_once_it_is() {
    let mut net = met(3);
    net.input(A, NodeInput::RemovePeer { peer: B });
    assert!(!net.thinks_up(A, B));
    net.input(A, NodeInput::AddPeer { peer: B });
    assert!(net.thinks_up(A, B), "what was told before the removal");

    net.input(A, NodeInput::RemovePeer { peer: B });
    net.input(A, NodeInput::PeerDown { peer: B });
    net.input(A, NodeInput::AddPeer { peer: B });
    assert!(!net.thinks_up(A, B));
    net.input(A, NodeInput::RemovePeer { peer: B });
    net.tell_up(A, B);
    net.input(A, NodeInput::AddPeer { peer: B });
    assert!(net.thinks_up(A, B));
    net.run_until("all groups rest", Net::all_at_rest);
}
