//! Fear: after a power loss a node has forgotten what it had voted for or acknowledged, and the
//! cluster counts on it all the same.
//!
//! `FLINTMQ_TEST_POWER_LOSSES` says how often each node loses its power, once unless it is set.

use flintmq_system_tests::clock;
use flintmq_system_tests::cluster::{Cluster, NODES, Traffic};
use flintmq_system_tests::history::{Expectations, History};
use flintmq_system_tests::power;

const QUEUE: &str = "bmq.test/power";
const OTHER: &str = "bmq.test/other-power";

fn rounds() -> usize {
    std::env::var("FLINTMQ_TEST_POWER_LOSSES")
        .ok()
        .and_then(|count| count.parse().ok())
        .unwrap_or(1)
}

#[test]
fn each_node_in_turn_loses_its_power() {
    let mut cluster = Cluster::start();
    for (node, queue) in [(1, QUEUE), (2, OTHER)] {
        cluster.create_queue(node, queue);
    }
    let mut history = History::default();
    for (round, node) in (0..rounds()).flat_map(|round| NODES.map(|node| (round, node))) {
        let [left, right] = cluster.others(node);
        let (left, right) = (cluster.url_of(left), cluster.url_of(right));
        let traffic = Traffic::new().flow(&format!("p{round}.{node}"), QUEUE, &left, &right).flow(
            &format!("q{round}.{node}"),
            OTHER,
            &right,
            &left,
        );
        traffic.wait_for(300);
        let synced = power::synced(cluster.node(node));
        traffic.wait_for(50);
        let killed_at = clock::now();
        cluster.node_mut(node).kill();
        let lost = power::lose_tail(cluster.node(node), &synced);
        assert!(lost > 0, "there was something to lose");
        traffic.wait_for(100);

        let before = cluster.node(node).log().matches(power::TOLD).count();
        cluster.node_mut(node).restart();
        assert_eq!(cluster.node(node).log().matches(power::TOLD).count(), before + 1);
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
