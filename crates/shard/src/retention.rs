//! How much of the log stays although nothing in it is needed here: members that are a little late
//! get entries from it instead of a snapshot.

use std::collections::VecDeque;

use flintmq_consensus::Index;

/// Log that stays in any case: what the next leader's other followers may lack. Small, so that
/// entries and their deletions still meet in the store's memory.
const KEPT_BYTES: u64 = 1 << 20;
const KEPT_ENTRIES: u64 = 1024;

/// Log that stays at most for the sake of a member that is late.
const KEPT_FOR_MEMBERS: u64 = 16 << 20;

/// How far apart marks are.
const STEP: u64 = 256 << 10;

/// Where the log was at which size.
#[derive(Debug, Default)]
pub(crate) struct Retention {
    /// Bytes of all entries applied so far.
    bytes: u64,
    last: Index,
    marks: VecDeque<(Index, u64)>,
}

impl Retention {
    /// An entry of this size was applied.
    pub(crate) fn applied(&mut self, index: Index, bytes: usize) {
        self.bytes += bytes as u64;
        self.last = index;
        if self.marks.back().is_none_or(|(_, at)| at + STEP <= self.bytes) {
            self.marks.push_back((index, self.bytes));
        }
        while self.marks.get(1).is_some_and(|(_, at)| at + KEPT_FOR_MEMBERS <= self.bytes) {
            self.marks.pop_front();
        }
    }

    /// Up to where dead entries may go; `reached` is the last entry that all members have, where
    /// that is known.
    pub(crate) fn limit(&self, reached: Option<Index>) -> Index {
        let usual = self.behind(KEPT_BYTES).max(self.last.saturating_sub(KEPT_ENTRIES));
        match reached {
            Some(reached) => usual.min(reached.max(self.behind(KEPT_FOR_MEMBERS))),
            None => usual,
        }
    }

    /// The last mark that lies at least this much behind.
    fn behind(&self, bytes: u64) -> Index {
        let marks = self.marks.iter().rev();
        marks
            .map(|(index, at)| (*index, at + bytes))
            .find(|(_, at)| *at <= self.bytes)
            .map_or(0, |(index, _)| index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_megabytes_stay_and_more_for_those_who_are_late() {
        let mut retention = Retention::default();
        let size = 64 << 10;
        for index in 1..=2000 {
            retention.applied(index, size);
        }
        let kept = |limit: Index| (2000 - limit) * size as u64;
        let usual = kept(retention.limit(None));
        assert!((KEPT_BYTES..KEPT_BYTES + 2 * STEP).contains(&usual), "{usual}");
        assert_eq!(retention.limit(Some(1990)), retention.limit(None), "nobody is late");
        assert_eq!(retention.limit(Some(1900)), 1900);
        let most = kept(retention.limit(Some(1)));
        assert!((KEPT_FOR_MEMBERS..KEPT_FOR_MEMBERS + 2 * STEP).contains(&most), "{most}");
        assert!(retention.marks.len() < 70, "bounded");
    }

    #[test]
    fn small_entries_are_counted() {
        let mut retention = Retention::default();
        for index in 1..=5000 {
            retention.applied(index, 10);
        }
        assert_eq!(retention.limit(None), 5000 - KEPT_ENTRIES);
    }
}
