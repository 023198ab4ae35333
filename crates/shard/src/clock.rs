//! The cluster's time, as the machines of a shard see it.

use std::time::Duration;

use flintmq_consensus::{ClockReading, ClockState, Time};

/// How long a node that does not know the time leads no group. After that a group is worth more
/// than its stamps: it is led, and nothing of it expires.
const UNKNOWN_FOR: Duration = Duration::from_secs(10);

/// The last reading, without its ways back.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct GroupTime {
    reading: Option<ClockReading>,
    /// When the first reading came.
    since: Time,
    /// The latest time that was shown.
    shown_ms: u64,
    known: bool,
}

impl GroupTime {
    /// Takes a reading up. True when groups may be led from now on that had to wait for it.
    pub(crate) fn told(&mut self, now: Time, reading: ClockReading) -> bool {
        let could_lead = self.may_lead(now);
        if self.reading.is_none() {
            self.since = now;
        }
        if !self.known && reading.state != ClockState::Unknown {
            self.known = true;
            // What was shown before was a guess.
            self.shown_ms = 0;
        }
        self.reading = Some(reading);
        self.shown_ms = self.ms(now);
        !could_lead && self.may_lead(now)
    }

    /// Milliseconds since 1970. Goes back at most once, when the time becomes known.
    pub(crate) fn ms(&self, now: Time) -> u64 {
        self.reading.map_or(0, |reading| reading.wall_ms(now)).max(self.shown_ms)
    }

    /// Whether data may expire by it.
    pub(crate) fn is_trusted(&self) -> bool {
        self.reading.is_some_and(|reading| reading.is_trusted())
    }

    /// Whether this node's own clock contradicts those of the others.
    pub(crate) fn is_off(&self) -> bool {
        self.reading.is_some_and(|reading| reading.state == ClockState::Off)
    }

    /// Whether entries may be stamped with it.
    pub(crate) fn may_lead(&self, now: Time) -> bool {
        self.known || (self.reading.is_some() && now.since(self.since) >= UNKNOWN_FOR)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 86_400_000;

    fn at(millis: u64) -> Time {
        Time::from_millis(millis)
    }

    #[test]
    fn it_never_goes_back_once_it_is_known() {
        let mut time = GroupTime::default();
        time.told(at(0), ClockReading::new(at(0), 9 * DAY, ClockState::Unknown));
        assert_eq!(time.ms(at(5)), 9 * DAY + 5, "a guess");
        time.told(at(10), ClockReading::new(at(10), DAY, ClockState::Good));
        assert_eq!((time.ms(at(10)), time.is_trusted()), (DAY, true));
        time.told(at(20), ClockReading::new(at(20), DAY - 1000, ClockState::Off));
        assert_eq!((time.ms(at(20)), time.is_trusted(), time.is_off()), (DAY, false, true));
    }

    #[test]
    fn nothing_is_led_before_the_time_is_known_or_it_took_too_long() {
        let unknown = ClockReading::new(at(0), DAY, ClockState::Unknown);
        let mut time = GroupTime::default();
        assert!(!time.told(at(0), unknown) && !time.may_lead(at(9_999)));
        assert!(time.told(at(5), ClockReading::new(at(5), DAY, ClockState::Good)));
        assert!(time.may_lead(at(5)));
        let mut alone = GroupTime::default();
        alone.told(at(0), unknown);
        assert!(alone.may_lead(at(10_000)) && !alone.is_trusted());
    }
}
