//! What this node knows of the time and of its own fitness: the one place that its shard, its
//! beats, its probes and its metrics have it from.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use flintmq_consensus::{
    ClockReading, ClockState, Clocks, ClusterClock, NodeId, Time, UnfitReasons,
};
use tokio::sync::watch;

use super::clock::CoreClock;

/// How old what is known of the machine's own clock may be.
const OWN_CLOCK: Duration = Duration::from_millis(100);

/// How long a node that does not know the time is not ready: its groups wait for it so long.
const STARTS: Duration = Duration::from_secs(10);

const UNKNOWN: &str = "the cluster's time is not known, so nothing expires here: too few nodes can be reached, or their clocks contradict each other";

/// All reasons with their names, as logs and metrics have them.
pub(crate) const REASONS: [(UnfitReasons, &str); 3] = [
    (UnfitReasons::CLOCK_OFF, "clock_off"),
    (UnfitReasons::DISK_FULL, "disk_full"),
    (UnfitReasons::DISK_STALLED, "disk_stalled"),
];

/// The names of these reasons.
pub(crate) fn names(reasons: UnfitReasons) -> Vec<&'static str> {
    let given = |(reason, name): &(UnfitReasons, &'static str)| {
        reasons.intersects(*reason).then_some(*name)
    };
    REASONS.iter().filter_map(given).collect()
}

struct Watched {
    clock: ClusterClock,
    /// When the machine's own clock was read last.
    read: Time,
}

/// Cheap to clone; all clones are one.
#[derive(Clone)]
pub(crate) struct Fitness {
    clock: CoreClock,
    began: Time,
    watched: Arc<Mutex<Watched>>,
    unfit: watch::Sender<UnfitReasons>,
}

impl Fitness {
    /// Of a node of a cluster of so many, itself included.
    pub(crate) fn new(clock: CoreClock, nodes: usize) -> Self {
        let now = clock.now();
        let watched = Watched { clock: ClusterClock::new(now, wall_clock_ms(), nodes), read: now };
        let watched = Arc::new(Mutex::new(watched));
        Self { clock, began: now, watched, unfit: watch::Sender::new(UnfitReasons::NONE) }
    }

    /// The cluster's time.
    pub(crate) fn reading(&self) -> ClockReading {
        self.watched().clock.reading()
    }

    /// What a beat that leaves now says of the time.
    pub(crate) fn says(&self) -> Clocks {
        self.watched().clock.says(self.clock.now())
    }

    /// A beat said this of the time. True when that changed what is known of it.
    pub(crate) fn heard(&self, peer: NodeId, clocks: Clocks) -> bool {
        let mut watched = self.watched();
        let before = watched.clock.reading().state;
        watched.clock.heard(self.clock.now(), peer, clocks);
        watched.clock.reading().state != before
    }

    /// The cluster has so many nodes now, this one included; `gone` is none of them any more.
    pub(crate) fn nodes(&self, nodes: usize, gone: Option<NodeId>) {
        let mut watched = self.watched();
        watched.clock.set_nodes(nodes);
        if let Some(gone) = gone {
            watched.clock.forget(gone);
        }
    }

    /// The shard says why this node should not lead.
    pub(crate) fn set_unfit(&self, reasons: UnfitReasons) {
        let before = self.unfit.send_replace(reasons);
        if before == reasons {
            return;
        }
        let clock_ahead_ms = self.reading().offset_ms;
        if reasons == UnfitReasons::NONE {
            tracing::info!(clock_ahead_ms, "this node may lead again");
        } else {
            tracing::warn!(
                reasons = ?names(reasons),
                clock_ahead_ms,
                "this node should not lead: others do as long as they can"
            );
        }
    }

    /// Why this node should not lead.
    pub(crate) fn unfit(&self) -> UnfitReasons {
        *self.unfit.borrow()
    }

    /// The same, to wait for changes.
    pub(crate) fn watch_unfit(&self) -> watch::Receiver<UnfitReasons> {
        self.unfit.subscribe()
    }

    /// Why this node is not ready, one line each.
    pub(crate) fn not_ready(&self) -> Vec<String> {
        let reading = self.reading();
        match reading.state {
            ClockState::Good => Vec::new(),
            // After that groups are led all the same, where they can be.
            ClockState::Unknown if self.clock.now().since(self.began) < STARTS => {
                vec![UNKNOWN.to_owned()]
            }
            ClockState::Unknown => Vec::new(),
            ClockState::Off => vec![format!(
                "this node's clock contradicts those of the other nodes, so it leads no group that others can lead: \
                 set it right (NTP), clock_ahead_ms={}",
                reading.offset_ms
            )],
        }
    }

    /// What else administrators should know, although the node is ready; one line each.
    pub(crate) fn warnings(&self) -> Vec<&'static str> {
        let unfit = self.unfit();
        let unknown = self.reading().state == ClockState::Unknown;
        let mut warnings = Vec::from_iter(unknown.then_some(UNKNOWN));
        if unfit.intersects(UnfitReasons::DISK_FULL) {
            warnings
                .push("the disk is full up to node.disk_reserve: new messages are refused here");
        }
        if unfit.intersects(UnfitReasons::DISK_STALLED) {
            warnings
                .push("the disk takes too long for its writes: other nodes lead where they can");
        }
        warnings
    }

    fn watched(&self) -> MutexGuard<'_, Watched> {
        let now = self.clock.now();
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        if now.since(watched.read) >= OWN_CLOCK {
            watched.read = now;
            watched.clock.own(now, wall_clock_ms());
        }
        watched
    }
}

/// Milliseconds since 1970, by this machine's own clock.
fn wall_clock_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    u64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_alone_knows_the_time_at_once() {
        let fitness = Fitness::new(CoreClock::start(), 1);
        assert_eq!((fitness.reading().state, fitness.not_ready()), (ClockState::Good, vec![]));
        let wall = fitness.reading().wall_ms(CoreClock::start().now());
        assert!(wall > 1_700_000_000_000, "{wall}");
    }

    #[test]
    fn a_node_that_contradicts_the_majority_says_so() {
        let fitness = Fitness::new(CoreClock::start(), 3);
        assert_eq!(fitness.not_ready().len(), 1, "the time is not known yet");
        let clocks = fitness.says();
        let eight_days = 8 * 86_400_000;
        let others = Clocks { wall_ms: clocks.wall_ms - eight_days, ..clocks };
        assert!(!fitness.heard(NodeId(2), others), "one against one");
        assert!(fitness.heard(NodeId(3), others));
        let said = fitness.not_ready();
        assert!(said[0].contains("clock_ahead_ms=6911") || said[0].contains("6912000"), "{said:?}");
        fitness.set_unfit(UnfitReasons::CLOCK_OFF | UnfitReasons::DISK_FULL);
        assert_eq!(names(fitness.unfit()), ["clock_off", "disk_full"]);
        assert_eq!(fitness.warnings().len(), 1);
    }
}
