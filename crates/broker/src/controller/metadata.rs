//! The cluster's metadata as a state machine: which domains there are, which queue lives in which
//! partition, and which node holds it.
//!
//! Every change is a command in the log of the controller group; the same commands in the same
//! order give the same metadata on every node. Changes are rare, so commands and records are JSON:
//! they can be read with a tool and grow fields without a new format.

use std::collections::BTreeMap;
use std::sync::Arc;

use flintmq_queue::QueueId;
use flintmq_storage::QueueRecord;
use serde::{Deserialize, Serialize};

use super::roster::{NodeRecord, Roster, RosterCommand};
use crate::domain::DomainDefinition;

/// One change of the metadata, as it stands in the log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum MetadataCommand {
    /// Defines a domain, or replaces its definition.
    PutDomain {
        /// The whole definition.
        definition: Box<DomainDefinition>,
    },
    /// Removes a domain; its queues are gone before.
    RemoveDomain {
        /// Its name.
        name: String,
    },
    /// Gives a new queue its id and its partition. A queue that has a place keeps it.
    AssignQueue {
        /// Canonical URI.
        uri: String,
        /// The domain that it belongs to.
        domain: String,
        /// The partition to hold it.
        partition: u32,
    },
    /// Forgets a queue, if it still has this id.
    UnassignQueue {
        /// Canonical URI.
        uri: String,
        /// The id that it was deleted under.
        queue: u32,
    },
    /// Changes the nodes, or which of them hold what.
    Roster {
        /// How.
        change: RosterCommand,
    },
}

/// Where a queue lives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct QueuePlace {
    /// Its number, never used again for another queue.
    pub(crate) queue: u32,
    /// The group that holds its messages.
    pub(crate) partition: u32,
    /// The domain that it belongs to.
    pub(crate) domain: String,
}

impl QueuePlace {
    /// The id as the state machine knows it.
    pub(crate) fn id(&self) -> QueueId {
        QueueId(self.queue)
    }
}

/// A domain as the controller keeps it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct DomainRecord {
    /// Its number, which partitions meter it by; never used again for another domain.
    pub(crate) id: u32,
    /// What its queues inherit.
    pub(crate) definition: DomainDefinition,
}

/// All metadata, as the applied log says.
#[derive(Debug, Default)]
pub(crate) struct Metadata {
    domains: BTreeMap<String, DomainRecord>,
    queues: BTreeMap<String, QueuePlace>,
    /// How many queues each partition holds.
    load: BTreeMap<u32, u32>,
    /// How many queues each domain has.
    per_domain: BTreeMap<String, usize>,
    next_queue: u32,
    next_domain: u32,
    roster: Arc<Roster>,
    dirty: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
}

const DOMAIN: u8 = b'd';
const QUEUE: u8 = b'q';
const NODE: u8 = b'm';
const PLACE: u8 = b'p';
const ROSTER: &[u8] = b"nr";
const NEXT_QUEUE: &[u8] = b"nq";
const NEXT_DOMAIN: &[u8] = b"nd";

