//! The seeds of every test run hold, reach every situation, and are the same each time.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use flintmq_cluster_simulator::{Coverage, Plan, Situation, Watching, run};

/// Seeds of a normal test run; more with the crate's program.
const SEEDS: u64 = 200;

/// Reached by some seeds of a thousand only.
const RARE: [Situation; 6] = [
    Situation::PlacedAgain,
    Situation::CommittedLost,
    Situation::StateEmptied,
    Situation::LeftoverDropped,
    Situation::SnapshotFailed,
    Situation::SessionEnded,
];

#[test]
fn the_seeds_hold_and_reach_every_situation() {
    let next = AtomicU64::new(0);
    let sum = Mutex::new((Coverage::default(), Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= SEEDS {
                        break;
                    }
                    let outcome = run(&Plan::new(seed), Watching::default());
                    let mut sum = sum.lock().expect("no thread panics while it adds");
                    sum.0.add(&outcome.coverage);
                    sum.1.extend(outcome.failure.map(|failure| failure.to_string()));
                }
            });
        }
    });
    let (coverage, failures) = sum.into_inner().expect("no thread panics while it adds");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    let mut missing = coverage.missing();
    missing.retain(|situation| !RARE.contains(situation));
    assert_eq!(missing, [], "never seen in {SEEDS} seeds");
}

#[test]
fn a_seed_is_the_same_run_each_time_and_another_seed_is_another_run() {
    let hash = |seed| run(&Plan::new(seed), Watching::default()).hash;
    let hashes: Vec<u64> = (0..4).map(hash).collect();
    assert_eq!(hashes, (0..4).map(hash).collect::<Vec<u64>>());
    let mut distinct = hashes.clone();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), hashes.len());
}
