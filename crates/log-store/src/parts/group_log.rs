//! What the writer knows of a group's log, and whether a batch fits it.
//!
//! A batch that does not fit is a bug of the caller. It is refused before it reaches the disk: a
//! hole in a log, or a truncation of applied entries, could not be repaired afterwards.

use crate::CheckpointBatch;
use crate::parts::group_record::GroupState;
use flintmq_consensus::{Entry, Index, LogPosition};
use std::collections::VecDeque;
use std::ops::RangeInclusive;

/// How far the memtables of the log family have got.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemtableProgress {
    /// How many were closed.
    pub closed: u64,
    /// The last sequence number that is in a table file.
    pub flushed_sequence: u64,
}

/// A group's log as it is once everything handed to RocksDB is written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupLog {
    /// What is kept of the group.
    pub state: GroupState,
    /// The end of the log.
    pub last: LogPosition,
    /// Counts truncations in this run of the process.
    pub truncations: u64,
    /// First index that is not in a table file yet; smaller ones may be.
    unflushed_first: Index,
    /// The database's sequence number of the last entry, and where it stood whenever a memtable was
    /// found closed that is not flushed yet.
    last_sequence: u64,
    closed_memtables: VecDeque<(u64, Index)>,
    memtables_closed: u64,
    /// Moving average of the entries' bytes.
    entry_bytes: u64,
}

impl GroupLog {
    /// A log as it is found at a start, all of it in table files.
    pub fn new(state: GroupState, last: LogPosition, entry_bytes: u64) -> Self {
        Self { state, last, unflushed_first: last.index + 1, entry_bytes, ..Self::default() }
    }

    /// The log that takes the place of this one: with this state, ending here.
    pub fn replaced(&self, state: GroupState, last: LogPosition) -> Self {
        // What was told to be fsynced of the old one says nothing about the new.
        let truncations = self.truncations + 1;
        Self { truncations, ..Self::new(state, last, self.entry_bytes) }
    }

    /// Estimated bytes of an entry.
    pub fn entry_bytes(&self) -> u64 {
        self.entry_bytes
    }

    /// The indexes to delete for a truncation; empty if it deletes nothing.
    pub fn check_truncation(&self, from: Index) -> Result<RangeInclusive<Index>, String> {
        let applied = self.applied().index;
        if from <= applied {
            return Err(format!(
                "applied entries would be truncated truncate_from={from} applied={applied}"
            ));
        }
        if from > self.last.index + 1 {
            return Err(format!(
                "truncation behind the end truncate_from={from} last={}",
                self.last.index
            ));
        }
        Ok(from..=self.last.index)
    }

    /// Takes a truncation down: `new_last` is the entry in front of it.
    pub fn truncated(&mut self, new_last: LogPosition) {
        self.last = new_last;
        self.truncations += 1;
        self.unflushed_first = self.unflushed_first.min(new_last.index + 1);
    }

    /// Checks entries to append.
    pub fn check_entries(&self, entries: &[Entry]) -> Result<(), String> {
        check_entries(self.last, entries)
    }

    /// Takes an entry down.
    pub fn appended(&mut self, last: LogPosition, bytes: usize) {
        self.last = last;
        let bytes = bytes as u64;
        self.entry_bytes = match self.entry_bytes {
            0 => bytes,
            // Confirms by the thousand between two publishes say nothing about what a dead publish
            // frees.
            large if large >= LARGE_ENTRY && bytes < LARGE_ENTRY => large,
            average => (average * 15 + bytes) / 16,
        };
    }

    /// Takes down that everything so far has at most this sequence number of the database.
    pub fn sequenced(&mut self, sequence: u64) {
        self.last_sequence = sequence;
    }

    /// Takes down how far memtables have got. To be called before entries are appended.
    pub fn memtables_moved(&mut self, memtables: MemtableProgress) {
        if self.memtables_closed != memtables.closed {
            self.memtables_closed = memtables.closed;
            self.closed_memtables.push_back((self.last_sequence, self.last.index));
        }
        while let Some((sequence, index)) = self.closed_memtables.front()
            && *sequence <= memtables.flushed_sequence
        {
            self.unflushed_first = (*index).min(self.last.index) + 1;
            self.closed_memtables.pop_front();
        }
    }

    /// Checks a checkpoint.
    pub fn check_checkpoint(&self, batch: &CheckpointBatch) -> Result<(), String> {
        let (applied, before) = (batch.applied, self.applied());
        if applied < before || applied.index < before.index {
            return Err(format!("the checkpoint goes back applied={applied:?} before={before:?}"));
        }
        if applied.index > self.last.index {
            return Err(format!(
                "the checkpoint is ahead of the log applied={} last={}",
                applied.index, self.last.index
            ));
        }
        match batch.dead_entries.iter().find(|index| **index == 0 || **index > applied.index) {
            Some(index) => Err(format!(
                "an entry that is not applied cannot be dead index={index} applied={}",
                applied.index
            )),
            None => Ok(()),
        }
    }

