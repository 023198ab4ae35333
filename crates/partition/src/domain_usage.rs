//! What each domain holds in all partitions of the node together, so that a domain's limits count
//! all its queues wherever they live.
//!
//! Every partition counts here what it has applied, and the leaders on this node also what they
//! have taken and not applied yet. So leaders on one node keep a limit exactly. What a leader on
//! another node has taken is not known here before this node has applied it: by that much, one
//! batch per partition led elsewhere while all nodes keep up, a limit may be passed
//! (`docs/domains.md`).

#[expect(
    clippy::disallowed_types,
    reason = "partitions of all shards of a node share these counts"
)]
use std::sync::RwLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};

use flintmq_queue::{DomainId, Limits};
use rustc_hash::FxHashMap;

/// Shared by all partitions of the node.
#[derive(Debug, Default)]
pub struct DomainUsage {
    #[expect(clippy::disallowed_types, reason = "held for a look-up, by nothing that waits")]
    domains: RwLock<FxHashMap<DomainId, Arc<Total>>>,
}

/// What one domain holds on the node.
#[derive(Debug, Default)]
struct Total {
    messages: AtomicU64,
    bytes: AtomicU64,
}

/// One partition's part in it.
#[derive(Debug)]
pub struct PartitionUsage {
    shared: Arc<DomainUsage>,
    parts: FxHashMap<DomainId, Part>,
}

#[derive(Debug)]
struct Part {
    total: Arc<Total>,
    /// What of this part is in the total.
    counted: Held,
    /// What the leader of the partition has taken and not applied, if it is on this node.
    under_way: Held,
}

/// A number of messages, and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Held {
    messages: u64,
    bytes: u64,
}

/// Which limit of a domain is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DomainFull {
    Messages,
    Bytes,
}

impl PartitionUsage {
    /// A partition that holds nothing yet.
    pub fn new(shared: Arc<DomainUsage>) -> Self {
        Self { shared, parts: FxHashMap::default() }
    }

    /// Tells the others what this partition holds of a domain now.
    pub fn set(&mut self, domain: DomainId, messages: u64, bytes: u64) {
        let part = self.parts.entry(domain).or_insert_with(|| Part {
            total: self.shared.total(domain),
            counted: Held::default(),
            under_way: Held::default(),
        });
        let Held { messages: waiting, bytes: waiting_bytes } = part.under_way;
        part.count(Held { messages: messages + waiting, bytes: bytes + waiting_bytes });
    }

    /// Takes a message of a client into an entry of this partition's leader, if the domain is not
    /// over a limit with what all partitions hold and take. One more is taken at the limit itself,
    /// as in each queue (semantics: quotas, section 8).
    ///
    /// # Errors
    /// Which limit is passed; nothing is taken then.
    pub fn take(&mut self, domain: DomainId, limits: Limits, bytes: u64) -> Result<(), DomainFull> {
        let Some(part) = self.parts.get_mut(&domain) else { return Ok(()) };
        if part.total.messages.load(Ordering::Acquire) > limits.messages {
            return Err(DomainFull::Messages);
        }
        if part.total.bytes.load(Ordering::Acquire) > limits.bytes {
            return Err(DomainFull::Bytes);
        }
        part.under_way.messages += 1;
        part.under_way.bytes += bytes;
        let Held { messages, bytes: counted } = part.counted;
        part.count(Held { messages: messages + 1, bytes: counted + bytes });
        Ok(())
    }

    /// These messages that were taken are applied now, or refused after all. To be followed by
    /// [`Self::set`], which says what became of them.
    pub fn arrived(&mut self, domain: DomainId, messages: u64, bytes: u64) {
        if let Some(part) = self.parts.get_mut(&domain) {
            part.under_way.messages = part.under_way.messages.saturating_sub(messages);
            part.under_way.bytes = part.under_way.bytes.saturating_sub(bytes);
        }
    }

    /// The leadership is over: what was taken is not this partition's any more.
    pub fn forget_taken(&mut self) {
        for part in self.parts.values_mut() {
            let taken = std::mem::take(&mut part.under_way);
            let Held { messages, bytes } = part.counted;
            part.count(Held {
                messages: messages.saturating_sub(taken.messages),
                bytes: bytes.saturating_sub(taken.bytes),
            });
        }
    }

