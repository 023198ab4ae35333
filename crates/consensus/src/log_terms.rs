//! Which term each index of a log has, without the log.

use crate::{Index, LogPosition, Term};

/// The shape of one replica's log: where it begins and ends, and the term of every index between.
///
/// Terms never fall along a log, so it is a handful of runs whatever its length. Entries at or
/// below the *floor* are only part of a snapshot (or still there, but nothing may rely on it);
/// above the floor the log is contiguous.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct LogTerms {
    floor: LogPosition,
    /// First position of each run of one term above the floor, ascending in both.
    runs: Vec<LogPosition>,
    last: Index,
}

impl LogTerms {
    /// A log without entries above the floor.
    #[must_use]
    pub fn new(floor: LogPosition) -> Self {
        Self { floor, runs: Vec::new(), last: floor.index }
    }

    /// The log of these consecutive positions above the floor.
    pub fn from_positions(
        floor: LogPosition,
        positions: impl IntoIterator<Item = LogPosition>,
    ) -> Self {
        let mut log = Self::new(floor);
        for position in positions {
            log.push(position);
        }
        log
    }

    /// Finds the runs of a stored log by bisection: `term_at` is asked a few times per run, not
    /// once per entry. It must answer for every index above the floor up to `last`.
    ///
    /// # Errors
    /// What `term_at` fails with.
    pub fn search<E>(
        floor: LogPosition,
        last: LogPosition,
        mut term_at: impl FnMut(Index) -> Result<Term, E>,
    ) -> Result<Self, E> {
        let mut log = Self::new(floor);
        let mut first = floor.index + 1;
        while first <= last.index {
            let term = if first == last.index { last.term } else { term_at(first)? };
            log.runs.push(LogPosition { term, index: first });
            // The first index of a later term lies in (known, unknown].
            let (mut known, mut unknown) = (first, last.index + 1);
            if term == last.term {
                known = last.index;
            }
            while known + 1 < unknown {
                let middle = known + (unknown - known) / 2;
                if term_at(middle)? == term {
                    known = middle;
                } else {
                    unknown = middle;
                }
            }
            first = unknown;
        }
        log.last = last.index.max(floor.index);
        Ok(log)
    }

    /// The last position that is only part of a snapshot; zero in a log that was never compacted.
    #[must_use]
    pub fn floor(&self) -> LogPosition {
        self.floor
    }

    /// First index that the log itself holds, if it holds any.
    #[must_use]
    pub fn first(&self) -> Index {
        self.floor.index + 1
    }

    /// The last entry, or the floor.
    #[must_use]
    pub fn last(&self) -> LogPosition {
        let term = self.runs.last().map_or(self.floor.term, |run| run.term);
        LogPosition { term, index: self.last }
    }

    /// The term of an index, from the floor on. None below the floor and beyond the end.
    #[must_use]
    pub fn term_at(&self, index: Index) -> Option<Term> {
        if index == self.floor.index {
            return Some(self.floor.term);
        }
        if index < self.floor.index || index > self.last {
            return None;
        }
        // Nearly every question is about the last run.
        if let Some(run) = self.runs.last()
            && run.index <= index
        {
            return Some(run.term);
        }
        let after = self.runs.partition_point(|run| run.index <= index);
        Some(self.runs[after - 1].term)
    }

    /// The position at this index; see [`Self::term_at`].
    #[must_use]
    pub fn position_at(&self, index: Index) -> Option<LogPosition> {
        Some(LogPosition { term: self.term_at(index)?, index })
    }

    /// True when exactly this entry is in the log, or is the floor.
    #[must_use]
    pub fn contains(&self, position: LogPosition) -> bool {
        self.term_at(position.index) == Some(position.term)
    }

    /// The greatest position at or below `index` whose term is at most `term`, and not below the
    /// floor. What a log without the position asked for offers instead: two logs that do this in
    /// turns skip a whole term with each message.
    #[must_use]
    pub fn greatest_at_most(&self, index: Index, term: Term) -> LogPosition {
        let index = index.min(self.last);
        if index <= self.floor.index {
            return self.floor;
        }
        let after = self.runs.partition_point(|run| run.term <= term);
        if after == 0 {
            return self.floor;
        }
        let end = self.runs.get(after).map_or(self.last, |next| next.index - 1).min(index);
        if end <= self.floor.index {
            return self.floor;
        }
        LogPosition { term: self.term_at(end).unwrap_or(self.floor.term), index: end }
    }

    /// All positions above the floor whose term differs from the one before: the shape for tests
    /// and status pages.
    #[must_use]
    pub fn runs(&self) -> &[LogPosition] {
        &self.runs
    }

    /// Adds the next entry. Its index must follow; its term must not fall.
    pub fn push(&mut self, position: LogPosition) {
        debug_assert_eq!(position.index, self.last + 1, "entries are consecutive");
        debug_assert!(position.term >= self.last().term, "terms never fall along a log");
        if self.runs.last().is_none_or(|run| run.term != position.term) {
            self.runs.push(position);
        }
        self.last = position.index;
    }

