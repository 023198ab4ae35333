//! What waits for the shard.
//!
//! Requests of sessions and administrators have a bounded queue per partition, which is not taken
//! from while the partition is busy: then those who ask wait, and their clients. What other nodes
//! send has a bounded queue. Signals are answers to what the shard asked, and notices of which
//! there are few: each kind says what bounds it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use flintmq_consensus::{GroupId, Index, NodeId, Packet, UnfitReasons};
use flintmq_node::NodeRequest;
use flintmq_partition::{Request, SessionId};
use flintmq_shard::{AdminCommand, Assignment, FromStore, ReadError, StoredState};
use tokio::sync::{mpsc, oneshot};

/// Requests that may wait for a partition; then sessions wait, and their clients.
const REQUESTS: usize = 1024;

/// Packets and messages of other nodes that may wait. Packets beyond are dropped, and their content
/// is sent again; messages wait.
const FROM_PEERS: usize = 4096;

/// What other nodes have for the shard.
pub(crate) enum FromPeer {
    /// A packet of consensus.
    Packet(Box<Packet>),
    /// A message of a group's machine, or of the shard there.
    Message { from: NodeId, process: u64, group: GroupId, bytes: Bytes },
}

/// Answers and notices for the shard.
pub(crate) enum Signal {
    /// The store tells something: at most once per request of the shard.
    Store(FromStore),
    /// An entry was read, as asked.
    EntryRead { group: GroupId, index: Index, read: Result<Bytes, ReadError> },
    /// A state was read, as asked.
    StateRead { group: GroupId, read: u64, state: Result<StoredState, ReadError> },
    /// The way out to a session has room again: once per session, group and time that it was full.
    SessionRoom { group: GroupId, session: SessionId },
    /// A connection to another node has room again: once per time that it was full.
    Room { peer: NodeId },
    /// A node can be reached, or not any more.
    Peer { peer: NodeId, up: bool, process: u64, restarted: bool },
    /// A node says why it should not lead.
    PeerUnfit { peer: NodeId, reasons: UnfitReasons },
    /// The cluster's time became known, or doubtful.
    Clock,
    /// The cluster has one node less.
    PeerRemoved { peer: NodeId },
    /// For the controller; bounded by its own limits.
    Controller(flintmq_controller::Request),
    /// An administrator's command; each waits for its answer.
    Admin { group: GroupId, ticket: u64, command: AdminCommand },
    /// Which nodes should hold and lead the groups.
    Assignment(Arc<Assignment>),
    /// Shows that the shard gets on.
    Alive(oneshot::Sender<()>),
    /// The node stops.
    Stop,
}

/// The way to the shard; cheap to clone.
#[derive(Clone)]
pub(crate) struct ShardSender {
    signals: mpsc::UnboundedSender<Signal>,
    peers: mpsc::Sender<FromPeer>,
}

impl ShardSender {
    /// Hands over a signal. False when the shard is gone: the node is stopping.
    pub(crate) fn signal(&self, signal: Signal) -> bool {
        self.signals.send(signal).is_ok()
    }

    /// Hands over a packet, or drops it where too much waits: consensus sends its content again.
    pub(crate) fn packet(&self, packet: Packet) {
        let _lost = self.peers.try_send(FromPeer::Packet(Box::new(packet)));
    }

    /// Hands over a message, waiting while too much waits: none may be left out.
    pub(crate) async fn message(&self, message: FromPeer) -> bool {
        self.peers.send(message).await.is_ok()
    }
}

/// The way in for the requests of one partition.
#[derive(Clone)]
pub(crate) struct RequestSender {
    requests: mpsc::Sender<Request>,
    /// It is in the list of those that have requests.
    listed: Arc<AtomicBool>,
    ready: mpsc::UnboundedSender<usize>,
    place: usize,
}

impl RequestSender {
    /// Hands over a request, waiting while the partition is busy. False when it is gone: the node
    /// is stopping.
    pub(crate) async fn send(&self, request: Request) -> bool {
        if self.requests.send(request).await.is_err() {
            return false;
        }
        if !self.listed.swap(true, Ordering::AcqRel) {
            let _gone = self.ready.send(self.place);
        }
        true
    }
}

