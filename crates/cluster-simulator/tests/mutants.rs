//! Each broken rule of the driver is noticed within a stated number of seeds.

use flintmq_cluster_simulator::{FaultKind, Plan, Profile, Watching, run};
use flintmq_shard::mutants::{Mutant, set};

/// What is tried to catch one mutant.
struct Trial {
    mutant: Mutant,
    /// Seeds within which it is caught.
    seeds: u64,
    faults: &'static [FaultKind],
    change: fn(&mut Profile),
}

const TRIALS: [Trial; 4] = [
    Trial {
        mutant: Mutant::CheckpointsOvertake,
        seeds: 100,
        faults: &[FaultKind::StoreFull, FaultKind::DiskStall],
        change: |_| {},
    },
    Trial {
        mutant: Mutant::SnapshotNotRetried,
        seeds: 200,
        faults: &[FaultKind::FailSnapshots, FaultKind::Crash, FaultKind::Isolate],
        change: |profile| (profile.largest, profile.pace) = (400_000, 5_000),
    },
    Trial {
        mutant: Mutant::AnswersOvertake,
        seeds: 100,
        faults: &[FaultKind::Transfer],
        change: |profile| profile.groups = 1,
    },
    Trial {
        mutant: Mutant::GapsUnnoticed,
        seeds: 50,
        faults: &[FaultKind::ReplaceConnection],
        change: |_| {},
    },
];

/// The seed that notices, and what it notices.
fn caught(trial: &Trial) -> Option<(u64, &'static str)> {
    set(Some(trial.mutant));
    let found = (0..trial.seeds).find_map(|seed| {
        let mut profile = Profile::draw(seed);
        profile.nodes = profile.nodes.max(3);
        profile.replicas = profile.replicas.max(3);
        profile.faults = profile.faults.max(10);
        profile.kinds = trial.faults.to_vec();
        (trial.change)(&mut profile);
        let outcome = run(&Plan::with_profile(seed, profile), Watching::default());
        Some((seed, outcome.failure?.violation.invariant))
    });
    set(None);
    found
}

#[test]
fn every_broken_rule_is_noticed() {
    let missed = std::thread::scope(|scope| {
        let halves = TRIALS.chunks(TRIALS.len().div_ceil(2)).map(|half| {
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
}
