//! Measurements of a clock that is elsewhere: each is behind by the time it was on its way.

use std::collections::VecDeque;

/// Measurements that count. A clock that was set back is seen after as many.
const KEPT: usize = 8;

/// The last few measurements, as differences in microseconds.
#[derive(Clone, Debug, Default)]
pub(super) struct Samples(VecDeque<i64>);

impl Samples {
    pub(super) fn add(&mut self, ahead: i64) {
        if self.0.len() == KEPT {
            self.0.pop_front();
        }
        self.0.push_back(ahead);
    }

    /// The one that was on its way for the shortest time.
    pub(super) fn best(&self) -> Option<i64> {
        self.0.iter().max().copied()
    }

    /// How much they differ, as far as delays explain that.
    pub(super) fn spread(&self) -> i64 {
        let (least, most) = (self.0.iter().min(), self.0.iter().max());
        let spread = least.zip(most).map_or(0, |(least, most)| most - least);
        // More than this is a clock that was set.
        if spread > 1_000_000 { 0 } else { spread }
    }
}
