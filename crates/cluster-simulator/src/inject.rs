//! Faults, when they happen.

use flintmq_consensus::{GroupId, NodeId};
use flintmq_shard::ShardInput;

use crate::coverage::Situation;
use crate::event::{Event, Healing};
use crate::network::Weather;
use crate::operators::Wish;
use crate::oracle::Violation;
use crate::plan::{Fault, FaultKind, Target};
use crate::world::World;

/// For how long after a disturbance a node may not know what the others do, in microseconds.
const AFTERMATH: u64 = 6_000_000;

impl World {
    /// A fault happens.
    pub(crate) fn inject(&mut self, number: usize) -> Result<(), Violation> {
        if self.settling.healed_since.is_some() {
            return Ok(());
        }
        let Some(fault) = self.faults.get(number).cloned() else { return Ok(()) };
        // Some hit the controller.
        let group = match fault.choice / 16 % 6 {
            0 => GroupId::CONTROLLER,
            _ => GroupId(fault.group + 1),
        };
        let Some(id) = self.target(&fault, group) else { return Ok(()) };
        self.say(|| {
            format!("fault {number}: {:?} at node {} for {}", fault.kind, id.0, fault.lasts)
        });
        if !is_administration(fault.kind) {
            self.trouble(fault.lasts);
        }
        match fault.kind {
            FaultKind::Crash => self.crash(id, fault.lasts),
            FaultKind::PowerLoss => self.lose_power(id, &fault),
            FaultKind::Pause => {
                self.coverage.saw(Situation::Paused);
                self.forget_who_is_alone();
                let until = self.now + fault.lasts;
                if let Some(node) = self.nodes.get_mut(&id) {
                    node.paused_until = node.paused_until.max(until);
                }
            }
            FaultKind::ShardStall => {
                self.coverage.saw(Situation::ShardStalled);
                let until = self.now + fault.lasts;
                if let Some(node) = self.nodes.get_mut(&id) {
                    node.shard_stalled_until = node.shard_stalled_until.max(until);
                }
            }
            FaultKind::Stop => self.stop(id),
            FaultKind::Cut | FaultKind::CutOneWay => {
                let Some(other) = self.other_than(id, fault.choice) else { return Ok(()) };
                let one_way = fault.kind == FaultKind::CutOneWay;
                self.coverage.saw(if one_way {
                    Situation::CutOneWay
                } else {
                    Situation::CutBothWays
                });
                let replaced = fault.choice % 3 != 0;
                self.cut(id, other, fault.lasts, replaced);
                if !one_way {
                    self.cut(other, id, fault.lasts, replaced);
                }
            }
            FaultKind::Isolate => {
                self.coverage.saw(Situation::CutBothWays);
                for other in self.ids().into_iter().filter(|other| *other != id) {
                    let replaced = fault.choice % 3 != 0;
                    self.cut(id, other, fault.lasts, replaced);
                    self.cut(other, id, fault.lasts, replaced);
                }
            }
            FaultKind::ReplaceConnection => {
                if let Some(other) = self.other_than(id, fault.choice) {
                    self.replace_connection(id, other);
                }
            }
            FaultKind::LoseConnection => {
                if let Some(other) = self.other_than(id, fault.choice) {
                    self.coverage.saw(Situation::ConnectionLost);
                    self.disconnect(id, other);
                }
            }
            FaultKind::Congestion => {
                self.set_way_limit(fault.choice as usize % 4_000 + 100);
                self.after(fault.lasts, Event::Heal(Healing::Congestion));
            }
            FaultKind::BadWeather => {
                let delay = (100 + fault.choice % 5_000, 5_000 + fault.choice % 60_000);
                self.net.weather = Weather { delay, loss: fault.choice % 200 };
                self.after(fault.lasts, Event::Heal(Healing::Weather));
            }
            FaultKind::DiskStall => {
                self.coverage.saw(Situation::DiskStalled);
                let until = self.now + fault.lasts;
                if let Some(node) = self.nodes.get_mut(&id) {
                    node.disk_stalled_until = node.disk_stalled_until.max(until);
                }
            }
            FaultKind::SlowDisk => {
                let until = self.now + fault.lasts;
                if let Some(node) = self.nodes.get_mut(&id) {
                    node.slow_disk_until = node.slow_disk_until.max(until);
                }
            }
            FaultKind::DiskLow => {
                self.coverage.saw(Situation::DiskLow);
                self.set_low_disk(id, Some((10, 100)));
                self.after(fault.lasts, Event::Heal(Healing::DiskLow(id)));
            }
            FaultKind::StoreFull => {
                let capacity = fault.choice as usize % 4;
                self.set_store(id, |store| store.inner.set_capacity(capacity));
                self.coverage.saw(Situation::StoreFull);
                self.after(fault.lasts, Event::Heal(Healing::StoreFull(id)));
            }
            FaultKind::FailSnapshots => {
                self.set_store(id, |store| store.set_fail_snapshots(true));
                self.after(fault.lasts, Event::Heal(Healing::Snapshots(id)));
            }
            FaultKind::FailReads => {
                self.set_store(id, |store| store.set_fail_reads(true));
                self.after(fault.lasts, Event::Heal(Healing::Reads(id)));
            }
            FaultKind::ExpireSnapshots => {
                self.coverage.saw(Situation::SnapshotsExpired);
                self.set_store(id, |store| store.inner.expire_snapshots());
            }
            FaultKind::ClockJump => self.jump(id, &fault),
            FaultKind::Transfer => self.transfer(group, &fault),
            FaultKind::Cede => {
                if let Some(incarnation) = self.process_of(id) {
                    self.tell_now(id, incarnation, ShardInput::GroupStalled { group });
                }
            }
            FaultKind::RemoveIdle => {
                for look in 0..8 {
                    self.after(look * 400_000, Event::Administer);
                }
            }
            FaultKind::Purge => self.purge(id, group, fault.choice),
            FaultKind::MoveMembers => {
                let (group, first) = (fault.group + 1, fault.choice as usize % 16);
                self.wish(Wish::Move { group, first }, false);
            }
            FaultKind::ChangeDomain => self.change_domain(fault.choice),
            FaultKind::Drain
            | FaultKind::AddNode
            | FaultKind::RemoveNode
            | FaultKind::ReplaceNode => self.change_nodes(fault.kind, id, fault.lasts),
            FaultKind::LoseMajority => self.lose_majority_soon(fault.choice),
        }
        Ok(())
    }

