//! Explores the models by hand and for long; see `RESULTS.md`.

use flintmq_consensus::Mutant;
use flintmq_consensus_model::harness::{self, Harness, Reach};
use flintmq_consensus_model::protocol::{
    Bounds, Options, Protocol, Shortcut, State, Walked, deposed_change, failed_order, walk,
};
use flintmq_consensus_model::search::{Effort, search, walk_once};
use std::time::{Duration, Instant};

const HELP: &str = "consensus-model [walk|script|core] [key=number ...] [option ...] [shortcut]

bounds     n=3 voters=n candidates=8 terms=2 len=3 losses=2 changes=0 forks=0 dead=0
options    versions partial joint ignore_recovering names goals trace
core       the real core: n=3 voters=n candidates=n terms=2 len=2 crashes=0 losses=1 changes=0
           dead=0 states=1000000000 slow_disks scouting all_reported, the name of a mutant
effort     threads=1 secs=3600; walk: secs=60 depth=150 seed=1
walk       random walks instead of a search
script     the counterexamples of a deposed leader's change (W15) and of a failed order";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "help") {
        println!("{HELP}\nshortcuts  {}", names());
        return;
    }
    let mut run = Run::default();
    for argument in &arguments {
        if let Err(why) = run.take(argument) {
            eprintln!("{why}\n\n{HELP}");
            std::process::exit(2);
        }
    }
    print!("{} | ", arguments.join(" "));
    if !run.run() {
        std::process::exit(1);
    }
}

fn names() -> String {
    let names: Vec<&str> = Shortcut::ALL.iter().map(|shortcut| shortcut.name()).collect();
    names.join(" ")
}

struct Run {
    bounds: Bounds,
    options: Options,
    shortcut: Option<Shortcut>,
    voters: Option<u8>,
    effort: Effort,
    secs: Option<u64>,
    depth: u64,
    seed: u64,
    walk: bool,
    script: bool,
    core: bool,
    reach: Reach,
    mutant: Option<Mutant>,
    trace: bool,
}

impl Default for Run {
    fn default() -> Self {
        Self {
            bounds: Bounds::default(),
            options: Options { symmetry: true, ..Options::default() },
            shortcut: None,
            voters: None,
            effort: Effort::default(),
            secs: None,
            depth: 150,
            seed: 1,
            walk: false,
            script: false,
            core: false,
            reach: Reach::default(),
            mutant: None,
            trace: false,
        }
    }
}

impl Run {
    fn take(&mut self, argument: &str) -> Result<(), String> {
        if let Some((key, value)) = argument.split_once('=') {
            let number: u64 =
                value.parse().map_err(|_| format!("not a number: {argument}, give digits only"))?;
            return self.set(key, number);
        }
        match argument {
            "walk" => self.walk = true,
            "script" => self.script = true,
            "core" => self.core = true,
            "slow_disks" => self.reach.slow_disks = true,
            "scouting" => self.reach.scouting = true,
            "all_reported" => self.reach.all_reported = true,
            name if name.starts_with('W') => {
                let mutant = Mutant::ALL.into_iter().find(|m| format!("{m:?}").starts_with(name));
                self.mutant = Some(mutant.ok_or_else(|| format!("not known: {name}"))?);
            }
            "trace" => self.trace = true,
            "versions" => self.options.versions = true,
            "partial" => self.options.partial = true,
            "joint" => self.options.joint = true,
            "ignore_recovering" => self.options.ignore_recovering = true,
            "names" => self.options.symmetry = false,
            "goals" => self.options.goals = true,
            name => {
                let shortcut = Shortcut::named(name);
                self.shortcut = Some(shortcut.ok_or_else(|| format!("not known: {name}"))?);
            }
        }
        Ok(())
    }

    fn set(&mut self, key: &str, number: u64) -> Result<(), String> {
        if self.core {
            return self.set_reach(key, number);
        }
        let small = u8::try_from(number).map_err(|_| format!("too great: {key}={number}"));
        let bounds = &mut self.bounds;
        match key {
            "n" => bounds.nodes = small?,
            "voters" => self.voters = Some(small?),
            "candidates" => bounds.candidates = small?,
            "terms" => bounds.terms = small?,
            "len" => bounds.len = small?,
            "losses" => bounds.losses = small?,
            "changes" => bounds.changes = small?,
            "forks" => bounds.forks = small?,
            "dead" => bounds.dead = small?,
            "threads" => self.effort.threads = usize::from(small?),
            "secs" => self.secs = Some(number),
            "depth" => self.depth = number,
            "seed" => self.seed = number,
            _ => return Err(format!("not known: {key}")),
        }
        Ok(())
    }

    fn set_reach(&mut self, key: &str, number: u64) -> Result<(), String> {
        let small = u8::try_from(number).map_err(|_| format!("too great: {key}={number}"));
        let reach = &mut self.reach;
        match key {
            "n" => {
                reach.nodes = small?.into();
                (reach.voters, reach.candidates) = (reach.nodes, reach.nodes);
            }
            "voters" => reach.voters = small?.into(),
            "candidates" => reach.candidates = small?.into(),
            "terms" => reach.terms = number,
            "len" => reach.len = number,
            "crashes" => reach.crashes = small?,
            "losses" => reach.losses = small?,
            "changes" => reach.changes = small?,
            "dead" => self.reach.dead = small?.into(),
            "threads" => self.effort.threads = usize::from(small?),
            "secs" => self.secs = Some(number),
            "depth" => self.depth = number,
            "seed" => self.seed = number,
            "states" => self.effort.states = usize::try_from(number).unwrap_or(usize::MAX),
            _ => return Err(format!("not known of the core: {key}")),
        }
        Ok(())
    }

