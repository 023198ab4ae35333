//! A retried proposal is applied once (docs/internals/consensus.md#retried-proposals).

use std::collections::{BTreeMap, VecDeque};

use crate::{Index, ProducerSequence};

/// Sequences that a window remembers behind the newest, and so how far a producer may run ahead of
/// its oldest unanswered proposal.
pub const PRODUCER_WINDOW: u64 = 256;

/// What to do with a sequenced entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Apply it.
    Apply,
    /// It was applied with this entry: answer from there.
    Duplicate {
        /// The entry that was applied.
        applied_at: Index,
    },
    /// It is older than the window remembers: neither apply it nor answer from memory.
    Forgotten,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Window {
    /// Where each of the newest sequences was applied, in the order of sequences; zero: not yet.
    applied: VecDeque<Index>,
    /// Sequence of the first of them.
    first: u64,
    /// The newest entry of this producer.
    touched: Index,
}

/// The newest proposals of every producer, as part of a state machine: it is fed with the entries
/// in log order, so it is the same on every replica, and it belongs in the machine's snapshots.
///
/// Producers that propose nothing are forgotten by log time, never by a clock: see
/// [`Self::expire`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ProducerWindows {
    producers: BTreeMap<u64, Window>,
}

impl ProducerWindows {
    /// Tells whether the entry at `index` is to be applied, and remembers it if so.
    pub fn admit(&mut self, proposal: ProducerSequence, index: Index) -> Admission {
        let ProducerSequence { producer, sequence } = proposal;
        let window = self.producers.entry(producer).or_insert_with(|| Window {
            applied: VecDeque::new(),
            first: sequence.saturating_sub(PRODUCER_WINDOW - 1),
            touched: index,
        });
        window.touched = window.touched.max(index);
        let Some(offset) = sequence.checked_sub(window.first) else {
            return Admission::Forgotten;
        };
        // The window moves with the newest sequence; what falls out is forgotten.
        if offset >= PRODUCER_WINDOW {
            let forward = offset - PRODUCER_WINDOW + 1;
            let known = window.applied.len() as u64;
            window.applied.drain(..usize::try_from(forward.min(known)).unwrap_or(0));
            window.first += forward;
        }
        let offset = usize::try_from(sequence - window.first).unwrap_or(0);
        if window.applied.len() <= offset {
            window.applied.resize(offset + 1, 0);
        }
        match window.applied[offset] {
            0 => {
                window.applied[offset] = index;
                Admission::Apply
            }
            applied_at => Admission::Duplicate { applied_at },
        }
    }

    /// Forgets producers without an entry since `before`: the host calls it at fixed places of the
    /// log, so that all replicas forget the same.
    pub fn expire(&mut self, before: Index) {
        self.producers.retain(|_, window| window.touched >= before);
    }

    /// How many producers are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.producers.len()
    }

    /// True when none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.producers.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn of(producer: u64, sequence: u64) -> ProducerSequence {
        ProducerSequence { producer, sequence }
    }

    #[test]
    fn a_repeated_proposal_is_answered_from_the_window() {
        let mut windows = ProducerWindows::default();
        assert_eq!(windows.admit(of(1, 1), 10), Admission::Apply);
        assert_eq!(windows.admit(of(1, 3), 11), Admission::Apply);
        assert_eq!(windows.admit(of(1, 1), 12), Admission::Duplicate { applied_at: 10 });
        assert_eq!(windows.admit(of(1, 2), 13), Admission::Apply, "overtaken, not repeated");
        assert_eq!(windows.admit(of(2, 1), 14), Admission::Apply, "producers do not mix");
        assert_eq!(windows.admit(of(1, 1 + PRODUCER_WINDOW), 15), Admission::Apply);
        assert_eq!(windows.admit(of(1, 1), 16), Admission::Forgotten);
    }

    #[test]
    fn silent_producers_are_forgotten_by_log_time() {
        let mut windows = ProducerWindows::default();
        windows.admit(of(1, 1), 10);
        windows.admit(of(2, 1), 20);
        windows.expire(15);
        assert_eq!(windows.len(), 1);
    }

    proptest! {
        /// Against a map that never forgets: nothing is applied twice, and within the window
        /// nothing is refused.
        #[test]
        fn agrees_with_a_map(
            proposals in prop::collection::vec((0..3u64, 1..600u64), 1..400),
        ) {
            let mut windows = ProducerWindows::default();
            let mut applied = BTreeMap::new();
            let mut newest = BTreeMap::new();
            for (at, (producer, sequence)) in proposals.into_iter().enumerate() {
                let index = at as Index + 1;
                let newest = newest.entry(producer).or_insert(sequence);
                *newest = sequence.max(*newest);
                let within = sequence + PRODUCER_WINDOW > *newest;
                match windows.admit(of(producer, sequence), index) {
                    Admission::Apply => {
                        prop_assert!(within);
                        prop_assert_eq!(applied.insert((producer, sequence), index), None);
                    }
                    Admission::Duplicate { applied_at } => {
                        prop_assert_eq!(applied.get(&(producer, sequence)), Some(&applied_at));
                    }
                    Admission::Forgotten => prop_assert!(!within),
                }
            }
        }
    }
}
