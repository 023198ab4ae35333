//! The metadata as a replicated state machine: the same entries in the same order give the same
//! metadata, and the same outcome of each change, on every node.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use flintmq_consensus::{Index, LogPosition, NodeId};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::record::RecordKey;
use super::window::{ChangeWindow, Seen};
use super::{DomainRecord, Metadata, QueuePlace};
use crate::command::{
    ChangeId, LoggedChange, MetadataCommand, PutCondition, UnreadableRecord, decode_entry,
};
use crate::domain::DomainDefinition;
use crate::membership::{ClusterMembership, MembershipCommand, NodeState};
use crate::refusal::Refusal;

/// A record of a checkpoint: key and value.
type Record = (Vec<u8>, Vec<u8>);

/// A change that an entry held, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppliedChange {
    /// Its name; none in entries of versions that had no names for changes.
    pub id: Option<ChangeId>,
    /// What came of it, now or when it was applied for the first time.
    pub outcome: Seen,
    /// It had been applied before.
    pub repeated: bool,
}

/// Up to where the entries of a node's log were given up. A snapshot carries that of another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Released {
    node: u32,
    index: Index,
}

/// The metadata with what is needed to apply entries and to write checkpoints.
#[derive(Debug, Default)]
pub struct MetadataState {
    metadata: Metadata,
    windows: BTreeMap<u32, ChangeWindow>,
    released: Option<Released>,
    /// What changed since the last checkpoint.
    dirty: BTreeSet<RecordKey>,
}

impl MetadataState {
    /// Rebuilds the state from the records of a checkpoint.
    ///
    /// # Errors
    /// The record that cannot be read.
    pub fn restore(records: impl IntoIterator<Item = Record>) -> Result<Self, UnreadableRecord> {
        let mut state = Self::default();
        let metadata = &mut state.metadata;
        let mut membership = ClusterMembership::default();
        for (key, value) in records {
            let kind = RecordKey::from_bytes(&key)
                .ok_or_else(|| UnreadableRecord::new(&key, "unknown kind of record"))?;
            match kind {
                RecordKey::Domain(_) => metadata.put_domain(read(&key, &value)?),
                RecordKey::Queue(uri) => metadata.put_queue(&uri, read(&key, &value)?),
                RecordKey::Node(id) => {
                    membership.nodes.insert(id, read(&key, &value)?);
                }
                RecordKey::Assignment(group) => {
                    membership.assignments.insert(group, read(&key, &value)?);
                }
                RecordKey::MembershipHead => membership.head = read(&key, &value)?,
                RecordKey::NextQueue => metadata.next_queue = read(&key, &value)?,
                RecordKey::NextDomain => metadata.next_domain = read(&key, &value)?,
                RecordKey::Window(node) => {
                    state.windows.insert(node, read(&key, &value)?);
                }
                RecordKey::Released => state.released = Some(read(&key, &value)?),
            }
        }
        metadata.membership = Arc::new(membership);
        Ok(state)
    }

    /// The metadata as of the last applied entry.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// What is known of a change.
    pub fn seen(&self, id: &ChangeId) -> Seen {
        self.windows.get(&id.node).map_or(Seen::New, |window| window.seen(id))
    }

    /// Notes that the state is that of this entry.
    pub fn set_applied(&mut self, position: LogPosition) {
        self.metadata.applied = position;
    }

    /// Applies the changes of one entry and says what came of each.
    ///
    /// # Errors
    /// The payload is no list of changes; nothing was applied.
    pub fn apply(
        &mut self,
        position: LogPosition,
        payload: &[u8],
    ) -> Result<Vec<AppliedChange>, UnreadableRecord> {
        let changes = decode_entry(payload)?;
        self.metadata.applied = position;
        Ok(changes.into_iter().map(|change| self.apply_change(position, change)).collect())
    }

