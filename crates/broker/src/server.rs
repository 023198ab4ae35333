//! The whole node: started in order, stopped in the reverse order.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use flintmq_storage::{LogStore, OpenError, Store};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admin::{AdminError, AdminServer, tell_of_unserved};
use crate::cluster::FormationError;
use crate::config::{ListenScheme, NodeConfig};
use crate::domain_settings::{follow_domains, follow_new_queues};
use crate::fatal::FatalSignal;
use crate::groups::{Groups, GroupsError};
use crate::host::CoreClock;
use crate::metrics::Metrics;
use crate::operations::{Node, Peers};
use crate::queue_removal;
use crate::session::listener::ListenError;
use crate::session::{BrokerIdentity, SessionContext};
use crate::starting::{Entrance, Neighbours, Start, open_and_serve};
use crate::telemetry::Telemetry;
use crate::thread::OwnThread;
use crate::tls::{TlsError, TlsFiles, TlsIdentity};

/// How long tasks may take to end once they were told to; far more than they need.
pub(crate) const END: Duration = Duration::from_secs(30);

/// How long a stopping node tries to bring its last words to the others.
const LAST_WORDS: Duration = Duration::from_millis(500);

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
        let started = open_and_serve(start, stopped);
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

pub(crate) async fn within(limit: Duration, ending: impl Future<Output = ()>, what: &str) {
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
