//! What a queue inherits from its domain, in the state machine's terms.

use flintmq_queue::{Consistency, DomainId, Limits, Mode, QueueSettings};

use crate::domain;
use crate::metadata::DomainRecord;

impl DomainRecord {
    /// The settings of every queue of this domain.
    pub fn queue_settings(&self) -> QueueSettings {
        let definition = &self.definition;
        QueueSettings {
            domain: DomainId(self.id),
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

fn limits(limits: &domain::Limits) -> Limits {
    Limits { messages: limits.messages, bytes: limits.bytes }
}
