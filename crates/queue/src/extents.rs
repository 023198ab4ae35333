//! Extents: where the waiting messages of a queue are.
//!
//! An extent is the messages of one queue in one publish command. It is written to the store once
//! and removed once; how much of it is still needed follows from the position sets of the apps.

use std::collections::VecDeque;

use crate::codec::{Malformed, Reader, malformed, put_varint};
use crate::ids::{Index, Position};

/// The messages of one publish command, at consecutive positions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Extent {
    /// Position of the first message of the command, stored or not.
    pub(crate) first: Position,
    /// The log entry.
    pub(crate) index: Index,
    /// Arrival of all its messages, milliseconds since 1970.
    pub(crate) arrival_ms: u64,
    /// Where the header table starts in the entry.
    pub(crate) offset: u32,
    /// Messages in the command, refused ones included.
    pub(crate) count: u32,
    /// Messages that some app still needs; 0 marks a tombstone.
    pub(crate) live: u32,
    pub(crate) sizes: Sizes,
}

/// Bytes of each message of an extent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Sizes {
    /// All alike: nothing per message.
    Uniform(u32),
    /// One per message.
    Each(Box<[u32]>),
}

impl Sizes {
    pub(crate) fn new(sizes: &[u32]) -> Self {
        match sizes {
            [] => Self::Uniform(0),
            [first, rest @ ..] if rest.iter().all(|size| size == first) => Self::Uniform(*first),
            _ => Self::Each(sizes.into()),
        }
    }

    fn get(&self, ordinal: usize) -> u32 {
        match self {
            Self::Uniform(size) => *size,
            Self::Each(sizes) => sizes.get(ordinal).copied().unwrap_or(0),
        }
    }
}

impl Extent {
    /// The position after the last one.
    pub(crate) fn end(&self) -> Position {
        self.first + u64::from(self.count)
    }

    pub(crate) fn size_of(&self, position: Position) -> u32 {
        self.sizes.get((position - self.first) as usize)
    }

    /// Application data of all its messages.
    pub(crate) fn bytes(&self) -> u64 {
        match &self.sizes {
            Sizes::Uniform(size) => u64::from(*size) * u64::from(self.count),
            Sizes::Each(sizes) => sizes.iter().map(|&size| u64::from(size)).sum(),
        }
    }

    /// Application data of the messages that `bits` names, counted from position `start`.
    pub(crate) fn bytes_of(&self, start: Position, bits: u64) -> u64 {
        if let Sizes::Uniform(size) = self.sizes {
            return u64::from(size) * u64::from(bits.count_ones());
        }
        (0..64)
            .filter(|bit| bits & (1 << bit) != 0)
            .map(|bit| u64::from(self.size_of(start + bit)))
            .sum()
    }

    /// Value layout: version 1, index, arrival, offset, count (varints), then 0 and the common size
    /// or 1 and the size of each message (varints).
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.push(1);
        put_varint(out, self.index);
        put_varint(out, self.arrival_ms);
        put_varint(out, u64::from(self.offset));
        put_varint(out, u64::from(self.count));
        match &self.sizes {
            Sizes::Uniform(size) => {
                out.push(0);
                put_varint(out, u64::from(*size));
            }
            Sizes::Each(sizes) => {
                out.push(1);
                sizes.iter().for_each(|&size| put_varint(out, u64::from(size)));
            }
        }
    }

    pub(crate) fn decode(first: Position, value: &[u8]) -> Result<Self, Malformed> {
        const WHAT: &str = "extent record";
        let mut reader = Reader::new(value);
        if reader.u8(WHAT)? != 1 {
            return malformed(WHAT);
        }
        let index = reader.varint(WHAT)?;
        let arrival_ms = reader.varint(WHAT)?;
        let offset = reader.varint_u32(WHAT)?;
        let count = reader.varint_u32(WHAT)?;
        let sizes = match reader.u8(WHAT)? {
            0 => Sizes::Uniform(reader.varint_u32(WHAT)?),
            1 => {
                if count as usize > reader.remaining() {
                    return malformed(WHAT);
                }
                let sizes: Result<Vec<u32>, _> =
                    (0..count).map(|_| reader.varint_u32(WHAT)).collect();
                Sizes::Each(sizes?.into())
            }
            _ => return malformed(WHAT),
        };
        reader.finish(WHAT)?;
        if count == 0 || first.checked_add(u64::from(count)).is_none() {
            return malformed(WHAT);
        }
        Ok(Self { first, index, arrival_ms, offset, count, live: 0, sizes })
    }
}

