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

/// A clock that is behind catches up by this part of the time that passes.
const CATCH_UP: u64 = 4;

/// Milliseconds since 1970, as a majority has it; never goes back once it was compared.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct WallClock {
    /// What it said last, in microseconds, and when that was.
    last: u64,
    at: Time,
    /// It is ahead of what it was told: it waits.
    waits: bool,
    is_set: bool,
    is_compared: bool,
    offset_ms: i64,
    pub(crate) trusted: bool,
}

impl WallClock {
    pub(crate) fn new() -> Self {
        Self { trusted: true, ..Self::default() }
    }

    /// The node's own clock says this now. A step forward is followed slowly: what was meant to be
    /// over later must not be over at once, and the comparison with the others comes later than the
    /// step.
    pub(crate) fn told(&mut self, now: Time, own_ms: u64) {
        let told = own_ms.saturating_add_signed(self.offset_ms).saturating_mul(1000);
        let shown = self.micros(now);
        self.waits = told < shown;
        let most = shown.saturating_add(micros(now.since(self.at)) / CATCH_UP);
        self.last = if self.is_set { told.clamp(shown, most) } else { told };
        self.is_set = true;
        self.at = now;
    }

    /// The majority's clock is so far ahead of the node's own. Before the first comparison nothing
    /// was known: it begins there.
    pub(crate) fn compared(&mut self, offset_ms: i64, trusted: bool) {
        self.is_set &= std::mem::replace(&mut self.is_compared, true);
        self.offset_ms = offset_ms;
        self.trusted = trusted;
    }

    /// What it is.
    pub(crate) fn ms(&self, now: Time) -> u64 {
        self.micros(now) / 1000
    }

    fn micros(&self, now: Time) -> u64 {
        let since = if self.waits { 0 } else { micros(now.since(self.at)) };
        self.last.saturating_add(since)
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
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

    #[test]
    fn a_step_forward_is_followed_slowly() {
        let at = Time::from_millis;
        let mut clock = WallClock::new();
        clock.told(at(0), 5000);
        for ms in 1..=1000 {
            clock.told(at(ms), 5000 + 172_800_000 + ms);
        }
        assert_eq!(clock.ms(at(1000)), 6250, "elapsed time and a quarter of it");
        clock.told(at(1001), 6001);
        assert_eq!(clock.ms(at(1001)), 6251, "back again: it waits");
    }
}
