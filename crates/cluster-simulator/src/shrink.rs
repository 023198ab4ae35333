//! Leaves faults out of a failing run as long as it still fails.

use crate::plan::{Fault, Plan};
use crate::run::{Failure, Watching, run};

/// The numbers of the faults with which the plan still violates the same invariant, as few as were
/// found within `most_runs` runs; the failure that is left; and how many runs it took. None when it
/// does not fail.
#[must_use]
pub fn shrink(plan: &Plan, most_runs: u64) -> Option<(Vec<usize>, Failure, u64)> {
    let try_with = |numbers: &[usize]| -> Option<Failure> {
        let kept = numbers.iter().filter_map(|number| plan.faults.get(*number).cloned());
        let faults: Vec<Fault> = kept.collect();
        run(&Plan { faults, ..plan.clone() }, Watching::default()).failure
    };
    let mut kept: Vec<usize> = (0..plan.faults.len()).collect();
    let mut failure = try_with(&kept)?;
    let mut runs = 1;
    let mut step = kept.len().div_ceil(2).max(1);
    loop {
        let mut at = 0;
        while at < kept.len() && runs < most_runs {
            let without: Vec<usize> = [&kept[..at], &kept[(at + step).min(kept.len())..]].concat();
            runs += 1;
            let invariant = failure.violation.invariant;
            match try_with(&without).filter(|found| found.violation.invariant == invariant) {
                Some(found) => (kept, failure) = (without, found),
                None => at += step,
            }
        }
        if step == 1 || runs >= most_runs {
            return Some((kept, failure, runs));
        }
        step = step.div_ceil(2);
    }
}
