//! Nodes that come to a cluster and leave it.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::Cluster;
use crate::broker_process::Broker;
use crate::wait::until;
use crate::{ports, programs};

/// A node's folder and configuration; `members` are all nodes that it names, with their ports.
pub(super) fn prepare(
    node: usize,
    listen: u16,
    members: &[(usize, u16)],
    certificates: &TempDir,
    lines: &[String],
) -> Broker {
    let file =
        |suffix: &str| certificates.path().join(format!("files/{suffix}")).display().to_string();
    let members: Vec<String> = members
        .iter()
        .map(|(id, port)| format!("{{ id = {id}, peers = \"127.0.0.1:{port}\" }}"))
        .collect();
    let mut builder = Broker::builder()
        .setting("cluster = \"test\"")
        .setting(&format!("node.id = {node}"))
        .setting(&format!("peers.listen = \"127.0.0.1:{listen}\""))
        .setting(&format!("peers.certificate = \"{}\"", file(&format!("{node}.pem"))))
        .setting(&format!("peers.key = \"{}\"", file(&format!("{node}.key"))))
        .setting(&format!("peers.ca = \"{}\"", file("ca.pem")))
        .setting(&format!("cluster_nodes = [{}]", members.join(", ")));
    for line in lines {
        builder = builder.setting(line);
    }
    builder.prepare()
}

impl Cluster {
    /// Makes folder and configuration of one more node, which names itself and one of those that
    /// run; tells its id. The cluster does not know of it yet.
    ///
    /// # Panics
    /// When they cannot be made, or no node runs.
    #[track_caller]
    pub fn prepare_another(&mut self) -> usize {
        let (id, port) = (self.nodes.len() + 1, ports::free());
        let output = Command::new(programs::flintmq())
            .args(["cert", "add", "--cluster", "test", "--node", &id.to_string(), "--dir"])
            .arg(self.certificates.path().join("files"))
            .output()
            .expect("flintmq runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "flintmq cert add failed: {said}");
        let present = (1..id).find(|other| self.node(*other).runs()).expect("a node that runs");
        let members = [(present, self.listen[present - 1]), (id, port)];
        // How the cluster began it hears from the others.
        let lines: Vec<String> =
            self.lines.iter().filter(|line| !line.starts_with("bootstrap.")).cloned().collect();
        let broker = prepare(id, port, &members, &self.certificates, &lines);
        self.nodes.push(broker);
        self.listen.push(port);
        id
    }

    /// Where other nodes reach this one.
    pub fn peers_of(&self, id: usize) -> String {
        format!("127.0.0.1:{}", self.listen[id - 1])
    }

    /// Lets a node that was prepared come, by a word to the node `through`, and starts it.
    ///
    /// # Panics
    /// When it is refused or cannot be started.
    #[track_caller]
    pub fn add(&mut self, through: usize, id: usize) {
        let body = json!({ "id": id, "peers": self.peers_of(id) }).to_string();
        self.node(through).admin().must("POST", "/api/v1/nodes", &body);
        self.node_mut(id).launch();
    }

    /// Waits until every group, as `through` hears it, has exactly these voters, all of them
    /// well.
    ///
    /// # Panics
    /// When that does not come about; with the last state seen.
    #[track_caller]
    pub fn wait_for_voters(&self, through: usize, voters: &[usize]) {
        let admin = self.node(through).admin();
        let mut last = Value::Null;
        until(&format!("all groups to have the voters {voters:?}"), || {
            let answer = admin.try_get("/api/v1/groups").filter(|answer| answer.status == 200)?;
            last = answer.json();
            let well = last.as_array()?.iter().all(|group| has_voters(group, voters));
            well.then_some(())
        });
    }

    /// How many groups the node leads, as `through` hears it; none of a node that the cluster does
    /// not have.
    ///
    /// # Panics
    /// When `through` does not answer.
    #[track_caller]
    pub fn leads_of(&self, through: usize, id: usize) -> Option<u64> {
        let nodes = self.node(through).admin().get_json("/api/v1/nodes");
        let row = nodes.as_array()?.iter().find(|node| node["node"] == id)?;
        row["leads"].as_u64()
    }
}

fn has_voters(group: &Value, voters: &[usize]) -> bool {
    let members = group["members"].as_array().map_or(&[][..], Vec::as_slice);
    let wanted: BTreeSet<u64> = voters.iter().map(|id| *id as u64).collect();
    let present: BTreeSet<u64> = members
        .iter()
        .filter(|member| member["role"] == "voter" && member["state"] == "normal")
        .filter_map(|member| member["node"].as_u64())
        .collect();
    !group["leader"].is_null() && members.len() == wanted.len() && present == wanted
}
