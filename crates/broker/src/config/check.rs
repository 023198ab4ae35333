//! What a configuration must fulfil beyond its types.

use super::listen::ListenScheme;
use super::{NodeConfig, cluster_checks};
use crate::logging::check_filter;
use bytesize::ByteSize;
use std::fmt;
use std::time::Duration;

/// A value that cannot stay as it is, or [should not](NodeConfig::advice).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The key, with its sections: `clients.listen[1]`.
    pub key: String,
    /// What is wrong and what is allowed, the value last.
    pub text: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.text)
    }
}

/// The smallest event limit that leaves room for a message of a few hundred kilobytes; below it no
/// client is usable.
const MIN_EVENT: ByteSize = ByteSize::mib(1);
/// The largest event that official clients build (docs/protocol/framing.md#sizes).
const MAX_EVENT: ByteSize = ByteSize::mib(512);
/// Room that RocksDB needs to work at all.
const MIN_RESERVE: ByteSize = ByteSize::mib(64);

pub(super) fn problems(config: &NodeConfig) -> Vec<Problem> {
    let mut found = Findings::default();
    check_identity(config, &mut found);
    check_listeners(config, &mut found);
    check_limits(config, &mut found);
    cluster_checks::check_cluster(config, &mut found);
    cluster_checks::check_timing(config, &mut found);
    found.0
}

pub(super) fn not_served_yet(config: &NodeConfig) -> Vec<Problem> {
    let mut found = Findings::default();
    for (index, url) in config.clients.listen.iter().enumerate() {
        if url.scheme == ListenScheme::Quic {
            let key = format!("clients.listen[{index}]");
            let text = "clients over QUIC are not served yet; use tcp:// or tls://";
            found.add(key, format!("{text} url={url}"));
        }
    }
    found.0
}

#[derive(Default)]
pub(super) struct Findings(pub(super) Vec<Problem>);

impl Findings {
    pub(super) fn add(&mut self, key: impl Into<String>, text: String) {
        self.0.push(Problem { key: key.into(), text });
    }

    pub(super) fn require(&mut self, holds: bool, key: &str, text: impl FnOnce() -> String) {
        if !holds {
            self.add(key, text());
        }
    }

    pub(super) fn within(&mut self, key: &str, value: Duration, least: Duration, most: Duration) {
        self.require((least..=most).contains(&value), key, || {
            let show = humantime::format_duration;
            format!("allowed is {} to {} value={}", show(least), show(most), show(value))
        });
    }
}

fn check_identity(config: &NodeConfig, found: &mut Findings) {
    let name = &config.cluster;
    let valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let fits = !name.is_empty() && name.len() <= 64 && name.chars().all(valid);
    found.require(fits, "cluster", || {
        format!("a cluster's name has 1 to 64 letters, digits, '-', '_' or '.' value={name:?}")
    });
    let node = &config.node;
    found.require(node.id > 0, "node.id", || "node ids start at 1 value=0".to_owned());
    found.require(!node.data_dir.as_os_str().is_empty(), "node.data_dir", || {
        "name a directory value=\"\"".to_owned()
    });
    found.require(!node.witness_dir.as_os_str().is_empty(), "node.witness_dir", || {
        "name a directory in RAM, such as \"/dev/shm\" value=\"\"".to_owned()
    });
    let (least, most) = (Duration::from_millis(1), Duration::from_secs(60));
    found.within("node.flush_interval", node.flush_interval, least, most);
    found.require(node.disk_reserve >= MIN_RESERVE, "node.disk_reserve", || {
        let reserve = node.disk_reserve;
        format!(
            "keep at least {MIN_RESERVE}, so that a full disk can still be emptied value={reserve}"
        )
    });
    if let Err(error) = check_filter(&config.log.level) {
        found.add("log.level", error.to_string());
    }
}

fn check_listeners(config: &NodeConfig, found: &mut Findings) {
    let clients = &config.clients;
    found.require(!clients.listen.is_empty(), "clients.listen", || {
        "name at least one address, such as \"tcp://127.0.0.1:30114\" value=[]".to_owned()
    });
    for (index, url) in clients.listen.iter().enumerate() {
        if clients.listen[..index].iter().any(|other| other.collides_with(url)) {
            let key = format!("clients.listen[{index}]");
            let text = "another listener has this address already; remove one or change its port";
            found.add(key, format!("{text} url={url}"));
        }
    }
    let tls = clients.listen.iter().any(|url| url.scheme != ListenScheme::Tcp);
    let pair = [("clients.certificate", &clients.certificate), ("clients.key", &clients.key)];
    for (key, file) in pair {
        let half = clients.certificate.is_some() != clients.key.is_some();
        found.require(file.is_some() || !(tls || half), key, || {
            "name a PEM file: tls:// and quic:// listeners need both certificate and key".to_owned()
        });
    }
    found.require(clients.client_ca.is_none() || tls, "clients.client_ca", || {
        "only tls:// and quic:// listeners ask for client certificates; add one, or remove this key".to_owned()
    });
    let admin = config.admin.listen;
    let taken = clients.listen.iter().any(|url| {
        url.scheme != ListenScheme::Quic && url.port != 0 && url.socket_text() == admin.to_string()
    });
    found.require(!taken, "admin.listen", || {
        format!("clients.listen has this address already; use another port value={admin}")
    });
}

fn check_limits(config: &NodeConfig, found: &mut Findings) {
    let limits = &config.limits;
    let counts = [
        ("limits.max_connections", limits.max_connections),
        ("limits.max_queues", limits.max_queues),
    ];
    for (key, value) in counts {
        found.require(value > 0, key, || "allowed is 1 or more value=0".to_owned());
    }
    let event = limits.max_event_bytes;
    found.require((MIN_EVENT..=MAX_EVENT).contains(&event), "limits.max_event_bytes", || {
        format!("allowed is {MIN_EVENT} to {MAX_EVENT} value={event}")
    });
    let windows = [
        ("limits.session_in_flight_bytes", limits.session_in_flight_bytes),
        ("limits.session_outbox_bytes", limits.session_outbox_bytes),
    ];
    for (key, value) in windows {
        let (least, most) = (ByteSize::kib(64), ByteSize::gib(4));
        found.require((least..=most).contains(&value), key, || {
            format!("allowed is {least} to {most} value={value}")
        });
    }
    let node = limits.node_in_flight_bytes;
    found.require(node >= event, "limits.node_in_flight_bytes", || {
        format!("allowed is limits.max_event_bytes or more least={event} value={node}")
    });
    let (second, hour) = (Duration::from_secs(1), Duration::from_secs(3600));
    let tenth = Duration::from_millis(100);
    found.within("limits.negotiation_timeout", limits.negotiation_timeout, tenth, hour);
    found.within("limits.heartbeat_interval", limits.heartbeat_interval, tenth, hour);
    found.within("limits.shutdown_timeout", limits.shutdown_timeout, Duration::ZERO, hour);
    let least = limits.heartbeat_interval.saturating_mul(2).max(second);
    let idle = limits.idle_timeout;
    found.require(idle.is_zero() || idle >= least, "limits.idle_timeout", || {
        let show = humantime::format_duration;
        let text = "allowed is 0s (never), or at least two heartbeat intervals and a second";
        format!("{text} least={} value={}", show(least), show(idle))
    });
}
