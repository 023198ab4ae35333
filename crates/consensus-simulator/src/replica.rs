//! What a node's store holds of one group, and the operations that change it.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use flintmq_consensus::{
    CreationId, Entry, Epoch, GroupId, Index, LogPosition, LogTerms, SnapshotId, Term,
};

use crate::machine::Machine;

/// The stored log: everything above the floor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Log {
    pub(crate) floor: LogPosition,
    entries: VecDeque<Entry>,
}

impl Log {
    pub(crate) fn last(&self) -> LogPosition {
        self.entries.back().map_or(self.floor, Entry::position)
    }

    pub(crate) fn get(&self, index: Index) -> Option<&Entry> {
        let offset = index.checked_sub(self.floor.index + 1)?;
        self.entries.get(usize::try_from(offset).ok()?)
    }

    pub(crate) fn term_at(&self, index: Index) -> Option<Term> {
        if index == self.floor.index {
            return Some(self.floor.term);
        }
        self.get(index).map(|entry| entry.term)
    }

    pub(crate) fn truncate_from(&mut self, index: Index) {
        let keep = index.saturating_sub(self.floor.index + 1);
        self.entries.truncate(usize::try_from(keep).unwrap_or(usize::MAX));
    }

    fn compact(&mut self, upto: LogPosition) {
        while self.entries.front().is_some_and(|entry| entry.index <= upto.index) {
            self.entries.pop_front();
        }
        if upto.index > self.floor.index {
            self.floor = upto;
        }
    }

    pub(crate) fn shape(&self) -> LogTerms {
        LogTerms::from_positions(self.floor, self.entries.iter().map(Entry::position))
    }

    /// Entries behind `after` up to `upto`: at least one, then as many as fit; none when the first
    /// is not there.
    pub(crate) fn read(&self, after: Index, upto: Index, max_bytes: u32) -> Vec<Entry> {
        let mut bytes = 0;
        let mut found = Vec::new();
        for index in after + 1..=upto {
            let Some(entry) = self.get(index) else { break };
            bytes += entry.payload.len();
            if !found.is_empty() && bytes > usize::try_from(max_bytes).unwrap_or(usize::MAX) {
                break;
            }
            found.push(entry.clone());
        }
        found
    }
}

/// Pieces of a snapshot that is arriving.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Staged {
    pub(crate) id: SnapshotId,
    pub(crate) pieces: Vec<(Bytes, Bytes)>,
}

/// One group in a node's store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Replica {
    pub(crate) creation: CreationId,
    pub(crate) log: Log,
    /// The last checkpoint of the state machine.
    pub(crate) machine: Arc<Machine>,
    pub(crate) rejoined: Epoch,
    pub(crate) staged: Option<Staged>,
}

impl Replica {
    pub(crate) fn new(creation: CreationId, epoch: Epoch) -> Self {
        Self {
            creation,
            log: Log::default(),
            machine: Arc::default(),
            rejoined: epoch,
            staged: None,
        }
    }
}

/// One atomic change of the store.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub(crate) group: GroupId,
    pub(crate) action: Action,
}

#[derive(Clone, Debug)]
pub(crate) enum Action {
    Append { truncate_from: Option<Index>, entries: Vec<Entry> },
    Reset,
    Checkpoint { machine: Arc<Machine>, floor: LogPosition },
    Stage { id: SnapshotId, cursor: Bytes, data: Bytes },
    Install { id: SnapshotId, keep_log_after: bool, machine: Arc<Machine> },
    Rejoined { epoch: Epoch },
    Delete,
}

impl Action {
    /// Carries the action out. Fails when the order of writes that the core is promised was not
    /// kept, or the core asks for what does not fit what is there.
    pub(crate) fn apply(&self, replica: &mut Replica) -> Result<(), String> {
        match self {
            Self::Append { truncate_from, entries } => {
                if let Some(index) = truncate_from {
                    if *index <= replica.log.floor.index {
                        return Err(format!("cut at {index}, at or below the floor"));
                    }
                    replica.log.truncate_from(*index);
                }
                for entry in entries {
                    let last = replica.log.last();
                    if entry.index != last.index + 1 || entry.term < last.term {
                        return Err(format!("{:?} written behind {last:?}", entry.position()));
                    }
                    replica.log.entries.push_back(entry.clone());
                }
            }
            Self::Reset => {
                replica.log = Log::default();
                replica.machine = Arc::default();
                replica.staged = None;
            }
            Self::Checkpoint { machine, floor } => {
                if machine.applied.index < floor.index {
                    return Err(format!("floor {floor:?} beyond the checkpoint"));
                }
                replica.machine = Arc::clone(machine);
                replica.log.compact(*floor);
            }
            Self::Stage { id, cursor, data } => {
                let goes_on = !cursor.is_empty();
                match &mut replica.staged {
                    Some(staged) if goes_on && staged.id == *id => {
                        staged.pieces.push((cursor.clone(), data.clone()));
                    }
                    staged => {
                        let pieces = vec![(cursor.clone(), data.clone())];
                        *staged = Some(Staged { id: *id, pieces });
                    }
                }
            }
            Self::Install { id, keep_log_after, machine } => {
                if *keep_log_after {
                    if replica.log.term_at(id.position.index) != Some(id.position.term) {
                        return Err(format!("kept a log that does not have {:?}", id.position));
                    }
                    replica.log.compact(id.position);
                } else {
                    replica.log = Log { floor: id.position, entries: VecDeque::new() };
                }
                replica.machine = Arc::clone(machine);
                replica.staged = None;
            }
            Self::Rejoined { epoch } => replica.rejoined = *epoch,
            Self::Delete => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flintmq_consensus::EntryKind;

    fn append(from: Option<Index>, terms: &[(Index, Term)]) -> Action {
        let entries = terms
            .iter()
            .map(|(index, term)| Entry {
                index: *index,
                term: *term,
                history: 0,
                kind: EntryKind::Commands,
                payload: Bytes::from_static(b"x"),
            })
            .collect();
        Action::Append { truncate_from: from, entries }
    }

    #[test]
    fn a_log_is_cut_read_and_compacted() {
        let mut replica = Replica::new(CreationId(1), 0);
        append(None, &[(1, 1), (2, 1), (3, 1)]).apply(&mut replica).expect("fits");
        append(Some(3), &[(3, 2), (4, 2)]).apply(&mut replica).expect("fits");
        assert_eq!(replica.log.last(), LogPosition { term: 2, index: 4 });
        assert_eq!(replica.log.read(1, 3, 0).len(), 1, "at least one");
        assert_eq!(replica.log.read(1, 9, 1000).len(), 3);
        let applied = LogPosition { term: 1, index: 2 };
        let mut machine = Machine::default();
        machine.applied = applied;
        let machine = Arc::new(machine);
        Action::Checkpoint { machine, floor: applied }.apply(&mut replica).expect("fits");
        assert_eq!(replica.log.read(1, 9, 1000), [], "compacted");
        assert_eq!(replica.log.shape().term_at(2), Some(1));
        assert!(append(None, &[(9, 2)]).apply(&mut replica).is_err(), "a gap");
        assert!(append(Some(2), &[]).apply(&mut replica).is_err(), "below the floor");
    }
}
