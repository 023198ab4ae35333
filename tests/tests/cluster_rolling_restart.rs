//! Fear: an upgrade, node by node, is noticed by clients of the nodes that are not restarting.

use std::time::Duration;

use flintmq_system_tests::clock;
use flintmq_system_tests::cluster::{Cluster, NODES, Traffic};
use flintmq_system_tests::history::{Expectations, History};
use flintmq_system_tests::silence;

/// Less than a node waits for a part of it that hangs.
const STOP: Duration = Duration::from_secs(25);

#[test]
fn all_nodes_restart_under_traffic() {
    let mut cluster = Cluster::start();
    let began = clock::now();
    let traffic = Traffic::everywhere(&cluster, "rolling");
    for node in NODES {
        let url = cluster.node(node).url();
        let before = traffic.interruptions_elsewhere(&url);
        cluster.node(node).terminate();
        let status = cluster.node_mut(node).wait_for_exit(STOP);
        assert!(status.success(), "node {node} stopped with {status}");
        traffic.wait_for(100);
        cluster.node_mut(node).restart();
        traffic.wait_for(100);
        // Those who were elsewhere are still there, and their connections never broke.
        let after = traffic.interruptions_elsewhere(&url);
        let kept = before.iter().all(|client| after.contains(client));
        assert!(kept, "restart of node {node}: {before:?}, then {after:?}");
    }
    let mut history = History::default();
    let silence = traffic.finish(&cluster, began, &mut history);
    silence::print("longest silence of a producer in three restarts", &[silence]);
    history.assert_kept(Expectations::CLUSTER);
    assert!(silence < Duration::from_secs(10), "{silence:?}");
}
