//! What a node keeps for itself, whichever network it is on.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use flintmq_consensus::NodeId;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::connection::reader::{Destination, Intake};
use crate::delivery::{Event, Routes};
use crate::metrics::LaneMeter;
use crate::pacing::Pacer;
use crate::peer::Peer;
use crate::{Class, Settings};

#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) settings: Settings,
    pub(crate) pacer: Arc<Pacer>,
    /// Ends all tasks.
    pub(crate) stop: CancellationToken,
    pub(crate) tasks: TaskTracker,
    /// Peers may be added from any thread.
    runtime: Handle,
    routes: Routes,
    /// Room for unread bytes, by class.
    rooms: [Arc<Semaphore>; 4],
    peers: ArcSwap<BTreeMap<NodeId, Arc<Peer>>>,
    /// Held while the list of peers is replaced.
    changing: Mutex<()>,
    connections: AtomicU64,
    /// See [`crate::Transport::set_formation`].
    formation: watch::Sender<u64>,
    /// How long what waits may still be sent when the node stops.
    grace: Mutex<Duration>,
}

impl Node {
    pub(crate) fn new(settings: Settings, routes: Routes) -> Self {
        let room = |class| {
            let bytes = settings.limits(class).unread_bytes;
            Arc::new(Semaphore::new(bytes.min(Semaphore::MAX_PERMITS)))
        };
        Self {
            pacer: Arc::new(Pacer::new(settings.bulk_bytes_per_second)),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            runtime: Handle::current(),
            routes,
            rooms: Class::ALL.map(room),
            peers: ArcSwap::default(),
            changing: Mutex::new(()),
            connections: AtomicU64::new(0),
            formation: watch::Sender::new(settings.formation),
            grace: Mutex::new(Duration::ZERO),
            settings,
        }
    }

    pub(crate) fn peer(&self, node: NodeId) -> Option<Arc<Peer>> {
        self.peers.load().get(&node).map(Arc::clone)
    }

    /// Looks at a peer without keeping it.
    pub(crate) fn with_peer<T>(&self, node: NodeId, look: impl FnOnce(&Peer) -> T) -> Option<T> {
        self.peers.load().get(&node).map(|peer| look(peer))
    }

    pub(crate) fn peers(&self) -> Arc<BTreeMap<NodeId, Arc<Peer>>> {
        self.peers.load_full()
    }

    /// Adds a peer that is not there yet.
    pub(crate) fn insert(&self, node: NodeId, address: String) -> Option<Arc<Peer>> {
        let _alone = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut peers = BTreeMap::clone(&self.peers.load());
        if node == self.settings.node || peers.contains_key(&node) {
            return None;
        }
        let peer = Arc::new(Peer::new(&self.settings, node, address, self.stop.child_token()));
        peers.insert(node, Arc::clone(&peer));
        self.peers.store(Arc::new(peers));
        Some(peer)
    }

    pub(crate) fn remove(&self, node: NodeId) -> Option<Arc<Peer>> {
        let _alone = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut peers = BTreeMap::clone(&self.peers.load());
        let removed = peers.remove(&node)?;
        self.peers.store(Arc::new(peers));
        removed.gone.cancel();
        Some(removed)
    }

    /// Runs a task that [`crate::Transport::close`] waits for.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn_on(task, &self.runtime);
    }

    /// A number for the next connection.
    pub(crate) fn next_connection(&self) -> u64 {
        self.connections.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Tells the user, and waits until there is room for the news, unless the node stops.
    pub(crate) async fn tell(&self, event: Event) {
        tokio::select! {
            // A user who does not listen has no use for it.
            _ = self.routes.events.send(event) => {}
            () = self.stop.cancelled() => {}
        }
    }

    pub(crate) fn destination(
        &self,
        from: NodeId,
        incarnation: u64,
        connection: u64,
    ) -> Destination {
        Destination { from, incarnation, connection, routes: self.routes.clone() }
    }

    pub(crate) fn intake(&self, class: Class, meter: LaneMeter) -> Intake {
        let limits = self.settings.limits(class);
        let [urgent, append, gateway, bulk] = &self.rooms;
        let room = match class {
            Class::Urgent => urgent,
            Class::Append => append,
            Class::Gateway => gateway,
            Class::Bulk => bulk,
        };
        Intake {
            frame_bytes: limits.frame_bytes,
            unread_bytes: limits.unread_bytes,
            room: Arc::clone(room),
            meter,
        }
    }

    /// The set of nodes that the cluster began with, as far as it is known.
    pub(crate) fn formation(&self) -> u64 {
        *self.formation.borrow()
    }

    /// For waiting until the formation is known.
    pub(crate) fn watch_formation(&self) -> watch::Receiver<u64> {
        self.formation.subscribe()
    }

    pub(crate) fn set_formation(&self, formation: u64) {
        self.formation
            .send_if_modified(|present| std::mem::replace(present, formation) != formation);
    }

    pub(crate) fn grace(&self) -> Duration {
        *self.grace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to stop; what waits is still sent for so long.
    pub(crate) fn begin_stop(&self, grace: Duration) {
        *self.grace.lock().unwrap_or_else(PoisonError::into_inner) = grace;
        self.stop.cancel();
    }
}
