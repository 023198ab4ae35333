//! Wall clocks: each node has its own, which may be wrong for a whole run or jump, and they are
//! compared in beats.

use flintmq_consensus::{ClockReading, NodeEffect, NodeId, NodeInput, Packet};
use flintmq_shard::ShardInput;

use crate::coverage::Situation;
use crate::event::{Event, Healing};
use crate::node::Node;
use crate::plan::{Fault, FaultKind};
use crate::world::World;

const DAY_MS: i64 = 86_400_000;

/// By how much clocks jump, in milliseconds.
const JUMPS: [i64; 6] = [-10_000, 3_000, 60_000, 2 * DAY_MS, -2 * DAY_MS, 8 * DAY_MS];

/// How far the clock of a node is ahead that is wrong for a whole run.
const WRONG_MS: i64 = 8 * DAY_MS;

impl Node {
    /// The cluster's time as this node has it.
    pub(crate) fn read_clock(&mut self, now: u64) -> Option<ClockReading> {
        let (time, wall) = (self.clock.time(now), self.clock.wall_ms(now));
        let process = self.process.as_mut()?;
        process.cluster_clock.own(time, wall);
        Some(process.cluster_clock.reading())
    }

    /// Stamps a beat that leaves.
    pub(crate) fn stamp(&mut self, now: u64, packet: &mut Packet) {
        self.read_clock(now);
        let time = self.clock.time(now);
        packet.clocks = self.process.as_ref().map(|process| process.cluster_clock.says(time));
    }

    /// Takes what a beat says of the time. True when that changed what is known of it.
    pub(crate) fn hear_clocks(&mut self, now: u64, packet: &Packet) -> bool {
        let time = self.clock.time(now.max(self.paused_until));
        let (Some(clocks), Some(process)) = (packet.clocks, &mut self.process) else {
            return false;
        };
        let before = process.cluster_clock.reading().state;
        process.cluster_clock.heard(time, packet.from, clocks);
        process.cluster_clock.reading().state != before
    }
}

impl World {
    /// A wall clock jumps, and back later. Never so many that a majority is wrong: then no node
    /// knows what is right.
    pub(crate) fn jump(&mut self, id: NodeId, fault: &Fault) {
        let is_wrong = |node: &&Node| node.id != id && node.clock.wall_offset_ms != 0;
        let wrong = self.nodes.values().filter(is_wrong).count();
        if self.nodes.len() > 1 && 2 * (wrong + 1) > self.nodes.len() {
            return;
        }
        self.coverage.saw(Situation::ClockJumped);
        let by = JUMPS[(fault.choice % JUMPS.len() as u64) as usize];
        if let Some(node) = self.nodes.get_mut(&id) {
            node.clock.wall_offset_ms += by;
        }
        self.after(fault.lasts, Event::Heal(Healing::Wall(id)));
    }

    /// A wall clock is right from now on, unless it is wrong for the whole run.
    pub(crate) fn set_clock_right(&mut self, id: NodeId) {
        let wrong = self.has_wrong_clock(id);
        if let Some(node) = self.nodes.get_mut(&id) {
            node.clock.wall_offset_ms = if wrong { WRONG_MS } else { 0 };
        }
    }

    /// Whether this node's clock is wrong for the whole run.
    pub(crate) fn has_wrong_clock(&self, id: NodeId) -> bool {
        let losing = self.profile.kinds.contains(&FaultKind::LoseMajority);
        self.profile.wrong_clock && !losing && self.profile.nodes > 2 && id == NodeId(1)
    }

    /// All wall clocks are right from now on, but one that is wrong for the whole run.
    pub(crate) fn set_clocks_right(&mut self) {
        self.ids().into_iter().for_each(|id| self.set_clock_right(id));
    }

    /// A node's shard says why the node should not lead: its beats say so from now on.
    pub(crate) fn say_unfit(&mut self, id: NodeId, reasons: flintmq_consensus::UnfitReasons) {
        let now = self.now;
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let time = node.clock.time(now);
        let Some(process) = &mut node.process else { return };
        process.step_liveness(time, NodeInput::Unfit { reasons });
        self.coverage.saw(Situation::Unfit);
        self.wake_liveness(id, now);
    }
}

/// What a liveness's effect tells the shard of a peer.
pub(crate) fn word<R>(
    liveness: &flintmq_consensus::NodeCore,
    effect: NodeEffect,
) -> Option<ShardInput<R>> {
    match effect {
        NodeEffect::PeerSuspected { peer } => {
            let incarnation = liveness.peer(peer).map_or(0, |state| state.incarnation);
            Some(ShardInput::Peer { peer, up: false, incarnation, restarted: false })
        }
        NodeEffect::PeerTrusted { peer, incarnation, restarted } => {
            Some(ShardInput::Peer { peer, up: true, incarnation, restarted })
        }
        NodeEffect::PeerUnfit { peer, reasons } => Some(ShardInput::PeerUnfit { peer, reasons }),
        NodeEffect::Send { .. } | NodeEffect::SaveHardStates { .. } | NodeEffect::Group { .. } => {
            None
        }
    }
}