impl Metadata {
    /// Rebuilds the metadata from the records of a checkpoint.
    ///
    /// # Errors
    /// The record that cannot be read.
    pub(crate) fn restore(
        records: impl IntoIterator<Item = (Vec<u8>, Vec<u8>)>,
    ) -> Result<Self, UnreadableRecord> {
        let mut metadata = Self::default();
        let mut roster = Roster::default();
        for (key, value) in records {
            let unreadable = |reason: String| UnreadableRecord {
                key: String::from_utf8_lossy(&key).into_owned(),
                reason,
            };
            match key.split_first() {
                Some((&DOMAIN, _)) => {
                    let record: DomainRecord =
                        serde_json::from_slice(&value).map_err(|e| unreadable(e.to_string()))?;
                    metadata.domains.insert(record.definition.name.clone(), record);
                }
                Some((&QUEUE, uri)) => {
                    let uri =
                        String::from_utf8(uri.to_vec()).map_err(|e| unreadable(e.to_string()))?;
                    let place: QueuePlace =
                        serde_json::from_slice(&value).map_err(|e| unreadable(e.to_string()))?;
                    metadata.count_in(&place);
                    metadata.queues.insert(uri, place);
                }
                Some((&NODE, _)) => {
                    let node: NodeRecord =
                        serde_json::from_slice(&value).map_err(|e| unreadable(e.to_string()))?;
                    roster.nodes.insert(node.id, node);
                }
                Some((&PLACE, group)) => {
                    let group = std::str::from_utf8(group).ok().and_then(|id| id.parse().ok());
                    let group = group.ok_or_else(|| unreadable("no group's number".to_owned()))?;
                    let place =
                        serde_json::from_slice(&value).map_err(|e| unreadable(e.to_string()))?;
                    roster.places.insert(group, place);
                }
                _ if key == ROSTER => {
                    roster.head =
                        serde_json::from_slice(&value).map_err(|e| unreadable(e.to_string()))?;
                }
                _ if key == NEXT_QUEUE => {
                    metadata.next_queue =
                        serde_json::from_slice(&value).map_err(|e| unreadable(e.to_string()))?;
                }
                _ if key == NEXT_DOMAIN => {
                    metadata.next_domain =
                        serde_json::from_slice(&value).map_err(|e| unreadable(e.to_string()))?;
                }
                _ => return Err(unreadable("unknown kind of record".to_owned())),
            }
        }
        metadata.roster = Arc::new(roster);
        Ok(metadata)
    }

    /// Applies the commands of one entry.
    ///
    /// # Errors
    /// The payload is no list of commands; nothing was applied.
    pub(crate) fn apply(&mut self, payload: &[u8]) -> Result<(), UnreadableRecord> {
        let commands: Vec<MetadataCommand> = serde_json::from_slice(payload)
            .map_err(|e| UnreadableRecord { key: "entry".to_owned(), reason: e.to_string() })?;
        for command in commands {
            match command {
                MetadataCommand::PutDomain { definition } => self.put_domain(*definition),
                MetadataCommand::RemoveDomain { name } => {
                    self.write::<()>(DOMAIN, &name, None);
                    self.domains.remove(&name);
                }
                MetadataCommand::AssignQueue { uri, domain, partition } => {
                    self.assign(uri, domain, partition);
                }
                MetadataCommand::UnassignQueue { uri, queue } => self.unassign(&uri, queue),
                MetadataCommand::Roster { change } => self.change_roster(change),
            }
        }
        Ok(())
    }

    /// The definition of a domain.
    pub(crate) fn domain(&self, name: &str) -> Option<&DomainRecord> {
        self.domains.get(name)
    }

    /// All domains, by name.
    pub(crate) fn domains(&self) -> impl Iterator<Item = &DomainRecord> {
        self.domains.values()
    }

    /// The nodes, and which of them are to hold what.
    pub(crate) fn roster(&self) -> &Arc<Roster> {
        &self.roster
    }

    /// True until the first domain is defined: the cluster has just been born.
    pub(crate) fn is_newborn(&self) -> bool {
        self.next_domain == 0
    }

    /// Where a queue lives, by its canonical URI.
    pub(crate) fn queue(&self, uri: &str) -> Option<&QueuePlace> {
        self.queues.get(uri)
    }

    /// All queues with their places, by URI.
    pub(crate) fn queues(&self) -> impl Iterator<Item = (&str, &QueuePlace)> {
        self.queues.iter().map(|(uri, place)| (uri.as_str(), place))
    }

    /// How many queues a domain has.
    pub(crate) fn queues_of(&self, domain: &str) -> usize {
        self.per_domain.get(domain).copied().unwrap_or(0)
    }

    /// How many queues there are.
    pub(crate) fn queue_count(&self) -> usize {
        self.queues.len()
    }

    /// The partition with the fewest queues among `1..=partitions`.
    pub(crate) fn emptiest_partition(&self, partitions: u32) -> u32 {
        (1..=partitions.max(1))
            .min_by_key(|p| (self.load.get(p).copied().unwrap_or(0), *p))
            .unwrap_or(1)
    }

