//! Fear: a cluster forms with nodes that have forgotten what they voted for, or does not form
//! because its nodes came in an unlucky order.

use std::fs;

use flintmq_system_tests::broker_process::Broker;
use flintmq_system_tests::clock;
use flintmq_system_tests::cluster::{Cluster, Traffic};
use flintmq_system_tests::history::{Expectations, History};
use flintmq_system_tests::wait::LIMIT;

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

#[test]
fn nodes_may_come_in_any_order_and_much_later() {
    let mut cluster = Cluster::builder().prepare();
    cluster.node_mut(3).launch();
    cluster.node(3).wait_for_log(&["waiting for the other nodes to form the cluster"]);
    cluster.node_mut(1).launch();
    // After five seconds an operator is told who is missing.
    cluster.node(1).wait_for_log(&["still waiting for nodes", "[2]"]);
    let ready = cluster.node(1).admin().get("/readyz");
    assert_eq!(ready.status, 503, "{}", ready.body);
    cluster.node_mut(2).launch();
    cluster.wait_until_ready();
    assert_flows(&cluster, 2, 3);
}

#[test]
fn a_node_that_waits_for_the_others_can_be_stopped_and_comes_back() {
    let mut cluster = Cluster::builder().prepare();
    cluster.node_mut(1).launch();
    cluster.node(1).wait_for_log(&["waiting for the other nodes to form the cluster"]);
    cluster.node(1).terminate();
    let status = cluster.node_mut(1).wait_for_exit(LIMIT);
    assert_eq!(status.code(), Some(1), "it never was up");
    cluster.node_mut(1).launch();
    cluster.node(1).wait_for_log(&["still waiting for nodes"]);
    cluster.node_mut(1).kill();
    for node in [1, 2, 3] {
        cluster.node_mut(node).launch();
    }
    cluster.wait_until_ready();
    assert_flows(&cluster, 1, 2);
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
    fs::remove_dir_all(cluster.node(2).data_dir()).expect("the directory is removed");
    cluster.node_mut(2).launch();
    let status = cluster.node_mut(2).wait_for_exit(LIMIT);
    assert_eq!(status.code(), Some(1));
    let log = cluster.node(2).log();
    let why = "the data directory is new, but the cluster was formed with another one of this node";
    assert!(log.contains(why), "{log}");
    assert!(log.contains("restore that one"), "and what to do: {log}");
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
