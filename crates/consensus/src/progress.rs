//! What a leader knows of one member, and how much may be on the way to it
//! (docs/internals/consensus.md#flow-control).

use std::collections::VecDeque;

use crate::{ConfigStamp, Epoch, Index, NodeId, RejoinTarget, Time};

/// How entries go to a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Flow {
    /// It is not known where the logs meet: one message at a time.
    Probe {
        /// Its answer is awaited.
        sent: bool,
    },
    /// The logs have met: messages follow each other without waiting, within the window.
    Replicate,
    /// What it needs is compacted: a snapshot is on its way.
    Snapshot,
}

/// One member, as its leader sees it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Progress {
    /// The member.
    pub node: NodeId,
    /// Greatest index that it acknowledged in this term. Never falls: what was acknowledged goes on
    /// counting even if the member lost it since (docs/internals/consensus.md#replication).
    pub matched: Index,
    /// Where its log ends for sure now; starts again at zero when its process does.
    pub acked: Index,
    /// The next entry to send.
    pub next: Index,
    /// How entries go to it.
    pub flow: Flow,
    /// Greatest index it reported as fsynced.
    pub synced: Index,
    /// The configuration that is durable there.
    pub config: ConfigStamp,
    /// The configuration by which it became a member, or which the leader found. What it
    /// acknowledged with an older one is about a log that it may have deleted since.
    pub(crate) joined: ConfigStamp,
    /// Set while it recovers.
    pub recovering: Option<Epoch>,
    pub(crate) grant: Option<RejoinTarget>,
    pub(crate) commit_sent: Index,
    pub(crate) confirmed_round: u64,
    pub(crate) quiesced: bool,
    pub(crate) retry_at: Option<Time>,
    pub(crate) retries: u32,
    /// Bytes of entries that may still be sent; none: no limit.
    pub(crate) allowance: Option<u64>,
    /// Number of the read of older entries that is under way for it.
    pub(crate) reading: Option<u64>,
    /// Last index and bytes of each message under way.
    in_flight: VecDeque<(Index, u64)>,
    in_flight_bytes: u64,
}

impl Progress {
    /// A member of which nothing is known but a guess of where its log ends.
    #[must_use]
    pub fn new(node: NodeId, next: Index) -> Self {
        Self {
            node,
            matched: 0,
            acked: 0,
            next,
            flow: Flow::Probe { sent: false },
            synced: 0,
            config: ConfigStamp::default(),
            joined: ConfigStamp::default(),
            recovering: None,
            grant: None,
            commit_sent: 0,
            confirmed_round: 0,
            quiesced: false,
            retry_at: None,
            retries: 0,
            allowance: None,
            reading: None,
            in_flight: VecDeque::new(),
            in_flight_bytes: 0,
        }
    }

    /// Entries on the way to it.
    #[must_use]
    pub fn in_flight_entries(&self) -> u64 {
        self.next.saturating_sub(self.acked + 1)
    }

    /// Bytes of entries on the way to it.
    #[must_use]
    pub fn in_flight_bytes(&self) -> u64 {
        self.in_flight_bytes
    }

    /// True when an answer is awaited.
    #[must_use]
    pub fn awaits_answer(&self) -> bool {
        match self.flow {
            Flow::Probe { sent } => sent,
            Flow::Replicate => !self.in_flight.is_empty(),
            Flow::Snapshot => true,
        }
    }

    /// True when a message may be sent to it now.
    #[must_use]
    pub fn may_send(&self, window_entries: u32, window_bytes: u64) -> bool {
        match self.flow {
            Flow::Probe { sent } => !sent,
            Flow::Replicate => {
                self.in_flight_entries() < u64::from(window_entries)
                    && self.in_flight_bytes < window_bytes
            }
            Flow::Snapshot => false,
        }
    }

    /// Notes a message with entries up to `last`, or none when `last` is before the next index.
    pub fn sent(&mut self, last: Index, bytes: u64) {
        match &mut self.flow {
            Flow::Probe { sent } => *sent = true,
            Flow::Replicate if last >= self.next => {
                self.next = last + 1;
                self.in_flight.push_back((last, bytes));
                self.in_flight_bytes += bytes;
            }
            Flow::Replicate | Flow::Snapshot => {}
        }
        if let Some(allowance) = &mut self.allowance {
            *allowance = allowance.saturating_sub(bytes);
        }
    }

