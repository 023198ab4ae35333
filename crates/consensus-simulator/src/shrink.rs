//! Leaves faults out of a failing run as long as it still fails.

use crate::fault::Fault;
use crate::run::{Failure, Plan, Watching, run};

/// The shortest list of faults found with which the plan still violates the same invariant, with
/// their numbers in the plan; the failure that is left; and how many runs it took.
#[must_use]
pub fn shrink(plan: &Plan, most_runs: u64) -> Option<(Vec<usize>, Failure, u64)> {
    let fails = |numbers: &[usize]| -> Option<Failure> {
        let faults: Vec<Fault> =
            numbers.iter().filter_map(|number| plan.faults.get(*number).cloned()).collect();
        run(&Plan { faults, ..plan.clone() }, Watching::default()).failure
    };
    let mut kept: Vec<usize> = (0..plan.faults.len()).collect();
    let mut failure = fails(&kept)?;
    let invariant = failure.violation.invariant;
    let mut runs = 1;
    let mut parts = 2;
    while kept.len() > 1 && runs < most_runs {
        let size = kept.len().div_ceil(parts);
        let mut smaller = None;
        for at in (0..kept.len()).step_by(size) {
            let mut rest = kept.clone();
            rest.drain(at..(at + size).min(kept.len()));
            runs += 1;
            if let Some(found) = fails(&rest).filter(|f| f.violation.invariant == invariant) {
                smaller = Some((rest, found));
                break;
            }
        }
        match smaller {
            Some((rest, found)) => {
                (kept, failure) = (rest, found);
                parts = (parts - 1).max(2);
            }
            None if size == 1 => break,
            None => parts = (parts * 2).min(kept.len()),
        }
    }
    Some((kept, failure, runs))
}
