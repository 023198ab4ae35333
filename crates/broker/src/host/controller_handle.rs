//! What others ask of the controller, and what it publishes.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use flintmq_consensus::{NodeId, Time};
use flintmq_controller::{
    CatchUpError, ChangeError, ClusterMembership, Effect, Metadata, MetadataCommand,
    PlanningSettings, Request,
};
use flintmq_shard::{Assignment, Place, ReplicaStatus};
use tokio::sync::watch;

use super::clock::CoreClock;
use super::inbox::{ShardSender, Signal};
use super::tickets::Tickets;

/// How long a change waits for a leader.
const PATIENCE: Duration = Duration::from_secs(30);

/// An answer of the controller.
pub(crate) enum ControllerAnswer {
    Changed(Result<(), ChangeError>),
    CaughtUp(Result<(), CatchUpError>),
}

/// The way to the controller; cheap to clone.
#[derive(Clone)]
pub(crate) struct ControllerHandle {
    shard: ShardSender,
    tickets: Arc<Tickets<ControllerAnswer>>,
    metadata: Arc<ArcSwap<Metadata>>,
    membership: watch::Receiver<Arc<ClusterMembership>>,
    status: watch::Receiver<ReplicaStatus>,
    clock: CoreClock,
}

/// Where the controller's effects go.
pub(crate) struct ControllerEffects {
    tickets: Arc<Tickets<ControllerAnswer>>,
    metadata: Arc<ArcSwap<Metadata>>,
    membership: watch::Sender<Arc<ClusterMembership>>,
}

/// Both ends; at first with these metadata.
pub(crate) fn controller(
    shard: ShardSender,
    metadata: Metadata,
    status: watch::Receiver<ReplicaStatus>,
    clock: CoreClock,
) -> (ControllerHandle, ControllerEffects) {
    let tickets = Arc::<Tickets<ControllerAnswer>>::default();
    let (membership, followed) = watch::channel(Arc::clone(metadata.membership()));
    let metadata = Arc::new(ArcSwap::from_pointee(metadata));
    let effects = ControllerEffects {
        tickets: Arc::clone(&tickets),
        metadata: Arc::clone(&metadata),
        membership,
    };
    let handle = ControllerHandle { shard, tickets, metadata, membership: followed, status, clock };
    (handle, effects)
}

impl ControllerHandle {
    /// The metadata as applied here.
    pub(crate) fn metadata(&self) -> Guard<Arc<Metadata>> {
        self.metadata.load()
    }

    /// The nodes and what they hold, to wait for.
    pub(crate) fn membership(&self) -> watch::Receiver<Arc<ClusterMembership>> {
        self.membership.clone()
    }

    /// State of the group's replica, to wait for.
    pub(crate) fn status(&self) -> watch::Receiver<ReplicaStatus> {
        self.status.clone()
    }

    /// Makes a change and waits until it is committed and applied here. None: the node is stopping.
    pub(crate) async fn change(
        &self,
        commands: Vec<MetadataCommand>,
    ) -> Option<Result<(), ChangeError>> {
        let deadline = self.deadline();
        match self.ask(|ticket| Request::Change { ticket, commands, deadline }).await? {
            ControllerAnswer::Changed(result) => Some(result),
            ControllerAnswer::CaughtUp(_) => None,
        }
    }

    /// Waits until this node has applied all that was committed anywhere when this was called. None:
    /// the node is stopping.
    pub(crate) async fn catch_up(&self) -> Option<Result<(), CatchUpError>> {
        let deadline = self.deadline();
        match self.ask(|ticket| Request::CatchUp { ticket, deadline }).await? {
            ControllerAnswer::CaughtUp(result) => Some(result),
            ControllerAnswer::Changed(_) => None,
        }
    }

    /// Plans with this while the node leads the controller.
    pub(crate) fn plan(&self, settings: PlanningSettings) {
        self.shard.signal(Signal::Controller(Request::Plan(settings)));
    }

    fn deadline(&self) -> Time {
        self.clock.now() + PATIENCE
    }

    async fn ask(&self, request: impl FnOnce(u64) -> Request) -> Option<ControllerAnswer> {
        let (ticket, answer) = self.tickets.issue();
        if !self.shard.signal(Signal::Controller(request(ticket))) {
            return None;
        }
        answer.await.ok()
    }
}

impl ControllerEffects {
    /// Does what the controller asks for.
    pub(super) fn carry_out(&self, effect: Effect, shard: &ShardSender) {
        match effect {
            Effect::MetadataChanged(metadata) => self.metadata.store(Arc::new(metadata)),
            Effect::MembershipChanged(membership) => {
                shard.signal(Signal::Assignment(Arc::new(assignment(&membership))));
                self.membership.send_replace(membership);
            }
            Effect::Changed { ticket, result } => {
                self.tickets.answer(ticket, ControllerAnswer::Changed(result));
            }
            Effect::CaughtUp { ticket, result } => {
                self.tickets.answer(ticket, ControllerAnswer::CaughtUp(result));
            }
        }
    }

    /// There will be no more answers.
    pub(super) fn close(&self) {
        self.tickets.close();
    }
}

/// What a shard has to know of the cluster's membership.
fn assignment(membership: &ClusterMembership) -> Assignment {
    let ids = |ids: &[u32]| ids.iter().copied().map(NodeId).collect::<Vec<_>>();
    let groups = membership.assignments().map(|(group, replicas)| {
        let place = Place {
            voters: ids(&replicas.voters),
            learners: ids(&replicas.learners),
            leader: replicas.leader.map(NodeId),
        };
        (group, place)
    });
    let nodes = membership.nodes().map(|node| NodeId(node.id));
    Assignment {
        groups: groups.collect(),
        ineligible: nodes.filter(|node| membership.is_barred(*node)).collect(),
    }
}
