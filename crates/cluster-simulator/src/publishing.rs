//! Clients publish and confirm.

use std::collections::BTreeSet;

use flintmq_consensus::GroupId;
use flintmq_partition::{Confirm, Publish, Put, Request};
use flintmq_queue::{Attributes, QueueId};

use crate::client::Outstanding;
use crate::coverage::Situation;
use crate::oracle::{HEAD, Key, app_data, guid_of};
use crate::world::World;

/// PUTs of a client that may be on their way at once.
pub(crate) const MOST_OUTSTANDING: usize = 200;

/// Messages in a queue from which on none is added.
const MOST_WAITING: u64 = 1_000;

impl World {
    /// Whether a queue holds so much that clients stop publishing to it.
    fn is_crowded(&self, group: GroupId, queue: QueueId) -> bool {
        let oracle = self.groups.get(&group);
        let view = oracle.and_then(|oracle| oracle.reference.view(queue));
        view.is_some_and(|view| view.messages > MOST_WAITING)
    }

    pub(crate) fn publish(&mut self, number: usize, place: usize) {
        let largest = self.profile.largest;
        let Some(client) = self.clients.get(number) else { return };
        let Some(one) = client.uses.get(place) else { return };
        let slot = one.slot;
        if self.is_crowded(one.group, one.queue) {
            return;
        }
        let Some(client) = self.clients.get_mut(number) else { return };
        let mut keys = Vec::new();
        let count = client.random.between(1, if largest > 100_000 { 2 } else { 6 });
        for _ in 0..count {
            client.sent += 1;
            let key = u64::from(client.number) << 32 | u64::from(client.sent);
            let size = client.random.skewed(HEAD as u64, largest) as usize;
            client.unacknowledged.insert(key, Outstanding { slot, size });
            self.published_to.insert(key, slot);
            keys.push(key);
        }
        self.send_puts(number, place, &keys);
    }

    pub(crate) fn send_puts(&mut self, number: usize, place: usize, keys: &[Key]) {
        let Some(client) = self.clients.get_mut(number) else { return };
        let Some(connection) = client.connection else { return };
        let Some(one) = client.uses.get_mut(place) else { return };
        let (handle, queue) = (one.handle, one.queue);
        let mut puts = Vec::new();
        for key in keys {
            let Some(outstanding) = client.unacknowledged.get(key) else { continue };
            one.unanswered.insert(*key);
            puts.push(Put {
                handle,
                queue,
                guid: guid_of(*key),
                correlation_id: 0,
                ack_requested: true,
                attributes: Attributes::default(),
                app_data: app_data(*key, queue, outstanding.size),
            });
        }
        let session = connection.session;
        let group = one.group;
        self.hand_to_node(session, group, Request::Publish(Publish { session, puts }));
    }

    /// Sends what was not answered, or refused and is tried again, under the same GUIDs.
    pub(crate) fn send_again(&mut self, number: usize, place: usize) {
        let Some(client) = self.clients.get_mut(number) else { return };
        let Some(slot) = client.uses.get(place).map(|one| one.slot) else { return };
        let again = client.unacknowledged.iter().filter(|(_, put)| put.slot == slot);
        let keys: Vec<Key> = again.map(|(key, _)| *key).collect();
        let elsewhere: BTreeSet<Key> =
            client.uses.iter().flat_map(|one| one.unanswered.iter().copied()).collect();
        let keys: Vec<Key> = keys.into_iter().filter(|key| !elsewhere.contains(key)).collect();
        if !keys.is_empty() {
            self.coverage.saw_times(Situation::Retransmitted, keys.len() as u64);
            for part in keys.chunks(50) {
                self.send_puts(number, place, part);
            }
        }
    }

    pub(crate) fn confirm(&mut self, number: usize, place: usize, count: usize) {
        let Some(client) = self.clients.get_mut(number) else { return };
        let Some(connection) = client.connection else { return };
        let Some(one) = client.uses.get_mut(place) else { return };
        let handle = one.handle;
        let keys = one.held.drain(..count);
        let confirms = keys.map(|key| Confirm { handle, guid: guid_of(key) }).collect();
        let group = one.group;
        self.hand_to_node(connection.session, group, Request::Confirm(confirms));
    }

    /// Confirms all that it holds.
    pub(crate) fn confirm_all(&mut self, number: usize) {
        let places = self.clients.get(number).map_or(0, |client| client.uses.len());
        for place in 0..places {
            let one = self.clients.get(number).and_then(|client| client.uses.get(place));
            let held = one.map_or(0, |one| one.held.len());
            if held > 0 {
                self.confirm(number, place, held);
            }
        }
    }
}
