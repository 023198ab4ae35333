//! How long to wait before a peer is dialled again.

use std::time::Duration;

use crate::random::Random;

/// Doubles with each failure, from the shortest wait to the longest, and draws each wait from the
/// upper half, so that nodes that lost each other at one time do not dial at one time.
#[derive(Debug)]
pub(crate) struct Backoff {
    min: Duration,
    max: Duration,
    next: Duration,
    random: Random,
}

impl Backoff {
    pub(crate) fn new(min: Duration, max: Duration, seed: u64) -> Self {
        Self { min, max, next: min, random: Random::new(seed) }
    }

    /// The wait after one more failure.
    pub(crate) fn after_failure(&mut self) -> Duration {
        let wait = self.next.mul_f64(0.5 + self.random.fraction() / 2.0);
        self.next = self.next.saturating_mul(2).min(self.max);
        wait
    }

    /// A connection was of use: the next failure is the first again.
    pub(crate) fn reset(&mut self) {
        self.next = self.min;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_longest_and_begin_anew() {
        let (min, max) = (Duration::from_millis(50), Duration::from_millis(400));
        let mut backoff = Backoff::new(min, max, 1);
        for longest in [50, 100, 200, 400, 400, 400] {
            let longest = Duration::from_millis(longest);
            let wait = backoff.after_failure();
            assert!(wait >= longest / 2 && wait <= longest, "{wait:?} of {longest:?}");
        }
        backoff.reset();
        assert!(backoff.after_failure() <= min);
    }
}
