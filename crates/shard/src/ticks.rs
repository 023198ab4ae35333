//! When groups are looked at although nothing happens: once per second, not all at the same moment,
//! and at the times that their machines ask for.

use std::collections::BTreeSet;
use std::time::Duration;

use flintmq_consensus::{GroupId, Time};

/// Parts of a second at which other groups have their turn.
const SLOTS: usize = 16;

/// A second has so many of them.
const SLOT: Duration = Duration::from_micros(1_000_000 / SLOTS as u64);

/// The turns of all groups.
#[derive(Debug)]
pub(crate) struct Ticks {
    slots: [BTreeSet<GroupId>; SLOTS],
    /// Which slot is next, and when. None before the first look at the time.
    next: usize,
    at: Option<Time>,
    alarms: BTreeSet<(Time, GroupId)>,
}

impl Ticks {
    pub(crate) fn new() -> Self {
        Self { slots: Default::default(), next: 0, at: None, alarms: BTreeSet::new() }
    }

    /// One more group.
    pub(crate) fn add(&mut self, group: GroupId) {
        self.slots[group.0 as usize % SLOTS].insert(group);
    }

    /// One group less; `armed` is its alarm.
    pub(crate) fn remove(&mut self, group: GroupId, armed: &mut Option<Time>) {
        self.slots[group.0 as usize % SLOTS].remove(&group);
        self.set_alarm(group, armed, None);
    }

    /// Groups whose second has passed. Each at most once, however late it is.
    pub(crate) fn take_ticking(&mut self, now: Time, ticking: &mut Vec<GroupId>) {
        let mut at = self.at.unwrap_or(now);
        for _ in 0..SLOTS {
            if at > now {
                self.at = Some(at);
                return;
            }
            ticking.extend(&self.slots[self.next]);
            self.next = (self.next + 1) % SLOTS;
            at = at + SLOT;
        }
        self.at = Some(at.max(now + SLOT));
    }

    /// Sets the alarm of a group, which `armed` tells.
    pub(crate) fn set_alarm(
        &mut self,
        group: GroupId,
        armed: &mut Option<Time>,
        wanted: Option<Time>,
    ) {
        if *armed == wanted {
            return;
        }
        if let Some(at) = armed.take() {
            self.alarms.remove(&(at, group));
        }
        self.alarms.extend(wanted.map(|at| (at, group)));
        *armed = wanted;
    }

    /// The next group whose alarm has gone off. The caller forgets that it was armed.
    pub(crate) fn pop_alarm(&mut self, now: Time) -> Option<GroupId> {
        let next = self.alarms.first().copied().filter(|(at, _)| *at <= now)?;
        self.alarms.remove(&next);
        Some(next.1)
    }

    /// When there is something to do.
    pub(crate) fn next_deadline(&self) -> Option<Time> {
        let alarm = self.alarms.first().map(|(at, _)| *at);
        let ahead = (0..SLOTS).find(|ahead| !self.slots[(self.next + ahead) % SLOTS].is_empty());
        let tick = ahead.map(|ahead| self.at.unwrap_or_default() + SLOT * ahead as u32);
        [alarm, tick].into_iter().flatten().min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_group_ticks_once_per_second_and_not_all_at_once() {
        let mut ticks = Ticks::new();
        (0..64).for_each(|group| ticks.add(GroupId(group)));
        let mut seen = Vec::new();
        ticks.take_ticking(Time(0), &mut seen);
        assert_eq!(seen.len(), 4);
        for _ in 1..16 {
            let mut ticking = Vec::new();
            let due = ticks.next_deadline().unwrap();
            ticks.take_ticking(Time(due.0 - 1), &mut ticking);
            assert_eq!(ticking, [], "not before");
            ticks.take_ticking(due, &mut ticking);
            assert_eq!(ticking.len(), 4);
            seen.extend(ticking);
        }
        seen.sort_unstable();
        assert_eq!(seen, (0..64).map(GroupId).collect::<Vec<_>>());
        let mut late = Vec::new();
        ticks.take_ticking(Time::from_millis(9000), &mut late);
        assert_eq!(late.len(), 64, "each once");
        assert!(ticks.next_deadline().unwrap() > Time::from_millis(9000));
    }

    #[test]
    fn slots_without_groups_wake_nothing() {
        let mut ticks = Ticks::new();
        assert_eq!(ticks.next_deadline(), None);
        ticks.add(GroupId(3));
        ticks.take_ticking(Time(0), &mut Vec::new());
        assert_eq!(ticks.next_deadline(), Some(Time(0) + SLOT * 3));
    }

    #[test]
    fn an_alarm_that_is_set_again_goes_off_once() {
        let (mut ticks, mut armed, group) = (Ticks::new(), None, GroupId(1));
        ticks.set_alarm(group, &mut armed, Some(Time(5)));
        ticks.set_alarm(group, &mut armed, Some(Time(9)));
        assert_eq!(ticks.pop_alarm(Time(8)), None);
        assert_eq!(ticks.next_deadline(), Some(Time(9)));
        assert_eq!(ticks.pop_alarm(Time(9)), Some(group));
        assert_eq!(ticks.pop_alarm(Time(99)), None);
    }
}
