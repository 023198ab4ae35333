//! Fear: after a power loss a node has forgotten what it had voted for or acknowledged, and the
//! cluster counts on it all the same.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};

use flintmq_system_tests::broker_process::Broker;
use flintmq_system_tests::clock;
use flintmq_system_tests::cluster::{Cluster, NODES, Traffic};
use flintmq_system_tests::history::{Expectations, History};
use flintmq_system_tests::wait::until;
use serde_json::Value;

const QUEUE: &str = "bmq.test/power";
const OTHER: &str = "bmq.test/other-power";

/// The write-ahead log file that was written last, and its length.
fn newest_log(broker: &Broker) -> (PathBuf, u64) {
    let files = fs::read_dir(broker.data_dir().join("db")).expect("the database's folder");
    let logs = files.filter_map(|file| {
        let path = file.expect("a file").path();
        (path.extension().is_some_and(|kind| kind == "log")).then_some(path)
    });
    let newest = logs.max().expect("a write-ahead log");
    let length = fs::metadata(&newest).expect("the file").len();
    (newest, length)
}

/// A number that every group of the node shows, by group.
fn indexes(broker: &Broker, name: &str) -> Vec<u64> {
    let groups = broker.admin().get_json("/api/v1/groups");
    let groups = groups.as_array().expect("a list of groups");
    let index =
        |group: &Value| group[name].as_u64().unwrap_or_else(|| panic!("no {name} in {group}"));
    groups.iter().map(index).collect()
}

/// The newest log file and a length of it that is synced by now.
fn synced_log(broker: &Broker) -> (PathBuf, u64) {
    let log = newest_log(broker);
    // Whatever is in the file by now has a lower index than what is applied after this.
    let applied = indexes(broker, "applied_index");
    until("the log to be synced up to what was applied", || {
        let synced = indexes(broker, "fsynced_index");
        synced.iter().zip(&applied).all(|(synced, applied)| synced >= applied).then_some(())
    });
    log
}

/// Removes what vouches, in RAM, for the end of the node's log: a power loss takes it.
fn forget_witness(data_dir: &Path) {
    let marker = fs::read_to_string(data_dir.join("marker")).expect("the marker");
    let (_, body) = marker.split_once('\n').expect("a checksum, then the rest");
    let marker: Value = serde_json::from_str(body).expect("the marker is JSON");
    let node = marker["node_uuid"].as_str().expect("the marker names the node");
    for file in fs::read_dir("/dev/shm").expect("a file system in RAM").flatten() {
        if file.file_name().to_string_lossy().starts_with(&format!("flintmq-{node}-")) {
            fs::remove_file(file.path()).expect("the witness is removed");
        }
    }
}

#[test]
fn each_node_in_turn_loses_its_power() {
    let mut cluster = Cluster::start();
    for (node, queue) in [(1, QUEUE), (2, OTHER)] {
        cluster.create_queue(node, queue);
    }
    let mut history = History::default();
    for node in NODES {
        let [left, right] = cluster.others(node);
        let (left, right) = (cluster.url_of(left), cluster.url_of(right));
        let traffic = Traffic::new().flow(&format!("p{node}"), QUEUE, &left, &right).flow(
            &format!("q{node}"),
            OTHER,
            &right,
            &left,
        );
        traffic.wait_for(300);
        let (log, synced) = synced_log(cluster.node(node));
        traffic.wait_for(50);
        let killed_at = clock::now();
        cluster.node_mut(node).kill();
        // Everything behind the last sync is gone, as far as this test knows what was synced.
        let (newest, length) = newest_log(cluster.node(node));
        assert_eq!(newest, log, "so little traffic does not begin a new file");
        assert!(length > synced, "there is something to lose: {length} bytes, {synced} synced");
        let file = OpenOptions::new().write(true).open(&log).expect("the log opens");
        file.set_len(synced).expect("the log is cut");
        drop(file);
        forget_witness(&cluster.node(node).data_dir());
        traffic.wait_for(100);

        let told = "acknowledged messages may be missing";
        let before = cluster.node(node).log().matches(told).count();
        cluster.node_mut(node).restart();
        assert_eq!(cluster.node(node).log().matches(told).count(), before + 1);
        traffic.wait_for(200);
        assert_eq!(traffic.interruptions(), 0);
        // All three replicas, the recovered one as well, come to hold the same.
        traffic.finish(&cluster, killed_at, &mut history);
    }
    // The recovered nodes count again: any of them may be missing now.
    for node in NODES {
        cluster.node_mut(node).kill();
        let [left, right] = cluster.others(node);
        let (left, right) = (cluster.url_of(left), cluster.url_of(right));
        let traffic = Traffic::new().flow(&format!("last{node}"), QUEUE, &left, &right);
        traffic.wait_for(100);
        traffic.finish(&cluster, clock::now(), &mut history);
        cluster.node_mut(node).restart();
    }
    history.assert_kept(Expectations::CLUSTER);
}
