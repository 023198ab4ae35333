//! Fear: nodes of two formations of one cluster exchange what must not be mixed.

#![allow(clippy::unwrap_used)]

mod nodes;

use flintmq_transport::{NodeId, Settings};
use nodes::{Cluster, Running, down, introduce, settle, speak, start, until};

async fn with_formation(cluster: &Cluster, node: u32, formation: u64) -> Running {
    let settings = Settings { formation, ..Settings::new("test", NodeId(node), 1) };
    start(settings, cluster.quic(node)).await
}

fn last_error(node: &Running) -> String {
    node.transport.peers()[0].last_error.clone().unwrap_or_default()
}

#[tokio::test]
async fn nodes_of_two_formations_refuse_each_other() {
    let cluster = Cluster::new();
    let mut one = with_formation(&cluster, 1, 7).await;
    let mut two = with_formation(&cluster, 2, 8).await;
    introduce(&one, &two, 2);
    introduce(&two, &one, 1);
    for node in [&one, &two] {
        let why = "belongs to another formation of the cluster";
        until("both are told", || last_error(node).contains(why)).await;
    }
    assert!(one.inbound.events.try_recv().is_err(), "they were never connected");
    assert!(two.inbound.events.try_recv().is_err(), "they were never connected");
}

#[tokio::test]
async fn a_connection_from_before_the_formation_ends_with_it() {
    let cluster = Cluster::new();
    let mut nodes = [with_formation(&cluster, 1, 7).await, with_formation(&cluster, 2, 0).await];
    introduce(&nodes[0], &nodes[1], 2);
    introduce(&nodes[1], &nodes[0], 1);
    settle(&mut nodes).await;
    let [mut one, mut two] = nodes;
    two.transport.set_formation(8);
    down(&mut one).await;
    down(&mut two).await;
    until("it is refused", || last_error(&two).contains("another formation")).await;
    // The same one is taken.
    two.transport.set_formation(7);
    speak(&mut one, &mut two, 3).await;
}