    /// Takes a checkpoint down.
    pub fn checkpointed(&mut self, batch: &CheckpointBatch) {
        self.state.applied = Some(batch.applied);
        if let Some(highest) = batch.dead_entries.iter().max() {
            self.state.contiguous_from = self.state.contiguous_from.max(highest + 1);
        }
    }

    /// How many of the dead entries are in table files, and their estimated bytes: what only
    /// compaction gives back.
    pub fn dead_on_disk(&self, dead: &[Index]) -> (u64, u64) {
        let old = dead.iter().filter(|index| **index < self.unflushed_first).count() as u64;
        (old, old * self.entry_bytes)
    }

    /// Up to where the group's state is applied.
    pub fn applied(&self) -> LogPosition {
        self.state.applied.unwrap_or_default()
    }
}

/// Entries from this size on are kept in blob files, where dead ones cost something.
const LARGE_ENTRY: u64 = 4 << 10;

/// Checks that `entries` fit behind `last`.
pub fn check_entries(mut last: LogPosition, entries: &[Entry]) -> Result<(), String> {
    for entry in entries {
        if last.index.checked_add(1) != Some(entry.index) {
            return Err(format!("not the next entry index={} last={}", entry.index, last.index));
        }
        if entry.term < last.term {
            return Err(format!("the term goes back term={} last_term={}", entry.term, last.term));
        }
        last = LogPosition { term: entry.term, index: entry.index };
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use flintmq_consensus::EntryKind;

    fn position(term: u64, index: u64) -> LogPosition {
        LogPosition { term, index }
    }

    fn log() -> GroupLog {
        let state = GroupState {
            applied: Some(position(1, 5)),
            contiguous_from: 1,
            ..GroupState::default()
        };
        GroupLog::new(state, position(2, 10), 0)
    }

    fn entry(term: u64, index: u64) -> Entry {
        Entry { index, term, history: 0, kind: EntryKind::Commands, payload: Bytes::new() }
    }

    #[test]
    fn only_what_is_not_applied_may_be_truncated() {
        assert_eq!(log().check_truncation(6), Ok(6..=10));
        assert!(log().check_truncation(11).unwrap().is_empty());
        assert!(log().check_truncation(5).is_err());
        assert!(log().check_truncation(0).is_err());
        assert!(log().check_truncation(12).is_err());
    }

    #[test]
    fn entries_follow_the_last_one() {
        assert_eq!(log().check_entries(&[entry(2, 11), entry(3, 12)]), Ok(()));
        assert!(log().check_entries(&[entry(2, 12)]).is_err());
        assert!(log().check_entries(&[entry(2, 10)]).is_err());
        assert!(log().check_entries(&[entry(1, 11)]).is_err());
        assert!(log().check_entries(&[entry(3, 11), entry(2, 12)]).is_err());
    }

    #[test]
    fn checkpoints_go_forward_and_kill_only_what_is_applied() {
        let batch = |applied, dead: &[u64]| CheckpointBatch {
            applied,
            dead_entries: dead.to_vec(),
            ..CheckpointBatch::default()
        };
        assert_eq!(log().check_checkpoint(&batch(position(2, 8), &[1, 8])), Ok(()));
        assert!(log().check_checkpoint(&batch(position(2, 8), &[9])).is_err());
        assert!(log().check_checkpoint(&batch(position(2, 8), &[0])).is_err());
        assert!(log().check_checkpoint(&batch(position(2, 11), &[])).is_err());
        assert!(log().check_checkpoint(&batch(position(1, 4), &[])).is_err());
        let mut log = log();
        log.checkpointed(&batch(position(2, 8), &[7, 3]));
        assert_eq!(log.state.contiguous_from, 8);
    }

    #[test]
    fn what_dies_in_its_own_memtable_needs_no_compaction() {
        let mut log = log();
        log.appended(position(2, 11), 1000);
        log.appended(position(2, 12), 1000);
        log.sequenced(50);
        assert_eq!(log.dead_on_disk(&[11, 12]), (0, 0));
        assert_eq!(log.dead_on_disk(&[10, 12]), (1, 1000), "there since the start");
        log.memtables_moved(MemtableProgress { closed: 1, flushed_sequence: 49 });
        assert_eq!(log.dead_on_disk(&[11, 12]), (0, 0), "closed, but not flushed");
        log.appended(position(2, 13), 1000);
        log.sequenced(51);
        log.memtables_moved(MemtableProgress { closed: 1, flushed_sequence: 50 });
        assert_eq!(log.dead_on_disk(&[11, 12, 13]), (2, 2000));
    }
}
