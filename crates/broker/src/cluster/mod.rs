//! The other nodes of the cluster: the way to them, what comes from them, and whether they live.
//!
//! One connection to each carries everything. `links` is the way out; `arrivals` sorts what comes
//! in; `liveness` greets the others and notices their silence, once for all groups. The peers come
//! from the configuration at first, and from the cluster membership afterwards
//! (`peers`, `admission`).

mod addressing;
mod admission;
mod arrivals;
mod formation;
mod forming;
mod founding;
mod links;
mod liveness;
mod peers;

use std::collections::BTreeSet;
use std::net::SocketAddr;

use bytes::Bytes;
use flintmq_consensus::{NodeId, NodeSettings};
use flintmq_transport::{BindError, CertificateFiles, QuicSettings, Routes, Transport};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(crate) use addressing::addressee_of;
pub(crate) use formation::{Directory, Formation, FormationError};
pub(crate) use links::PeerLinks;

use crate::config::TimingSection;
use crate::controller::Controller;
use crate::host::{CoreClock, Fitness, ShardSender};

/// Batches of frames that may wait for one of the tasks that sort them.
const BATCHES: usize = 256;

/// Requests of other nodes' administration that may wait; then these nodes wait.
const ADMINISTRATION: usize = 1024;

/// A request of another node's administration, or its answer.
pub(crate) struct FromAdministration {
    /// Which node.
    pub(crate) from: NodeId,
    /// The bytes.
    pub(crate) frame: Bytes,
}

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
        let links = PeerLinks::new(transport);
        Ok(Self { links, inbound, liveness, clock, formation })
    }

    /// How this node takes part in consensus.
    pub(crate) fn node_settings(&self) -> NodeSettings {
        self.liveness.clone()
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

    /// Begins to hand out what arrives, and to connect to the nodes that the controller names.
    pub(crate) fn deliver(self, formation: Formation, delivery: Delivery<'_>) {
        let Self { links, inbound, liveness, clock, .. } = self;
        let Delivery {
            shard,
            fitness,
            administration,
            reachable,
            controller,
            removed,
            tasks,
            stop,
        } = delivery;
        let (changes, changed) = mpsc::channel(BATCHES);
        let (naming, named) = mpsc::channel(1);
        let peers = peers::PeerList {
            node: liveness.node,
            links: links.clone(),
            known: liveness.peers.iter().copied().collect(),
            membership: controller.watch_membership(),
            controller: controller.watch(),
            named,
            liveness: changes,
            removed: removed.clone(),
            formation: formation.clone(),
        };
        tasks.spawn(peers.run(stop.clone()));
        tasks.spawn(remember_removal(formation.clone(), removed.clone(), stop.clone()));
        let (controller, removed) = (controller.clone(), removed.clone());
        let formed =
            admission::Answering::new(formation, links.clone(), controller, removed, naming);
        let flintmq_transport::Inbound { urgent, append, gateway, bulk, events } = inbound;
        let (beats, heard) = mpsc::channel(BATCHES);
        tasks.spawn(arrivals::sort(urgent, shard.clone(), Some(beats), stop.clone()));
        for messages in [append, bulk] {
            tasks.spawn(arrivals::sort(messages, shard.clone(), None, stop.clone()));
        }
        let messages = arrivals::Messages { shard: shard.clone(), administration, formed };
        tasks.spawn(arrivals::sort_messages(gateway, messages, stop.clone()));
        let watching = liveness::Liveness::new(liveness, links, clock, fitness, shard, reachable);
        tasks.spawn(watching.run(heard, events, changed, stop.clone()));
    }
}

/// Where what arrives goes.
pub(crate) struct Delivery<'a> {
    pub(crate) shard: ShardSender,
    pub(crate) fitness: Fitness,
    pub(crate) administration: mpsc::Sender<FromAdministration>,
    /// The nodes that can be reached, for those who ask.
    pub(crate) reachable: watch::Sender<BTreeSet<NodeId>>,
    pub(crate) controller: &'a Controller,
    /// Raised when this node is no node of the cluster any more.
    pub(crate) removed: &'a CancellationToken,
    pub(crate) tasks: &'a TaskTracker,
    pub(crate) stop: &'a CancellationToken,
}

/// The queue of what other nodes' administrations say.
pub(crate) fn administration()
-> (mpsc::Sender<FromAdministration>, mpsc::Receiver<FromAdministration>) {
    mpsc::channel(ADMINISTRATION)
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
