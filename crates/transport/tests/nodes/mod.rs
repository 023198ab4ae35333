//! Real nodes on loopback addresses, with an authority that lives as long as the test.

#![allow(dead_code, clippy::unwrap_used, missing_docs)]

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use flintmq_transport::{
    Authority, Batch, Event, Inbound, Lane, NodeId, QuicSettings, Routes, Settings, Transport,
};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Longer than anything takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Cluster {
    pub(crate) authority: Authority,
    pub(crate) dir: TempDir,
}

pub(crate) struct Running {
    pub(crate) transport: Transport,
    pub(crate) inbound: Inbound,
    pub(crate) address: SocketAddr,
}

impl Cluster {
    pub(crate) fn new() -> Self {
        let dir = TempDir::new().unwrap();
        Self { authority: Authority::throw_away().unwrap(), dir }
    }

    /// Certificates of the node and a port that is chosen.
    pub(crate) fn quic(&self, node: u32) -> QuicSettings {
        let files = self.authority.write_node(self.dir.path(), "test", NodeId(node)).unwrap();
        QuicSettings::new("127.0.0.1:0".parse().unwrap(), files)
    }

    pub(crate) async fn start(&self, node: u32, incarnation: u64) -> Running {
        start(Settings::new("test", NodeId(node), incarnation), self.quic(node)).await
    }

    /// Two nodes that know each other's addresses, and that are not necessarily connected yet.
    pub(crate) async fn pair(&self) -> [Running; 2] {
        let nodes = [self.start(1, 1).await, self.start(2, 1).await];
        introduce(&nodes[0], &nodes[1], 2);
        introduce(&nodes[1], &nodes[0], 1);
        nodes
    }

    /// Two nodes that are connected.
    pub(crate) async fn connected_pair(&self) -> [Running; 2] {
        let mut nodes = self.pair().await;
        settle(&mut nodes).await;
        nodes
    }
}

pub(crate) async fn start(settings: Settings, quic: QuicSettings) -> Running {
    let (routes, inbound) = Routes::by_class(64);
    let transport = Transport::bind(settings, quic, routes).await.unwrap();
    let address = transport.local_address().unwrap();
    Running { transport, inbound, address }
}

/// Tells a node of a peer.
pub(crate) fn introduce(node: &Running, peer: &Running, number: u32) {
    assert!(node.transport.add_peer(NodeId(number), peer.address.to_string()));
}

/// Waits until both ends of a pair use the same connection: what one sends then arrives.
pub(crate) async fn settle(nodes: &mut [Running; 2]) {
    let [one, two] = nodes;
    assert_eq!(up(one).await.0, NodeId(2));
    assert_eq!(up(two).await.0, NodeId(1));
}

impl Running {
    pub(crate) async fn event(&mut self) -> Event {
        expect(&mut self.inbound.events).await
    }

    pub(crate) async fn append(&mut self) -> Batch {
        expect(&mut self.inbound.append).await
    }
}

pub(crate) async fn expect<T>(channel: &mut mpsc::Receiver<T>) -> T {
    timeout(PATIENCE, channel.recv()).await.expect("it does not come").expect("the node is gone")
}

/// Sends this number in both directions until both have it: while two connections meet, what is
/// sent on the one that goes is lost.
pub(crate) async fn speak(one: &mut Running, two: &mut Running, number: u32) {
    let lane = Lane::append(0);
    let speaking = async {
        let (mut one_heard, mut two_heard) = (false, false);
        while !(one_heard && two_heard) {
            // Refused or lost: the next round sends it again.
            let _ = one.transport.send(NodeId(2), lane, numbered(number, 10));
            let _ = two.transport.send(NodeId(1), lane, numbered(number, 10));
            one_heard |= hears(one, number).await;
            two_heard |= hears(two, number).await;
        }
    };
    timeout(PATIENCE, speaking).await.expect("the nodes do not hear each other");
}

async fn hears(node: &mut Running, number: u32) -> bool {
    let hearing = async {
        while node.append().await.frames.iter().all(|frame| number_of(frame) != number) {}
    };
    timeout(Duration::from_millis(200), hearing).await.is_ok()
}

/// The next peer that comes up, with its incarnation.
pub(crate) async fn up(node: &mut Running) -> (NodeId, u64) {
    loop {
        if let Event::PeerUp { peer, incarnation, .. } = node.event().await {
            return (peer, incarnation);
        }
    }
}

pub(crate) async fn down(node: &mut Running) -> String {
    loop {
        if let Event::PeerDown { reason, .. } = node.event().await {
            return reason;
        }
    }
}

/// Waits until a node says so.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("it does not happen: {what}"));
}

pub(crate) fn numbered(number: u32, length: usize) -> Bytes {
    let mut bytes = number.to_le_bytes().to_vec();
    bytes.resize(length.max(4), number as u8);
    Bytes::from(bytes)
}

pub(crate) fn number_of(frame: &[u8]) -> u32 {
    u32::from_le_bytes(frame[..4].try_into().unwrap())
}
