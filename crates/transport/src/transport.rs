//! The handle that frames are sent through.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use flintmq_consensus::NodeId;
use tokio_util::sync::DropGuard;

use crate::connection::Quic;
use crate::delivery::Routes;
use crate::node::Node;
use crate::peer::PeerStatus;
use crate::simulated::SimulatedNetwork;
use crate::{BindError, CertificateError, Frame, Lane, QuicSettings, SendError, Settings};

/// A node's connections to its peers. Clones are the same transport; when the last one is dropped,
/// all connections are closed at once. [`Transport::close`] does it with care.
#[derive(Clone, Debug)]
pub struct Transport {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    node: Arc<Node>,
    network: Network,
    _stop: DropGuard,
}

/// What connects the nodes.
#[derive(Debug)]
pub(crate) enum Network {
    Quic(Arc<Quic>),
    Simulated(SimulatedNetwork),
}

impl Transport {
    /// Listens for the peers and begins to dial them. What arrives goes where `routes` say.
    ///
    /// Must be called within a tokio runtime with I/O and time.
    ///
    /// # Errors
    /// [`BindError`] when a setting cannot work, the certificates are of no use, or the address
    /// cannot be listened on.
    pub async fn bind(
        settings: Settings,
        quic: QuicSettings,
        routes: Routes,
    ) -> Result<Self, BindError> {
        settings.check()?;
        let peers = settings.peers.clone();
        let node = Arc::new(Node::new(settings, routes));
        let network = Network::Quic(Quic::start(&node, quic)?);
        let transport = Self::of(node, network);
        for peer in peers {
            transport.add_peer(peer.node, peer.address);
        }
        Ok(transport)
    }

    pub(crate) fn of(node: Arc<Node>, network: Network) -> Self {
        let stop = node.stop.clone().drop_guard();
        Self { inner: Arc::new(Inner { node, network, _stop: stop }) }
    }

    /// Hands a frame to the lane's queue. Never waits, and never keeps more than the class's bounds
    /// allow. Frames that were accepted arrive in order and without gaps while the connection
    /// lives, but for urgent ones, of which the oldest are dropped when too many wait.
    ///
    /// # Errors
    /// [`SendError`]; nothing was kept.
    pub fn send(&self, to: NodeId, lane: Lane, frame: impl Into<Frame>) -> Result<(), SendError> {
        self.inner
            .node
            .with_peer(to, |peer| match peer.queue(lane) {
                Some(queue) => queue.push(frame.into()),
                None => Err(SendError::Disconnected { peer: to }),
            })
            .unwrap_or(Err(SendError::UnknownPeer { peer: to }))
    }

    /// Returns when at least half of the lane's queue is free, and at once if it is already. Others
    /// may take the room first, so go on with [`Self::send`], or use [`Self::send_when_room`].
    ///
    /// # Errors
    /// [`SendError::Disconnected`] when there is no connection, or it is lost meanwhile;
    /// [`SendError::UnknownPeer`].
    pub async fn room(&self, to: NodeId, lane: Lane) -> Result<(), SendError> {
        let peer = self.inner.node.peer(to).ok_or(SendError::UnknownPeer { peer: to })?;
        match peer.queue(lane) {
            Some(queue) => queue.room().await,
            None => Err(SendError::Disconnected { peer: to }),
        }
    }

    /// Sends a frame as soon as the lane has room for it.
    ///
    /// # Errors
    /// [`SendError`], any but [`SendError::Full`]. May be dropped while it waits; then nothing was
    /// sent.
    pub async fn send_when_room(
        &self,
        to: NodeId,
        lane: Lane,
        frame: impl Into<Frame>,
    ) -> Result<(), SendError> {
        let frame = frame.into();
        loop {
            // A clone of a frame shares its bytes.
            match self.send(to, lane, frame.clone()) {
                Err(SendError::Full { .. }) => self.room(to, lane).await?,
                other => return other,
            }
        }
    }

    /// Begins to connect to one more node. False when it is known already, whatever its address, or
    /// is this node.
    pub fn add_peer(&self, node: NodeId, address: impl Into<String>) -> bool {
        let Some(peer) = self.inner.node.insert(node, address.into()) else { return false };
        match &self.inner.network {
            Network::Quic(quic) => quic.watch(&self.inner.node, peer),
            Network::Simulated(network) => network.watch(&self.inner.node, peer),
        }
        true
    }

    /// Ends the connection to a node that has left the cluster, or that moved: then add it again.
    /// False when it is not known.
    pub fn remove_peer(&self, node: NodeId) -> bool {
        let is_removed = self.inner.node.remove(node).is_some();
        if is_removed {
            match &self.inner.network {
                Network::Quic(quic) => quic.doors().close(node),
                Network::Simulated(network) => network.changed(),
            }
        }
        is_removed
    }

    /// How things stand with each peer, by number.
    #[must_use]
    pub fn peers(&self) -> Vec<PeerStatus> {
        self.inner.node.peers().values().map(|peer| peer.status()).collect()
    }

    /// Says with which set of nodes the cluster began, once that is known. All connections are made
    /// again, so that two nodes which know it are connected only when they know the same: nothing
    /// that was sent before is delivered after.
    pub fn set_formation(&self, formation: u64) {
        self.inner.node.set_formation(formation);
    }

    /// Changes [`Settings::bulk_bytes_per_second`] from the next write on.
    pub fn limit_bulk(&self, bytes_per_second: u64) {
        self.inner.node.pacer.set(bytes_per_second);
    }

    /// Reads the certificates' files again, for connections from now on. Open connections keep what
    /// they began with.
    ///
    /// # Errors
    /// [`CertificateError`] names the file and what is wrong with it; the certificates of before
    /// stay in use.
    pub fn reload_certificates(&self) -> Result<(), CertificateError> {
        match &self.inner.network {
            Network::Quic(quic) => quic.reload_certificates(),
            Network::Simulated(_) => Ok(()),
        }
    }

    /// The address that is listened on, with the port that was chosen.
    ///
    /// # Errors
    /// What the system says; [`io::ErrorKind::Unsupported`] on a simulated network.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        match &self.inner.network {
            Network::Quic(quic) => quic.local_address(),
            Network::Simulated(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Sends what waits, for no longer than `grace`, then closes all connections and tells the
    /// peers, which need not find out by themselves. Nothing more is sent or received through any
    /// clone. Events are not told any more.
    pub async fn close(&self, grace: Duration) {
        self.inner.node.begin_stop(grace);
        self.inner.node.tasks.close();
        self.inner.node.tasks.wait().await;
        match &self.inner.network {
            Network::Quic(quic) => quic.close().await,
            Network::Simulated(network) => network.leave(self.inner.node.settings.node),
        }
    }
}
