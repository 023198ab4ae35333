//! The window of a queue: entries at hand for delivery, so that a message is not read from the disk
//! when its consumers keep up, and a few at a time are when they do not.

use std::collections::BTreeMap;

use bytes::Bytes;
use hashbrown::HashMap;
use rustc_hash::FxBuildHasher;

use crate::extents::Extent;
use crate::ids::{Index, Position};
use crate::message::Located;

/// Application data that a queue keeps at hand.
pub(super) const WINDOW_BYTES: u64 = 4 << 20;
/// Entries that all windows of a partition keep in memory.
pub(super) const PARTITION_BYTES: usize = 64 << 20;

/// Extents at hand, by first position.
#[derive(Debug, Default)]
pub(super) struct Window {
    extents: BTreeMap<Position, Cached>,
    bytes: u64,
    /// Extents before this position were not taken in when they were applied.
    pub(super) gap_until: Position,
}

/// The messages of an extent, with the entry that holds them.
#[derive(Debug)]
pub(super) struct Cached {
    pub(super) located: Located,
    pub(super) arrival_ms: u64,
    end: Position,
    pub(super) index: Index,
    bytes: u64,
}

/// How often windows refer to each entry: entries are shared between queues.
#[derive(Debug, Default)]
pub(super) struct Pins {
    entries: HashMap<Index, (u32, usize), FxBuildHasher>,
    pub(super) bytes: usize,
}

impl Pins {
    fn add(&mut self, index: Index, entry: &Bytes) {
        let (count, _) = self.entries.entry(index).or_insert((0, entry.len()));
        if *count == 0 {
            self.bytes += entry.len();
        }
        *count += 1;
    }

    fn remove(&mut self, index: Index) {
        let Some((count, len)) = self.entries.get_mut(&index) else { return };
        *count -= 1;
        if *count == 0 {
            self.bytes -= *len;
            self.entries.remove(&index);
        }
    }
}

impl Window {
    /// The extent that holds a position, with the ordinal of the message in it.
    pub(super) fn get(&self, position: Position) -> Option<(&Cached, u32)> {
        let (first, cached) = self.extents.range(..=position).next_back()?;
        (position < cached.end).then(|| (cached, (position - first) as u32))
    }

    pub(super) fn contains(&self, first: Position) -> bool {
        self.extents.contains_key(&first)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.extents.is_empty()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn insert(&mut self, extent: &Extent, located: Located, pins: &mut Pins) {
        let (first, index, bytes) = (extent.first, extent.index, extent.bytes());
        pins.add(index, &located.entry);
        self.bytes += bytes;
        let (end, arrival_ms) = (first + u64::from(located.count), extent.arrival_ms);
        let cached = Cached { located, arrival_ms, end, index, bytes };
        if let Some(old) = self.extents.insert(first, cached) {
            self.bytes -= old.bytes;
            pins.remove(old.index);
        }
    }

    /// Lets go of extents that end at or before `before`, unless one of `keep` is in it.
    pub(super) fn trim(
        &mut self,
        before: Position,
        keep: impl Fn(Position, Position) -> bool,
        pins: &mut Pins,
    ) {
        let mut from = 0;
        while let Some((&first, cached)) = self.extents.range(from..).next()
            && cached.end <= before
        {
            from = cached.end;
            if !keep(first, cached.end) {
                self.remove(first, pins);
            }
        }
    }

    /// Lets go of everything.
    pub(super) fn clear(&mut self, pins: &mut Pins) {
        while let Some((&first, cached)) = self.extents.last_key_value() {
            self.gap_until = self.gap_until.max(cached.end);
            self.remove(first, pins);
        }
    }

    fn remove(&mut self, first: Position, pins: &mut Pins) {
        if let Some(old) = self.extents.remove(&first) {
            self.bytes -= old.bytes;
            pins.remove(old.index);
        }
    }
}
