//! How far a replica's own writes are behind what it was asked to write.
//!
//! Where a majority of other disks is quicker, a leader commits what its own disk does not have
//! yet. That must end somewhere: what is not written is kept in memory.

use std::collections::VecDeque;
use std::time::Duration;

use flintmq_consensus::{Entry, Index, Time};

/// Bytes that may be asked for and not written, before nothing more is proposed.
const MOST_BYTES: u64 = 64 << 20;

/// How long others may have committed what is not written here, before one of them leads.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long a write may take before the disk counts as stalled.
const STALLED: Duration = Duration::from_secs(3);

/// Counted for an entry besides its payload.
const ENTRY_BYTES: u64 = 64;

#[derive(Debug)]
struct Write {
    number: u64,
    entries: Vec<Entry>,
    bytes: u64,
    since: Time,
}

/// The writes under way.
#[derive(Debug, Default)]
pub(crate) struct OwnWrites {
    under_way: VecDeque<Write>,
    bytes: u64,
}

impl OwnWrites {
    /// These entries are to be written.
    pub(crate) fn asked(&mut self, number: u64, entries: &[Entry], now: Time) {
        let bytes =
            entries.iter().map(|entry| ENTRY_BYTES + entry.payload.len() as u64).sum::<u64>();
        let entries = entries.to_vec();
        self.under_way.push_back(Write { number, entries, bytes, since: now });
        self.bytes += bytes;
    }

    /// This write, and all before it, returned.
    pub(crate) fn written(&mut self, number: u64) {
        while self.under_way.front().is_some_and(|write| write.number <= number) {
            self.bytes -= self.under_way.pop_front().map_or(0, |write| write.bytes);
        }
    }

    /// Whether so much is not written that nothing more may be proposed.
    pub(crate) fn is_full(&self) -> bool {
        self.bytes >= MOST_BYTES
    }

    /// Whether others committed for too long what is not written here.
    pub(crate) fn is_late(&self, commit: Index, now: Time) -> bool {
        self.under_way.front().is_some_and(|write| {
            let last = write.entries.last().map_or(0, |entry| entry.index);
            last <= commit && now.since(write.since) >= PATIENCE
        })
    }

    /// Whether a write has not returned for too long.
    pub(crate) fn is_stalled(&self, now: Time) -> bool {
        self.under_way.front().is_some_and(|write| now.since(write.since) >= STALLED)
    }

    /// A committed entry that the store may not have yet.
    pub(crate) fn entry(&self, index: Index) -> Option<&Entry> {
        let of_write = |write: &'_ Write| -> Option<usize> {
            let first = write.entries.first()?.index;
            usize::try_from(index.checked_sub(first)?).ok()
        };
        // A later write takes the place of an earlier one.
        self.under_way.iter().rev().find_map(|write| write.entries.get(of_write(write)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use flintmq_consensus::EntryKind;

    fn entry(index: Index, bytes: usize) -> Entry {
        let payload = Bytes::from(vec![0; bytes]);
        Entry { index, term: 1, history: 0, kind: EntryKind::Commands, payload }
    }

    #[test]
    fn what_is_not_written_is_bounded() {
        let mut writes = OwnWrites::default();
        for number in 1..64 {
            writes.asked(number, &[entry(number, 1 << 20)], Time(0));
            assert!(!writes.is_full());
        }
        writes.asked(64, &[entry(64, 1 << 20)], Time(0));
        assert!(writes.is_full());
        writes.written(2);
        assert!(!writes.is_full());
        writes.written(64);
        assert_eq!(writes.bytes, 0);
    }

    #[test]
    fn an_entry_is_at_hand_until_it_is_written() {
        let mut writes = OwnWrites::default();
        writes.asked(1, &[entry(7, 1), entry(8, 2)], Time(0));
        writes.asked(2, &[entry(8, 3)], Time(0));
        let size = |writes: &OwnWrites, index| writes.entry(index).map(|e| e.payload.len());
        assert_eq!((size(&writes, 7), size(&writes, 8)), (Some(1), Some(3)));
        assert_eq!((size(&writes, 6), size(&writes, 9)), (None, None));
        writes.written(1);
        assert_eq!((size(&writes, 7), size(&writes, 8)), (None, Some(3)));
    }

    #[test]
    fn a_disk_is_late_only_behind_the_others() {
        let (mut writes, later) = (OwnWrites::default(), Time(0) + PATIENCE);
        writes.asked(1, &[entry(7, 1)], Time(0));
        assert!(!writes.is_late(6, later), "the others do not have it either");
        assert!(!writes.is_late(7, Time(1)));
        assert!(writes.is_late(7, later));
        writes.written(1);
        assert!(!writes.is_late(7, later));
    }
}
