//! The end of a run: all is healed, and then everything has to come to its end within a stated
//! time.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use flintmq_consensus::{Flow, GroupId};

use crate::client::{Client, Use, UseState};
use crate::coverage::Situation;
use crate::event::Event;
use crate::network::Weather;
use crate::oracle::{Violation, violation};
use crate::random::{Purpose, Random};
use crate::world::World;

/// Within this time after the last fault everything has settled, in microseconds.
const SETTLED_WITHIN: u64 = 30_000_000;

/// How a run comes to its end.
#[derive(Debug, Default)]
pub(crate) struct Settling {
    /// Since when nothing goes wrong any more.
    pub(crate) healed_since: Option<u64>,
    pub(crate) done: bool,
    pub(crate) refused_opens: u64,
}

impl World {
    /// Nothing goes wrong from now on; clients publish nothing more and confirm everything.
    pub(crate) fn begin_settling(&mut self) {
        self.say(|| "all is healed".to_owned());
        self.settling.healed_since = Some(self.now);
        self.forget_healing();
        self.net.weather = Weather::FAIR;
        self.net.way_limit = 4 << 20;
        let ids = self.ids();
        for link in self.net.links.values_mut() {
            link.cut = false;
        }
        let pairs: Vec<_> = self.net.links.keys().copied().collect();
        for (from, to) in pairs {
            self.look_at_flow(from, to);
            self.after(10_000, Event::Connect(from, to));
        }
        for node in self.nodes.values_mut() {
            let store = &node.store;
            store.inner.set_capacity(65_536);
            store.set_fail_snapshots(false);
            store.set_fail_reads(false);
            node.paused_until = node.paused_until.min(self.now);
            node.shard_stalled_until = node.shard_stalled_until.min(self.now);
            node.disk_stalled_until = node.disk_stalled_until.min(self.now);
            node.slow_disk_until = node.slow_disk_until.min(self.now);
            if let Some(process) = &mut node.process {
                process.wire.lock().ways.values_mut().for_each(|way| way.limit = 4 << 20);
                (process.wake_at, process.live_at) = (None, None);
            }
        }
        for id in ids {
            self.set_low_disk(id, None);
            self.wake_shard(id, self.now);
            self.wake_liveness(id, self.now);
            self.start_disk(id);
            self.after(50_000, Event::Boot(id));
        }
        self.set_clocks_right();
        for client in &mut self.clients {
            client.settles = true;
        }
        self.add_readers();
        // A node that the cluster does not know any more is turned off.
        let membership = self.controller.metadata().membership();
        let unknown = self.nodes.values().filter(|node| {
            membership.is_known() && node.process.is_some() && membership.node(node.id.0).is_none()
        });
        for id in unknown.map(|node| node.id).collect::<Vec<_>>() {
            self.bury(id);
        }
        self.after(100_000, Event::Look);
    }

    /// One more client reads the queues that no other reads. The others get no reader more: it
    /// would set in motion what stands still beside the readers that there are.
    fn add_readers(&mut self) {
        let number = self.clients.len() as u64;
        let all = self.clients.iter().flat_map(|client| &client.uses);
        let read: BTreeSet<usize> = all.filter(|one| one.reads).map(|one| one.slot).collect();
        let unread = (0..self.slots.len()).filter(|slot| !read.contains(slot));
        self.clients.push(Client {
            number: number as u32 + 1,
            random: Random::numbered(self.seed, Purpose::Clients, number),
            uses: unread.map(|slot| Use::new(slot, true)).collect(),
            connection: None,
            retry_at: 0,
            unacknowledged: Default::default(),
            sent: 0,
            slow_until: None,
            settles: true,
        });
        self.after(10_000, Event::Act(number as usize));
    }

    /// Looks whether everything has come to its end.
    pub(crate) fn look_whether_settled(&mut self) -> Result<(), Violation> {
        let missing = self.what_is_missing();
        if missing.is_empty() {
            self.settling.done = true;
            return self.check_end();
        }
        let healed = self.settling.healed_since.unwrap_or_default();
        if self.now > healed + SETTLED_WITHIN {
            return violation("Settles", missing);
        }
        self.after(100_000, Event::Look);
        Ok(())
    }

