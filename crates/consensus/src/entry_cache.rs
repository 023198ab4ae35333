//! The newest entries of a leader's log, for its followers.

use std::collections::VecDeque;

use crate::{Entry, Index};

/// A contiguous run of entries up to the end of the log, bounded in bytes: what falls out is read
/// back from the log. Payloads are shared, never copied.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct EntryCache {
    entries: VecDeque<Entry>,
    bytes: u64,
}

impl EntryCache {
    /// Adds the next entry; the oldest leave when there are too many bytes.
    pub(crate) fn push(&mut self, entry: Entry, max_bytes: u64) {
        if self.entries.back().is_some_and(|last| last.index + 1 != entry.index) {
            self.clear();
        }
        self.bytes += entry.payload.len() as u64;
        self.entries.push_back(entry);
        while self.bytes > max_bytes && self.entries.len() > 1 {
            self.pop();
        }
    }

    /// Forgets what nobody needs: everything up to this index.
    pub(crate) fn forget_upto(&mut self, index: Index) {
        while self.entries.front().is_some_and(|entry| entry.index <= index) {
            self.pop();
        }
        // An idle group keeps no memory for the busy one that it was.
        if self.entries.is_empty() {
            self.entries.shrink_to(64);
        }
    }

    /// Entries from `first` on, as many as fit, at least one; nothing when `first` is not here.
    pub(crate) fn from(&self, first: Index, max_entries: usize, max_bytes: u64) -> Vec<Entry> {
        let Some(skip) = self.entries.front().and_then(|front| first.checked_sub(front.index))
        else {
            return Vec::new();
        };
        let skip = usize::try_from(skip).unwrap_or(usize::MAX).min(self.entries.len());
        let mut bytes = 0;
        let count = self
            .entries
            .range(skip..)
            .take(max_entries)
            .take_while(|entry| {
                bytes += entry.payload.len() as u64;
                bytes <= max_bytes
            })
            .count()
            .max(1);
        self.entries.range(skip..).take(count).cloned().collect()
    }

    /// Payload bytes of what [`Self::from`] would give.
    pub(crate) fn bytes_from(&self, first: Index, max_entries: usize, max_bytes: u64) -> u64 {
        let Some(skip) = self.entries.front().and_then(|front| first.checked_sub(front.index))
        else {
            return 0;
        };
        let skip = usize::try_from(skip).unwrap_or(usize::MAX).min(self.entries.len());
        let mut bytes = 0;
        for entry in self.entries.range(skip..).take(max_entries) {
            bytes += entry.payload.len() as u64;
            if bytes >= max_bytes {
                break;
            }
        }
        bytes
    }

    /// First index that is here.
    pub(crate) fn first(&self) -> Option<Index> {
        self.entries.front().map(|entry| entry.index)
    }

    /// Payload bytes held.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    fn pop(&mut self) {
        if let Some(entry) = self.entries.pop_front() {
            self.bytes -= entry.payload.len() as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::EntryKind;
    use bytes::Bytes;

    fn entry(index: Index, size: usize) -> Entry {
        let payload = Bytes::from(vec![0; size]);
        Entry { index, term: 1, history: 0, kind: EntryKind::Commands, payload }
    }

    fn indexes(entries: &[Entry]) -> Vec<Index> {
        entries.iter().map(|entry| entry.index).collect()
    }

    #[test]
    fn the_newest_stay_within_the_bytes() {
        let mut cache = EntryCache::default();
        for index in 5..15 {
            cache.push(entry(index, 10), 45);
        }
        assert_eq!((cache.first(), cache.bytes()), (Some(11), 40));
        assert_eq!(indexes(&cache.from(12, 2, 1000)), [12, 13]);
        assert_eq!(indexes(&cache.from(12, 9, 25)), [12, 13]);
        assert_eq!(indexes(&cache.from(12, 9, 1)), [12], "one entry always fits");
        assert_eq!(cache.from(10, 9, 1000), []);
        assert_eq!(cache.from(15, 9, 1000), []);
        cache.forget_upto(13);
        assert_eq!((cache.first(), cache.bytes()), (Some(14), 10));
    }

    #[test]
    fn one_entry_may_exceed_the_bytes() {
        let mut cache = EntryCache::default();
        cache.push(entry(1, 100), 10);
        assert_eq!(indexes(&cache.from(1, 9, 10)), [1]);
    }
}
