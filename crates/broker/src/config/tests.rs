//! Every text that a wrong configuration is refused with, and that the documentation names every
//! key.

use super::*;
use std::fs;
use std::time::Duration;

/// The refusal of a text, or "accepted".
fn refusal(text: &str) -> String {
    NodeConfig::parse(text, "node.toml")
        .map_or_else(|error| error.to_string(), |_| "accepted".to_owned())
}

#[track_caller]
fn refused(text: &str, expected: &str) {
    assert_eq!(refusal(text), expected, "for {text:?}");
}

#[test]
fn an_empty_file_is_the_default_and_the_default_is_valid() {
    let config = NodeConfig::parse("", "node.toml").unwrap();
    assert_eq!(config, NodeConfig::default());
    assert_eq!(config, NodeConfig::without_file(&Overrides::default()).unwrap());
}

#[test]
fn the_default_survives_its_own_text() {
    let text = toml::to_string(&NodeConfig::default()).unwrap();
    assert_eq!(NodeConfig::parse(&text, "node.toml").unwrap(), NodeConfig::default(), "{text}");
}

#[test]
fn values_have_units() {
    let text = "
        cluster = \"trading\"
        [node]
        id = 3
        durability = \"sync\"
        flush_interval = \"1s 500ms\"
        disk_reserve = \"5GiB\"
        witness_dir = \"/run/flintmq\"
        trust_page_cache = false
        [clients]
        listen = [\"tcp://[::1]\", \"tls://0.0.0.0:30115\"]
        certificate = \"node.pem\"
        key = \"node.key\"
        [domains]
        undefined = \"refuse\"
        [limits]
        idle_timeout = \"0s\"
        [log]
        format = \"json\"";
    let config = NodeConfig::parse(text, "node.toml").unwrap();
    assert_eq!(config.node.durability, Durability::Sync);
    assert_eq!(config.node.flush_interval, Duration::from_millis(1_500));
    assert_eq!(config.node.disk_reserve.as_u64(), 5 << 30);
    assert_eq!(config.node.witness_dir, Path::new("/run/flintmq"));
    assert!(!config.node.trust_page_cache);
    assert_eq!(config.clients.listen[0].to_string(), "tcp://[::1]:30114");
    assert_eq!(config.clients.listen[1].scheme, ListenScheme::Tls);
    assert_eq!(config.domains.undefined, UndefinedDomain::Refuse);
    assert_eq!(config.limits.idle_timeout, Duration::ZERO);
    assert_eq!(config.log.format, LogFormat::Json);
}

#[test]
fn unknown_keys_are_refused_with_the_allowed_ones() {
    refused(
        "[node]\nid = 1\ndata_dri = \"x\"\n",
        "node.toml:3: unknown key `data_dri`; allowed here: `id`, `data_dir`, `durability`, \
         `flush_interval`, `disk_reserve`, `witness_dir`, `trust_page_cache`",
    );
    refused(
        "\n[nodes]\nid = 1\n",
        "node.toml:2: unknown key `nodes`; allowed here: `cluster`, `node`, `clients`, `admin`, \
         `domains`, `limits`, `log`, `metrics`, `bootstrap`, `timing`, `peers`, `cluster_nodes`",
    );
    refused(
        "[domains]\nundefind = \"create\"\n",
        "node.toml:2: unknown key `undefind`; allowed here: `undefined` or `idle_queue_timeout`",
    );
    refused(
        "[[cluster_nodes]]\nid = 1\nport = 7114\n",
        "node.toml:3: unknown key `port`; allowed here: `id` or `peers`",
    );
}

#[test]
fn wrong_types_are_refused_with_the_line() {
    refused(
        "[node]\n\nid = \"one\"\n",
        "node.toml:3: invalid type: string \"one\", expected a whole number from 0 to 4294967295",
    );
    refused(
        "[node]\nid = -1\n",
        "node.toml:2: invalid value: integer `-1`, expected a whole number from 0 to 4294967295",
    );
    refused(
        "[node]\ndurability = \"always\"\n",
        "node.toml:2: unknown value `always`; allowed: `background` or `sync`",
    );
    refused(
        "[node]\nflush_interval = 200\n",
        "node.toml:2: invalid type: integer `200`, expected a duration such as \"200ms\" or \
         \"10s\"",
    );
    refused(
        "[node]\nflush_interval = \"200\"\n",
        "node.toml:2: invalid value: string \"200\", expected a duration such as \"200ms\" or \
         \"10s\"",
    );
    refused(
        "[limits]\nmax_event_bytes = \"big\"\n",
        "node.toml:2: invalid value: string \"big\", expected a size such as \"64MiB\" or a number \
         of bytes",
    );
    refused(
        "[limits]\nmax_event_bytes = -1\n",
        "node.toml:2: invalid value: integer `-1`, expected a size such as \"64MiB\" or a number \
         of bytes",
    );
    refused(
        "[clients]\nlisten = \"tcp://a\"\n",
        "node.toml:2: invalid type: string \"tcp://a\", expected a list such as [\"one\", \"two\"]",
    );
    refused(
        "[admin]\nlisten = \"8114\"\n",
        "node.toml:2: expected an IP address and a port such as \"127.0.0.1:8114\"",
    );
    refused(
        "[clients]\nlisten = [\"http://x\"]\n",
        "node.toml:2: a listener is tcp://HOST:PORT, tls://HOST:PORT or quic://HOST:PORT url=\"http://x\"",
    );
    refused("[peers]\nlisten = \"a:1\"\n", "node.toml:1: key `certificate` is missing here");
}

#[test]
fn text_that_is_no_toml_is_refused_with_the_line() {
    let text = refusal("cluster = \"dev\"\n[node\n");
    assert!(text.starts_with("node.toml:2: "), "{text}");
    assert!(!text.contains('\n'), "{text}");
    let text = refusal("cluster = \"a\"\ncluster = \"b\"\n");
    assert!(text.starts_with("node.toml:2: duplicate key"), "{text}");
}

#[test]
fn impossible_identities_are_refused() {
    refused("[node]\nid = 0\n", "node.toml:2: node.id: node ids start at 1 value=0");
    refused(
        "cluster = \"a b\"\n",
        "node.toml:1: cluster: a cluster's name has 1 to 64 letters, digits, '-', '_' or '.' \
         value=\"a b\"",
    );
    refused("[node]\ndata_dir = \"\"\n", "node.toml:2: node.data_dir: name a directory value=\"\"");
    refused(
        "[node]\ndisk_reserve = \"1MiB\"\n",
        "node.toml:2: node.disk_reserve: keep at least 64.0 MiB, so that a full disk can still be \
         emptied value=1.0 MiB",
    );
    refused(
        "[node]\nflush_interval = \"0s\"\n",
        "node.toml:2: node.flush_interval: allowed is 1ms to 1m value=0s",
    );
    refused(
        "[log]\nlevel = \"loud\"\n",
        "node.toml:2: log.level: not a log level; write error, warn, info, debug or trace, or per \
         part of the broker \"info,flintmq_storage=debug\" value=\"loud\": \"loud\" is no level",
    );
}

#[test]
fn impossible_listeners_are_refused() {
    refused(
        "[clients]\nlisten = []\n",
        "node.toml:2: clients.listen: name at least one address, such as \"tcp://127.0.0.1:30114\" value=[]",
    );
    refused(
        "[clients]\nlisten = [\n  \"tcp://a:1\",\n  \"tls://a:1\",\n]\ncertificate = \"c\"\nkey = \"k\"\n",
        "node.toml:4: clients.listen[1]: another listener has this address already; remove one or \
         change its port url=tls://a:1",
    );
    refused(
        "[clients]\nlisten = [\"tls://a:1\"]\ncertificate = \"c\"\n",
        "node.toml:1: clients.key: name a PEM file: tls:// and quic:// listeners need both \
         certificate and key",
    );
    refused(
        "[clients]\nkey = \"k\"\n",
        "node.toml:1: clients.certificate: name a PEM file: tls:// and quic:// listeners need both \
         certificate and key",
    );
    refused(
        "[clients]\nclient_ca = \"ca\"\n",
        "node.toml:2: clients.client_ca: only tls:// and quic:// listeners ask for client \
         certificates; add one, or remove this key",
    );
    refused(
        "[clients]\nlisten = [\"tcp://127.0.0.1:8114\"]\n",
        "node.toml: admin.listen: clients.listen has this address already; use another port \
         value=127.0.0.1:8114",
    );
}

#[test]
fn impossible_limits_are_refused_all_at_once() {
    refused(
        "[limits]\nmax_connections = 0\nmax_queues = 0\nmax_event_bytes = \"1KiB\"\n\
         session_in_flight_bytes = 1\nsession_outbox_bytes = \"1TiB\"\nnegotiation_timeout = \
         \"0s\"\n\
         heartbeat_interval = \"1d\"\nidle_timeout = \"1s\"\nshutdown_timeout = \"2h\"\n",
        "node.toml:2: limits.max_connections: allowed is 1 or more value=0\n\
         node.toml:3: limits.max_queues: allowed is 1 or more value=0\n\
         node.toml:4: limits.max_event_bytes: allowed is 1.0 MiB to 512.0 MiB value=1.0 KiB\n\
         node.toml:5: limits.session_in_flight_bytes: allowed is 64.0 KiB to 4.0 GiB value=1 B\n\
         node.toml:6: limits.session_outbox_bytes: allowed is 64.0 KiB to 4.0 GiB value=1.0 TiB\n\
         node.toml:7: limits.negotiation_timeout: allowed is 100ms to 1h value=0s\n\
         node.toml:8: limits.heartbeat_interval: allowed is 100ms to 1h value=1day\n\
         node.toml:10: limits.shutdown_timeout: allowed is 0s to 1h value=2h\n\
         node.toml:9: limits.idle_timeout: allowed is 0s (never), or at least two heartbeat \
         intervals and a second least=2days value=1s",
    );
}

#[test]
fn impossible_clusters_and_timings_are_refused() {
    refused(
        "[bootstrap]\npartitions = 0\n",
        "node.toml:2: bootstrap.partitions: allowed is 1 to 1024 value=0",
    );
    refused(
        "[[cluster_nodes]]\nid = 2\npeers = \"b\"\n[[cluster_nodes]]\nid = 2\npeers = \"b:1\"\n\
         [[cluster_nodes]]\nid = 0\npeers = \"c:1\"\n",
        "node.toml:3: cluster_nodes[0].peers: write HOST:PORT, such as \"10.0.0.1:7114\" or \
         \"[::1]:7114\" value=\"b\"\n\
         node.toml:5: cluster_nodes[1].id: another entry has this id already value=2\n\
         node.toml:8: cluster_nodes[2].id: node ids start at 1 value=0\n\
         node.toml:1: cluster_nodes: this node is missing from the list; add it or correct node.id \
         node_id=1\n\
         node.toml:1: cluster_nodes: several nodes need a [peers] section with listen, certificate, \
         key and ca; add it, or leave this node alone in the list nodes=3",
    );
    refused(
        "[timing]\nheartbeat = \"200ms\"\n",
        "node.toml:1: timing.election_min: three heartbeats must fit, or leaders lose their office \
         without a failure least=600ms value=250ms",
    );
    refused(
        "[timing]\nelection_max = \"250ms\"\n",
        "node.toml:2: timing.election_max: must be longer than election_min, or candidates keep \
         splitting the vote election_min=250ms value=250ms",
    );
    let endless = format!("[timing]\nheartbeat = \"{}s\"\n", u64::MAX);
    assert!(refusal(&endless).starts_with("node.toml:2: timing.heartbeat: allowed is 5ms to 1m"));
}

#[test]
fn what_is_not_served_yet_is_refused_with_a_way_out() {
    refused(
        "[clients]\nlisten = [\"quic://0.0.0.0:30116\"]\ncertificate = \"c\"\nkey = \"k\"\n",
        "node.toml:2: clients.listen[0]: clients over QUIC are not served yet; use tcp:// or tls:// \
         url=quic://0.0.0.0:30116",
    );
    assert_eq!(refusal("[[cluster_nodes]]\nid = 1\npeers = \"a:1\"\n"), "accepted");
}

#[test]
fn flags_win_and_are_named_in_errors() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("node.toml");
    fs::write(&file, "[node]\nid = 0\ndata_dir = \"data\"\n[clients]\nlisten = []\n").unwrap();
    let overrides = Overrides {
        data_dir: Some("elsewhere".into()),
        listen: vec!["tcp://127.0.0.1:0".parse().unwrap()],
        admin: Some("127.0.0.1:0".parse().unwrap()),
        node_id: Some(7),
        log_format: Some(LogFormat::Json),
        log_level: Some("debug".to_owned()),
    };
    let config = NodeConfig::load(&file, &overrides).unwrap();
    assert_eq!(config.node.id, 7);
    assert_eq!(config.node.data_dir, PathBuf::from("elsewhere"));
    assert_eq!(config.clients.listen, overrides.listen);
    assert_eq!(config.admin.listen.port(), 0);
    assert_eq!(config.log, LogSection { format: LogFormat::Json, level: "debug".to_owned() });

    let wrong = Overrides { node_id: Some(0), ..overrides };
    let error = NodeConfig::load(&file, &wrong).unwrap_err().to_string();
    assert_eq!(error, "--node-id: node.id: node ids start at 1 value=0");
}