    /// What changed since the last call: records to put, and keys to delete.
    pub(crate) fn take_changes(&mut self) -> (Vec<QueueRecord>, Vec<Vec<u8>>) {
        let (mut puts, mut deletes) = (Vec::new(), Vec::new());
        for (key, value) in std::mem::take(&mut self.dirty) {
            match value {
                Some(value) => puts.push((key, value)),
                None => deletes.push(key),
            }
        }
        (puts, deletes)
    }

    /// Takes changes back that could not be written now; what changed meanwhile is newer and wins.
    pub(crate) fn put_back(&mut self, puts: Vec<QueueRecord>, deletes: Vec<Vec<u8>>) {
        let puts = puts.into_iter().map(|(key, value)| (key, Some(value)));
        for (key, value) in puts.chain(deletes.into_iter().map(|key| (key, None))) {
            self.dirty.entry(key).or_insert(value);
        }
    }

    fn change_roster(&mut self, change: RosterCommand) {
        let mut roster = Roster::clone(&self.roster);
        let Some(touched) = roster.apply(change) else { return };
        for id in touched.nodes {
            self.write(NODE, &id.to_string(), roster.nodes.get(&id));
        }
        for group in touched.places {
            self.write(PLACE, &group.to_string(), roster.places.get(&group));
        }
        // As for the others: plain data.
        self.dirty.insert(ROSTER.to_vec(), serde_json::to_vec(&roster.head).ok());
        self.roster = Arc::new(roster);
    }

    fn put_domain(&mut self, definition: DomainDefinition) {
        let id = match self.domains.get(&definition.name) {
            Some(present) => present.id,
            None => {
                self.next_domain += 1;
                self.dirty
                    .insert(NEXT_DOMAIN.to_vec(), Some(self.next_domain.to_string().into_bytes()));
                self.next_domain
            }
        };
        let name = definition.name.clone();
        let record = DomainRecord { id, definition };
        self.write(DOMAIN, &name, Some(&record));
        self.domains.insert(name, record);
    }

    fn assign(&mut self, uri: String, domain: String, partition: u32) {
        if self.queues.contains_key(&uri) {
            return;
        }
        self.next_queue += 1;
        let place = QueuePlace { queue: self.next_queue, partition, domain };
        self.write(QUEUE, &uri, Some(&place));
        self.dirty.insert(NEXT_QUEUE.to_vec(), Some(self.next_queue.to_string().into_bytes()));
        self.count_in(&place);
        self.queues.insert(uri, place);
    }

    fn unassign(&mut self, uri: &str, queue: u32) {
        if self.queues.get(uri).is_none_or(|place| place.queue != queue) {
            return;
        }
        if let Some(place) = self.queues.remove(uri) {
            self.write::<()>(QUEUE, uri, None);
            self.count_out(&place);
        }
    }

    fn count_in(&mut self, place: &QueuePlace) {
        *self.load.entry(place.partition).or_default() += 1;
        *self.per_domain.entry(place.domain.clone()).or_default() += 1;
    }

    fn count_out(&mut self, place: &QueuePlace) {
        if let Some(load) = self.load.get_mut(&place.partition) {
            *load = load.saturating_sub(1);
        }
        if let Some(queues) = self.per_domain.get_mut(&place.domain) {
            *queues = queues.saturating_sub(1);
        }
    }

    fn write<T: Serialize>(&mut self, kind: u8, name: &str, value: Option<&T>) {
        let mut key = vec![kind];
        key.extend_from_slice(name.as_bytes());
        // Our own plain data: it has no map with keys that JSON could not name.
        let value = value.and_then(|v| serde_json::to_vec(v).ok());
        self.dirty.insert(key, value);
    }
}

/// A record or an entry of the controller that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error(
    "the controller's metadata cannot be read: restore the data directory or ask for help, record={key} reason={reason}"
)]
pub(crate) struct UnreadableRecord {
    key: String,
    reason: String,
}

#[cfg(test)]
mod tests {
    use super::super::roster::{NodeState, Place};
    use super::*;

    fn apply(metadata: &mut Metadata, commands: &[MetadataCommand]) {
        metadata.apply(&serde_json::to_vec(commands).unwrap()).unwrap();
    }

