//! What kind of run a seed gives: which faults, how many nodes and groups, which settings.
//!
//! Not every fault is on in every run: with all of them, everything would be dead always, and what
//! needs a calm stretch would never happen.

use std::sync::Arc;
use std::time::Duration;

use flintmq_consensus::{Lease, RecoveryPolicy, Settings};

use crate::fault::{FaultKind, draw_weather};
use crate::network::Weather;
use crate::random::Random;

/// How a group keeps its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Written, fsynced now and then.
    Background,
    /// Every write is fsynced before it is reported: nothing is ever lost.
    Synchronous,
    /// Kept in memory: every start of the process loses all of it.
    Memory,
}

/// One group of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupSpec {
    /// How many of the nodes are its voters in the beginning.
    pub voters: u64,
    /// The first of them.
    pub first: u64,
    /// How its log is kept.
    pub durability: Durability,
    /// Its settings.
    pub settings: Arc<Settings>,
}

/// Latencies of all disks, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskSpeed {
    /// Greatest delay of a write.
    pub write: u64,
    /// Greatest delay of an fsync of the log.
    pub sync: u64,
    /// Greatest delay of an fsync of hard states.
    pub hard: u64,
    /// Usual time between fsyncs of the log.
    pub sync_interval: u64,
}

/// What clients do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// Producers of each group.
    pub producers: u64,
    /// Proposals that each has under way at most.
    pub outstanding: u64,
    /// Greatest pause between proposals, in microseconds.
    pub pause: u64,
    /// Bytes of payload at most.
    pub payload: u64,
    /// Readers of each group.
    pub readers: u64,
}

/// All that a seed decides but the faults themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// Nodes in the beginning.
    pub nodes: u64,
    /// The groups.
    pub groups: Vec<GroupSpec>,
    /// How often each kind of fault comes, relative to each other.
    pub weights: Vec<(FaultKind, u64)>,
    /// Usual time between faults, in microseconds.
    pub fault_gap: u64,
    /// When faults end and everything is mended, in microseconds.
    pub faults_end: u64,
    /// The longest that a fault lasts, in microseconds.
    pub longest_fault: u64,
    /// Of the faults that hit one node, how many in a million wait for a certain moment.
    pub ambushes: u64,
    /// The network while nothing is done to it.
    pub weather: Weather,
    /// Packets reach whatever process is there.
    pub datagrams: bool,
    /// Beats are the business of a half of each process that has no groups, and tells the other.
    pub halves: bool,
    /// How long it takes at most until the other half hears it, in microseconds.
    pub told_after: u64,
    /// Inputs are stepped together before their effects are carried out.
    pub batching: bool,
    /// Greatest error of any clock's rate, in parts per million.
    pub drift_ppm: u64,
    /// The disks.
    pub disk: DiskSpeed,
    /// Usual time between checkpoints of a group, in microseconds.
    pub checkpoint_interval: u64,
    /// Entries that a checkpoint leaves in the log at most.
    pub max_log: u64,
    /// Snapshots that a node's store keeps open at most.
    pub open_snapshots: u64,
    /// Snapshots that cannot be opened, and pieces that cannot be read, in a million.
    pub failing_snapshots: u64,
    /// A lost connection is noticed by those who are left, in a million cases.
    pub notices_loss: u64,
    /// The clients.
    pub load: Load,
    /// At the end one node stays one that should not lead.
    pub unfit_at_end: bool,
    /// Everything is mended at the end and has to come right.
    pub settles: bool,
    /// The rule of the node around its groups that is broken.
    #[cfg(feature = "mutants")]
    pub node_mutant: Option<flintmq_consensus::NodeMutant>,
}

