//! The compose file: each node its own number, certificate and data, and mounts that exist.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::files::{list, path, string, text, yaml};
use crate::node_configs::{COMPOSE, NodeConfig};

const FILE: &str = "deploy/compose/compose.yaml";

/// The services, with what `<<` brings in.
#[track_caller]
fn services() -> Map<String, Value> {
    let file = yaml(FILE);
    let services = file["services"].as_object().expect("services").clone();
    assert!(services.values().all(|service| service["image"].is_string()), "{services:#?}");
    services
}

/// Source and target of a service's mounts.
fn mounts(service: &Value) -> Vec<(&str, &str)> {
    let mounts = list(&service["volumes"]).iter().map(string);
    let parts = mounts.map(|mount| mount.split(':').collect::<Vec<_>>());
    parts.map(|parts| (parts[0], parts[1])).collect()
}

#[test]
fn nodes_are_those_of_their_configuration() {
    let services = services();
    let config = NodeConfig::read(COMPOSE);
    let mut own = BTreeSet::new();
    for (id, address) in config.nodes() {
        let name = format!("node-{id}");
        assert_eq!(address, format!("{name}:{}", config.peer_port()));
        let node = &services[&name];
        let arguments: Vec<_> = list(&node["command"]).iter().map(string).collect();
        let id = id.to_string();
        let expected = ["serve", "--config", "/etc/flintmq/node.toml", "--node-id", &id];
        assert_eq!(arguments, expected, "{name}");
        for (source, target) in mounts(node) {
            let shared = ["./node.toml", "/dev/shm"].contains(&source);
            assert!(shared || own.insert(source.to_owned()), "{name} shares {source}: {target}");
        }
        let targets: BTreeSet<_> = mounts(node).into_iter().map(|(_, target)| target).collect();
        for target in ["/var/lib/flintmq", "/etc/flintmq/identity", "/dev/shm"] {
            assert!(targets.contains(target), "{name} has no {target}");
        }
    }
    let nodes = services.keys().filter(|name| name.starts_with("node-")).count();
    assert_eq!(nodes, config.nodes().len());
}

#[test]
fn nodes_are_stopped_with_patience_and_started_after_their_certificates() {
    for (name, node) in services().iter().filter(|(name, _)| name.starts_with("node-")) {
        assert_eq!(node["stop_grace_period"], "1m", "{name}");
        let after = &node["depends_on"]["identities"]["condition"];
        assert_eq!(after, "service_completed_successfully", "{name}");
        let probe = list(&node["healthcheck"]["test"]).last().map(string).expect("a probe");
        assert!(probe.contains("/readyz"), "{name}: {probe}");
    }
}

#[test]
fn mounts_exist_and_volumes_are_declared() {
    let file = yaml(FILE);
    let declared: BTreeSet<_> = file["volumes"].as_object().expect("volumes").keys().collect();
    for (name, service) in services() {
        for (source, _) in mounts(&service) {
            match source.starts_with(['.', '/']) {
                true if source == "/dev/shm" => {}
                true => {
                    let found = path("deploy/compose").join(source);
                    assert!(found.exists(), "{name}: {} is missing", found.display());
                }
                false => assert!(declared.contains(&source.to_owned()), "{name}: {source}"),
            }
        }
        let build = &service["build"];
        if build.is_object() {
            let context = path("deploy/compose").join(string(&build["context"]));
            assert!(context.join("Cargo.lock").is_file(), "{name}: {}", context.display());
            assert!(context.join(string(&build["dockerfile"])).is_file(), "{name}");
        }
    }
}

#[test]
fn nothing_is_open_to_other_machines() {
    let config = NodeConfig::read(COMPOSE);
    let inside: Vec<_> = config.client_ports().into_iter().chain([config.admin_port()]).collect();
    let mut outside = BTreeSet::new();
    for (name, service) in services() {
        for port in service["ports"].as_array().into_iter().flatten().map(string) {
            let parts: Vec<_> = port.split(':').collect();
            let [address, published, target] = parts.as_slice() else { panic!("{name}: {port}") };
            assert_eq!(*address, "127.0.0.1", "{name}");
            assert!(outside.insert((*published).to_owned()), "{name}: {published} is given twice");
            let target: u16 = target.parse().expect("a port");
            assert!(!name.starts_with("node-") || inside.contains(&target), "{name}: {target}");
        }
    }
}

#[test]
fn prometheus_scrapes_every_node() {
    let config = NodeConfig::read(COMPOSE);
    let scraped = yaml("deploy/prometheus/prometheus.yml");
    let [job] = list(&scraped["scrape_configs"]) else { panic!("{scraped}") };
    let targets: Vec<_> = list(&job["static_configs"][0]["targets"]).iter().map(string).collect();
    let port = config.admin_port();
    let nodes: Vec<_> = config.nodes().iter().map(|(id, _)| format!("node-{id}:{port}")).collect();
    assert_eq!(targets, nodes);
    // What the rules take for one of our targets.
    assert!(string(&job["job_name"]).starts_with("flintmq"));
    for file in list(&scraped["rule_files"]).iter().map(string) {
        assert!(path("deploy/prometheus").join(file).is_file(), "{file}");
        assert!(text(FILE).contains(&format!("/etc/prometheus/{file}")), "{file} is not mounted");
    }
}