    fn check_core(&self) -> bool {
        let harness = match self.mutant {
            Some(mutant) => Harness::broken(self.reach, mutant),
            None => Harness::new(self.reach),
        };
        if self.walk {
            return self.walk_core(&harness);
        }
        let time = Duration::from_secs(self.secs.unwrap_or(3600));
        let found = search(harness, Effort { time, ..self.effort });
        println!("{found}");
        if let Some((_, way)) = &found.violated
            && self.trace
        {
            for (state, action) in way {
                show_replicas(state);
                if let Some(action) = action {
                    println!("=> {action:?}");
                }
            }
        }
        found.violated.is_none()
    }

    /// False when something was violated.
    fn run(mut self) -> bool {
        self.bounds.voters = self.voters.unwrap_or(self.bounds.nodes);
        let model =
            Protocol { bounds: self.bounds, options: self.options, shortcut: self.shortcut };
        if self.core {
            return self.check_core();
        }
        if self.script {
            let (one, two) = (deposed_change(self.shortcut), failed_order(self.shortcut));
            println!("deposed change: {one:?} | failed order: {two:?}");
            return true;
        }
        if self.walk {
            return self.walk(model);
        }
        let time = Duration::from_secs(self.secs.unwrap_or(3600));
        let found = search(model, Effort { time, ..self.effort });
        println!("{found}");
        if let Some((_, way)) = &found.violated
            && self.trace
        {
            for (state, action) in way {
                show(state);
                if let Some(action) = action {
                    println!("=> {action:?}");
                }
            }
        }
        found.violated.is_none()
    }

    fn walk_core(&self, harness: &Harness) -> bool {
        let (start, mut seed, mut steps) = (Instant::now(), self.seed, 0u64);
        let time = Duration::from_secs(self.secs.unwrap_or(60));
        while start.elapsed() < time {
            let found =
                walk_once(harness, seed, self.depth, harness::Action::weight, |_| steps += 1);
            if let Some((property, trace)) = found {
                println!("VIOLATED {property} with seed={seed} in {} steps", trace.len());
                for (action, state) in trace.iter().filter(|_| self.trace) {
                    println!("=> {action:?}");
                    show_replicas(state);
                }
                return false;
            }
            seed += 1;
        }
        let (walks, secs) = (seed - self.seed, start.elapsed().as_secs_f64());
        println!("holds in random walks | walks {walks} | steps {steps} | {secs:.0} s");
        true
    }

    fn walk(&self, mut model: Protocol) -> bool {
        model.options.symmetry = false;
        let (start, mut walked, mut seed) = (Instant::now(), Walked::default(), self.seed);
        let time = Duration::from_secs(self.secs.unwrap_or(60));
        while start.elapsed() < time && walked.violated.is_none() {
            walk(&model, seed, self.depth, &mut walked);
            seed += 1;
        }
        let Walked { steps, leaders, commits, changes, forks, .. } = walked;
        let (walks, secs) = (seed - self.seed, start.elapsed().as_secs_f64());
        let counts = format!(
            "walks {walks} | steps {steps} | leaders {leaders} | commits {commits} | \
             changes {changes} | forks {forks} | {secs:.0} s"
        );
        let Some((property, trace)) = walked.violated else {
            println!("holds in random walks | {counts}");
            return true;
        };
        println!("VIOLATED {property} with seed={} in {} steps | {counts}", seed - 1, trace.len());
        if self.trace {
            for (action, state) in trace {
                println!("=> {action:?}");
                show(&state);
            }
        }
        false
    }
}

fn show(state: &State) {
    for (number, node) in state.nodes.iter().enumerate() {
        let config = node.config;
        println!(
            "  node {number} term {} {:?}{}{} log {:?} config ({},{}) {:05b}/{:05b}{}",
            node.term,
            node.role,
            if node.recovering { " recovering" } else { "" },
            if state.dead & (1 << number) != 0 { " DEAD" } else { "" },
            node.log.terms(),
            config.term,
            config.version,
            config.voters,
            config.outgoing,
            if node.order != 0 { " ordered" } else { "" },
        );
    }
    let committed: Vec<_> =
        state.committed.iter().map(|entry| (entry.index, entry.term, entry.by)).collect();
    println!("  committed (index, term, by) {committed:?}");
}

fn show_replicas(state: &harness::State) {
    if let Some(broken) = state.broken {
        println!("  WRONG: {broken}");
    }
    for (node, replica) in &state.replicas {
        let (core, disk) = (&replica.core, &replica.disk);
        let log: Vec<_> = disk.log.iter().map(|entry| entry.term).collect();
        let recovering = core.recovering().map_or("", |_| " recovering");
        let config = core.config();
        println!(
            "  node {node} term {} (disk {}) {:?}{recovering} log {log:?} last {:?} commit {} \
             config {:?} {:?}/{:?}",
            core.term(),
            disk.hard.term,
            core.role(),
            core.last(),
            core.commit_index(),
            config.stamp,
            config.voters,
            config.outgoing,
        );
    }
}
