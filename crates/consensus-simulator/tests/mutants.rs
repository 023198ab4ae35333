//! Every rule of the protocol is broken once, and every time the invariants notice.

use flintmq_consensus_simulator::mutants::{
    Catcher, NODE_TRIALS, TRIALS, find, hunt_node, node_plan,
};
use flintmq_consensus_simulator::{Plan, Watching, run, shrink};

#[test]
fn every_mutant_is_caught() {
    let mut escaped = Vec::new();
    for trial in TRIALS.iter().filter(|trial| trial.catcher == Catcher::Simulator) {
        match trial.hunt(trial.seeds) {
            Some((failure, seeds)) => println!(
                "{:?}: caught by {} after {seeds} of {} seeds",
                trial.mutant, failure.violation.invariant, trial.seeds
            ),
            None => escaped.push(trial.mutant),
        }
    }
    assert_eq!(escaped, [], "these rules can be broken unnoticed");
}

#[test]
fn every_broken_rule_of_the_node_is_caught() {
    let mut escaped = Vec::new();
    for (mutant, seeds) in NODE_TRIALS {
        match hunt_node(mutant, seeds) {
            Some((failure, took)) => println!(
                "{mutant:?}: caught by {} after {took} of {seeds} seeds",
                failure.violation.invariant
            ),
            None => escaped.push(mutant),
        }
    }
    assert_eq!(escaped, [], "these rules can be broken unnoticed");
    for seed in 0..20 {
        let outcome = run(&node_plan(seed, None), Watching::default());
        if let Some(failure) = outcome.failure {
            panic!("without a mutant: {failure}");
        }
    }
}

#[test]
fn nothing_is_found_where_no_rule_is_broken() {
    for trial in &TRIALS {
        for seed in 0..10 {
            let outcome = run(&trial.sound_plan(seed), Watching::default());
            if let Some(failure) = outcome.failure {
                panic!("{:?} without the mutant: {failure}", trial.mutant);
            }
        }
    }
}

#[test]
fn a_failing_run_is_made_shorter() {
    let plan = find("W02").expect("it is one of them").plan(0);
    let (kept, failure, _) = shrink(&plan, 300).expect("it fails");
    assert!(kept.len() < plan.faults.len() / 2, "{} of {}", kept.len(), plan.faults.len());
    let faults = kept.iter().map(|number| plan.faults[*number].clone()).collect();
    let again = run(&Plan { faults, ..plan }, Watching::default());
    assert_eq!(again.failure, Some(failure), "the same each time");
}
