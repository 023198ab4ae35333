//! The time that is replicated: what the wall clock of a majority says, without its steps.
//!
//! Data is stamped and expires by [`ClusterClock`], not by a node's wall clock. It runs with the
//! node's monotonic clock, and is slewed, by [`SLEW_PPM`] at most, towards the wall clocks of a
//! majority of the nodes. So one node whose wall clock is wrong, or steps, moves nothing; and no
//! step of all wall clocks makes anything older than it is.
//!
//! # What it does in which case
//!
//! - **A node starts.** It takes the time that the running nodes have; if none runs yet, the median
//!   of a majority of wall clocks that agree; if none agree for [`GRACE`], the earlier ones.
//!   Before that its time is unknown: [`ClockState::Unknown`].
//! - **A wall clock is wrong, or steps.** On that node [`ClockState::Off`], until it is right
//!   again; the time goes on undisturbed, there and elsewhere.
//! - **NTP corrects the wall clocks of a majority by a large step.** What was stored before keeps
//!   its time to live to the end: the time follows by [`SLEW_PPM`], 43 seconds a day. An operator
//!   who wants it to follow at once stops *all* nodes, corrects the clocks, and starts them. (After
//!   that, what was stored in the past that never was may expire early, or late.)
//! - **A node was suspended,** and its monotonic clock stood still: it steps forward to the time
//!   that a majority has.
//! - **One node alone** follows its own wall clock in the same way, and is never off.
//! - **Of two nodes** that disagree, the one whose wall clock left the common time is off. If they
//!   disagree from the start, the earlier time is taken, and the other is off: nothing expires
//!   early.
//! - **No majority is heard:** the time runs on with the monotonic clock, unsteered.

mod sample;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use self::sample::Samples;
use crate::{NodeId, Time};

/// How much faster or slower than the monotonic clock the time may run, in parts per million.
const SLEW_PPM: u32 = 500;

/// How far wall clocks may be apart and still agree, besides the differences in delay.
const TOLERANCE: Duration = Duration::from_secs(2);

/// How long a node that starts and hears a majority waits for one that agrees.
const GRACE: Duration = Duration::from_secs(5);

/// A reading is slewed for so long: it is an old one then.
const SLEW_FOR: Duration = Duration::from_secs(2);

/// A peer that was not heard for so long does not count.
const FORGET_AFTER: Duration = Duration::from_secs(5);

/// So far behind the time that a majority has, a node steps forward.
const LATE: i64 = 500_000;

/// Differences below this are corrected by less than the greatest slew.
const GENTLE: i64 = 100_000;

/// What a beat says about the time, in milliseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Clocks {
    /// The sender's wall clock.
    pub wall_ms: u64,
    /// The replicated time as the sender has it; none while it does not know.
    pub cluster_ms: Option<u64>,
}

/// What a node knows of the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClockState {
    /// Not yet: nothing may expire here, and the time that is shown is a guess.
    Unknown,
    /// The time is known and the own wall clock agrees.
    Good,
    /// The own wall clock disagrees with a majority's: this node should not lead, and nothing
    /// may expire here.
    Off,
}

/// The time from a moment on, to be read anywhere in the process without asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClockReading {
    at: Time,
    micros: i64,
    slew_ppm: i64,
    /// What is known of the time.
    pub state: ClockState,
    /// How far the own wall clock is ahead of what it should be, in milliseconds, as far as is
    /// known; negative when it is behind.
    pub offset_ms: i64,
}

impl ClockReading {
    /// A time that runs with the monotonic clock from here on.
    #[must_use]
    pub fn new(at: Time, wall_ms: u64, state: ClockState) -> Self {
        let micros = signed(u128::from(wall_ms) * 1000);
        Self { at, micros, slew_ppm: 0, state, offset_ms: 0 }
    }

    /// The time in milliseconds since 1970. Readings of one process never go back from one state
    /// that is not [`ClockState::Unknown`] to the next; use the greatest that was seen all the
    /// same when readings come from another thread.
    #[must_use]
    pub fn wall_ms(&self, now: Time) -> u64 {
        u64::try_from(self.micros(now) / 1000).unwrap_or(0)
    }

