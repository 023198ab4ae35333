//! Fear: a cluster for development leaves processes or data behind, or hides that a node died.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use flintmq_system_tests::admin::Admin;
use flintmq_system_tests::broker_process::run_flintmq;
use flintmq_system_tests::wait::{LIMIT, until};
use flintmq_system_tests::{ports, programs};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

/// A running `flintmq dev-cluster --json`.
struct DevCluster {
    process: Child,
    events: Receiver<Value>,
    nodes: Vec<Value>,
    /// What the process takes for the system's folder of temporary files.
    temporary: TempDir,
}

impl DevCluster {
    #[track_caller]
    fn start(nodes: u16, data_dir: Option<&Path>) -> Self {
        let temporary = tempfile::tempdir().expect("a folder");
        let mut command = Command::new(programs::flintmq());
        command.args(["dev-cluster", "--json", "--nodes", &nodes.to_string(), "--base-port"]);
        command.arg(ports_in_a_row(nodes * 3).to_string()).env("TMPDIR", temporary.path());
        if let Some(data_dir) = data_dir {
            command.arg("--data-dir").arg(data_dir);
        }
        let mut process =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("flintmq runs");
        let output = BufReader::new(process.stdout.take().expect("it is piped"));
        let (sender, events) = channel();
        thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let event = serde_json::from_str(&line).expect("each line is an event");
                if sender.send(event).is_err() {
                    break;
                }
            }
        });
        let mut cluster = Self { process, events, nodes: Vec::new(), temporary };
        let started = cluster.event("started");
        cluster.nodes = started["nodes"].as_array().expect("a list of nodes").clone();
        cluster
    }

    /// The next event, which must be this one.
    #[track_caller]
    fn event(&self, name: &str) -> Value {
        let event = self.events.recv_timeout(LIMIT).expect("an event");
        assert_eq!(event["event"], name, "{event}");
        event
    }

    fn text(&self, node: usize, key: &str) -> String {
        self.nodes[node][key].as_str().expect("a text").to_owned()
    }

    fn admin(&self, node: usize) -> Admin {
        let url = self.text(node, "admin");
        let port = url.rsplit(':').next().and_then(|port| port.parse().ok());
        Admin::on_port(port.expect("a port"))
    }

    fn publish(&self, node: usize, text: &[u8]) {
        let broker = self.text(node, "clients");
        let arguments = ["produce", "--broker", &broker, "bmq://dev/queue", "--file", "-"];
        let (code, _, error) = run_flintmq(self.temporary.path(), &arguments, text);
        assert_eq!(code, 0, "{error}");
    }

    fn consume(&self, node: usize, count: usize) -> String {
        let broker = self.text(node, "clients");
        let count = count.to_string();
        let arguments = ["consume", "--broker", &broker, "bmq://dev/queue", "--count", &count];
        let (code, output, error) = run_flintmq(self.temporary.path(), &arguments, b"");
        assert_eq!(code, 0, "{error}");
        output
    }

    #[track_caller]
    fn wait(&mut self) -> ExitStatus {
        until("dev-cluster to end", || self.process.try_wait().expect("a child"))
    }

    #[track_caller]
    fn stop(&mut self) {
        kill_process(Pid::from_child(&self.process), Signal::INT).expect("the signal is sent");
        let stopped = self.event("stopped");
        assert_eq!(stopped["killed"], Value::Array(Vec::new()));
        assert_eq!(self.wait().code(), Some(0));
    }
}

impl Drop for DevCluster {
    fn drop(&mut self) {
        // The nodes notice and stop by themselves.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The first of so many ports, all free.
fn ports_in_a_row(count: u16) -> u16 {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock().expect("no test panics while it takes ports");
    let (mut first, mut length) = (ports::free(), 1);
    while length < count {
        let next = ports::free();
        (first, length) = if next == first + length { (first, length + 1) } else { (next, 1) };
    }
    first
}

fn pid(value: &Value) -> Pid {
    value.as_i64().and_then(|pid| Pid::from_raw(pid.try_into().ok()?)).expect("a process id")
}

#[test]
fn a_node_serves_and_leaves_nothing_behind() {
    let mut cluster = DevCluster::start(1, None);
    cluster.event("ready");
    cluster.publish(0, b"one\ntwo\n");
    assert_eq!(cluster.consume(0, 2), "one\ntwo\n");
    let admin = cluster.admin(0);
    assert!(admin.try_get("/healthz").is_some());
    cluster.stop();
    assert!(admin.try_get("/healthz").is_none(), "the node still runs");
    let left: Vec<_> = fs::read_dir(cluster.temporary.path()).expect("a folder").collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn data_stays_in_a_named_directory() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut cluster = DevCluster::start(1, Some(folder.path()));
    cluster.event("ready");
    cluster.publish(0, b"kept\n");
    cluster.stop();
    let mut again = DevCluster::start(1, Some(folder.path()));
    again.event("ready");
    assert_eq!(again.consume(0, 1), "kept\n");
    again.stop();
}

#[test]
fn a_node_that_dies_is_reported_and_not_started_again() {
    let mut cluster = DevCluster::start(1, None);
    cluster.event("ready");
    kill_process(pid(&cluster.nodes[0]["pid"]), Signal::KILL).expect("the signal is sent");
    let exited = cluster.event("exited");
    assert_eq!((&exited["node"], &exited["pid"]), (&1.into(), &cluster.nodes[0]["pid"]));
    assert!(exited["status"].as_str().is_some_and(|how| how.contains("SIGKILL")), "{exited}");
    assert_eq!(cluster.wait().code(), Some(1), "there is nothing left to run");
}

#[test]
fn nodes_stop_when_whoever_started_them_is_killed() {
    let mut cluster = DevCluster::start(1, None);
    cluster.event("ready");
    let log = Path::new(&cluster.text(0, "folder")).join("log");
    cluster.process.kill().expect("it is killed");
    cluster.wait();
    let admin = cluster.admin(0);
    until("the node to stop", || admin.try_get("/healthz").is_none().then_some(()));
    let log = fs::read_to_string(log).expect("a log");
    assert!(!log.contains("panicked"), "{log}");
}

#[test]
fn nodes_are_told_apart_and_have_certificates() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut cluster = DevCluster::start(3, Some(folder.path()));
    for key in ["id", "pid", "clients", "admin", "folder"] {
        let values: BTreeSet<String> =
            cluster.nodes.iter().map(|node| node[key].to_string()).collect();
        assert_eq!(values.len(), 3, "{key}: {:?}", cluster.nodes);
    }
    for node in 1..=3 {
        for file in [format!("node-{node}.pem"), format!("node-{node}.key")] {
            assert!(folder.path().join("certificates").join(&file).is_file(), "{file}");
        }
    }
    cluster.event("ready");
    cluster.stop();
}

#[test]
fn three_nodes_serve_as_one_and_outlive_one() {
    let mut cluster = DevCluster::start(3, None);
    cluster.event("ready");
    cluster.publish(0, b"one\ntwo\n");
    assert_eq!(cluster.consume(1, 1), "one\n");
    kill_process(pid(&cluster.nodes[2]["pid"]), Signal::KILL).expect("the signal is sent");
    assert_eq!(cluster.event("exited")["node"], 3);
    assert_eq!(cluster.consume(0, 1), "two\n");
    cluster.publish(1, b"three\n");
    assert_eq!(cluster.consume(0, 1), "three\n");
    cluster.stop();
}
