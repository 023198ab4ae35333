//! Fear: an upgrade, node by node, is noticed by clients of the nodes that are not restarting.

use flintmq_system_tests::clock;
use flintmq_system_tests::cluster::{Cluster, NODES, Traffic};
use flintmq_system_tests::history::{Expectations, History};
use flintmq_system_tests::silence;
use flintmq_system_tests::wait::LIMIT;

#[test]
fn all_nodes_restart_under_traffic() {
    let mut cluster = Cluster::start();
    let began = clock::now();
    let traffic = Traffic::everywhere(&cluster, "rolling");
    for node in NODES {
        let url = cluster.node(node).url();
        let before = traffic.interruptions_elsewhere(&url);
        cluster.node(node).terminate();
        let status = cluster.node_mut(node).wait_for_exit(LIMIT);
        assert!(status.success(), "node {node} stopped with {status}");
        let log = cluster.node(node).log();
        assert!(!log.contains("still busy at the end of the stop"), "a part of it hung: {log}");
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
    silence::assert_nothing_hung(&[silence]);
}
