//! Runs the scripts of `tests/python` with the official client and collects what they report.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::{BufReader, Write as _};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use serde_json::Value;

use crate::broker_process::Broker;
use crate::programs;
use crate::wait::LIMIT;

/// One line that a script reported.
#[derive(Clone, Debug)]
pub struct Event {
    /// What happened: `delivered`, `acked`, `session` …
    pub name: String,
    /// When, in nanoseconds of the machine's monotonic clock, the same for all processes.
    pub at: u64,
    /// Everything that was reported with it.
    pub facts: Value,
}

impl Event {
    /// A text among the facts; empty when it is not there.
    pub fn text(&self, name: &str) -> &str {
        self.facts[name].as_str().unwrap_or_default()
    }
}

/// Everything that one script has reported, in order.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The events.
    pub events: Vec<Event>,
}

impl Report {
    /// The events of one name.
    pub fn named<'report>(&'report self, name: &str) -> impl Iterator<Item = &'report Event> {
        self.events.iter().filter(move |event| event.name == name)
    }

    /// How many events of one name there are.
    pub fn count(&self, name: &str) -> usize {
        self.named(name).count()
    }

    /// The ids of the messages in the events of one name, in order.
    pub fn ids(&self, name: &str) -> Vec<String> {
        self.named(name).map(|event| event.text("id").to_owned()).collect()
    }

    /// The same as a set.
    pub fn id_set(&self, name: &str) -> BTreeSet<String> {
        self.named(name).map(|event| event.text("id").to_owned()).collect()
    }

    /// The ids of the messages that were acknowledged with this status.
    pub fn acknowledged_with(&self, status: &str) -> BTreeSet<String> {
        self.named("acked")
            .filter(|event| event.text("status") == status)
            .map(|event| event.text("id").to_owned())
            .collect()
    }

    /// Whether the connection was reported in this state at least once (`ConnectionLost` …).
    pub fn session_was(&self, kind: &str) -> bool {
        self.named("session").any(|event| event.text("kind") == kind)
    }
}

/// A running script.
#[derive(Debug)]
pub struct PythonClient {
    name: String,
    process: Child,
    input: Option<ChildStdin>,
    shared: Arc<Shared>,
    readers: Vec<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    report: Report,
    errors: String,
    ended: bool,
}

impl PythonClient {
    /// `produce.py` with this name, connected to this broker.
    ///
    /// # Panics
    /// When Python cannot be started.
    #[track_caller]
    pub fn producer(broker: &Broker, name: &str, arguments: &[&str]) -> Self {
        Self::run("produce.py", &broker.url(), name, arguments)
    }

    /// `consume.py` with this name, connected to this broker.
    ///
    /// # Panics
    /// When Python cannot be started.
    #[track_caller]
    pub fn consumer(broker: &Broker, name: &str, arguments: &[&str]) -> Self {
        Self::run("consume.py", &broker.url(), name, arguments)
    }

