//! The machines that one node hosts: the controller's and the partitions', as one type, so that one
//! shard runs them all. The broker and the simulator host the same.
//!
//! Group 0 is the controller's, all others are partitions.

use bytes::Bytes;
use flintmq_consensus::{Index, NodeId, Term, Time};
use flintmq_controller::ControllerMachine;
use flintmq_partition::PartitionEngine;
use flintmq_shard::{Committed, Group, Machine, MachineFailure, QueueRecord, ReadError};

/// The machine of one group.
pub enum NodeMachine {
    /// The cluster's metadata.
    Controller(Box<ControllerMachine>),
    /// Some of the cluster's queues.
    Partition(Box<PartitionEngine>),
}

/// What a machine is asked for. A request of the wrong kind is a mistake of the host, and dropped.
#[derive(Debug)]
pub enum NodeRequest {
    /// Of the controller.
    Controller(flintmq_controller::Request),
    /// Of a partition.
    Partition(flintmq_partition::Request),
}

/// What is to be done for a machine.
#[derive(Debug)]
pub enum NodeEffect {
    /// For the controller.
    Controller(flintmq_controller::Effect),
    /// For a partition.
    Partition(flintmq_partition::Effect),
}

macro_rules! each {
    ($machine:expr, $found:ident => $call:expr) => {
        match $machine {
            NodeMachine::Controller($found) => $call,
            NodeMachine::Partition($found) => $call,
        }
    };
}

impl Machine for NodeMachine {
    type Request = NodeRequest;
    type Effect = NodeEffect;

    fn on_request(&mut self, group: &mut dyn Group, request: NodeRequest) {
        match (self, request) {
            (Self::Controller(machine), NodeRequest::Controller(request)) => {
                machine.on_request(group, request);
            }
            (Self::Partition(machine), NodeRequest::Partition(request)) => {
                machine.on_request(group, request);
            }
            _ => {}
        }
    }

    fn takes_requests(&self) -> bool {
        each!(self, machine => machine.takes_requests())
    }

    fn on_message(&mut self, group: &mut dyn Group, from: NodeId, message: Bytes) {
        each!(self, machine => machine.on_message(group, from, message));
    }

    fn on_peer(&mut self, group: &mut dyn Group, peer: NodeId, up: bool) {
        each!(self, machine => machine.on_peer(group, peer, up));
    }

    fn on_room(&mut self, group: &mut dyn Group, peer: NodeId) {
        each!(self, machine => machine.on_room(group, peer));
    }

    fn on_entry_read(
        &mut self,
        group: &mut dyn Group,
        index: Index,
        read: Result<Bytes, ReadError>,
    ) {
        each!(self, machine => machine.on_entry_read(group, index, read));
    }

    fn on_read_index(&mut self, group: &mut dyn Group, read: u64, index: Option<Index>) {
        each!(self, machine => machine.on_read_index(group, read, index));
    }

    fn on_tick(&mut self, group: &mut dyn Group) {
        each!(self, machine => machine.on_tick(group));
    }

    fn lose_leadership(&mut self, group: &mut dyn Group) {
        each!(self, machine => machine.lose_leadership(group));
    }

    fn take_leadership(&mut self, group: &mut dyn Group) {
        each!(self, machine => machine.take_leadership(group));
    }

    fn restore(
        &mut self,
        group: &mut dyn Group,
        records: Vec<QueueRecord>,
    ) -> Result<(), MachineFailure> {
        each!(self, machine => machine.restore(group, records))
    }

    fn reclaim(&mut self, group: &mut dyn Group, stored: &[Index]) {
        each!(self, machine => machine.reclaim(group, stored));
    }

    fn apply(&mut self, group: &mut dyn Group, entry: &Committed) -> Result<(), MachineFailure> {
        each!(self, machine => machine.apply(group, entry))
    }

    fn work(&mut self, group: &mut dyn Group) -> bool {
        each!(self, machine => machine.work(group))
    }

    fn next_deadline(&self) -> Option<Time> {
        each!(self, machine => machine.next_deadline())
    }

    fn checkpoint(&mut self, group: &mut dyn Group) -> bool {
        each!(self, machine => machine.checkpoint(group))
    }

    fn is_settled(&self, group: &dyn Group) -> bool {
        each!(self, machine => machine.is_settled(group))
    }

    fn leader_elsewhere(&self) -> Option<(NodeId, Term)> {
        each!(self, machine => machine.leader_elsewhere())
    }

    fn take_effects(&mut self, effects: &mut Vec<NodeEffect>) {
        match self {
            Self::Controller(machine) => {
                let mut made = Vec::new();
                machine.take_effects(&mut made);
                effects.extend(made.into_iter().map(NodeEffect::Controller));
            }
            Self::Partition(machine) => effects.extend(machine.effects().map(NodeEffect::Partition)),
        }
    }
}
