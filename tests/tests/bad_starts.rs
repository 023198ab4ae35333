//! Fear: a mistake of an operator damages data or leaves a broker that half works.

use std::fs;
use std::path::Path;

use flintmq_system_tests::broker_process::{Broker, run_flintmq};
use flintmq_system_tests::json_session::JsonSession;
use flintmq_system_tests::wait::LIMIT;

/// Starts the prepared broker, which must refuse to run, and returns what it says.
#[track_caller]
fn refused(mut broker: Broker) -> String {
    broker.launch();
    let status = broker.wait_for_exit(LIMIT);
    let log = broker.log();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(!log.contains("panicked"), "{log}");
    log
}

#[test]
fn a_configuration_with_mistakes_is_refused_by_file_and_line() {
    for (text, expected) in [
        ("[node]\nid = 1\ndatadir = \"x\"\n", "node.toml:3"),
        ("[node]\nid = 0\n", "node.toml:2"),
        ("[clients]\nlisten = [\"http://127.0.0.1:1\"]\n", "node.toml:2"),
        ("[limits]\nmax_connections = \"many\"\n", "node.toml:2"),
        ("[nodes]\n", "node.toml:1"),
        ("cluster = \n", "node.toml:1"),
    ] {
        let broker = Broker::builder().prepare();
        fs::write(broker.config_file(), text).expect("written");
        let said = refused(broker);
        assert!(said.contains(expected), "{text:?} gave: {said}");
    }
}

#[test]
fn an_unknown_key_is_answered_with_the_known_ones() {
    let broker = Broker::builder().prepare();
    fs::write(broker.config_file(), "[node]\ndatadir = \"x\"\n").expect("written");
    let said = refused(broker);
    assert!(said.contains("datadir") && said.contains("data_dir"), "{said}");
}

#[test]
fn what_this_version_cannot_do_is_refused() {
    for text in [
        "[clients]\nlisten = [\"quic://127.0.0.1:30116\"]\n",
        "[[cluster_nodes]]\nid = 1\npeers = \"10.0.0.1:7114\"\n\
         [[cluster_nodes]]\nid = 2\npeers = \"10.0.0.2:7114\"\n",
    ] {
        let broker = Broker::builder().prepare();
        fs::write(broker.config_file(), text).expect("written");
        let said = refused(broker);
        assert!(said.contains("node.toml:"), "{said}");
    }
}

#[test]
fn a_missing_configuration_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let (code, _, said) = run_flintmq(folder.path(), &["serve", "--config", "gone.toml"], b"");
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("gone.toml"), "{said}");
}

#[test]
fn wrong_usage_is_told_from_failure() {
    let folder = tempfile::tempdir().expect("a folder");
    for arguments in [&["serve", "--no-such-flag"][..], &["no-such-command"], &["produce"]] {
        let (code, _, said) = run_flintmq(folder.path(), arguments, b"");
        assert_eq!(code, 2, "{arguments:?}: {said}");
        assert!(!said.is_empty());
    }
    let (code, help, _) = run_flintmq(folder.path(), &["--help"], b"");
    assert_eq!(code, 0);
    for command in ["serve", "produce", "consume", "bench", "admin", "cert"] {
        assert!(help.contains(command), "{command} is missing in: {help}");
    }
}

#[test]
fn a_second_process_on_the_same_data() {
    let mut first = Broker::start();
    let mut session = JsonSession::start(&first);
    session.open("bmq://bmq.test/q", 0, false, true);

    let second = Broker::builder().prepare();
    move_data_dir(&second, &first.data_dir());
    let said = refused(second);
    assert!(said.contains(&first.data_dir().display().to_string()), "{said}");

    session.put(0, 1, b"the first one goes on");
    assert_eq!(session.acknowledgements()[0].status, 0);
    first.assert_running();
}

#[test]
fn the_data_of_another_cluster_or_node() {
    for (mine, other, words) in [
        ("cluster = \"blue\"", "cluster = \"green\"", ["blue", "green"]),
        ("node.id = 3", "node.id = 4", ["3", "4"]),
    ] {
        let mut broker = Broker::builder().setting(mine).start();
        broker.stop();
        let stranger = Broker::builder().setting(other).prepare();
        move_data_dir(&stranger, &broker.data_dir());
        let said = refused(stranger);
        assert!(words.iter().all(|word| said.contains(word)), "{said}");
        // And it has not touched anything.
        broker.restart();
    }
}

#[test]
fn a_port_that_is_taken() {
    let first = Broker::start();
    let second = Broker::builder().prepare();
    let text = fs::read_to_string(second.config_file()).expect("read");
    let mine = format!(":{}\"", second.port());
    fs::write(second.config_file(), text.replace(&mine, &format!(":{}\"", first.port())))
        .expect("written");
    let said = refused(second);
    assert!(said.contains(&first.port().to_string()), "{said}");
}

#[test]
fn a_data_directory_that_is_a_file() {
    let broker = Broker::builder().prepare();
    fs::write(broker.data_dir(), "not a directory").expect("written");
    let said = refused(broker);
    assert!(said.contains("data"), "{said}");
}

fn move_data_dir(broker: &Broker, folder: &Path) {
    let text = fs::read_to_string(broker.config_file()).expect("read");
    let lines: Vec<String> = text
        .lines()
        .map(|line| {
            if line.starts_with("node.data_dir") {
                format!("node.data_dir = \"{}\"", folder.display())
            } else {
                line.to_owned()
            }
        })
        .collect();
    fs::write(broker.config_file(), lines.join("\n") + "\n").expect("written");
}
