//! Writing the state: net changes for checkpoints, and everything for a comparison or a copy.

use super::queue::Queue;
use super::{State, keys};
use crate::checkpoint::Checkpoint;
use crate::codec::{put_str, put_varint};
use crate::positions::PAGE;

type Record = (Vec<u8>, Vec<u8>);

impl State {
    /// The net change since the last call.
    pub(crate) fn take_checkpoint(&mut self) -> Checkpoint {
        let mut puts = vec![(keys::partition(), self.partition_record())];
        let mut deletes: Vec<Vec<u8>> = std::mem::take(&mut self.gone).into_iter().collect();
        // In the order of the keys, as all that follows: what is sorted already is sorted fast.
        self.domains.save(&mut puts);
        for id in std::mem::take(&mut self.touched) {
            if let Some(queue) = self.queues.get_mut(&id) {
                queue.save(&mut puts, &mut deletes);
            }
        }
        puts.sort_unstable();
        deletes.sort_unstable();
        deletes.dedup();
        // A page or block that ended and began again under the same key.
        deletes.retain(|key| puts.binary_search_by(|(put, _)| put.cmp(key)).is_err());
        let mut dead_entries = std::mem::take(&mut self.entries.dead);
        dead_entries.sort_unstable();
        Checkpoint { applied: self.applied, puts, deletes, dead_entries }
    }

    /// All records of the state, sorted by key. The same for any two replicas at the same index,
    /// however they got there.
    pub(crate) fn records(&self) -> Vec<Record> {
        let mut records = vec![(keys::partition(), self.partition_record())];
        self.domains.records(&mut records);
        for queue in self.queues.values() {
            queue.records(&mut records);
        }
        records.sort_unstable();
        records
    }

    fn partition_record(&self) -> Vec<u8> {
        let mut value = vec![1];
        put_varint(&mut value, self.applied);
        put_varint(&mut value, self.time_ms);
        put_varint(&mut value, self.clock);
        value
    }
}

impl Queue {
    /// Adds the queue's net change since the last call.
    pub(super) fn save(&mut self, puts: &mut Vec<Record>, deletes: &mut Vec<Vec<u8>>) {
        let id = self.id;
        if std::mem::take(&mut self.dirty) {
            puts.push((keys::queue(id), self.encode()));
            self.saved = true;
        }
        for at in 0..self.apps.len() {
            let key = self.apps[at].key;
            let (changed, removed) = self.apps[at].pending.take_changes();
            deletes.extend(removed.into_iter().map(|page| keys::page(id, key, page)));
            for page in changed {
                puts.push((keys::page(id, key, page), self.encode_page(at, page)));
            }
        }
        let (added, removed) = self.extents.take_changes();
        deletes.extend(removed.into_iter().map(|first| keys::extent(id, first)));
        for extent in added {
            let mut value = Vec::new();
            extent.encode(&mut value);
            puts.push((keys::extent(id, extent.first), value));
        }
        let changes = self.history.take_changes();
        deletes.extend(changes.blocks_removed.into_iter().map(|key| keys::block(id, key)));
        deletes.extend(changes.strays_removed.into_iter().map(|guid| keys::stray(id, guid)));
        for key in changes.blocks {
            let mut value = Vec::new();
            self.history.encode_block(key, &mut value);
            puts.push((keys::block(id, key), value));
        }
        for guid in changes.strays {
            let mut value = Vec::new();
            self.history.encode_stray(guid, &mut value);
            puts.push((keys::stray(id, guid), value));
        }
    }

    fn records(&self, puts: &mut Vec<Record>) {
        let id = self.id;
        puts.push((keys::queue(id), self.encode()));
        for (at, app) in self.apps.iter().enumerate() {
            for page in app.pending.page_numbers() {
                puts.push((keys::page(id, app.key, page), self.encode_page(at, page)));
            }
        }
        for extent in self.extents.iter().filter(|extent| extent.live > 0) {
            let mut value = Vec::new();
            extent.encode(&mut value);
            puts.push((keys::extent(id, extent.first), value));
        }
        for key in self.history.block_keys() {
            let mut value = Vec::new();
            self.history.encode_block(key, &mut value);
            puts.push((keys::block(id, key), value));
        }
        for guid in self.history.stray_guids() {
            let mut value = Vec::new();
            self.history.encode_stray(guid, &mut value);
            puts.push((keys::stray(id, guid), value));
        }
    }

    /// Version 2, URI, next position, next app key, count of apps, per app key and name; domain's
    /// id.
    fn encode(&self) -> Vec<u8> {
        let mut value = vec![2];
        put_str(&mut value, &self.uri);
        put_varint(&mut value, self.next_position);
        put_varint(&mut value, u64::from(self.next_app));
        put_varint(&mut value, self.apps.len() as u64);
        for app in &self.apps {
            put_varint(&mut value, u64::from(app.key.0));
            put_str(&mut value, &app.name);
        }
        put_varint(&mut value, u64::from(self.domain.0));
        value
    }

    /// Version 1, the page, count of failed deliveries, per message the offset in the page and how
    /// many.
    fn encode_page(&self, app: usize, page: u64) -> Vec<u8> {
        let mut value = vec![1];
        let Some(app) = self.apps.get(app) else { return value };
        app.pending.encode_page(page, &mut value);
        let start = page * PAGE;
        let attempts = || app.attempts.range(start..=start + (PAGE - 1));
        put_varint(&mut value, attempts().count() as u64);
        for (position, failed) in attempts() {
            put_varint(&mut value, position - start);
            value.push(*failed);
        }
        value
    }
}