    /// Removes this index and all behind it. The floor stays.
    pub fn truncate_from(&mut self, index: Index) {
        let index = index.max(self.floor.index + 1);
        if index <= self.last {
            self.runs.truncate(self.runs.partition_point(|run| run.index < index));
            self.last = index - 1;
        }
    }

    /// Raises the floor to a position of this log. Others leave it as it is.
    pub fn compact(&mut self, upto: LogPosition) {
        if upto.index <= self.floor.index || !self.contains(upto) {
            return;
        }
        let next_term = self.term_at(upto.index + 1);
        let kept = self.runs.partition_point(|run| run.index <= upto.index);
        self.runs.drain(..kept);
        self.floor = upto;
        if let Some(term) = next_term {
            let next = LogPosition { term, index: upto.index + 1 };
            if self.runs.first().is_none_or(|run| run.index != next.index) {
                self.runs.insert(0, next);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(term: Term, index: Index) -> LogPosition {
        LogPosition { term, index }
    }

    /// A floor and the terms of the entries above it.
    fn logs() -> impl Strategy<Value = (LogPosition, Vec<Term>)> {
        let steps = prop::collection::vec(prop_oneof![4 => Just(0u64), 1 => 1..4u64], 0..30);
        (0..5u64, 0..4u64, steps).prop_map(|(floor_index, floor_term, steps)| {
            let mut term = if floor_index == 0 { 0 } else { floor_term };
            let floor = at(term, floor_index);
            let terms = steps
                .into_iter()
                .map(|step| {
                    term += step;
                    term.max(1)
                })
                .collect();
            (floor, terms)
        })
    }

    fn build(floor: LogPosition, terms: &[Term]) -> LogTerms {
        let positions = terms.iter().zip(floor.index + 1..).map(|(t, i)| at(*t, i));
        LogTerms::from_positions(floor, positions)
    }

    proptest! {
        #[test]
        fn agrees_with_a_plain_list((floor, terms) in logs()) {
            let log = build(floor, &terms);
            for index in 0..floor.index + terms.len() as u64 + 3 {
                let plain = if index == floor.index {
                    Some(floor.term)
                } else if index < floor.index {
                    None
                } else {
                    terms.get((index - floor.index - 1) as usize).copied()
                };
                prop_assert_eq!(log.term_at(index), plain);
            }
        }

        #[test]
        fn search_finds_the_same_runs((floor, terms) in logs()) {
            let log = build(floor, &terms);
            let found = LogTerms::search(floor, log.last(), |index| {
                log.term_at(index).ok_or("asked outside of the log")
            });
            prop_assert_eq!(found, Ok(log));
        }

        #[test]
        fn truncating_and_compacting_keep_the_rest(
            (floor, terms) in logs(), cut in 0..40u64, upto in 0..40u64,
        ) {
            let log = build(floor, &terms);
            let mut cut_log = log.clone();
            cut_log.truncate_from(cut);
            let keep = cut.max(floor.index + 1) - floor.index - 1;
            prop_assert_eq!(&cut_log, &build(floor, &terms[..terms.len().min(keep as usize)]));

            let mut compacted = log.clone();
            if let Some(position) = log.position_at(upto) {
                compacted.compact(position);
                let dropped = upto.saturating_sub(floor.index) as usize;
                prop_assert_eq!(compacted, build(position, &terms[dropped..]));
            }
        }

        #[test]
        fn greatest_at_most_is_the_greatest(
            (floor, terms) in logs(), index in 0..40u64, term in 0..12u64,
        ) {
            let log = build(floor, &terms);
            let plain = (floor.index + 1..=log.last().index.min(index))
                .rev()
                .filter_map(|i| log.position_at(i))
                .find(|p| p.term <= term)
                .unwrap_or(floor);
            prop_assert_eq!(log.greatest_at_most(index, term), plain);
        }

        /// The hints of two logs in turns: never more messages than terms, and the place where they
        /// meet is in both logs.
        #[test]
        fn hints_converge((_, mine) in logs(), (_, theirs) in logs()) {
            let zero = LogPosition::default();
            let (leader, follower) = (build(zero, &mine), build(zero, &theirs));
            let mut probe = leader.last();
            let mut messages = 0;
            while !follower.contains(probe) {
                let hint = follower.greatest_at_most(probe.index, probe.term);
                let next = leader.greatest_at_most(hint.index, hint.term);
                prop_assert!(next.index < probe.index || next.term < probe.term);
                probe = next;
                messages += 1;
                prop_assert!(messages <= mine.len() + theirs.len() + 1);
            }
            let distinct = |terms: &[Term]| {
                let mut terms = terms.to_vec();
                terms.dedup();
                terms.len()
            };
            prop_assert!(messages <= distinct(&mine) + distinct(&theirs) + 1);
        }
    }
}
