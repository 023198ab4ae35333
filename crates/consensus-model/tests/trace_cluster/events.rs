//! What may happen next.

use super::{Cluster, End};
use bytes::Bytes;
use flintmq_consensus::{EntryKind, Input, MemberChange, NodeId};
use std::collections::BTreeSet;
use std::time::Duration;

impl Cluster {
    /// Lets that much happen.
    pub(crate) fn run(&mut self, events: usize) -> Result<(), End> {
        for node in self.nodes() {
            self.start(node, false)?;
        }
        for _ in 0..events {
            if self.checker.is_over() {
                break;
            }
            self.event()?;
        }
        Ok(())
    }

    fn any(&mut self) -> NodeId {
        let nodes = self.nodes();
        nodes[self.random.below(nodes.len())]
    }

    fn event(&mut self) -> Result<(), End> {
        let node = self.any();
        match self.random.below(200) {
            0..90 => self.deliver(),
            90..115 => {
                let report = self.host(node).disk.save();
                report.map_or(Ok(()), |report| self.input(node, report))
            }
            115..145 => self.write(node),
            145..160 => self.wait(),
            160..172 => self.propose(),
            172..175 => self.crash(node),
            175..178 => self.lose_power(node),
            178..182 if !self.is_on(node) && !self.gone.contains(&node) => self.start(node, false),
            182 => self.stand(node),
            195..200 if self.profile.restless => self.stand(node),
            195..200 => self.propose(),
            183 => {
                let (to, force) = (self.any(), self.random.percent(50));
                self.input(node, Input::Transfer { to, force })
            }
            184..187 => self.change(node),
            187 => self.order(node),
            188 => self.compact(node),
            189 => {
                let peer = self.any();
                if peer == node || !self.random.percent(self.profile.cuts) {
                    Ok(())
                } else {
                    self.input(node, Input::PeerDown { peer })
                }
            }
            190..194 => {
                let peer = self.any();
                if peer == node || !self.is_on(peer) {
                    return Ok(());
                }
                self.input(node, Input::PeerUp { peer, restarted: false })
            }
            194 => {
                let disk = &mut self.host(node).disk;
                disk.versions.clear();
                let upto = disk.now.terms().last().index;
                self.input(node, Input::Synced { upto })
            }
            _ => Ok(()),
        }
    }

    fn deliver(&mut self) -> Result<(), End> {
        if self.network.is_empty() {
            return Ok(());
        }
        let at = if self.random.percent(self.profile.overtakes) {
            self.random.below(self.network.len())
        } else {
            0
        };
        let message =
            if self.random.percent(4) { self.network[at].clone() } else { self.network.remove(at) };
        if self.random.percent(self.profile.drops) {
            return Ok(());
        }
        // Several at once, as a host of many groups shows them to the model.
        let (to, mut together) = (message.to, vec![message]);
        while self.random.percent(self.profile.batches) {
            let Some(next) = self.network.iter().position(|message| message.to == to) else {
                break;
            };
            together.push(self.network.remove(next));
        }
        self.with_core(to, |core, now, effects| {
            let told = format!("{together:?}");
            for message in together {
                core.step(now, Input::Message(message), effects);
            }
            told
        })
    }

    fn write(&mut self, node: NodeId) -> Result<(), End> {
        let report = self.host(node).disk.write().map_err(End::Senseless)?;
        report.map_or(Ok(()), |report| self.input(node, report))
    }

    /// Time passes up to the next thing that is due.
    fn wait(&mut self) -> Result<(), End> {
        let deadlines = self.hosts.iter().filter_map(|host| host.core.as_ref()?.next_deadline());
        let Some(next) = deadlines.min() else { return Ok(()) };
        self.now = next.max(self.now) + Duration::from_millis(self.random.below(20) as u64);
        for node in self.nodes() {
            let core = self.host(node).core.as_ref();
            let due = core.and_then(|core| core.next_deadline());
            if due.is_some_and(|due| due <= self.now) {
                self.input(node, Input::Tick)?;
            }
        }
        Ok(())
    }

    fn propose(&mut self) -> Result<(), End> {
        let leaders = self.leaders();
        if leaders.is_empty() || !self.random.percent(self.profile.proposals) {
            return Ok(());
        }
        let node = leaders[self.random.below(leaders.len())];
        self.with_core(node, |core, now, effects| {
            let payload = Bytes::from_static(b"commands");
            let proposed = core.propose(now, EntryKind::Commands, payload, effects);
            format!("propose: {proposed:?}")
        })
    }

