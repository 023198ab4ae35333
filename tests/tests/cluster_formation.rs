//! Fear: a cluster forms with nodes that have forgotten what they voted for, or does not form
//! because its nodes came in an unlucky order.

use std::fs;
use std::path::Path;
use std::time::Duration;

use flintmq_system_tests::broker_process::Broker;
use flintmq_system_tests::clock;
use flintmq_system_tests::cluster::{Cluster, Traffic};
use flintmq_system_tests::history::{Expectations, History};
use flintmq_system_tests::json_session::JsonSession;
use flintmq_system_tests::wait::{self, LIMIT};
use serde_json::Value;

const QUEUE: &str = "bmq.test/formed";

#[track_caller]
fn assert_flows(cluster: &Cluster, publish: usize, consume: usize) {
    let began = clock::now();
    let traffic =
        Traffic::new().flow("p", QUEUE, &cluster.url_of(publish), &cluster.url_of(consume));
    traffic.wait_for(100);
    let mut history = History::default();
    traffic.finish(cluster, began, &mut history);
    history.assert_kept(Expectations::CLUSTER);
}

/// Starts nodes and waits until they serve, without the rest.
fn form_with(cluster: &mut Cluster, nodes: &[usize]) {
    for node in nodes {
        cluster.node_mut(*node).launch();
    }
    cluster.wait_until_ready();
}

fn lose_directory(cluster: &Cluster, node: usize) {
    fs::remove_dir_all(cluster.node(node).data_dir()).expect("the directory is removed");
}

/// Starts a node that must not come up; what it says.
#[track_caller]
fn refusal_of(cluster: &mut Cluster, node: usize) -> String {
    let before = cluster.node(node).log().len();
    cluster.node_mut(node).launch();
    let status = cluster.node_mut(node).wait_for_exit(LIMIT);
    assert_eq!(status.code(), Some(1));
    cluster.node(node).log()[before..].to_owned()
}

const FORGOTTEN: &str =
    "the data directory is new, but the cluster was formed with another one of this node";

#[test]
fn all_nodes_may_come_in_any_order() {
    let mut cluster = Cluster::builder().prepare();
    cluster.node_mut(3).launch();
    cluster.node(3).wait_for_log(&["waiting for the other nodes to form the cluster"]);
    // After five seconds an operator is told who is missing.
    cluster.node(3).wait_for_log(&["still waiting for nodes", "[1, 2]"]);
    let ready = cluster.node(3).admin().get("/readyz");
    assert_eq!(ready.status, 503, "{}", ready.body);
    let why = "it needs a majority of [[cluster_nodes]], missing=[1, 2]";
    assert!(ready.body.contains(why), "{}", ready.body);
    form_with(&mut cluster, &[1, 2]);
    cluster.wait_for_voters(1, &[1, 2, 3]);
    assert_flows(&cluster, 2, 3);
}

#[test]
fn a_majority_is_enough_and_the_rest_joins_by_itself() {
    let mut cluster = Cluster::builder().prepare();
    form_with(&mut cluster, &[3, 1]);
    assert_flows(&cluster, 1, 3);
    cluster.node_mut(2).launch();
    cluster.wait_until_ready();
    cluster.wait_for_voters(2, &[1, 2, 3]);
    cluster.node_mut(3).kill();
    cluster.wait_until_ready();
    assert_flows(&cluster, 2, 1);
    // The one that came later has one directory as well.
    cluster.node_mut(3).launch();
    cluster.wait_until_ready();
    cluster.node_mut(2).stop();
    lose_directory(&cluster, 2);
    let said = refusal_of(&mut cluster, 2);
    assert!(said.contains(FORGOTTEN), "{said}");
    assert_flows(&cluster, 1, 3);
}

#[test]
fn a_directory_that_was_lost_before_all_have_come_is_remembered_by_each_that_heard_of_it() {
    let mut cluster = Cluster::builder().prepare();
    form_with(&mut cluster, &[1, 3]);
    assert_flows(&cluster, 1, 3);
    cluster.node_mut(1).kill();
    lose_directory(&cluster, 1);
    let said = refusal_of(&mut cluster, 1);
    assert!(said.contains(FORGOTTEN), "{said}");
    // Node 2 hears of the formation and cannot be admitted, for there is no majority. Then it is
    // the only one to know.
    cluster.node_mut(2).launch();
    cluster.node(2).wait_for_log(&["the cluster was formed without this node"]);
    let admin = cluster.node(2).admin();
    wait::until("the reason to be told", || {
        let ready = admin.get("/readyz");
        let why = "the cluster is formed, and admits this node when a majority serves";
        (ready.status == 503 && ready.body.contains(why)).then_some(())
    });
    cluster.node_mut(3).kill();
    let said = refusal_of(&mut cluster, 1);
    assert!(said.contains(FORGOTTEN), "{said}");
}

