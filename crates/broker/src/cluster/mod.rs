//! The other nodes of the cluster: the way to them, what comes from them, and whether they live.
//!
//! One connection to each carries everything. `links` is the way out, used by the tasks of all
//! groups; `arrivals` sorts what comes in by group; `liveness` greets the others and notices their
//! silence, once for all groups. Who the others are is told by the configuration at first, and by
//! the controller's roster from then on (`peers`, `admission`).

mod admission;
mod arrivals;
mod formation;
mod forming;
mod founding;
mod links;
mod liveness;
mod peers;

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use flintmq_consensus::{GroupId, Message, NodeId, NodeSettings};
use flintmq_transport::{BindError, CertificateFiles, QuicSettings, Routes, Transport};
use rustc_hash::FxHashMap;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(crate) use formation::{Directory, Formation, FormationError};
pub(crate) use links::PeerLinks;

use crate::config::TimingSection;
use crate::controller::Controller;
use crate::replica::CoreClock;

/// Batches of frames that may wait for one of the tasks that sort them.
const BATCHES: usize = 256;

/// Things that may wait for the task of one group. Messages of consensus beyond are dropped, and
/// sent again; gateways wait.
const MAILBOX: usize = 4096;

/// What other nodes have for the task of a group.
pub(crate) enum FromPeer {
    /// A message of consensus.
    Message(Box<Message>),
    /// What the group's task on another node has to say, in its order.
    Gateway {
        /// Which node.
        from: NodeId,
        /// The bytes.
        frame: Bytes,
    },
    /// The node can be reached.
    Up {
        /// Which.
        peer: NodeId,
        /// True when it is not the process that was there before.
        restarted: bool,
    },
    /// The node cannot be reached.
    Down {
        /// Which.
        peer: NodeId,
    },
}

/// Where a group's task hears of other nodes.
pub(crate) type Mailbox = mpsc::Receiver<FromPeer>;

/// The next thing that other nodes have for a group; for ever nothing in a cluster of one.
pub(crate) async fn heard(mailbox: Option<&mut Mailbox>) -> Option<FromPeer> {
    match mailbox {
        Some(mailbox) => mailbox.recv().await,
        None => std::future::pending().await,
    }
}

/// The ways to the tasks of all groups here.
pub(crate) type Mailboxes = Arc<FxHashMap<GroupId, mpsc::Sender<FromPeer>>>;

/// What the node needs to know of the cluster.
pub(crate) struct ClusterSettings {
    pub(crate) cluster: String,
    pub(crate) node: NodeId,
    /// Greater than that of every earlier start of this node.
    pub(crate) incarnation: u64,
    /// The others, with their addresses.
    pub(crate) peers: Vec<(NodeId, String)>,
    pub(crate) listen: SocketAddr,
    pub(crate) certificates: CertificateFiles,
    pub(crate) timing: TimingSection,
    /// What the data directory says of the cluster's birth.
    pub(crate) formation: Formation,
}

/// Makes the mailboxes of `groups` groups, numbered from the controller's on.
pub(crate) fn mailboxes(
    groups: impl Iterator<Item = GroupId>,
) -> (Mailboxes, FxHashMap<GroupId, Mailbox>) {
    let mut senders = FxHashMap::default();
    let mut receivers = FxHashMap::default();
    for group in groups {
        let (sender, receiver) = mpsc::channel(MAILBOX);
        senders.insert(group, sender);
        receivers.insert(group, receiver);
    }
    (Arc::new(senders), receivers)
}

/// Connects to the others, now and whenever they can be reached, until `stop`. What arrives before
/// [`Cluster::deliver`] is called waits.
pub(crate) struct Cluster {
    links: PeerLinks,
    inbound: flintmq_transport::Inbound,
    liveness: NodeSettings,
    clock: CoreClock,
    formation: Formation,
}

