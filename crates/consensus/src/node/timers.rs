//! When which group is to be ticked. Groups at rest are not in here and cost nothing.

use std::collections::BTreeSet;

use crate::{GroupId, Time};

/// The groups that have a timer, soonest first.
///
/// A timer is set no later than its group is due, but not moved when the deadline moves away, as it
/// does with every acknowledgement: then it goes off once in vain and is set anew.
#[derive(Clone, Debug, Default)]
pub(super) struct Timers {
    queue: BTreeSet<(Time, GroupId)>,
}

impl Timers {
    /// Sets the timer of a group, which `armed` tells, to go off at `deadline` at the latest.
    pub(super) fn arm(&mut self, group: GroupId, armed: &mut Option<Time>, deadline: Time) {
        if armed.is_some_and(|armed| armed <= deadline) {
            return;
        }
        self.cancel(group, armed);
        *armed = Some(deadline);
        self.queue.insert((deadline, group));
    }

    /// Removes the timer of a group.
    pub(super) fn cancel(&mut self, group: GroupId, armed: &mut Option<Time>) {
        if let Some(at) = armed.take() {
            self.queue.remove(&(at, group));
        }
    }

    /// The groups whose timers go off by now, soonest first. The caller forgets that they were
    /// armed.
    pub(super) fn pop_all_due(&mut self, now: Time) -> Vec<GroupId> {
        let mut due = Vec::new();
        while let Some(next) = self.queue.first().copied().filter(|(at, _)| *at <= now) {
            self.queue.remove(&next);
            due.push(next.1);
        }
        due
    }

    /// All timers.
    #[cfg(test)]
    pub(super) fn all(&self) -> &BTreeSet<(Time, GroupId)> {
        &self.queue
    }

    /// When the next timer goes off.
    pub(super) fn next(&self) -> Option<Time> {
        self.queue.first().map(|(at, _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Time = Time(5);
    const LATER: Time = Time(9);

    #[test]
    fn a_timer_moves_nearer_but_not_away() {
        let mut timers = Timers::default();
        let mut armed = None;
        timers.arm(GroupId(1), &mut armed, LATER);
        timers.arm(GroupId(1), &mut armed, SOON);
        timers.arm(GroupId(1), &mut armed, LATER);
        assert_eq!((armed, timers.next()), (Some(SOON), Some(SOON)));
        assert_eq!(timers.pop_all_due(Time(4)), []);
        assert_eq!(timers.pop_all_due(Time(5)), [GroupId(1)]);
        assert_eq!(timers.pop_all_due(LATER), [], "the later one was replaced");
    }

    #[test]
    fn cancelled_timers_do_not_go_off_and_the_others_do_in_order() {
        let mut timers = Timers::default();
        let (mut one, mut two, mut three) = (None, None, None);
        timers.arm(GroupId(1), &mut one, LATER);
        timers.arm(GroupId(2), &mut two, SOON);
        timers.arm(GroupId(3), &mut three, SOON);
        timers.cancel(GroupId(2), &mut two);
        assert_eq!(two, None);
        assert_eq!(timers.pop_all_due(LATER), [GroupId(3), GroupId(1)]);
        assert_eq!(timers.next(), None);
    }
}