    /// Something happens: for a while nodes may not know what the others do.
    pub(crate) fn trouble(&mut self, lasts: u64) {
        let until = self.now + lasts + AFTERMATH;
        for node in self.nodes.values_mut() {
            node.troubled_until = node.troubled_until.max(until);
        }
    }

    pub(crate) fn target(&self, fault: &Fault, group: GroupId) -> Option<NodeId> {
        let alive: Vec<NodeId> =
            self.nodes.values().filter(|node| node.process.is_some()).map(|node| node.id).collect();
        let leader = self.leader_of(group);
        let among = |ids: &[NodeId], number: u64| -> Option<NodeId> {
            ids.get((number % ids.len().max(1) as u64) as usize).copied()
        };
        match fault.target {
            Target::Any(number) => among(&alive, number),
            Target::Leader => leader.or_else(|| among(&alive, fault.choice)),
            Target::Other(number) => {
                let others: Vec<NodeId> =
                    alive.into_iter().filter(|id| Some(*id) != leader).collect();
                among(&others, number)
            }
        }
    }

    /// Who serves a group, in the highest term.
    pub(crate) fn leader_of(&self, group: GroupId) -> Option<NodeId> {
        let cores = self.nodes.values().filter_map(|node| {
            let core = node.process.as_ref()?.shard.core(group)?;
            core.is_serving().then_some((core.term(), node.id))
        });
        cores.max().map(|(_, id)| id)
    }

    pub(crate) fn other_than(&self, id: NodeId, choice: u64) -> Option<NodeId> {
        let others: Vec<NodeId> = self.ids().into_iter().filter(|other| *other != id).collect();
        others.get((choice % others.len().max(1) as u64) as usize).copied()
    }
}

/// What must not make nodes lose sight of each other's clients.
fn is_administration(kind: FaultKind) -> bool {
    matches!(
        kind,
        FaultKind::Transfer
            | FaultKind::Cede
            | FaultKind::RemoveIdle
            | FaultKind::Purge
            | FaultKind::ChangeDomain
            | FaultKind::ExpireSnapshots
            | FaultKind::FailSnapshots
            | FaultKind::FailReads
            | FaultKind::DiskLow
    )
}
