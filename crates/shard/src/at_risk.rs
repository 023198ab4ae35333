//! What would be lost if this machine lost its power now.

use std::collections::VecDeque;

use flintmq_consensus::Index;

/// Payload bytes of applied entries that are not on the disk yet.
#[derive(Debug, Default)]
pub(crate) struct AtRisk {
    /// Each of them, oldest first.
    entries: VecDeque<(Index, u64)>,
    bytes: u64,
}

impl AtRisk {
    /// An entry was applied before it was fsynced.
    pub(crate) fn add(&mut self, index: Index, bytes: usize) {
        self.entries.push_back((index, bytes as u64));
        self.bytes += bytes as u64;
    }

    /// The log is on the disk up to this index.
    pub(crate) fn synced(&mut self, upto: Index) {
        while self.entries.front().is_some_and(|(index, _)| *index <= upto) {
            self.bytes -= self.entries.pop_front().map_or(0, |(_, bytes)| bytes);
        }
    }

    /// The bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }
}
