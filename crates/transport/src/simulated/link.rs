//! The connection of two simulated nodes: made when both want it, ended as a real one would be.

use std::future::pending;
use std::sync::Arc;

use flintmq_consensus::NodeId;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::pump::{self, Way};
use super::{State, World};
use crate::delivery::Event;
use crate::node::Node;
use crate::peer::Peer;

/// One end of a link: a node, and how it sees the other one.
struct End {
    node: Arc<Node>,
    peer: Arc<Peer>,
    connection: u64,
    pumps: JoinSet<()>,
}

/// Connects the node to a peer with a greater number, again and again, until the peer is removed or
/// the node stops.
pub(super) async fn keep(world: Arc<World>, node: Arc<Node>, peer: Arc<Peer>) {
    let mut changes = world.changed.subscribe();
    let pair = (node.settings.node, peer.node);
    loop {
        let there = tokio::select! {
            () = peer.gone.cancelled() => return,
            there = other_side(&world, &mut changes, pair) => there,
        };
        // A greeting and its answer.
        let round_trip = 2 * world.look(|state| state.faults.delay_max);
        tokio::select! {
            () = peer.gone.cancelled() => return,
            () = sleep(round_trip) => {}
        }
        let (other, seen) = there;
        let ends = [(Arc::clone(&node), Arc::clone(&peer)), (other, seen)];
        let severed = world.look(|state| severed(state, pair));
        let mut ends = begin(&world, pair, ends).await;
        let reason = until_lost(&world, &mut changes, pair, severed, &mut ends).await;
        for end in &mut ends {
            end.finish(reason).await;
        }
        world.change(|state| state.connected.remove(&pair));
        tokio::select! {
            () = peer.gone.cancelled() => return,
            () = sleep(node.settings.backoff_min) => {}
        }
    }
}

/// What the node with the greater number does: when it stops or forgets the peer, it waits until
/// the other one has ended the connection.
pub(super) async fn follow(world: Arc<World>, node: NodeId, peer: Arc<Peer>) {
    peer.gone.cancelled().await;
    let mut changes = world.changed.subscribe();
    while world.look(|state| state.connected.contains(&(peer.node, node))) {
        if changes.changed().await.is_err() {
            return;
        }
    }
}

/// Waits until the other node is there, knows this one, and can be reached.
async fn other_side(
    world: &World,
    changes: &mut watch::Receiver<u64>,
    pair: (NodeId, NodeId),
) -> (Arc<Node>, Arc<Peer>) {
    loop {
        changes.mark_unchanged();
        let there = world.look(|state| {
            let there = state.members.get(&pair.1).filter(|node| !node.stop.is_cancelled())?;
            // This node has joined as well, with all its peers.
            let here = state.members.get(&pair.0).filter(|node| !node.stop.is_cancelled())?;
            let is_same_cluster = here.settings.cluster == there.settings.cluster;
            let seen = there.peer(pair.0).filter(|_| is_same_cluster && !is_cut(state, pair))?;
            Some((Arc::clone(there), seen))
        });
        if let Some(there) = there {
            return there;
        }
        if changes.changed().await.is_err() {
            pending::<()>().await;
        }
    }
}

/// Tells both sides, and begins to carry frames.
async fn begin(
    world: &Arc<World>,
    pair: (NodeId, NodeId),
    ends: [(Arc<Node>, Arc<Peer>); 2],
) -> [End; 2] {
    world.change(|state| state.connected.insert(pair));
    let [low, high] = ends.map(|(node, peer)| {
        let connection = node.next_connection();
        End { node, peer, connection, pumps: JoinSet::new() }
    });
    let mut ends = [low, high];
    let incarnations = [&ends[1], &ends[0]].map(|other| other.node.settings.incarnation);
    for (end, incarnation) in ends.iter().zip(incarnations) {
        end.peer.connected(end.connection, incarnation);
    }
    for (end, incarnation) in ends.iter().zip(incarnations) {
        let (peer, connection) = (end.peer.node, end.connection);
        end.node.tell(Event::PeerUp { peer, incarnation, connection, version: 1 }).await;
    }
    let ways = [Way::new(world, &ends[0], &ends[1]), Way::new(world, &ends[1], &ends[0])];
    for (end, way) in ends.iter_mut().zip(ways) {
        for (lane, queue) in end.peer.queues() {
            end.pumps.spawn(pump::run(way.clone(), lane, Arc::clone(queue)));
        }
    }
    ends
}

impl Way {
    fn new(world: &Arc<World>, here: &End, there: &End) -> Self {
        let incarnation = here.node.settings.incarnation;
        Self {
            world: Arc::clone(world),
            pacer: Arc::clone(&here.node.pacer),
            from: here.node.settings.node,
            receiver: Arc::clone(&there.node),
            seen: Arc::clone(&there.peer),
            destination: there.node.destination(
                here.node.settings.node,
                incarnation,
                there.connection,
            ),
            connection: here.connection,
        }
    }
}

impl End {
    async fn finish(&mut self, reason: &str) {
        self.peer.disconnected(reason);
        self.pumps.shutdown().await;
        let (peer, connection, reason) = (self.peer.node, self.connection, reason.to_owned());
        self.node.tell(Event::PeerDown { peer, connection, reason }).await;
    }

    /// The node stops, or forgets the peer: what waits is still carried, if there is time.
    async fn drain(&mut self) {
        let grace = self.node.grace();
        if grace.is_zero() {
            return;
        }
        for (_, queue) in self.peer.queues() {
            queue.drain();
        }
        // Whatever does not arrive in time does not arrive.
        let _ = timeout(grace, async { while self.pumps.join_next().await.is_some() {} }).await;
    }
}

/// Waits until the connection ends, and tells why.
async fn until_lost(
    world: &World,
    changes: &mut watch::Receiver<u64>,
    pair: (NodeId, NodeId),
    severed_before: u64,
    ends: &mut [End; 2],
) -> &'static str {
    let [low, high] = ends;
    let patience = low.node.settings.idle_timeout.min(high.node.settings.idle_timeout);
    let mut silent_since = None;
    loop {
        changes.mark_unchanged();
        let (is_severed, is_silent) =
            world.look(|state| (severed(state, pair) != severed_before, is_cut(state, pair)));
        if is_severed {
            return "the connection was severed";
        }
        silent_since = is_silent.then(|| silent_since.unwrap_or_else(Instant::now));
        let silence = async {
            match silent_since {
                Some(since) => sleep_until(since + patience).await,
                None => pending().await,
            }
        };
        tokio::select! {
            biased;
            () = low.peer.gone.cancelled() => {
                low.drain().await;
                return "the node stops, or the peer was removed";
            }
            () = high.peer.gone.cancelled() => {
                high.drain().await;
                return "the node stops, or the peer was removed";
            }
            () = silence => {
                return "the peer was not heard any more";
            }
            changed = changes.changed() => {
                if changed.is_err() {
                    return "the network is gone";
                }
            }
        }
    }
}

fn is_cut(state: &State, pair: (NodeId, NodeId)) -> bool {
    state.cut.contains(&pair) || state.cut.contains(&(pair.1, pair.0))
}

fn severed(state: &State, pair: (NodeId, NodeId)) -> u64 {
    state.severed.get(&pair).copied().unwrap_or_default()
}
