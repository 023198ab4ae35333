//! What operators ask of the cluster, through whichever node they reach, and what becomes of it.
//! It passes the same checks as in the broker's administration.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use flintmq_consensus::{GroupId, NodeId};
use flintmq_controller::domain::DomainDefinition;
use flintmq_controller::{
    CatchUpError, ChangeError, ClusterMembership, MembershipCommand, Metadata, MetadataCommand,
    NodeState, PutCondition, ReplicaAssignment, Request as ControllerRequest,
};
use flintmq_node::NodeRequest;
use flintmq_partition::{Request, Ticket};
use flintmq_queue::QueueId;
use flintmq_shard::{AdminCommand, ShardInput};

use crate::coverage::Situation;
use crate::domains::Enforcing;
use crate::event::{Errand, Event, Waits};
use crate::leaving::Sweep;
use crate::node::Stopping;
use crate::oracle::Violation;
use crate::plan::Fault;
use crate::recovering::Standings;
use crate::starting::address;
use crate::world::World;

/// How long a change waits for a leader.
const PATIENCE: Duration = Duration::from_secs(30);

/// After this time an operator tries again what has to be done, in microseconds.
const AGAIN: u64 = 300_000;

/// Nodes that a cluster keeps where nothing else is said.
const FEW: u32 = 3;

/// What operators are busy with.
#[derive(Debug, Default)]
pub(crate) struct Operators {
    pub(crate) enforcing: BTreeMap<u64, Enforcing>,
    pub(crate) sweep: Option<Sweep>,
    /// Nodes whose disks are lost together with a majority.
    pub(crate) lost: BTreeSet<NodeId>,
    pub(crate) standings: BTreeMap<GroupId, Standings>,
    /// How often groups with lost members were looked at, and had a majority.
    pub(crate) leaderless: BTreeMap<GroupId, u32>,
}

/// Something that an operator wants.
#[derive(Clone, Debug)]
pub(crate) struct Operation {
    pub(crate) wish: Wish,
    /// It is tried until it is done.
    pub(crate) insists: bool,
}

/// What an operator wants.
#[derive(Clone, Debug)]
pub(crate) enum Wish {
    PutDomain { definition: DomainDefinition, when: PutCondition },
    Drain { id: u32, draining: bool },
    Add { id: u32, replaces: Option<u32> },
    Remove { id: u32, force: bool },
    Move { group: u32, first: usize },
}

impl World {
    /// An operator asks some node for something. The node catches up first.
    pub(crate) fn operate(&mut self, operation: Operation) {
        let running = self.serving_nodes();
        let Some((id, incarnation)) = self.operator_random.pick(&running) else {
            return self.try_again(operation);
        };
        self.say(|| format!("an operator asks node {} for {:?}", id.0, operation.wish));
        self.catch_up(id, incarnation, Errand::Prepare(Box::new(operation)));
    }

    /// The processes that clients and operators may turn to.
    pub(crate) fn serving_nodes(&self) -> Vec<(NodeId, u64)> {
        let running = self.nodes.values().filter(|node| node.paused_until <= self.now);
        let processes = running.filter_map(|node| Some((node.id, node.process.as_ref()?)));
        let up = processes.filter(|(_, process)| process.stopping == Stopping::No);
        up.map(|(id, process)| (id, process.incarnation)).collect()
    }

    pub(crate) fn try_again(&mut self, operation: Operation) {
        if operation.insists {
            self.after(AGAIN, Event::Operate(Box::new(operation)));
        }
    }

    /// Asks the controller for a change, as a part of this node.
    pub(crate) fn change(
        &mut self,
        id: NodeId,
        incarnation: u64,
        commands: Vec<MetadataCommand>,
        errand: Errand,
    ) {
        self.ask_controller(id, incarnation, errand, |ticket, deadline| {
            ControllerRequest::Change { ticket, commands, deadline }
        });
    }

