//! From a configuration to a node that serves: the store is opened, the cluster formed, the groups
//! brought up.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use flintmq_consensus::{Liveness, NodeId, NodeSettings};
use flintmq_controller::PlanningSettings;
use flintmq_storage::{LogStore, NodeIdentity, Opened, Shutdown, Store, StoreOptions};
use flintmq_transport::CertificateFiles;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::cluster::{
    self, Cluster, ClusterSettings, Delivery, Directory, Formation, FromAdministration, PeerLinks,
};
use crate::config::{Durability, ListenScheme, NodeConfig};
use crate::controller::{Policy, first_nodes};
use crate::fatal::FatalSignal;
use crate::first_domains;
use crate::groups::{Groups, GroupsContext, GroupsError, Inventory};
use crate::host::CoreClock;
use crate::metrics::Metrics;
use crate::server::{END, StartError, within};
use crate::session::SessionContext;
use crate::session::listener::Listener;
use crate::tls::TlsIdentity;

/// Bytes that may wait for the log writer: room for the largest message twice, so that none is
/// refused for its size.
const INBOX_BYTES: usize = 160 << 20;

/// What a started node consists of.
pub(crate) type Started = (Arc<Store>, Groups, Option<Neighbours>, CancellationToken, Vec<String>);

/// Where clients connect. They can while the node starts, which may take long in a cluster that is
/// not formed: what they open waits.
pub(crate) struct Entrance {
    pub(crate) context: Arc<SessionContext>,
    pub(crate) permits: Arc<Semaphore>,
    pub(crate) accepting: CancellationToken,
    pub(crate) services: TaskTracker,
    /// Says why the node does not serve yet.
    pub(crate) starting: watch::Sender<String>,
}

impl Entrance {
    /// Begins to accept; where.
    fn open(&self, listeners: Vec<Listener>) -> Vec<String> {
        let urls = listeners.iter().map(Listener::url).collect();
        for listener in listeners {
            let (context, permits) = (Arc::clone(&self.context), Arc::clone(&self.permits));
            self.services.spawn(listener.run(context, permits, self.accepting.clone()));
        }
        urls
    }
}

/// What a node starts with.
#[derive(Clone, Copy)]
pub(crate) struct Start<'a> {
    pub(crate) config: &'a NodeConfig,
    pub(crate) metrics: &'a Arc<Metrics>,
    pub(crate) fatal: &'a FatalSignal,
    pub(crate) clock: CoreClock,
    pub(crate) identity: Option<&'a Arc<TlsIdentity>>,
    pub(crate) entrance: &'a Entrance,
}

/// The way to the other nodes of a cluster, and what they say about administration.
pub(crate) struct Neighbours {
    pub(crate) links: PeerLinks,
    pub(crate) administration: Option<mpsc::Receiver<FromAdministration>>,
    pub(crate) reachable: watch::Receiver<BTreeSet<NodeId>>,
    /// Raised when this node was removed from the cluster.
    pub(crate) removed: CancellationToken,
}

/// Opens the store and brings up everything on it, unless `stopped` comes first. What was opened is
/// closed again when something fails.
///
/// # Errors
/// [`StartError`].
pub(crate) async fn open_and_serve(
    start: Start<'_>,
    stopped: impl Future<Output = ()>,
) -> Result<Started, StartError> {
    let opened = open_store(start.config).await?;
    let (store, directory) = OpenedDirectory::of(start.config, opened);
    let stopping = CancellationToken::new();
    let tasks = TaskTracker::new();
    let serving = serve(start, (&store, &directory), (&stopping, &tasks));
    let result = tokio::select! {
        result = serving => result,
        () = stopped => Err(StartError::Stopped),
    };
    match result {
        Ok((groups, others, urls)) => Ok((store, groups, others, stopping, urls)),
        Err(error) => {
            // What was opened is closed as it should be, so that a mistake in the configuration
            // costs nothing.
            stopping.cancel();
            tasks.close();
            within(END, tasks.wait(), "groups").await;
            let closed = tokio::task::spawn_blocking(move || store.close()).await;
            if let Ok(Err(error)) = closed {
                tracing::warn!(%error, "the data directory was not closed cleanly");
            }
            Err(error)
        }
    }
}

