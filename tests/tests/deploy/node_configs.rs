//! The `node.toml` files: keys that the broker knows, three nodes, and names that fit together.
//! Keys and defaults are taken from the operators' page, which a test of the broker holds against
//! it.

use std::collections::{BTreeMap, BTreeSet};

use toml::{Table, Value};

use crate::files::text;

const PAGE: &str = "docs/operating/configuration.md";

pub(crate) const SYSTEMD: &str = "deploy/systemd/node.toml";
pub(crate) const COMPOSE: &str = "deploy/compose/node.toml";
pub(crate) const KUBERNETES: &str = "deploy/kubernetes/node.toml";

/// One node's configuration, as far as other files repeat it.
#[derive(Debug)]
pub(crate) struct NodeConfig {
    table: Table,
}

impl NodeConfig {
    #[track_caller]
    pub(crate) fn read(file: &str) -> Self {
        let table = text(file).parse().unwrap_or_else(|error| panic!("{file}: {error}"));
        Self { table }
    }

    /// A text: `cluster`, `peers.listen`.
    #[track_caller]
    pub(crate) fn string(&self, key: &str) -> &str {
        let mut value = key.split('.');
        let first = value.next().and_then(|part| self.table.get(part));
        let value = value.fold(first, |value, part| value?.get(part));
        value.and_then(Value::as_str).unwrap_or_else(|| panic!("{key} is no text"))
    }

    /// Number and address of each node.
    #[track_caller]
    pub(crate) fn nodes(&self) -> Vec<(i64, &str)> {
        let mut nodes = Vec::new();
        for node in self.table["cluster_nodes"].as_array().expect("a list of nodes") {
            let id = node.get("id").and_then(Value::as_integer).expect("a number");
            nodes.push((id, node.get("peers").and_then(Value::as_str).expect("an address")));
        }
        nodes
    }

    /// Ports of clients, in the order of their listeners.
    #[track_caller]
    pub(crate) fn client_ports(&self) -> Vec<u16> {
        let urls = self.table["clients"]["listen"].as_array().expect("a list of listeners").iter();
        urls.map(|url| port(url.as_str().expect("a URL"))).collect()
    }

    /// Port of administration.
    #[track_caller]
    pub(crate) fn admin_port(&self) -> u16 {
        port(self.string("admin.listen"))
    }

    /// Port for other nodes.
    #[track_caller]
    pub(crate) fn peer_port(&self) -> u16 {
        port(self.string("peers.listen"))
    }
}

#[track_caller]
fn port(address: &str) -> u16 {
    let port = address.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
    port.unwrap_or_else(|| panic!("{address} has no port"))
}

/// Keys of each section with their defaults; the top level is the section without a name.
#[track_caller]
fn known_keys() -> BTreeMap<String, BTreeMap<String, String>> {
    let mut sections: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
    let mut section = None;
    for line in text(PAGE).lines() {
        if let Some(heading) = line.strip_prefix('#') {
            let heading = heading.trim_start_matches('#').trim();
            let bare = |name: &str| name.trim_matches(['`', '[', ']']).to_owned();
            section = match heading {
                "Top level" => Some(String::new()),
                _ => heading.starts_with("`[").then(|| bare(heading)),
            };
        }
        let row = line.strip_prefix("| `").and_then(|row| row.split_once("` | "));
        let (Some(section), Some((key, rest))) = (&section, row) else { continue };
        let default = rest.split(" | ").next().unwrap_or_default().trim_matches(['`', '"']);
        let keys = sections.entry(section.clone()).or_default();
        keys.insert(key.to_owned(), default.to_owned());
    }
    assert!(sections.len() > 8, "{PAGE} is not understood: {sections:?}");
    sections
}

/// The default of a key, as the operators' page gives it.
#[track_caller]
pub(crate) fn default(section: &str, key: &str) -> String {
    let keys = known_keys();
    let default = keys.get(section).and_then(|keys| keys.get(key));
    default.unwrap_or_else(|| panic!("{PAGE} has no [{section}] {key}")).clone()
}

/// The seconds that a node gives its clients when it stops.
#[track_caller]
pub(crate) fn shutdown_seconds() -> u64 {
    let text = default("limits", "shutdown_timeout");
    let seconds = text.strip_suffix('s').and_then(|text| text.parse().ok());
    seconds.unwrap_or_else(|| panic!("not in seconds: {text}"))
}

#[test]
fn keys_are_known_to_the_broker() {
    let known = known_keys();
    for file in [SYSTEMD, COMPOSE, KUBERNETES] {
        let config = NodeConfig::read(file);
        let is_known = |section: &str, key: &str| {
            known.get(section).is_some_and(|keys| keys.contains_key(key))
        };
        let mut strange = Vec::new();
        for (name, value) in &config.table {
            let tables: Vec<&Table> = match value {
                Value::Table(table) => vec![table],
                Value::Array(list) => list.iter().filter_map(Value::as_table).collect(),
                _ if is_known("", name) => continue,
                _ => {
                    strange.push(name.clone());
                    continue;
                }
            };
            for key in tables.iter().flat_map(|table| table.keys()) {
                if !is_known(name, key) {
                    strange.push(format!("{name}.{key}"));
                }
            }
        }
        assert_eq!(strange, Vec::<String>::new(), "in {file}, not in {PAGE}");
    }
}

#[test]
fn three_nodes_with_their_own_numbers_and_addresses() {
    for file in [SYSTEMD, COMPOSE, KUBERNETES] {
        let config = NodeConfig::read(file);
        let nodes = config.nodes();
        let ids: Vec<_> = nodes.iter().map(|(id, _)| *id).collect();
        assert_eq!(ids, [1, 2, 3], "{file}");
        let addresses: BTreeSet<_> = nodes.iter().map(|(_, address)| *address).collect();
        assert_eq!(addresses.len(), nodes.len(), "{file}");
        let ports: BTreeSet<_> = addresses.into_iter().map(port).collect();
        assert_eq!(ports, [config.peer_port()].into(), "{file}");
        // Administration from elsewhere changes nothing without a token.
        assert!(!config.string("admin.token_file").is_empty(), "{file}");
    }
}

#[test]
fn certificates_are_made_for_the_names_that_nodes_check() {
    let page = text("docs/operating/clusters.md");
    for (file, maker) in [
        (SYSTEMD, page.as_str()),
        (KUBERNETES, page.as_str()),
        (COMPOSE, text("deploy/compose/compose.yaml").as_str()),
    ] {
        let config = NodeConfig::read(file);
        // Each call of `cert init` for this cluster, up to the end of its line or the next flag.
        let call = format!("--cluster {} --node ", config.string("cluster"));
        let mut calls = maker.split(&call).skip(1).peekable();
        assert!(calls.peek().is_some(), "nothing makes certificates for {file}: {call}");
        for call in calls {
            let nodes = call.split(['\n', '`']).next().unwrap_or_default().split(' ');
            let made: Vec<_> = nodes.map(|node| node.split('=').next().unwrap_or(node)).collect();
            let ids = config.nodes().into_iter().map(|(id, _)| format!("node-{id}"));
            assert_eq!(made, ids.collect::<Vec<_>>(), "{file}");
        }
    }
}
