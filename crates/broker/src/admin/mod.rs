//! The admin address: health, metrics, and `/api/v1` for domains, queues and groups.

mod answer;
mod domains;
mod groups;
mod health;
mod openapi;
mod queues;
mod token;

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};
use flintmq_storage::LogStore;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::config::AdminSection;
use crate::controller::Controller;
use crate::domain::MAX_DOCUMENT_BYTES;
use crate::fatal::FatalSignal;
use crate::metrics::Metrics;
use crate::partition::PartitionHandle;
use token::Access;

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
    pub(crate) store: Arc<dyn LogStore>,
    pub(crate) fatal: FatalSignal,
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
        let state = AdminState { node: Arc::default(), metrics, access };
        Ok(Self { listener, address, state })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn node(&self) -> NodeCell {
        NodeCell(Arc::clone(&self.state.node))
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
    let api = Router::new()
        .route("/openapi.json", get(openapi::document))
        .route("/status", get(groups::status))
        .route("/groups", get(groups::list))
        .route("/groups/{id}", get(groups::show))
        .route("/domains", get(domains::list).post(domains::create))
        .route("/domains/{name}", get(domains::show).put(domains::update).delete(domains::remove))
        .route("/queues", get(queues::list))
        .route("/queues/{domain}/{queue}", get(queues::show).delete(queues::remove))
        .route("/queues/{domain}/{queue}/purge", post(queues::purge))
        .route("/queues/{domain}/{queue}/messages", get(queues::messages))
        .fallback(answer::unknown_path)
        .method_not_allowed_fallback(answer::wrong_method)
        .layer(axum::middleware::from_fn_with_state(state.clone(), token::guard));
    Router::new()
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(health::metrics))
        .nest("/api/v1", api)
        .fallback(answer::unknown_path)
        .method_not_allowed_fallback(answer::wrong_method)
        .layer(DefaultBodyLimit::max(MAX_DOCUMENT_BYTES))
        .with_state(state)
}
