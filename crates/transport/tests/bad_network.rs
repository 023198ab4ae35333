//! Real connections through a relay that loses packets, or all of them.

#![allow(clippy::unwrap_used)]

mod nodes;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use flintmq_transport::{Lane, NodeId, Settings};
use nodes::{Cluster, Running, down, number_of, numbered, speak, start, up};
use tokio::net::UdpSocket;

/// Every packet passes.
const ALL: u64 = 100;

/// Carries packets between whoever sends to it and one node.
struct Relay {
    address: SocketAddr,
    /// Share of packets that pass, of a hundred.
    pass: Arc<AtomicU64>,
}

impl Relay {
    async fn to(node: SocketAddr) -> Self {
        let near = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
        let far = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
        far.connect(node).await.unwrap();
        let relay =
            Self { address: near.local_addr().unwrap(), pass: Arc::new(AtomicU64::new(ALL)) };
        let pass = Arc::clone(&relay.pass);
        tokio::spawn(async move {
            let mut dialer = None;
            let (mut from_near, mut from_far) = (vec![0; 65_536], vec![0; 65_536]);
            // Which packets pass is the same in each run, which packets there are is not.
            let mut draw = 7_u64;
            loop {
                let (packet, back) = tokio::select! {
                    Ok((length, address)) = near.recv_from(&mut from_near) => {
                        dialer = Some(address);
                        (&from_near[..length], false)
                    }
                    Ok(length) = far.recv(&mut from_far) => (&from_far[..length], true),
                };
                draw = draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                if (draw >> 33) % 100 >= pass.load(Ordering::Relaxed) {
                    continue;
                }
                // What is not sent is lost, which is what a relay is for.
                let _ = match dialer {
                    Some(address) if back => near.send_to(packet, address).await,
                    _ => far.send(packet).await,
                };
            }
        });
        relay
    }
}

/// Two nodes whose only way is through the relay.
async fn pair(cluster: &Cluster, idle_timeout: Duration) -> ([Running; 2], Relay) {
    let settings = |node| Settings { idle_timeout, ..Settings::new("test", NodeId(node), 1) };
    let one = start(settings(1), cluster.quic(1)).await;
    let two = start(settings(2), cluster.quic(2)).await;
    let relay = Relay::to(two.address).await;
    assert!(one.transport.add_peer(NodeId(2), relay.address.to_string()));
    // Nobody listens on the discard port.
    assert!(two.transport.add_peer(NodeId(1), "127.0.0.1:9"));
    let mut nodes = [one, two];
    nodes::settle(&mut nodes).await;
    (nodes, relay)
}

#[tokio::test]
async fn lost_packets_neither_lose_nor_reorder_frames() {
    let cluster = Cluster::new();
    let ([one, mut two], relay) = pair(&cluster, Duration::from_secs(60)).await;
    relay.pass.store(95, Ordering::Relaxed);
    let sender = one.transport.clone();
    tokio::spawn(async move {
        for number in 0..2000 {
            let frame = numbered(number, 700);
            sender.send_when_room(NodeId(2), Lane::append(0), frame).await.unwrap();
        }
    });
    let mut next = 0;
    while next < 2000 {
        for frame in two.append().await.frames {
            assert_eq!(number_of(&frame), next);
            next += 1;
        }
    }
}

#[tokio::test]
async fn nodes_that_were_cut_off_find_each_other_again() {
    let cluster = Cluster::new();
    let ([mut one, mut two], relay) = pair(&cluster, Duration::from_millis(500)).await;
    speak(&mut one, &mut two, 1).await;
    relay.pass.store(0, Ordering::Relaxed);
    assert_eq!(down(&mut one).await, "the peer was not heard any more");
    assert_eq!(down(&mut two).await, "the peer was not heard any more");
    relay.pass.store(ALL, Ordering::Relaxed);
    up(&mut one).await;
    up(&mut two).await;
    speak(&mut one, &mut two, 2).await;
}
