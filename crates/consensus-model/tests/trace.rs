//! What real cores do is what the model lets them do, and broken ones are noticed.

mod trace_cluster;

use flintmq_consensus::Mutant;
use std::collections::BTreeMap;
use trace_cluster::{Cluster, End};

/// Things that happen in one run.
const EVENTS: usize = 1500;

/// Steps that the model knows of, and that no core takes.
const NEVER: &str = "TakePeerLog";

/// A number from the environment.
fn asked(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn the_model_explains_what_cores_do() {
    let one = asked("TRACE_SEED");
    let seeds = match one {
        Some(seed) => seed..seed + 1,
        None => 0..asked("TRACE_SEEDS").unwrap_or(2000),
    };
    let (mut used, mut over) = (BTreeMap::new(), BTreeMap::new());
    let mut checked = 0;
    for seed in seeds {
        let mut cluster = Cluster::new(seed, None, one.is_some());
        if let Err(end) = cluster.run(EVENTS) {
            let replay =
                "cargo test -p flintmq-consensus-model --test trace the_model -- --nocapture";
            panic!("{end}\nTRACE_SEED={seed} {replay}");
        }
        checked += cluster.checker.checked();
        for (step, times) in cluster.checker.actions_used() {
            *used.entry(*step).or_insert(0) += times;
        }
        if let Some(why) = cluster.checker.over() {
            *over.entry(why).or_insert(0) += 1;
        }
    }
    println!("{checked} steps, {used:?}, over: {over:?}");
    if one.is_none() {
        let all = [
            "Campaign",
            "Order",
            "Vote",
            "AnswerSync",
            "FinishSync",
            "Fork",
            "BecomeReady",
            "FetchPart",
            "Propose",
            "TakeAppend",
            "Commit",
            "Lose",
            "Grant",
            "TakeGrant",
            "Learn",
            "AckConfig",
            "Change",
            "DropDead",
        ];
        let unused: Vec<_> = all.iter().filter(|step| !used.contains_key(*step)).collect();
        assert!(unused.is_empty(), "never taken: {unused:?}");
        assert!(!used.contains_key(NEVER));
    }
}

/// After how many runs the model notices a core that breaks this rule.
fn noticed(mutant: Mutant, seeds: u64) -> Option<u64> {
    (0..seeds).find(|seed| {
        // A broken core may also run into its own assertions.
        let run = || Cluster::new(*seed, Some(mutant), false).run(EVENTS);
        matches!(std::panic::catch_unwind(run), Ok(Err(End::Mismatch(_))))
    })
}

/// Those that take more runs than a test should: the model would notice a commit by counting
/// acknowledgements of an older term, and the choice of the longest log, but it seldom comes to
/// that. It knows no leases at all.
const RARE: [Mutant; 3] = [
    Mutant::W12CountAcksOfOlderTerms,
    Mutant::W13ChooseLongestLog,
    Mutant::W19LeaseOutlivesCession,
];

#[test]
fn broken_cores_are_noticed() {
    for mutant in Mutant::ALL.into_iter().filter(|mutant| !RARE.contains(mutant)) {
        let runs = noticed(mutant, 4000);
        println!("{mutant:?}: {runs:?}");
        assert!(runs.is_some(), "{mutant:?} is not noticed");
    }
}

/// `cargo test --release -p flintmq-consensus-model --test trace rare -- --ignored --nocapture`
#[test]
#[ignore = "takes minutes; a count, not a check"]
fn rare_mistakes() {
    for mutant in RARE {
        println!("{mutant:?}: {:?}", noticed(mutant, asked("TRACE_SEEDS").unwrap_or(20_000)));
    }
}
