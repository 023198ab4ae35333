//! What is true of the cluster's metadata, seen from outside: the committed changes, and which of
//! them operators had answers for.

use std::collections::BTreeMap;

use flintmq_consensus::{Entry, EntryKind, GroupId, Index, LogPosition};
use flintmq_controller::domain::DomainDefinition;
use flintmq_controller::{
    DomainVersion, Metadata, MetadataCommand, MetadataState, NodeState, QueuePlace, decode_entry,
};

use crate::oracle::{Violation, violation};

/// The controller's group.
#[derive(Default)]
pub(crate) struct ControllerOracle {
    committed: BTreeMap<Index, Entry>,
    applied: Index,
    state: MetadataState,
    /// All definitions that a domain ever had, by version.
    definitions: BTreeMap<String, BTreeMap<DomainVersion, DomainDefinition>>,
    /// The newest version of each domain that an operator had an answer for.
    answered: BTreeMap<String, DomainVersion>,
}

/// What committed entries of the controller say that the world should know.
#[derive(Debug, Default)]
pub(crate) struct ControllerNews {
    /// Places that were given up.
    pub(crate) given_up: Vec<(String, QueuePlace)>,
    /// Nodes that belong to the cluster no more.
    pub(crate) removed: Vec<u32>,
}

impl ControllerOracle {
    pub(crate) fn metadata(&self) -> &Metadata {
        self.state.metadata()
    }

    pub(crate) fn position(&self, index: Index) -> Option<LogPosition> {
        self.committed.get(&index).map(Entry::position)
    }

    pub(crate) fn last(&self) -> Index {
        self.applied
    }

    /// An entry is committed, as some node says.
    pub(crate) fn commit(&mut self, entry: Entry) -> Result<ControllerNews, Violation> {
        let mut news = ControllerNews::default();
        if let Some(known) = self.committed.get(&entry.index) {
            if known.position() != entry.position() || known.payload != entry.payload {
                let (ours, theirs) = (known.position(), entry.position());
                let group = GroupId::CONTROLLER;
                let detail = format!("group {group}: {theirs:?} is committed beside {ours:?}");
                return violation("OneLog", detail);
            }
            return Ok(news);
        }
        self.committed.insert(entry.index, entry);
        while let Some(entry) = self.committed.get(&(self.applied + 1)).cloned() {
            self.applied += 1;
            self.apply(&entry, &mut news)?;
        }
        Ok(news)
    }

    fn apply(&mut self, entry: &Entry, news: &mut ControllerNews) -> Result<(), Violation> {
        if entry.kind != EntryKind::Commands {
            self.state.set_applied(entry.position());
            return Ok(());
        }
        let unreadable = |error: String| Violation { invariant: "Applicable", detail: error };
        let changes =
            decode_entry(&entry.payload).map_err(|error| unreadable(error.to_string()))?;
        let before = self.state.metadata().clone();
        let applied = self.state.apply(entry.position(), &entry.payload);
        applied.map_err(|error| unreadable(error.to_string()))?;
        let metadata = self.state.metadata();
        for command in changes.into_iter().flat_map(|change| change.commands) {
            match command {
                MetadataCommand::UnassignQueue { uri, queue } => {
                    let had = before.queue(&uri).filter(|place| place.queue == queue);
                    let has = metadata.queue(&uri).is_some_and(|place| place.queue == queue);
                    news.given_up.extend(had.filter(|_| !has).map(|place| (uri, place.clone())));
                }
                MetadataCommand::PutDomain { definition, .. } => {
                    if let Some(record) = metadata.domain(&definition.name) {
                        let known = self.definitions.entry(definition.name.clone()).or_default();
                        known.insert(record.version, record.definition.clone());
                    }
                }
                _ => {}
            }
        }
        let was_removed = |id: u32| before.membership().node(id).map(|node| node.state);
        let removed = metadata.membership().nodes().filter(|node| {
            node.state == NodeState::Removed && was_removed(node.id) != Some(NodeState::Removed)
        });
        news.removed.extend(removed.map(|node| node.id));
        Ok(())
    }

    /// The group goes on without what follows this entry: a majority of it is lost.
    pub(crate) fn fork(&mut self, last: Index) -> Result<(), Violation> {
        let mut kept = Self::default();
        for (_, entry) in std::mem::take(&mut self.committed).range(..=last) {
            let _known = kept.commit(entry.clone())?;
        }
        // What is lost need not be in force.
        for (domain, version) in std::mem::take(&mut self.answered) {
            if kept.definitions.get(&domain).is_some_and(|known| known.contains_key(&version)) {
                kept.answered.insert(domain, version);
            }
        }
        *self = kept;
        Ok(())
    }

    /// An operator had an answer: this version of a domain is in force from now on.
    pub(crate) fn answer(&mut self, domain: &str, version: DomainVersion) {
        let known = self.answered.entry(domain.to_owned()).or_default();
        *known = (*known).max(version);
    }

    /// The newest version of a domain that an operator had an answer for.
    pub(crate) fn answered(&self, domain: &str) -> DomainVersion {
        self.answered.get(domain).copied().unwrap_or_default()
    }

    /// The shortest life that messages of a domain ever had, in seconds.
    pub(crate) fn shortest_life_s(&self, domain: &str) -> Option<u64> {
        let known = self.definitions.get(domain)?;
        known.values().map(|definition| definition.message_ttl).min()
    }

    /// Whether the domain had this limit of queues in this version, or later.
    pub(crate) fn had_limit(&self, domain: &str, since: DomainVersion, limit: u32) -> bool {
        let known = self.definitions.get(domain);
        known.is_some_and(|known| known.range(since..).any(|(_, d)| d.max_queues == limit))
    }
}
