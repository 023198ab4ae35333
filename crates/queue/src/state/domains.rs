//! The domains that have queues in this partition: their settings, once, and what waits in them.
//!
//! A domain is in the table from the creation of its first queue to the deletion of its last one,
//! which every replica sees at the same place in the log.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Meter, keys};
use crate::codec::{Malformed, Reader, malformed};
use crate::ids::DomainId;
use crate::settings::{Domain, DomainSettings, DomainVersion};

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct DomainTable {
    domains: BTreeMap<DomainId, DomainState>,
    /// Those whose record differs from the one in the store.
    changed: BTreeSet<DomainId>,
}

/// One domain.
#[derive(Debug)]
pub(crate) struct DomainState {
    pub(crate) version: DomainVersion,
    /// Shared with its queues.
    pub(crate) settings: Arc<DomainSettings>,
    /// What waits in its queues here.
    pub(crate) meter: Meter,
    /// How many queues it has here.
    queues: u32,
    saved: bool,
}

impl DomainTable {
    pub(crate) fn get(&self, id: DomainId) -> Option<&DomainState> {
        self.domains.get(&id)
    }

    pub(crate) fn get_mut(&mut self, id: DomainId) -> Option<&mut DomainState> {
        self.domains.get_mut(&id)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (DomainId, &DomainState)> {
        self.domains.iter().map(|(id, domain)| (*id, domain))
    }

    /// Enters a domain that is about to get its first queue.
    pub(super) fn enter(&mut self, domain: Domain) {
        let Domain { id, version, settings } = domain;
        let state = DomainState {
            version,
            settings: Arc::new(settings),
            meter: Meter::default(),
            queues: 0,
            saved: false,
        };
        self.domains.insert(id, state);
        self.changed.insert(id);
    }

    /// Takes new settings for a domain, and gives them back as its queues are to share them. None
    /// when there is nothing new: the domain has no queue here, or what is known is as new.
    pub(super) fn update(&mut self, domain: Domain) -> Option<Arc<DomainSettings>> {
        let Domain { id, version, mut settings } = domain;
        let known = self.domains.get_mut(&id)?;
        let is_later = known.version == version && version == DomainVersion::UNKNOWN;
        if known.version >= version && !is_later {
            return None;
        }
        // The kind of mode is fixed: positions and apps of its queues depend on it.
        if std::mem::discriminant(&settings.mode) != std::mem::discriminant(&known.settings.mode) {
            settings.mode = known.settings.mode.clone();
        }
        known.version = version;
        known.settings = Arc::new(settings);
        self.changed.insert(id);
        Some(Arc::clone(&known.settings))
    }

    /// A queue of the domain was created: the settings that it shares.
    pub(super) fn add_queue(&mut self, id: DomainId) -> Option<Arc<DomainSettings>> {
        let domain = self.domains.get_mut(&id)?;
        domain.queues += 1;
        Some(Arc::clone(&domain.settings))
    }

    /// A queue of the domain was deleted. With the last one the domain goes; returns the key that
    /// the store has of it then, if any.
    pub(super) fn remove_queue(&mut self, id: DomainId) -> Option<Vec<u8>> {
        let domain = self.domains.get_mut(&id)?;
        domain.queues = domain.queues.saturating_sub(1);
        if domain.queues > 0 {
            return None;
        }
        let saved = domain.saved;
        self.domains.remove(&id);
        self.changed.remove(&id);
        saved.then(|| keys::domain(id))
    }

    /// Adds what changed since the last call.
    pub(super) fn save(&mut self, puts: &mut Vec<(Vec<u8>, Vec<u8>)>) {
        for id in std::mem::take(&mut self.changed) {
            if let Some(domain) = self.domains.get_mut(&id) {
                domain.saved = true;
                puts.push((keys::domain(id), domain.encode()));
            }
        }
    }

    /// Adds all records.
    pub(super) fn records(&self, puts: &mut Vec<(Vec<u8>, Vec<u8>)>) {
        puts.extend(self.domains.iter().map(|(id, domain)| (keys::domain(*id), domain.encode())));
    }

    /// Reads a record.
    pub(super) fn restore(&mut self, id: DomainId, value: &[u8]) -> Result<(), Malformed> {
        const WHAT: &str = "domain record";
        let mut reader = Reader::new(value);
        if reader.u8(WHAT)? != 1 {
            return malformed(WHAT);
        }
        let version = DomainVersion::decode(&mut reader)?;
        let settings = DomainSettings::decode(&mut reader)?;
        reader.finish(WHAT)?;
        self.enter(Domain { id, version, settings });
        self.changed.remove(&id);
        if let Some(domain) = self.domains.get_mut(&id) {
            domain.saved = true;
        }
        Ok(())
    }

    /// After all records were read: a domain is there for its queues only.
    pub(super) fn check(&self) -> Result<(), Malformed> {
        let empty = self.domains.values().any(|domain| domain.queues == 0);
        if empty { malformed("domain record: it has no queue") } else { Ok(()) }
    }
}

impl DomainState {
    /// Version 1, version of the settings, settings.
    fn encode(&self) -> Vec<u8> {
        let mut value = vec![1];
        self.version.encode(&mut value);
        self.settings.encode(&mut value);
        value
    }
}
