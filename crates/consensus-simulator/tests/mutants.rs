//! Every rule of the protocol is broken once, and every time the invariants notice.

use flintmq_consensus_simulator::mutants::{Catcher, TRIALS};

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
