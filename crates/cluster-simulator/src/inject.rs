//! Faults, when they happen and when they end.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use flintmq_consensus::{GroupId, NodeId};
use flintmq_partition::{AdminRefusal, Removable, Request, Ticket};
use flintmq_queue::QueueId;
use flintmq_shard::{AdminCommand, Assignment, Place, ShardInput};

use crate::coverage::Situation;
use crate::network::Weather;
use crate::node::Stopping;
use crate::oracle::Violation;
use crate::plan::{Fault, FaultKind, Target};
use crate::world::{Event, Healing, Waits, World};

/// For how long after a disturbance a node may not know what the others do, in microseconds.
const AFTERMATH: u64 = 6_000_000;

impl World {
    /// A fault happens.
    pub(crate) fn inject(&mut self, number: usize) -> Result<(), Violation> {
        if self.settling.healed_since.is_some() {
            return Ok(());
        }
        let Some(fault) = self.faults.get(number).cloned() else { return Ok(()) };
        let group = GroupId(fault.group + 1);
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
            FaultKind::MoveMembers => self.move_members(group, fault.choice),
        }
        Ok(())
    }

    /// Something happens: for a while nodes may not know what the others do.
    fn trouble(&mut self, lasts: u64) {
        let until = self.now + lasts + AFTERMATH;
        for node in self.nodes.values_mut() {
            node.troubled_until = node.troubled_until.max(until);
        }
    }

    fn target(&self, fault: &Fault, group: GroupId) -> Option<NodeId> {
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

    fn other_than(&self, id: NodeId, choice: u64) -> Option<NodeId> {
        let others: Vec<NodeId> = self.ids().into_iter().filter(|other| *other != id).collect();
        others.get((choice % others.len().max(1) as u64) as usize).copied()
    }

    fn set_store(&self, id: NodeId, set: impl FnOnce(&crate::store::SimStore)) {
        if let Some(node) = self.nodes.get(&id) {
            set(&node.store);
        }
    }

    /// A disk is nearly full, or has room again; its shard finds out.
    pub(crate) fn set_low_disk(&mut self, id: NodeId, low: Option<(u64, u64)>) {
        self.set_store(id, |store| store.inner.set_low_disk(low));
    }

    pub(crate) fn crash(&mut self, id: NodeId, lasts: u64) {
        self.coverage.saw(Situation::Crashed);
        self.end_process(id);
        self.set_store(id, |store| store.inner.crash());
        self.after(lasts, Event::Boot(id));
    }

    /// Only while all others have everything: more than that is lost for good, as documented.
    fn lose_power(&mut self, id: NodeId, fault: &Fault) {
        let safe = self.nodes.values().all(|node| {
            node.process.as_ref().is_some_and(|process| {
                let mut groups = process.shard.groups();
                groups.all(|group| {
                    process.shard.core(group).is_some_and(|core| core.recovering().is_none())
                })
            })
        });
        if !safe || self.profile.replicas < 3 {
            return self.crash(id, fault.lasts);
        }
        self.coverage.saw(Situation::LostPower);
        self.end_process(id);
        let keep = fault.choice as usize % 8;
        let Some(node) = self.nodes.get(&id) else { return };
        if node.store.inner.unsynced_changes() > keep {
            self.coverage.saw(Situation::LostTail);
        }
        node.store.inner.lose_power(keep);
        self.after(fault.lasts, Event::Boot(id));
    }

    /// Stops a node in good order.
    pub(crate) fn stop(&mut self, id: NodeId) {
        let now = self.now;
        let groups: Vec<GroupId> = self.groups.keys().copied().collect();
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let Some(process) = &mut node.process else { return };
        if process.stopping != Stopping::No {
            return;
        }
        process.stopping = Stopping::Delivery { missing: groups.len() as u32, since: now };
        let incarnation = process.incarnation;
        for group in groups {
            let ticket = Ticket(self.name());
            let waits = Waits::StopDelivery { node: id, incarnation };
            self.tickets.insert(ticket, (id, incarnation, waits));
            self.request(id, incarnation, group, Request::StopDelivery { ticket });
        }
    }

    fn cut(&mut self, from: NodeId, to: NodeId, lasts: u64, replaced: bool) {
        if let Some(link) = self.net.links.get_mut(&(from, to)) {
            link.cut = true;
            self.after(lasts, Event::Heal(Healing::Link(from, to, replaced)));
        }
    }

    /// The transport replaces a connection: what was in flight on it is lost.
    fn replace_connection(&mut self, a: NodeId, b: NodeId) {
        if !self.net.is_open(a, b) {
            return;
        }
        if self.net.drop_flows(a, b) > 0 {
            self.coverage.saw(Situation::FramesLostSilently);
        }
        self.set_ways(a, b, true);
    }

    fn set_way_limit(&mut self, limit: usize) {
        self.net.way_limit = limit;
        for node in self.nodes.values() {
            if let Some(process) = &node.process {
                let mut wire = process.wire.lock();
                wire.ways.values_mut().for_each(|way| way.limit = limit);
            }
        }
    }

    fn transfer(&mut self, group: GroupId, fault: &Fault) {
        let Some(leader) = self.leader_of(group) else { return };
        let (Some(incarnation), Some(to)) =
            (self.process_of(leader), self.other_than(leader, fault.choice))
        else {
            return;
        };
        let ticket = self.name();
        let command = AdminCommand::Transfer { to, force: fault.choice.is_multiple_of(4) };
        self.tell_now(leader, incarnation, ShardInput::Admin { group, ticket, command });
    }

    fn purge(&mut self, id: NodeId, group: GroupId, choice: u64) {
        let slots: Vec<QueueId> =
            self.slots.iter().filter(|slot| slot.group == group).map(|slot| slot.number).collect();
        let Some(queue) = slots.get((choice % slots.len().max(1) as u64) as usize).copied() else {
            return;
        };
        let Some(incarnation) = self.process_of(id) else { return };
        let ticket = Ticket(self.name());
        self.tickets.insert(ticket, (id, incarnation, Waits::Purge));
        self.request(id, incarnation, group, Request::Purge { ticket, queue });
    }

    fn move_members(&mut self, group: GroupId, choice: u64) {
        let ids = self.ids();
        let replicas = (self.profile.replicas as usize).min(ids.len());
        let first = (choice % ids.len() as u64) as usize;
        let voters: Vec<NodeId> = (0..replicas)
            .filter_map(|place| ids.get((first + place) % ids.len()))
            .copied()
            .collect();
        self.settling.assignment.groups.insert(group, Place { voters, ..Place::default() });
        self.tell_assignment();
    }

    pub(crate) fn tell_assignment(&mut self) {
        let assignment: Arc<Assignment> = Arc::new(self.settling.assignment.clone());
        for id in self.ids() {
            if let Some(incarnation) = self.process_of(id) {
                let delay = self.host_random.skewed(1_000, 300_000);
                let input = ShardInput::Assignment(Arc::clone(&assignment));
                self.after(delay, Event::Tell(id, incarnation, Box::new(input)));
            }
        }
    }

    /// Asks every node for queues that were idle for a while.
    pub(crate) fn administer(&mut self) {
        if self.settling.healed_since.is_some() {
            return;
        }
        let unused_ms = self.admin_random.between(200, 2_500);
        let timeout = Duration::from_millis(unused_ms);
        let groups: Vec<GroupId> = self.groups.keys().copied().collect();
        for id in self.ids() {
            let Some(incarnation) = self.process_of(id) else { continue };
            for group in &groups {
                let ticket = Ticket(self.name());
                let waits = Waits::Idle { node: id, unused_ms };
                self.tickets.insert(ticket, (id, incarnation, waits));
                self.request(id, incarnation, *group, Request::IdleQueues { ticket, timeout });
            }
        }
    }

    /// Asks for the removal of queues, at any node: the leadership may have moved.
    pub(crate) fn remove_idle(&mut self, _told_by: NodeId, unused_ms: u64, uris: &[String]) {
        let idle: BTreeSet<&str> = uris.iter().map(String::as_str).collect();
        for place in 0..self.slots.len() {
            let Some(slot) = self.slots.get_mut(place) else { return };
            let uri = format!("bmq://simulated.domain/q{}", slot.number.0);
            if slot.removing || !idle.contains(uri.as_str()) {
                continue;
            }
            slot.removing = true;
            self.remove_queue(place, unused_ms);
        }
    }

    /// Asks any node to remove a queue, until the answer is a definite one.
    pub(crate) fn remove_queue(&mut self, place: usize, unused_ms: u64) {
        let running: Vec<NodeId> =
            self.nodes.values().filter(|node| node.process.is_some()).map(|node| node.id).collect();
        let Some((id, incarnation)) =
            self.admin_random.pick(&running).and_then(|id| Some((id, self.process_of(id)?)))
        else {
            return self.after(200_000, Event::Remove(place, unused_ms));
        };
        let Some(slot) = self.slots.get(place) else { return };
        let (queue, group) = (slot.number, slot.group);
        let ticket = Ticket(self.name());
        let waits = Waits::Delete { slot: place, unused_ms };
        self.tickets.insert(ticket, (id, incarnation, waits));
        let only_if = Removable::UnusedFor(Duration::from_millis(unused_ms));
        self.request(id, incarnation, group, Request::Delete { ticket, queue, only_if });
    }

    /// A queue was removed, or was not.
    pub(crate) fn removed(
        &mut self,
        place: usize,
        unused_ms: u64,
        result: &Result<(), AdminRefusal>,
    ) {
        self.say(|| format!("removal of the queue of slot {place}: {result:?}"));
        let gone = match result {
            Ok(()) | Err(AdminRefusal::NoSuchQueue) => true,
            Err(AdminRefusal::Used | AdminRefusal::InUse { .. }) => false,
            Err(AdminRefusal::Failed(_)) => {
                return self.after(300_000, Event::Remove(place, unused_ms));
            }
        };
        if !gone {
            self.coverage.saw(Situation::RemovalRefused);
        }
        let number = QueueId(self.queues_made + 1);
        let Some(slot) = self.slots.get_mut(place) else { return };
        slot.removing = false;
        if gone {
            self.queues_made += 1;
            slot.number = number;
        }
    }

    /// What a fault did ends.
    pub(crate) fn heal(&mut self, healing: Healing) {
        match healing {
            Healing::Link(from, to, replaced) => {
                let Some(link) = self.net.links.get_mut(&(from, to)) else { return };
                link.cut = false;
                if replaced {
                    self.replace_connection(from, to);
                }
                self.look_at_flow(from, to);
                self.after(10_000, Event::Connect(from, to));
            }
            Healing::Weather => self.net.weather = Weather::FAIR,
            Healing::Congestion => self.set_way_limit(4 << 20),
            Healing::DiskLow(id) => self.set_low_disk(id, None),
            Healing::StoreFull(id) => {
                self.set_store(id, |store| store.inner.set_capacity(65_536));
                self.start_disk(id);
            }
            Healing::Snapshots(id) => self.set_store(id, |store| store.set_fail_snapshots(false)),
            Healing::Reads(id) => self.set_store(id, |store| store.set_fail_reads(false)),
            Healing::Wall(id) => self.set_clock_right(id),
        }
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
            | FaultKind::ExpireSnapshots
            | FaultKind::FailSnapshots
            | FaultKind::FailReads
            | FaultKind::DiskLow
    )
}
