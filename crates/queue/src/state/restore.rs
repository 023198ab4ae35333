//! Reading the state back. Takes time by extent and by 64 messages, not by message, unless the
//! messages of an extent differ in size.

use super::domains::DomainTable;
use super::queue::{App, Queue};
use super::{State, keys::Key};
use crate::codec::{Malformed, Reader, malformed};
use crate::extents::Extent;
use crate::ids::{AppKey, DomainId, QueueId};
use crate::positions::PAGE;
use crate::settings::Domain;

impl State {
    /// Rebuilds the state from all records of the store, given in ascending order of their keys.
    pub(crate) fn restore<K: AsRef<[u8]>, V: AsRef<[u8]>>(
        records: impl IntoIterator<Item = (K, V)>,
    ) -> Result<Self, Malformed> {
        let mut state = Self::default();
        for (key, value) in records {
            state.read(Key::decode(key.as_ref())?, value.as_ref())?;
        }
        for queue in state.queues.values_mut() {
            queue.history.restored();
            queue.count()?;
            if let Some(domain) = state.domains.get_mut(queue.domain) {
                domain.meter.messages += queue.meter.messages;
                domain.meter.bytes += queue.meter.bytes;
            }
            queue.extents.iter().for_each(|extent| state.entries.hold(extent.index));
        }
        state.domains.check()?;
        Ok(state)
    }

    fn read(&mut self, key: Key, value: &[u8]) -> Result<(), Malformed> {
        match key {
            Key::Partition => {
                const WHAT: &str = "partition record";
                let mut reader = Reader::new(value);
                if reader.u8(WHAT)? != 1 {
                    return malformed(WHAT);
                }
                self.applied = reader.varint(WHAT)?;
                self.time_ms = reader.varint(WHAT)?;
                self.clock = reader.varint(WHAT)?;
                reader.finish(WHAT)
            }
            Key::Domain(id) => self.domains.restore(id, value),
            Key::Queue(id) => {
                let queue = Queue::decode(id, value, &mut self.domains)?;
                if queue.dirty {
                    self.touched.insert(id);
                }
                self.queues.insert(id, queue);
                Ok(())
            }
            Key::Page(id, app, page) => self.queue(id)?.decode_page(app, page, value),
            Key::Extent(id, first) => {
                self.queue(id)?.extents.restore(Extent::decode(first, value)?)
            }
            Key::Block(id, key) => self.queue(id)?.history.restore_block(key, value),
            Key::Stray(id, guid) => self.queue(id)?.history.restore_stray(guid, value),
        }
    }

    fn queue(&mut self, id: QueueId) -> Result<&mut Queue, Malformed> {
        self.queues.get_mut(&id).ok_or(Malformed { what: "record of a queue without queue record" })
    }
}

impl Queue {
    /// Reads a record. One of version 1 has the domain with its settings in it; of several queues
    /// of a domain the first one's count.
    fn decode(id: QueueId, value: &[u8], domains: &mut DomainTable) -> Result<Self, Malformed> {
        const WHAT: &str = "queue record";
        let mut reader = Reader::new(value);
        let version = reader.u8(WHAT)?;
        if version == 0 || version > 2 {
            return malformed(WHAT);
        }
        let uri = reader.str(WHAT)?;
        let next_position = reader.varint(WHAT)?;
        let next_app = reader.varint_u32(WHAT)?;
        // Half of all numbers is more than will ever be used, and leaves room to count on.
        if next_position > u64::MAX / 2 || next_app > u32::MAX / 2 {
            return malformed(WHAT);
        }
        let mut apps: Vec<App> = Vec::new();
        for _ in 0..reader.count(2, WHAT)? {
            let key = AppKey(reader.varint_u32(WHAT)?);
            if key.0 >= next_app || apps.last().is_some_and(|last| last.key >= key) {
                return malformed(WHAT);
            }
            apps.push(App::new(key, reader.str(WHAT)?));
        }
        let domain = if version == 1 {
            let domain = Domain::decode_unversioned(&mut reader)?;
            let id = domain.id;
            if domains.get(id).is_none() {
                domains.enter(domain);
            }
            id
        } else {
            DomainId(reader.varint_u32(WHAT)?)
        };
        reader.finish(WHAT)?;
        let Some(settings) = domains.add_queue(domain) else {
            return malformed("queue record: its domain has no record");
        };
        let mut queue = Self::new(id, uri, domain, settings);
        queue.next_position = next_position;
        queue.next_app = next_app;
        queue.apps = apps;
        queue.dirty = version == 1;
        queue.saved = true;
        Ok(queue)
    }

    fn decode_page(&mut self, key: AppKey, page: u64, value: &[u8]) -> Result<(), Malformed> {
        const WHAT: &str = "position page";
        let mut reader = Reader::new(value);
        let app = self.app_at(key).and_then(|at| self.apps.get_mut(at));
        let Some(app) = app else { return malformed("position page of an unknown app") };
        if reader.u8(WHAT)? != 1 {
            return malformed(WHAT);
        }
        app.pending.decode_page(page, &mut reader)?;
        for _ in 0..reader.count(2, WHAT)? {
            let position = page * PAGE + reader.varint(WHAT)?.min(PAGE - 1);
            let failed = reader.u8(WHAT)?;
            if !app.pending.contains(position) {
                return malformed(WHAT);
            }
            app.attempts.insert(position, failed);
        }
        reader.finish(WHAT)
    }

    /// Counts live messages and bytes from the position sets.
    fn count(&mut self) -> Result<(), Malformed> {
        let mut found = vec![0u64; self.apps.len()];
        if self.extents.back().is_some_and(|extent| extent.end() > self.next_position) {
            return malformed("extent record: beyond the end of its queue");
        }
        for extent in self.extents.iter_mut() {
            let mut start = extent.first & !63;
            while start < extent.end() {
                let below = extent.first.saturating_sub(start).min(63);
                let above = (extent.end() - start).min(64);
                let mask = (u64::MAX << below) & (u64::MAX >> (64 - above));
                let mut any = 0;
                for (app, found) in self.apps.iter_mut().zip(&mut found) {
                    let bits = app.pending.word(start) & mask;
                    any |= bits;
                    *found += u64::from(bits.count_ones());
                    app.bytes += extent.bytes_of(start, bits);
                }
                extent.live += any.count_ones();
                self.meter.messages += u64::from(any.count_ones());
                self.meter.bytes += extent.bytes_of(start, any);
                start = start.saturating_add(64);
            }
            if extent.live == 0 {
                return malformed("extent record: nobody needs it");
            }
        }
        let all = self.apps.iter().zip(found).all(|(app, found)| app.pending.len() == found);
        if all { Ok(()) } else { malformed("position page: no extent holds the message") }
    }
}
