//! The systemd unit: it gives a node time to stop and leaves alone what the node needs.

use std::collections::BTreeMap;

use crate::files::text;
use crate::node_configs::{NodeConfig, SYSTEMD, default, shutdown_seconds};

pub(crate) const UNIT: &str = "deploy/systemd/flintmq.service";

/// The unit's settings; none of ours is given twice.
fn settings() -> BTreeMap<String, String> {
    let text = text(UNIT);
    let lines = text.lines().filter(|line| !line.starts_with(['#', '[']));
    lines
        .filter_map(|line| line.split_once('='))
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .collect()
}

#[test]
fn a_node_gets_the_time_that_it_takes_to_stop() {
    let settings = settings();
    let seconds = settings["TimeoutStopSec"].strip_suffix('s').and_then(|text| text.parse().ok());
    assert!(seconds > Some(2 * shutdown_seconds()), "{seconds:?}");
    assert!(
        !settings.contains_key("KillSignal"),
        "SIGTERM, which is the default, stops gracefully"
    );
}

#[test]
fn what_the_node_noted_of_its_acknowledgements_outlives_it() {
    let settings = settings();
    assert_eq!(settings["RemoveIPC"], "no");
    for emptied in ["DynamicUser", "PrivateIPC", "TemporaryFileSystem", "RootDirectory"] {
        assert!(!settings.contains_key(emptied), "{emptied}");
    }
    // Of users that are not the system's, logind removes it when they log out.
    let users = text("deploy/systemd/flintmq.sysusers.conf");
    let user = users.lines().find(|line| !line.starts_with('#')).expect("a user");
    assert!(user.starts_with(&format!("u {} - ", settings["User"])), "{user}");
}

#[test]
fn unit_and_configuration_name_the_same_places() {
    let settings = settings();
    let config = NodeConfig::read(SYSTEMD);
    let folder = format!("/var/lib/{}", settings["StateDirectory"]);
    assert_eq!(config.string("node.data_dir"), folder);
    assert_eq!(settings["WorkingDirectory"], folder);
    let command = format!("serve --config /etc/{}/node.toml", settings["ConfigurationDirectory"]);
    assert!(settings["ExecStart"].ends_with(&command), "{}", settings["ExecStart"]);
}

#[test]
fn there_are_descriptors_for_all_clients() {
    let files: u64 = settings()["LimitNOFILE"].parse().expect("a number");
    let clients: u64 = default("limits", "max_connections").parse().expect("a number");
    assert!(files >= clients + 1_000, "files={files} clients={clients}");
}
