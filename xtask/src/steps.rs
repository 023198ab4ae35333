//! Runs named steps one after the other, stops at the first failure, and says what took how long.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

/// The record of one run.
pub(crate) struct Steps {
    planned: usize,
    finished: Vec<Finished>,
    tests: TestCount,
}

struct Finished {
    name: String,
    took: Duration,
    passed: bool,
}

/// Sums of the test runners' closing lines.
#[derive(Debug, Default, PartialEq, Eq)]
struct TestCount {
    passed: u64,
    failed: u64,
    ignored: u64,
}

impl Steps {
    /// A run of `planned` steps; the number is only shown.
    pub(crate) fn new(planned: usize) -> Self {
        Self { planned, finished: Vec::new(), tests: TestCount::default() }
    }

    /// Runs one step. The error of a failed step carries the summary of the whole run.
    pub(crate) fn step(
        &mut self,
        name: &str,
        work: impl FnOnce(&mut Output<'_>) -> Result<()>,
    ) -> Result<()> {
        println!("\n==> [{}/{}] {name}", self.finished.len() + 1, self.planned);
        let began = Instant::now();
        let result = work(&mut Output { tests: &mut self.tests });
        self.finished.push(Finished {
            name: name.to_owned(),
            took: began.elapsed(),
            passed: result.is_ok(),
        });
        result.map_err(|error| anyhow!("step failed: {name}: {error:#}\n{}", self.summary()))
    }

    /// One line per step with its time, and the sum of all tests.
    pub(crate) fn summary(&self) -> String {
        let mut text = String::new();
        let mut total = Duration::ZERO;
        for step in &self.finished {
            total += step.took;
            let mark = if step.passed { "ok    " } else { "FAILED" };
            let _ = writeln!(text, "  {mark} {:>8}  {}", clock(step.took), step.name);
        }
        let _ = write!(
            text,
            "  {} of {} steps in {}; tests: {} passed, {} failed, {} ignored",
            self.finished.iter().filter(|step| step.passed).count(),
            self.planned,
            clock(total),
            self.tests.passed,
            self.tests.failed,
            self.tests.ignored,
        );
        text
    }
}

/// What a step uses to run programs.
pub(crate) struct Output<'run> {
    tests: &'run mut TestCount,
}

impl Output<'_> {
    /// Runs a program with its output on the terminal.
    pub(crate) fn run(&mut self, command: &mut Command) -> Result<()> {
        finish(command, command_line(command), |command| Ok(command.status()?))
    }

    /// Runs a test runner: its output is shown as it comes and its closing lines are counted.
    pub(crate) fn run_tests(&mut self, command: &mut Command) -> Result<()> {
        let line = command_line(command);
        let tests = &mut *self.tests;
        finish(command, line, |command| {
            let mut child = command.stdout(Stdio::piped()).spawn()?;
            let stdout = child.stdout.take().context("the test runner has no output")?;
            let mut reader = BufReader::new(stdout);
            let mut bytes = Vec::new();
            while reader.read_until(b'\n', &mut bytes)? > 0 {
                std::io::stdout().write_all(&bytes)?;
                tests.add(&String::from_utf8_lossy(&bytes));
                bytes.clear();
            }
            Ok(child.wait()?)
        })
    }
}

impl TestCount {
    fn add(&mut self, line: &str) {
        let Some(rest) = line.strip_prefix("test result: ") else { return };
        for part in rest.split([';', '.']) {
            let mut words = part.split_whitespace();
            let (Some(count), Some(what)) = (words.next(), words.next()) else { continue };
            let Ok(count) = count.parse::<u64>() else { continue };
            match what {
                "passed" => self.passed += count,
                "failed" => self.failed += count,
                "ignored" => self.ignored += count,
                _ => {}
            }
        }
    }
}

fn finish(
    command: &mut Command,
    line: String,
    run: impl FnOnce(&mut Command) -> Result<std::process::ExitStatus>,
) -> Result<()> {
    println!("    {line}");
    let status = run(command).with_context(|| format!("cannot run: {line}"))?;
    if !status.success() {
        bail!("{status}: {line}");
    }
    Ok(())
}

fn command_line(command: &Command) -> String {
    let program = command.get_program().to_string_lossy();
    let mut line = program.rsplit('/').next().unwrap_or_default().to_owned();
    for argument in command.get_args() {
        let _ = write!(line, " {}", argument.to_string_lossy());
    }
    line
}

fn clock(time: Duration) -> String {
    let seconds = time.as_secs();
    if seconds >= 60 {
        format!("{}m {:02}s", seconds / 60, seconds % 60)
    } else {
        format!("{:.1}s", time.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_the_runner_s_closing_lines() {
        let mut count = TestCount::default();
        count.add("test something ... ok\n");
        count.add("test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out\n");
        count.add("test result: FAILED. 2 passed; 3 failed; 0 ignored; 0 measured\n");
        assert_eq!(count, TestCount { passed: 14, failed: 3, ignored: 1 });
    }

    #[test]
    fn a_failed_step_names_itself_and_what_ran_before() {
        let mut steps = Steps::new(3);
        steps.step("first", |_| Ok(())).expect("passes");
        let error = steps.step("second", |_| bail!("no luck")).expect_err("fails");
        let text = format!("{error:#}");
        assert!(text.contains("step failed: second"), "{text}");
        assert!(text.contains("no luck"), "{text}");
        assert!(text.contains("1 of 3 steps"), "{text}");
    }

    #[test]
    fn a_program_that_fails_fails_its_step() {
        let mut steps = Steps::new(1);
        let error = steps
            .step("false", |output| output.run(&mut Command::new("false")))
            .expect_err("fails");
        assert!(format!("{error:#}").contains("exit status: 1"));
    }
}
