//! The same transport without a network, for tests: delays, losses, and nodes that cannot reach
//! each other, all drawn from a seed.
//!
//! Queues, policies, batches and events are those of the real one; only what is between two queues
//! and routes is simulated. With tokio's paused clock and one thread, a run repeats from its seed,
//! and takes no time.
//!
//! ```
//! use std::time::Duration;
//!
//! use flintmq_transport::{Event, Lane, NodeId, Routes, Settings, SimulatedNetwork};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?.block_on(async {
//! let network = SimulatedNetwork::new(7);
//! let (routes, mut of_one) = Routes::by_class(16);
//! let one = Settings::new("test", NodeId(1), 1).with_peer(NodeId(2), "two");
//! let one = network.join(one, routes)?;
//! let (routes, mut of_two) = Routes::by_class(16);
//! let two = Settings::new("test", NodeId(2), 1).with_peer(NodeId(1), "one");
//! let _two = network.join(two, routes)?;
//!
//! assert!(matches!(of_one.events.recv().await, Some(Event::PeerUp { peer: NodeId(2), .. })));
//! one.send(NodeId(2), Lane::append(5), vec![1, 2, 3])?;
//! let batch = of_two.append.recv().await.ok_or("the network is gone")?;
//! assert_eq!(batch.frames, [vec![1, 2, 3]]);
//!
//! network.cut(NodeId(1), NodeId(2));
//! // Silence is noticed after `idle_timeout`, as on a real network.
//! let lost = of_one.events.recv().await;
//! assert!(matches!(lost, Some(Event::PeerDown { peer: NodeId(2), .. })));
//! network.heal();
//! assert!(matches!(of_one.events.recv().await, Some(Event::PeerUp { .. })));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod link;
mod pump;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use flintmq_consensus::NodeId;
use tokio::sync::watch;

use crate::delivery::Routes;
use crate::node::Node;
use crate::peer::Peer;
use crate::transport::Network;
use crate::{Settings, SettingsError, Transport};

/// What a simulated network does to frames.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Faults {
    /// Shortest time under way.
    pub delay_min: Duration,
    /// Longest time under way; drawn uniformly. Frames of one lane stay in order.
    pub delay_max: Duration,
    /// Share of batches, 0 to 1, whose packet is lost and sent again: they come later by
    /// [`Self::late_by`], and what is behind them on the lane waits.
    pub late: f64,
    /// How much later.
    pub late_by: Duration,
    /// Share of frames, 0 to 1, that never arrive although the connection lives. The real network
    /// does not do this but for urgent frames that newer ones push out; consensus has to stand it,
    /// gateway traffic need not.
    pub lost: f64,
}

impl Default for Faults {
    /// A quick network that loses nothing.
    fn default() -> Self {
        Self {
            delay_min: Duration::from_micros(50),
            delay_max: Duration::from_micros(200),
            late: 0.0,
            late_by: Duration::from_millis(10),
            lost: 0.0,
        }
    }
}

/// A network in memory. Clones are the same network.
#[derive(Clone, Debug)]
pub struct SimulatedNetwork {
    world: Arc<World>,
}

#[derive(Debug)]
pub(crate) struct World {
    state: Mutex<State>,
    /// Raised with every change of the state.
    changed: watch::Sender<u64>,
}

#[derive(Debug)]
struct State {
    seed: u64,
    members: BTreeMap<NodeId, Arc<Node>>,
    faults: Faults,
    /// Directions in which nothing arrives: from, to.
    cut: BTreeSet<(NodeId, NodeId)>,
    /// How often the connection of a pair, smaller number first, was severed.
    severed: BTreeMap<(NodeId, NodeId), u64>,
    /// Pairs that are connected, smaller number first.
    connected: BTreeSet<(NodeId, NodeId)>,
}

impl SimulatedNetwork {
    /// A network whose delays and losses come from this seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let state = State {
            seed,
            members: BTreeMap::new(),
            faults: Faults::default(),
            cut: BTreeSet::new(),
            severed: BTreeMap::new(),
            connected: BTreeSet::new(),
        };
        let (changed, _) = watch::channel(0);
        Self { world: Arc::new(World { state: Mutex::new(state), changed }) }
    }

    /// Adds a node, or its next process in place of an earlier one. Two nodes that name each other
    /// as peers connect; the addresses mean nothing.
    ///
    /// Must be called within a tokio runtime with time.
    ///
    /// # Errors
    /// [`SettingsError`] when a setting cannot work.
    pub fn join(&self, settings: Settings, routes: Routes) -> Result<Transport, SettingsError> {
        settings.check()?;
        let peers = settings.peers.clone();
        let node = Arc::new(Node::new(settings, routes));
        let transport = Transport::of(Arc::clone(&node), Network::Simulated(self.clone()));
        for peer in peers {
            transport.add_peer(peer.node, peer.address);
        }
        let earlier = self.world.change(|state| state.members.insert(node.settings.node, node));
        if let Some(earlier) = earlier {
            earlier.begin_stop(Duration::ZERO);
        }
        Ok(transport)
    }

    /// What happens to frames from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.world.change(|state| state.faults = faults);
    }

    /// From now on nothing of `from` arrives at `to`. What is under way is held, and arrives if the
    /// way is healed before the silence is noticed.
    pub fn cut(&self, from: NodeId, to: NodeId) {
        self.world.change(|state| state.cut.insert((from, to)));
    }

    /// Cuts all ways between these two sets of nodes, in both directions.
    pub fn part(&self, some: &[NodeId], others: &[NodeId]) {
        self.world.change(|state| {
            for (one, other) in some.iter().flat_map(|one| others.iter().map(move |o| (one, o))) {
                state.cut.insert((*one, *other));
                state.cut.insert((*other, *one));
            }
        });
    }

    /// Opens all ways that were cut.
    pub fn heal(&self) {
        self.world.change(|state| state.cut.clear());
    }

    /// Ends the connection of two nodes at once; they connect anew.
    pub fn sever(&self, one: NodeId, other: NodeId) {
        self.world.change(|state| {
            *state.severed.entry((one.min(other), one.max(other))).or_default() += 1;
        });
    }

    /// Keeps the node connected to this peer. The node with the smaller number does the work.
    pub(crate) fn watch(&self, node: &Arc<Node>, peer: Arc<Peer>) {
        let (world, owner) = (Arc::clone(&self.world), Arc::clone(node));
        if node.settings.node < peer.node {
            node.spawn(link::keep(world, owner, peer));
        } else {
            node.spawn(link::follow(world, owner.settings.node, peer));
        }
        self.changed();
    }

    /// A node's peers are others now.
    pub(crate) fn changed(&self) {
        self.world.change(|_| ());
    }

    /// A node stopped.
    pub(crate) fn leave(&self, node: NodeId) {
        self.world.change(|state| {
            if state.members.get(&node).is_some_and(|member| member.stop.is_cancelled()) {
                state.members.remove(&node);
            }
        });
    }
}

impl World {
    fn change<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        let result = act(&mut self.lock());
        self.changed.send_modify(|count| *count += 1);
        result
    }

    fn look<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
