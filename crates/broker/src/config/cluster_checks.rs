//! What `[peers]`, `[[cluster_nodes]]`, `[bootstrap]` and `[timing]` must fulfil, and what is only
//! advised.

use super::NodeConfig;
use super::check::{Findings, Problem};
use super::cluster::{PeersSection, most_replicas};
use super::listen::split_port;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

pub(super) fn check_cluster(config: &NodeConfig, found: &mut Findings) {
    let bootstrap = &config.bootstrap;
    found.require((1..=1024).contains(&bootstrap.partitions), "bootstrap.partitions", || {
        format!("allowed is 1 to 1024 value={}", bootstrap.partitions)
    });
    let most = most_replicas(config.cluster_nodes.len());
    let factor = config.replication_factor();
    found.require((1..=most).contains(&factor), "bootstrap.replication_factor", || {
        let nodes = config.cluster_nodes.len().max(1);
        format!("allowed is 1 to the number of nodes, 15 at most nodes={nodes} value={factor}")
    });
    check_members(config, found);
    match &config.peers {
        Some(peers) => check_peers(config, peers, found),
        None => {
            found.require(config.cluster_nodes.len() < 2, "cluster_nodes", || {
                let nodes = config.cluster_nodes.len();
                let text = "several nodes need a [peers] section with listen, certificate, key and \
                            ca; add it, or leave this node alone in the list";
                format!("{text} nodes={nodes}")
            });
        }
    }
}

fn check_members(config: &NodeConfig, found: &mut Findings) {
    let mut ids = BTreeMap::new();
    let mut addresses = BTreeMap::new();
    for (index, member) in config.cluster_nodes.iter().enumerate() {
        let key = format!("cluster_nodes[{index}]");
        if member.id == 0 {
            found.add(format!("{key}.id"), "node ids start at 1 value=0".to_owned());
        } else if ids.insert(member.id, ()).is_some() {
            let text = format!("another entry has this id already value={}", member.id);
            found.add(format!("{key}.id"), text);
        }
        let Some((host, port)) = host_and_port(&member.peers) else {
            found.add(format!("{key}.peers"), wants_address(&member.peers));
            continue;
        };
        // Everything connects to 0.0.0.0 as if it were itself.
        if host.parse::<IpAddr>().is_ok_and(|address| address.is_unspecified()) {
            let text = "write an address that the other nodes reach this one at, not the one that \
                        stands for all";
            found.add(format!("{key}.peers"), format!("{text} value={:?}", member.peers));
        } else if let Some(other) = addresses.insert((host.to_ascii_lowercase(), port), member.id) {
            let text = "another entry has this address already; correct one";
            let facts = format!("{text} other_node={other} value={:?}", member.peers);
            found.add(format!("{key}.peers"), facts);
        }
    }
    let listed = config.cluster_nodes.is_empty() || ids.contains_key(&config.node.id);
    found.require(listed, "cluster_nodes", || {
        format!(
            "this node is missing from the list; add it or correct node.id node_id={}",
            config.node.id
        )
    });
}

fn check_peers(config: &NodeConfig, peers: &PeersSection, found: &mut Findings) {
    found.require(host_and_port(&peers.listen).is_some(), "peers.listen", || {
        wants_address(&peers.listen)
    });
    // The name is part of the DNS name in every node's certificate.
    let part = |part: &str| {
        (1..=63).contains(&part.len()) && !part.starts_with('-') && !part.ends_with('-')
    };
    found.require(config.cluster.split('.').all(part), "cluster", || {
        let text = "nodes' certificates carry this name: each part between dots has 1 to 63 \
                    characters and neither begins nor ends with '-'";
        format!("{text} value={:?}", config.cluster)
    });
    for (key, file) in files(peers) {
        found.require(!file.as_os_str().is_empty(), key, || {
            "name a PEM file; `flintmq cert init` makes one value=\"\"".to_owned()
        });
    }
}

