//! Wall clocks that are wrong drop nothing that has time left, and short times to live go on
//! working. The runs check the first themselves, message by message.

use flintmq_cluster_simulator::{Coverage, FaultKind, Plan, Profile, Situation, Watching, run};

const SEEDS: u64 = 12;

/// Runs some seeds of such a profile and adds up what they saw.
fn seen(nodes: u32, kinds: &[FaultKind], change: impl Fn(&mut Profile)) -> Coverage {
    let mut sum = Coverage::default();
    for seed in 0..SEEDS {
        let mut profile = Profile::draw(seed);
        (profile.nodes, profile.replicas) = (nodes, nodes);
        (profile.groups, profile.queues) = (2, 2);
        (profile.ttl_ms, profile.lasts, profile.faults) = (600, 8_000_000, 30);
        profile.kinds = kinds.to_vec();
        change(&mut profile);
        let outcome = run(&Plan::with_profile(seed, profile), Watching::default());
        let failure = outcome.failure.map(|failure| failure.to_string());
        assert_eq!(failure, None, "seed {seed}");
        sum.add(&outcome.coverage);
    }
    sum
}

#[test]
fn a_node_that_is_eight_days_ahead_takes_part_in_changes_of_leadership() {
    let kinds = [FaultKind::Transfer, FaultKind::Cede, FaultKind::Crash];
    let sum = seen(3, &kinds, |profile| profile.wrong_clock = true);
    assert!(sum.count(Situation::LeadershipTaken) >= 10 * SEEDS, "{sum}");
    assert!(sum.count(Situation::Unfit) >= SEEDS, "its shard notices: {sum}");
    assert!(sum.count(Situation::Expired) > 0, "{sum}");
}

#[test]
fn steps_of_days_and_back_on_one_of_three_nodes() {
    let kinds = [FaultKind::ClockJump, FaultKind::ClockJump, FaultKind::Transfer];
    let sum = seen(3, &kinds, |_| {});
    assert!(sum.count(Situation::ClockJumped) >= SEEDS, "{sum}");
    assert!(sum.count(Situation::Expired) > 0, "{sum}");
}

#[test]
fn steps_of_days_and_back_on_a_node_alone() {
    let sum = seen(1, &[FaultKind::ClockJump], |_| {});
    assert!(sum.count(Situation::ClockJumped) >= SEEDS, "{sum}");
    assert!(sum.count(Situation::Expired) > 0, "{sum}");
}
