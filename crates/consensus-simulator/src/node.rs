//! A simulated node: its clock, its disk, and the process that runs on it or does not.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use flintmq_consensus::{
    GroupId, History, Index, NodeCore, NodeId, NodeInput, ProducerSequence, Role, Term, Time,
};

use crate::disk::Disk;
use crate::event::Event;
use crate::machine::Machine;
use crate::random::Random;

/// A node's own monotonic clock.
#[derive(Clone, Debug)]
pub(crate) struct Clock {
    local_base: u64,
    global_base: u64,
    /// Error of its rate, in parts per million.
    drift: i64,
}

impl Clock {
    pub(crate) fn new(offset: u64, drift: i64) -> Self {
        Self { local_base: offset, global_base: 0, drift }
    }

    fn rate(&self) -> u64 {
        u64::try_from(1_000_000 + self.drift).unwrap_or(1_000_000)
    }

    pub(crate) fn local(&self, global: u64) -> Time {
        Time(self.local_base + (global - self.global_base) * self.rate() / 1_000_000)
    }

    /// The first moment at which the clock shows this time, or now when it has shown it.
    pub(crate) fn global(&self, local: Time, now: u64) -> u64 {
        let ahead = local.0.saturating_sub(self.local_base);
        (self.global_base + (ahead * 1_000_000).div_ceil(self.rate())).max(now)
    }

    pub(crate) fn jump(&mut self, now: u64, by: u64) {
        self.local_base = self.local(now).0 + by;
        self.global_base = now;
    }
}

/// A proposal that waits for its entry to be applied.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Waiting {
    pub(crate) client: usize,
    pub(crate) proposal: ProducerSequence,
    pub(crate) term: Term,
}

/// A read that waits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reading {
    pub(crate) client: usize,
    /// What was acknowledged when it began.
    pub(crate) acked: Index,
    pub(crate) forks: usize,
    pub(crate) at_once: bool,
    /// The index that answers it, once known.
    pub(crate) index: Option<Index>,
}

/// What a process holds of one group beside the core.
#[derive(Debug, Default)]
pub(crate) struct Live {
    /// The step in which it was made, when that was while the process ran.
    pub(crate) born: u64,
    pub(crate) machine: Machine,
    /// Decided, as far as the host was told.
    pub(crate) commit: Index,
    pub(crate) applying: bool,
    /// A snapshot is on its way to take the machine's place.
    pub(crate) installing: bool,
    pub(crate) role: Option<Role>,
    pub(crate) term: Term,
    pub(crate) waiting: BTreeMap<Index, Waiting>,
    pub(crate) reads: BTreeMap<u64, Reading>,
    /// Open snapshots: their content, by their number.
    pub(crate) snapshots: BTreeMap<u64, u64>,
    pub(crate) truncated: bool,
    /// It leads since its last effects.
    pub(crate) fresh: bool,
    pub(crate) quiesced: bool,
    pub(crate) history: History,
    /// It gave its past up and has not made that good.
    pub(crate) void: bool,
    /// Who is being fetched from.
    pub(crate) source: Option<NodeId>,
    pub(crate) changed: Option<flintmq_consensus::ConfigStamp>,
    pub(crate) handed_to: Option<(NodeId, bool)>,
}

/// The half of a process that beats, where that is another one than the one with the groups.
#[derive(Debug)]
pub(crate) struct Beats {
    pub(crate) core: NodeCore,
    pub(crate) timer_at: Option<u64>,
    /// What the groups will be told, in order.
    pub(crate) words: VecDeque<NodeInput>,
}

/// A running process.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) core: NodeCore,
    pub(crate) beats: Option<Beats>,
    pub(crate) run: u64,
    pub(crate) groups: BTreeMap<GroupId, Live>,
    pub(crate) timer_at: Option<u64>,
    pub(crate) flushing: bool,
    /// Groups that were stepped since the last flush.
    pub(crate) touched: BTreeSet<GroupId>,
    /// Ends as soon as its last words are said.
    pub(crate) failed: bool,
    pub(crate) stopping: bool,
}

/// One node.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) clock: Clock,
    pub(crate) disk: Disk,
    pub(crate) process: Option<Process>,
    /// Lost for good.
    pub(crate) dead: bool,
    pub(crate) random: Random,
    /// Nothing runs before this moment.
    pub(crate) suspended_until: u64,
    /// The half with the groups does not run before this moment.
    pub(crate) stalled_until: u64,
    /// Writes take this many times as long, until then.
    pub(crate) slow: (u64, u64),
    /// No writes before this moment.
    pub(crate) full_until: u64,
    /// Snapshots can neither be opened nor read before this moment, most of the time.
    pub(crate) no_snapshots_until: u64,
    pub(crate) writing: bool,
    pub(crate) saving: bool,
    pub(crate) snapshots_made: u64,
}

impl Node {
    pub(crate) fn local(&self, now: u64) -> Time {
        self.clock.local(now)
    }

    /// When the part of the node that takes this event runs again.
    pub(crate) fn runs_again(&self, event: &Event) -> u64 {
        let halves = self.process.as_ref().is_some_and(|process| process.beats.is_some());
        if halves && event.is_for_beats() {
            self.suspended_until
        } else {
            self.suspended_until.max(self.stalled_until)
        }
    }

    pub(crate) fn run(&self) -> Option<u64> {
        self.process.as_ref().map(|process| process.run)
    }

    pub(crate) fn is_up(&self) -> bool {
        self.process.is_some() && !self.dead
    }

    /// When something that the disk begins now is done.
    pub(crate) fn disk_delay(&mut self, now: u64, longest: u64) -> u64 {
        let (until, factor) = self.slow;
        let factor = if now < until { factor } else { 1 };
        let delay = self.random.between(longest.div_ceil(10), longest.max(1)) * factor;
        delay + self.full_until.saturating_sub(now)
    }

    /// Snapshots that are open, of all groups.
    pub(crate) fn open_snapshots(&self) -> u64 {
        let groups = self.process.iter().flat_map(|process| process.groups.values());
        groups.map(|live| live.snapshots.len() as u64).sum()
    }

    /// True when opening a snapshot or reading a piece of one fails now.
    pub(crate) fn fails_snapshot(&mut self, now: u64, usually: u64) -> bool {
        let failing = if now < self.no_snapshots_until { 800_000 } else { usually };
        failing > 0 && self.random.chance(failing)
    }

    pub(crate) fn machine(&self, group: GroupId) -> Option<Arc<Machine>> {
        self.disk.replica(group).map(|replica| Arc::clone(&replica.machine))
    }
}
