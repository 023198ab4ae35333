//! Present state of a replica, for status pages, metrics and the machines themselves.

use std::time::Duration;

use flintmq_consensus::{History, Index, NodeId, Term, Time};

/// Present state of a replica.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReplicaStatus {
    /// Who leads, as far as is known; perhaps this node, before it serves.
    pub leader: Option<NodeId>,
    /// Whether this node leads and everything committed before is there to be applied.
    pub serving: bool,
    /// Whether the group has a leader that serves, here or elsewhere, as far as is known here.
    pub led: bool,
    /// How long it had none, since this process started.
    pub leaderless: Leaderless,
    /// Whether it may have lost its tail and does not count until that is made good.
    pub recovering: bool,
    /// The term.
    pub term: Term,
    /// The history; it rises when an operator recovers a group with possible loss.
    pub history: History,
    /// Last entry known to be committed.
    pub commit_index: Index,
    /// Last entry that the machine has applied.
    pub applied_index: Index,
    /// Last entry of the log.
    pub last_index: Index,
    /// Last entry that survives a power loss.
    pub fsynced_index: Index,
    /// Payload bytes of committed entries that are not on the disk yet.
    pub at_risk_bytes: u64,
}

/// A stop watch that runs while a group has no leader, as far as this node knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leaderless {
    before: Duration,
    since: Option<Time>,
}

impl Leaderless {
    /// Takes down whether the group is led now.
    pub fn note(&mut self, led: bool, now: Time) {
        match (led, self.since) {
            (true, Some(since)) => {
                self.before += now.since(since);
                self.since = None;
            }
            (false, None) => self.since = Some(now),
            (true, None) | (false, Some(_)) => {}
        }
    }

    /// The sum of all times without a leader, until `now`.
    pub fn total(&self, now: Time) -> Duration {
        let present = self.since.map(|since| now.since(since));
        self.before + present.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_times_add_up() {
        let at = |ms: u64| Time::from_millis(ms);
        let mut leaderless = Leaderless::default();
        for (led, ms) in [(false, 0), (false, 50), (true, 100), (true, 700), (false, 1000)] {
            leaderless.note(led, at(ms));
        }
        assert_eq!(leaderless.total(at(1000)), Duration::from_millis(100));
        assert_eq!(leaderless.total(at(1250)), Duration::from_millis(350));
        leaderless.note(true, at(1300));
        assert_eq!(leaderless.total(at(9000)), Duration::from_millis(400));
    }
}
