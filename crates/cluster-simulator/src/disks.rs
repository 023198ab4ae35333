//! Lets disks work.

use bytes::Bytes;
use flintmq_consensus::{GroupId, Index, NodeId};
use flintmq_log_store::{LogStore as _, ReadError};
use flintmq_shard::FromStore;

use crate::event::Event;
use crate::world::World;

impl World {
    pub(crate) fn tell_store_events(
        &mut self,
        id: NodeId,
        incarnation: u64,
        events: Vec<FromStore>,
    ) {
        for event in events {
            let delay = self.disk_random.skewed(1, 300);
            let now = self.now;
            let Some(process) = self.nodes.get_mut(&id).and_then(|node| node.process.as_mut())
            else {
                return;
            };
            let at = (now + delay).max(process.last_store_word + 1);
            process.last_store_word = at;
            self.at(at, Event::Tell(id, incarnation, Box::new(event.into())));
        }
    }

    /// Lets the disk work if there may be something to do.
    pub(crate) fn start_disk(&mut self, id: NodeId) {
        let now = self.now;
        let quick = self.profile.quick_disks;
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let slow = node.slow_disk_until > now;
        let stalled = node.disk_stalled_until;
        let unsynced = node.store.inner.unsynced_changes() > 0;
        let Some(process) = &mut node.process else { return };
        let incarnation = process.incarnation;
        let disk = process.disk_at.is_none();
        let sync = process.sync_at.is_none() && unsynced;
        if disk {
            let delay = match (slow, quick) {
                (true, _) => self.disk_random.skewed(5_000, 100_000),
                (false, true) => self.disk_random.skewed(10, 300),
                (false, false) => self.disk_random.skewed(50, 5_000),
            };
            let at = (now + delay).max(stalled);
            process.disk_at = Some(at);
            self.at(at, Event::Disk(id, incarnation));
        }
        if sync {
            let delay = self.disk_random.skewed(5_000, 120_000);
            let at = (now + delay).max(stalled);
            if let Some(process) = self.nodes.get_mut(&id).and_then(|node| node.process.as_mut()) {
                process.sync_at = Some(at);
            }
            self.at(at, Event::Sync(id, incarnation));
        }
    }

    pub(crate) fn work_disk(&mut self, id: NodeId, incarnation: u64) {
        let now = self.now;
        let quick = self.profile.quick_disks;
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let stalled = node.disk_stalled_until;
        let Some(process) = node.process.as_mut().filter(|p| p.incarnation == incarnation) else {
            return;
        };
        process.disk_at = None;
        if stalled > now {
            process.disk_at = Some(stalled);
            return self.at(stalled, Event::Disk(id, incarnation));
        }
        let most = if quick { self.disk_random.between(1, 8) } else { 1 };
        let mut done = 0;
        while done < most && node.store.inner.step() {
            done += 1;
        }
        let events = process.take_store_events();
        self.tell_store_events(id, incarnation, events);
        if done > 0 {
            self.start_disk(id);
        }
    }

    pub(crate) fn sync_disk(&mut self, id: NodeId, incarnation: u64) {
        let now = self.now;
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let stalled = node.disk_stalled_until;
        let Some(process) = node.process.as_mut().filter(|p| p.incarnation == incarnation) else {
            return;
        };
        process.sync_at = None;
        if stalled > now {
            process.sync_at = Some(stalled);
            return self.at(stalled, Event::Sync(id, incarnation));
        }
        node.store.inner.sync();
        let events = process.take_store_events();
        self.tell_store_events(id, incarnation, events);
    }

    /// An entry for a shard, as the store has it.
    pub(crate) fn read_entry(
        &self,
        id: NodeId,
        group: GroupId,
        index: Index,
    ) -> Result<Bytes, ReadError> {
        let missing = || ReadError::Missing { group, index };
        let node = self.nodes.get(&id).ok_or_else(missing)?;
        if node.store.fails_reads() {
            return Err(ReadError::Busy { group });
        }
        let found = node.store.entry(group, index)?;
        found.map(|entry| entry.payload).ok_or_else(missing)
    }
}