/// Looks whether the files that other nodes' traffic needs can be read. What is in them is told by
/// whoever uses them.
pub(super) fn unreadable_files(config: &NodeConfig) -> Vec<Problem> {
    let mut found = Findings::default();
    for (key, file) in config.peers.iter().flat_map(files) {
        if let Err(error) = readable(file) {
            let text = "cannot be read; correct the path or its permissions, or make certificates \
                        with `flintmq cert init`";
            found.add(key, format!("{text} file={}: {error}", file.display()));
        }
    }
    found.0
}

fn files(peers: &PeersSection) -> [(&'static str, &Path); 3] {
    [("peers.certificate", &peers.certificate), ("peers.key", &peers.key), ("peers.ca", &peers.ca)]
}

fn readable(file: &Path) -> io::Result<()> {
    // Asked before it is opened: opening a pipe would wait for its other end.
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a file"));
    }
    File::open(file).map(drop)
}

pub(super) fn check_timing(config: &NodeConfig, found: &mut Findings) {
    let timing = &config.timing;
    let show = humantime::format_duration;
    let (least, most) = (Duration::from_millis(5), Duration::from_secs(60));
    found.within("timing.heartbeat", timing.heartbeat, least, most);
    let floor = timing.heartbeat.saturating_mul(3);
    found.require(timing.election_min >= floor, "timing.election_min", || {
        let text = "three heartbeats must fit, or leaders lose their office without a failure";
        format!("{text} least={} value={}", show(floor), show(timing.election_min))
    });
    found.require(timing.election_max > timing.election_min, "timing.election_max", || {
        let text = "must be longer than election_min, or candidates keep splitting the vote";
        format!(
            "{text} election_min={} value={}",
            show(timing.election_min),
            show(timing.election_max)
        )
    });
    let longest = Duration::from_secs(600);
    found.require(timing.election_max <= longest, "timing.election_max", || {
        let value = show(timing.election_max);
        format!("nobody serves in the meantime: allowed is at most {} value={value}", show(longest))
    });
}

/// What works, and is most probably not what was meant.
pub(super) fn advice(config: &NodeConfig) -> Vec<Problem> {
    let mut found = Findings::default();
    let factor = config.replication_factor();
    found.require(factor % 2 == 1, "bootstrap.replication_factor", || {
        let survives = factor.saturating_sub(1) / 2;
        let text = "an even number of replicas outlives no more failures than one less; use an \
                    odd number";
        format!("{text} replicas={factor} failures={survives}")
    });
    let own = config.cluster_nodes.iter().find(|member| member.id == config.node.id);
    if let (Some(own), Some(peers)) = (own, &config.peers) {
        let ports = [&own.peers, &peers.listen].map(|text| host_and_port(text).map(|at| at.1));
        found.require(ports[0] == ports[1], "peers.listen", || {
            let text = "other nodes connect to another port than this node listens on, which works \
                        only where something forwards";
            format!("{text} cluster_nodes={:?} listen={:?}", own.peers, peers.listen)
        });
    }
    found.0
}

/// Whether other nodes can be told to connect there: HOST:PORT, and not the address that stands for
/// all.
pub(crate) fn is_peer_address(text: &str) -> bool {
    let unspecified = |host: &str| host.parse::<IpAddr>().is_ok_and(|ip| ip.is_unspecified());
    host_and_port(text).is_some_and(|(host, _)| !unspecified(host))
}

fn host_and_port(text: &str) -> Option<(&str, u16)> {
    let (host, port) = split_port(text)?;
    // A number may begin with '+', a port may not.
    let port = port.filter(|port| port.bytes().all(|byte| byte.is_ascii_digit()))?;
    let port = port.parse().ok().filter(|port| *port > 0)?;
    Some((host, port))
}

fn wants_address(text: &str) -> String {
    format!("write HOST:PORT, such as \"10.0.0.1:7114\" or \"[::1]:7114\" value={text:?}")
}
