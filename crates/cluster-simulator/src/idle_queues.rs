//! Queues that nothing uses are removed.

use std::collections::BTreeSet;
use std::time::Duration;

use flintmq_consensus::{GroupId, NodeId};
use flintmq_partition::{AdminRefusal, Removable, Request, Ticket};
use flintmq_queue::QueueId;

use crate::coverage::Situation;
use crate::event::{Event, Waits};
use crate::world::World;

impl World {
    /// Asks every node for queues that were idle for a while.
    pub(crate) fn administer(&mut self) {
        if self.settling.healed_since.is_some() {
            return;
        }
        let unused_ms = self.admin_random.between(200, 2_500);
        let timeout = Duration::from_millis(unused_ms);
        let groups: Vec<GroupId> = self.groups.keys().copied().collect();
        for id in self.ids() {
            let Some(incarnation) = self.process_of(id) else { continue };
            for group in &groups {
                let ticket = Ticket(self.name());
                let waits = Waits::Idle { node: id, unused_ms };
                self.tickets.insert(ticket, (id, incarnation, waits));
                self.request(id, incarnation, *group, Request::IdleQueues { ticket, timeout });
            }
        }
    }

    /// Asks for the removal of queues, at any node: the leadership may have moved.
    pub(crate) fn remove_idle(&mut self, _told_by: NodeId, unused_ms: u64, uris: &[String]) {
        let idle: BTreeSet<&str> = uris.iter().map(String::as_str).collect();
        for place in 0..self.slots.len() {
            let Some(slot) = self.slots.get_mut(place) else { return };
            let uri = format!("bmq://simulated.domain/q{}", slot.number.0);
            if slot.removing || !idle.contains(uri.as_str()) {
                continue;
            }
            slot.removing = true;
            self.remove_queue(place, unused_ms);
        }
    }

    /// Asks any node to remove a queue, until the answer is a definite one.
    pub(crate) fn remove_queue(&mut self, place: usize, unused_ms: u64) {
        let running: Vec<NodeId> =
            self.nodes.values().filter(|node| node.process.is_some()).map(|node| node.id).collect();
        let Some((id, incarnation)) =
            self.admin_random.pick(&running).and_then(|id| Some((id, self.process_of(id)?)))
        else {
            return self.after(200_000, Event::Remove(place, unused_ms));
        };
        let Some(slot) = self.slots.get(place) else { return };
        let (queue, group) = (slot.number, slot.group);
        let ticket = Ticket(self.name());
        let waits = Waits::Delete { slot: place, unused_ms };
        self.tickets.insert(ticket, (id, incarnation, waits));
        let only_if = Removable::UnusedFor(Duration::from_millis(unused_ms));
        self.request(id, incarnation, group, Request::Delete { ticket, queue, only_if });
    }

    /// A queue was removed, or was not.
    pub(crate) fn removed(
        &mut self,
        place: usize,
        unused_ms: u64,
        result: &Result<(), AdminRefusal>,
    ) {
        self.say(|| format!("removal of the queue of slot {place}: {result:?}"));
        let gone = match result {
            Ok(()) | Err(AdminRefusal::NoSuchQueue) => true,
            Err(AdminRefusal::Used | AdminRefusal::InUse { .. }) => false,
            Err(AdminRefusal::Failed(_)) => {
                return self.after(300_000, Event::Remove(place, unused_ms));
            }
        };
        if !gone {
            self.coverage.saw(Situation::RemovalRefused);
        }
        let number = QueueId(self.queues_made + 1);
        let Some(slot) = self.slots.get_mut(place) else { return };
        slot.removing = false;
        if gone {
            self.queues_made += 1;
            slot.number = number;
        }
    }
}
