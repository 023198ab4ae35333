//! The cluster's metadata: which domains there are, which queue lives in which partition, and which
//! node holds it.
//!
//! [`Metadata`] is what the rest of a node looks at. It is a value: a copy costs next to nothing
//! however many queues there are, shares everything with the original, and does not change while
//! the original goes on. [`MetadataState`] is the state machine that makes one from the log.

mod persistent;
mod record;
mod state;
#[cfg(test)]
mod tests;
mod window;

use std::collections::BTreeMap;
use std::sync::Arc;

use flintmq_consensus::LogPosition;
use flintmq_queue::QueueId;
use serde::{Deserialize, Serialize};

use crate::domain::DomainDefinition;
use crate::membership::ClusterMembership;
use persistent::PersistentMap;
pub use state::{AppliedChange, MetadataState};
pub use window::{CHANGE_WINDOW, Seen};

/// Where a queue lives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueuePlace {
    /// Its number, never used again for another queue.
    pub queue: u32,
    /// The group that holds its messages.
    pub partition: u32,
    /// The domain that it belongs to.
    pub domain: String,
}

impl QueuePlace {
    /// The id as the partition's state machine knows it.
    pub fn id(&self) -> QueueId {
        QueueId(self.queue)
    }
}

/// A domain as the controller keeps it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DomainRecord {
    /// Its number, which partitions meter it by; never used again for another domain.
    pub id: u32,
    /// What its queues inherit.
    pub definition: DomainDefinition,
    /// The entry of the log that changed it last, so that greater means newer, also across a forced
    /// recovery. Zero for a domain that a version without such numbers changed last.
    #[serde(default, skip_serializing_if = "DomainVersion::is_zero")]
    pub version: DomainVersion,
}

/// When a domain was changed last: compare it, term first.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct DomainVersion {
    /// Term of the entry.
    pub term: u64,
    /// Index of the entry.
    pub index: u64,
}

impl DomainVersion {
    fn is_zero(&self) -> bool {
        *self == Self::default()
    }
}

impl From<LogPosition> for DomainVersion {
    fn from(position: LogPosition) -> Self {
        Self { term: position.term, index: position.index }
    }
}

/// All metadata as of one moment.
#[derive(Clone, Debug, Default)]
pub struct Metadata {
    domains: PersistentMap<Arc<str>, Arc<DomainRecord>>,
    /// Names of the domains by what changed them last; several may share one entry of the log.
    by_version: PersistentMap<(DomainVersion, u32), Arc<str>>,
    queues: PersistentMap<Arc<str>, Arc<QueuePlace>>,
    /// How many queues each domain has.
    per_domain: PersistentMap<Arc<str>, usize>,
    /// How many queues each partition holds.
    load: BTreeMap<u32, u32>,
    next_queue: u32,
    next_domain: u32,
    membership: Arc<ClusterMembership>,
    applied: LogPosition,
}

impl Metadata {
    /// The last entry of the log that is in it.
    pub fn applied(&self) -> LogPosition {
        self.applied
    }

    /// The definition of a domain.
    pub fn domain(&self, name: &str) -> Option<&DomainRecord> {
        self.domains.get(name).map(|record| &**record)
    }

    /// All domains, by name.
    pub fn domains(&self) -> impl Iterator<Item = &DomainRecord> {
        self.domains.values().map(|record| &**record)
    }

    /// The domains that were defined or changed after this version, oldest change first; removed
    /// ones are not among them. The cost depends on their number only.
    ///
    /// Keep the version of the last one, or [`Self::domain_version`], for the next call. A new
    /// leader of a partition starts with [`Self::domains`]: what changed before versions were
    /// counted has version zero.
    pub fn domains_changed_since(
        &self,
        version: DomainVersion,
    ) -> impl Iterator<Item = &DomainRecord> {
        let news = self.by_version.after((version, u32::MAX));
        news.filter_map(|(_, name)| self.domain(name))
    }

    /// The greatest version of all domains.
    pub fn domain_version(&self) -> DomainVersion {
        self.by_version.last().map(|((version, _), _)| *version).unwrap_or_default()
    }

    /// The nodes, and which of them are to hold what.
    pub fn membership(&self) -> &Arc<ClusterMembership> {
        &self.membership
    }

    /// True until the first domain is defined: the cluster has just been formed.
    pub fn is_newborn(&self) -> bool {
        self.next_domain == 0
    }

    /// Where a queue lives, by its canonical URI.
    pub fn queue(&self, uri: &str) -> Option<&QueuePlace> {
        self.queues.get(uri).map(|place| &**place)
    }

    /// All queues with their places, by URI.
    pub fn queues(&self) -> impl Iterator<Item = (&str, &QueuePlace)> {
        self.queues.iter().map(|(uri, place)| (&**uri, &**place))
    }

    /// The queues of a domain, by URI. The cost depends on their number only.
    pub fn queues_in(&self, domain: &str) -> impl Iterator<Item = (&str, &QueuePlace)> {
        let prefix = format!("bmq://{domain}/");
        let queues = self.queues.from(prefix.as_str().into());
        queues
            .map(|(uri, place)| (&**uri, &**place))
            .take_while(move |(uri, _)| uri.starts_with(&prefix))
    }

    /// How many queues a domain has.
    pub fn queues_of(&self, domain: &str) -> usize {
        self.per_domain.get(domain).copied().unwrap_or(0)
    }

    /// How many queues there are.
    pub fn queue_count(&self) -> usize {
        self.queues.len()
    }

    /// The partition with the fewest queues among `1..=partitions`.
    pub fn emptiest_partition(&self, partitions: u32) -> u32 {
        (1..=partitions.max(1))
            .min_by_key(|p| (self.load.get(p).copied().unwrap_or(0), *p))
            .unwrap_or(1)
    }

    fn put_domain(&mut self, record: DomainRecord) {
        let name: Arc<str> = record.definition.name.as_str().into();
        self.forget_version(&name);
        self.by_version.insert((record.version, record.id), Arc::clone(&name));
        self.domains.insert(name, Arc::new(record));
    }

    fn remove_domain(&mut self, name: &str) {
        self.forget_version(name);
        self.domains.remove(name);
    }

    fn forget_version(&mut self, name: &str) {
        if let Some(record) = self.domains.get(name) {
            let key = (record.version, record.id);
            self.by_version.remove(&key);
        }
    }

    fn put_queue(&mut self, uri: &str, place: QueuePlace) {
        *self.load.entry(place.partition).or_default() += 1;
        let queues = self.queues_of(&place.domain) + 1;
        self.per_domain.insert(place.domain.as_str().into(), queues);
        self.queues.insert(uri.into(), Arc::new(place));
    }

    fn remove_queue(&mut self, uri: &str) {
        let Some(place) = self.queues.get(uri).map(Arc::clone) else { return };
        self.queues.remove(uri);
        if let Some(load) = self.load.get_mut(&place.partition) {
            *load = load.saturating_sub(1);
        }
        match self.queues_of(&place.domain) {
            0 | 1 => self.per_domain.remove(place.domain.as_str()),
            queues => self.per_domain.insert(place.domain.as_str().into(), queues - 1),
        }
    }
}
