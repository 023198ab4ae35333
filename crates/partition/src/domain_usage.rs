//! What each domain holds in all partitions of the node together, so that a domain's limits count
//! all its queues wherever they live.
//!
//! A partition counts exactly what it holds itself, entry by entry; what others hold it learns from
//! here. So a limit is kept exactly as long as one partition at a time is published to, and may be
//! passed by what is under way in several at the same moment.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use flintmq_queue::{DomainId, Limits};
use rustc_hash::FxHashMap;

/// Shared by all partitions of the node.
#[derive(Debug, Default)]
pub struct DomainUsage {
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
            messages: 0,
            bytes: 0,
        });
        if (part.messages, part.bytes) == (messages, bytes) {
            return;
        }
        // Wrapping: the difference is added modulo 2^64, whichever way it goes.
        part.total.messages.fetch_add(messages.wrapping_sub(part.messages), Ordering::AcqRel);
        part.total.bytes.fetch_add(bytes.wrapping_sub(part.bytes), Ordering::AcqRel);
        (part.messages, part.bytes) = (messages, bytes);
    }

    /// Tells the others that this partition holds nothing.
    pub fn clear(&mut self) {
        let domains: Vec<DomainId> = self.parts.keys().copied().collect();
        domains.into_iter().for_each(|domain| self.set(domain, 0, 0));
    }

    /// Whether the domain is over a limit with what all partitions hold. One more is taken at the
    /// limit itself, as in each queue (semantics: quotas, section 8).
    pub fn check(&self, domain: DomainId, limits: Limits) -> Result<(), DomainFull> {
        let Some(part) = self.parts.get(&domain) else { return Ok(()) };
        if part.total.messages.load(Ordering::Acquire) > limits.messages {
            return Err(DomainFull::Messages);
        }
        if part.total.bytes.load(Ordering::Acquire) > limits.bytes {
            return Err(DomainFull::Bytes);
        }
        Ok(())
    }
}

impl DomainUsage {
    fn total(&self, domain: DomainId) -> Arc<Total> {
        let mut domains = self.domains.write().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(domains.entry(domain).or_default())
    }
}

#[cfg(test)]
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
        assert_eq!(a.check(domain, limits), Ok(()), "one more is taken at the limit");
        b.set(domain, 5, 50);
        assert_eq!(a.check(domain, limits), Err(DomainFull::Messages));
        a.set(domain, 2, 990);
        assert_eq!(b.check(domain, limits), Err(DomainFull::Bytes));
        a.set(other, 100, 100);
        a.set(domain, 0, 0);
        assert_eq!(b.check(domain, limits), Ok(()));
    }
}