#[test]
fn paths_of_a_file_are_relative_to_it() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("node.toml");
    fs::write(&file, "[node]\ndata_dir = \"data\"\n[admin]\ntoken_file = \"/etc/token\"\n")
        .unwrap();
    let config = NodeConfig::load(&file, &Overrides::default()).unwrap();
    assert_eq!(config.node.data_dir, dir.path().join("data"));
    assert_eq!(config.admin.token_file, Some("/etc/token".into()));
}

#[test]
fn files_that_are_no_configuration_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let load = |name: &str| {
        let error = NodeConfig::load(&dir.path().join(name), &Overrides::default()).unwrap_err();
        error.to_string().replace(&format!("{}/", dir.path().display()), "")
    };
    assert_eq!(
        load("missing.toml"),
        "cannot read the configuration; check the path and its permissions file=missing.toml: No \
         such file or directory (os error 2)"
    );
    fs::write(dir.path().join("binary"), [b'a', 0xff]).unwrap();
    assert_eq!(load("binary"), "this is no node.toml: it is not UTF-8 text file=binary offset=1");
    fs::write(dir.path().join("long"), vec![b' '; (1 << 20) + 1]).unwrap();
    assert_eq!(load("long"), "this is no node.toml: it is too long file=long limit_bytes=1048576");
}

