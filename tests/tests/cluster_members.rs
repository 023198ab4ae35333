//! Fear: a cluster loses messages, or its clients notice, when nodes are added, drained, removed or
//! replaced.

use std::fs;
use std::time::Duration;

use flintmq_system_tests::clock;
use flintmq_system_tests::cluster::{Cluster, NODES, Traffic};
use flintmq_system_tests::history::{Expectations, History};
use flintmq_system_tests::wait::until;
use serde_json::json;

/// A producer and a consumer at each of the first nodes, each at another one.
fn traffic_everywhere(cluster: &Cluster) -> Traffic {
    let queue = |node: usize| format!("bmq.test/members{node}");
    for node in NODES {
        cluster.create_queue(node, &queue(node));
    }
    let mut traffic = Traffic::new();
    for node in NODES {
        let consume = cluster.urls_from(cluster.others(node)[0]);
        let publish = cluster.urls_from(node);
        traffic = traffic.flow(&format!("p{node}"), &queue(node), &publish, &consume);
    }
    traffic.wait_for(200);
    traffic
}

#[track_caller]
fn assert_kept(cluster: &Cluster, traffic: Traffic, began: u64, expected: Expectations) {
    traffic.wait_for(100);
    let mut history = History::default();
    traffic.finish(cluster, began, &mut history);
    history.assert_kept(expected);
}

#[test]
fn a_fourth_node_comes_is_drained_and_an_old_one_leaves_under_traffic() {
    let mut cluster = Cluster::start();
    let began = clock::now();
    let traffic = traffic_everywhere(&cluster);

    let new = cluster.prepare_another();
    cluster.add(2, new);
    cluster.node_mut(new).wait_until_ready();
    cluster.wait_for_voters(3, &[1, 2, 3, 4]);
    traffic.wait_for(100);
    // It serves clients like all others.
    let uri = "bmq.test/members1";
    assert!(cluster.wait_for_leader_among(uri, &[1, 2, 3, 4]) > 0);

    let admin = cluster.node(1).admin();
    admin.must("POST", "/api/v1/nodes/2/drain", "{}");
    until("node 2 to lead nothing", || (cluster.leads(1, 2) == Some(0)).then_some(()));
    traffic.wait_for(100);
    admin.must("POST", "/api/v1/nodes/2/drain", r#"{"undo": true}"#);
    let before = traffic.interruptions();
    assert_eq!(before, 0, "no client was interrupted so far");

    cluster.node(3).admin().must("DELETE", "/api/v1/nodes/1", "");
    let status = cluster.node_mut(1).wait_for_exit(Duration::from_secs(90));
    assert_eq!(status.code(), Some(1));
    let log = cluster.node(1).log();
    assert!(log.contains("this node was removed from the cluster"), "{log}");
    cluster.wait_for_voters(3, &[2, 3, 4]);
    assert_eq!(cluster.leads(3, 1), None, "it is forgotten");

    // It does not come back, and its number neither.
    cluster.node_mut(1).launch();
    let status = cluster.node_mut(1).wait_for_exit(Duration::from_secs(60));
    assert_eq!(status.code(), Some(1));
    let log = cluster.node(1).log();
    assert!(log.contains("its data directory may be deleted, and its number"), "{log}");
    let body = json!({ "id": 1, "peers": "127.0.0.1:1" }).to_string();
    let refused = cluster.node(2).admin().send("POST", "/api/v1/nodes", &body);
    assert_eq!(refused.status, 409, "{}", refused.body);
    assert!(refused.body.contains("numbers are never used again"), "{}", refused.body);
    assert_kept(&cluster, traffic, began, Expectations::CLUSTER);
}

#[test]
fn a_dead_node_is_replaced_with_an_empty_disk_under_traffic() {
    let mut cluster = Cluster::start();
    let began = clock::now();
    let traffic = traffic_everywhere(&cluster);
    cluster.node_mut(3).kill();
    fs::remove_dir_all(cluster.node(3).data_dir()).expect("the directory is removed");
    traffic.wait_for(100);

    // As itself it is refused, and told what to do.
    cluster.node_mut(3).launch();
    let status = cluster.node_mut(3).wait_for_exit(Duration::from_secs(60));
    assert_eq!(status.code(), Some(1));
    let log = cluster.node(3).log();
    assert!(log.contains("flintmq admin node replace"), "{log}");

    let new = cluster.prepare_another();
    let body = json!({ "with": new, "peers": cluster.peers_of(new) }).to_string();
    cluster.node(1).admin().must("POST", "/api/v1/nodes/3/replace", &body);
    cluster.node_mut(new).launch();
    cluster.node_mut(new).wait_until_ready();
    cluster.wait_for_voters(2, &[1, 2, 4]);
    until("node 3 to be forgotten", || cluster.leads(2, 3).is_none().then_some(()));
    traffic.wait_for(100);

    // What the new one has counts: with another one gone, it is needed.
    cluster.node_mut(1).kill();
    traffic.wait_for(100);
    cluster.node_mut(1).restart();
    // Messages were on their way to consumers at the nodes that were killed.
    let expected = Expectations { ordered: false, ..Expectations::CLUSTER };
    assert_kept(&cluster, traffic, began, expected);
}

#[test]
fn only_who_is_expected_comes_and_only_with_one_disk() {
    let mut cluster = Cluster::start();
    let new = cluster.prepare_another();
    cluster.node_mut(new).launch();
    cluster.node(new).wait_for_log(&["yet to be added"]);
    let admin = cluster.node(1).admin();
    for (body, why) in [
        (json!({ "id": 2, "peers": "127.0.0.1:1" }), "has a node of this number"),
        (json!({ "id": 9, "peers": cluster.peers_of(1) }), "another node has this address"),
        (json!({ "id": 9, "peers": "nowhere" }), "HOST:PORT"),
        (json!({ "id": 0, "peers": "127.0.0.1:1" }), "start at 1"),
    ] {
        let refused = admin.send("POST", "/api/v1/nodes", &body.to_string());
        assert!((400..500).contains(&refused.status), "{}", refused.body);
        assert!(refused.body.contains(why), "{}", refused.body);
    }
    let refused = admin.send("DELETE", "/api/v1/nodes/2", "");
    assert_eq!(refused.status, 409, "{}", refused.body);
    assert!(refused.body.contains("too few nodes would be left"), "{}", refused.body);

    let body = json!({ "id": new, "peers": cluster.peers_of(new) }).to_string();
    admin.must("POST", "/api/v1/nodes", &body);
    cluster.wait_for_voters(1, &[1, 2, 3, 4]);
    // A restart of all finds the new one again, which no configuration of the old ones names.
    for node in [1, 2, 3, 4] {
        cluster.node_mut(node).kill();
    }
    for node in [1, 2, 4] {
        cluster.node_mut(node).launch();
    }
    cluster.wait_until_ready();
    cluster.node_mut(new).kill();
    fs::remove_dir_all(cluster.node(new).data_dir()).expect("the directory is removed");
    cluster.node_mut(3).restart();
    cluster.node_mut(new).launch();
    let status = cluster.node_mut(new).wait_for_exit(Duration::from_secs(60));
    assert_eq!(status.code(), Some(1));
    let log = cluster.node(new).log();
    assert!(log.contains("the data directory is new"), "{log}");
}
