//! Three nodes with the configuration of the Kubernetes manifests, as near to it as one machine
//! comes: they find each other, get ready, and show what dashboard and rules ask of clusters.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use flintmq_system_tests::admin::Admin;
use flintmq_system_tests::broker_process::run_flintmq;
use flintmq_system_tests::wait::until;
use flintmq_system_tests::{ports, programs};
use tempfile::TempDir;

use crate::files::text;
use crate::live::{asked, is_shown};
use crate::metrics_page::{metrics, of_series};
use crate::node_configs::{KUBERNETES, NodeConfig};

/// Shown from the first time on that it counts.
const ON_OCCASION: [&str; 5] = [
    "flintmq_peer_messages_unreadable_total",
    "flintmq_leader_transfers_total",
    "flintmq_history_forks_total",
    "flintmq_transport_refused_connections_total",
    "flintmq_transport_certificate_reloads_total",
];

/// The nodes' processes; killed at the end.
struct Nodes {
    folder: TempDir,
    processes: Vec<Child>,
    admins: Vec<Admin>,
}

impl Nodes {
    #[track_caller]
    fn start() -> Self {
        let config = NodeConfig::read(KUBERNETES);
        let folder = tempfile::Builder::new().prefix("flintmq-test").tempdir().expect("a folder");
        let names: Vec<_> = config.nodes().iter().map(|(id, _)| format!("node-{id}")).collect();
        let mut arguments = vec!["cert", "init", "--dir", "certs", "--cluster"];
        arguments.extend([config.string("cluster"), "--node"]);
        arguments.extend(names.iter().map(String::as_str));
        let (code, _, error) = run_flintmq(folder.path(), &arguments, b"");
        assert_eq!(code, 0, "{error}");

        let here: Vec<_> = names.iter().map(|_| loopback()).collect();
        let mut nodes = Self { folder, processes: Vec::new(), admins: Vec::new() };
        for (place, name) in names.iter().enumerate() {
            nodes.identity(name);
            let folder = nodes.folder.path().join(name);
            let mut file = text(KUBERNETES)
                .replace("/etc/flintmq/identity", &folder.display().to_string())
                .replace(config.string("peers.listen"), &here[place].to_string())
                // A build machine's disk may be fuller than an operator would allow.
                .replace(config.string("node.disk_reserve"), "64MiB");
            for ((_, address), here) in config.nodes().into_iter().zip(&here) {
                file = file.replace(address, &here.to_string());
            }
            fs::write(folder.join("node.toml"), file).expect("written");
            let id = name.trim_start_matches("node-");
            nodes.launch(&folder, id);
        }
        nodes
    }

    /// What the pod gets of the secret.
    fn identity(&self, name: &str) {
        let certificates = self.folder.path().join("certs");
        let folder = self.folder.path().join(name);
        fs::create_dir(&folder).expect("made");
        for (from, to) in [
            ("ca.pem".to_owned(), "ca.pem"),
            (format!("{name}.pem"), "node.pem"),
            (format!("{name}.key"), "node.key"),
        ] {
            fs::copy(certificates.join(from), folder.join(to)).expect("copied");
        }
        fs::write(folder.join("admin.token"), "token\n").expect("written");
    }

    fn launch(&mut self, folder: &Path, id: &str) {
        let admin = loopback();
        let process = Command::new(programs::flintmq())
            .args(["serve", "--config", "node.toml", "--node-id", id, "--data-dir", "data"])
            .args(["--listen", &format!("tcp://{}", loopback()), "--admin", &admin.to_string()])
            .current_dir(folder)
            .stdin(Stdio::null())
            .stderr(File::create(folder.join("log")).expect("made"))
            .spawn()
            .expect("flintmq runs");
        self.processes.push(process);
        self.admins.push(Admin::on_port(admin.port()));
    }

    /// What the nodes' logs say, where one of them has ended.
    #[track_caller]
    fn assert_running(&mut self) {
        for (place, process) in self.processes.iter_mut().enumerate() {
            if let Some(status) = process.try_wait().expect("a child") {
                let log = self.folder.path().join(format!("node-{}/log", place + 1));
                panic!("{status}: {}", fs::read_to_string(log).unwrap_or_default());
            }
        }
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        for process in &mut self.processes {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

fn loopback() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, ports::free()).into()
}

#[test]
fn nodes_of_a_cluster_get_ready_and_show_what_is_asked_of_clusters() {
    let mut nodes = Nodes::start();
    until("all nodes to be ready", || {
        nodes.assert_running();
        let ready = |admin: &Admin| admin.try_get("/readyz").is_some_and(|a| a.status == 200);
        nodes.admins.iter().all(ready).then_some(())
    });
    let metrics = metrics();
    let selectors: Vec<_> = asked()
        .into_iter()
        .filter(|selector| {
            let metric = of_series(&metrics, &selector.series).expect("a test of its own");
            let is_of_clusters = ["Replication", "Between the nodes"].contains(&&*metric.section);
            is_of_clusters && !ON_OCCASION.contains(&&*selector.series)
        })
        .collect();
    assert!(selectors.len() > 15, "{selectors:?}");
    let mut missing = BTreeSet::new();
    until("everything to be shown", || {
        nodes.assert_running();
        // Only leaders know how far the others are, so what one node shows is enough.
        let texts: Vec<_> = nodes.admins.iter().map(|admin| admin.get("/metrics").body).collect();
        let is_absent = |s: &&_| !texts.iter().any(|text| is_shown(text, s));
        let absent: BTreeSet<_> =
            selectors.iter().filter(is_absent).map(|s| format!("{s:?}")).collect();
        if absent != missing {
            println!("not shown yet: {absent:#?}");
            missing.clone_from(&absent);
        }
        absent.is_empty().then_some(())
    });
}
