//! Carries the frames of one lane in one direction.

use std::sync::Arc;

use bytes::Bytes;
use flintmq_consensus::NodeId;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::World;
use crate::connection::reader::{Destination, deliver};
use crate::node::Node;
use crate::pacing::Pacer;
use crate::peer::Peer;
use crate::random::Random;
use crate::send_queue::SendQueue;
use crate::{Class, Frame, Lane};

/// Bytes taken from the queue at once, about, as the real writer does.
const BATCH_BYTES: usize = 128 << 10;
/// Batches under way, in place of a stream's window.
const UNDER_WAY: usize = 16;

/// From where to where.
#[derive(Clone)]
pub(super) struct Way {
    pub(super) world: Arc<World>,
    pub(super) pacer: Arc<Pacer>,
    pub(super) from: NodeId,
    pub(super) receiver: Arc<Node>,
    /// How the receiver sees the sender.
    pub(super) seen: Arc<Peer>,
    pub(super) destination: Destination,
    /// The sender's number of the connection.
    pub(super) connection: u64,
}

/// Runs until the queue ends and everything has arrived.
pub(super) async fn run(way: Way, lane: Lane, queue: Arc<SendQueue>) {
    let (leaving, arriving) = mpsc::channel(UNDER_WAY);
    tokio::join!(leave(&way, lane, &queue, leaving), arrive(&way, lane, arriving));
}

async fn leave(
    way: &Way,
    lane: Lane,
    queue: &SendQueue,
    leaving: mpsc::Sender<(Instant, Vec<Bytes>)>,
) {
    let mut random = Random::new(seed(way, lane));
    let mut last_due = Instant::now();
    while let Some(frames) = queue.next(BATCH_BYTES).await {
        let bytes = frames.iter().map(Frame::len).sum();
        if lane.class == Class::Bulk {
            way.pacer.pass(bytes).await;
        }
        queue.meter().sent(frames.len(), bytes);
        let faults = way.world.look(|state| state.faults);
        let spread = faults.delay_max.saturating_sub(faults.delay_min);
        let mut delay = faults.delay_min + spread.mul_f64(random.fraction());
        if random.fraction() < faults.late {
            delay += faults.late_by;
        }
        let kept: Vec<Bytes> = frames
            .iter()
            .filter(|_| random.fraction() >= faults.lost)
            .map(Frame::to_bytes)
            .collect();
        last_due = last_due.max(Instant::now() + delay);
        if !kept.is_empty() && leaving.send((last_due, kept)).await.is_err() {
            return;
        }
    }
}

async fn arrive(way: &Way, lane: Lane, mut arriving: mpsc::Receiver<(Instant, Vec<Bytes>)>) {
    let Some(queue) = way.seen.queue(lane) else { return };
    let intake = way.receiver.intake(lane.class, queue.meter().clone());
    let to = way.receiver.settings.node;
    let mut changes = way.world.changed.subscribe();
    while let Some((due, frames)) = arriving.recv().await {
        sleep_until(due).await;
        while way.world.look(|state| state.cut.contains(&(way.from, to))) {
            if changes.changed().await.is_err() {
                return;
            }
        }
        deliver(frames, lane, &way.destination, &intake).await;
    }
}

/// Another one for each direction of each lane of each connection.
fn seed(way: &Way, lane: Lane) -> u64 {
    let seed = way.world.look(|state| state.seed);
    let parts = [
        u64::from(way.from.0),
        u64::from(way.receiver.settings.node.0),
        way.connection,
        u64::from(lane.class.code()),
        u64::from(lane.shard),
    ];
    parts.into_iter().fold(seed, |seed, part| Random::new(seed ^ part).next())
}
