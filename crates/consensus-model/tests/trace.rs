//! What real cores do is what the model lets them do, and broken ones are noticed.

mod trace_cluster;

use flintmq_consensus::Mutant;
use std::collections::BTreeMap;
use trace_cluster::{Cluster, End};

const EVENTS: usize = 1500;

fn seeds(default: u64) -> (std::ops::Range<u64>, bool) {
    let seed = std::env::var("TRACE_SEED").ok().and_then(|seed| seed.parse().ok());
    seed.map_or((0..default, false), |seed: u64| (seed..seed + 1, true))
}

#[test]
fn the_model_explains_what_cores_do() {
    let (seeds, verbose) = seeds(3000);
    let (mut used, mut checked, mut over) = (BTreeMap::new(), 0, BTreeMap::new());
    for seed in seeds {
        let mut cluster = Cluster::new(seed, None, verbose);
        if let Err(End::Mismatch(mismatch)) = cluster.run(EVENTS) {
            panic!(
                "TRACE_SEED={seed} cargo test -p flintmq-consensus-model --test trace\n{mismatch}"
            );
        }
        checked += cluster.checker.checked();
        for (action, times) in cluster.checker.actions_used() {
            *used.entry(*action).or_insert(0) += times;
        }
        if let Some(why) = cluster.checker.over() {
            *over.entry(why).or_insert(0) += 1;
        }
    }
    println!("{checked} steps, {used:?}, over: {over:?}");
}

/// Whether the model notices a core that breaks this rule, and after how many seeds.
fn noticed(mutant: Mutant, seeds: u64) -> Option<u64> {
    (0..seeds).find(|seed| {
        let run = || Cluster::new(*seed, Some(mutant), false).run(EVENTS);
        matches!(std::panic::catch_unwind(run), Ok(Err(End::Mismatch(_))))
    })
}

#[test]
fn broken_cores_are_noticed() {
    for mutant in Mutant::ALL {
        println!("{mutant:?}: {:?}", noticed(mutant, 1000));
    }
}
