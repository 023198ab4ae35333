//! Each node removes queues that nothing has used for long, as the broker's loop does: the messages
//! first, then the place.

use std::time::Duration;

use flintmq_consensus::{GroupId, NodeId};
use flintmq_controller::MetadataCommand;
use flintmq_partition::{AdminRefusal, Removable, Request, Ticket};
use flintmq_queue::QueueId;

use crate::coverage::Situation;
use crate::event::{Errand, Event, Waits};
use crate::world::World;

impl World {
    /// Every node looks for queues that were idle for a while.
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
                let waits = Waits::Idle { unused_ms };
                self.tickets.insert(ticket, (id, incarnation, waits));
                self.request(id, incarnation, *group, Request::IdleQueues { ticket, timeout });
            }
        }
    }

    /// A partition has named its idle queues.
    pub(crate) fn remove_idle(&mut self, id: NodeId, unused_ms: u64, uris: Vec<String>) {
        let Some(incarnation) = self.process_of(id) else { return };
        for uri in uris {
            if self.lookup(id, &uri).is_some() {
                if self.admin_random.chance(500) {
                    self.remove_queue(id, &uri, unused_ms);
                } else {
                    // Much later: meanwhile clients may use it, and the leadership may move.
                    let later = self.admin_random.between(10_000, 2_500_000);
                    self.after(later, Event::RemoveIdle { uri, unused_ms });
                }
            } else {
                self.catch_up(id, incarnation, Errand::FindIdle { uri, unused_ms });
            }
        }
    }

    /// Has any node ask: the one that found the queue idle may lead its partition no more.
    pub(crate) fn remove_anywhere(&mut self, uri: &str, unused_ms: u64) {
        let running: Vec<NodeId> =
            self.ids().into_iter().filter(|id| self.process_of(*id).is_some()).collect();
        if let Some(id) = self.admin_random.pick(&running) {
            self.remove_queue(id, uri, unused_ms);
        }
    }

    /// Asks the queue's partition to delete it.
    pub(crate) fn remove_queue(&mut self, id: NodeId, uri: &str, unused_ms: u64) {
        let Some((place, _)) = self.lookup(id, uri) else { return };
        let Some(incarnation) = self.process_of(id) else { return };
        let (queue, group) = (place.id(), GroupId(place.partition));
        let ticket = Ticket(self.name());
        self.tickets
            .insert(ticket, (id, incarnation, Waits::Delete { uri: uri.to_owned(), queue }));
        let only_if = Removable::UnusedFor(Duration::from_millis(unused_ms));
        self.request(id, incarnation, group, Request::Delete { ticket, queue, only_if });
    }

    /// A queue was deleted, or was not. Once it is, its place is given up.
    pub(crate) fn removed(
        &mut self,
        id: NodeId,
        uri: String,
        queue: QueueId,
        result: &Result<(), AdminRefusal>,
    ) {
        self.say(|| format!("node {}: removal of {uri}: {result:?}", id.0));
        match result {
            Ok(()) | Err(AdminRefusal::NoSuchQueue) => {
                let Some(incarnation) = self.process_of(id) else { return };
                let commands = vec![MetadataCommand::UnassignQueue { uri, queue: queue.0 }];
                self.change(id, incarnation, commands, Errand::GiveUp);
            }
            Err(AdminRefusal::Used | AdminRefusal::InUse { .. }) => {
                self.coverage.saw(Situation::RemovalRefused);
            }
            Err(AdminRefusal::Failed(_)) => {}
        }
    }
}