    /// True when data may expire by this time.
    #[must_use]
    pub fn is_trusted(&self) -> bool {
        self.state == ClockState::Good
    }

    fn micros(&self, now: Time) -> i64 {
        let since = signed(now.since(self.at).as_micros());
        let slewed = since.min(signed(SLEW_FOR.as_micros()));
        self.micros + since + slewed * self.slew_ppm / 1_000_000
    }
}

/// A peer's clocks, as differences to the own monotonic clock.
#[derive(Clone, Debug, Default)]
struct Peer {
    heard: Time,
    wall: Samples,
    cluster: Samples,
}

/// The clock. Time is an argument: no clock is read here.
#[derive(Clone, Debug)]
pub struct ClusterClock {
    /// Nodes of the cluster, this one included.
    nodes: usize,
    /// Since when a majority of wall clocks is heard, the own one included.
    heard_since: Option<Time>,
    /// The own wall clock ahead of the monotonic one, in microseconds.
    own: i64,
    peers: BTreeMap<NodeId, Peer>,
    reading: ClockReading,
}

impl ClusterClock {
    /// The clock of a node of a cluster of so many nodes, itself included.
    #[must_use]
    pub fn new(now: Time, own_ms: u64, nodes: usize) -> Self {
        let own = ahead(now, own_ms);
        let reading = ClockReading::new(now, own_ms, ClockState::Unknown);
        let peers = BTreeMap::new();
        let nodes = nodes.max(1);
        let mut clock = Self { nodes, heard_since: None, own, peers, reading };
        clock.update(now);
        clock
    }

    /// The cluster has so many nodes from now on, this one included.
    pub fn set_nodes(&mut self, nodes: usize) {
        self.nodes = nodes.max(1);
    }

    /// The own wall clock says this now. To be told once a second at least, and before
    /// [`Self::says`].
    pub fn own(&mut self, now: Time, own_ms: u64) {
        self.own = ahead(now, own_ms);
        self.update(now);
    }

    /// A beat of a peer said this. Beats that are late, doubled or overtaken do no harm.
    pub fn heard(&mut self, now: Time, peer: NodeId, clocks: Clocks) {
        let peer = self.peers.entry(peer).or_default();
        if now.since(peer.heard) > FORGET_AFTER {
            *peer = Peer::default();
        }
        peer.heard = now;
        peer.wall.add(ahead(now, clocks.wall_ms));
        if let Some(cluster_ms) = clocks.cluster_ms {
            peer.cluster.add(ahead(now, cluster_ms));
        }
        self.update(now);
    }

    /// This node is no peer any more.
    pub fn forget(&mut self, peer: NodeId) {
        self.peers.remove(&peer);
    }

    /// What a beat that leaves now says.
    #[must_use]
    pub fn says(&self, now: Time) -> Clocks {
        let wall = self.own + signed(u128::from(now.0));
        let known = self.reading.state != ClockState::Unknown;
        Clocks {
            wall_ms: u64::try_from(wall / 1000).unwrap_or(0),
            cluster_ms: known.then(|| self.reading.wall_ms(now)),
        }
    }

    /// The time from now on, until something more is told.
    #[must_use]
    pub fn reading(&self) -> ClockReading {
        self.reading
    }

    fn majority(&self) -> usize {
        self.nodes / 2 + 1
    }

