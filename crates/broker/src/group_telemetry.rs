//! What one group says of itself, as metrics. A node may have a thousand groups, most of them at
//! rest: their series are looked up once, and nothing is set that stays as it is.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use flintmq_consensus::{NodeId, Time};
use metrics::{Counter, Gauge};

use crate::metrics::{
    GROUP_APPLIED_INDEX, GROUP_AT_RISK_BYTES, GROUP_AT_RISK_ENTRIES, GROUP_AT_RISK_SECONDS,
    GROUP_COMMIT_INDEX, GROUP_FOLLOWER_LAG, GROUP_FSYNCED_INDEX, GROUP_IS_LEADER, GROUP_RECOVERING,
    GROUP_TERM, LEADERLESS,
};
use flintmq_shard::{GroupView, ReplicaStatus};

/// Samples after which a group at rest is asked for its followers all the same: members come and go
/// without a word in the log.
const ASK_AT_REST: u32 = 10;

/// The series of one group, and what they were last set to.
pub(crate) struct GroupSample {
    group: String,
    series: Series,
    last: Option<ReplicaStatus>,
    /// Since when something committed has not been on the disk, and up to which index it was.
    at_risk: Option<(Instant, u64)>,
    /// The lag of each follower while this node leads.
    lags: BTreeMap<NodeId, (Gauge, u64)>,
    /// Samples since the leader was asked for them.
    unasked: u32,
}

struct Series {
    term: Gauge,
    is_leader: Gauge,
    commit_index: Gauge,
    applied_index: Gauge,
    fsynced_index: Gauge,
    /// Of a cluster only.
    recovering: Option<Gauge>,
    leaderless: Counter,
    at_risk_entries: Gauge,
    at_risk_bytes: Gauge,
    at_risk_seconds: Gauge,
}

impl GroupSample {
    /// Of a group that was not looked at yet.
    pub(crate) fn new(group: u32, in_cluster: bool) -> Self {
        let group = group.to_string();
        let label = [group.as_str()];
        let series = Series {
            term: GROUP_TERM.gauge(&label),
            is_leader: GROUP_IS_LEADER.gauge(&label),
            commit_index: GROUP_COMMIT_INDEX.gauge(&label),
            applied_index: GROUP_APPLIED_INDEX.gauge(&label),
            fsynced_index: GROUP_FSYNCED_INDEX.gauge(&label),
            recovering: in_cluster.then(|| GROUP_RECOVERING.gauge(&label)),
            leaderless: LEADERLESS.counter(&label),
            at_risk_entries: GROUP_AT_RISK_ENTRIES.gauge(&label),
            at_risk_bytes: GROUP_AT_RISK_BYTES.gauge(&label),
            at_risk_seconds: GROUP_AT_RISK_SECONDS.gauge(&label),
        };
        let lags = BTreeMap::new();
        Self { group, series, last: None, at_risk: None, lags, unasked: ASK_AT_REST }
    }

    /// Sets the series to what the group says now.
    pub(crate) fn record(&mut self, status: &ReplicaStatus, now: Time) {
        self.unasked = self.unasked.saturating_add(1);
        let at_rest = status.led && status.fsynced_index >= status.commit_index;
        if self.last.as_ref() == Some(status) {
            if at_rest {
                return;
            }
        } else {
            self.unasked = self.unasked.max(ASK_AT_REST);
        }
        let series = &self.series;
        series.term.set(status.term as f64);
        series.is_leader.set(f64::from(u8::from(status.serving)));
        series.commit_index.set(status.commit_index as f64);
        series.applied_index.set(status.applied_index as f64);
        series.fsynced_index.set(status.fsynced_index as f64);
        if let Some(recovering) = &series.recovering {
            recovering.set(f64::from(u8::from(status.recovering)));
        }
        series.leaderless.absolute(status.leaderless.total(now).as_secs());
        let entries = status.commit_index.saturating_sub(status.fsynced_index);
        series.at_risk_entries.set(entries as f64);
        series.at_risk_bytes.set(status.at_risk_bytes as f64);
        let age = self.age(status);
        self.series.at_risk_seconds.set(age.as_secs_f64());
        self.last = Some(*status);
    }

    /// Whether the group is to be asked how far its followers are: it leads here and something may
    /// have changed, or it led here and has to be forgotten.
    pub(crate) fn wants_lags(&self, status: &ReplicaStatus) -> bool {
        if !status.serving {
            return !self.lags.is_empty();
        }
        self.unasked >= ASK_AT_REST || self.lags.values().any(|(_, lag)| *lag > 0)
    }

    /// What followers lack; a node that leads no more says nothing of them.
    pub(crate) fn record_lags(&mut self, view: &GroupView) {
        self.unasked = 0;
        for peer in &view.peers {
            let (gauge, last) = self.lags.entry(peer.node).or_insert_with(|| {
                (GROUP_FOLLOWER_LAG.gauge(&[&self.group, &peer.node.to_string()]), 0)
            });
            *last = view.last.index.saturating_sub(peer.matched);
            gauge.set(*last as f64);
        }
        self.lags.retain(|node, (gauge, _)| {
            let follows = view.peers.iter().any(|peer| peer.node == *node);
            if !follows {
                gauge.set(0.0);
            }
            follows
        });
    }

    /// How long the oldest of the entries at risk has been so, to the accuracy of the samples.
    fn age(&mut self, status: &ReplicaStatus) -> Duration {
        if status.fsynced_index >= status.commit_index {
            self.at_risk = None;
            return Duration::ZERO;
        }
        match self.at_risk {
            Some((since, upto)) if status.fsynced_index < upto => since.elapsed(),
            _ => {
                self.at_risk = Some((Instant::now(), status.commit_index));
                Duration::ZERO
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use flintmq_consensus::LogPosition;

    use super::*;
    use flintmq_shard::PeerView;

    fn view(last: u64, matched: u64) -> GroupView {
        let peer = PeerView { node: NodeId(2), matched, recovering: false, snapshot: false };
        GroupView {
            status: ReplicaStatus::default(),
            config: flintmq_consensus::ConfigRegister::of_voters([NodeId(1), NodeId(2)]),
            durable: true,
            settled: true,
            last: LogPosition { term: 1, index: last },
            peers: vec![peer],
        }
    }

    #[test]
    fn a_leader_is_asked_while_something_changes_or_is_missing() {
        let mut sample = GroupSample::new(1, true);
        let mut leads = ReplicaStatus { serving: true, led: true, ..ReplicaStatus::default() };
        sample.record(&leads, Time::default());
        assert!(sample.wants_lags(&leads), "at first");
        sample.record_lags(&view(7, 5));
        sample.record(&leads, Time::default());
        assert!(sample.wants_lags(&leads), "one lacks something");
        sample.record_lags(&view(7, 7));
        for _ in 1..ASK_AT_REST {
            sample.record(&leads, Time::default());
            assert!(!sample.wants_lags(&leads), "at rest");
        }
        sample.record(&leads, Time::default());
        assert!(sample.wants_lags(&leads), "every now and then");
        sample.record_lags(&view(7, 7));
        leads.last_index = 8;
        sample.record(&leads, Time::default());
        assert!(sample.wants_lags(&leads), "there is news");
        sample.record_lags(&view(8, 8));
        let follows = ReplicaStatus { serving: false, ..leads };
        sample.record(&follows, Time::default());
        assert!(sample.wants_lags(&follows), "to be forgotten");
        sample.record_lags(&GroupView { peers: Vec::new(), ..view(8, 8) });
        sample.record(&follows, Time::default());
        assert!(!sample.wants_lags(&follows), "never again");
    }
}
