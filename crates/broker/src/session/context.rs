//! What all sessions of a node share: limits, the way to the controller and the partitions, and
//! numbers to give out.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use flintmq_partition::{Close, Request};
use flintmq_queue::HandleId;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::counted::SessionMetrics;
use super::directory::SessionDirectory;
use super::negotiation::BrokerIdentity;
use crate::config::LimitsSection;
use crate::controller::Controller;
use crate::host::{PartitionHandle, SessionTable, partition_of};
use crate::link::{NodeInFlight, SessionId, SessionLink};

/// How long an open waits for a node that does not serve yet, such as one whose cluster is not
/// formed. Clients with less patience give up by themselves.
const OPEN_PATIENCE: Duration = Duration::from_secs(60);

/// What a node has once it serves.
struct Served {
    controller: Controller,
    partitions: Vec<PartitionHandle>,
}

/// What all sessions of the node share. Clients negotiate before the node serves.
pub(crate) struct SessionContext {
    limits: LimitsSection,
    pub(super) broker: BrokerIdentity,
    /// By their numbers, for the shard.
    sessions: Arc<SessionTable>,
    served: OnceLock<Served>,
    /// Raised when the node serves.
    serving: CancellationToken,
    /// Unique for this process of this node; part of the GUIDs that the broker makes.
    pub(super) boot: u32,
    tasks: TaskTracker,
    /// Ends all sessions, as the last step of a stop.
    pub(super) closing: CancellationToken,
    in_flight: Arc<NodeInFlight>,
    next_session: AtomicU64,
    next_handle: AtomicU64,
    pub(super) metrics: SessionMetrics,
    directory: Arc<SessionDirectory>,
}

impl SessionContext {
    pub(crate) fn new(
        limits: LimitsSection,
        broker: BrokerIdentity,
        boot: u32,
        closing: CancellationToken,
    ) -> Self {
        let first_handle = (u64::from(broker.node) << 40) + 1;
        let in_flight = usize::try_from(limits.node_in_flight_bytes.as_u64()).unwrap_or(usize::MAX);
        Self {
            limits,
            broker,
            sessions: Arc::default(),
            served: OnceLock::new(),
            serving: CancellationToken::new(),
            boot,
            tasks: TaskTracker::new(),
            closing,
            in_flight: Arc::new(NodeInFlight::new(in_flight)),
            next_session: AtomicU64::new(1),
            // Leaders see those of all nodes: no two nodes may give the same.
            next_handle: AtomicU64::new(first_handle),
            metrics: SessionMetrics::new(),
            directory: Arc::default(),
        }
    }

    pub(crate) fn limits(&self) -> &LimitsSection {
        &self.limits
    }

    /// What all clients together have under way.
    pub(super) fn in_flight(&self) -> &Arc<NodeInFlight> {
        &self.in_flight
    }

    /// Who is connected.
    pub(crate) fn directory(&self) -> &Arc<SessionDirectory> {
        &self.directory
    }

    /// Where answers find their sessions.
    pub(crate) fn sessions(&self) -> &Arc<SessionTable> {
        &self.sessions
    }

    /// The tasks of all connections; waited for at a stop.
    pub(crate) fn tasks(&self) -> &TaskTracker {
        &self.tasks
    }

    /// The node serves from now on: opens that wait go on.
    pub(crate) fn serve(&self, controller: Controller, partitions: Vec<PartitionHandle>) {
        // A node begins once.
        let _already = self.served.set(Served { controller, partitions });
        self.serving.cancel();
    }

    /// The controller, as soon as the node serves; none when that takes too long.
    pub(super) async fn controller(&self) -> Option<&Controller> {
        let waiting = tokio::time::timeout(OPEN_PATIENCE, self.serving.cancelled());
        let _in_vain = waiting.await;
        self.served.get().map(|served| &served.controller)
    }

    /// How many partitions there are; they are numbered from 1. None before the node serves.
    pub(super) fn partition_count(&self) -> u32 {
        let count = self.served.get().map_or(0, |served| served.partitions.len());
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    pub(super) fn next_session(&self) -> SessionId {
        SessionId(self.next_session.fetch_add(1, Ordering::Relaxed))
    }

    pub(crate) fn next_handle(&self) -> HandleId {
        HandleId(self.next_handle.fetch_add(1, Ordering::Relaxed))
    }

    /// The way to a partition, by its number. None before the node serves.
    pub(super) fn partition(&self, number: u32) -> Option<&PartitionHandle> {
        partition_of(&self.served.get()?.partitions, number)
    }

    /// Hands a request to a partition, waiting while it is busy. A partition that is gone means
    /// that the node is stopping; what was asked for is then answered by the end of the session.
    pub(crate) async fn send(&self, partition: u32, request: Request) {
        if let Some(handle) = self.partition(partition) {
            handle.send(request).await;
        }
    }

    /// Closes a handle that the client never heard of.
    pub(crate) async fn close_quietly(&self, link: &SessionLink, partition: u32, handle: HandleId) {
        let close = Close { session: link.id, handles: vec![handle], response: Bytes::new() };
        self.send(partition, Request::Close(Box::new(close))).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_open_does_not_wait_for_ever() {
        let broker = BrokerIdentity { cluster: "c".into(), node: 1, host: "h".into() };
        let closing = CancellationToken::new();
        let context = SessionContext::new(LimitsSection::default(), broker, 1, closing);
        let began = tokio::time::Instant::now();
        assert!(context.controller().await.is_none() && context.partition_count() == 0);
        assert_eq!(began.elapsed(), OPEN_PATIENCE);
    }
}