    fn assign(uri: &str, partition: u32) -> MetadataCommand {
        MetadataCommand::AssignQueue { uri: uri.into(), domain: "d".into(), partition }
    }

    #[test]
    fn a_queue_keeps_its_first_place_and_ids_are_never_used_again() {
        let mut metadata = Metadata::default();
        apply(&mut metadata, &[assign("bmq://d/a", 2), assign("bmq://d/a", 3)]);
        assert_eq!(metadata.queue("bmq://d/a").unwrap().partition, 2);
        let gone = MetadataCommand::UnassignQueue { uri: "bmq://d/a".into(), queue: 1 };
        apply(&mut metadata, &[gone.clone(), assign("bmq://d/a", 3), gone]);
        assert_eq!(
            metadata.queue("bmq://d/a").unwrap().queue,
            2,
            "an old deletion does not hit the new queue"
        );
    }

    #[test]
    fn queues_go_where_the_fewest_are() {
        let mut metadata = Metadata::default();
        assert_eq!(metadata.emptiest_partition(3), 1);
        apply(&mut metadata, &[assign("bmq://d/a", 1), assign("bmq://d/b", 2)]);
        assert_eq!(metadata.emptiest_partition(3), 3);
        apply(&mut metadata, &[assign("bmq://d/c", 3)]);
        assert_eq!(metadata.emptiest_partition(3), 1);
    }

    #[test]
    fn a_checkpoint_brings_everything_back() {
        let mut metadata = Metadata::default();
        let definition = Box::new(DomainDefinition::default_template("d").unwrap());
        apply(
            &mut metadata,
            &[
                MetadataCommand::PutDomain { definition },
                assign("bmq://d/a", 1),
                assign("bmq://d/b", 2),
                MetadataCommand::UnassignQueue { uri: "bmq://d/a".into(), queue: 1 },
            ],
        );
        let (puts, deletes) = metadata.take_changes();
        assert_eq!(deletes, vec![b"qbmq://d/a".to_vec()]);
        let restored = Metadata::restore(puts).unwrap();
        assert_eq!(restored.domain("d"), metadata.domain("d"));
        assert_eq!(restored.queue("bmq://d/b"), metadata.queue("bmq://d/b"));
        assert!(restored.queue("bmq://d/a").is_none());
        assert_eq!(restored.next_queue, 2);
        assert_eq!(restored.emptiest_partition(2), 1);
    }

    #[test]
    fn a_checkpoint_brings_the_nodes_back() {
        let mut metadata = Metadata::default();
        let roster = |change| MetadataCommand::Roster { change };
        let node = |id: u32| NodeRecord {
            id,
            peers: format!("10.0.0.{id}:7114"),
            state: NodeState::Active,
            directory: Some(u64::MAX - u64::from(id)),
            founder: true,
            replaces: None,
        };
        let seed = RosterCommand::Seed { nodes: vec![node(1), node(2)], replicas: Some(2) };
        let add = |id| RosterCommand::Add { id, peers: "h:1".into(), replaces: None };
        let places = BTreeMap::from([(0, Place { voters: vec![1, 2], ..Place::default() })]);
        apply(
            &mut metadata,
            &[
                roster(seed.clone()),
                roster(seed),
                roster(add(3)),
                roster(add(4)),
                roster(RosterCommand::Remove { id: 4 }),
                roster(RosterCommand::Place { version: 4, places }),
            ],
        );
        assert_eq!((metadata.roster().version(), metadata.roster().nodes().count()), (5, 3));
        let (puts, deletes) = metadata.take_changes();
        assert_eq!(deletes, vec![b"m4".to_vec()]);
        let restored = Metadata::restore(puts).unwrap();
        assert_eq!(restored.roster(), metadata.roster());
    }

    #[test]
    fn what_cannot_be_read_is_told() {
        assert!(Metadata::restore([(b"x1".to_vec(), b"{}".to_vec())]).is_err());
        assert!(Metadata::restore([(b"qbmq://d/a".to_vec(), b"{".to_vec())]).is_err());
        assert!(Metadata::default().apply(b"not json").is_err());
    }
}
