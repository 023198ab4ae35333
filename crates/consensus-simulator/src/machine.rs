//! The state machine of the simulated groups: small, deterministic, and able to tell whether two
//! replicas applied the same.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use bytes::Bytes;
use flintmq_consensus::{
    Admission, Entry, EntryKind, Index, LogPosition, ProducerSequence, ProducerWindows,
};

use crate::random::Trace;

/// Numbers that a machine remembers of what it applied last: its size, and so the number of pieces
/// of its snapshot.
const RECENT: usize = 40;
/// A producer is forgotten when this many entries came since its last one.
const EXPIRE_AFTER: Index = 100_000;

/// What applying one entry came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Applied {
    /// A barrier.
    Nothing,
    /// Commands without a producer.
    Commands,
    /// A producer's proposal, for the first time.
    First(ProducerSequence),
    /// A producer's proposal that was applied with this entry.
    Again(ProducerSequence, Index),
    /// A producer's proposal of which it is not remembered whether it was applied.
    Forgotten(ProducerSequence),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Machine {
    /// The last entry applied.
    pub(crate) applied: LogPosition,
    /// Folds all that was applied, in order.
    pub(crate) digest: u64,
    windows: ProducerWindows,
    recent: VecDeque<u64>,
    counters: BTreeMap<u64, u64>,
}

/// Tells entries of different content apart.
pub(crate) fn content(entry: &Entry) -> u64 {
    let mut hash = Trace::default();
    (entry.kind, &entry.payload, entry.history).hash(&mut hash);
    hash.finish()
}

impl Machine {
    pub(crate) fn apply(&mut self, entry: &Entry) -> Applied {
        let mut hash = Trace::default();
        (self.digest, entry.index, content(entry)).hash(&mut hash);
        self.digest = hash.finish();
        self.applied = entry.position();
        if entry.index.is_multiple_of(1000) {
            self.windows.expire(entry.index.saturating_sub(EXPIRE_AFTER));
        }
        match entry.kind {
            EntryKind::Barrier => Applied::Nothing,
            EntryKind::Commands => {
                self.take(entry);
                Applied::Commands
            }
            EntryKind::Sequenced(proposal) => match self.windows.admit(proposal, entry.index) {
                Admission::Apply => {
                    self.take(entry);
                    Applied::First(proposal)
                }
                Admission::Duplicate { applied_at } => Applied::Again(proposal, applied_at),
                Admission::Forgotten => Applied::Forgotten(proposal),
            },
        }
    }

    fn take(&mut self, entry: &Entry) {
        let content = content(entry);
        *self.counters.entry(content % 4).or_default() += 1;
        self.recent.push_back(content);
        if self.recent.len() > RECENT {
            self.recent.pop_front();
        }
    }

    /// Bytes that its snapshot would have.
    pub(crate) fn size(&self) -> u64 {
        64 + 8 * (self.recent.len() + 2 * self.counters.len()) as u64
            + 40 * self.windows.len() as u64
    }
}

/// The content of snapshots, by number: pieces on the wire and on disk name the number, so what a
/// receiver puts together is checked against what the sender had.
#[derive(Debug, Default)]
pub(crate) struct Snapshots {
    contents: Vec<Arc<Machine>>,
}

impl Snapshots {
    pub(crate) fn add(&mut self, machine: Arc<Machine>) -> u64 {
        self.contents.push(machine);
        self.contents.len() as u64
    }

    pub(crate) fn machine(&self, number: u64) -> Option<&Arc<Machine>> {
        self.contents.get(usize::try_from(number.checked_sub(1)?).ok()?)
    }

    /// The piece at a cursor, and where the next one begins.
    pub(crate) fn piece(
        &self,
        number: u64,
        cursor: &[u8],
        max_bytes: u32,
    ) -> Option<(Bytes, Option<Bytes>)> {
        let size = self.machine(number)?.size();
        let at = decode_cursor(cursor)?;
        let length = u64::from(max_bytes.max(1)).min(size.checked_sub(at)?);
        let mut data = number.to_be_bytes().to_vec();
        data.extend(at.to_be_bytes());
        data.extend(length.to_be_bytes());
        let next = at + length;
        Some((data.into(), (next < size).then(|| Bytes::copy_from_slice(&next.to_be_bytes()))))
    }

    /// The machine that these pieces are all of, in order.
    pub(crate) fn assemble(&self, pieces: &[(Bytes, Bytes)]) -> Option<Arc<Machine>> {
        let mut upto = 0;
        let mut content = None;
        for (cursor, data) in pieces {
            let word = |at: usize| -> Option<u64> {
                Some(u64::from_be_bytes(data.get(8 * at..8 * at + 8)?.try_into().ok()?))
            };
            let (number, at, length) = (word(0)?, word(1)?, word(2)?);
            if decode_cursor(cursor)? != at || at != upto || content.is_some_and(|n| n != number) {
                return None;
            }
            content = Some(number);
            upto += length;
        }
        self.machine(content?).filter(|machine| machine.size() == upto).cloned()
    }
}

fn decode_cursor(cursor: &[u8]) -> Option<u64> {
    if cursor.is_empty() { Some(0) } else { Some(u64::from_be_bytes(cursor.try_into().ok()?)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(index: Index, kind: EntryKind) -> Entry {
        Entry { index, term: 1, history: 0, kind, payload: Bytes::from_static(b"x") }
    }

    #[test]
    fn a_snapshot_is_the_machine_only_with_all_pieces_in_order() {
        let mut machine = Machine::default();
        for index in 1..=30 {
            machine.apply(&entry(index, EntryKind::Commands));
        }
        let mut snapshots = Snapshots::default();
        let number = snapshots.add(Arc::new(machine.clone()));
        let mut pieces = Vec::new();
        let mut cursor = Some(Bytes::new());
        while let Some(at) = cursor {
            let (data, next) = snapshots.piece(number, &at, 50).expect("it is there");
            pieces.push((at, data));
            cursor = next;
        }
        assert!(pieces.len() > 3);
        assert_eq!(snapshots.assemble(&pieces).as_deref(), Some(&machine));
        assert_eq!(snapshots.assemble(&pieces[1..]), None);
        assert_eq!(snapshots.assemble(&pieces[..2]), None);
        pieces.swap(0, 1);
        assert_eq!(snapshots.assemble(&pieces), None);
    }

    #[test]
    fn a_repeated_proposal_changes_only_the_digest() {
        let mut machine = Machine::default();
        let proposal = ProducerSequence { producer: 1, sequence: 1 };
        assert_eq!(
            machine.apply(&entry(1, EntryKind::Sequenced(proposal))),
            Applied::First(proposal)
        );
        let before = machine.clone();
        assert_eq!(
            machine.apply(&entry(2, EntryKind::Sequenced(proposal))),
            Applied::Again(proposal, 1)
        );
        assert_eq!(machine.counters, before.counters);
        assert_ne!(machine.digest, before.digest);
    }
}
