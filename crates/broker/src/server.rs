//! The whole node: started in order, stopped in the reverse order.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use flintmq_consensus::{Liveness, NodeId, NodeSettings};
use flintmq_controller::PlanningSettings;
use flintmq_storage::{LogStore, NodeIdentity, OpenError, Opened, Shutdown, Store, StoreOptions};
use flintmq_transport::CertificateFiles;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admin::{AdminError, AdminServer, tell_of_unserved};
use crate::cluster::{
    self, Cluster, ClusterSettings, Delivery, Directory, Formation, FormationError,
    FromAdministration, PeerLinks,
};
use crate::config::{Durability, ListenScheme, NodeConfig};
use crate::controller::{Controller, Policy, first_nodes};
use crate::domain::DomainDefinition;
use crate::domain_settings::{follow_domains, follow_new_queues};
use crate::fatal::FatalSignal;
use crate::groups::{Groups, GroupsContext, GroupsError, Inventory};
use crate::host::CoreClock;
use crate::metrics::Metrics;
use crate::operations::{Node, Peers};
use crate::queue_removal;
use crate::session::listener::{ListenError, Listener};
use crate::session::{BrokerIdentity, SessionContext};
use crate::telemetry::Telemetry;
use crate::thread::OwnThread;
use crate::tls::{TlsError, TlsFiles, TlsIdentity};

/// Bytes that may wait for the log writer: room for the largest message twice, so that none is
/// refused for its size.
const INBOX_BYTES: usize = 160 << 20;

/// How long tasks may take to end once they were told to; far more than they need.
const END: Duration = Duration::from_secs(30);

/// How long a stopping node tries to bring its last words to the others.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// What a started node consists of.
type Started = (Arc<Store>, Groups, Option<Neighbours>, CancellationToken, Vec<String>);

/// Where clients connect. They can while the node starts, which may take long in a cluster that is
/// not formed: what they open waits.
struct Entrance {
    context: Arc<SessionContext>,
    permits: Arc<Semaphore>,
    accepting: CancellationToken,
    services: TaskTracker,
    /// Says why the node does not serve yet.
    starting: watch::Sender<String>,
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
struct Start<'a> {
    config: &'a NodeConfig,
    metrics: &'a Arc<Metrics>,
    fatal: &'a FatalSignal,
    clock: CoreClock,
    identity: Option<&'a Arc<TlsIdentity>>,
    entrance: &'a Entrance,
}

/// The way to the other nodes of a cluster, and what they say about administration.
struct Neighbours {
    links: PeerLinks,
    administration: Option<mpsc::Receiver<FromAdministration>>,
    reachable: watch::Receiver<BTreeSet<NodeId>>,
    /// Raised when this node was removed from the cluster.
    removed: CancellationToken,
}

/// A running node. Dropping it without [`Broker::stop`] leaves the directory as a killed process
/// does.
pub struct Broker {
    urls: Vec<String>,
    admin: SocketAddr,
    /// Ends with the node.
    _admin_thread: OwnThread,
    store: Arc<Store>,
    groups: Groups,
    neighbours: Option<Neighbours>,
    context: Arc<SessionContext>,
    fatal: FatalSignal,
    identity: Option<Arc<TlsIdentity>>,
    shutdown_timeout: Duration,
    /// Stop accepting; stop sessions; stop groups; stop the rest.
    accepting: CancellationToken,
    closing: CancellationToken,
    stopping: CancellationToken,
    ending: CancellationToken,
    services: TaskTracker,
}

