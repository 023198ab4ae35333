//! What a wrong cluster is refused with, and what a right one comes to.

use super::*;
use flintmq_consensus::{NodeId, NodeSettings};
use std::fs;
use std::time::Duration;

const PEERS: &str =
    "[peers]\nlisten = \"0.0.0.0:7114\"\ncertificate = \"c\"\nkey = \"k\"\nca = \"a\"\n";

/// A file of a cluster of nodes 1 to `count`, at `n1:7114` and so on, with `[peers]` from line
/// `1 + 3 * count` on.
fn file_of(count: u32) -> String {
    let member = |id| format!("[[cluster_nodes]]\nid = {id}\npeers = \"n{id}:7114\"\n");
    (1..=count).map(member).collect::<String>() + PEERS
}

fn parsed(text: &str) -> NodeConfig {
    toml::from_str(text).unwrap()
}

/// What is impossible in a text, one line each.
fn impossible(text: &str) -> String {
    let lines: Vec<String> = parsed(text).problems().iter().map(ToString::to_string).collect();
    lines.join("\n")
}

fn advised(text: &str) -> String {
    assert_eq!(impossible(text), "");
    let lines: Vec<String> = parsed(text).advice().iter().map(ToString::to_string).collect();
    lines.join("\n")
}

#[test]
fn a_cluster_is_its_sections_with_defaults_in_order() {
    let text = file_of(3).replace("id = 1\n", "id = 3\n").replacen("id = 3\n", "id = 9\n", 1);
    let config = parsed(&format!("{text}[node]\nid = 2\n"));
    assert_eq!(config.problems(), []);
    let cluster = config.cluster();
    let ids = |nodes: Vec<&ClusterNode>| nodes.iter().map(|node| node.id).collect::<Vec<_>>();
    assert_eq!(ids(cluster.nodes.iter().collect()), [2, 3, 9]);
    assert_eq!(ids(cluster.others().collect()), [3, 9]);
    assert!(cluster.has_peers());
    assert_eq!((cluster.node, cluster.partitions, cluster.replication_factor), (2, 8, 3));
    assert_eq!(cluster.peers, config.peers);
    let fewer = parsed(&format!("{}[bootstrap]\nreplication_factor = 3\n", file_of(5)));
    assert_eq!(fewer.cluster().replication_factor, 3);
    let many = parsed(&file_of(20)).cluster();
    assert_eq!((many.nodes.len(), many.replication_factor), (20, 15));
}

#[test]
fn a_node_alone_needs_nothing() {
    for text in ["", "[[cluster_nodes]]\nid = 1\npeers = \"a:1\"\n", PEERS] {
        assert_eq!(impossible(text), "");
        let cluster = parsed(text).cluster();
        assert!(!cluster.has_peers());
        assert_eq!(cluster.replication_factor, 1);
    }
}

#[test]
fn several_nodes_need_peers() {
    let text = file_of(2).replace(PEERS, "");
    assert_eq!(
        NodeConfig::parse(&text, "node.toml").unwrap_err().to_string(),
        "node.toml:1: cluster_nodes: several nodes need a [peers] section with listen, \
         certificate, key and ca; add it, or leave this node alone in the list nodes=2"
    );
    let text = file_of(3).replace("\"k\"", "\"\"");
    assert_eq!(
        NodeConfig::parse(&text, "node.toml").unwrap_err().to_string(),
        "node.toml:13: peers.key: name a PEM file; `flintmq cert init` makes one value=\"\""
    );
}

#[test]
fn addresses_are_well_formed_and_of_one_node_each() {
    let with = |address: &str| impossible(&file_of(3).replace("n2:7114", address));
    for bad in ["n2", "n2:", "n2:0", "n2:65536", "n2:+1", ":7114", "[::1]", "::1:7114", "a b:1"] {
        let expected = format!(
            "cluster_nodes[1].peers: write HOST:PORT, such as \"10.0.0.1:7114\" or \
             \"[::1]:7114\" value={bad:?}"
        );
        assert_eq!(with(bad), expected);
    }
    for good in ["n2:7115", "n1:7115", "10.0.0.2:7114", "[fd00::2]:7114", "n2.example:1"] {
        assert_eq!(with(good), "");
    }
    for all in ["0.0.0.0:7114", "[::]:7114"] {
        assert!(with(all).starts_with("cluster_nodes[1].peers: write an address that"), "{all}");
    }
    assert_eq!(
        with("N1:7114"),
        "cluster_nodes[1].peers: another entry has this address already; correct one \
         other_node=1 value=\"N1:7114\""
    );
    let listen = impossible(&PEERS.replace("0.0.0.0:7114", "0.0.0.0"));
    assert!(listen.starts_with("peers.listen: write HOST:PORT"), "{listen}");
}

