//! How long the group has been without a leader, as far as this node knows.

use std::time::{Duration, Instant};

/// A stop watch that runs while nobody leads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Leaderless {
    before: Duration,
    since: Option<Instant>,
}

impl Leaderless {
    /// Somebody leads now, or nobody; asks for the time when that is news.
    pub(super) fn note(&mut self, led: bool, now: impl FnOnce() -> Instant) {
        match (led, self.since) {
            (true, Some(since)) => {
                self.before += now().saturating_duration_since(since);
                self.since = None;
            }
            (false, None) => self.since = Some(now()),
            (true, None) | (false, Some(_)) => {}
        }
    }

    /// The sum of all times without a leader, until `now`.
    pub(crate) fn total(&self, now: Instant) -> Duration {
        let present = self.since.map(|since| now.saturating_duration_since(since));
        self.before + present.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_times_add_up() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let mut leaderless = Leaderless::default();
        for (led, ms) in [(false, 0), (false, 50), (true, 100), (true, 700), (false, 1000)] {
            leaderless.note(led, || at(ms));
        }
        assert_eq!(leaderless.total(at(1000)), Duration::from_millis(100));
        assert_eq!(leaderless.total(at(1250)), Duration::from_millis(350));
        leaderless.note(true, || at(1300));
        assert_eq!(leaderless.total(at(9000)), Duration::from_millis(400));
    }
}