impl Profile {
    /// The profile of a seed.
    #[must_use]
    pub fn draw(seed: u64) -> Self {
        let mut random = Random::new(seed, 1);
        let random = &mut random;
        let nodes = random.pick(&[3, 3, 3, 3, 4, 5, 5, 6, 7]).unwrap_or(3);
        let count = random.pick(&[1, 1, 1, 1, 2, 2, 3, 4, 8, 20]).unwrap_or(1);
        let leases = random.chance(300_000);
        let drift_ppm = random.pick(&[0, 100, 2_000, 20_000]).unwrap_or(0);
        let memory = random.chance(150_000);
        let groups = (0..count)
            .map(|_| {
                let lease = leases.then(|| Lease {
                    duration: Duration::from_millis(random.between(50, 400)),
                    // Two clocks may err in opposite directions.
                    drift_ppm: u32::try_from(2 * drift_ppm + 100).unwrap_or(u32::MAX),
                });
                draw_group(random, nodes, lease, memory)
            })
            .collect();
        let mut weights: Vec<(FaultKind, u64)> = Vec::new();
        let share = random.between(150_000, 700_000);
        for kind in FaultKind::ALL {
            // A clock that jumps keeps no lease's bound.
            if random.chance(share) && !(leases && kind == FaultKind::ClockJump) {
                weights.push((kind, random.skewed(1, 20)));
            }
        }
        // What is hard to recover from is rare.
        for (kind, weight) in &mut weights {
            if *kind == FaultKind::Replace {
                *weight = (*weight).min(2);
            }
        }
        let calm = random.chance(400_000);
        Self {
            nodes,
            groups,
            weights,
            fault_gap: random.skewed(60_000, 2_000_000),
            faults_end: random.skewed(3_000_000, 16_000_000),
            longest_fault: random.skewed(200_000, 4_000_000),
            ambushes: random.below(600_000),
            weather: if calm { Weather::CALM } else { draw_weather(random) },
            datagrams: random.chance(300_000),
            halves: random.chance(600_000),
            told_after: random.skewed(10, 300_000),
            batching: random.chance(500_000),
            drift_ppm,
            disk: DiskSpeed {
                write: random.skewed(20, 10_000),
                sync: random.skewed(200, 50_000),
                hard: random.skewed(200, 30_000),
                sync_interval: random.skewed(5_000, 2_000_000),
            },
            checkpoint_interval: random.skewed(20_000, 3_000_000),
            max_log: random.skewed(4, 2_000),
            open_snapshots: random.skewed(1, 16),
            failing_snapshots: random.pick(&[0, 0, 100_000, 500_000]).unwrap_or(0),
            notices_loss: random.pick(&[0, 500_000, 1_000_000]).unwrap_or(0),
            load: Load {
                producers: random.between(1, 3),
                outstanding: random.skewed(1, 16),
                pause: random.skewed(2_000 * count, 500_000),
                payload: random.skewed(8, 1_000),
                readers: random.below(3),
            },
            unfit_at_end: random.chance(250_000),
            settles: true,
            #[cfg(feature = "mutants")]
            node_mutant: None,
        }
    }
}

fn draw_group(random: &mut Random, nodes: u64, lease: Option<Lease>, memory: bool) -> GroupSpec {
    let voters = match random.below(20) {
        0 => 1,
        1 => 2,
        2 => 4,
        3..=6 => 5,
        7 => 7,
        _ => 3,
    };
    let durability = if memory && random.chance(400_000) {
        Durability::Memory
    } else if random.chance(100_000) {
        Durability::Synchronous
    } else {
        Durability::Background
    };
    let recovery =
        if random.chance(200_000) { RecoveryPolicy::Strict } else { RecoveryPolicy::AllReported };
    let mut settings = Settings { recovery, lease, ..Settings::default() };
    if random.chance(700_000) {
        settings.window_entries = u32::try_from(random.skewed(1, 100)).unwrap_or(8);
        settings.window_bytes = random.skewed(10, 20_000);
        settings.message_entries = u32::try_from(random.skewed(1, 50)).unwrap_or(4);
        settings.message_bytes = u32::try_from(random.skewed(8, 5_000)).unwrap_or(500);
        settings.cache_bytes = random.skewed(8, 20_000);
        settings.proposal_window_bytes = random.skewed(100, 50_000);
    }
    settings.snapshot_chunk_bytes = u32::try_from(random.skewed(20, 1_000)).unwrap_or(100);
    if random.chance(300_000) {
        settings.quiesce_after = Duration::from_millis(random.between(20, 200));
    }
    GroupSpec {
        voters: voters.min(nodes),
        first: random.below(nodes),
        durability,
        settings: Arc::new(settings),
    }
}