    /// Any script of the folder, told which broker to use and what to call itself.
    ///
    /// # Panics
    /// When Python cannot be started.
    #[track_caller]
    pub fn run(script: &str, broker_url: &str, name: &str, arguments: &[&str]) -> Self {
        let mut process = Command::new(programs::python())
            .arg(programs::scripts().join(script))
            .args(["--broker", broker_url, "--name", name])
            .args(arguments)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("PYTHONFAULTHANDLER", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("python starts");
        let shared = Arc::new(Shared::default());
        let output = process.stdout.take().expect("a piped output");
        let errors = process.stderr.take().expect("a piped error output");
        let readers = vec![
            thread::spawn({
                let shared = Arc::clone(&shared);
                move || shared.read_events(BufReader::new(output))
            }),
            thread::spawn({
                let shared = Arc::clone(&shared);
                move || shared.read_errors(BufReader::new(errors))
            }),
        ];
        let input = process.stdin.take();
        Self { name: name.to_owned(), process, input, shared, readers }
    }

    /// What it was called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Everything reported so far.
    pub fn report(&self) -> Report {
        self.shared.lock().report.clone()
    }

    /// Waits until the report fulfils `condition`; returns what `condition` found.
    ///
    /// # Panics
    /// When the script ends first or the time is over; with what it wrote on standard error.
    #[track_caller]
    pub fn wait_until<T>(&self, what: &str, mut condition: impl FnMut(&Report) -> Option<T>) -> T {
        let began = Instant::now();
        let mut state = self.shared.lock();
        loop {
            if let Some(found) = condition(&state.report) {
                return found;
            }
            let left = LIMIT.checked_sub(began.elapsed());
            let Some(left) = left.filter(|_| !state.ended) else {
                let text = describe(&self.name, &state);
                let ended = state.ended;
                drop(state);
                panic!("in vain (ended={ended}): {what}\n{text}");
            };
            state = self.shared.changed.wait_timeout(state, left).expect("no reader panics").0;
        }
    }

    /// Waits until there are at least `count` events of this name.
    ///
    /// # Panics
    /// As [`wait_until`](Self::wait_until).
    #[track_caller]
    pub fn wait_for(&self, event: &str, count: usize) {
        let mut seen = 0;
        let mut looked_at = 0;
        self.wait_until(&format!("{count} × {event}"), |report| {
            seen += report.events[looked_at..].iter().filter(|found| found.name == event).count();
            looked_at = report.events.len();
            (seen >= count).then_some(())
        });
    }

    /// Gives the script a command (its own text says which it knows).
    ///
    /// # Panics
    /// When it does not listen any more.
    #[track_caller]
    pub fn command(&mut self, line: &str) {
        let input = self.input.as_mut().expect("the script has an input");
        writeln!(input, "{line}").and_then(|()| input.flush()).expect("the script listens");
    }

    /// Waits for the script to end by itself and requires that it ended well.
    ///
    /// # Panics
    /// When it fails, crashes or does not end in time.
    #[track_caller]
    pub fn finish(mut self) -> Report {
        self.wait_until("the script to end", |report| {
            report.events.last().is_some_and(|event| event.name == "ended").then_some(())
        });
        drop(self.input.take());
        let status = self.process.wait().expect("a child");
        self.join();
        let state = self.shared.lock();
        assert!(status.success(), "ended with {status}\n{}", describe(&self.name, &state));
        state.report.clone()
    }

    /// Tells the script to stop and waits for its proper end.
    ///
    /// # Panics
    /// As [`finish`](Self::finish).
    #[track_caller]
    pub fn stop(mut self) -> Report {
        self.command("stop");
        self.finish()
    }

    /// Kills the script: its connection breaks without a word. Returns what it had reported.
    ///
    /// # Panics
    /// When it cannot be killed.
    pub fn kill(mut self) -> Report {
        self.process.kill().expect("the script is killed");
        self.process.wait().expect("the script is gone");
        self.join();
        self.report()
    }

    fn join(&mut self) {
        for reader in self.readers.drain(..) {
            reader.join().expect("the reader ends with the script");
        }
    }
}

impl Drop for PythonClient {
    fn drop(&mut self) {
        // Both fail harmlessly when it has ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A failed assertion in a waiting test must not hide behind a poisoned lock.
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn read_events(&self, mut output: impl std::io::BufRead) {
        let mut line = String::new();
        while output.read_line(&mut line).is_ok_and(|bytes| bytes > 0) {
            // A killed script can leave half a line.
            if let Ok(facts) = serde_json::from_str::<Value>(&line) {
                let event = Event {
                    name: facts["event"].as_str().unwrap_or_default().to_owned(),
                    at: facts["at"].as_u64().unwrap_or_default(),
                    facts,
                };
                self.lock().report.events.push(event);
                self.changed.notify_all();
            }
            line.clear();
        }
        self.lock().ended = true;
        self.changed.notify_all();
    }

    fn read_errors(&self, mut errors: impl std::io::Read) {
        let mut bytes = Vec::new();
        let mut piece = [0; 4096];
        while let Ok(count @ 1..) = errors.read(&mut piece) {
            // Enough to see what went wrong, and bounded.
            if bytes.len() < 1 << 20 {
                bytes.extend_from_slice(&piece[..count]);
                self.lock().errors = String::from_utf8_lossy(&bytes).into_owned();
            }
        }
    }
}

fn describe(name: &str, state: &State) -> String {
    let mut text = format!("client {name}: {} events, the last ones:\n", state.report.events.len());
    for event in state.report.events.iter().rev().take(5).rev() {
        let _ = writeln!(text, "  {}", event.facts);
    }
    let errors: Vec<&str> = state.errors.lines().collect();
    let _ = write!(text, "  standard error ends with:\n    ");
    text.push_str(&errors[errors.len().saturating_sub(20)..].join("\n    "));
    text
}