    fn apply_change(&mut self, position: LogPosition, change: LoggedChange) -> AppliedChange {
        let LoggedChange { id, oldest, commands } = change;
        let seen = id.map_or(Seen::New, |id| self.seen(&id));
        if seen != Seen::New {
            return AppliedChange { id, outcome: seen, repeated: true };
        }
        let outcome = commands.into_iter().try_for_each(|command| self.command(position, command));
        if let Some(id) = id {
            self.windows.entry(id.node).or_default().record(&id, oldest, &outcome);
            self.dirty.insert(RecordKey::Window(id.node));
        }
        AppliedChange { id, outcome: Seen::Applied(outcome), repeated: false }
    }

    fn command(&mut self, position: LogPosition, command: MetadataCommand) -> Result<(), Refusal> {
        match command {
            MetadataCommand::PutDomain { definition, when } => {
                self.put_domain(position, *definition, when)
            }
            MetadataCommand::RemoveDomain { name, only_unused } => {
                self.remove_domain(name, only_unused)
            }
            MetadataCommand::AssignQueue { uri, domain, partition, max_queues } => {
                self.assign(uri, domain, partition, max_queues)
            }
            MetadataCommand::UnassignQueue { uri, queue } => {
                if self.metadata.queue(&uri).is_some_and(|place| place.queue == queue) {
                    self.metadata.remove_queue(&uri);
                    self.dirty.insert(RecordKey::Queue(uri));
                }
                Ok(())
            }
            MetadataCommand::Membership { change } => self.change_membership(change),
        }
    }

    fn put_domain(
        &mut self,
        position: LogPosition,
        definition: DomainDefinition,
        when: PutCondition,
    ) -> Result<(), Refusal> {
        let domain = || definition.name.clone();
        let id = match (self.metadata.domain(&definition.name), when) {
            (Some(_), PutCondition::New) => {
                return Err(Refusal::DomainExists { domain: domain() });
            }
            (Some(_), PutCondition::IfMissing) => return Ok(()),
            (None, PutCondition::Update) => {
                return Err(Refusal::UnknownDomain { domain: domain() });
            }
            (Some(present), PutCondition::Update) => {
                let checked = present.definition.check_update(&definition);
                checked.map_err(|error| Refusal::DomainUpdate { reason: error.to_string() })?;
                present.id
            }
            (Some(present), PutCondition::Always) => present.id,
            (None, _) => {
                self.metadata.next_domain += 1;
                self.dirty.insert(RecordKey::NextDomain);
                self.metadata.next_domain
            }
        };
        self.dirty.insert(RecordKey::Domain(definition.name.clone()));
        self.metadata.put_domain(DomainRecord { id, definition, version: position.into() });
        Ok(())
    }

    fn remove_domain(&mut self, name: String, only_unused: bool) -> Result<(), Refusal> {
        if only_unused {
            if self.metadata.domain(&name).is_none() {
                return Err(Refusal::UnknownDomain { domain: name });
            }
            let queues = self.metadata.queues_of(&name);
            if queues > 0 {
                return Err(Refusal::DomainInUse { domain: name, queues });
            }
        }
        self.metadata.remove_domain(&name);
        self.dirty.insert(RecordKey::Domain(name));
        Ok(())
    }

    fn assign(
        &mut self,
        uri: String,
        domain: String,
        partition: u32,
        max_queues: Option<u32>,
    ) -> Result<(), Refusal> {
        if self.metadata.queue(&uri).is_some() {
            return Ok(());
        }
        if let Some(limit) = max_queues {
            self.metadata.check_room(&domain, limit)?;
        }
        self.metadata.next_queue += 1;
        let place = QueuePlace { queue: self.metadata.next_queue, partition, domain };
        self.metadata.put_queue(&uri, place);
        self.dirty.insert(RecordKey::Queue(uri));
        self.dirty.insert(RecordKey::NextQueue);
        Ok(())
    }