    /// Lets a node's metadata catch up.
    pub(crate) fn catch_up(&mut self, id: NodeId, incarnation: u64, errand: Errand) {
        self.ask_controller(id, incarnation, errand, |ticket, deadline| {
            ControllerRequest::CatchUp { ticket, deadline }
        });
    }

    fn ask_controller(
        &mut self,
        id: NodeId,
        incarnation: u64,
        errand: Errand,
        request: impl FnOnce(u64, flintmq_consensus::Time) -> ControllerRequest,
    ) {
        if self.process_of(id) != Some(incarnation) {
            return;
        }
        let Some(clock) = self.nodes.get(&id).map(|node| node.clock) else { return };
        let (ticket, deadline) = (self.name(), clock.time(self.now) + PATIENCE);
        self.tickets.insert(Ticket(ticket), (id, incarnation, Waits::Controller(errand)));
        let request = NodeRequest::Controller(request(ticket, deadline));
        self.tell_now(id, incarnation, ShardInput::Request { group: GroupId::CONTROLLER, request });
    }

    /// An answer of the controller to a request to catch up.
    pub(crate) fn caught_up(
        &mut self,
        id: NodeId,
        errand: Errand,
        result: Result<(), CatchUpError>,
    ) {
        let Some(incarnation) = self.process_of(id) else { return };
        match errand {
            Errand::Prepare(operation) if result.is_err() => self.try_again(*operation),
            Errand::Prepare(operation) => {
                let commands = self.nodes.get(&id).and_then(|node| {
                    let metadata = &node.process.as_ref()?.metadata;
                    self.commands(&operation.wish, metadata)
                });
                match commands {
                    Some(commands) => {
                        self.change(id, incarnation, commands, Errand::Operate(operation));
                    }
                    None => self.coverage.saw(Situation::OperatorRefused),
                }
            }
            Errand::Place { opening } => self.place_by_fresh_metadata(opening, result.is_ok()),
            Errand::FindIdle { uri, unused_ms } if result.is_ok() => {
                self.remove_queue(id, &uri, unused_ms);
            }
            _ => {}
        }
    }

    /// An answer of the controller to a change.
    pub(crate) fn changed(
        &mut self,
        id: NodeId,
        errand: Errand,
        result: Result<(), ChangeError>,
    ) -> Result<(), Violation> {
        match errand {
            Errand::Place { opening } => return self.placed(opening, result),
            Errand::GiveUp if result.is_ok() => self.coverage.saw(Situation::PlaceGivenUp),
            Errand::Operate(operation) => match result {
                Ok(()) => self.operated(id, &operation.wish),
                Err(ChangeError::Refused(_)) => self.coverage.saw(Situation::OperatorRefused),
                Err(_) => self.try_again(*operation),
            },
            Errand::Forget if result.is_ok() => self.coverage.saw(Situation::NodeForgotten),
            _ => {}
        }
        Ok(())
    }

    /// What a wish means for the metadata; none when it is not allowed.
    fn commands(&self, wish: &Wish, metadata: &Metadata) -> Option<Vec<MetadataCommand>> {
        let membership = metadata.membership();
        let change = match wish {
            Wish::PutDomain { definition, when } => {
                let (definition, when) = (Box::new(definition.clone()), *when);
                return Some(vec![MetadataCommand::PutDomain { definition, when }]);
            }
            _ if !membership.is_known() => return None,
            Wish::Drain { id, draining } => {
                let mut others = membership.nodes().filter(|node| node.id != *id);
                let leads =
                    others.any(|node| node.directory.is_some() && node.state == NodeState::Active);
                let possible = !draining || leads;
                possible.then_some(MembershipCommand::Drain { id: *id, draining: *draining })?
            }
            Wish::Add { id, replaces } => {
                let (peers, replaces) = (address(NodeId(*id)), *replaces);
                MembershipCommand::Add { id: *id, peers, replaces }
            }
            Wish::Remove { id, force } => {
                let allowed = *force || self.can_do_without(membership, *id);
                allowed.then_some(MembershipCommand::Remove { id: *id })?
            }
            Wish::Move { group, first } => moved(membership, *group, *first)?,
        };
        Some(vec![MetadataCommand::Membership { change }])
    }