async fn serve(
    Start { config, metrics, fatal, clock, identity, entrance }: Start<'_>,
    (store, directory): (&Arc<Store>, &OpenedDirectory),
    (stopping, tasks): (&CancellationToken, &TaskTracker),
) -> Result<(Groups, Option<Neighbours>, Vec<String>), StartError> {
    let mut listeners = Vec::new();
    for url in &config.clients.listen {
        let tls = (url.scheme == ListenScheme::Tls).then(|| identity.cloned()).flatten();
        listeners.extend(Listener::bind(url, tls).await?);
    }
    let urls = entrance.open(listeners);
    let inventory = Inventory::take(&**store).map_err(GroupsError::Read)?;
    // A start that was cut short leaves a store without groups, which is as good as new.
    let directory = directory.with_groups(!inventory.is_new());
    let cluster = join_cluster(config, &directory, clock, &entrance.starting).await?;
    let settings = cluster.as_ref().map(|(cluster, _)| cluster.node_settings());
    let alone = || NodeSettings::new(NodeId(config.node.id), directory.runs.1, []);
    let node = NodeSettings { liveness: Liveness::Told, ..settings.unwrap_or_else(alone) };
    let joined = cluster.as_ref().and_then(|(_, formation)| formation.joined());
    let partitions = joined.unwrap_or(config.bootstrap.partitions);
    let members = match &cluster {
        Some((_, formation)) => formation.first_members(),
        None => vec![NodeId(config.node.id)],
    };
    let count = inventory.count(partitions);
    let groups = Groups::start(GroupsContext {
        node,
        store: Arc::clone(store) as Arc<dyn LogStore>,
        clock,
        sessions: Arc::clone(entrance.context.sessions()),
        peers: cluster.as_ref().map(|(cluster, _)| cluster.links()),
        members,
        stopping: stopping.clone(),
        tasks: tasks.clone(),
        metrics: Arc::clone(metrics),
        fatal: fatal.clone(),
        inventory,
        count,
        policy: Policy {
            undefined: config.domains.undefined,
            partitions,
            max_queues: config.limits.max_queues,
        },
    })
    .await?;
    if let Some((cluster, formation)) = cluster {
        let links = cluster.links();
        let removed = CancellationToken::new();
        let first = first_nodes(&config.cluster(), |id| formation.directory(NodeId(id)));
        let controller = groups.controller.clone();
        let (administration, heard) = cluster::administration();
        let (reaching, reachable) = watch::channel(BTreeSet::new());
        cluster.deliver(
            formation,
            Delivery {
                shard: groups.shard.clone(),
                fitness: groups.fitness.clone(),
                administration,
                reachable: reaching,
                controller: &controller,
                removed: &removed,
                tasks,
                stop: stopping,
            },
        );
        let replicas = config.bootstrap.replication_factor;
        controller.plan(PlanningSettings { first, replicas, partitions: controller.partitions() });
        // A later node's own list of domains is of no interest.
        if joined.is_none() {
            first_domains::define_when_leading(config, &groups, fatal, stopping);
        }
        let neighbours = Neighbours { links, administration: Some(heard), reachable, removed };
        return Ok((groups, Some(neighbours), urls));
    }
    if groups.controller.metadata().is_newborn() {
        first_domains::define(config, &groups.controller).await?;
    }
    Ok((groups, None, urls))
}

/// What is known of the data directory after its store was opened.
struct OpenedDirectory {
    path: PathBuf,
    store: String,
    /// Numbers of the last run and of this one.
    runs: (u64, u64),
}

impl OpenedDirectory {
    fn of(config: &NodeConfig, opened: Opened) -> (Arc<Store>, Self) {
        let Opened { store, uuid, last_process, process, .. } = opened;
        let runs = (last_process, process);
        (Arc::new(store), Self { path: config.node.data_dir.clone(), store: uuid, runs })
    }

    fn with_groups(&self, has_groups: bool) -> Directory<'_> {
        let Self { path, store, runs } = self;
        Directory { path, store, runs: *runs, is_new: !has_groups }
    }
}

async fn open_store(config: &NodeConfig) -> Result<Opened, StartError> {
    let dir = config.node.data_dir.clone();
    let identity = NodeIdentity { cluster: config.cluster.clone(), node: NodeId(config.node.id) };
    let options = StoreOptions {
        durability: match config.node.durability {
            Durability::Background => flintmq_storage::Durability::Background,
            Durability::Sync => flintmq_storage::Durability::Sync,
        },
        flush_interval: config.node.flush_interval,
        disk_reserve: config.node.disk_reserve.as_u64(),
        inbox_bytes: INBOX_BYTES,
        witness_dir: Some(config.node.witness_dir.clone()),
        trust_page_cache: config.node.trust_page_cache,
        ..StoreOptions::new(&dir, identity)
    };
    let opened = tokio::task::spawn_blocking(move || Store::open(options)).await;
    let opened = match opened {
        Ok(Ok(opened)) => opened,
        Ok(Err(source)) => return Err(StartError::Store { dir, source }),
        Err(panic) => return Err(GroupsError::Failed(panic.to_string()).into()),
    };
    let dir = dir.display();
    match &opened.shutdown {
        Shutdown::New => tracing::info!(%dir, "new data directory"),
        Shutdown::Clean => tracing::info!(%dir, "the last stop was clean"),
        Shutdown::ProcessCrash | Shutdown::Synced => {
            tracing::warn!(%dir, "the last stop was not clean; nothing acknowledged is missing");
        }
        Shutdown::TailMayBeLost { reason } => tracing::error!(
            %dir, reason, "the last stop was not clean and acknowledged messages may be missing"
        ),
    }
    Ok(opened)
}

/// Opens the address for other nodes and waits until the cluster is formed; none for a cluster of
/// one.
async fn join_cluster(
    config: &NodeConfig,
    directory: &Directory<'_>,
    clock: CoreClock,
    starting: &watch::Sender<String>,
) -> Result<Option<(Cluster, Formation)>, StartError> {
    let known = config.cluster();
    let Some(peers) = known.peers.as_ref().filter(|_| known.has_peers()) else { return Ok(None) };
    let failed = |reason: String| StartError::Peers(reason);
    let listen = tokio::net::lookup_host(&peers.listen)
        .await
        .map_err(|error| failed(format!("{error}, peers.listen={}", peers.listen)))?
        .next()
        .ok_or_else(|| failed(format!("no such address, peers.listen={}", peers.listen)))?;
    let node = NodeId(config.node.id);
    let settings = ClusterSettings {
        cluster: config.cluster.clone(),
        node,
        formation: Formation::open(node, directory)?,
        incarnation: directory.runs.1,
        peers: known.others().map(|node| (NodeId(node.id), node.peers.clone())).collect(),
        listen,
        certificates: CertificateFiles {
            certificate: peers.certificate.clone(),
            key: peers.key.clone(),
            authority: peers.ca.clone(),
        },
        timing: known.timing.clone(),
    };
    let mut cluster =
        Cluster::bind(settings, clock).await.map_err(|error| failed(error.to_string()))?;
    let formation = cluster.form(starting).await?;
    Ok(Some((cluster, formation)))
}
