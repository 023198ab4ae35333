//! Elections in bounded numbers: when a node dies, thousands of groups lose their leader at once.

use std::collections::VecDeque;
use std::time::Duration;

use crate::{GroupId, Time};

/// What a group remembers of its part in this.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Standing {
    /// It scouts, stands or synchronises.
    pub(super) electing: bool,
    /// Since when that counts.
    counted: Option<Time>,
    /// It waits for its turn.
    pub(super) waiting: bool,
}

#[cfg(test)]
impl Standing {
    pub(super) fn is_counted(&self) -> bool {
        self.counted.is_some()
    }
}

/// The elections under way, and the groups that wait for their turn, first come first served.
#[derive(Clone, Debug, Default)]
pub(super) struct Elections {
    /// Elections that count.
    active: usize,
    /// When they began, oldest first; those that ended since are still in here.
    begun: VecDeque<(Time, GroupId)>,
    waiting: VecDeque<GroupId>,
    /// Groups that wait and cannot reach a quorum: their turn comes when no other waits.
    unreachable: VecDeque<GroupId>,
}

impl Elections {
    /// Takes note of whether a group is electing. True when an election began.
    pub(super) fn note(
        &mut self,
        now: Time,
        group: GroupId,
        standing: &mut Standing,
        electing: bool,
    ) -> bool {
        let began = electing && !standing.electing;
        if began {
            standing.counted = Some(now);
            self.active += 1;
            self.begun.push_back((now, group));
        } else if !electing && standing.counted.take().is_some() {
            self.active -= 1;
        }
        if self.active == 0 {
            self.begun.clear();
        }
        standing.electing = electing;
        began
    }

    /// Lets a group wait for its turn.
    pub(super) fn hold(&mut self, group: GroupId, standing: &mut Standing, reachable: bool) {
        if !standing.waiting {
            standing.waiting = true;
            let queue = if reachable { &mut self.waiting } else { &mut self.unreachable };
            queue.push_back(group);
        }
    }

    /// The next group whose turn it is, when there is room. It may have what it waited for by now.
    pub(super) fn next_turn(&mut self, max: usize) -> Option<GroupId> {
        if self.active >= max.max(1) {
            return None;
        }
        self.waiting.pop_front().or_else(|| self.unreachable.pop_front())
    }

    /// True when an election may begin now: there is room, and nobody came before.
    pub(super) fn has_room(&self, max: usize) -> bool {
        self.active < max.max(1) && self.waiting.is_empty()
    }

    /// A peer can be reached: those who could not reach a quorum may now.
    pub(super) fn retry_unreachable(&mut self) {
        self.waiting.append(&mut self.unreachable);
    }

    /// An election that began so long ago that it must not hold up others any more. Its group may
    /// be gone, or have gone on; [`Self::uncount`] tells.
    pub(super) fn pop_overdue(&mut self, now: Time, limit: Duration) -> Option<(Time, GroupId)> {
        let overdue = self.begun.front().is_some_and(|(began, _)| *began + limit <= now);
        if overdue { self.begun.pop_front() } else { None }
    }

    /// The election that began then is not counted any more. True when it was.
    pub(super) fn uncount(&mut self, began: Time, standing: &mut Standing) -> bool {
        let counted = standing.counted == Some(began);
        if counted {
            standing.counted = None;
            self.active -= 1;
        }
        counted
    }

    /// When [`Self::pop_overdue`] has the next one, if anybody waits for that.
    pub(super) fn next_overdue(&self, limit: Duration) -> Option<Time> {
        let waits = !self.waiting.is_empty() || !self.unreachable.is_empty();
        self.begun.front().filter(|_| waits).map(|(began, _)| *began + limit)
    }

    /// Groups that wait for their turn.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> impl Iterator<Item = &GroupId> {
        self.waiting.iter().chain(&self.unreachable)
    }

    /// Elections that count.
    #[cfg(test)]
    pub(super) fn active(&self) -> usize {
        self.active
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_micros(100);

    #[test]
    fn the_bound_holds_and_turns_come_in_order() {
        let mut elections = Elections::default();
        let mut standings = [Standing::default(); 5];
        elections.note(Time(1), GroupId(0), &mut standings[0], true);
        assert!(elections.has_room(2));
        elections.note(Time(1), GroupId(1), &mut standings[1], true);
        assert!(!elections.has_room(2));
        elections.hold(GroupId(4), &mut standings[4], false);
        elections.hold(GroupId(2), &mut standings[2], true);
        elections.hold(GroupId(2), &mut standings[2], true);
        elections.hold(GroupId(3), &mut standings[3], true);
        assert_eq!(elections.next_turn(2), None);
        elections.note(Time(2), GroupId(0), &mut standings[0], false);
        assert!(!elections.has_room(2), "others came before");
        assert_eq!(elections.next_turn(2), Some(GroupId(2)));
        assert_eq!(elections.next_turn(2), Some(GroupId(3)));
        assert_eq!(elections.next_turn(2), Some(GroupId(4)));
        assert_eq!(elections.next_turn(2), None);
    }

    #[test]
    fn an_election_without_end_does_not_hold_up_the_others_for_ever() {
        let mut elections = Elections::default();
        let mut standings = [Standing::default(); 2];
        elections.note(Time(0), GroupId(0), &mut standings[0], true);
        elections.hold(GroupId(1), &mut standings[1], true);
        assert_eq!(elections.next_overdue(LIMIT), Some(Time(100)));
        assert_eq!(elections.pop_overdue(Time(99), LIMIT), None);
        assert_eq!(elections.pop_overdue(Time(100), LIMIT), Some((Time(0), GroupId(0))));
        assert!(elections.uncount(Time(0), &mut standings[0]));
        assert_eq!(elections.next_turn(1), Some(GroupId(1)));
        elections.note(Time(101), GroupId(0), &mut standings[0], false);
        assert_eq!(elections.active(), 0, "its end is not counted twice");
    }

    #[test]
    fn a_later_election_of_the_same_group_is_another_one() {
        let mut elections = Elections::default();
        let (mut standing, mut other) = (Standing::default(), Standing::default());
        elections.note(Time(0), GroupId(0), &mut standing, true);
        elections.note(Time(0), GroupId(1), &mut other, true);
        elections.note(Time(10), GroupId(0), &mut standing, false);
        elections.note(Time(20), GroupId(0), &mut standing, true);
        let (began, _) = elections.pop_overdue(Time(100), LIMIT).expect("the first");
        assert!(!elections.uncount(began, &mut standing));
        assert_eq!(elections.active(), 2);
    }

    #[test]
    fn who_could_not_reach_a_quorum_lines_up_when_a_peer_returns() {
        let mut elections = Elections::default();
        let mut standings = [Standing::default(); 2];
        elections.hold(GroupId(0), &mut standings[0], false);
        elections.retry_unreachable();
        elections.hold(GroupId(1), &mut standings[1], true);
        assert_eq!(elections.next_turn(1), Some(GroupId(0)));
    }
}