    /// Forgets domains that are gone from this partition, which holds `count` of them. Costs
    /// nothing when none is.
    pub fn keep_only(&mut self, count: usize, has: impl Fn(DomainId) -> bool) {
        if self.parts.len() == count {
            return;
        }
        let gone: Vec<DomainId> = self.parts.keys().copied().filter(|id| !has(*id)).collect();
        for domain in gone {
            if let Some(mut part) = self.parts.remove(&domain) {
                part.count(Held::default());
            }
            self.shared.forget_unused(domain);
        }
    }

    /// Tells the others that this partition holds nothing.
    pub fn clear(&mut self) {
        // Never the number of its domains, so that all are looked at.
        self.keep_only(usize::MAX, |_| false);
    }
}

impl Part {
    fn count(&mut self, now: Held) {
        if self.counted == now {
            return;
        }
        // Wrapping: the difference is added modulo 2^64, whichever way it goes.
        let Held { messages, bytes } = self.counted;
        self.total.messages.fetch_add(now.messages.wrapping_sub(messages), Ordering::AcqRel);
        self.total.bytes.fetch_add(now.bytes.wrapping_sub(bytes), Ordering::AcqRel);
        self.counted = now;
    }
}

impl DomainUsage {
    fn total(&self, domain: DomainId) -> Arc<Total> {
        let mut domains = self.domains.write().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(domains.entry(domain).or_default())
    }

    /// Forgets a domain that no partition holds.
    fn forget_unused(&self, domain: DomainId) {
        let mut domains = self.domains.write().unwrap_or_else(PoisonError::into_inner);
        // Parts are made under the same lock.
        if domains.get(&domain).is_some_and(|total| Arc::strong_count(total) == 1) {
            domains.remove(&domain);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_counts_what_all_partitions_hold() {
        let shared = Arc::<DomainUsage>::default();
        let (mut a, mut b) =
            (PartitionUsage::new(Arc::clone(&shared)), PartitionUsage::new(Arc::clone(&shared)));
        let (domain, other) = (DomainId(1), DomainId(2));
        let limits = Limits { messages: 10, bytes: 1000 };
        a.set(domain, 6, 60);
        b.set(domain, 4, 40);
        assert_eq!(a.take(domain, limits, 10), Ok(()), "one more is taken at the limit");
        assert_eq!(a.take(domain, limits, 10), Err(DomainFull::Messages));
        assert_eq!(b.take(domain, limits, 10), Err(DomainFull::Messages), "what a takes counts");
        a.arrived(domain, 1, 10);
        a.set(domain, 2, 990);
        assert_eq!(b.take(domain, limits, 0), Err(DomainFull::Bytes));
        a.set(other, 100, 100);
        a.set(domain, 0, 0);
        assert_eq!(b.take(domain, limits, 10), Ok(()));
    }

    #[test]
    fn what_a_leader_had_taken_counts_no_more_when_its_leadership_is_over() {
        let shared = Arc::<DomainUsage>::default();
        let mut a = PartitionUsage::new(Arc::clone(&shared));
        let (domain, limits) = (DomainId(1), Limits { messages: 2, bytes: u64::MAX });
        a.set(domain, 1, 10);
        assert_eq!(a.take(domain, limits, 10), Ok(()));
        assert_eq!(a.take(domain, limits, 10), Ok(()));
        assert_eq!(a.take(domain, limits, 10), Err(DomainFull::Messages));
        a.forget_taken();
        assert_eq!(a.take(domain, limits, 10), Ok(()));
        a.arrived(domain, 1, 10);
        a.set(domain, 1, 10);
        assert_eq!(shared.total(domain).messages.load(Ordering::Acquire), 1);
        assert_eq!(shared.total(domain).bytes.load(Ordering::Acquire), 10);
    }

    #[test]
    fn a_domain_that_is_gone_everywhere_is_forgotten() {
        let shared = Arc::<DomainUsage>::default();
        let (mut a, mut b) =
            (PartitionUsage::new(Arc::clone(&shared)), PartitionUsage::new(Arc::clone(&shared)));
        let (domain, other) = (DomainId(1), DomainId(2));
        let limits = Limits { messages: 3, bytes: u64::MAX };
        for part in [&mut a, &mut b] {
            part.set(domain, 2, 2);
            part.set(other, 1, 1);
        }
        assert_eq!(a.take(domain, limits, 2), Err(DomainFull::Messages));
        a.keep_only(1, |id| id == other);
        assert_eq!(b.take(domain, limits, 2), Ok(()), "what it held is gone");
        assert_eq!(shared.domains.read().unwrap().len(), 2);
        b.clear();
        assert_eq!(shared.domains.read().unwrap().keys().collect::<Vec<_>>(), [&other]);
    }
}
