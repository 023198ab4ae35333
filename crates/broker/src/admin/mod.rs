//! The admin address: health, metrics, and `/api/v1` for domains, queues, sessions and
//! groups.

mod answer;
mod domains;
mod fresh;
mod groups;
mod health;
mod leader;
mod leaving;
mod nodes;
mod openapi;
mod peers;
mod queues;
mod recovery;
mod sessions;
mod token;
mod unserved;

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{delete, get, post};
use flintmq_consensus::GroupId;
use flintmq_storage::LogStore;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::config::AdminSection;
use crate::controller::{Controller, NodeState};
use crate::domain::MAX_DOCUMENT_BYTES;
use crate::fatal::FatalSignal;
use crate::host::{CoreClock, Fitness, GroupAdmin, PartitionHandle, partition_of};
use crate::metrics::Metrics;
use crate::session::SessionDirectory;
use flintmq_shard::ReplicaStatus;
pub(crate) use peers::{ADMINISTRATION, Peers};
use token::Access;
pub(crate) use unserved::tell as tell_of_unserved;

/// Why the admin address cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The address cannot be bound.
    #[error(
        "cannot listen for administration: is the port in use by another process? address={address} reason={source}"
    )]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The token file cannot be used.
    #[error("admin.token_file cannot be used: {reason}, file={file}")]
    Token {
        /// The file.
        file: String,
        /// Why not.
        reason: String,
    },
}

/// The parts of the node that the administration works on; there once the node is up.
pub(crate) struct Node {
    pub(crate) cluster: String,
    pub(crate) id: u32,
    pub(crate) controller: Controller,
    pub(crate) partitions: Vec<PartitionHandle>,
    /// The way to each group's replica, the controller's first.
    pub(crate) replicas: Vec<GroupAdmin>,
    /// The cluster's first nodes with their addresses, until the membership is known; empty for one
    /// alone.
    pub(crate) members: Vec<(u32, String)>,
    /// The others, where there are any.
    pub(crate) peers: Option<Peers>,
    /// Who is connected to this node.
    pub(crate) sessions: Arc<SessionDirectory>,
    pub(crate) store: Arc<dyn LogStore>,
    pub(crate) fatal: FatalSignal,
    pub(crate) clock: CoreClock,
    pub(crate) fitness: Fitness,
}

/// Where the node goes when it is up.
#[derive(Clone)]
pub(crate) struct NodeCell(Arc<OnceLock<Node>>);

impl NodeCell {
    /// The node is up.
    pub(crate) fn set(&self, node: Node) {
        // A node starts once per process.
        let _already = self.0.set(node);
    }
}

/// What every handler works with.
#[derive(Clone)]
pub(crate) struct AdminState {
    node: Arc<OnceLock<Node>>,
    /// Why the node is not up yet.
    starting: watch::Sender<String>,
    metrics: Arc<Metrics>,
    access: Arc<Access>,
}

/// The bound admin address.
pub(crate) struct AdminServer {
    listener: TcpListener,
    address: SocketAddr,
    state: AdminState,
}

impl AdminServer {
    pub(crate) async fn bind(
        section: &AdminSection,
        metrics: Arc<Metrics>,
    ) -> Result<Self, AdminError> {
        let access = Arc::new(Access::load(section)?);
        let failed = |source| AdminError::Listen { address: section.listen, source };
        let listener = TcpListener::bind(section.listen).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let starting = watch::Sender::new("the node is starting".to_owned());
        let state = AdminState { node: Arc::default(), starting, metrics, access };
        Ok(Self { listener, address, state })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn node(&self) -> NodeCell {
        NodeCell(Arc::clone(&self.state.node))
    }

    /// Where to say why the node is not up yet.
    pub(crate) fn starting(&self) -> watch::Sender<String> {
        self.state.starting.clone()
    }

    /// What other nodes may ask of this one; see [`Peers::run`].
    pub(crate) fn router_for_nodes(&self) -> Router {
        router_for_nodes(self.state.clone())
    }

    /// Forgets nodes that leave the cluster, until `stop`.
    pub(crate) fn forget_leaving(
        &self,
        stop: CancellationToken,
    ) -> impl Future<Output = ()> + use<> {
        leaving::run(self.state.clone(), stop)
    }

    /// Serves until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let router = router(self.state);
        let serving = axum::serve(self.listener, router)
            .with_graceful_shutdown(async move { stop.cancelled().await });
        if let Err(error) = serving.await {
            tracing::error!(%error, "the admin address is not served any more");
        }
    }
}