#[test]
fn what_was_formed_twice_is_never_mixed() {
    let mut cluster = Cluster::builder().prepare();
    form_with(&mut cluster, &[1, 3]);
    assert_flows(&cluster, 1, 3);
    cluster.node_mut(1).stop();
    cluster.node_mut(3).stop();
    // No node that knows of the first time is there: no protocol can tell.
    lose_directory(&cluster, 1);
    form_with(&mut cluster, &[1, 2]);
    assert_flows(&cluster, 2, 1);
    cluster.node_mut(3).launch();
    let refused = "the peer belongs to another formation of the cluster";
    for node in [1, 2, 3] {
        cluster.node(node).wait_for_log(&[refused]);
    }
    let ready = cluster.node(3).admin().get("/readyz");
    assert_eq!(ready.status, 503, "{}", ready.body);
    assert_flows(&cluster, 1, 2);
    cluster.node_mut(3).assert_running();
    // The first one is as it was.
    let terms = cluster.node(3).log();
    assert!(!terms.contains("the cluster admits this node"), "{terms}");
}

#[test]
fn clients_negotiate_and_their_opens_wait_for_the_formation() {
    let mut cluster = Cluster::builder().prepare();
    cluster.node_mut(1).launch();
    cluster.node(1).wait_for_log(&["waiting for the other nodes to form the cluster"]);
    let mut early = JsonSession::start(cluster.node(1));
    let leaves = JsonSession::start(cluster.node(1));
    leaves.disconnect();
    let opening = std::thread::spawn(move || {
        let answer = early.open("bmq://bmq.test/early", 0, false, true);
        early.put(0, 7, b"first");
        let acknowledged = early.acknowledgements();
        early.disconnect();
        (answer, acknowledged.len())
    });
    cluster.node_mut(2).launch();
    let (answer, acknowledged) = opening.join().expect("the client gets its answers");
    assert!(answer.get("openQueueResponse").is_some(), "{answer}");
    assert_eq!(acknowledged, 1);
}

#[test]
fn a_node_that_waits_for_the_others_stops_at_once_and_comes_back() {
    let mut cluster = Cluster::builder().prepare();
    cluster.node_mut(1).launch();
    cluster.node(1).wait_for_log(&["waiting for the other nodes to form the cluster"]);
    let waits = JsonSession::start(cluster.node(1));
    // It may have to wait for its turn on a busy machine, and for nothing else.
    cluster.node_mut(1).terminate();
    let status = cluster.node_mut(1).wait_for_exit(Duration::from_secs(8));
    assert_eq!(status.code(), Some(0), "{}", cluster.node(1).log());
    waits.into_client().expect_closed();
    cluster.node_mut(1).launch();
    cluster.node(1).wait_for_log(&["the last stop was clean"]);
    cluster.node(1).wait_for_log(&["still waiting for nodes"]);
    cluster.node_mut(1).kill();
    form_with(&mut cluster, &[1, 2, 3]);
    assert_flows(&cluster, 1, 2);
}

#[test]
fn a_directory_of_which_a_part_is_missing_or_is_anothers_is_refused() {
    let mut cluster = Cluster::start();
    assert_flows(&cluster, 1, 2);
    cluster.node_mut(2).stop();
    cluster.node_mut(1).stop();
    let own = cluster.node(2).data_dir();
    let [saved, foreign] = ["saved", "foreign"].map(|name| cluster.node(2).folder().join(name));
    copy(&own, &saved);
    copy(&cluster.node(1).data_dir(), &foreign);
    // Parts to be removed, parts to be copied from node 1, and what the node says.
    let losses: [(&[&str], &[&str], &str); 9] = [
        (&["marker"], &[], "has content but no marker"),
        (&["db"], &[], "has a marker but no database"),
        (&["formation.json"], &[], "has lost the record of its cluster's formation"),
        (&["marker", "db"], &[], "belongs to another store"),
        (&["marker", "db", "LOCK", "formation.json"], &[], FORGOTTEN),
        (&[], &["marker"], "belongs to another node"),
        (&[], &["db"], "do not belong together"),
        (&[], &["formation.json"], "belongs to another store"),
        (&[], &["marker", "db", "formation.json"], "belongs to another node"),
    ];
    cluster.node_mut(1).launch();
    cluster.wait_until_ready();
    for (lost, copied, why) in losses {
        for part in lost.iter().chain(copied) {
            remove(&own.join(part));
        }
        for part in copied {
            copy(&foreign.join(part), &own.join(part));
        }
        let said = refusal_of(&mut cluster, 2);
        assert!(said.contains(why), "lost {lost:?}, copied {copied:?}: {said}");
        remove(&own);
        copy(&saved, &own);
    }
    cluster.node_mut(2).launch();
    cluster.wait_until_ready();
    assert_flows(&cluster, 2, 3);
}