    fn update(&mut self, now: Time) {
        self.peers.retain(|_, peer| now.since(peer.heard) <= FORGET_AFTER);
        let mono = signed(u128::from(now.0));
        let mut walls: Vec<i64> = self.peers.values().filter_map(|peer| peer.wall.best()).collect();
        let spread = self.peers.values().map(|peer| peer.wall.spread()).max().unwrap_or(0);
        let tolerance = signed(TOLERANCE.as_micros()) + spread;
        walls.push(self.own);
        walls.sort_unstable();
        let heard = walls.len() >= self.majority();
        self.heard_since = self.heard_since.or(Some(now)).filter(|_| heard);
        let agreed = agreeing(&walls, self.majority(), tolerance);
        let before = self.reading.state;
        let micros = if before == ClockState::Unknown {
            let Some(ahead) = self.first_time(now, &walls, agreed) else {
                // What is stamped with a time that is too late only lives longer.
                self.reading.at = now;
                self.reading.micros = walls.last().map_or(0, |latest| latest + mono);
                return;
            };
            ahead + mono
        } else {
            self.catch_up(now, self.reading.micros(now), agreed, tolerance)
        };
        let (low, high) = (walls[(walls.len() - 1) / 2] + mono, walls[walls.len() / 2] + mono);
        let error = if heard { micros.clamp(low, high) - micros } else { 0 };
        let slew = i64::from(SLEW_PPM);
        let slew_ppm = error.clamp(-GENTLE, GENTLE) * slew / GENTLE;
        let should = agreed.map_or(micros, |ahead| ahead + mono);
        let offset = if self.nodes == 1 { 0 } else { self.own + mono - should };
        // Half way back before it counts as right again.
        let bound = if before == ClockState::Off { tolerance / 2 } else { tolerance };
        let state = if offset.abs() > bound { ClockState::Off } else { ClockState::Good };
        self.reading = ClockReading { at: now, micros, slew_ppm, state, offset_ms: offset / 1000 };
    }

    /// What a node that starts takes for the time, ahead of the monotonic clock.
    fn first_time(&self, now: Time, walls: &[i64], agreed: Option<i64>) -> Option<i64> {
        let since = self.heard_since?;
        let mut running: Vec<i64> =
            self.peers.values().filter_map(|peer| peer.cluster.best()).collect();
        running.sort_unstable();
        let patient = now.since(since) < GRACE;
        match lower_median(&running) {
            Some(common) => Some(common),
            None if agreed.is_none() && patient => None,
            None => agreed.or_else(|| lower_median(walls)),
        }
    }

    /// Steps forward if this node fell far behind: to the time that a majority has, or that others
    /// have and a majority of wall clocks confirms.
    fn catch_up(&self, now: Time, micros: i64, agreed: Option<i64>, tolerance: i64) -> i64 {
        let mono = signed(u128::from(now.0));
        let mut times: Vec<i64> =
            self.peers.values().filter_map(|peer| peer.cluster.best()).collect();
        times.sort_unstable();
        let confirmed: Vec<i64> = times
            .iter()
            .copied()
            .filter(|time| agreed.is_some_and(|agreed| (time - agreed).abs() <= tolerance))
            .collect();
        let own = micros - mono;
        times.insert(times.partition_point(|time| *time < own), own);
        let common = (times.len() >= self.majority()).then(|| lower_median(&times)).flatten();
        let ahead = common.max(lower_median(&confirmed)).unwrap_or(own);
        if ahead > own + LATE { ahead + mono } else { micros }
    }
}

/// The one in the middle, or the lower of the two.
fn lower_median(sorted: &[i64]) -> Option<i64> {
    sorted.get(sorted.len().saturating_sub(1) / 2).copied()
}

/// The median of the most clocks that are within the tolerance of each other, if they are a
/// majority; the earlier ones if that is undecided.
fn agreeing(sorted: &[i64], majority: usize, tolerance: i64) -> Option<i64> {
    (majority..=sorted.len()).rev().find_map(|count| {
        let window = sorted.windows(count).find(|window| {
            let (first, last) = (window.first(), window.last());
            first.zip(last).is_some_and(|(first, last)| last - first <= tolerance)
        })?;
        lower_median(window)
    })
}

/// How far a wall clock is ahead of the monotonic one, in microseconds.
fn ahead(now: Time, wall_ms: u64) -> i64 {
    signed(u128::from(wall_ms) * 1000) - signed(u128::from(now.0))
}

fn signed(micros: u128) -> i64 {
    // Beyond any clock; halved, so that sums of two stay in range.
    i64::try_from(micros).unwrap_or(i64::MAX).min(i64::MAX / 4)
}