fn router(state: AdminState) -> Router {
    Router::new()
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(health::metrics))
        .nest("/api/v1", api(&state))
        .fallback(answer::unknown_path)
        .method_not_allowed_fallback(answer::wrong_method)
        .layer(DefaultBodyLimit::max(MAX_DOCUMENT_BYTES))
        .with_state(state)
}

/// The same interface for other nodes, and what only they may ask.
fn router_for_nodes(state: AdminState) -> Router {
    let only_nodes = Router::new()
        .route("/groups/{id}/keep", post(leader::keep))
        .route("/groups/{id}/standing", get(recovery::standing))
        .route("/groups/{id}/recover", post(recovery::recover_here));
    Router::new()
        .nest("/api/v1", api(&state))
        .nest("/nodes/v1", only_nodes)
        .fallback(answer::unknown_path)
        .method_not_allowed_fallback(answer::wrong_method)
        .layer(DefaultBodyLimit::max(MAX_DOCUMENT_BYTES))
        .with_state(state)
}

fn api(state: &AdminState) -> Router<AdminState> {
    Router::new()
        .route("/openapi.json", get(openapi::document))
        .route("/status", get(groups::status))
        .route("/nodes", get(nodes::list).post(nodes::add))
        .route("/nodes/{id}", delete(nodes::remove))
        .route("/nodes/{id}/drain", post(nodes::drain))
        .route("/nodes/{id}/replace", post(nodes::replace))
        .route("/groups", get(groups::list))
        .route("/groups/{id}", get(groups::show))
        .route("/groups/{id}/transfer", post(leader::transfer))
        .route("/groups/{id}/recover", post(recovery::recover))
        .route("/domains", get(domains::list).post(domains::create))
        .route("/domains/{name}", get(domains::show).put(domains::update).delete(domains::remove))
        .route("/sessions", get(sessions::list))
        .route("/queues", get(queues::list))
        .route("/queues/{domain}/{queue}", get(queues::show).delete(queues::remove))
        .route("/queues/{domain}/{queue}/purge", post(queues::purge))
        .route("/queues/{domain}/{queue}/messages", get(queues::messages))
        .fallback(answer::unknown_path)
        .method_not_allowed_fallback(answer::wrong_method)
        .layer(axum::middleware::from_fn_with_state(state.clone(), token::guard))
}

impl Node {
    /// State of one group's replica here; none of a group that does not exist.
    fn watch(&self, group: u32) -> Option<watch::Receiver<ReplicaStatus>> {
        if group == GroupId::CONTROLLER.0 {
            return Some(self.controller.watch());
        }
        Some(partition_of(&self.partitions, group)?.watch())
    }

    /// The cluster's nodes, as far as they are known here, by number.
    fn nodes(&self) -> Vec<u32> {
        let roster = self.controller.membership();
        let present = roster.nodes().filter(|node| node.state != NodeState::Removed);
        let mut present: Vec<u32> = present.map(|node| node.id).collect();
        if present.is_empty() {
            present = self.members.iter().map(|(id, _)| *id).collect();
        }
        present.sort_unstable();
        present
    }

    /// The nodes but this one, by number.
    fn others(&self) -> Vec<u32> {
        self.nodes().into_iter().filter(|id| *id != self.id).collect()
    }

    /// The way to one group's replica.
    fn replica(&self, group: u32) -> Option<&GroupAdmin> {
        self.replicas.get(group as usize)
    }
}
