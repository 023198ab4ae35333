//! Random numbers that depend on nothing but a seed.

/// A generator. There is one for each purpose, so that leaving out a fault changes little else.
#[derive(Clone, Debug)]
pub(crate) struct Random {
    state: u64,
}

/// What a generator is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    Profile = 1,
    Faults = 2,
    Network = 3,
    Disks = 4,
    Hosts = 5,
    Clients = 6,
    Injection = 7,
}

const fn scramble(mut word: u64) -> u64 {
    word ^= word >> 33;
    word = word.wrapping_mul(0xff51_afd7_ed55_8ccd);
    word ^= word >> 33;
    word = word.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    word ^ (word >> 33)
}

impl Random {
    pub(crate) fn new(seed: u64, purpose: Purpose) -> Self {
        Self::numbered(seed, purpose, 0)
    }

    /// One of several of the same purpose.
    pub(crate) fn numbered(seed: u64, purpose: Purpose, number: u64) -> Self {
        let place = (purpose as u64) << 32 | number;
        Self { state: scramble(seed ^ scramble(place.wrapping_add(0x5eed))) }
    }

    pub(crate) fn number(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        scramble(self.state)
    }

    /// Below `bound`; zero when that is zero.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        let product = u128::from(self.number()) * u128::from(bound);
        u64::try_from(product >> 64).unwrap_or_default()
    }

    /// From `low` to `high`, both included.
    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low).saturating_add(1))
    }

    /// True in so many of a thousand cases.
    pub(crate) fn chance(&mut self, per_mille: u64) -> bool {
        self.below(1000) < per_mille
    }

    /// One of these; none of an empty list.
    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        from.get(usize::try_from(self.below(from.len() as u64)).unwrap_or_default()).copied()
    }

    /// Small mostly, large sometimes: uniform in the number of binary digits.
    pub(crate) fn skewed(&mut self, low: u64, high: u64) -> u64 {
        let low = low.max(1);
        let digits = u64::from((high / low).max(1).ilog2()) + 1;
        let top = low << self.below(digits);
        self.between(low, top.saturating_mul(2).min(high))
    }
}

/// Folds all that happens into one number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Trace(u64);

impl Trace {
    pub(crate) fn fold(&mut self, word: u64) {
        self.0 = scramble(self.0.rotate_left(7) ^ word);
    }

    pub(crate) fn fold_bytes(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.fold(u64::from_le_bytes(word));
        }
    }

    pub(crate) fn hash(self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_repeat_by_seed_and_purpose_and_stay_in_bounds() {
        let draw = |seed, purpose| Random::new(seed, purpose).number();
        assert_eq!(draw(1, Purpose::Disks), draw(1, Purpose::Disks));
        assert_ne!(draw(1, Purpose::Disks), draw(1, Purpose::Network));
        assert_ne!(draw(1, Purpose::Disks), draw(2, Purpose::Disks));
        let mut random = Random::new(7, Purpose::Hosts);
        for _ in 0..10_000 {
            assert!(random.below(3) < 3);
            assert!((5..=9).contains(&random.between(5, 9)));
            assert!((10..=5000).contains(&random.skewed(10, 5000)));
        }
        assert_eq!(random.pick::<u8>(&[]), None);
    }
}
