//! Numbered messages, and the sets that tell which of them are lost or came twice.

use std::collections::BTreeMap;

use bytes::{BufMut as _, Bytes, BytesMut};

/// Bytes at the front of every payload that identify it.
pub(crate) const STAMP_SIZE: usize = 32;

/// What a payload says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) producer: u32,
    pub(crate) queue: u32,
    /// From 0, without gaps, per producer and queue.
    pub(crate) number: u64,
    /// When it should have been sent, in nanoseconds of the run's clock.
    pub(crate) intended_ns: u64,
}

impl Stamp {
    /// A payload of `filling`'s size that begins with the stamp.
    pub(crate) fn payload(self, filling: &[u8]) -> Bytes {
        let mut payload = BytesMut::with_capacity(filling.len().max(STAMP_SIZE));
        payload.put_u64(MAGIC);
        payload.put_u32(self.producer);
        payload.put_u32(self.queue);
        payload.put_u64(self.number);
        payload.put_u64(self.intended_ns);
        payload.extend_from_slice(filling.get(STAMP_SIZE..).unwrap_or_default());
        payload.freeze()
    }

    /// The stamp of a payload; `None` for what this program has not made.
    pub(crate) fn read(payload: &[u8]) -> Option<Self> {
        let stamp: &[u8; STAMP_SIZE] = payload.first_chunk()?;
        let word = |at: usize| {
            stamp[at..at + 8].iter().fold(0_u64, |word, byte| word << 8 | u64::from(*byte))
        };
        if word(0) != MAGIC {
            return None;
        }
        let ids = word(8);
        Some(Self {
            producer: (ids >> 32) as u32,
            queue: ids as u32,
            number: word(16),
            intended_ns: word(24),
        })
    }
}

/// Sets of message numbers, one per producer and queue.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    sets: BTreeMap<(u32, u32), Vec<u64>>,
    repeated: u64,
}

impl Seen {
    /// Adds a message; one that is in already counts as repeated. Numbers far beyond what a run can
    /// reach are ignored: they come from elsewhere.
    pub(crate) fn add(&mut self, producer: u32, queue: u32, number: u64) {
        if number >= MOST_NUMBERS {
            return;
        }
        let set = self.sets.entry((producer, queue)).or_default();
        let (word, bit) = ((number / 64) as usize, 1_u64 << (number % 64));
        if set.len() <= word {
            set.resize((word + 1).next_multiple_of(1024), 0);
        }
        if let Some(word) = set.get_mut(word) {
            if *word & bit != 0 {
                self.repeated += 1;
            }
            *word |= bit;
        }
    }

    /// Adds all of another set; what is in both counts as repeated.
    pub(crate) fn merge(&mut self, other: Self) {
        self.repeated += other.repeated;
        for (key, theirs) in other.sets {
            let ours = self.sets.entry(key).or_default();
            if ours.len() < theirs.len() {
                ours.resize(theirs.len(), 0);
            }
            for (our, their) in ours.iter_mut().zip(theirs) {
                self.repeated += u64::from((*our & their).count_ones());
                *our |= their;
            }
        }
    }

    /// How often a message was added that was in already.
    pub(crate) const fn repeated(&self) -> u64 {
        self.repeated
    }

    /// How many messages are here and not in `other`.
    pub(crate) fn missing_in(&self, other: &Self) -> u64 {
        let empty = Vec::new();
        self.sets
            .iter()
            .map(|(key, ours)| {
                let theirs = other.sets.get(key).unwrap_or(&empty);
                let theirs = theirs.iter().copied().chain(std::iter::repeat(0));
                ours.iter()
                    .zip(theirs)
                    .map(|(our, their)| u64::from((our & !their).count_ones()))
                    .sum::<u64>()
            })
            .sum()
    }
}

const MAGIC: u64 = u64::from_be_bytes(*b"flintmqb");
/// A set of so many takes 1 GiB.
const MOST_NUMBERS: u64 = 1 << 33;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_come_back_at_every_size() {
        let stamp = Stamp { producer: 7, queue: u32::MAX, number: 1 << 40, intended_ns: 12_345 };
        for size in [STAMP_SIZE, STAMP_SIZE + 1, 1024] {
            let payload = stamp.payload(&vec![b'x'; size]);
            assert_eq!(payload.len(), size);
            assert_eq!(Stamp::read(&payload), Some(stamp));
        }
        assert_eq!(Stamp::read(b"short"), None);
        assert_eq!(Stamp::read(&[0; 64]), None);
    }

    #[test]
    fn lost_and_repeated_messages_are_counted_over_all_consumers() {
        let mut acked = Seen::default();
        for number in 0..100_000 {
            acked.add(1, 0, number);
        }
        let (mut first, mut second) = (Seen::default(), Seen::default());
        for number in 0..100_000 {
            match number % 2 {
                0 => first.add(1, 0, number),
                _ => second.add(1, 0, number),
            }
        }
        first.add(1, 0, 4);
        second.add(1, 0, 4);
        second.add(2, 0, 4);
        first.merge(second);
        assert_eq!(first.repeated(), 2);
        assert_eq!(acked.missing_in(&first), 0);
        acked.add(1, 0, 100_000);
        acked.add(3, 3, 0);
        assert_eq!(acked.missing_in(&first), 2);
    }
}
