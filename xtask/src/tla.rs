//! `cargo xtask spec`: lets TLC check the TLA+ models in `spec/` with the constants of
//! `spec/runs.txt`, and compares what it finds with what it has to find.

use std::collections::VecDeque;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::tla_table::{Run, Size};
use crate::{places, setup, tla_table, tla_tools};

/// Sets how many processors TLC may use.
const WORKERS: &str = "FLINTMQ_SPEC_WORKERS";

/// What TLC said at the end of a run.
#[derive(Debug, Default, PartialEq, Eq)]
struct Found {
    /// `holds`, the name of what is broken, or TLC's complaint.
    verdict: String,
    /// Length of the counterexample, in states.
    trace: u64,
    states: u64,
    distinct: u64,
    depth: u64,
}

/// `cargo xtask spec [small|medium|large] [NAME]`.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let root = places::checkout()?;
    let mut size = None;
    let mut name = None;
    for argument in arguments {
        match Size::from_name(argument) {
            Some(given) if size.is_none() => size = Some(given),
            None if name.is_none() => name = Some(argument.as_str()),
            _ => bail!("usage: cargo xtask spec [small|medium|large] [NAME]"),
        }
    }
    // A name alone is enough, whatever its size.
    let size = if name.is_none() { size.or(Some(Size::Small)) } else { size };
    setup::model_checker()?;
    check(&root, size, name)
}