#[test]
fn the_name_of_a_cluster_fits_its_certificates() {
    for (name, fits) in [
        ("orders.eu_1", true),
        ("a..b", false),
        ("-a", false),
        ("a-", false),
        (&"a".repeat(63), true),
        (&"a".repeat(64), false),
    ] {
        let text = format!("cluster = \"{name}\"\n");
        assert_eq!(impossible(&text), "", "a node alone has no certificate");
        let said = impossible(&format!("{text}{PEERS}"));
        assert_eq!(said.is_empty(), fits, "{name}: {said}");
    }
}

#[test]
fn replicas_fit_the_nodes() {
    let factor = |text: String, value| {
        impossible(&format!("{text}[bootstrap]\nreplication_factor = {value}\n"))
    };
    assert_eq!(factor(file_of(3), 3), "");
    assert_eq!(
        factor(file_of(3), 4),
        "bootstrap.replication_factor: allowed is 1 to the number of nodes, 15 at most nodes=3 \
         value=4"
    );
    assert!(!factor(file_of(3), 0).is_empty());
    assert!(!factor(file_of(20), 16).is_empty());
    assert!(!factor(String::new(), 2).is_empty());
}

#[test]
fn even_numbers_and_foreign_ports_are_advised_against() {
    assert_eq!(advised(&file_of(3)), "");
    assert_eq!(advised(""), "");
    assert_eq!(
        advised(&file_of(4)),
        "bootstrap.replication_factor: an even number of replicas outlives no more failures than \
         one less; use an odd number replicas=4 failures=1"
    );
    assert_eq!(advised(&format!("{}[bootstrap]\nreplication_factor = 3\n", file_of(4))), "");
    let said = advised(&file_of(3).replace("0.0.0.0:7114", "0.0.0.0:7115"));
    assert!(said.starts_with("peers.listen: other nodes connect to another port"), "{said}");
}

#[test]
fn files_of_peers_are_looked_for_at_start() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("node.toml");
    fs::write(&file, PEERS).unwrap();
    fs::write(dir.path().join("c"), "certificate").unwrap();
    fs::create_dir(dir.path().join("k")).unwrap();
    let mut config = parsed(PEERS);
    config.resolve_paths(dir.path());
    let found = cluster_checks::unreadable_files(&config);
    let keys: Vec<&str> = found.iter().map(|problem| problem.key.as_str()).collect();
    assert_eq!(keys, ["peers.key", "peers.ca"]);
    assert!(found[0].text.ends_with("not a file"), "{}", found[0]);
    assert!(found[1].text.contains("flintmq cert init"), "{}", found[1]);
}

#[test]
fn elections_take_as_long_as_they_are_said_to() {
    for (heartbeat, min, max) in [(50, 250, 500), (5, 15, 16), (1_000, 5_000, 60_000)] {
        let [heartbeat, min, max] = [heartbeat, min, max].map(Duration::from_millis);
        let timing = TimingSection { heartbeat, election_min: min, election_max: max };
        let mut settings = NodeSettings::new(NodeId(1), 1, [NodeId(2)]);
        timing.apply(&mut settings);
        let group = &settings.group;
        assert_eq!(settings.beat_interval, heartbeat);
        assert_eq!(settings.suspicion_min + group.election_delay_min, min);
        assert_eq!(settings.suspicion_max + group.election_delay_max, max);
        assert!(settings.suspicion_min <= settings.suspicion_max);
        assert!(settings.suspicion_min > heartbeat * 2, "one lost beat is no failure");
        assert!(group.election_delay_min < group.election_delay_max, "{timing:?}");
        assert!(group.election_timeout > max);
    }
}

#[test]
fn endless_elections_are_refused() {
    let text = format!("[timing]\nelection_max = \"{}s\"\n", u64::MAX);
    let said = impossible(&text);
    assert!(said.starts_with("timing.election_max: nobody serves in the meantime"), "{said}");
}