    fn stand(&mut self, node: NodeId) -> Result<(), End> {
        if !self.random.percent(self.profile.stands) {
            return Ok(());
        }
        let scout = !self.profile.restless && self.random.percent(50);
        self.input(node, Input::Stand { scout })
    }

    fn crash(&mut self, node: NodeId) -> Result<(), End> {
        if !self.is_on(node) || !self.random.percent(self.profile.crashes) {
            return Ok(());
        }
        self.stop(node)?;
        self.finish_some(node)?;
        if self.random.percent(50) { self.start(node, false) } else { Ok(()) }
    }

    /// A dying process may still get some of its writes done.
    fn finish_some(&mut self, node: NodeId) -> Result<(), End> {
        let (saves, writes) = (self.random.below(3), self.random.below(4));
        let disk = &mut self.host(node).disk;
        for _ in 0..saves {
            disk.save();
        }
        for _ in 0..writes {
            disk.write().map_err(End::Senseless)?;
        }
        disk.saves.clear();
        disk.writes.clear();
        Ok(())
    }

    fn lose_power(&mut self, node: NodeId) -> Result<(), End> {
        if !self.is_on(node) || !self.random.percent(self.profile.losses) {
            return Ok(());
        }
        self.stop(node)?;
        self.finish_some(node)?;
        let count = self.host(node).disk.versions.len();
        let back = self.random.below(count + 1);
        let disk = &mut self.host(node).disk;
        if let Some(version) = disk.versions.get(back) {
            disk.now = version.clone();
        }
        disk.versions.clear();
        disk.losses += 1;
        self.start(node, true)
    }

    fn change(&mut self, node: NodeId) -> Result<(), End> {
        let leaders = self.leaders();
        if leaders.is_empty() || !self.random.percent(self.profile.changes) {
            return Ok(());
        }
        let leader = leaders[self.random.below(leaders.len())];
        let change = match self.random.below(7) {
            0 | 1 => MemberChange::AddLearner(node),
            2 | 3 => MemberChange::Promote(node),
            4 => MemberChange::RemoveVoter(node),
            5 => MemberChange::RemoveLearner(node),
            _ => {
                let nodes = self.nodes();
                let chosen = nodes.into_iter().filter(|_| self.random.percent(70));
                let voters = chosen.collect();
                MemberChange::Joint { voters, learners: Vec::new() }
            }
        };
        self.with_core(leader, |core, now, effects| {
            let changed = core.change_members(now, &change, effects);
            format!("{change:?}: {changed:?}")
        })
    }

    /// The operator gives up whoever is off.
    fn order(&mut self, node: NodeId) -> Result<(), End> {
        let off: BTreeSet<NodeId> =
            self.nodes().into_iter().filter(|node| !self.is_on(*node)).collect();
        let core = self.hosts[node.0 as usize - 1].core.as_ref();
        let cores = self.hosts.iter().filter_map(|host| host.core.as_ref());
        // What is not durable yet may never have been.
        if !cores.clone().all(flintmq_consensus::Core::is_hard_state_synced) {
            return Ok(());
        }
        let configs = cores.map(flintmq_consensus::Core::config);
        let newest = configs.max_by_key(|config| config.stamp).cloned().unwrap_or_default();
        let Some(expect_history) = core.map(flintmq_consensus::Core::history) else {
            return Ok(());
        };
        if off.is_empty() || !self.random.percent(self.profile.orders) {
            return Ok(());
        }
        self.gone.extend(&off);
        let dead = self.gone.clone();
        // Every order has a greater number than all before, and than every history.
        self.orders += 100;
        let number = self.orders;
        if let Some(core) = &self.hosts[node.0 as usize - 1].core {
            self.checker.ordered(core, &dead, expect_history, &newest, number);
        }
        self.input(node, Input::ForceRecover { dead, expect_history, newest, number })
    }

    fn compact(&mut self, node: NodeId) -> Result<(), End> {
        if !self.is_on(node) || !self.host(node).disk.writes.is_empty() {
            return Ok(());
        }
        let disk = &mut self.host(node).disk;
        let (floor, applied) = (disk.now.floor.index, disk.now.applied);
        let count = applied.saturating_sub(floor) as usize;
        let index = floor + 1 + self.random.below(count) as u64;
        if count == 0 {
            return Ok(());
        }
        let report = self.host(node).disk.compact(index);
        report.map_or(Ok(()), |report| self.input(node, report))
    }
}
