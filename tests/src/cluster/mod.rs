//! A cluster of three brokers on this machine, each a process of its own.
//!
//! ```no_run
//! use flintmq_system_tests::cluster::Cluster;
//! use flintmq_system_tests::python::PythonClient;
//!
//! let mut cluster = Cluster::start();
//! let uri = ["--uri", "bmq://orders/q", "--count", "10"];
//! PythonClient::producer(cluster.node(1), "p", &uri).finish();
//! let leader = cluster.wait_for_leader("orders/q");
//! cluster.node_mut(leader).kill();
//! let other = cluster.others(leader)[0];
//! PythonClient::consumer(cluster.node(other), "c", &uri).finish();
//! ```

mod leaders;
mod members;
mod network;
mod relay;
mod traffic;

use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

pub use self::leaders::Lead;
use self::network::Network;
pub use self::traffic::Traffic;
use crate::broker_process::Broker;
use crate::rust_client::RustConsumer;
use crate::wait::until;
use crate::{ports, programs};

/// The ids of the nodes that a cluster begins with.
pub const NODES: [usize; 3] = [1, 2, 3];

/// How a cluster is to be started.
#[derive(Debug)]
pub struct ClusterBuilder {
    lines: Vec<String>,
    partitions: u32,
    relayed: bool,
}

/// The three nodes, running or not.
#[derive(Debug)]
pub struct Cluster {
    nodes: Vec<Broker>,
    /// Where each node listens for the others.
    listen: Vec<u16>,
    /// Settings of every node.
    lines: Vec<String>,
    /// Certificates of all nodes; removed with the cluster.
    certificates: TempDir,
    network: Option<Network>,
}

impl ClusterBuilder {
    /// Nodes that do not miss each other when the machine has much else to do: for tests of what
    /// happens without elections.
    #[must_use]
    pub fn patient(self) -> Self {
        self.setting("timing.election_min = \"3s\"").setting("timing.election_max = \"5s\"")
    }

    /// One line of every node's `node.toml`, as a dotted key.
    #[must_use]
    pub fn setting(mut self, line: &str) -> Self {
        self.lines.push(line.to_owned());
        self
    }

    /// How many partitions; 2 unless said otherwise.
    #[must_use]
    pub fn partitions(mut self, count: u32) -> Self {
        self.partitions = count;
        self
    }

    /// Sends everything between nodes through relays, for [`Cluster::cut`],
    /// [`Cluster::delay`] and [`Cluster::heal`].
    #[must_use]
    pub fn relayed(mut self) -> Self {
        self.relayed = true;
        self
    }

    /// Makes certificates, folders and configurations, without starting anything.
    ///
    /// # Panics
    /// When they cannot be made.
    #[track_caller]
    pub fn prepare(self) -> Cluster {
        let certificates = make_certificates();
        let listen = NODES.map(|_| ports::free());
        let network = self.relayed.then(|| Network::between(&listen));
        let mut lines = self.lines;
        lines.push(format!("bootstrap.partitions = {}", self.partitions));
        let nodes = NODES.map(|node| {
            let members: Vec<(usize, u16)> = NODES
                .iter()
                .map(|other| match &network {
                    Some(network) if *other != node => (*other, network.port(node, *other)),
                    _ => (*other, listen[other - 1]),
                })
                .collect();
            members::prepare(node, listen[node - 1], &members, &certificates, &lines)
        });
        let (nodes, listen) = (nodes.into(), listen.into());
        Cluster { nodes, listen, lines, certificates, network }
    }

    /// Starts all nodes and waits until they are ready.
    ///
    /// # Panics
    /// When they do not become ready.
    #[track_caller]
    pub fn start(self) -> Cluster {
        let mut cluster = self.prepare();
        for node in NODES {
            cluster.node_mut(node).launch();
        }
        cluster.wait_until_ready();
        cluster
    }
}

impl Cluster {
    /// A cluster with the defaults, ready for clients.
    ///
    /// # Panics
    /// When it does not become ready.
    #[track_caller]
    pub fn start() -> Self {
        Self::builder().start()
    }

    /// A cluster with settings of its own.
    pub fn builder() -> ClusterBuilder {
        ClusterBuilder { lines: Vec::new(), partitions: 2, relayed: false }
    }

    /// A node by its id.
    pub fn node(&self, id: usize) -> &Broker {
        &self.nodes[id - 1]
    }

    /// A node by its id, to start or to stop it.
    pub fn node_mut(&mut self, id: usize) -> &mut Broker {
        &mut self.nodes[id - 1]
    }

    /// The ids of the other two, ascending, as nodes list each other.
    pub fn others(&self, id: usize) -> [usize; 2] {
        match id {
            1 => [2, 3],
            2 => [1, 3],
            _ => [1, 2],
        }
    }

    /// Where clients find all nodes, `first` first.
    pub fn urls_from(&self, first: usize) -> Vec<String> {
        let [second, third] = self.others(first);
        [first, second, third].map(|id| self.node(id).url()).into()
    }

    /// Where clients find this node alone.
    pub fn url_of(&self, id: usize) -> Vec<String> {
        vec![self.node(id).url()]
    }

