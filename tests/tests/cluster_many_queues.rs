//! Fear: thousands of queues take the memory of a cluster, or its time, or some of them do not come
//! back after a restart.
//!
//! `FLINTMQ_TEST_QUEUES` says how many, 1,500 unless it is set.

use std::time::Instant;

use flintmq_system_tests::cluster::{Cluster, NODES};
use flintmq_system_tests::{domains, many_queues};

const DOMAIN: &str = "many.queues";

/// In each queue.
const MESSAGES: usize = 4;

fn queues() -> usize {
    let count = std::env::var("FLINTMQ_TEST_QUEUES").ok().and_then(|count| count.parse().ok());
    count.unwrap_or(1_500)
}

fn look(cluster: &Cluster, when: &str) {
    let memory = NODES.map(|node| cluster.node(node).resident_bytes() >> 20);
    let used = NODES.map(|node| cluster.node(node).processor_time().as_secs_f64());
    println!("{when}: memory {memory:?} MiB, processor time {used:.1?} s");
}

#[test]
fn every_queue_keeps_its_messages_over_a_restart_of_all_nodes() {
    let mut cluster = Cluster::builder().partitions(64).start();
    cluster.node(1).admin().define_domain(&domains::priority(DOMAIN));
    look(&cluster, "formed");
    let (began, third) = (Instant::now(), queues() / 3);
    for (place, node) in NODES.into_iter().enumerate() {
        let part = place * third..(place + 1) * third;
        many_queues::publish(&cluster.url_of(node), DOMAIN, part, MESSAGES);
    }
    println!("{} queues made, {MESSAGES} messages in each, in {:.1?}", queues(), began.elapsed());
    look(&cluster, "full");

    let began = Instant::now();
    for node in NODES {
        cluster.node(node).terminate();
    }
    for node in NODES {
        let status = cluster.node_mut(node).wait_for_exit(flintmq_system_tests::wait::LIMIT);
        assert!(status.success(), "node {node} stopped with {status}");
    }
    println!("stopped in {:.1?}", began.elapsed());
    let began = Instant::now();
    for node in NODES {
        cluster.node_mut(node).launch();
    }
    cluster.wait_until_ready();
    println!("back in {:.1?}", began.elapsed());
    look(&cluster, "restarted");

    let began = Instant::now();
    for (place, node) in NODES.into_iter().enumerate() {
        // Not where they were made.
        let place = (place + 1) % NODES.len();
        let part = place * third..(place + 1) * third;
        many_queues::consume(&cluster.url_of(node), DOMAIN, part, MESSAGES);
    }
    println!("read in {:.1?}", began.elapsed());
    look(&cluster, "empty");
}
