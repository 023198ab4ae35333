//! One run: a function of its seed, its profile and its faults.

use std::fmt;
use std::hash::{Hash, Hasher};

use crate::coverage::Coverage;
use crate::fault::{Fault, draw_faults};
use crate::ghost::Violation;
use crate::profile::Profile;
use crate::world::World;

/// Events after which a run is given up: a run that ends has far fewer.
const MOST_STEPS: u64 = 20_000_000;

/// All that a run depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The seed.
    pub seed: u64,
    /// What kind of run it is.
    pub profile: Profile,
    /// What is done to the cluster.
    pub faults: Vec<Fault>,
}

impl Plan {
    /// The plan of this seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self::with_profile(seed, Profile::draw(seed))
    }

    /// A plan of this seed with another profile.
    #[must_use]
    pub fn with_profile(seed: u64, profile: Profile) -> Self {
        let faults = draw_faults(seed, &profile);
        Self { seed, profile, faults }
    }
}

/// A run that went wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// At which step.
    pub step: u64,
    /// What did not hold.
    pub violation: Violation,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, step, violation } = self;
        writeln!(f, "seed {seed} step {step}: {}: {}", violation.invariant, violation.detail)?;
        write!(
            f,
            "replay: cargo run --release -p flintmq-consensus-simulator -- --seed {seed} --until \
             {step} --show"
        )
    }
}

/// What came of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Events.
    pub steps: u64,
    /// Virtual time, in microseconds.
    pub time: u64,
    /// Folds all that happened: equal for equal plans.
    pub hash: u64,
    /// Entries acknowledged, of all groups.
    pub acknowledged: u64,
    /// Leaderships, of all groups.
    pub elections: u64,
    /// What it got to.
    pub coverage: Coverage,
    /// Steps that the model explained, and why it stopped to look at groups.
    pub explained: (u64, Vec<&'static str>),
    /// What went wrong.
    pub failure: Option<Failure>,
    /// Every node's state at the end, if asked for.
    pub state: Option<String>,
}

/// How to run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Watching {
    /// Stop after this many steps.
    pub until: Option<u64>,
    /// Print every step.
    pub trace: bool,
    /// Print every step from this one on.
    pub trace_from: u64,
    /// Describe the state at the end.
    pub show: bool,
}

/// Runs a plan to its end, or to its first violation.
#[must_use]
pub fn run(plan: &Plan, watching: Watching) -> Outcome {
    let mut world = World::new(plan.seed, plan.profile.clone(), plan.faults.clone());
    let until = watching.until.unwrap_or(MOST_STEPS);
    let mut failure = None;
    loop {
        world.verbose = watching.trace && world.steps + 1 >= watching.trace_from;
        let stepped = world.step();
        let fail = |violation| Failure { seed: plan.seed, step: world.steps, violation };
        match stepped {
            Ok(true) if world.steps >= until => {
                if watching.until.is_none() {
                    let detail = format!("after {} steps", world.steps);
                    failure = Some(fail(Violation { invariant: "Endless", detail }));
                }
                break;
            }
            Ok(true) => {}
            Ok(false) => break,
            Err(violation) => {
                failure = Some(fail(violation));
                break;
            }
        }
    }
    if let Some(failure) = &failure {
        failure.violation.invariant.hash(&mut world.trace);
    }
    world.trace.write_u64(world.steps);
    Outcome {
        steps: world.steps,
        time: world.schedule.now,
        hash: world.hash(),
        acknowledged: world.ghosts.iter().map(|ghost| ghost.acked()).sum(),
        elections: world.ghosts.iter().map(|ghost| ghost.elections()).sum(),
        coverage: world.coverage.clone(),
        #[cfg(feature = "model")]
        explained: world.follower.checked(),
        #[cfg(not(feature = "model"))]
        explained: (0, Vec::new()),
        failure,
        state: watching.show.then(|| world.show()),
    }
}
