//! The time that consensus cores are told, and the alarm that wakes a core's owner.

use std::pin::Pin;
use std::time::Duration;

use flintmq_consensus::Time;
use tokio::time::{Instant, Sleep, sleep_until};

/// The node's monotonic clock, one for all of its groups. Clocks of different nodes are never
/// compared.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CoreClock {
    began: Instant,
}

impl CoreClock {
    /// Starts counting.
    pub(crate) fn start() -> Self {
        Self { began: Instant::now() }
    }

    /// Now.
    pub(crate) fn now(self) -> Time {
        Time::default() + self.began.elapsed()
    }

    fn instant(self, at: Time) -> Instant {
        let after = at.since(Time::default());
        // A moment that the system's clock cannot tell is never reached; a day is far enough.
        self.began
            .checked_add(after)
            .unwrap_or_else(|| Instant::now() + Duration::from_secs(24 * 60 * 60))
    }
}

/// Rings at a core's deadline. Its timer is set anew only when the deadline is another one, because
/// it is asked in every round of a busy task.
pub(crate) struct Alarm {
    clock: CoreClock,
    timer: Option<(Time, Pin<Box<Sleep>>)>,
}

impl Alarm {
    /// An alarm that is not set.
    pub(crate) fn new(clock: CoreClock) -> Self {
        Self { clock, timer: None }
    }

    /// Waits until `at`, for ever without one. May be dropped and asked again.
    pub(crate) async fn ring(&mut self, at: Option<Time>) {
        let Some(at) = at else { return std::future::pending().await };
        let instant = self.clock.instant(at);
        let (set_for, timer) =
            self.timer.get_or_insert_with(|| (at, Box::pin(sleep_until(instant))));
        if *set_for != at {
            *set_for = at;
            timer.as_mut().reset(instant);
        }
        timer.as_mut().await;
    }
}
