//! Snapshots in bounded numbers: each that is being sent costs its host an open view of the state
//! and a piece in memory, and thousands of groups may need one at once.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use crate::{GroupId, NodeId, Time};

/// After this long a transfer does not keep others waiting any more: its receiver may never get on.
const PATIENCE: Duration = Duration::from_secs(60);

type Transfer = (GroupId, NodeId);

/// Snapshots being sent, and those that wait for their turn.
#[derive(Clone, Debug, Default)]
pub(super) struct Transfers {
    open: BTreeSet<Transfer>,
    /// When they began, oldest first; those that ended since are still in here.
    begun: VecDeque<(Time, Transfer)>,
    waiting: VecDeque<Transfer>,
    /// What `waiting` has.
    queued: BTreeSet<Transfer>,
}

impl Transfers {
    /// A group wants to open a snapshot. True when it may at once; else it is in the queue.
    pub(super) fn ask(&mut self, now: Time, transfer: Transfer, max: usize) -> bool {
        let may = self.open.contains(&transfer) || self.has_room(max);
        if may {
            self.begin(now, transfer);
        } else if self.queued.insert(transfer) {
            self.waiting.push_back(transfer);
        }
        may
    }

    fn has_room(&self, max: usize) -> bool {
        self.open.len() < max.max(1)
    }

    fn begin(&mut self, now: Time, transfer: Transfer) {
        if self.open.insert(transfer) {
            self.begun.push_back((now, transfer));
        }
    }

    /// The next in the queue, when there is room, as long as it is still wanted.
    pub(super) fn next_turn(
        &mut self,
        now: Time,
        max: usize,
        is_wanted: impl Fn(Transfer) -> bool,
    ) -> Option<Transfer> {
        while self.has_room(max) {
            let next = self.waiting.pop_front()?;
            self.queued.remove(&next);
            if is_wanted(next) {
                self.begin(now, next);
                return Some(next);
            }
        }
        None
    }

    /// Looks which transfers of a group go on.
    pub(super) fn note(&mut self, group: GroupId, goes_on: impl Fn(NodeId) -> bool) {
        if !self.open.is_empty() {
            let (first, last) = ((group, NodeId(0)), (group, NodeId(u32::MAX)));
            let ended: Vec<Transfer> =
                self.open.range(first..=last).copied().filter(|(_, to)| !goes_on(*to)).collect();
            for transfer in ended {
                self.end(transfer);
            }
        }
    }

    fn end(&mut self, transfer: Transfer) {
        self.open.remove(&transfer);
        self.begun.retain(|(_, begun)| *begun != transfer);
    }

    /// Lets transfers that take too long not count any more.
    pub(super) fn on_time(&mut self, now: Time) {
        while let Some((_, transfer)) =
            self.begun.front().copied().filter(|(begun, _)| *begun + PATIENCE <= now)
        {
            self.end(transfer);
        }
    }

    /// When [`Self::on_time`] has something to do, if anybody waits for that.
    pub(super) fn deadline(&self) -> Option<Time> {
        self.begun.front().filter(|_| !self.waiting.is_empty()).map(|(begun, _)| *begun + PATIENCE)
    }

    /// How many wait.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TO: NodeId = NodeId(2);

    fn transfer(group: u32) -> Transfer {
        (GroupId(group), TO)
    }

    #[test]
    fn only_so_many_are_open_and_the_others_follow_in_order() {
        let mut transfers = Transfers::default();
        assert!(transfers.ask(Time(1), transfer(1), 1));
        assert!(transfers.ask(Time(1), transfer(1), 1), "it is open already");
        for group in [2, 3, 4, 2] {
            assert!(!transfers.ask(Time(1), transfer(group), 1));
        }
        assert_eq!(transfers.next_turn(Time(1), 1, |_| true), None);
        transfers.note(GroupId(1), |_| false);
        transfers.note(GroupId(2), |_| false);
        let wanted = |transfer: Transfer| transfer.0 != GroupId(2);
        assert_eq!(transfers.next_turn(Time(1), 1, wanted), Some(transfer(3)));
        assert_eq!(transfers.next_turn(Time(1), 1, wanted), None);
        assert_eq!(transfers.waiting(), 1);
    }

    #[test]
    fn a_transfer_without_end_does_not_keep_the_others_waiting_for_ever() {
        let mut transfers = Transfers::default();
        transfers.ask(Time(0), transfer(1), 1);
        assert_eq!(transfers.deadline(), None, "nobody waits");
        transfers.ask(Time(0), transfer(2), 1);
        assert_eq!(transfers.deadline(), Some(Time(0) + PATIENCE));
        transfers.on_time(Time(0) + PATIENCE);
        assert_eq!(transfers.next_turn(Time(0) + PATIENCE, 1, |_| true), Some(transfer(2)));
    }
}
