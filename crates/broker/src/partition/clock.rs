//! The clocks of a partition: the wall clock that stamps messages, and how often it is looked at.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How often the clock is looked at. Also the longest that an idle partition's checkpoint waits.
pub(super) const TICK: Duration = Duration::from_secs(1);

/// Milliseconds since 1970.
pub(super) fn wall_clock_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
