//! The replicated state of a partition: what every replica computes alike from the log.

mod apply;
pub(crate) mod keys;
pub(crate) mod queue;
mod restore;
mod save;

use std::collections::{BTreeMap, BTreeSet};

use hashbrown::HashMap;
use rustc_hash::FxBuildHasher;

use crate::ids::{DomainId, Guid, Index, QueueId};
use crate::outcome::Admission;
use crate::settings::QueueSettings;
use queue::Queue;

/// History clock milliseconds between two walks over all clients of all queues.
const SWEEP_MS: u64 = 16_384;

/// Everything that follows from the log.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// The last applied entry.
    pub(crate) applied: Index,
    /// Time of the last applied entry that had one, milliseconds since 1970.
    time_ms: u64,
    /// The history clock: the sum of all forward steps of `time_ms`. It never goes back, whatever a
    /// leader's wall clock does.
    clock: u64,
    pub(crate) queues: BTreeMap<QueueId, Queue>,
    meters: BTreeMap<DomainId, Meter>,
    entries: Entries,
    /// Queues that may have changed since the last checkpoint.
    touched: BTreeSet<QueueId>,
    /// Keys in the store whose queue or app is gone.
    gone: BTreeSet<Vec<u8>>,
}

/// What waits in the queues of one domain in this partition.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Meter {
    messages: u64,
    bytes: u64,
}

impl Meter {
    fn add(&mut self, bytes: u64) {
        self.messages += 1;
        self.bytes += bytes;
    }

    fn subtract(&mut self, messages: u64, bytes: u64) {
        self.messages = self.messages.saturating_sub(messages);
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}

/// Which log entries hold live messages.
#[derive(Debug, Default)]
pub(crate) struct Entries {
    /// Live extents per entry; never 0.
    extents: HashMap<Index, u32, FxBuildHasher>,
    /// Entries that lost their last extent since the last checkpoint.
    dead: Vec<Index>,
}

impl Entries {
    fn hold(&mut self, index: Index) {
        *self.extents.entry(index).or_insert(0) += 1;
    }

    fn release(&mut self, index: Index) {
        let Some(count) = self.extents.get_mut(&index) else { return };
        *count -= 1;
        if *count == 0 {
            self.extents.remove(&index);
            self.dead.push(index);
        }
    }

    /// Whether a live message is in the entry, or its death is not reported yet.
    fn is_known(&self, index: Index) -> bool {
        self.extents.contains_key(&index) || self.dead.contains(&index)
    }
}

impl State {
    /// Of these applied entries, those that died before the state was restored.
    pub(crate) fn forgotten(&self, stored: &[Index]) -> Vec<Index> {
        stored.iter().copied().filter(|index| !self.entries.is_known(*index)).collect()
    }

    /// The pre-check before a message is proposed.
    pub(crate) fn admit(&self, id: QueueId, guid: Guid) -> Admission {
        let Some(queue) = self.queues.get(&id) else { return Admission::UnknownQueue };
        if queue.history.position(guid).is_some() {
            return Admission::Duplicate;
        }
        let domain = self.meters.get(&queue.settings.domain).copied().unwrap_or_default();
        refusal(&queue.settings, queue.meter, domain).unwrap_or(Admission::Admit)
    }

    /// What waits in each domain.
    pub(crate) fn meters(&self) -> impl Iterator<Item = (DomainId, Meter)> + '_ {
        self.meters.iter().map(|(id, meter)| (*id, *meter))
    }

    /// What waits in a domain, for tests: messages and bytes.
    #[cfg(test)]
    pub(crate) fn domain(&self, id: DomainId) -> (u64, u64) {
        self.meters.get(&id).map_or((0, 0), |meter| (meter.messages, meter.bytes))
    }

    /// Live extents per entry, for tests.
    #[cfg(test)]
    pub(crate) fn live_entries(&self) -> BTreeSet<Index> {
        self.entries.extents.keys().copied().collect()
    }
}

/// Whether a message must be refused: the queue's limits first, then the domain's, messages before
/// bytes, and only when a value is already above its limit (semantics: quotas, section 8).
fn refusal(settings: &QueueSettings, queue: Meter, domain: Meter) -> Option<Admission> {
    for (limits, meter) in [(&settings.queue_limits, queue), (&settings.domain_limits, domain)] {
        if meter.messages > limits.messages {
            return Some(Admission::RefusedMessages);
        }
        if meter.bytes > limits.bytes {
            return Some(Admission::RefusedBytes);
        }
    }
    None
}

impl Meter {
    pub(crate) fn messages(&self) -> u64 {
        self.messages
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }
}