/// The extents of a queue in the order of positions. Those that nobody needs leave from the front
/// at once; in the middle they stay as tombstones until half of all are.
#[derive(Debug, Default)]
pub(crate) struct Extents {
    list: VecDeque<Extent>,
    tombstones: usize,
    /// Where the last search ended; searches come in order.
    hint: usize,
    /// Extents at or after this position are not in the store.
    unsaved_from: Position,
    /// Extents that are in the store and no longer needed.
    removed: Vec<Position>,
}

impl Extents {
    /// Adds an extent with live messages at the end.
    pub(crate) fn push(&mut self, extent: Extent) {
        self.list.push_back(extent);
    }

    /// Adds an extent that is in the store.
    pub(crate) fn restore(&mut self, extent: Extent) -> Result<(), Malformed> {
        if self.list.back().is_some_and(|last| last.end() > extent.first) {
            return malformed("extent order");
        }
        self.unsaved_from = extent.end();
        self.list.push_back(extent);
        Ok(())
    }

    /// The extent that holds a position, tombstones included.
    pub(crate) fn find(&self, position: Position) -> Option<&Extent> {
        self.list.get(self.search(position)?)
    }

    fn search(&self, position: Position) -> Option<usize> {
        let holds = |at: usize| {
            self.list.get(at).is_some_and(|e| e.first <= position && position < e.end())
        };
        if holds(self.hint) {
            return Some(self.hint);
        }
        if holds(self.hint + 1) {
            return Some(self.hint + 1);
        }
        let at = self.list.partition_point(|extent| extent.first <= position).checked_sub(1)?;
        holds(at).then_some(at)
    }

    /// The size of a message.
    pub(crate) fn size_of(&mut self, position: Position) -> Option<u32> {
        let at = self.search(position)?;
        self.hint = at;
        Some(self.list[at].size_of(position))
    }

    /// One message of its extent is no longer needed. Returns the entry when it was the extent's
    /// last.
    pub(crate) fn release(&mut self, position: Position) -> Option<Index> {
        let at = self.search(position)?;
        self.hint = at;
        let extent = &mut self.list[at];
        extent.live = extent.live.saturating_sub(1);
        if extent.live > 0 {
            return None;
        }
        let index = extent.index;
        if extent.first < self.unsaved_from {
            self.removed.push(extent.first);
        }
        self.tombstones += 1;
        while self.list.front().is_some_and(|extent| extent.live == 0) {
            self.list.pop_front();
            self.tombstones -= 1;
            self.hint = self.hint.saturating_sub(1);
        }
        if self.tombstones > 32 && self.tombstones > self.list.len() / 2 {
            self.list.retain(|extent| extent.live > 0);
            self.tombstones = 0;
            self.hint = 0;
        }
        Some(index)
    }

    /// Drops everything; returns the entries, one per extent.
    pub(crate) fn clear(&mut self) -> Vec<Index> {
        let saved = self.list.iter().filter(|e| e.live > 0 && e.first < self.unsaved_from);
        self.removed.extend(saved.map(|extent| extent.first));
        self.tombstones = 0;
        self.hint = 0;
        self.list.drain(..).filter(|extent| extent.live > 0).map(|extent| extent.index).collect()
    }