#[test]
fn a_node_whose_clock_stepped_back_is_taken_again() {
    let mut cluster = Cluster::start();
    cluster.node_mut(2).stop();
    // As if it had run while the clock was a day ahead.
    let file = cluster.node(2).data_dir().join("marker");
    let text = fs::read_to_string(&file).expect("the marker");
    let (_, body) = text.split_once('\n').expect("a checksum, then the rest");
    let mut marker: Value = serde_json::from_str(body).expect("the marker is JSON");
    let ahead = marker["process"].as_u64().expect("the number of the run") + 86_400_000;
    (marker["process"], marker["state"]) = (ahead.into(), "Starting".into());
    let body = marker.to_string();
    let sum = crc32c::crc32c(body.as_bytes());
    fs::write(&file, format!("crc32c {sum:08x}\n{body}")).expect("the marker is written");
    for run in 1..=3 {
        cluster.node_mut(2).launch();
        cluster.wait_until_ready();
        for other in [1, 3] {
            cluster.node(other).wait_for_log(&[&format!("incarnation={}", ahead + run)]);
        }
        assert_flows(&cluster, 2, 2);
        cluster.node_mut(2).stop();
    }
}

fn remove(path: &Path) {
    if path.is_dir() {
        fs::remove_dir_all(path).expect("a part is removed");
    } else if path.exists() {
        fs::remove_file(path).expect("a part is removed");
    }
}

fn copy(from: &Path, to: &Path) {
    if !from.is_dir() {
        fs::copy(from, to).expect("a part is copied");
        return;
    }
    fs::create_dir_all(to).expect("a directory is made");
    for part in fs::read_dir(from).expect("the directory is read") {
        let name = part.expect("the directory is read").file_name();
        copy(&from.join(&name), &to.join(&name));
    }
}

#[test]
fn a_formed_cluster_starts_with_any_two() {
    let mut cluster = Cluster::start();
    assert_flows(&cluster, 1, 2);
    for node in [1, 2, 3] {
        cluster.node_mut(node).kill();
    }
    for node in [3, 2] {
        cluster.node_mut(node).launch();
    }
    cluster.wait_until_ready();
    assert_flows(&cluster, 3, 2);
    cluster.node_mut(1).restart();
    assert_flows(&cluster, 1, 1);
}

#[test]
fn a_node_without_its_memory_is_refused() {
    let mut cluster = Cluster::start();
    assert_flows(&cluster, 1, 2);
    cluster.node_mut(2).stop();
    lose_directory(&cluster, 2);
    let said = refusal_of(&mut cluster, 2);
    assert!(said.contains(FORGOTTEN), "{said}");
    assert!(said.contains("restore that one"), "and what to do: {said}");
    assert_flows(&cluster, 1, 3);
}

#[test]
fn a_directory_of_a_single_node_is_refused() {
    let builder = Broker::builder().setting("cluster = \"test\"").setting("node.id = 1");
    let mut single = builder.start();
    single.stop();
    let mut cluster = Cluster::builder().prepare();
    fs::rename(single.data_dir(), cluster.node(1).data_dir()).expect("the directory is moved");
    for node in [1, 2, 3] {
        cluster.node_mut(node).launch();
    }
    let status = cluster.node_mut(1).wait_for_exit(LIMIT);
    assert_eq!(status.code(), Some(1));
    let log = cluster.node(1).log();
    assert!(log.contains("the data directory belongs to a cluster of one node"), "{log}");
    assert!(log.contains("with an empty directory"), "and what to do: {log}");
}
