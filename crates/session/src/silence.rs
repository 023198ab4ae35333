//! Notices clients that have vanished without closing their connection.

use std::time::Duration;

use flintmq_consensus::Time;

use crate::settings::SessionSettings;

/// More often would be work without a use.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(10);

/// When a client was heard last, and whether it was asked since.
#[derive(Debug)]
pub(crate) struct Silence {
    interval: Duration,
    limit: Duration,
    heard: Time,
    asked: bool,
    next_look: Time,
}

/// What silence means.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing yet.
    Fine,
    /// Ask whether the client is there.
    Ask,
    /// It is not, after this time.
    Gone(Duration),
}

impl Silence {
    /// A client was heard just now.
    pub(crate) fn new(now: Time, settings: &SessionSettings) -> Self {
        let interval = settings.heartbeat_interval.max(SHORTEST_INTERVAL);
        let (limit, next_look) = (settings.idle_timeout, now + interval);
        Self { interval, limit, heard: now, asked: false, next_look }
    }

    /// Bytes came.
    pub(crate) fn heard(&mut self, now: Time) {
        (self.heard, self.asked) = (now, false);
    }

    /// When to look.
    pub(crate) fn next_look(&self) -> Time {
        self.next_look
    }

    /// Looks, if it is time to. A client that is not read from because it does not read itself is
    /// not silent: how long it may leave bytes untaken is the host's business.
    pub(crate) fn look(&mut self, now: Time, output_full: bool) -> Verdict {
        if now < self.next_look {
            return Verdict::Fine;
        }
        self.next_look = now + self.interval;
        if output_full {
            return Verdict::Fine;
        }
        let silence = now.since(self.heard);
        if !self.limit.is_zero() && silence >= self.limit {
            return Verdict::Gone(silence);
        }
        if silence >= self.interval && !std::mem::replace(&mut self.asked, true) {
            return Verdict::Ask;
        }
        Verdict::Fine
    }
}
