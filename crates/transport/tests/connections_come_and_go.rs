//! One connection for each pair of nodes, made again whenever it is lost.

#![allow(clippy::unwrap_used)]

mod nodes;

use std::net::SocketAddr;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use flintmq_transport::{NodeId, QuicSettings, Routes, Settings, Transport};
use nodes::{Cluster, Running, down, introduce, speak, start, until, up};

#[tokio::test]
async fn two_nodes_that_dial_at_one_time_end_with_one_connection() {
    let cluster = Cluster::new();
    // No courtesy between the two: the shorter, the more often they meet half way.
    for round in 0..10 {
        let settings = |node| Settings {
            backoff_min: Duration::from_millis(1),
            ..Settings::new("test", NodeId(node), 1)
        };
        let mut one = start(settings(1), cluster.quic(1)).await;
        let mut two = start(settings(2), cluster.quic(2)).await;
        introduce(&two, &one, 1);
        introduce(&one, &two, 2);
        up(&mut one).await;
        up(&mut two).await;
        // Whatever met half way was sorted out: from some moment on there is one connection.
        let mut number = round;
        loop {
            while one.inbound.events.try_recv().is_ok() {}
            while two.inbound.events.try_recv().is_ok() {}
            number += 100;
            speak(&mut one, &mut two, number).await;
            if one.inbound.events.is_empty() && two.inbound.events.is_empty() {
                break;
            }
        }
        let ends = [&one, &two].map(|node| node.transport.peers()[0].connection);
        assert!(ends.iter().all(Option::is_some), "{ends:?}");
    }
}

#[tokio::test]
async fn a_restarted_node_is_known_as_another_process_at_once() {
    let cluster = Cluster::new();
    let [mut one, two] = cluster.connected_pair().await;
    let address = two.address;
    // As after kill -9: nobody is told. The port is free when the last task is gone.
    drop(two);
    down(&mut one).await;
    let quic = QuicSettings { listen: address, ..cluster.quic(2) };
    let settings =
        Settings::new("test", NodeId(2), 7).with_peer(NodeId(1), one.address.to_string());
    let (routes, inbound) = Routes::by_class(64);
    let transport = loop {
        let routes = routes.clone();
        match Transport::bind(settings.clone(), quic.clone(), routes).await {
            Ok(transport) => break transport,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    let mut two = Running { transport, inbound, address };
    assert_eq!(up(&mut one).await, (NodeId(2), 7));
    assert_eq!(up(&mut two).await, (NodeId(1), 1));
    speak(&mut one, &mut two, 3).await;
}

#[tokio::test]
async fn a_removed_peer_is_left_alone_and_an_added_one_comes_back() {
    let cluster = Cluster::new();
    let [mut one, mut two] = cluster.connected_pair().await;
    assert!(one.transport.remove_peer(NodeId(2)));
    down(&mut one).await;
    down(&mut two).await;
    let error = || two.transport.peers()[0].last_error.clone().unwrap_or_default();
    until("the other side is refused", || error().contains("does not know this node")).await;
    introduce(&one, &two, 2);
    up(&mut one).await;
    up(&mut two).await;
    speak(&mut one, &mut two, 4).await;
}

#[tokio::test]
async fn three_nodes_have_a_connection_each_to_the_others() {
    let cluster = Cluster::new();
    let mut nodes =
        [cluster.start(1, 1).await, cluster.start(2, 1).await, cluster.start(3, 1).await];
    for here in 0..3 {
        for there in 0..3 {
            if here != there {
                introduce(&nodes[here], &nodes[there], there as u32 + 1);
            }
        }
    }
    for node in &mut nodes {
        let mut met = [up(node).await.0, up(node).await.0];
        met.sort_unstable();
        assert_eq!(met.len(), 2);
    }
    for node in &nodes {
        until("everybody is connected", || {
            node.transport.peers().iter().all(|peer| peer.connection.is_some())
        })
        .await;
    }
}

/// Runs a second node that connects to the first one, and then stops dead: its sockets stay, and
/// nothing answers on them. Gives its address, and what ends it when it is dropped.
fn stopped_dead(settings: Settings, quic: QuicSettings, first: String) -> (SocketAddr, impl Drop) {
    struct Corpse(Option<mpsc::Sender<()>>, Option<JoinHandle<()>>);
    impl Drop for Corpse {
        fn drop(&mut self) {
            drop(self.0.take());
            if let Some(thread) = self.1.take() {
                let _ = thread.join();
            }
        }
    }
    let (tell, told) = mpsc::channel();
    let (bury, buried) = mpsc::channel::<()>();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut two = runtime.block_on(start(settings, quic));
        tell.send(two.address).unwrap();
        assert!(two.transport.add_peer(NodeId(1), first));
        runtime.block_on(up(&mut two));
        // Nothing is polled from here on, so nothing is answered.
        let _ = buried.recv();
    });
    (told.recv().unwrap(), Corpse(Some(bury), Some(thread)))
}

#[tokio::test]
async fn a_peer_that_falls_silent_is_mourned_after_the_idle_timeout() {
    let cluster = Cluster::new();
    let short = |node| Settings {
        idle_timeout: Duration::from_millis(300),
        ..Settings::new("test", NodeId(node), 1)
    };
    let mut one = start(short(1), cluster.quic(1)).await;
    let (address, _corpse) = stopped_dead(short(2), cluster.quic(2), one.address.to_string());
    assert!(one.transport.add_peer(NodeId(2), address.to_string()));
    up(&mut one).await;
    // On a busy machine one of two connections that met may have gone first.
    while down(&mut one).await != "the peer was not heard any more" {}
}

#[tokio::test]
async fn a_process_that_died_without_a_word_is_replaced_as_soon_as_its_successor_is_there() {
    let cluster = Cluster::new();
    // Far longer than the test waits for anything.
    let long = |node, incarnation| Settings {
        idle_timeout: Duration::from_secs(600),
        ..Settings::new("test", NodeId(node), incarnation)
    };
    let mut one = start(long(1, 1), cluster.quic(1)).await;
    let (address, _corpse) = stopped_dead(long(2, 1), cluster.quic(2), one.address.to_string());
    assert!(one.transport.add_peer(NodeId(2), address.to_string()));
    assert_eq!(up(&mut one).await, (NodeId(2), 1));
    let mut two = start(long(2, 2), cluster.quic(2)).await;
    introduce(&two, &one, 1);
    assert!(down(&mut one).await.contains("replaced"));
    assert_eq!(up(&mut one).await, (NodeId(2), 2));
    assert_eq!(up(&mut two).await, (NodeId(1), 1));
    speak(&mut one, &mut two, 6).await;
}