    fn what_is_missing(&self) -> String {
        let mut missing = String::new();
        for node in self.nodes.values().filter(|node| !node.gone) {
            let Some(process) = &node.process else {
                let _ = write!(missing, "node {} does not run; ", node.id.0);
                continue;
            };
            for group in self.groups.keys() {
                let idle = process.engine(*group).is_some_and(|engine| engine.is_idle());
                if !idle {
                    let _ = write!(missing, "node {} group {} is not idle; ", node.id.0, group.0);
                }
            }
        }
        self.what_group_misses(GroupId::CONTROLLER, &mut missing);
        for group in self.groups.keys() {
            self.what_group_misses(*group, &mut missing);
        }
        for client in &self.clients {
            if !client.unacknowledged.is_empty() {
                let _ = write!(
                    missing,
                    "client {} misses {} acknowledgements; ",
                    client.number,
                    client.unacknowledged.len()
                );
            }
        }
        self.what_cluster_misses(&mut missing);
        if let Some(reader) = self.clients.last() {
            let closed = reader.uses.iter().filter(|one| one.state != UseState::Open).count();
            if closed > 0 {
                let _ = write!(missing, "{closed} queues cannot be opened; ");
            }
        }
        for (ticket, (node, _, waits)) in &self.tickets {
            let _ = write!(missing, "node {} owes {ticket:?} {waits:?}; ", node.0);
        }
        missing
    }

    fn what_group_misses(&self, group: GroupId, missing: &mut String) {
        let Some(leader) = self.leader_of(group) else {
            let _ = write!(missing, "group {} has no leader; ", group.0);
            return;
        };
        if self.has_wrong_clock(leader) {
            let _ = write!(missing, "group {} is led by a wrong clock; ", group.0);
        }
        let core_of = |id| {
            let process = self.nodes.get(&id).and_then(|node| node.process.as_ref())?;
            let applied = match process.engine(group) {
                Some(engine) => engine.machine().applied(),
                None => process.shard.applied(group)?,
            };
            Some((process.shard.core(group)?, applied))
        };
        let Some((core, applied)) = core_of(leader) else { return };
        for member in core.config().members() {
            if core_of(member).is_none_or(|(_, theirs)| theirs != applied) {
                let _ = write!(missing, "group {} node {} lags; ", group.0, member.0);
            }
        }
        for peer in core.progress() {
            if peer.flow == Flow::Snapshot {
                let _ = write!(missing, "group {} node {} in snapshot; ", group.0, peer.node.0);
            }
        }
        self.what_members_miss(group, leader, missing);
        let Some(oracle) = self.groups.get(&group) else { return };
        for queue in oracle.reference.queue_ids() {
            let view = oracle.reference.view(queue);
            if let Some(view) = view.filter(|view| view.messages > 0) {
                let _ = write!(missing, "queue {} holds {}; ", queue.0, view.messages);
            }
        }
        for record in self.controller.metadata().domains() {
            let domain = record.for_partitions();
            let known = oracle.reference.domain(domain.id);
            if known.is_some_and(|(version, _)| version < domain.version) {
                let name = &record.definition.name;
                let _ = write!(missing, "group {} has old settings of {name}; ", group.0);
            }
        }
    }

    /// All has come to its end: is it the right one?
    fn check_end(&mut self) -> Result<(), Violation> {
        for (group, oracle) in &self.groups {
            let expected = oracle.reference.records();
            let leader = self.leader_of(*group);
            let leader = leader.and_then(|id| self.nodes.get(&id)?.process.as_ref());
            let config = leader.and_then(|process| Some(process.shard.core(*group)?.config()));
            for member in config.map(|config| config.members()).unwrap_or_default() {
                let process = self.nodes.get(&member).and_then(|node| node.process.as_ref());
                let engine = process.and_then(|process| process.engine(*group));
                let found = engine.map(|engine| engine.machine().records());
                if found.as_ref() != Some(&expected) {
                    let detail = format!("group {} node {}", group.0, member.0);
                    return violation("ReplicasAreEqual", detail);
                }
            }
        }
        self.check_places()?;
        for (key, (group, queue)) in &self.acknowledged {
            let Some(oracle) = self.groups.get(group) else { continue };
            let place = (*queue, *key);
            if !oracle.confirmed.contains(&place) && !oracle.dropped.contains(&place) {
                let detail = format!("group {} queue {} message {key:x}", group.0, queue.0);
                return violation("NothingAcknowledgedIsLost", detail);
            }
        }
        for node in self.nodes.values() {
            let (snapshots, _) = node.store.failed();
            self.coverage.saw_times(Situation::SnapshotFailed, snapshots);
            self.coverage.saw_times(Situation::EntryReplaced, node.store.replaced());
        }
        Ok(())
    }
}