    /// All extents, to count their live messages while the state is restored.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Extent> {
        self.list.iter_mut()
    }

    /// All extents, tombstones included.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Extent> {
        self.list.iter()
    }

    /// Extents with live messages, from the one that holds `from` on.
    pub(crate) fn live_from(&self, from: Position) -> impl Iterator<Item = &Extent> {
        let start = self.list.partition_point(|extent| extent.end() <= from);
        self.list.range(start..).filter(|extent| extent.live > 0)
    }

    /// How many extents, tombstones included, end after a position.
    pub(crate) fn count_after(&self, position: Position) -> usize {
        match self.list.back() {
            Some(last) if last.end() > position => {
                self.list.len() - self.list.partition_point(|extent| extent.end() <= position)
            }
            _ => 0,
        }
    }

    /// The newest extent.
    pub(crate) fn back(&self) -> Option<&Extent> {
        self.list.back()
    }

    /// The oldest extent with live messages.
    pub(crate) fn front(&self) -> Option<&Extent> {
        self.list.front()
    }

    /// Forgets what changed, and says it: extents to write and first positions to remove.
    pub(crate) fn take_changes(&mut self) -> (Vec<&Extent>, Vec<Position>) {
        let from = self.unsaved_from;
        self.unsaved_from = self.list.back().map_or(from, Extent::end).max(from);
        let start = self.list.partition_point(|extent| extent.first < from);
        let added = self.list.range(start..).filter(|extent| extent.live > 0).collect();
        (added, std::mem::take(&mut self.removed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn extent(first: Position, count: u32) -> Extent {
        Extent {
            first,
            index: first / 10,
            arrival_ms: 5,
            offset: 3,
            count,
            live: count,
            sizes: Sizes::Uniform(7),
        }
    }

    #[test]
    fn golden_bytes() {
        let mut out = Vec::new();
        extent(300, 3).encode(&mut out);
        assert_eq!(out, [1, 30, 5, 3, 3, 0, 7]);
        let uneven = Extent { sizes: Sizes::new(&[1, 300, 2]), ..extent(300, 3) };
        out.clear();
        uneven.encode(&mut out);
        assert_eq!(out, [1, 30, 5, 3, 3, 1, 1, 0xac, 2, 2]);
    }

    #[test]
    fn an_extent_takes_56_bytes() {
        assert_eq!(size_of::<Extent>(), 56);
    }

    #[test]
    fn dead_extents_leave_and_only_saved_ones_are_removed_from_the_store() {
        let mut extents = Extents::default();
        extents.push(extent(0, 1));
        extents.push(extent(10, 1));
        assert_eq!(extents.take_changes().0.len(), 2);
        extents.push(extent(20, 1));
        assert_eq!(extents.release(20), Some(2));
        assert_eq!(extents.release(10), Some(1));
        let (added, removed) = extents.take_changes();
        assert_eq!((added.len(), removed), (0, vec![10]));
        assert_eq!(extents.live_from(0).count(), 1);
    }

    #[test]
    fn one_message_left_behind_does_not_collect_tombstones() {
        let mut extents = Extents::default();
        extents.push(extent(0, 1));
        for first in 1..10_000 {
            extents.push(extent(first, 1));
            extents.release(first);
        }
        assert!(extents.list.len() < 200, "len={}", extents.list.len());
        assert_eq!(extents.size_of(0), Some(7));
    }

    proptest! {
        #[test]
        fn records_round_trip(
            first in 0..u64::MAX / 2, index: u64, arrival_ms: u64, offset: u32,
            sizes in prop::collection::vec(any::<u32>(), 1..20),
        ) {
            let count = sizes.len() as u32;
            let sizes = Sizes::new(&sizes);
            let extent = Extent { first, index, arrival_ms, offset, count, live: 0, sizes };
            let mut value = Vec::new();
            extent.encode(&mut value);
            prop_assert_eq!(Extent::decode(first, &value), Ok(extent));
        }

        #[test]
        fn no_bytes_panic_the_reader(first: u64, bytes: Vec<u8>) {
            let _ = Extent::decode(first, &bytes);
        }
    }
}
