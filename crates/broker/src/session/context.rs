//! What all sessions of a node share: limits, the way to the controller and the partitions, and
//! numbers to give out.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

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
use crate::link::{NodeInFlight, SessionId, SessionLink};
use crate::host::{PartitionHandle, SessionTable, partition_of};

/// What all sessions of the node share.
pub(crate) struct SessionContext {
    limits: LimitsSection,
    pub(super) broker: BrokerIdentity,
    controller: Controller,
    partitions: Vec<PartitionHandle>,
    pub(super) sessions: Arc<SessionTable>,
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
        controller: Controller,
        partitions: Vec<PartitionHandle>,
        sessions: Arc<SessionTable>,
        boot: u32,
        closing: CancellationToken,
    ) -> Self {
        let first_handle = (u64::from(broker.node) << 40) + 1;
        let in_flight = usize::try_from(limits.node_in_flight_bytes.as_u64()).unwrap_or(usize::MAX);
        Self {
            limits,
            broker,
            controller,
            partitions,
            sessions,
            boot,
            tasks: TaskTracker::new(),
            closing,
            in_flight: Arc::new(NodeInFlight::new(in_flight)),
            next_session: AtomicU64::new(1),
            // Gateways hand them on: no two nodes may give the same.
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

    /// The tasks of all connections; waited for at a stop.
    pub(crate) fn tasks(&self) -> &TaskTracker {
        &self.tasks
    }

    pub(crate) fn controller(&self) -> &Controller {
        &self.controller
    }

    /// How many partitions there are; they are numbered from 1.
    pub(super) fn partition_count(&self) -> u32 {
        u32::try_from(self.partitions.len()).unwrap_or(u32::MAX)
    }

    pub(super) fn next_session(&self) -> SessionId {
        SessionId(self.next_session.fetch_add(1, Ordering::Relaxed))
    }

    pub(crate) fn next_handle(&self) -> HandleId {
        HandleId(self.next_handle.fetch_add(1, Ordering::Relaxed))
    }

    /// The way to a partition, by its number.
    pub(super) fn partition(&self, number: u32) -> Option<&PartitionHandle> {
        partition_of(&self.partitions, number)
    }

    /// Hands a request to a partition, waiting while it is busy. A partition that is gone means
    /// that the node is stopping; what was asked for is then answered by the end of the session.
    pub(crate) async fn send(&self, partition: u32, request: Request) {
        if let Some(handle) = self.partition(partition) {
            handle.send(request).await;
        }
    }

    /// Closes a handle that the client never heard of.
    pub(crate) async fn close_quietly(
        &self,
        link: &SessionLink,
        partition: u32,
        handle: HandleId,
    ) {
        let close = Close { session: link.id, handles: vec![handle], response: Bytes::new() };
        self.send(partition, Request::Close(Box::new(close))).await;
    }
}
