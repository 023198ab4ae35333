//! Waiting for conditions, with a generous deadline.

use std::thread;
use std::time::{Duration, Instant};

/// How long a test waits for something that must happen. Far above what a loaded machine needs.
pub const LIMIT: Duration = Duration::from_secs(90);

/// Pause between two looks at a condition that nobody announces.
const PAUSE: Duration = Duration::from_millis(10);

/// Looks again and again until `look` finds something, and returns it.
///
/// # Panics
/// When nothing was found within [`LIMIT`]; `what` says in the panic what was waited for.
#[track_caller]
pub fn until<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    until_within(LIMIT, what, look)
}

/// [`until`] with a limit of its own, where the time itself is the promise.
#[track_caller]
pub fn until_within<T>(limit: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < limit, "waited {limit:?} in vain for: {what}");
        thread::park_timeout(PAUSE);
    }
}
