//! Nodes that should not lead.

use super::*;

const CLOCK_OFF: UnfitReasons = UnfitReasons::CLOCK_OFF;
const DISK_FULL: UnfitReasons = UnfitReasons::DISK_FULL;

impl Net {
    fn unfit(&mut self, node: NodeId, reasons: UnfitReasons) {
        self.input(node, NodeInput::Unfit { reasons });
    }

    /// Lets time pass until nodes have heard of each other's fitness.
    fn hear(&mut self) {
        self.run(5);
    }
}

fn at_rest(nodes: u32, groups: u32) -> Net {
    let mut net = Net::with_groups(nodes, groups, |_| {});
    net.run_until("all groups rest", Net::all_at_rest);
    net
}

#[test]
fn an_unfit_node_hands_over_what_it_leads_in_good_order() {
    let mut net = at_rest(3, 30);
    let led = net.led_by(A);
    net.unfit(A, CLOCK_OFF);
    let took = net.run_until("A leads nothing", |net| net.led_by(A) == 0 && net.all_led());
    assert!(led > 0 && took < 30, "{took} ms for {led} groups");
    assert!(net.led_by(B) > 10 && net.led_by(C) > 10, "both take some");
    net.run(3000);
    assert_eq!(net.led_by(A), 0);
    net.run_until("all groups rest", Net::all_at_rest);
    assert_eq!(net.node(A).books.hand_over_at, None, "there is nothing to look after");
}

#[test]
fn no_unfit_node_is_handed_anything_while_there_is_a_fit_one() {
    let mut net = at_rest(3, 30);
    net.unfit(B, CLOCK_OFF);
    net.hear();
    assert_eq!(net.node(A).peer(B).map(|peer| peer.unfit), Some(CLOCK_OFF));
    net.unfit(A, DISK_FULL);
    net.run_until("C leads all", |net| net.led_by(C) == 30);
    net.input(C, NodeInput::CedeAll);
    net.run_until("an unfit one is better than none", |net| net.led_by(A) + net.led_by(B) == 30);
}

#[test]
fn it_keeps_what_no_other_can_lead_until_one_can() {
    let mut net = at_rest(3, 12);
    for node in [A, B, C] {
        net.unfit(node, CLOCK_OFF);
    }
    net.run_until("all groups are led", Net::all_led);
    net.run(3000);
    let led: Vec<usize> = [A, B, C].iter().map(|node| net.led_by(*node)).collect();
    net.run(3000);
    let now: Vec<usize> = [A, B, C].iter().map(|node| net.led_by(*node)).collect();
    assert_eq!(led, now, "they do not pass it round");
    net.unfit(B, UnfitReasons::NONE);
    let took = net.run_until("B leads all", |net| net.led_by(B) == 12);
    assert!(took < 30, "{took}");
}

#[test]
fn a_full_disk_keeps_what_a_majority_without_it_cannot_go_on_with() {
    let mut net = at_rest(3, 12);
    net.kill(C);
    net.run_until("all groups are led", |net| net.led_by(A) + net.led_by(B) == 12);
    let led = net.led_by(A);
    net.unfit(A, DISK_FULL);
    net.run(3000);
    assert_eq!(net.led_by(A), led, "B alone is no majority");
    // A clock that is off stores entries all the same.
    net.unfit(A, CLOCK_OFF);
    net.run_until("B leads all", |net| net.led_by(B) == 12);
}

#[test]
fn it_stands_for_election_after_the_others_and_before_nobody_does() {
    let mut net = at_rest(3, 40);
    net.unfit(B, DISK_FULL);
    net.run_until("B leads nothing", |net| net.led_by(B) == 0 && net.all_led());
    net.kill(A);
    net.run_until("all groups are led", Net::all_led);
    assert_eq!(net.led_by(C), 40, "the fit one was first");

    let mut net = at_rest(3, 10);
    net.unfit(B, CLOCK_OFF);
    net.unfit(C, CLOCK_OFF);
    net.run_until("A leads all", |net| net.led_by(A) == 10);
    net.kill(A);
    let took = net.run_until("unfit ones lead", |net| net.led_by(B) + net.led_by(C) == 10);
    assert!((1500..6000).contains(&took), "{took}");
}

#[test]
fn a_group_that_comes_later_is_reluctant_too_and_a_new_process_is_fit() {
    let mut net = Net::new(3, |_| {});
    net.run(300);
    net.unfit(A, CLOCK_OFF);
    for group in 1..=20 {
        net.add_group(GroupId(group), &[A, B, C]);
    }
    net.run_until("all groups are led", Net::all_led);
    assert_eq!(net.led_by(A), 0);
    net.restart(A);
    net.run_until("A is fit", |net| {
        let unfit = net.node(B).peer(A).map(|peer| (peer.up, peer.unfit));
        unfit == Some((true, UnfitReasons::NONE))
    });
}

#[test]
fn fitness_is_told_to_the_half_with_the_groups() {
    let told = |settings: &mut NodeSettings| settings.liveness = Liveness::Told;
    let mut net = Net::with_groups(3, 12, told);
    net.introduce(&[A, B, C]);
    net.run_until("all groups rest", Net::all_at_rest);
    net.input(A, NodeInput::PeerUnfit { peer: B, reasons: CLOCK_OFF });
    net.input(A, NodeInput::Unfit { reasons: CLOCK_OFF });
    let others = net.led_by(B) + net.led_by(C);
    let led = net.led_by(B);
    net.run_until("A leads nothing", |net| net.led_by(A) == 0 && net.all_led());
    assert!(others < 12 && net.led_by(B) == led, "C took all");
    assert_eq!(net.counters(A).beats_sent, 0);
}
