//! Faults of processes, disks and connections, and how they end.

use flintmq_consensus::{GroupId, NodeId};
use flintmq_partition::{Request, Ticket};

use crate::coverage::Situation;
use crate::event::{Event, Healing, Waits};
use crate::network::Weather;
use crate::node::Stopping;
use crate::plan::Fault;
use crate::world::World;

impl World {
    pub(crate) fn crash(&mut self, id: NodeId, lasts: u64) {
        self.coverage.saw(Situation::Crashed);
        self.end_process(id);
        self.set_store(id, |store| store.inner.crash());
        self.after(lasts, Event::Boot(id));
    }

    /// Only while all others have everything: more than that is lost for good, as documented.
    pub(crate) fn lose_power(&mut self, id: NodeId, fault: &Fault) {
        if !self.outlives_power_loss() {
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

    /// Whether all members of each group have everything, and enough of them vote.
    fn outlives_power_loss(&self) -> bool {
        let mut present = self.nodes.values().filter(|node| !node.gone);
        present.all(|node| {
            node.process.as_ref().is_some_and(|process| {
                let mut cores = process.shard.groups().filter_map(|g| process.shard.core(g));
                cores.all(|core| {
                    let config = core.config();
                    let few = config.is_member(node.id) && config.voters.len() < 3;
                    let is_gone = |id: &NodeId| self.nodes.get(id).is_none_or(|node| node.gone);
                    let whole = !config.is_joint() && !config.voters.iter().any(is_gone);
                    core.recovering().is_none() && !few && whole
                })
            })
        })
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

    pub(crate) fn set_store(&self, id: NodeId, set: impl FnOnce(&crate::store::SimStore)) {
        if let Some(node) = self.nodes.get(&id) {
            set(&node.store);
        }
    }

    /// A disk is nearly full, or has room again; its shard finds out.
    pub(crate) fn set_low_disk(&mut self, id: NodeId, low: Option<(u64, u64)>) {
        self.set_store(id, |store| store.inner.set_low_disk(low));
    }

    pub(crate) fn cut(&mut self, from: NodeId, to: NodeId, lasts: u64, replaced: bool) {
        if let Some(link) = self.net.links.get_mut(&(from, to)) {
            link.cut = true;
            self.after(lasts, Event::Heal(Healing::Link(from, to, replaced)));
        }
    }

    /// The transport replaces a connection: what was in flight on it is lost.
    pub(crate) fn replace_connection(&mut self, a: NodeId, b: NodeId) {
        if !self.net.is_open(a, b) {
            return;
        }
        if self.net.drop_flows(a, b) > 0 {
            self.coverage.saw(Situation::FramesLostSilently);
        }
        self.set_ways(a, b, true);
    }

    pub(crate) fn set_way_limit(&mut self, limit: usize) {
        self.net.way_limit = limit;
        for node in self.nodes.values() {
            if let Some(process) = &node.process {
                let mut wire = process.wire.lock();
                wire.ways.values_mut().for_each(|way| way.limit = limit);
            }
        }
    }

    /// What a fault did ends.
    pub(crate) fn heal(&mut self, healing: Healing) {
        match healing {
            Healing::Link(from, to, replaced) => {
                let Some(link) = self.net.links.get_mut(&(from, to)) else { return };
                link.cut = false;
                self.forget_who_is_alone();
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
