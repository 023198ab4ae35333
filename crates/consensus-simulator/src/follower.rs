//! Follows the groups in the model of the protocol: whatever a replica does must be a step that the
//! model would have let it take.

use std::collections::{BTreeMap, BTreeSet};

use flintmq_consensus::{
    ConfigRegister, Core, Effect, GroupId, History, NodeCore, NodeEffect, NodeId, Restored,
    Settings,
};
use flintmq_consensus_model::trace::{Mismatch, TraceChecker};
use std::sync::Arc;

use crate::ghost::{Check, violated};
use crate::profile::{Durability, GroupSpec};

/// One checker per group that the model has room for.
#[derive(Debug, Default)]
pub(crate) struct Follower {
    groups: BTreeMap<GroupId, TraceChecker>,
}

fn found(group: GroupId, outcome: Result<(), Mismatch>) -> Check {
    match outcome {
        Ok(()) => Ok(()),
        Err(mismatch) => violated("Model", format!("group {group}: {mismatch}")),
    }
}

impl Follower {
    pub(crate) fn add(
        &mut self,
        group: GroupId,
        spec: &GroupSpec,
        nodes: &BTreeSet<NodeId>,
        voters: &[NodeId],
    ) {
        // The model's losses go back to some earlier log; here all of it is gone at once.
        let follows = spec.durability != Durability::Memory && spec.settings.mutant.is_none();
        if follows {
            let nodes: Vec<NodeId> = nodes.iter().copied().collect();
            self.groups.insert(group, TraceChecker::new(&nodes, voters));
        }
    }

    /// The model has no room for what happens to the group now.
    pub(crate) fn leave(&mut self, group: GroupId) {
        self.groups.remove(&group);
    }

    pub(crate) fn leave_all(&mut self) {
        self.groups.clear();
    }

    pub(crate) fn stepped(
        &mut self,
        core: &NodeCore,
        touched: &BTreeSet<GroupId>,
        effects: &[NodeEffect],
    ) -> Check {
        let mut given: BTreeMap<GroupId, Vec<Effect>> =
            touched.iter().map(|group| (*group, Vec::new())).collect();
        for effect in effects {
            match effect {
                NodeEffect::Send { packet, .. } => {
                    for message in &packet.messages {
                        let effect = Effect::Send(message.clone());
                        given.entry(message.group).or_default().push(effect);
                    }
                }
                NodeEffect::Group { group, effect } => {
                    given.entry(*group).or_default().push(effect.clone());
                }
                NodeEffect::SaveHardStates { states, .. } => {
                    for (group, ..) in states {
                        given.entry(*group).or_default();
                    }
                }
                _ => {}
            }
        }
        for (group, effects) in given {
            if let (Some(checker), Some(core)) = (self.groups.get_mut(&group), core.group(group)) {
                found(group, checker.stepped(core, &effects))?;
            }
        }
        Ok(())
    }

    pub(crate) fn restarted(
        &mut self,
        restored: &Restored,
        settings: &Arc<Settings>,
        lost_power: bool,
    ) -> Check {
        let group = restored.group;
        let Some(checker) = self.groups.get_mut(&group) else { return Ok(()) };
        // As it is before its first step.
        match Core::new(restored.clone(), Arc::clone(settings), 0) {
            Ok(core) => found(group, checker.restarted(&core, lost_power)),
            Err(_) => Ok(()),
        }
    }

    pub(crate) fn ordered(
        &mut self,
        core: &Core,
        dead: &BTreeSet<NodeId>,
        expect_history: History,
        newest: &ConfigRegister,
        number: u32,
    ) {
        if let Some(checker) = self.groups.get_mut(&core.group()) {
            checker.ordered(core, dead, expect_history, newest, number);
        }
    }

    /// Steps looked at, and why checkers stopped to look.
    pub(crate) fn checked(&self) -> (u64, Vec<&'static str>) {
        let over = self.groups.values().filter_map(TraceChecker::over).collect();
        (self.groups.values().map(TraceChecker::checked).sum(), over)
    }
}
