//! What all groups of a shard share, beside the consensus itself.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use flintmq_consensus::{ConfigRegister, GroupId, NodeId, Time};
use flintmq_log_store::LogStore;

use crate::assignment::Assignment;
use crate::effect::{Notice, ShardError, Told};
use crate::input::{FromStore, StoreEvent, StoreEvents};
use crate::network::Network;
use crate::peers::Peers;

/// The way out, the time, and what the node knows besides its groups.
pub(crate) struct Host {
    pub(crate) node: NodeId,
    /// Whether the cluster has other nodes at all.
    pub(crate) clustered: bool,
    pub(crate) store: Arc<dyn LogStore>,
    pub(crate) events: StoreEvents,
    pub(crate) network: Box<dyn Network + Send>,
    pub(crate) now: Time,
    pub(crate) wall: WallClock,
    pub(crate) peers: Peers,
    pub(crate) assignment: Arc<Assignment>,
    /// Whether the controller is led: otherwise the assignment may be outdated.
    pub(crate) controller_led: bool,
    /// Groups that have a new member which catches up.
    pub(crate) catching_up: BTreeSet<GroupId>,
    /// What the host of the shard is to do.
    pub(crate) told: Vec<Told>,
    /// For groups that are not there.
    pub(crate) no_members: ConfigRegister,
    pub(crate) failure: Option<ShardError>,
}

impl Host {
    pub(crate) fn tell(&mut self, told: Told) {
        self.told.push(told);
    }

    pub(crate) fn notice(&mut self, group: GroupId, notice: Notice) {
        self.told.push(Told::Notice { group, notice });
    }

    /// The node cannot go on. The first failure says most.
    pub(crate) fn fail(&mut self, error: ShardError) {
        self.failure.get_or_insert(error);
    }

    /// Where the store's answers about a group go.
    pub(crate) fn teller(&self, group: GroupId) -> impl Fn(StoreEvent) + Send + 'static {
        let events = Arc::clone(&self.events);
        move |event| events(FromStore::Group { group, event })
    }
}

/// Milliseconds since 1970, as a majority has it; never goes back.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct WallClock {
    /// What it said last, and when that was.
    last_ms: u64,
    at: Time,
    /// It is ahead of what it was told: it waits.
    waits: bool,
    offset_ms: i64,
    pub(crate) trusted: bool,
}

impl WallClock {
    pub(crate) fn new() -> Self {
        Self { trusted: true, ..Self::default() }
    }

    /// The node's own clock says this now.
    pub(crate) fn told(&mut self, now: Time, own_ms: u64) {
        let ms = own_ms.saturating_add_signed(self.offset_ms);
        let shown = self.ms(now);
        self.waits = ms < shown;
        self.last_ms = shown.max(ms);
        self.at = now;
    }

    /// The majority's clock is so far ahead of the node's own.
    pub(crate) fn compared(&mut self, offset_ms: i64, trusted: bool) {
        self.offset_ms = offset_ms;
        self.trusted = trusted;
    }

    /// What it is.
    pub(crate) fn ms(&self, now: Time) -> u64 {
        let since = if self.waits { Duration::ZERO } else { now.since(self.at) };
        self.last_ms.saturating_add(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wall_clock_follows_the_majority_and_never_goes_back() {
        let at = Time::from_millis;
        let mut clock = WallClock::new();
        clock.told(at(10), 5000);
        assert_eq!((clock.ms(at(10)), clock.ms(at(25))), (5000, 5015));
        clock.told(at(30), 4000);
        assert_eq!((clock.ms(at(30)), clock.ms(at(90))), (5020, 5020), "it was set back");
        clock.compared(2000, true);
        clock.told(at(100), 4000);
        assert_eq!((clock.ms(at(100)), clock.ms(at(101))), (6000, 6001));
    }
}
