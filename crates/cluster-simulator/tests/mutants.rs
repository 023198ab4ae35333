//! Each broken rule of the driver is noticed within a stated number of seeds.

use flintmq_cluster_simulator::{Trial, Watching, run};
use flintmq_shard::mutants::{Mutant, set};

/// The seed that notices, and what it notices.
fn caught(trial: &Trial) -> Option<(u64, &'static str)> {
    set(Some(trial.mutant));
    let found = (0..trial.seeds).find_map(|seed| {
        let outcome = run(&trial.plan(seed), Watching::default());
        Some((seed, outcome.failure?.violation.invariant))
    });
    set(None);
    found
}

#[test]
fn every_broken_rule_is_noticed() {
    let missed = std::thread::scope(|scope| {
        let halves = Trial::ALL.chunks(Trial::ALL.len().div_ceil(2)).map(|half| {
            scope.spawn(move || {
                let mut missed = Vec::new();
                for trial in half {
                    let found = caught(trial);
                    println!("{:?}: {found:?} of {}", trial.mutant, trial.seeds);
                    if found.is_none() {
                        missed.push(trial.mutant);
                    }
                }
                missed
            })
        });
        let halves: Vec<_> = halves.collect();
        let joined = halves.into_iter().map(|half| half.join().expect("no trial panics"));
        joined.flatten().collect::<Vec<Mutant>>()
    });
    assert_eq!(missed, []);
    assert!(Mutant::ALL.iter().all(|one| Trial::ALL.iter().any(|trial| trial.mutant == *one)));
}
