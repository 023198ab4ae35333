//! What is tried to catch each broken rule of the driver.

use flintmq_shard::mutants::Mutant;

use crate::plan::{Fault, FaultKind, Plan, Profile, Target};

/// What is tried to catch one mutant.
#[derive(Clone, Copy, Debug)]
pub struct Trial {
    /// The broken rule.
    pub mutant: Mutant,
    /// Seeds within which it is caught.
    pub seeds: u64,
    /// What goes wrong.
    pub faults: &'static [FaultKind],
    /// Where that is too seldom what it takes: exactly this goes wrong.
    pub script: &'static [Fault],
    /// What else is special.
    pub change: fn(&mut Profile),
}

impl Trial {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self {
            mutant: Mutant::ConditionDropped,
            seeds: 300,
            faults: &[FaultKind::RemoveIdle],
            script: &[],
            change: |profile| {
                (profile.groups, profile.clients, profile.sparse) = (1, 3, true);
                (profile.pace, profile.rest, profile.max_unconfirmed) = (40_000, 3_000_000, 1024);
                (profile.faults, profile.lasts) = (20, 8_000_000);
            },
        },
        Self {
            mutant: Mutant::PeersStartUp,
            seeds: 20,
            faults: &[],
            // One node is away for long, the others start, and the leader's last follower goes.
            script: &[
                crash(1_000_000, Target::Other(0), 20_000_000),
                crash(1_500_000, Target::Leader, 200_000),
                crash(1_550_000, Target::Any(0), 200_000),
                crash(4_000_000, Target::Other(0), 20_000_000),
            ],
            change: |profile| {
                (profile.nodes, profile.replicas, profile.lasts) = (3, 3, 9_000_000);
            },
        },
        Self {
            mutant: Mutant::CheckpointsOvertake,
            seeds: 100,
            faults: &[FaultKind::StoreFull, FaultKind::DiskStall],
            script: &[],
            change: |_| {},
        },
        Self {
            mutant: Mutant::SnapshotNotRetried,
            seeds: 200,
            faults: &[FaultKind::FailSnapshots, FaultKind::Crash, FaultKind::Isolate],
            script: &[],
            change: |profile| (profile.largest, profile.pace) = (400_000, 5_000),
        },
        Self {
            mutant: Mutant::AnswersOvertake,
            seeds: 100,
            faults: &[FaultKind::Transfer],
            script: &[],
            change: |profile| profile.groups = 1,
        },
        Self {
            mutant: Mutant::GapsUnnoticed,
            seeds: 50,
            faults: &[FaultKind::ReplaceConnection],
            script: &[],
            change: |_| {},
        },
    ];

    /// The trial of the mutant of this name.
    #[must_use]
    pub fn find(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|trial| format!("{:?}", trial.mutant) == name)
    }

    /// What is run for a seed.
    #[must_use]
    pub fn plan(&self, seed: u64) -> Plan {
        let mut profile = Profile::draw(seed);
        profile.nodes = profile.nodes.max(3);
        profile.replicas = profile.replicas.max(3);
        profile.faults = profile.faults.max(10);
        profile.kinds = self.faults.to_vec();
        (self.change)(&mut profile);
        let mut plan = Plan::with_profile(seed, profile);
        if !self.script.is_empty() {
            plan.faults = self.script.to_vec();
        }
        plan
    }
}

const fn crash(at: u64, target: Target, lasts: u64) -> Fault {
    Fault { at, kind: FaultKind::Crash, target, group: 0, lasts, choice: 0 }
}