#[test]
fn listener_urls_are_understood_or_refused() {
    for (text, expected) in [
        ("tcp://localhost", "tcp://localhost:30114"),
        ("tls://0.0.0.0:1", "tls://0.0.0.0:1"),
        ("quic://[::]:30116", "quic://[::]:30116"),
    ] {
        assert_eq!(text.parse::<ListenUrl>().unwrap().to_string(), expected);
    }
    for text in ["tcp://", "tcp://:1", "tcp://[::1", "tcp://[x]:1", "tcp://::1:1", "tcp://a b:1"] {
        let error = text.parse::<ListenUrl>().unwrap_err();
        assert!(!matches!(error, ListenUrlError::Scheme(_)), "{text}: {error}");
    }
    for text in ["tcp://a:65536", "tcp://a:", "tcp://a:-1", "tcp://a:1/x"] {
        assert!(matches!(text.parse::<ListenUrl>(), Err(ListenUrlError::Port(_))), "{text}");
    }
    for text in ["", "localhost:1", "udp://a:1", "TCP://a:1"] {
        assert!(matches!(text.parse::<ListenUrl>(), Err(ListenUrlError::Scheme(_))), "{text}");
    }
}

proptest::proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(
        text in "(\\[|\\]|=|\"|\n|[a-z_.]|[0-9]|node|clients|listen|#){0,60}",
    ) {
        let _ = refusal(&text);
    }
}

