//! Random numbers that depend on nothing but a seed.

/// A generator; cheap enough to have one for every place that draws, so that leaving out a fault
/// changes as little as possible of everything else.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Random {
    state: u64,
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Random {
    /// The generator of this seed for this purpose.
    #[must_use]
    pub(crate) fn new(seed: u64, purpose: u64) -> Self {
        Self { state: mix(seed.wrapping_add(0x9e37_79b9)) ^ mix(purpose.wrapping_add(0x51_7cc1)) }
    }

    /// The next number of all 64 bits.
    pub(crate) fn number(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.state)
    }

    /// A number below `bound`; zero when that is zero.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        let wide = u128::from(self.number()) * u128::from(bound);
        u64::try_from(wide >> 64).unwrap_or(0)
    }

    /// A number from `low` to `high`, both included.
    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low) + 1)
    }

    /// True in this many of a million cases.
    pub(crate) fn chance(&mut self, per_million: u64) -> bool {
        self.below(1_000_000) < per_million
    }

    /// One of these; none of an empty list.
    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        from.get(usize::try_from(self.below(from.len() as u64)).unwrap_or(0)).copied()
    }

    /// Small mostly, large sometimes: uniform in the number of digits.
    pub(crate) fn skewed(&mut self, low: u64, high: u64) -> u64 {
        let steps = (high / low.max(1)).max(1).ilog2() + 1;
        let magnitude = u32::try_from(self.below(u64::from(steps))).unwrap_or(0);
        let top = low.max(1) << magnitude;
        self.between(low.max(1), (top << 1).min(high))
    }
}

/// Folds everything that happens into one number, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Trace(u64);

impl std::hash::Hasher for Trace {
    fn finish(&self) -> u64 {
        mix(self.0)
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x51_7c_c1_b7_27_22_0a_95);
    }

    fn write_u8(&mut self, word: u8) {
        self.write_u64(u64::from(word));
    }

    fn write_u32(&mut self, word: u32) {
        self.write_u64(u64::from(word));
    }

    fn write_usize(&mut self, word: usize) {
        self.write_u64(word as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn purposes_of_one_seed_differ_and_repeat() {
        let draw = |seed, purpose| Random::new(seed, purpose).number();
        assert_eq!(draw(1, 1), draw(1, 1));
        assert_ne!(draw(1, 1), draw(1, 2));
        assert_ne!(draw(1, 1), draw(2, 1));
    }

    #[test]
    fn draws_stay_within_their_bounds() {
        let mut random = Random::new(7, 0);
        for _ in 0..10_000 {
            assert!(random.below(3) < 3);
            assert!((5..=9).contains(&random.between(5, 9)));
            assert!((10..=5000).contains(&random.skewed(10, 5000)));
        }
        assert_eq!(random.pick::<u8>(&[]), None);
    }
}
