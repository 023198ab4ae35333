//! A partition with a log and a store around it, as a host would drive it.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::ids::Stamp;
use crate::*;

pub(super) const QUEUE: QueueId = QueueId(1);

/// A partition, its log, and the log's next entry.
pub(super) struct Host {
    pub(super) partition: Partition,
    pub(super) builder: EntryBuilder,
    pub(super) log: BTreeMap<Index, Bytes>,
    pub(super) store: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(super) now_ms: u64,
    pub(super) applied: Applied,
    next_index: Index,
}

impl Host {
    pub(super) fn new() -> Self {
        let mut partition = Partition::default();
        partition.lead();
        Self {
            partition,
            builder: EntryBuilder::default(),
            log: BTreeMap::new(),
            store: BTreeMap::new(),
            now_ms: 1_000_000,
            applied: Applied::default(),
            next_index: 1,
        }
    }

    /// A host with one queue.
    pub(super) fn with(settings: DomainSettings) -> Self {
        let mut host = Self::new();
        host.create(QUEUE, &domain(1, settings));
        host.commit();
        host
    }

    /// Adds the creation of a queue with the domain.
    pub(super) fn create(&mut self, queue: QueueId, domain: &Domain) {
        self.builder.create_queue(queue, "bmq://d/q", QueueDomain::Carried(domain));
    }

    /// Commits new settings of the domain, of this version.
    pub(super) fn set(&mut self, version: u64, settings: DomainSettings) {
        self.builder.set_domain(&domain(version, settings));
        self.commit();
    }

    /// Commits and applies what the builder holds; returns the outcomes.
    pub(super) fn commit(&mut self) -> Vec<Outcome> {
        let payload = self.builder.finish(self.now_ms).payload;
        let index = self.next_index;
        self.next_index += 1;
        self.log.insert(index, payload.clone());
        self.partition.apply(index, &payload, &mut self.applied).unwrap();
        self.applied.outcomes.clone()
    }

    pub(super) fn publish(&mut self, guid: Guid, data: &[u8]) {
        let app_data = Bytes::copy_from_slice(data);
        let message = Message { guid, attributes: Attributes::default(), app_data };
        self.builder.publish(QUEUE, message).unwrap();
    }

    /// Publishes messages with the numbers as GUIDs, in one entry.
    pub(super) fn publish_all(&mut self, numbers: std::ops::Range<u64>) -> Vec<Outcome> {
        numbers.for_each(|n| self.publish(guid(n), format!("m{n}").as_bytes()));
        self.commit()
    }

    /// Delivers everything that can be, reading entries as asked.
    pub(super) fn deliver(&mut self) -> Vec<Delivery> {
        let mut out = Deliveries::default();
        loop {
            let more = self.partition.deliver(usize::MAX, &mut out);
            let loads = std::mem::take(&mut out.loads);
            if loads.is_empty() && !more {
                return out.messages;
            }
            for index in loads {
                self.partition.loaded(index, &self.log[&index]).unwrap();
            }
        }
    }

    /// Delivers, and shows it as "handle:number".
    pub(super) fn sent(&mut self) -> Vec<String> {
        let sent = self.deliver();
        sent.iter().map(|d| format!("{}:{}", d.handle.0, text(&d.app_data))).collect()
    }

    pub(super) fn reader(&mut self, handle: u64, priority: i32, max_messages: u64) {
        let roles = Roles { reader: true, writer: false };
        self.partition.open(HandleId(handle), QUEUE, roles, None).unwrap();
        self.configure(handle, priority, max_messages);
    }

    pub(super) fn configure(&mut self, handle: u64, priority: i32, max_messages: u64) {
        let subscription = subscription(handle as u32, priority, max_messages);
        self.partition.configure(HandleId(handle), vec![subscription]).unwrap();
    }

    /// Confirms and commits.
    pub(super) fn confirm(&mut self, handle: u64, number: u64) -> bool {
        let item = self.partition.confirm(HandleId(handle), guid(number));
        item.into_iter().for_each(|item| self.builder.confirm(item));
        self.commit();
        item.is_some()
    }

    /// Takes a checkpoint into the store and compacts the log.
    pub(super) fn checkpoint(&mut self) -> Checkpoint {
        let checkpoint = self.partition.take_checkpoint();
        for key in &checkpoint.deletes {
            assert!(self.store.remove(key).is_some(), "delete of an absent key {key:?}");
        }
        self.store.extend(checkpoint.puts.iter().cloned());
        for index in &checkpoint.dead_entries {
            assert!(self.log.remove(index).is_some(), "entry died twice: {index}");
        }
        checkpoint
    }

    /// Starts anew from the store and the log, and leads.
    pub(super) fn restart(&mut self) {
        self.partition = Partition::restore(&self.store).unwrap();
        let from = self.partition.applied();
        for (&index, payload) in self.log.range(from + 1..) {
            self.partition.apply(index, payload, &mut self.applied).unwrap();
        }
        self.partition.lead();
    }

    pub(super) fn view(&self) -> QueueView {
        self.partition.view(QUEUE).unwrap()
    }
}

pub(super) fn settings() -> DomainSettings {
    DomainSettings::priority()
}

pub(super) const DOMAIN: DomainId = DomainId(1);

/// The domain of most tests.
pub(super) fn domain(version: u64, settings: DomainSettings) -> Domain {
    Domain { id: DOMAIN, version: DomainVersion { term: 1, index: version }, settings }
}

pub(super) fn guid(number: u64) -> Guid {
    Guid::from_parts([7; 6], Stamp { timer: 1000 + number, head: 0x40_0000 })
}

pub(super) fn subscription(id: u32, priority: i32, max_messages: u64) -> Subscription {
    let max_bytes = u64::MAX;
    Subscription { id, priority, count: 1, max_messages, max_bytes, filter: Filter::All }
}

pub(super) fn text(bytes: &Bytes) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
