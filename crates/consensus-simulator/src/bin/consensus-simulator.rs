//! Runs seeds, replays one, or makes a failing one shorter.

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use clap::Parser;
use flintmq_consensus_simulator::{Coverage, Failure, Outcome, Plan, Watching, run, shrink};

/// Simulates clusters of the consensus core with faults.
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
    /// Print every step.
    #[arg(long)]
    trace: bool,
    /// Print every step from this one on.
    #[arg(long, default_value_t = 0)]
    trace_from: u64,
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
    /// Break this rule.
    #[cfg(feature = "mutants")]
    #[arg(long)]
    mutant: Option<String>,
    /// Break nothing after all, in the runs that are made for the mutant.
    #[cfg(feature = "mutants")]
    #[arg(long)]
    sound: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match &arguments.seeds {
        None => one(&arguments),
        Some(seeds) => {
            let range = seeds
                .split_once("..")
                .and_then(|(from, to)| Some((from.parse::<u64>().ok()?, to.parse::<u64>().ok()?)));
            let Some((from, to)) = range else {
                eprintln!("--seeds takes FROM..TO");
                return ExitCode::from(2);
            };
            many(&arguments, from, to)
        }
    }
}

impl Arguments {
    fn make_plan(&self, seed: u64) -> Plan {
        let mut plan = self.whole_plan(seed);
        if let Some(kept) = &self.faults {
            let mut number = 0;
            plan.faults.retain(|_| {
                number += 1;
                kept.contains(&(number - 1))
            });
        }
        plan
    }

    #[cfg(feature = "mutants")]
    fn whole_plan(&self, seed: u64) -> Plan {
        use flintmq_consensus_simulator::mutants;
        match &self.mutant {
            None => Plan::new(seed),
            Some(name) if name.starts_with('N') => {
                let mut all = flintmq_consensus::NodeMutant::ALL.into_iter();
                let mutant = all.find(|m| format!("{m:?}").starts_with(name));
                mutants::node_plan(seed, mutant.filter(|_| !self.sound))
            }
            Some(name) => match mutants::find(name) {
                Some(trial) if self.sound => trial.sound_plan(seed),
                Some(trial) => trial.plan(seed),
                None => panic!("no such mutant: {name}; there are {:?}", mutants::names()),
            },
        }
    }

    #[cfg(not(feature = "mutants"))]
    fn whole_plan(&self, seed: u64) -> Plan {
        let _ = self;
        Plan::new(seed)
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
        let Some((kept, failure, runs)) = shrink(&plan, 2_000) else {
            println!("seed {} does not fail", plan.seed);
            return ExitCode::SUCCESS;
        };
        println!("{failure}");
        for number in &kept {
            println!("{number:>4} {:?}", plan.faults[*number]);
        }
        let list: Vec<String> = kept.iter().map(ToString::to_string).collect();
        println!(
            "{} of {} faults, {runs} runs: --faults {}",
            kept.len(),
            plan.faults.len(),
            list.join(",")
        );
        return ExitCode::FAILURE;
    }
    let Arguments { until, trace, trace_from, show, .. } = *arguments;
    let outcome = run(&plan, Watching { until, trace: trace || trace_from > 0, trace_from, show });
    report(&outcome);
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

fn report(outcome: &Outcome) {
    if let Some(state) = &outcome.state {
        print!("{state}");
    }
    println!(
        "{} steps, {} ms of virtual time, {} entries acknowledged, {} leaderships, trace {:016x}",
        outcome.steps,
        outcome.time / 1000,
        outcome.acknowledged,
        outcome.elections,
        outcome.hash
    );
}

#[derive(Default)]
struct Sum {
    runs: u64,
    steps: u64,
    acknowledged: u64,
    explained: u64,
    coverage: Coverage,
    failures: Vec<Failure>,
}

fn many(arguments: &Arguments, from: u64, to: u64) -> ExitCode {
    let next = AtomicU64::new(from);
    let sum = Mutex::new(Sum::default());
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..arguments.jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= to {
                        break;
                    }
                    let outcome = run(&arguments.make_plan(seed), Watching::default());
                    let mut sum = sum.lock().expect("no thread panics while it adds");
                    sum.runs += 1;
                    sum.steps += outcome.steps;
                    sum.acknowledged += outcome.acknowledged;
                    sum.explained += outcome.explained.0;
                    sum.coverage.add(&outcome.coverage);
                    if let Some(failure) = outcome.failure {
                        println!("{failure}");
                        sum.failures.push(failure);
                        if sum.failures.len() >= arguments.failures {
                            next.store(to, Ordering::Relaxed);
                        }
                    }
                }
            });
        }
    });
    let sum = sum.into_inner().expect("no thread panics while it adds");
    let secs = began.elapsed().as_secs_f64();
    println!(
        "{} seeds, {} failed, {} steps, {} entries acknowledged, {secs:.1} s",
        sum.runs,
        sum.failures.len(),
        sum.steps,
        sum.acknowledged
    );
    if sum.explained > 0 {
        println!("{} steps explained by the model", sum.explained);
    }
    if arguments.coverage {
        print!("{}", sum.coverage);
    }
    if sum.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
