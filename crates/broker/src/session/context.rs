//! What all sessions of a node share: limits, the way to the controller and the partitions, and
//! numbers to give out.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytesize::ByteSize;
use flintmq_partition::Request;
use flintmq_queue::HandleId;
use flintmq_session::{BrokerIdentity, SessionSettings};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::counted::SessionMetrics;
use super::directory::SessionDirectory;
use crate::config::LimitsSection;
use crate::controller::Controller;
use crate::host::{CoreClock, PartitionHandle, SessionTable, partition_of};
use crate::link::{NodeInFlight, SessionId};

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
    settings: Arc<SessionSettings>,
    clock: CoreClock,
    /// By their numbers, for the shard.
    sessions: Arc<SessionTable>,
    served: OnceLock<Served>,
    /// Raised when the node serves.
    serving: CancellationToken,
    /// Unique for this process of this node; part of the GUIDs that the broker makes.
    boot: u32,
    tasks: TaskTracker,
    /// Ends all sessions, as the last step of a stop.
    closing: CancellationToken,
    in_flight: Arc<NodeInFlight>,
    next_session: AtomicU64,
    next_handle: AtomicU64,
    metrics: SessionMetrics,
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
        let bytes = |size: ByteSize| usize::try_from(size.as_u64()).unwrap_or(usize::MAX);
        let in_flight = bytes(limits.node_in_flight_bytes);
        let settings = Arc::new(SessionSettings {
            broker,
            max_event_bytes: bytes(limits.max_event_bytes),
            negotiation_timeout: limits.negotiation_timeout,
            heartbeat_interval: limits.heartbeat_interval,
            idle_timeout: limits.idle_timeout,
        });
        Self {
            limits,
            settings,
            clock: CoreClock::start(),
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

    /// What the sessions themselves have to know of the limits, and of this node.
    pub(super) fn settings(&self) -> &Arc<SessionSettings> {
        &self.settings
    }

    /// The sessions' clock.
    pub(super) fn clock(&self) -> CoreClock {
        self.clock
    }

    /// Names this process of the node.
    pub(super) fn boot(&self) -> u32 {
        self.boot
    }

    /// Cancelled when all sessions end.
    pub(super) fn closing(&self) -> &CancellationToken {
        &self.closing
    }

    /// What is counted of sessions.
    pub(super) fn metrics(&self) -> &SessionMetrics {
        &self.metrics
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

    /// The number of another session.
    pub(super) fn next_session(&self) -> SessionId {
        SessionId(self.next_session.fetch_add(1, Ordering::Relaxed))
    }

    /// The number of another handle: no other handle of the cluster has it.
    pub(super) fn next_handle(&self) -> HandleId {
        HandleId(self.next_handle.fetch_add(1, Ordering::Relaxed))
    }

    /// The way to a partition, by its number. None before the node serves.
    pub(super) fn partition(&self, number: u32) -> Option<&PartitionHandle> {
        partition_of(&self.served.get()?.partitions, number)
    }

    /// Hands a request to a partition, waiting while it is busy. A partition that is gone means
    /// that the node is stopping; what was asked for is then answered by the end of the session.
    pub(super) async fn send(&self, partition: u32, request: Request) {
        if let Some(handle) = self.partition(partition) {
            handle.send(request).await;
        }
    }

    /// Closes everything that a session has open, and waits until what it published before is
    /// answered. After that no partition has anything for it.
    pub(super) async fn end_in_partitions(&self, session: SessionId, lost: bool) {
        let mut endings = Vec::new();
        let partitions = self.served.get().map_or(&[][..], |served| &served.partitions[..]);
        for partition in partitions {
            endings.push(partition.end_session(session, lost).await);
        }
        for ended in endings {
            // An error means that the partition is gone, and with it the handles.
            let _ = ended.await;
        }
        self.sessions.remove(session);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_open_does_not_wait_for_ever() {
        let broker = BrokerIdentity { node: 1, ..BrokerIdentity::default() };
        let closing = CancellationToken::new();
        let context = SessionContext::new(LimitsSection::default(), broker, 1, closing);
        let began = tokio::time::Instant::now();
        assert!(context.controller().await.is_none() && context.partition(1).is_none());
        assert_eq!(began.elapsed(), OPEN_PATIENCE);
    }
}
