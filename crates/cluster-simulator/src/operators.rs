//! What operators do to groups.

use std::sync::Arc;

use flintmq_consensus::{GroupId, NodeId};
use flintmq_partition::{Request, Ticket};
use flintmq_queue::QueueId;
use flintmq_shard::{AdminCommand, Assignment, Place, ShardInput};

use crate::event::{Event, Waits};
use crate::plan::Fault;
use crate::world::World;

impl World {
    pub(crate) fn transfer(&mut self, group: GroupId, fault: &Fault) {
        let Some(leader) = self.leader_of(group) else { return };
        let (Some(incarnation), Some(to)) =
            (self.process_of(leader), self.other_than(leader, fault.choice))
        else {
            return;
        };
        let ticket = self.name();
        let command = AdminCommand::Transfer { to, force: fault.choice.is_multiple_of(4) };
        self.tell_now(leader, incarnation, ShardInput::Admin { group, ticket, command });
    }

    pub(crate) fn purge(&mut self, id: NodeId, group: GroupId, choice: u64) {
        let slots: Vec<QueueId> =
            self.slots.iter().filter(|slot| slot.group == group).map(|slot| slot.number).collect();
        let Some(queue) = slots.get((choice % slots.len().max(1) as u64) as usize).copied() else {
            return;
        };
        let Some(incarnation) = self.process_of(id) else { return };
        let ticket = Ticket(self.name());
        self.tickets.insert(ticket, (id, incarnation, Waits::Purge));
        self.request(id, incarnation, group, Request::Purge { ticket, queue });
    }

    pub(crate) fn move_members(&mut self, group: GroupId, choice: u64) {
        let ids = self.ids();
        let replicas = (self.profile.replicas as usize).min(ids.len());
        let first = (choice % ids.len() as u64) as usize;
        let voters: Vec<NodeId> = (0..replicas)
            .filter_map(|place| ids.get((first + place) % ids.len()))
            .copied()
            .collect();
        self.settling.assignment.groups.insert(group, Place { voters, ..Place::default() });
        self.tell_assignment();
    }

    pub(crate) fn tell_assignment(&mut self) {
        let assignment: Arc<Assignment> = Arc::new(self.settling.assignment.clone());
        for id in self.ids() {
            if let Some(incarnation) = self.process_of(id) {
                let delay = self.host_random.skewed(1_000, 300_000);
                let input = ShardInput::Assignment(Arc::clone(&assignment));
                self.after(delay, Event::Tell(id, incarnation, Box::new(input)));
            }
        }
    }
}
