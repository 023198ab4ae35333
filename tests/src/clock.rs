//! The machine's monotonic clock, the same for all processes.

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds of the clock that Python's `time.monotonic_ns` shows, too.
pub fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    seconds * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or_default()
}
