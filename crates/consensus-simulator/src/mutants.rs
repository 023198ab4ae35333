//! Which runs show that each rule of the protocol matters: a broken one has to be noticed.

use std::sync::Arc;

use flintmq_consensus::{Mutant, NodeMutant, RecoveryPolicy, Settings};

use crate::fault::FaultKind;
use crate::profile::{Durability, GroupSpec, Profile};
use crate::random::Random;
use crate::run::{Failure, Plan, Watching, run};

/// Who is known to notice a mutant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Catcher {
    /// This simulator, within the trial's seeds.
    Simulator,
    /// The searches and stories of the crate `flintmq-consensus-model` around bare cores: here it
    /// takes too much of a coincidence, or the node's rules about processes that are no more stand
    /// before it.
    Harness,
    /// The model of the protocol only: in the core another rule makes it harmless.
    Model,
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
    PowerLossTwice, Split, Stand, Suspend, Transfer,
};

const LOSSES: &[FaultKind] = &[PowerLoss, PowerLossTwice, Isolate, Cede, Stand];
const ROLLING: &[FaultKind] = &[PowerLoss, PowerLossTwice, PowerLossTwice, Isolate, Cede];
const ELECTIONS: &[FaultKind] = &[Isolate, Split, OneWay, Cede, Stand, ForcedTransfer, Crash];
const MEMBERS: &[FaultKind] =
    &[ChangeMember, ChangeMember, ChangeMembers, Isolate, Split, Cede, Stand, Crash];
const OLD_CONFIGS: &[FaultKind] = &[ChangeMembers, ChangeMembers, Isolate, Split, Stand, Stand];
const LEASES: &[FaultKind] = &[Transfer, ForcedTransfer, Cede, Suspend];

const fn trial(mutant: Mutant, seeds: u64, nodes: u64, faults: &'static [FaultKind]) -> Trial {
    Trial { mutant, catcher: Catcher::Simulator, seeds, faults, nodes }
}

const fn leave(mutant: Mutant, catcher: Catcher) -> Trial {
    Trial { mutant, catcher, seeds: 0, faults: ROLLING, nodes: 3 }
}

/// All trials, one per mutant.
pub const TRIALS: [Trial; 20] = [
    trial(Mutant::W01LossUndetected, 50, 3, LOSSES),
    trial(Mutant::W02RecoveringCountsInSync, 50, 3, LOSSES),
    leave(Mutant::W03GrantWithoutEpoch, Catcher::Harness),
    trial(Mutant::W04TermNotDurable, 20, 3, LOSSES),
    leave(Mutant::W05GrantOfOlderTerm, Catcher::Model),
    trial(Mutant::W06CommitOldTermsByCounting, 400, 3, ELECTIONS),
    trial(Mutant::W07ServeWithoutSync, 50, 3, ELECTIONS),
    trial(Mutant::W08RejoinOnContact, 100, 3, LOSSES),
    trial(Mutant::W08RejoinWithoutLog, 100, 3, LOSSES),
    trial(Mutant::W09RejoinFromAnyPeer, 400, 3, ROLLING),
    trial(Mutant::W10GrantWhileSyncing, 400, 3, ROLLING),
    trial(Mutant::W11AckUnverified, 200, 3, ELECTIONS),
    leave(Mutant::W12CountAcksOfOlderTerms, Catcher::Harness),
    trial(Mutant::W13ChooseLongestLog, 200, 3, ELECTIONS),
    trial(Mutant::W14VoteForAnyConfig, 400, 5, OLD_CONFIGS),
    leave(Mutant::W15NoRestamp, Catcher::Harness),
    trial(Mutant::W16ChangeBeforeConfigIsHeld, 400, 5, MEMBERS),
    trial(Mutant::W17ChangeBeforeLogIsHeld, 400, 5, MEMBERS),
    trial(Mutant::W18ResumeLeadership, 20, 3, LOSSES),
    trial(Mutant::W19LeaseOutlivesCession, 200, 3, LEASES),
];

/// What is tried to catch a broken rule of the node: seeds within which it is caught.
pub const NODE_TRIALS: [(NodeMutant, u64); 3] = [
    (NodeMutant::N01SnapshotNotRetried, 60),
    (NodeMutant::N02UnfitKeepsLeading, 20),
    (NodeMutant::N03EarlyMessagesCount, 300),
];

/// The plan of a seed in which nodes, in two halves each, break this rule, or none.
#[must_use]
pub fn node_plan(seed: u64, mutant: Option<NodeMutant>) -> Plan {
    let mut profile = Profile::draw(seed);
    profile.halves = true;
    profile.failing_snapshots = profile.failing_snapshots.max(100_000);
    profile.unfit_at_end = true;
    profile.node_mutant = mutant;
    Plan::with_profile(seed, profile)
}

/// Runs seeds until one fails: the failure, and how many it took.
#[must_use]
pub fn hunt_node(mutant: NodeMutant, seeds: u64) -> Option<(Failure, u64)> {
    (0..seeds).find_map(|seed| {
        let outcome = run(&node_plan(seed, Some(mutant)), Watching::default());
        outcome.failure.map(|failure| (failure, seed + 1))
    })
}

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
    /// The plan of a seed of this trial, with the rule broken.
    #[must_use]
    pub fn plan(&self, seed: u64) -> Plan {
        self.plan_with(seed, Some(self.mutant))
    }

    /// The same plan with all rules kept: nothing may be found in it.
    #[must_use]
    pub fn sound_plan(&self, seed: u64) -> Plan {
        self.plan_with(seed, None)
    }

    fn plan_with(&self, seed: u64, mutant: Option<Mutant>) -> Plan {
        let mut random = Random::new(seed, 9);
        let random = &mut random;
        let mut profile = Profile::draw(seed);
        profile.nodes = self.nodes;
        profile.weights = self.faults.iter().map(|kind| (*kind, random.between(1, 10))).collect();
        profile.fault_gap = random.skewed(30_000, 400_000);
        profile.longest_fault = random.skewed(100_000, 1_500_000);
        profile.faults_end = 8_000_000;
        // What is looked for shows at once, if at all.
        profile.settles = false;
        profile.ambushes = random.below(800_000);
        profile.disk.sync_interval = 3_000_000;
        profile.checkpoint_interval = 5_000_000;
        profile.load.pause = random.skewed(3_000, 100_000);
        profile.load.producers = 1;
        profile.load.readers = u64::from(self.faults == LEASES);
        let lease = profile.groups.first().and_then(|group| group.settings.lease);
        let lease = (self.faults == LEASES).then_some(lease.unwrap_or(flintmq_consensus::Lease {
            duration: std::time::Duration::from_millis(400),
            drift_ppm: 50_000,
        }));
        let settings = Settings {
            recovery: RecoveryPolicy::Strict,
            lease,
            mutant,
            message_entries: u32::try_from(random.between(1, 4)).unwrap_or(1),
            ..Settings::default()
        };
        let changes = self.faults == MEMBERS || self.faults == OLD_CONFIGS;
        let group = |random: &mut Random| GroupSpec {
            voters: if changes { 3 } else { self.nodes },
            first: random.below(self.nodes),
            durability: Durability::Background,
            settings: Arc::new(settings.clone()),
        };
        profile.groups = (0..2).map(|_| group(random)).collect();
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
