//! Runs seeds, replays one, or makes a failing one shorter.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use clap::Parser;
#[cfg(feature = "mutants")]
use flintmq_cluster_simulator::Trial;
use flintmq_cluster_simulator::{Coverage, Failure, Plan, Watching, run, shrink};
#[cfg(feature = "mutants")]
use flintmq_shard::mutants::set;

/// Simulates whole clusters with faults.
#[derive(Debug, Parser)]
struct Arguments {
    /// Run this seed.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Run these seeds: FROM..TO.
    #[arg(long)]
    seeds: Option<String>,
    /// Run seeds on this many threads.
    #[arg(long, default_value_t = 1)]
    jobs: usize,
    /// Stop after this many failing seeds.
    #[arg(long, default_value_t = 10)]
    failures: usize,
    /// Stop after this many steps.
    #[arg(long)]
    until: Option<u64>,
    /// Print every node's state at the end.
    #[arg(long)]
    show: bool,
    /// Print what happens, from this step on.
    #[arg(long)]
    trace_from: Option<u64>,
    /// Print what the crates log, down to this level.
    #[arg(long)]
    log: Option<tracing::Level>,
    /// Print the profile and the faults.
    #[arg(long)]
    plan: bool,
    /// Leave faults out as long as the run fails.
    #[arg(long)]
    shrink: bool,
    /// Keep only these faults, by their numbers: 3,17,20.
    #[arg(long, value_delimiter = ',')]
    faults: Option<Vec<usize>>,
    /// Print what was covered.
    #[arg(long)]
    coverage: bool,
    /// Break this rule, in runs that are likely to notice.
    #[cfg(feature = "mutants")]
    #[arg(long)]
    mutant: Option<String>,
    /// The runs of `--mutant` with the rule in force.
    #[cfg(feature = "mutants")]
    #[arg(long)]
    unbroken: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(level) = arguments.log {
        tracing_subscriber::fmt().with_max_level(level).without_time().init();
    }
    let Some(seeds) = &arguments.seeds else { return one(&arguments) };
    let range = seeds
        .split_once("..")
        .and_then(|(from, to)| Some((from.parse::<u64>().ok()?, to.parse::<u64>().ok()?)));
    let Some((from, to)) = range else {
        eprintln!("--seeds takes FROM..TO");
        return ExitCode::from(2);
    };
    many(&arguments, from, to)
}

impl Arguments {
    #[cfg(not(feature = "mutants"))]
    fn draw(&self, seed: u64) -> Plan {
        Plan::new(seed)
    }

    #[cfg(feature = "mutants")]
    fn draw(&self, seed: u64) -> Plan {
        let Some(name) = &self.mutant else { return Plan::new(seed) };
        let known: Vec<_> = Trial::ALL.iter().map(|trial| trial.mutant).collect();
        let Some(trial) = Trial::find(name) else { panic!("--mutant takes one of {known:?}") };
        set(Some(trial.mutant).filter(|_| !self.unbroken));
        trial.plan(seed)
    }

    fn make_plan(&self, seed: u64) -> Plan {
        let mut plan = self.draw(seed);
        if let Some(kept) = &self.faults {
            let all = std::mem::take(&mut plan.faults);
            let numbered = all.into_iter().enumerate();
            plan.faults =
                numbered.filter(|(number, _)| kept.contains(number)).map(|(_, f)| f).collect();
        }
        plan
    }
}

fn one(arguments: &Arguments) -> ExitCode {
    let plan = arguments.make_plan(arguments.seed);
    if arguments.plan {
        println!("{:#?}", plan.profile);
        for (number, fault) in plan.faults.iter().enumerate() {
            println!("{number:>4} {fault:?}");
        }
    }
    if arguments.shrink {
        let Some((kept, failure, runs)) = shrink(&plan, 500) else {
            println!("seed {} does not fail", plan.seed);
            return ExitCode::SUCCESS;
        };
        println!("{failure}");
        for number in &kept {
            println!("{number:>4} {:?}", plan.faults[*number]);
        }
        let list: Vec<String> = kept.iter().map(ToString::to_string).collect();
        println!("{runs} runs: --faults {}", list.join(","));
        return ExitCode::FAILURE;
    }
    let Arguments { until, trace_from, show, .. } = *arguments;
    let outcome = run(&plan, Watching { until, trace_from, show });
    println!(
        "seed {}: {} steps, {:.3} s, {} acknowledged, hash {:016x}",
        plan.seed,
        outcome.steps,
        outcome.time as f64 / 1e6,
        outcome.acknowledged,
        outcome.hash
    );
    if let Some(state) = &outcome.state {
        print!("{state}");
    }
    if arguments.coverage {
        print!("{}", outcome.coverage);
    }
    match &outcome.failure {
        Some(failure) => {
            println!("{failure}");
            ExitCode::FAILURE
        }
        None => ExitCode::SUCCESS,
    }
}

#[derive(Default)]
struct Sum {
    coverage: Coverage,
    failures: BTreeMap<u64, Failure>,
    seeds: u64,
    steps: u64,
    acknowledged: u64,
}

fn many(arguments: &Arguments, from: u64, to: u64) -> ExitCode {
    let (next, begun) = (AtomicU64::new(from), Instant::now());
    let sum = Mutex::new(Sum::default());
    std::thread::scope(|scope| {
        for _ in 0..arguments.jobs {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= to {
                        return;
                    }
                    let outcome = run(&arguments.make_plan(seed), Watching::default());
                    let mut sum = sum.lock().expect("no thread panics while it adds");
                    sum.coverage.add(&outcome.coverage);
                    sum.seeds += 1;
                    sum.steps += outcome.steps;
                    sum.acknowledged += outcome.acknowledged;
                    if let Some(failure) = outcome.failure {
                        println!("{failure}");
                        sum.failures.insert(seed, failure);
                    }
                    if sum.failures.len() >= arguments.failures {
                        return;
                    }
                }
            });
        }
    });
    let sum = sum.into_inner().expect("no thread panics while it adds");
    println!(
        "{} seeds, {} steps, {} acknowledged, {} failed, {:.1} s",
        sum.seeds,
        sum.steps,
        sum.acknowledged,
        sum.failures.len(),
        begun.elapsed().as_secs_f64()
    );
    if arguments.coverage {
        print!("{}", sum.coverage);
    }
    println!("never seen: {:?}", sum.coverage.missing());
    if sum.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
