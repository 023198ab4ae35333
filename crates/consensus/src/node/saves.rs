//! Hard states of many groups, fsynced together.

use std::collections::{BTreeMap, VecDeque};

use crate::{CreationId, GroupId, HardState, NodeEffect};

/// A save that a group waits for: its group, and its number there.
pub(super) type Saved = (GroupId, CreationId, u64);

/// States that wait for the next batch, and batches on their way to the disk.
#[derive(Clone, Debug, Default)]
pub(super) struct Saves {
    pending: BTreeMap<GroupId, (CreationId, u64, HardState)>,
    issued: u64,
    under_way: VecDeque<(u64, Vec<Saved>)>,
}

impl Saves {
    /// Adds a state; a later one of the same group takes the place of an earlier.
    pub(super) fn push(
        &mut self,
        group: GroupId,
        creation: CreationId,
        save: u64,
        state: HardState,
    ) {
        self.pending.insert(group, (creation, save, state));
    }

    /// States that wait for the next batch.
    pub(super) fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Everything that waits, as one batch, if there is anything.
    pub(super) fn take_batch(&mut self) -> Option<NodeEffect> {
        if self.pending.is_empty() {
            return None;
        }
        self.issued += 1;
        let mut saved = Vec::with_capacity(self.pending.len());
        let mut states = Vec::with_capacity(self.pending.len());
        for (group, (creation, save, state)) in std::mem::take(&mut self.pending) {
            saved.push((group, creation, save));
            states.push((group, creation, state));
        }
        self.under_way.push_back((self.issued, saved));
        Some(NodeEffect::SaveHardStates { batch: self.issued, states })
    }

    /// A group is removed: what its reports would say is of no interest to a later one of the same
    /// number, which counts its saves anew.
    pub(super) fn forget(&mut self, group: GroupId) {
        self.pending.remove(&group);
        for (_, saved) in &mut self.under_way {
            saved.retain(|(id, ..)| *id != group);
        }
    }

    /// What the report of this batch, and thereby of all before it, answers.
    pub(super) fn on_synced(&mut self, batch: u64) -> Vec<Saved> {
        let mut all = Vec::new();
        while self.under_way.front().is_some_and(|(number, _)| *number <= batch) {
            all.extend(self.under_way.pop_front().into_iter().flat_map(|(_, saved)| saved));
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BORN: CreationId = CreationId(7);

    fn state(term: u64) -> HardState {
        HardState { term, ..HardState::default() }
    }

    #[test]
    fn a_batch_has_the_newest_state_of_each_group() {
        let mut saves = Saves::default();
        assert_eq!(saves.take_batch(), None);
        saves.push(GroupId(2), BORN, 1, state(1));
        saves.push(GroupId(1), BORN, 1, state(1));
        saves.push(GroupId(2), BORN, 2, state(2));
        let states = vec![(GroupId(1), BORN, state(1)), (GroupId(2), BORN, state(2))];
        assert_eq!(saves.take_batch(), Some(NodeEffect::SaveHardStates { batch: 1, states }));
        assert_eq!(saves.take_batch(), None);
        assert_eq!(saves.on_synced(1), [(GroupId(1), BORN, 1), (GroupId(2), BORN, 2)]);
        assert_eq!(saves.on_synced(1), []);
    }

    #[test]
    fn a_removed_group_is_not_reported() {
        let mut saves = Saves::default();
        saves.push(GroupId(1), BORN, 1, state(1));
        saves.push(GroupId(2), BORN, 1, state(1));
        saves.take_batch();
        saves.push(GroupId(1), BORN, 2, state(2));
        saves.forget(GroupId(1));
        assert_eq!(saves.take_batch(), None);
        assert_eq!(saves.on_synced(1), [(GroupId(2), BORN, 1)]);
    }

    #[test]
    fn a_report_stands_for_the_batches_before_it() {
        let mut saves = Saves::default();
        for save in 1..=3 {
            saves.push(GroupId(1), BORN, save, state(save));
            saves.take_batch();
        }
        assert_eq!(saves.on_synced(2).len(), 2);
        assert_eq!(saves.on_synced(3), [(GroupId(1), BORN, 3)]);
    }
}