    /// Takes an acknowledgement: the logs are equal up to here. True when that is news.
    pub fn acknowledged(&mut self, upto: Index) -> bool {
        let news = upto > self.acked || upto > self.matched;
        self.matched = self.matched.max(upto);
        self.acked = self.acked.max(upto);
        self.retries = 0;
        while self.in_flight.front().is_some_and(|(last, _)| *last <= upto) {
            self.in_flight_bytes -= self.in_flight.pop_front().map_or(0, |(_, bytes)| bytes);
        }
        match self.flow {
            Flow::Replicate => self.next = self.next.max(upto + 1),
            Flow::Probe { .. } => {
                self.flow = Flow::Replicate;
                self.next = upto + 1;
            }
            Flow::Snapshot => {
                if upto + 1 > self.next {
                    self.flow = Flow::Replicate;
                    self.next = upto + 1;
                }
            }
        }
        news
    }

    /// Starts again, one message at a time, from `next`.
    pub fn probe(&mut self, next: Index) {
        self.flow = Flow::Probe { sent: false };
        self.next = next.max(1);
        self.acked = self.acked.min(self.next - 1);
        self.in_flight.clear();
        self.in_flight_bytes = 0;
        self.reading = None;
        self.quiesced = false;
    }

    /// Starts again after it was out of reach, where its log most likely ends: where it was last,
    /// or where the first guess was.
    pub(crate) fn resume(&mut self, restarted: bool, last: Index) {
        let known = if restarted { self.matched } else { self.acked };
        let next = if known > 0 { known + 1 } else { self.next };
        self.probe(next.min(last + 1));
        if restarted {
            self.acked = 0;
            self.commit_sent = 0;
        }
    }

    /// Nothing is on the way to it: no memory is kept for what may come.
    pub(crate) fn shrink(&mut self) {
        self.in_flight.shrink_to_fit();
    }

    /// Waits for a snapshot at this index to arrive.
    pub(crate) fn await_snapshot(&mut self) {
        self.flow = Flow::Snapshot;
        self.in_flight.clear();
        self.in_flight_bytes = 0;
        self.reading = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: (u32, u64) = (10, 1000);

    fn replicating(acked: Index) -> Progress {
        let mut progress = Progress::new(NodeId(2), acked + 1);
        progress.acknowledged(acked);
        progress
    }

    #[test]
    fn a_probe_waits_for_its_answer() {
        let mut progress = Progress::new(NodeId(2), 8);
        assert!(progress.may_send(WINDOW.0, WINDOW.1));
        progress.sent(9, 20);
        assert!(!progress.may_send(WINDOW.0, WINDOW.1));
        assert!(progress.acknowledged(9));
        assert_eq!((progress.flow, progress.next, progress.matched), (Flow::Replicate, 10, 9));
    }

    #[test]
    fn the_window_closes_by_entries_and_by_bytes_and_opens_with_acks() {
        let mut progress = replicating(4);
        progress.sent(14, 5);
        assert!(!progress.may_send(WINDOW.0, WINDOW.1), "ten entries are on the way");
        progress.acknowledged(14);
        progress.sent(15, 1000);
        assert!(!progress.may_send(WINDOW.0, WINDOW.1), "the bytes are on the way");
        progress.acknowledged(15);
        assert_eq!((progress.in_flight_entries(), progress.in_flight_bytes()), (0, 0));
        assert!(progress.may_send(WINDOW.0, WINDOW.1));
    }

    #[test]
    fn what_was_acknowledged_goes_on_counting_after_a_restart() {
        let mut progress = replicating(9);
        progress.probe(4);
        assert_eq!((progress.matched, progress.acked, progress.next), (9, 3, 4));
        progress.acknowledged(6);
        assert_eq!((progress.matched, progress.acked, progress.next), (9, 6, 7));
    }

    #[test]
    fn sending_uses_up_the_allowance() {
        let mut progress = replicating(0);
        progress.allowance = Some(30);
        progress.sent(1, 20);
        progress.sent(2, 20);
        assert_eq!(progress.allowance, Some(0));
    }
}
