//! One run: a function of its plan.

use std::fmt;

use crate::coverage::Coverage;
use crate::oracle::Violation;
use crate::plan::Plan;
use crate::world::World;

/// Events after which a run is given up: a run that ends has far fewer.
const MOST_STEPS: u64 = 5_000_000;

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
            "replay: cargo run --release -p flintmq-cluster-simulator -- --seed {seed} --until \
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
    /// PUTs that were acknowledged.
    pub acknowledged: u64,
    /// What it got to.
    pub coverage: Coverage,
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
    /// Print what happens, from this step on.
    pub trace_from: Option<u64>,
    /// Describe the state at the end.
    pub show: bool,
}

/// Runs a plan to its end, or to its first violation.
#[must_use]
pub fn run(plan: &Plan, watching: Watching) -> Outcome {
    let mut world = World::new(plan);
    let until = watching.until.unwrap_or(MOST_STEPS);
    let mut failure = None;
    loop {
        world.verbose = watching.trace_from.is_some_and(|from| world.steps + 1 >= from);
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
    Outcome {
        steps: world.steps,
        time: world.now,
        hash: world.trace.hash(),
        acknowledged: world.acknowledged.len() as u64,
        coverage: world.coverage.clone(),
        failure,
        state: watching.show.then(|| world.show()),
    }
}

impl World {
    /// What every node has.
    pub(crate) fn show(&self) -> String {
        use std::fmt::Write as _;
        let mut text = String::new();
        for node in self.nodes.values() {
            let _ = writeln!(text, "node {} incarnation {}", node.id.0, node.incarnation);
            let Some(process) = &node.process else {
                let _ = writeln!(text, "  does not run");
                continue;
            };
            for group in process.shard.groups() {
                let Some(core) = process.shard.core(group) else { continue };
                let engine = process.shard.machine(group);
                let _ = writeln!(
                    text,
                    "  group {} {:?} term {} leader {:?} last {:?} commit {} applied {:?} members \
                     {:?} idle {:?} elsewhere {:?} waiting {}",
                    group.0,
                    core.role(),
                    core.term(),
                    core.leader().map(|leader| leader.0),
                    core.last(),
                    core.commit_index(),
                    process.shard.applied(group),
                    core.config().members().iter().map(|member| member.0).collect::<Vec<_>>(),
                    engine.map(|engine| engine.is_idle()),
                    engine.and_then(|engine| {
                        flintmq_shard::Machine::leader_elsewhere(engine)
                    }),
                    process.waiting.get(&group).map_or(0, |waiting| waiting.len()),
                );
            }
        }
        for client in &self.clients {
            let _ = writeln!(
                text,
                "client {} {:?} unacknowledged {} {:#?}",
                client.number,
                client.connection,
                client.unacknowledged.len(),
                client.uses
            );
        }
        text
    }
}
