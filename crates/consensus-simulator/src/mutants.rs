//! Which runs show that each rule of the protocol matters: a broken one has to be noticed.

use std::sync::Arc;

use flintmq_consensus::{Mutant, RecoveryPolicy, Settings};

use crate::fault::FaultKind;
use crate::profile::{Durability, GroupSpec, Profile};
use crate::random::Random;
use crate::run::{Failure, Plan, Watching, run};

/// Who is known to notice a mutant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Catcher {
    /// This simulator, within the trial's seeds.
    Simulator,
    /// The search over all interleavings in the crate `flintmq-consensus-model`: the few runs in
    /// which it matters are too rare to be drawn.
    Search,
}

/// What is tried to catch one mutant.
#[derive(Clone, Copy, Debug)]
pub struct Trial {
    /// The mutant.
    pub mutant: Mutant,
    /// Who catches it.
    pub catcher: Catcher,
    /// Seeds within which it is caught.
    pub seeds: u64,
    faults: &'static [FaultKind],
    nodes: u64,
}

use FaultKind::{
    Cede, ChangeMember, ChangeMembers, Crash, ForcedTransfer, Isolate, OneWay, PowerLoss,
    PowerLossOfSeveral, PowerLossTwice, Split, Stand, Suspend, Transfer,
};

const LOSSES: &[FaultKind] = &[PowerLoss, PowerLossTwice, Isolate, Cede, Stand];
const ROLLING: &[FaultKind] =
    &[PowerLoss, PowerLossTwice, PowerLossOfSeveral, Isolate, Cede, Crash];
const ELECTIONS: &[FaultKind] = &[Isolate, Split, OneWay, Cede, Stand, ForcedTransfer, Crash];
const MEMBERS: &[FaultKind] =
    &[ChangeMember, ChangeMember, ChangeMembers, Isolate, Split, Cede, Stand, Crash];
const LEASES: &[FaultKind] = &[Transfer, ForcedTransfer, Cede, Suspend];

const fn trial(mutant: Mutant, seeds: u64, nodes: u64, faults: &'static [FaultKind]) -> Trial {
    Trial { mutant, catcher: Catcher::Simulator, seeds, faults, nodes }
}

/// All trials, one per mutant.
pub const TRIALS: [Trial; 20] = [
    trial(Mutant::W01LossUndetected, 50, 3, LOSSES),
    trial(Mutant::W02RecoveringCountsInSync, 50, 3, LOSSES),
    trial(Mutant::W03GrantWithoutEpoch, 400, 3, ROLLING),
    trial(Mutant::W04TermNotDurable, 20, 3, LOSSES),
    trial(Mutant::W05GrantOfOlderTerm, 400, 3, ROLLING),
    trial(Mutant::W06CommitOldTermsByCounting, 400, 3, ELECTIONS),
    trial(Mutant::W07ServeWithoutSync, 50, 3, ELECTIONS),
    trial(Mutant::W08RejoinOnContact, 100, 3, LOSSES),
    trial(Mutant::W08RejoinWithoutLog, 100, 3, LOSSES),
    trial(Mutant::W09RejoinFromAnyPeer, 400, 3, ROLLING),
    trial(Mutant::W10GrantWhileSyncing, 400, 3, ROLLING),
    trial(Mutant::W11AckUnverified, 200, 3, ELECTIONS),
    trial(Mutant::W12CountAcksOfOlderTerms, 400, 5, ELECTIONS),
    trial(Mutant::W13ChooseLongestLog, 200, 3, ELECTIONS),
    trial(Mutant::W14VoteForAnyConfig, 400, 5, MEMBERS),
    trial(Mutant::W15NoRestamp, 400, 5, MEMBERS),
    trial(Mutant::W16ChangeBeforeConfigIsHeld, 400, 5, MEMBERS),
    trial(Mutant::W17ChangeBeforeLogIsHeld, 400, 5, MEMBERS),
    trial(Mutant::W18ResumeLeadership, 20, 3, LOSSES),
    trial(Mutant::W19LeaseOutlivesCession, 200, 3, LEASES),
];

/// The trial of the mutant of this name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Trial> {
    TRIALS.iter().find(|trial| format!("{:?}", trial.mutant).starts_with(name))
}

/// The names of all mutants.
#[must_use]
pub fn names() -> Vec<String> {
    TRIALS.iter().map(|trial| format!("{:?}", trial.mutant)).collect()
}

impl Trial {
    /// The plan of a seed of this trial.
    #[must_use]
    pub fn plan(&self, seed: u64) -> Plan {
        let mut random = Random::new(seed, 9);
        let random = &mut random;
        let mut profile = Profile::draw(seed);
        profile.nodes = self.nodes;
        profile.weights = self.faults.iter().map(|kind| (*kind, random.between(1, 10))).collect();
        profile.fault_gap = random.skewed(30_000, 600_000);
        profile.longest_fault = random.skewed(100_000, 1_500_000);
        profile.faults_end = 6_000_000;
        profile.ambushes = random.below(800_000);
        profile.disk.sync_interval = 3_000_000;
        profile.checkpoint_interval = 5_000_000;
        profile.load.pause = random.skewed(3_000, 60_000);
        let lease = profile.groups.first().and_then(|group| group.settings.lease);
        let lease = (self.faults == LEASES).then_some(lease.unwrap_or(flintmq_consensus::Lease {
            duration: std::time::Duration::from_millis(400),
            drift_ppm: 50_000,
        }));
        let settings = Settings {
            recovery: RecoveryPolicy::Strict,
            lease,
            mutant: Some(self.mutant),
            ..Settings::default()
        };
        let changes = self.faults == MEMBERS;
        let group = |random: &mut Random| GroupSpec {
            voters: if changes { 3 } else { self.nodes },
            first: random.below(self.nodes),
            durability: Durability::Background,
            settings: Arc::new(settings.clone()),
        };
        profile.groups = (0..4).map(|_| group(random)).collect();
        Plan::with_profile(seed, profile)
    }

    /// Runs seeds until one fails: the failure, and how many it took.
    #[must_use]
    pub fn hunt(&self, seeds: u64) -> Option<(Failure, u64)> {
        (0..seeds).find_map(|seed| {
            run(&self.plan(seed), Watching::default()).failure.map(|failure| (failure, seed + 1))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mutant_has_its_trial() {
        let tried: Vec<Mutant> = TRIALS.iter().map(|trial| trial.mutant).collect();
        assert_eq!(tried, Mutant::ALL);
    }
}
