//! A domain in the terms of the partitions that hold its queues.

use flintmq_queue::{Consistency, Domain, DomainId, DomainSettings, Limits, Mode};

use crate::domain;
use crate::metadata::{DomainRecord, DomainVersion};

impl DomainRecord {
    /// The domain as partitions know it, with the settings of all its queues.
    pub fn for_partitions(&self) -> Domain {
        let (id, version) = (DomainId(self.id), self.version.into());
        Domain { id, version, settings: self.settings() }
    }

    fn settings(&self) -> DomainSettings {
        let definition = &self.definition;
        DomainSettings {
            mode: match &definition.mode {
                domain::Mode::Priority => Mode::Priority,
                domain::Mode::Fanout { app_ids, .. } => Mode::Fanout { apps: app_ids.clone() },
                domain::Mode::Broadcast => Mode::Broadcast,
            },
            message_ttl_ms: definition.message_ttl.saturating_mul(1000),
            dedup_window_ms: u64::from(definition.deduplication_time_ms),
            max_delivery_attempts: u8::try_from(definition.max_delivery_attempts).unwrap_or(0),
            queue_limits: limits(&definition.storage.queue_limits),
            domain_limits: limits(&definition.storage.domain_limits),
            max_consumers: definition.max_consumers,
            max_producers: definition.max_producers,
            consistency: match definition.consistency {
                domain::Consistency::Eventual => Consistency::Eventual,
                domain::Consistency::Strong => Consistency::Strong,
            },
        }
    }
}

impl From<DomainVersion> for flintmq_queue::DomainVersion {
    fn from(version: DomainVersion) -> Self {
        Self { term: version.term, index: version.index }
    }
}

fn limits(limits: &domain::Limits) -> Limits {
    Limits { messages: limits.messages, bytes: limits.bytes }
}