    /// Whether enough nodes are left without this one, and enough of those run.
    fn can_do_without(&self, membership: &ClusterMembership, id: u32) -> bool {
        let stays = membership.nodes().filter(|node| node.id != id && membership.is_home(node));
        let stays: Vec<u32> = stays.map(|node| node.id).collect();
        let runs = stays.iter().filter(|id| self.process_of(NodeId(**id)).is_some()).count();
        let wanted = membership.replicas().unwrap_or(FEW) as usize;
        stays.len() >= wanted && 2 * runs > stays.len()
    }

    /// A wish has come true.
    fn operated(&mut self, id: NodeId, wish: &Wish) {
        match wish {
            Wish::PutDomain { definition, .. } => {
                if let Some(incarnation) = self.process_of(id) {
                    self.bring_into_force(id, incarnation, &definition.name);
                }
            }
            Wish::Drain { draining: true, .. } => self.coverage.saw(Situation::NodeDrained),
            Wish::Drain { draining: false, .. } => self.coverage.saw(Situation::DrainUndone),
            Wish::Add { id: new, replaces } => {
                self.coverage.saw(match replaces {
                    Some(_) => Situation::NodeReplaced,
                    None => Situation::NodeAdded,
                });
                self.expect_node(NodeId(*new));
            }
            Wish::Remove { .. } => self.coverage.saw(Situation::NodeRemoved),
            Wish::Move { .. } => self.coverage.saw(Situation::MembersMoved),
        }
    }

    /// An operator has a leadership handed over.
    pub(crate) fn transfer(&mut self, group: GroupId, fault: &Fault) {
        let Some(leader) = self.leader_of(group) else { return };
        let to = self.other_than(leader, fault.choice);
        let force = fault.choice.is_multiple_of(4);
        if let Some(to) = to {
            self.command(leader, group, AdminCommand::Transfer { to, force }, Waits::Transfer);
        }
    }

    /// Gives a group's replica an administrator's command.
    pub(crate) fn command(
        &mut self,
        id: NodeId,
        group: GroupId,
        command: AdminCommand,
        waits: Waits,
    ) {
        let Some(incarnation) = self.process_of(id) else { return };
        let ticket = self.name();
        self.tickets.insert(Ticket(ticket), (id, incarnation, waits));
        self.tell_now(id, incarnation, ShardInput::Admin { group, ticket, command });
    }

    /// An operator has a queue purged.
    pub(crate) fn purge(&mut self, id: NodeId, group: GroupId, choice: u64) {
        let oracle = self.groups.get(&group);
        let queues: Vec<QueueId> =
            oracle.into_iter().flat_map(|oracle| oracle.reference.queue_ids()).collect();
        let Some(queue) = queues.get((choice % queues.len().max(1) as u64) as usize).copied()
        else {
            return;
        };
        let Some(incarnation) = self.process_of(id) else { return };
        let ticket = Ticket(self.name());
        self.tickets.insert(ticket, (id, incarnation, Waits::Purge));
        self.request(id, incarnation, group, Request::Purge { ticket, queue });
    }
}

/// The same number of voters for a group, from other nodes.
fn moved(membership: &ClusterMembership, group: u32, first: usize) -> Option<MembershipCommand> {
    let homes = membership.nodes().filter(|node| membership.is_home(node));
    let homes: Vec<u32> = homes.map(|node| node.id).collect();
    let present = membership.place(GroupId(group))?;
    let mut voters: Vec<u32> = (0..present.voters.len())
        .filter_map(|place| homes.get((first + place) % homes.len().max(1)).copied())
        .collect();
    voters.sort_unstable();
    voters.dedup();
    let place = ReplicaAssignment { voters, ..ReplicaAssignment::default() };
    let (version, places) = (membership.version(), BTreeMap::from([(group, place)]));
    Some(MembershipCommand::Place { version, places })
}
