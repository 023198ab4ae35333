//! What one node has stored, and what it is about to store.

use flintmq_consensus::{
    Effect, Entry, Epoch, HardState, Index, Input, LogPosition, LogTerms, SnapshotId,
};
use std::collections::VecDeque;

/// A state that the store was in.
#[derive(Clone, Debug, Default)]
pub(crate) struct Version {
    pub(crate) floor: LogPosition,
    pub(crate) log: Vec<Entry>,
    pub(crate) applied: Index,
    pub(crate) rejoined: Epoch,
}

impl Version {
    pub(crate) fn terms(&self) -> LogTerms {
        LogTerms::from_positions(self.floor, self.log.iter().map(Entry::position))
    }

    fn last(&self) -> Index {
        self.log.last().map_or(self.floor.index, |entry| entry.index)
    }
}

/// The store of one node.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    pub(crate) hard: HardState,
    pub(crate) now: Version,
    /// What a power loss may bring back.
    pub(crate) versions: Vec<Version>,
    pub(crate) losses: Epoch,
    pub(crate) saves: VecDeque<(u64, HardState)>,
    pub(crate) writes: VecDeque<Effect>,
}

impl Disk {
    /// Fsyncs the oldest hard state under way.
    pub(crate) fn save(&mut self) -> Option<Input> {
        let (save, state) = self.saves.pop_front()?;
        self.hard = state;
        Some(Input::HardStateSynced { save })
    }

    /// Does the oldest write under way. Its report follows, if it has one. An error is a core that
    /// asks for what makes no sense.
    pub(crate) fn write(&mut self) -> Result<Option<Input>, &'static str> {
        let Some(effect) = self.writes.pop_front() else { return Ok(None) };
        self.versions.push(self.now.clone());
        let store = &mut self.now;
        let report = match effect {
            Effect::Append { write, truncate_from, entries } => {
                if let Some(index) = truncate_from {
                    store.log.retain(|entry| entry.index < index);
                }
                for entry in entries {
                    if entry.index != store.last() + 1 {
                        return Err("a gap in the log");
                    }
                    store.log.push(entry);
                }
                Some(Input::Appended { write })
            }
            Effect::Reset { write } => {
                *store = Version { rejoined: store.rejoined, ..Version::default() };
                Some(Input::Appended { write })
            }
            Effect::Rejoined { epoch } => {
                store.rejoined = epoch;
                None
            }
            Effect::Commit { upto } => {
                store.applied = store.applied.max(upto);
                if upto > store.last() {
                    return Err("a commit of what is not there");
                }
                None
            }
            Effect::SnapshotInstall { id, keep_log_after } => {
                let SnapshotId { position, .. } = id;
                store.log.retain(|entry| keep_log_after && entry.index > position.index);
                (store.floor, store.applied) = (position, position.index);
                Some(Input::SnapshotInstalled { id })
            }
            _ => None,
        };
        Ok(report)
    }

    /// Drops entries that the checkpoint stands for.
    pub(crate) fn compact(&mut self, index: Index) -> Option<Input> {
        let entry = self.now.log.iter().find(|entry| entry.index == index)?;
        let upto = entry.position();
        self.versions.push(self.now.clone());
        self.now.floor = upto;
        self.now.log.retain(|entry| entry.index > upto.index);
        Some(Input::Compacted { upto })
    }
}