/// Why a node does not start. Nothing is left running.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data directory cannot be used.
    #[error("the data directory cannot be used, data_dir={}: {source}", dir.display())]
    Store {
        /// The directory.
        dir: PathBuf,
        /// Why not.
        source: OpenError,
    },
    /// The log or the state cannot be brought up.
    #[error(transparent)]
    Groups(#[from] GroupsError),
    /// A client listener cannot be opened.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// A certificate cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The admin address cannot be used.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// The address for other nodes cannot be used.
    #[error("other nodes cannot be reached: {0}")]
    Peers(String),
    /// This node must not take part in the cluster as it is.
    #[error(transparent)]
    Formation(#[from] FormationError),
    /// The node was told to stop before it was up.
    #[error("stopped before it was up")]
    Stopped,
    /// A domain of `bootstrap.domains_dir` cannot be defined.
    #[error("a domain's definition cannot be used, file={}: {reason}", file.display())]
    Domain {
        /// The file or directory.
        file: PathBuf,
        /// Why not.
        reason: String,
    },
}

/// Why certificates were not read again.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// Those that clients see.
    #[error(transparent)]
    Clients(#[from] TlsError),
    /// Those that other nodes see.
    #[error(transparent)]
    Peers(#[from] flintmq_transport::CertificateError),
}

/// Why a node did not stop cleanly. The next start checks its log.
#[derive(Debug, thiserror::Error)]
#[error("the node did not stop cleanly: {0}")]
pub struct StopError(String);

impl Broker {
    /// Starts a node: admin address, data directory, groups, then clients. Returns when clients can
    /// connect.
    ///
    /// # Errors
    /// [`StartError`] says what to change.
    pub async fn start(config: NodeConfig, metrics: Arc<Metrics>) -> Result<Self, StartError> {
        Self::start_unless(config, metrics, std::future::pending()).await
    }

    /// As [`Self::start`], but gives up when `stopped` comes first, as a node of a cluster may wait
    /// long for the others. The data directory is closed cleanly then.
    ///
    /// # Errors
    /// [`StartError::Stopped`], or what [`Self::start`] says.
    pub async fn start_unless(
        config: NodeConfig,
        metrics: Arc<Metrics>,
        stopped: impl Future<Output = ()>,
    ) -> Result<Self, StartError> {
        let identity = tls_identity(&config)?;
        let admin_thread = OwnThread::start("admin").map_err(AdminError::Thread)?;
        let binding = AdminServer::bind(config.admin.clone(), Arc::clone(&metrics));
        let admin = admin_thread.run(binding).await?;
        let fatal = FatalSignal::default();
        let ending = CancellationToken::new();
        let services = TaskTracker::new();
        let admin_address = admin.address();
        let node_cell = admin.node();
        let starting = admin.starting();
        let handed_on = admin.router_for_nodes();
        services.spawn(admin.forget_leaving(ending.clone()));
        services.spawn_on(admin.run(ending.clone()), admin_thread.handle());
        services.spawn(tell_of_unserved(node_cell.clone(), ending.clone()));

        let clock = CoreClock::start();
        let accepting = CancellationToken::new();
        let closing = CancellationToken::new();
        let context = Arc::new(SessionContext::new(
            config.limits.clone(),
            BrokerIdentity {
                cluster: config.cluster.clone(),
                node: config.node.id,
                host: host_name(),
                process: std::process::id(),
            },
            boot_number(),
            closing.clone(),
        ));
        let entrance = Entrance {
            context: Arc::clone(&context),
            permits: Arc::new(Semaphore::new(config.limits.max_connections as usize)),
            accepting: accepting.clone(),
            services: services.clone(),
            starting,
        };
        let start = Start {
            config: &config,
            metrics: &metrics,
            fatal: &fatal,
            clock,
            identity: identity.as_ref(),
            entrance: &entrance,
        };
        let started = Self::open_and_serve(start, stopped);
        let (store, mut groups, mut neighbours, stopping, urls) = match started.await {
            Ok(started) => started,
            Err(error) => {
                for token in [&accepting, &closing, &ending] {
                    token.cancel();
                }
                return Err(error);
            }
        };
        context.serve(groups.controller.clone(), groups.partitions.clone());
        let telemetry = Telemetry {
            metrics,
            store: Arc::clone(&store) as Arc<dyn LogStore>,
            controller: groups.controller.clone(),
            partitions: groups.partitions.clone(),
            replicas: groups.replicas.clone(),
            clock,
            fitness: groups.fitness.clone(),
            in_cluster: neighbours.is_some(),
        };
        services.spawn(telemetry.run(ending.clone()));
        for partition in groups.partitions.iter().cloned() {
            services.spawn(follow_domains(groups.controller.clone(), partition, ending.clone()));
        }
        if let Some(created) = groups.created.take() {
            let (controller, partitions) = (groups.controller.clone(), groups.partitions.clone());
            services.spawn(follow_new_queues(controller, partitions, created, ending.clone()));
        }
        services.spawn(queue_removal::remove_idle(
            groups.controller.clone(),
            groups.partitions.clone(),
            config.domains.idle_queue_timeout,
            ending.clone(),
        ));
        let peers = neighbours.as_mut().and_then(|neighbours| {
            let peers = Peers::new(neighbours.links.clone(), neighbours.reachable.clone());
            let hearing =
                peers.clone().run(neighbours.administration.take()?, handed_on, ending.clone());
            services.spawn_on(hearing, admin_thread.handle());
            Some(peers)
        });
        services.close();
        let members =
            config.cluster().nodes.into_iter().map(|node| (node.id, node.peers)).collect();
        node_cell.set(Node {
            cluster: config.cluster,
            id: config.node.id,
            controller: groups.controller.clone(),
            partitions: groups.partitions.clone(),
            replicas: groups.replicas.clone(),
            members,
            peers,
            sessions: Arc::clone(context.directory()),
            store: Arc::clone(&store) as Arc<dyn LogStore>,
            fatal: fatal.clone(),
            clock,
            fitness: groups.fitness.clone(),
        });
        Ok(Self {
            urls,
            admin: admin_address,
            _admin_thread: admin_thread,
            store,
            groups,
            neighbours,
            context,
            fatal,
            identity,
            shutdown_timeout: config.limits.shutdown_timeout,
            accepting,
            closing,
            stopping,
            ending,
            services,
        })
    }

    /// Where clients connect, with the ports that the system chose where none was given.
    pub fn client_urls(&self) -> &[String] {
        &self.urls
    }

    /// Where the administration listens.
    pub fn admin_address(&self) -> SocketAddr {
        self.admin
    }

    /// Waits for a failure that the node must not outlive, and tells it. Stop the node then.
    pub async fn failed(&self) -> String {
        self.fatal.raised().await
    }

    /// Waits until this node is removed from its cluster: everything that it held is elsewhere.
    /// Stop the node then.
    pub async fn removed(&self) {
        match &self.neighbours {
            Some(neighbours) => neighbours.removed.cancelled().await,
            None => std::future::pending().await,
        }
    }

    /// Reads certificate and key again, for connections made from now on.
    ///
    /// # Errors
    /// [`ReloadError`]; the node goes on with what it has.
    pub fn reload_certificates(&self) -> Result<(), ReloadError> {
        if let Some(identity) = &self.identity {
            identity.reload()?;
        }
        if let Some(neighbours) = &self.neighbours {
            neighbours.links.reload_certificates()?;
        }
        Ok(())
    }

    /// Stops: takes no more clients, delivers nothing more, waits a bounded time for consumers to
    /// confirm what they have, ends all sessions, writes checkpoints, and marks the directory as
    /// cleanly closed.
    ///
    /// # Errors
    /// [`StopError`]: everything acknowledged is in the log nevertheless.
    pub async fn stop(self) -> Result<(), StopError> {
        tracing::info!("stopping");
        self.accepting.cancel();
        if self.fatal.reason().is_none() {
            self.drain().await;
        }
        self.closing.cancel();
        self.context.tasks().close();
        within(END, self.context.tasks().wait(), "sessions").await;
        self.stopping.cancel();
        self.groups.tasks.close();
        within(END, self.groups.tasks.wait(), "groups").await;
        if let Some(neighbours) = &self.neighbours {
            neighbours.links.close(LAST_WORDS).await;
        }
        self.ending.cancel();
        within(END, self.services.wait(), "services").await;
        if let Some(reason) = self.fatal.reason() {
            return Err(StopError(reason.to_owned()));
        }
        let store = self.store;
        let closed = tokio::task::spawn_blocking(move || store.close()).await;
        match closed {
            Ok(Ok(())) => {
                tracing::info!("stopped");
                Ok(())
            }
            Ok(Err(error)) => Err(StopError(error.to_string())),
            Err(error) => Err(StopError(error.to_string())),
        }
    }

    async fn drain(&self) {
        let mut idle = Vec::new();
        for partition in &self.groups.partitions {
            idle.push(partition.stop_delivery().await);
        }
        let all_idle = async {
            for idle in idle {
                // An error means that the partition is gone: nothing to wait for.
                let _ = idle.await;
            }
        };
        if tokio::time::timeout(self.shutdown_timeout, all_idle).await.is_err() {
            tracing::info!(
                seconds = self.shutdown_timeout.as_secs_f64(),
                "consumers still hold unconfirmed messages: they will be delivered again"
            );
        }
    }

    async fn open_and_serve(
        start: Start<'_>,
        stopped: impl Future<Output = ()>,
    ) -> Result<Started, StartError> {
        let opened = open_store(start.config).await?;
        let (store, directory) = OpenedDirectory::of(start.config, opened);
        let stopping = CancellationToken::new();
        let tasks = TaskTracker::new();
        let serving = Self::serve(start, (&store, &directory), (&stopping, &tasks));
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
            controller.plan(PlanningSettings {
                first,
                replicas,
                partitions: controller.partitions(),
            });
            // A later node's own list of domains is of no interest.
            if joined.is_none() {
                define_domains_when_leading(config, &groups, fatal, stopping);
            }
            let neighbours = Neighbours { links, administration: Some(heard), reachable, removed };
            return Ok((groups, Some(neighbours), urls));
        }
        if groups.controller.metadata().is_newborn() {
            define_domains(config, &groups.controller).await?;
        }
        Ok((groups, None, urls))
    }
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

/// The first leader of the controller defines the first domains.
fn define_domains_when_leading(
    config: &NodeConfig,
    groups: &Groups,
    fatal: &FatalSignal,
    stopping: &CancellationToken,
) {
    let (config, controller) = (config.clone(), groups.controller.clone());
    let (fatal, stopping) = (fatal.clone(), stopping.clone());
    groups.tasks.spawn(async move {
        tokio::select! {
            led = controller.leads() => if !led { return },
            () = stopping.cancelled() => return,
        }
        if controller.metadata().is_newborn()
            && let Err(error) = define_domains(&config, &controller).await
        {
            fatal.raise(error);
        }
    });
}

async fn define_domains(config: &NodeConfig, controller: &Controller) -> Result<(), StartError> {
    let Some(dir) = &config.bootstrap.domains_dir else { return Ok(()) };
    let failed = |file: PathBuf, reason: String| StartError::Domain { file, reason };
    let entries = std::fs::read_dir(dir).map_err(|e| failed(dir.clone(), e.to_string()))?;
    let mut files: Vec<PathBuf> =
        entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "json"));
    files.sort();
    let mut definitions = Vec::new();
    for file in files {
        let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let text =
            std::fs::read_to_string(&file).map_err(|e| failed(file.clone(), e.to_string()))?;
        let definition = DomainDefinition::from_json_named(&name, &text)
            .map_err(|e| failed(file.clone(), e.to_string()))?;
        definition.check_supported().map_err(|e| failed(file.clone(), e.to_string()))?;
        tracing::info!(domain = name, "domain defined");
        for problem in definition.without_effect() {
            tracing::warn!(domain = name, %problem, "a field of the domain has no effect");
        }
        definitions.push(definition);
    }
    let defined = controller.define_first(definitions).await;
    defined.map_err(|e| failed(dir.clone(), e.to_string()))
}

fn tls_identity(config: &NodeConfig) -> Result<Option<Arc<TlsIdentity>>, TlsError> {
    let wanted = config.clients.listen.iter().any(|url| url.scheme == ListenScheme::Tls);
    let (Some(certificate), Some(key)) = (&config.clients.certificate, &config.clients.key) else {
        return Ok(None);
    };
    if !wanted {
        return Ok(None);
    }
    let files = TlsFiles {
        certificate: certificate.clone(),
        key: key.clone(),
        client_ca: config.clients.client_ca.clone(),
    };
    TlsIdentity::load(files).map(|identity| Some(Arc::new(identity)))
}

async fn within(limit: Duration, ending: impl Future<Output = ()>, what: &str) {
    if tokio::time::timeout(limit, ending).await.is_err() {
        tracing::warn!(what, "still busy at the end of the stop");
    }
}

fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map(|name| name.trim().to_owned())
        .unwrap_or_default()
}

/// A number that another run of a node hardly has, whatever the clock says: part of the GUIDs of
/// clients that make none.
fn boot_number() -> u32 {
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new().build_hasher().finish() as u32
}
