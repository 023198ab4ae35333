//! The nodes as processes: started, told to stop, and never left behind.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::Path;
use std::process::{ExitStatus, Stdio};

use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::layout::{Layout, Node};

/// How much of a log's end is shown when its node has ended.
const LOG_END_BYTES: u64 = 16_384;
/// Lines of it.
const LOG_END_LINES: usize = 10;

/// What all nodes are to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Go on.
    Run,
    /// Stop gracefully.
    Terminate,
    /// End at once.
    Kill,
}

/// A node that has ended.
#[derive(Debug)]
pub(super) struct Exit {
    pub(super) node: Node,
    pub(super) pid: u32,
    /// How, unless the system would not say.
    pub(super) status: io::Result<ExitStatus>,
    /// Bytes of the log that are from earlier processes.
    log_before: u64,
}

impl Exit {
    /// As people read it: `exit status: 1`, `signal: 9 (SIGKILL)`.
    pub(super) fn how(&self) -> String {
        match &self.status {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        }
    }

    pub(super) fn succeeded(&self) -> bool {
        self.status.as_ref().is_ok_and(ExitStatus::success)
    }

    /// The last lines that the node has logged.
    pub(super) fn log_end(&self) -> Vec<String> {
        log_end(&self.node.log_file(), self.log_before).unwrap_or_default()
    }
}

/// The nodes' processes. When this is dropped, those that still run are killed; when this process
/// ends without that, they notice and stop by themselves.
#[derive(Debug)]
pub(super) struct Children {
    tasks: JoinSet<Exit>,
    orders: watch::Sender<Order>,
    pids: BTreeMap<u32, u32>,
}

impl Children {
    /// Starts all nodes, with the program that runs now.
    pub(super) fn start(layout: &Layout) -> Result<Self> {
        let program = std::env::current_exe().context("cannot tell which program this is")?;
        let (orders, _) = watch::channel(Order::Run);
        let mut children = Self { tasks: JoinSet::new(), orders, pids: BTreeMap::new() };
        for node in &layout.nodes {
            let (child, log_before) =
                start(&program, node).with_context(|| format!("cannot start node {}", node.id))?;
            let pid = child.id().context("a node ended before it was known")?;
            children.pids.insert(node.id, pid);
            let (node, tended) = (node.clone(), tend(child, children.orders.subscribe()));
            children
                .tasks
                .spawn(async move { Exit { node, pid, status: tended.await, log_before } });
        }
        Ok(children)
    }

    /// The process of a node that runs.
    pub(super) fn pid(&self, node: u32) -> Option<u32> {
        self.pids.get(&node).copied()
    }

    /// Ids of the nodes that run.
    pub(super) fn running(&self) -> Vec<u32> {
        self.pids.keys().copied().collect()
    }

    /// Tells all that run.
    pub(super) fn order(&self, order: Order) {
        self.orders.send_replace(order);
    }

    /// Waits until a node has ended; nothing when none is left. May be given up and asked again.
    pub(super) async fn next_exit(&mut self) -> Option<Exit> {
        loop {
            // A task that failed has dropped its child, which killed it.
            if let Ok(exit) = self.tasks.join_next().await? {
                self.pids.remove(&exit.node.id);
                return Some(exit);
            }
        }
    }
}

/// The process, and how long its log was before.
fn start(program: &Path, node: &Node) -> Result<(Child, u64)> {
    let path = node.log_file();
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path)
        .with_context(|| format!("cannot write file={}", path.display()))?;
    let log_before = log.metadata()?.len();
    let child = Command::new(program)
        .args(["serve", "--stop-with-stdin", "--config"])
        .arg(node.config_file())
        .stdin(Stdio::piped())
        .stdout(log.try_clone()?)
        .stderr(log)
        // A terminal's Ctrl-C is for this process only, which passes it on: a node that gets two
        // signals does not stop gracefully.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()?;
    Ok((child, log_before))
}

/// Owns the child, so that no signal goes to a process that has its number later.
async fn tend(mut child: Child, mut orders: watch::Receiver<Order>) -> io::Result<ExitStatus> {
    // Held until the end: `wait` would close it, which tells the node to stop.
    let _stdin = child.stdin.take();
    loop {
        tokio::select! {
            status = child.wait() => return status,
            Ok(()) = orders.changed() => {
                let order = *orders.borrow_and_update();
                carry_out(order, &mut child);
            }
        }
    }
}

fn carry_out(order: Order, child: &mut Child) {
    // One that has ended cannot be signalled, and needs no signal.
    match order {
        Order::Run => {}
        Order::Terminate => {
            let id = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
            if let Some(id) = id {
                let _ = kill_process(id, Signal::TERM);
            }
        }
        Order::Kill => {
            let _ = child.start_kill();
        }
    }
}

/// Of what is behind the first `before` bytes.
fn log_end(path: &Path, before: u64) -> io::Result<Vec<String>> {
    let mut file = std::fs::File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LOG_END_BYTES).max(before)))?;
    let mut bytes = Vec::new();
    file.take(LOG_END_BYTES).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    let first = lines.len().saturating_sub(LOG_END_LINES);
    Ok(lines.into_iter().skip(first).map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_end_of_a_log_is_shown() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        assert!(log_end(&path, 0).is_err());
        let lines: Vec<String> = (0..10_000).map(|number| format!("line {number}")).collect();
        std::fs::write(&path, lines.join("\n")).unwrap();
        assert_eq!(log_end(&path, 0).unwrap(), lines[9_990..]);
        std::fs::write(&path, "old\none\n").unwrap();
        assert_eq!(log_end(&path, 4).unwrap(), ["one"]);
        assert!(log_end(&path, 8).unwrap().is_empty());
    }
}
