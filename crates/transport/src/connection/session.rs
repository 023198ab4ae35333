//! A connection in use: a writer for each lane, and a reader for each of the peer's.

use std::sync::Arc;
use std::time::Duration;

use quinn::{Connection, VarInt};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

use super::preference::Claim;
use super::reader::{self, Destination, StreamError};
use super::writer;
use crate::node::Node;
use crate::peer::Peer;

/// A connection is closed with this code when a stream of it cannot be used.
pub(super) const CODE_BROKEN: u32 = 32;

#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) connection: Connection,
    pub(crate) claim: Claim,
    /// As told to the user.
    pub(crate) number: u64,
    pub(crate) begun: tokio::time::Instant,
    /// Packets lost as far as they were counted.
    lost_packets: u64,
    writers: JoinSet<()>,
    reading: JoinHandle<()>,
}

impl Session {
    /// Begins to send and to receive. The queues are open.
    pub(crate) fn start(
        node: &Arc<Node>,
        peer: &Arc<Peer>,
        connection: Connection,
        claim: Claim,
        number: u64,
    ) -> Self {
        let mut writers = JoinSet::new();
        for (lane, queue) in peer.queues() {
            let (queue, pacer) = (Arc::clone(queue), Arc::clone(&node.pacer));
            writers.spawn(writer::run(connection.clone(), lane, queue, pacer));
        }
        let destination = node.destination(peer.node, claim.incarnation, number);
        let reading = read_all(Arc::clone(node), Arc::clone(peer), connection.clone(), destination);
        Self {
            claim,
            number,
            begun: tokio::time::Instant::now(),
            lost_packets: 0,
            writers,
            reading: tokio::spawn(reading),
            connection,
        }
    }

    /// Tells what the connection is like.
    pub(crate) fn measure(&mut self, peer: &Peer) {
        let path = self.connection.stats().path;
        peer.measured(path.rtt);
        peer.meter.path_mtu.set(f64::from(path.current_mtu));
        peer.meter.lost_packets.increment(path.lost_packets.saturating_sub(self.lost_packets));
        self.lost_packets = path.lost_packets;
    }

    /// Sends what waits and waits until the peer has it, but no longer than this. The queues were
    /// told to drain.
    pub(crate) async fn drain(&mut self, grace: Duration) {
        // Whoever does not get it in time does without.
        let _ = timeout(grace, async { while self.writers.join_next().await.is_some() {} }).await;
    }

    /// Closes the connection, and returns when nothing reads or writes any more.
    pub(crate) async fn end(mut self, reason: &str) {
        self.connection.close(VarInt::from_u32(0), reason.as_bytes());
        self.reading.abort();
        self.writers.shutdown().await;
        // It was cancelled, or had ended: either is well.
        let _ = (&mut self.reading).await;
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.reading.abort();
    }
}

/// Reads all streams of the peer until the connection ends.
async fn read_all(
    node: Arc<Node>,
    peer: Arc<Peer>,
    connection: Connection,
    destination: Destination,
) {
    let mut readers = JoinSet::new();
    loop {
        tokio::select! {
            stream = connection.accept_uni() => {
                let Ok(mut stream) = stream else { return };
                let (node, peer) = (Arc::clone(&node), Arc::clone(&peer));
                let destination = destination.clone();
                readers.spawn(async move {
                    let lane = reader::lane(&mut stream).await?;
                    let Some(queue) = peer.queue(lane) else { return Ok(()) };
                    let intake = node.intake(lane.class, queue.meter().clone());
                    reader::run(stream, lane, destination, intake).await
                });
            }
            Some(ended) = readers.join_next() => {
                // A stream that breaks because its connection does is no news.
                if let Ok(Err(error)) = ended && !matches!(error, StreamError::Io(_)) {
                    tracing::error!(peer = %peer.node, %error, "closing a connection");
                    let code = VarInt::from_u32(CODE_BROKEN);
                    connection.close(code, error.to_string().as_bytes());
                    return;
                }
            }
        }
    }
}
