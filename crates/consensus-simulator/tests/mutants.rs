//! Every rule of the protocol is broken once, and every time the invariants notice.

use flintmq_consensus_simulator::mutants::{Catcher, TRIALS};
use flintmq_consensus_simulator::{Watching, run};

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