impl Cluster {
    /// Opens the node's address for the others.
    ///
    /// # Errors
    /// The address or the certificates cannot be used.
    pub(crate) async fn bind(
        settings: ClusterSettings,
        clock: CoreClock,
    ) -> Result<Self, BindError> {
        let names: Vec<NodeId> = settings.peers.iter().map(|(node, _)| *node).collect();
        let mut transport =
            flintmq_transport::Settings::new(settings.cluster, settings.node, settings.incarnation);
        for (node, address) in settings.peers {
            transport = transport.with_peer(node, address);
        }
        let formation = settings.formation;
        if formation.is_formed(settings.node) {
            transport.formation = formation.name();
        }
        let (routes, inbound) = Routes::by_class(BATCHES);
        let quic = QuicSettings::new(settings.listen, settings.certificates);
        let transport = Transport::bind(transport, quic, routes).await?;
        let mut liveness = NodeSettings::new(settings.node, settings.incarnation, names);
        settings.timing.apply(&mut liveness);
        let links = PeerLinks::new(settings.node, transport);
        Ok(Self { links, inbound, liveness, clock, formation })
    }

    /// How the groups of the cluster elect and replicate.
    pub(crate) fn group_settings(&self) -> flintmq_consensus::Settings {
        (*self.liveness.group).clone()
    }

    /// Waits until this node belongs to the cluster, see [`formation`]. `reason` says meanwhile
    /// what it waits for.
    ///
    /// # Errors
    /// This node must not take part as it is.
    pub(crate) async fn form(
        &mut self,
        reason: &watch::Sender<String>,
    ) -> Result<Formation, FormationError> {
        let NodeSettings { node, ref peers, .. } = self.liveness;
        let (links, inbound) = (&self.links, &mut self.inbound);
        let formation = self.formation.clone();
        let was_formed = formation.is_formed(node);
        let formed = forming::form(links, inbound, node, peers, formation, reason).await?;
        self.links.set_formation(formed.name());
        if !was_formed {
            // What came by connections that were not checked for it. Consensus sends it again.
            for early in
                [&mut self.inbound.urgent, &mut self.inbound.append, &mut self.inbound.bulk]
            {
                while early.try_recv().is_ok() {}
            }
        }
        Ok(formed)
    }

    /// The way to the others.
    pub(crate) fn links(&self) -> PeerLinks {
        self.links.clone()
    }

    /// Begins to hand out what arrives, and to connect to whom the controller names. Raises
    /// `removed` when this node is no node of the cluster any more.
    pub(crate) fn deliver(
        self,
        mailboxes: &Mailboxes,
        formation: Formation,
        controller: &Controller,
        removed: &CancellationToken,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) {
        let Self { links, inbound, liveness, clock, .. } = self;
        let (changes, changed) = mpsc::channel(BATCHES);
        let peers = peers::PeerList {
            node: liveness.node,
            links: links.clone(),
            known: liveness.peers.iter().copied().collect(),
            roster: controller.watch_roster(),
            liveness: changes,
            removed: removed.clone(),
            formation: formation.clone(),
        };
        tasks.spawn(peers.run(stop.clone()));
        tasks.spawn(remember_removal(formation.clone(), removed.clone(), stop.clone()));
        let (controller, removed) = (controller.clone(), removed.clone());
        let formed = admission::Answering::new(formation, links.clone(), controller, removed);
        let flintmq_transport::Inbound { urgent, append, gateway, bulk, events } = inbound;
        let (beats, heard) = mpsc::channel(BATCHES);
        tasks.spawn(arrivals::sort(urgent, Arc::clone(mailboxes), Some(beats), stop.clone()));
        for messages in [append, bulk] {
            tasks.spawn(arrivals::sort(messages, Arc::clone(mailboxes), None, stop.clone()));
        }
        let gateway = arrivals::sort_gateway(gateway, Arc::clone(mailboxes), formed, stop.clone());
        tasks.spawn(gateway);
        let watching = liveness::Liveness::new(liveness, links, clock, Arc::clone(mailboxes));
        tasks.spawn(watching.run(heard, events, changed, stop.clone()));
    }
}

/// A node that was removed never starts again.
async fn remember_removal(
    formation: Formation,
    removed: CancellationToken,
    stop: CancellationToken,
) {
    tokio::select! {
        biased;
        () = removed.cancelled() => formation.part(),
        () = stop.cancelled() => {}
    }
}
