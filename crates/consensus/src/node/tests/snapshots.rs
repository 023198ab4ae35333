//! Snapshots of many groups: a few at a time, and what becomes of those that fail.

use super::budgets::led_by_a;
use super::*;

/// Three nodes with this many groups, all led by A. C has just come back with nothing, and needs a
/// snapshot of each.
fn behind(groups: u32) -> Net {
    let mut net = led_by_a(groups);
    net.run_until("all groups rest", Net::all_at_rest);
    net.kill(C);
    net.run(1500);
    for group in net.groups() {
        net.propose(A, group, 10);
    }
    net.run_until("all groups rest", Net::all_at_rest);
    for group in net.groups() {
        let upto = net.core(A, group).last();
        net.input(A, NodeInput::Group { group, input: Input::Compacted { upto } });
    }
    net.boot(C);
    for group in net.groups() {
        let hard = net.host(A).hard.get(&group).cloned().unwrap_or_default();
        let config = hard.config;
        net.host_mut(C).hard.insert(group, HardState { config, ..HardState::default() });
        net.restore(C, group);
    }
    net
}

/// Runs for so long, and tells the groups whose snapshots A was asked to open.
fn opened(net: &mut Net, millis: u64) -> Vec<GroupId> {
    let mut opened = Vec::new();
    for _ in 0..millis {
        net.step();
        opened.extend(net.host(A).effects.iter().filter_map(|effect| match effect {
            NodeEffect::Group { group, effect: Effect::SnapshotOpen { .. } } => Some(*group),
            _ => None,
        }));
    }
    opened
}

#[test]
fn snapshots_are_sent_a_few_at_a_time() {
    let mut net = behind(12);
    let open = opened(&mut net, 1000);
    assert_eq!(open.len(), 4, "the store does not answer, so no more are opened");
    assert_eq!(net.counters(A).snapshots_held, 8);
    // One of them is not wanted any more.
    let now = net.now;
    net.host_mut(A).node.remove_group(now, open[0]);
    assert_eq!(opened(&mut net, 1).len(), 1);
}

#[test]
fn a_snapshot_that_fails_makes_room_and_is_tried_again() {
    let mut net = behind(12);
    net.host_mut(A).snapshots = Snapshots::Refused;
    let tried: BTreeSet<GroupId> = opened(&mut net, 100).into_iter().collect();
    assert_eq!(tried, net.groups(), "each had its turn");
    let again = opened(&mut net, 10_000).len();
    assert!((12 * 5..=12 * 12).contains(&again), "not all the time: {again}");

    net.host_mut(A).snapshots = Snapshots::Opened;
    let mut most = 0;
    let all_there = |net: &Net| {
        net.groups()
            .into_iter()
            .all(|group| net.core(C, group).commit_index() == net.core(A, group).commit_index())
    };
    for _ in 0..5000 {
        net.step();
        most = most.max(net.host(A).open.len());
        if all_there(&net) {
            break;
        }
    }
    assert!(all_there(&net), "{}", net.tell());
    assert!((1..=4).contains(&most), "{most}");
    net.run_until("all groups rest", Net::all_at_rest);
    assert_eq!(net.host(A).open, BTreeSet::new(), "all are closed");
}

#[test]
fn a_snapshot_that_failed_is_not_tried_again_for_a_member_that_is_gone() {
    let mut net = behind(1);
    net.host_mut(A).snapshots = Snapshots::Refused;
    assert!(!opened(&mut net, 100).is_empty());
    net.kill(C);
    net.input(A, NodeInput::Disconnected { peer: C });
    assert_eq!(opened(&mut net, 5000), []);
    net.run_until("the group rests", |net| net.core(A, GroupId(1)).next_deadline().is_none());
}