    fn change_membership(&mut self, change: MembershipCommand) -> Result<(), Refusal> {
        let mut membership = ClusterMembership::clone(&self.metadata.membership);
        let touched = membership.apply(change)?;
        for id in touched.nodes {
            let is_gone = |state: NodeState| state == NodeState::Removed;
            if membership.node(id).is_none_or(|node| is_gone(node.state))
                && self.windows.remove(&id).is_some()
            {
                self.dirty.insert(RecordKey::Window(id));
            }
            self.dirty.insert(RecordKey::Node(id));
        }
        self.dirty.extend(touched.places.into_iter().map(RecordKey::Assignment));
        self.dirty.insert(RecordKey::MembershipHead);
        self.metadata.membership = Arc::new(membership);
        Ok(())
    }

    /// Up to where the entries of this node's log were given up; none: not known.
    pub fn released(&self, node: NodeId) -> Option<Index> {
        self.released.filter(|released| released.node == node.0).map(|released| released.index)
    }

    /// Notes that entries up to this one are given up with the next checkpoint.
    pub fn set_released(&mut self, node: NodeId, index: Index) {
        let released = Some(Released { node: node.0, index });
        if self.released != released {
            self.released = released;
            self.dirty.insert(RecordKey::Released);
        }
    }

    /// What changed since the last call: records to put, and keys to delete.
    pub fn take_changes(&mut self) -> (Vec<Record>, Vec<Vec<u8>>) {
        let (mut puts, mut deletes) = (Vec::new(), Vec::new());
        for key in std::mem::take(&mut self.dirty) {
            match self.value(&key) {
                Some(value) => puts.push((key.to_bytes(), value)),
                None => deletes.push(key.to_bytes()),
            }
        }
        (puts, deletes)
    }

    /// Takes changes back that could not be written now. They come again with the next call of
    /// [`Self::take_changes`], as they are then.
    pub fn put_back(&mut self, puts: &[Record], deletes: &[Vec<u8>]) {
        let keys = puts.iter().map(|(key, _)| key).chain(deletes);
        self.dirty.extend(keys.filter_map(|key| RecordKey::from_bytes(key)));
    }

    fn value(&self, key: &RecordKey) -> Option<Vec<u8>> {
        let metadata = &self.metadata;
        let membership = &metadata.membership;
        match key {
            RecordKey::Domain(name) => metadata.domain(name).and_then(written),
            RecordKey::Queue(uri) => metadata.queue(uri).and_then(written),
            RecordKey::Node(id) => membership.nodes.get(id).and_then(written),
            RecordKey::Assignment(group) => membership.assignments.get(group).and_then(written),
            RecordKey::MembershipHead => written(&membership.head),
            RecordKey::NextQueue => written(&metadata.next_queue),
            RecordKey::NextDomain => written(&metadata.next_domain),
            RecordKey::Window(node) => self.windows.get(node).and_then(written),
            RecordKey::Released => self.released.as_ref().and_then(written),
        }
    }
}

impl Metadata {
    /// Whether the domain may have one more queue, and the cluster, with `limit` queues at most.
    ///
    /// # Errors
    /// The domain is not defined, or one of the limits is reached.
    pub fn check_room(&self, domain: &str, limit: u32) -> Result<(), Refusal> {
        let Some(record) = self.domain(domain) else {
            return Err(Refusal::UnknownDomain { domain: domain.to_owned() });
        };
        let of_domain = record.definition.max_queues;
        if of_domain > 0 && self.queues_of(domain) >= of_domain as usize {
            let domain = domain.to_owned();
            return Err(Refusal::TooManyQueues { domain, limit: of_domain });
        }
        if self.queue_count() >= limit as usize {
            return Err(Refusal::TooManyQueuesInAll { limit });
        }
        Ok(())
    }
}

fn read<T: DeserializeOwned>(key: &[u8], value: &[u8]) -> Result<T, UnreadableRecord> {
    serde_json::from_slice(value).map_err(|error| UnreadableRecord::new(key, error.to_string()))
}

/// The record's value: plain data, without anything that JSON cannot express.
fn written<T: Serialize>(value: &T) -> Option<Vec<u8>> {
    serde_json::to_vec(value).ok()
}
