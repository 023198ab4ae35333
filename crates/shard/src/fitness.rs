//! Whether this node, and the others, had better lead no group.

use std::collections::BTreeSet;
use std::time::Duration;

use flintmq_consensus::{GroupId, NodeId, NodeInput, Time, UnfitReasons};
use flintmq_log_store::DiskState;

use crate::effect::Told;
use crate::host::Host;
use crate::machine::Machine;
use crate::shard::Shard;

/// How long a disk that stalled has to get on before groups are led here again.
const GETS_ON_FOR: Duration = Duration::from_secs(10);

/// What is known of this node's own fitness.
#[derive(Debug, Default)]
pub(crate) struct Fitness {
    /// Groups with writes that do not return.
    stalled: BTreeSet<GroupId>,
    /// When the disk was seen to stall last.
    stalled_at: Option<Time>,
    /// What was said last.
    pub(crate) said: UnfitReasons,
}

impl Fitness {
    /// Whether a group's writes return, as its tick finds.
    pub(crate) fn note_writes(&mut self, group: GroupId, stalled: bool, now: Time) {
        if stalled {
            self.stalled.insert(group);
            self.stalled_at = Some(now);
        } else {
            self.stalled.remove(&group);
        }
    }

    /// The group is gone.
    pub(crate) fn forget(&mut self, group: GroupId) {
        self.stalled.remove(&group);
    }

    fn is_disk_stalled(&self, now: Time) -> bool {
        let lately = |at: Time| now.since(at) < GETS_ON_FOR;
        !self.stalled.is_empty() || self.stalled_at.is_some_and(lately)
    }
}

impl Host {
    fn unfit_reasons(&self) -> UnfitReasons {
        let mut reasons = UnfitReasons::NONE;
        if self.time.is_off() {
            reasons = reasons | UnfitReasons::CLOCK_OFF;
        }
        if self.store.disk_state() != DiskState::Ok {
            reasons = reasons | UnfitReasons::DISK_FULL;
        }
        if self.fitness.is_disk_stalled(self.now) {
            reasons = reasons | UnfitReasons::DISK_STALLED;
        }
        reasons
    }

    /// Whether this node, or another, should lead nothing as long as others can.
    pub(crate) fn is_unfit(&self, node: NodeId) -> bool {
        let reasons = if node == self.node { self.fitness.said } else { self.peers.unfit(node) };
        reasons != UnfitReasons::NONE
    }
}

impl<M: Machine> Shard<M> {
    /// Finds out whether this node should not lead; says so where that is news.
    pub(crate) fn look_at_fitness(&mut self) {
        let reasons = self.host.unfit_reasons();
        if std::mem::replace(&mut self.host.fitness.said, reasons) == reasons {
            return;
        }
        self.host.tell(Told::Unfit { reasons });
        // A node alone has to lead whatever happens.
        if self.host.clustered {
            self.step_core(NodeInput::Unfit { reasons });
            self.renew_wishes();
        }
    }

    /// Another node should not lead, or may again.
    pub(crate) fn on_peer_unfit(&mut self, peer: NodeId, reasons: UnfitReasons) {
        if peer == self.host.node {
            return;
        }
        self.step_core(NodeInput::AddPeer { peer });
        self.host.peers.told_unfit(peer, reasons);
        self.step_core(NodeInput::PeerUnfit { peer, reasons });
        self.renew_wishes();
    }

    /// Who must not lead is looked at before the groups' next second has passed.
    pub(crate) fn renew_wishes(&mut self) {
        for hosted in self.groups.values_mut() {
            hosted.replica.take_wishes(&self.core, &self.host);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_stalled_has_to_get_on_for_a_while() {
        let mut fitness = Fitness::default();
        assert!(!fitness.is_disk_stalled(Time(0)));
        fitness.note_writes(GroupId(1), true, Time(0));
        assert!(fitness.is_disk_stalled(Time(0) + GETS_ON_FOR * 2), "it still does");
        fitness.note_writes(GroupId(1), false, Time(1));
        assert!(fitness.is_disk_stalled(Time(1)));
        assert!(!fitness.is_disk_stalled(Time(0) + GETS_ON_FOR));
    }
}