/// One partition's requests.
struct Requests {
    group: GroupId,
    queue: mpsc::Receiver<Request>,
    listed: Arc<AtomicBool>,
}

/// Everything that waits for the shard.
pub(crate) struct Inbox {
    signals: mpsc::UnboundedReceiver<Signal>,
    peers: mpsc::Receiver<FromPeer>,
    requests: Vec<Requests>,
    /// Places of partitions that got requests; each at most once.
    ready: mpsc::UnboundedReceiver<usize>,
    /// Places of partitions with requests that they did not take yet.
    waiting: Vec<usize>,
}

/// What came first.
pub(crate) enum Arrived {
    Signal(Signal),
    FromPeer(FromPeer),
    /// Partitions have requests: [`Inbox::requests`] has them.
    Requests,
}

/// The inbox of a shard with these partitions, the way to it, and one for each partition.
pub(crate) fn inbox(
    partitions: impl Iterator<Item = GroupId>,
) -> (ShardSender, Vec<RequestSender>, Inbox) {
    let (signals, signalled) = mpsc::unbounded_channel();
    let (peers, from_peers) = mpsc::channel(FROM_PEERS);
    let (ready_sender, ready) = mpsc::unbounded_channel();
    let mut senders = Vec::new();
    let mut requests = Vec::new();
    for (place, group) in partitions.enumerate() {
        let (sender, queue) = mpsc::channel(REQUESTS);
        let listed = Arc::<AtomicBool>::default();
        let ready = ready_sender.clone();
        senders.push(RequestSender { requests: sender, listed: Arc::clone(&listed), ready, place });
        requests.push(Requests { group, queue, listed });
    }
    let inbox =
        Inbox { signals: signalled, peers: from_peers, requests, ready, waiting: Vec::new() };
    (ShardSender { signals, peers }, senders, inbox)
}

impl Inbox {
    /// Waits for something. May be dropped and asked again.
    pub(crate) async fn next(&mut self) -> Option<Arrived> {
        tokio::select! {
            biased;
            signal = self.signals.recv() => signal.map(Arrived::Signal),
            Some(from_peer) = self.peers.recv() => Some(Arrived::FromPeer(from_peer)),
            Some(place) = self.ready.recv() => {
                self.waiting.push(place);
                Some(Arrived::Requests)
            }
        }
    }

    /// A signal that is there.
    pub(crate) fn try_signal(&mut self) -> Option<Signal> {
        self.signals.try_recv().ok()
    }

    /// Something of another node that is there.
    pub(crate) fn try_from_peer(&mut self) -> Option<FromPeer> {
        self.peers.try_recv().ok()
    }

    /// Takes requests of each partition that has some and `takes` more, at most `max` of each.
    pub(crate) fn requests(
        &mut self,
        max: usize,
        mut takes: impl FnMut(GroupId) -> bool,
        mut take: impl FnMut(GroupId, NodeRequest),
    ) {
        while let Ok(place) = self.ready.try_recv() {
            self.waiting.push(place);
        }
        let mut waiting = std::mem::take(&mut self.waiting);
        waiting.retain(|place| {
            let Some(requests) = self.requests.get_mut(*place) else { return false };
            for _ in 0..max {
                if !takes(requests.group) {
                    return true;
                }
                match requests.queue.try_recv() {
                    Ok(request) => take(requests.group, NodeRequest::Partition(request)),
                    Err(_) => {
                        // One that comes from now on lists it again.
                        requests.listed.store(false, Ordering::Release);
                        if requests.queue.is_empty() {
                            return false;
                        }
                        requests.listed.store(true, Ordering::Release);
                        return true;
                    }
                }
            }
            true
        });
        self.waiting = waiting;
    }

    /// Partitions with requests that they did not take yet.
    pub(crate) fn waiting_groups(&self) -> impl Iterator<Item = GroupId> {
        self.waiting.iter().filter_map(|place| Some(self.requests.get(*place)?.group))
    }
}