/// The rows of the tables of `docs/operating/configuration.md`: key and default, without the
/// backticks.
fn documented() -> Vec<(String, String)> {
    let page = include_str!("../../../../docs/operating/configuration.md");
    let mut section = String::new();
    let mut rows = Vec::new();
    for line in page.lines() {
        if let Some(heading) = line.strip_prefix("### ") {
            let name = heading.trim_matches('`').trim_matches(['[', ']']);
            section = if heading.contains('[') { format!("{name}.") } else { String::new() };
        } else if let Some(row) = line.strip_prefix("| `") {
            let mut cells = row.trim_end_matches('|').split(" | ");
            let key = cells.next().unwrap_or_default().trim_end_matches('`');
            let default = cells.next().unwrap_or_default().trim().trim_matches('`');
            rows.push((format!("{section}{key}"), default.to_owned()));
        }
    }
    rows
}

#[test]
fn the_configuration_page_has_every_key_with_its_default() {
    let everything = NodeConfig {
        peers: Some(PeersSection {
            listen: String::new(),
            certificate: PathBuf::new(),
            key: PathBuf::new(),
            ca: PathBuf::new(),
        }),
        cluster_nodes: vec![ClusterNode { id: 1, peers: String::new() }],
        ..all_options_set()
    };
    let with_all = toml::Table::try_from(&everything).unwrap();
    let defaults = toml::Table::try_from(NodeConfig::default()).unwrap();
    let mut expected = Vec::new();
    for (section, value) in &with_all {
        let table = match value {
            toml::Value::Table(table) => table,
            toml::Value::Array(items) => items[0].as_table().unwrap(),
            value => {
                expected.push((section.clone(), value.to_string()));
                continue;
            }
        };
        for key in table.keys() {
            let default = defaults.get(section).and_then(|table| table.get(key));
            let text = default.map_or_else(|| "none".to_owned(), ToString::to_string);
            expected.push((format!("{section}.{key}"), text));
        }
    }
    let mut found = documented();
    expected.sort();
    found.sort();
    assert_eq!(found, expected, "left: docs/operating/configuration.md, right: the structs");
}

fn all_options_set() -> NodeConfig {
    let mut config = NodeConfig::default();
    config.clients.certificate = Some(PathBuf::new());
    config.clients.key = Some(PathBuf::new());
    config.clients.client_ca = Some(PathBuf::new());
    config.admin.token_file = Some(PathBuf::new());
    config.bootstrap.domains_dir = Some(PathBuf::new());
    config.bootstrap.replication_factor = Some(1);
    config
}
