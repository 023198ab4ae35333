//! Seeded draws for election delays.

use std::time::Duration;

/// A generator of evenly spread numbers (SplitMix64: Steele, Lea and Flood, OOPSLA 2014). Small
/// enough to be part of every replica's state, and comparable, which generators of the usual crates
/// are not. Delays need no more quality.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Jitter(u64);

impl Jitter {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The seed for one of many, each of which is to draw numbers of its own.
    pub(crate) fn fork(&self, which: u64) -> u64 {
        Self(self.0 ^ Self(which).next()).next()
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A duration between the two, evenly. Draws nothing when there is no choice, so that a fixed
    /// delay leaves the state as it was.
    pub(crate) fn between(&mut self, min: Duration, max: Duration) -> Duration {
        let span = max.saturating_sub(min).as_micros();
        let Ok(span @ 1..) = u64::try_from(span) else { return min };
        min + Duration::from_micros(self.next() % (span + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_stay_between_the_bounds_and_differ() {
        let (min, max) = (Duration::from_millis(50), Duration::from_millis(300));
        let mut jitter = Jitter::new(7);
        let drawn: Vec<_> = (0..100).map(|_| jitter.between(min, max)).collect();
        assert!(drawn.iter().all(|d| (min..=max).contains(d)));
        assert!(drawn.windows(2).any(|pair| pair[0] != pair[1]));
    }

    #[test]
    fn a_fixed_delay_draws_nothing() {
        let mut jitter = Jitter::new(7);
        let delay = Duration::from_millis(5);
        assert_eq!(jitter.between(delay, delay), delay);
        assert_eq!(jitter, Jitter::new(7));
    }
}
