//! Which changes of a node have been made, so that one that is proposed again is not made again.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::command::ChangeId;
use crate::refusal::Refusal;

/// How many changes of one node are remembered at most. A node has no more than this many under
/// way: from the oldest that it waits for to the newest.
pub const CHANGE_WINDOW: u64 = 1024;

/// What is known of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// It was not made, and can be.
    New,
    /// It was applied, with this outcome.
    Applied(Result<(), Refusal>),
    /// Its node does not wait for it any more. If it was not made before, it will not be.
    Over,
}

/// The changes of one node's latest process.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct ChangeWindow {
    process: u64,
    /// The process does not wait for smaller numbers.
    oldest: u64,
    /// What was applied from there on; none: without refusal.
    applied: BTreeMap<u64, Option<Refusal>>,
}

impl ChangeWindow {
    /// What is known of this change of the window's node.
    pub(super) fn seen(&self, id: &ChangeId) -> Seen {
        if id.process > self.process {
            return Seen::New;
        }
        if id.process < self.process {
            return Seen::Applied(Err(Refusal::Superseded));
        }
        match self.applied.get(&id.number) {
            Some(refusal) => Seen::Applied(refusal.clone().map_or(Ok(()), Err)),
            None if id.number < self.oldest => Seen::Over,
            None => Seen::New,
        }
    }

    /// Takes down that a new change was applied.
    pub(super) fn record(&mut self, id: &ChangeId, oldest: u64, outcome: &Result<(), Refusal>) {
        if id.process > self.process {
            *self = Self { process: id.process, ..Self::default() };
        }
        self.applied.insert(id.number, outcome.as_ref().err().cloned());
        // The node keeps to the window by itself; this bounds the memory if it does not.
        let oldest = oldest.min(id.number);
        let oldest = oldest.max((id.number + 1).saturating_sub(CHANGE_WINDOW)).max(self.oldest);
        self.oldest = oldest;
        self.applied = self.applied.split_off(&oldest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(process: u64, number: u64) -> ChangeId {
        ChangeId { node: 1, process, number }
    }

    #[test]
    fn what_is_out_of_order_is_told_from_what_was_applied() {
        let mut window = ChangeWindow::default();
        window.record(&id(7, 3), 1, &Ok(()));
        assert_eq!(window.seen(&id(7, 3)), Seen::Applied(Ok(())));
        assert_eq!(window.seen(&id(7, 2)), Seen::New, "it was delayed on its way");
        window.record(&id(7, 2), 1, &Err(Refusal::Superseded));
        assert_eq!(window.seen(&id(7, 2)), Seen::Applied(Err(Refusal::Superseded)));
        window.record(&id(7, 5), 4, &Ok(()));
        assert_eq!(window.seen(&id(7, 3)), Seen::Over);
        assert_eq!(window.seen(&id(7, 1)), Seen::Over, "nobody waits for it");
        assert_eq!(window.seen(&id(7, 4)), Seen::New);
    }

    #[test]
    fn a_new_process_starts_over_and_an_old_one_is_refused() {
        let mut window = ChangeWindow::default();
        window.record(&id(7, 9), 9, &Ok(()));
        assert_eq!(window.seen(&id(8, 1)), Seen::New);
        window.record(&id(8, 1), 1, &Ok(()));
        assert_eq!(window.seen(&id(7, 10)), Seen::Applied(Err(Refusal::Superseded)));
        assert_eq!(window.seen(&id(8, 2)), Seen::New);
    }

    #[test]
    fn the_window_is_bounded_whatever_its_node_says() {
        let mut window = ChangeWindow::default();
        for number in 1..=5 * CHANGE_WINDOW {
            window.record(&id(7, number), 0, &Ok(()));
        }
        assert_eq!(window.applied.len() as u64, CHANGE_WINDOW);
    }
}