    /// Creates a queue by opening it at one node; `queue` is `domain/queue`.
    ///
    /// # Panics
    /// When it cannot be opened.
    #[track_caller]
    pub fn create_queue(&self, node: usize, queue: &str) {
        RustConsumer::start(&self.url_of(node), "creator", &format!("bmq://{queue}")).stop();
    }

    /// Waits until every running node says that it is ready.
    ///
    /// # Panics
    /// When one ends or does not become ready.
    #[track_caller]
    pub fn wait_until_ready(&mut self) {
        for node in self.nodes.iter_mut().filter(|node| node.runs()) {
            node.wait_until_ready();
        }
    }

    /// Waits until the running nodes agree on one of them as the leader of the queue's partition;
    /// `queue` is `domain/queue` and exists.
    ///
    /// # Panics
    /// When they never do.
    #[track_caller]
    pub fn wait_for_leader(&self, queue: &str) -> usize {
        self.wait_for_leader_among(queue, &NODES)
    }

    /// [`wait_for_leader`](Self::wait_for_leader) of a part of the nodes: only these are asked, and
    /// one of them must lead.
    ///
    /// # Panics
    /// When they never agree.
    #[track_caller]
    pub fn wait_for_leader_among(&self, queue: &str, nodes: &[usize]) -> usize {
        let running: Vec<usize> =
            nodes.iter().copied().filter(|node| self.node(*node).runs()).collect();
        until(&format!("{running:?} to agree who of them leads {queue}"), || {
            let mut said = running.iter().map(|node| self.leader_as_seen_by(*node, queue));
            let first = said.next().flatten().filter(|leader| running.contains(leader))?;
            said.all(|leader| leader == Some(first)).then_some(first)
        })
    }

    fn leader_as_seen_by(&self, node: usize, queue: &str) -> Option<usize> {
        usize::try_from(self.group_as_seen_by(node, queue)?["leader"].as_u64()?).ok()
    }

    fn group_as_seen_by(&self, node: usize, queue: &str) -> Option<Value> {
        let admin = self.node(node).admin();
        let json = |path: &str| -> Option<Value> {
            let answer = admin.try_get(path).filter(|answer| answer.status == 200)?;
            Some(answer.json())
        };
        let group = json(&format!("/api/v1/queues/{queue}"))?["group"].as_u64()?;
        json(&format!("/api/v1/groups/{group}"))
    }

    /// Waits until the queue's replicas on all running nodes that hold it have nothing unconfirmed.
    ///
    /// # Panics
    /// When one never does.
    #[track_caller]
    pub fn wait_until_empty(&self, queue: &str) {
        for node in self.holders(queue) {
            self.wait_for_backlog(node, queue, 0);
        }
    }

    /// The running nodes that hold the queue.
    fn holders(&self, queue: &str) -> Vec<usize> {
        let running = (1..=self.nodes.len()).filter(|node| self.node(*node).runs());
        until(&format!("a node to know who holds {queue}"), || {
            let mut said = running.clone().map(|node| self.members_as_seen_by(node, queue));
            let members = said.find_map(|members| members)?;
            Some(members.into_iter().filter(|node| self.node(*node).runs()).collect())
        })
    }

    fn members_as_seen_by(&self, node: usize, queue: &str) -> Option<Vec<usize>> {
        let group = self.group_as_seen_by(node, queue)?;
        let members = group["members"].as_array().filter(|_| !group["leader"].is_null())?;
        members.iter().map(|member| usize::try_from(member["node"].as_u64()?).ok()).collect()
    }

    /// Waits until this node's replica of the queue holds so many messages.
    ///
    /// # Panics
    /// When it never does; with the last number seen.
    #[track_caller]
    pub fn wait_for_backlog(&self, node: usize, queue: &str, messages: u64) {
        let admin = self.node(node).admin();
        until(&format!("{messages} messages of {queue} on node {node}"), || {
            let path = format!("/api/v1/queues/{queue}?here=true");
            let answer = admin.try_get(&path).filter(|answer| answer.status == 200)?;
            (answer.json()["backlog_messages"] == messages).then_some(())
        });
    }

    /// Waits until the leader's node knows so many consumers of a queue, `domain/queue`.
    ///
    /// # Panics
    /// When it never does.
    #[track_caller]
    pub fn wait_for_consumers(&self, leader: usize, queue: &str, consumers: u64) {
        let admin = self.node(leader).admin();
        until(&format!("{consumers} consumers of {queue}"), || {
            let queue = admin.try_get(&format!("/api/v1/queues/{queue}"))?.json();
            (queue["apps"][0]["consumers"] == consumers).then_some(())
        });
    }
}

fn make_certificates() -> TempDir {
    let folder =
        tempfile::Builder::new().prefix("flintmq-certificates").tempdir().expect("a folder");
    let output = Command::new(programs::flintmq())
        .args(["cert", "init", "--cluster", "test", "--dir"])
        .arg(folder.path().join("files"))
        .args(["--node", "1", "--node", "2", "--node", "3"])
        .output()
        .expect("flintmq runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "flintmq cert init failed: {said}");
    folder
}
