//! What simulated nodes do is what the model of the protocol lets them do.

use flintmq_consensus_simulator::{Plan, Watching, run};

/// Seeds of a normal test run; more with the crate's program.
const SEEDS: u64 = 100;

#[test]
fn the_model_explains_what_nodes_do() {
    let mut explained = 0;
    for seed in 0..SEEDS {
        let outcome = run(&Plan::new(seed), Watching::default());
        if let Some(failure) = outcome.failure {
            panic!("with the feature `model`: {failure}");
        }
        explained += outcome.explained.0;
    }
    println!("{explained} steps explained");
    assert!(explained > 1_000, "the model looked at nearly nothing");
}