/// Runs what is of this size and has this name, where they are given.
pub(crate) fn check(root: &Path, size: Option<Size>, name: Option<&str>) -> Result<()> {
    let table = root.join("spec/runs.txt");
    let text =
        fs::read_to_string(&table).with_context(|| format!("cannot read {}", table.display()))?;
    let runs: Vec<Run> = tla_table::parse(&text)?
        .into_iter()
        .filter(|run| size.is_none_or(|size| run.size == size))
        .filter(|run| name.is_none_or(|name| run.name == name))
        .collect();
    if runs.is_empty() {
        bail!("no such run in {}", table.display());
    }
    let jar = tla_tools::jar()?;
    let folder = env::temp_dir().join(format!("flintmq-spec-{}", std::process::id()));
    let processors = processors();
    // Short runs are mostly the start of a virtual machine, so they run beside each other.
    let (jobs, workers) = match size {
        Some(Size::Small) => (processors, 1),
        _ => (1, processors),
    };
    println!(
        "    {:<22} {:<20} {:<20} {:>5} {:>12} {:>11} {:>5} {:>8}",
        "run", "expected", "found", "trace", "states", "distinct", "depth", "seconds"
    );
    let count = runs.len();
    let waiting = Mutex::new(VecDeque::from(runs));
    let wrong = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..jobs.min(count) {
            scope.spawn(|| {
                while let Some(run) = locked(&waiting).pop_front() {
                    let place = folder.join(&run.name);
                    match explore(root, &jar, &run, &place, workers) {
                        Ok(true) => {}
                        Ok(false) => locked(&wrong).push(run.name.clone()),
                        Err(error) => locked(&wrong).push(format!("{}: {error:#}", run.name)),
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap_or_else(PoisonError::into_inner);
    if !wrong.is_empty() {
        let outputs = folder.display();
        bail!("not as expected: {}; TLC's output is in {outputs}", wrong.join("; "));
    }
    // Whatever is left of it does no harm.
    let _ = fs::remove_dir_all(&folder);
    println!("    {count} runs, all as expected");
    Ok(())
}

fn processors() -> usize {
    let asked = env::var(WORKERS).ok().and_then(|value| value.parse().ok());
    let there = || std::thread::available_parallelism().map_or(1, usize::from);
    asked.unwrap_or_else(there).max(1)
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One run of TLC in a folder of its own; true when it found what it has to find.
fn explore(root: &Path, jar: &Path, run: &Run, place: &Path, workers: usize) -> Result<bool> {
    let began = Instant::now();
    copy_modules(&root.join("spec"), place)?;
    fs::write(place.join("run.cfg"), run.configuration())?;
    let output = place.join("output.txt");
    let file = fs::File::create(&output)?;
    let memory = if run.size == Size::Small { "-Xmx1g" } else { "-Xmx4g" };
    let mut java = Command::new("java");
    java.current_dir(place).args(["-XX:+UseParallelGC", memory]);
    if run.size == Size::Small {
        // The better compiler costs more than it gains within seconds.
        java.args(["-XX:TieredStopAtLevel=1", "-XX:ParallelGCThreads=1"]);
    }
    java.arg("-cp").arg(jar).arg("tlc2.TLC").arg("-deadlock");
    java.args(["-workers", &workers.to_string(), "-metadir"]).arg(place.join("states"));
    java.args(["-config", "run.cfg", &format!("{}.tla", run.module)]);
    java.stdout(file.try_clone()?).stderr(file);
    java.status().context("cannot run java")?;
    // The queue of states on the disk can be large, and nobody needs it any more.
    let _ = fs::remove_dir_all(place.join("states"));
    let found = read(&fs::read_to_string(&output)?);
    let counted = run.distinct.is_none_or(|distinct| distinct == found.distinct);
    let right = found.verdict == run.expect && counted;
    println!("{}", line(run, &found, began.elapsed(), right));
    if !counted {
        println!("           distinct states expected: {:?}", run.distinct);
    }
    Ok(right)
}

fn copy_modules(spec: &Path, place: &Path) -> Result<()> {
    fs::create_dir_all(place).with_context(|| format!("cannot make {}", place.display()))?;
    for entry in fs::read_dir(spec).with_context(|| format!("cannot list {}", spec.display()))? {
        let path: PathBuf = entry?.path();
        if let Some(name) =
            path.file_name().filter(|_| path.extension().is_some_and(|e| e == "tla"))
        {
            fs::copy(&path, place.join(name))?;
        }
    }
    Ok(())
}

fn line(run: &Run, found: &Found, took: Duration, right: bool) -> String {
    format!(
        "{} {:<22} {:<20} {:<20} {:>5} {:>12} {:>11} {:>5} {:>8.1}",
        if right { "   " } else { "!!!" },
        run.name,
        run.expect,
        found.verdict,
        if found.trace == 0 { "-".to_owned() } else { found.trace.to_string() },
        found.states,
        found.distinct,
        found.depth,
        took.as_secs_f64(),
    )
}

/// What TLC's output comes to.
fn read(output: &str) -> Found {
    let mut found = Found::default();
    let mut complaint = None;
    for line in output.lines() {
        let broken = line.strip_prefix("Error: ").and_then(|rest| {
            let names = ["Invariant ", "Action property ", "Property "];
            let rest = names.iter().find_map(|name| rest.strip_prefix(name))?;
            rest.split_once(" is violated").map(|(name, _)| name)
        });
        if let Some(name) = broken {
            found.verdict = name.to_owned();
        } else if line.starts_with("Error: Temporal properties were violated") {
            found.verdict = "temporal".to_owned();
        } else if line.contains("No error has been found") {
            found.verdict = "holds".to_owned();
        } else if let Some(rest) = line.strip_prefix("Error: ") {
            complaint.get_or_insert_with(|| rest.to_owned());
        } else if line.starts_with("State ") {
            found.trace += 1;
        } else if line.contains(" states generated") && line.contains(" distinct states found") {
            // The closing line, and the progress lines, which put times before it.
            let counted = line.rsplit_once("): ").map_or(line, |(_, counts)| counts);
            (found.states, found.distinct) = counts(counted).unwrap_or_default();
        } else if let Some(rest) =
            line.strip_prefix("The depth of the complete state graph search is ")
        {
            found.depth = number(rest).unwrap_or_default();
        }
    }
    if found.verdict.is_empty() {
        found.verdict = complaint.unwrap_or_else(|| "no verdict".to_owned());
    }
    found
}

fn counts(line: &str) -> Option<(u64, u64)> {
    let (states, rest) = line.split_once(" states generated")?;
    let distinct = rest.split(", ").find(|part| part.contains("distinct states found"))?;
    Some((number(states)?, number(distinct)?))
}

fn number(text: &str) -> Option<u64> {
    let digits: String =
        text.trim().chars().take_while(|c| c.is_ascii_digit() || *c == ',').collect();
    digits.replace(',', "").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_that_ends_without_a_finding_holds() {
        let output = "\
Model checking completed. No error has been found.
Progress(9) at 2026-01-01 00:00:00: 1,100 states generated, 170 distinct states found.
3493910 states generated, 340338 distinct states found, 0 states left on queue.
The depth of the complete state graph search is 21.
";
        let found = read(output);
        assert_eq!(
            found,
            Found {
                verdict: "holds".to_owned(),
                trace: 0,
                states: 3_493_910,
                distinct: 340_338,
                depth: 21
            }
        );
    }

    #[test]
    fn a_broken_invariant_is_named_and_its_trace_counted() {
        let output = "\
Error: Invariant LeaderCompleteness is violated.
Error: The behavior up to this point is:
State 1: <Initial predicate>
/\\ term = 0
State 2: <Next line 1>
17581 states generated, 4012 distinct states found, 12 states left on queue.
";
        let found = read(output);
        assert_eq!((found.verdict.as_str(), found.trace), ("LeaderCompleteness", 2));
        assert_eq!((found.states, found.distinct), (17_581, 4012));
    }

    #[test]
    fn a_complaint_is_no_verdict() {
        assert_eq!(read("Error: Parsing failed\n").verdict, "Parsing failed");
        assert_eq!(read("").verdict, "no verdict");
    }

    /// The table in the checkout can be read, and names modules that are there.
    #[test]
    fn the_table_fits_the_modules() {
        let root = places::checkout().expect("in a checkout");
        let text = fs::read_to_string(root.join("spec/runs.txt")).expect("there is a table");
        for run in tla_table::parse(&text).expect("the table is right") {
            let module = root.join(format!("spec/{}.tla", run.module));
            assert!(module.is_file(), "{}: no {}", run.name, module.display());
        }
    }
}
