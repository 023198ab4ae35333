//! What disks do, when they are done, and what state machines apply.

use std::sync::Arc;

use flintmq_consensus::{GroupId, Input, NodeId, NodeInput};

use crate::coverage::Situation;
use crate::disk::Report;
use crate::event::{Event, Reply};
use crate::ghost::{Check, ensure};
use crate::machine::Applied;
use crate::profile::Durability;
use crate::replica::{Action, Change};
use crate::world::World;

/// Entries applied at once at most.
const APPLY_BATCH: u64 = 32;

impl World {
    /// Begins the next write, if there is one and none is under way.
    pub(crate) fn begin_writing(&mut self, id: NodeId) {
        let now = self.schedule.now;
        let longest = self.profile.disk.write;
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let Some(run) = node.run().filter(|_| !node.writing && node.disk.queued() > 0) else {
            return;
        };
        node.writing = true;
        let delay = node.disk_delay(now, longest);
        let most = node.disk.queued() as u64;
        let count = usize::try_from(node.random.between(1, most)).unwrap_or(1);
        self.schedule.after(delay, Event::Written { node: id, run, count });
    }

    pub(crate) fn on_written(&mut self, id: NodeId, run: u64, count: usize) -> Check {
        let kinds: Vec<Durability> = self.profile.groups.iter().map(|s| s.durability).collect();
        let fsync = |group: GroupId| kinds[group.0 as usize] == Durability::Synchronous;
        let Some(node) = self.nodes.get_mut(&id) else { return Ok(()) };
        if node.run() != Some(run) {
            return Ok(());
        }
        node.writing = false;
        let ghosts = &mut self.ghosts;
        let reports = node.disk.write(count, fsync, |group, before, entries| {
            ghosts[group.0 as usize].written(before, entries)
        })?;
        let sync = node.disk.has_waiting() && node.disk.syncing.is_none();
        self.begin_writing(id);
        if sync {
            self.begin_sync(id);
        }
        for (group, report) in reports {
            self.report(id, group, report)?;
        }
        Ok(())
    }

    fn report(&mut self, id: NodeId, group: GroupId, report: Report) -> Check {
        if let Report::Installed { id: snapshot } = &report {
            self.coverage.saw(Situation::SnapshotInstalled);
            let machine = self.nodes.get(&id).and_then(|node| node.machine(group));
            if let (Some(machine), Some(live)) = (machine, self.live(id, group)) {
                live.installing = false;
                live.commit = snapshot.position.index;
                live.machine = (*machine).clone();
                let digest = live.machine.digest;
                let index = snapshot.position.index;
                self.ghosts[group.0 as usize].applied(id, index, digest)?;
            }
        }
        if let Some(input) = report.input() {
            self.answer(id, group, input)?;
        }
        self.plan_apply(id, group);
        Ok(())
    }

    pub(crate) fn on_sync_due(&mut self, id: NodeId, run: u64) {
        if self.process(id, run).is_none() {
            return;
        }
        let next = self.random.below(2 * self.profile.disk.sync_interval) + 1;
        self.schedule.after(next, Event::SyncDue { node: id, run });
        if self.nodes.get(&id).is_some_and(|node| node.disk.has_unsynced()) {
            self.begin_sync(id);
        }
    }

    fn begin_sync(&mut self, id: NodeId) {
        let now = self.schedule.now;
        let longest = self.profile.disk.sync;
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let Some(run) = node.run().filter(|_| node.disk.syncing.is_none()) else { return };
        node.disk.begin_sync();
        let delay = node.disk_delay(now, longest);
        self.schedule.after(delay, Event::Synced { node: id, run });
    }

    pub(crate) fn on_synced(&mut self, id: NodeId, run: u64) -> Check {
        if self.process(id, run).is_none() {
            return Ok(());
        }
        let Some(node) = self.nodes.get_mut(&id) else { return Ok(()) };
        let (reports, safe) = node.disk.end_sync();
        if node.disk.has_waiting() {
            self.begin_sync(id);
        }
        for (group, report) in reports {
            self.report(id, group, report)?;
        }
        for (group, upto) in safe {
            if self.spec(group).durability != Durability::Memory {
                self.answer(id, group, Input::Synced { upto })?;
            }
        }
        Ok(())
    }

    pub(crate) fn begin_saving(&mut self, id: NodeId) {
        let now = self.schedule.now;
        let longest = self.profile.disk.hard;
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let Some(run) = node.run().filter(|_| !node.saving && node.disk.pending_hard() > 0) else {
            return;
        };
        node.saving = true;
        let delay = node.disk_delay(now, longest);
        let count = node.disk.pending_hard();
        self.schedule.after(delay, Event::HardSynced { node: id, run, count });
    }

    pub(crate) fn on_hard_synced(&mut self, id: NodeId, run: u64, count: usize) -> Check {
        if self.process(id, run).is_none() {
            return Ok(());
        }
        let Some(node) = self.nodes.get_mut(&id) else { return Ok(()) };
        node.saving = false;
        let Some((batch, groups)) = node.disk.sync_hard(count) else { return Ok(()) };
        for group in groups {
            let term = self.nodes.get(&id).and_then(|node| node.disk.hard_state(group));
            if let Some(term) = term.map(|state| state.term) {
                self.ghosts[group.0 as usize].has_term(id, term)?;
            }
            self.check_configs(group)?;
            self.check_quorums(group)?;
        }
        self.begin_saving(id);
        self.input(id, NodeInput::HardStatesSynced { batch })
    }

    /// Sees to it that what is decided and written is applied.
    pub(crate) fn plan_apply(&mut self, id: NodeId, group: GroupId) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let Some(process) = &mut node.process else { return };
        let run = process.run;
        let Some(live) = process.groups.get_mut(&group) else { return };
        let next = live.machine.applied.index + 1;
        if node.disk.may_apply(process.core.group(group), group, next)
            && next <= live.commit
            && !live.applying
            && !live.installing
        {
            live.applying = true;
            let delay = self.random.between(5, 400);
            self.schedule.after(delay, Event::Apply { node: id, run, group });
        }
    }

    pub(crate) fn apply(&mut self, id: NodeId, group: GroupId) -> Check {
        let at = group.0 as usize;
        let Some(node) = self.nodes.get_mut(&id) else { return Ok(()) };
        let Some(process) = &mut node.process else { return Ok(()) };
        let core = process.core.group(group);
        let Some(live) = process.groups.get_mut(&group) else { return Ok(()) };
        live.applying = false;
        if live.installing {
            return Ok(());
        }
        let mut replies = Vec::new();
        let forks = self.ghosts[at].forks.len();
        for _ in 0..APPLY_BATCH {
            let index = live.machine.applied.index + 1;
            if index > live.commit || !node.disk.may_apply(core, group, index) {
                break;
            }
            let Some(entry) = node.disk.replica(group).and_then(|r| r.log.get(index)) else {
                break;
            };
            let outcome = live.machine.apply(entry);
            let left = self.ghosts[at].is_left(live.history);
            if !left {
                self.ghosts[at].applied(id, index, live.machine.digest)?;
            }
            let waiting = live.waiting.remove(&index).filter(|w| w.term == entry.term);
            let mut answer = |index| {
                if let Some(waiting) = waiting {
                    let reply = Reply::Proposed { proposal: waiting.proposal, index, forks };
                    replies.push((waiting.client, reply));
                }
            };
            match outcome {
                Applied::Nothing | Applied::Commands => {}
                Applied::First(_) if left => {}
                Applied::First(proposal) => {
                    self.ghosts[at].applied_first(proposal, index)?;
                    answer(index);
                }
                Applied::Again(_, first) => {
                    self.coverage.saw(Situation::AnsweredFromWindow);
                    answer(first);
                }
                Applied::Forgotten(proposal) => {
                    // A request may be late by more than a window when it was long answered.
                    let client = usize::try_from(proposal.producer).unwrap_or(usize::MAX);
                    let client = self.clients.get(client);
                    ensure!(
                        !client.is_some_and(|client| client.awaits(proposal.sequence)),
                        "I16 Dedup",
                        "group {group} forgot {proposal:?}, which is under way"
                    );
                }
            }
        }
        for (client, reply) in replies {
            self.reply(client, reply);
        }
        self.answer_reads(id, group);
        self.plan_apply(id, group);
        Ok(())
    }

    /// Answers the reads that waited for what is applied now.
    pub(crate) fn answer_reads(&mut self, id: NodeId, group: GroupId) {
        let Some(live) = self.live(id, group) else { return };
        let applied = live.machine.applied.index;
        let history = live.history;
        let ready: Vec<u64> = live
            .reads
            .iter()
            .filter(|(_, reading)| reading.index.is_some_and(|index| index <= applied))
            .map(|(read, _)| *read)
            .collect();
        for read in ready {
            let Some(reading) = self.live(id, group).and_then(|live| live.reads.remove(&read))
            else {
                continue;
            };
            self.reply(reading.client, Reply::Read { history, index: applied });
        }
    }

    pub(crate) fn on_checkpoint(&mut self, id: NodeId, run: u64) {
        if self.process(id, run).is_none() {
            return;
        }
        let next = self.random.below(2 * self.profile.checkpoint_interval) + 1_000;
        self.schedule.after(next, Event::Checkpoint { node: id, run });
        let max_log = self.profile.max_log;
        let Some(node) = self.nodes.get(&id) else { return };
        let Some(process) = &node.process else { return };
        let mut checkpoints = Vec::new();
        for (group, live) in &process.groups {
            let (Some(core), Some(replica)) =
                (process.core.group(*group), node.disk.replica(*group))
            else {
                continue;
            };
            let applied = live.machine.applied;
            if live.installing || applied <= replica.machine.applied {
                continue;
            }
            let limit =
                core.compaction_limit(max_log).min(applied.index.saturating_sub(max_log / 4));
            let floor = core.log().position_at(limit).filter(|floor| *floor > core.log().floor());
            checkpoints.push((*group, Arc::new(live.machine.clone()), floor));
        }
        for (group, machine, floor) in checkpoints {
            if self.random.chance(300_000) {
                continue;
            }
            let report = floor.map_or(Report::Nothing, |upto| Report::Compacted { upto });
            let action = Action::Checkpoint { machine, floor: floor.unwrap_or_default() };
            self.write(id, group, action, report);
        }
    }

    /// True when the removal of this node is in force for sure: the leader's word, not the node's
    /// own configuration, which may be one that nobody else ever holds.
    fn may_delete(&self, id: NodeId, group: GroupId) -> bool {
        let Some(own) = self.core(id, group).filter(|core| !core.config().is_member(id)) else {
            return false;
        };
        let Some(lead) = self.leader(group).and_then(|leader| self.core(leader, group)) else {
            return false;
        };
        let matched = lead.config().quorum_index(|node| {
            let peer = lead.progress().iter().find(|peer| peer.node == node);
            peer.map_or_else(|| lead.last().index, |peer| peer.matched)
        });
        !lead.config().is_member(id)
            && lead.config().stamp >= own.config().stamp
            && lead.is_serving()
            && lead.config_held()
            && matched >= lead.commit_index()
    }

    /// Deletes the log and state of a group that this node is no longer a member of.
    pub(crate) fn delete_replica(&mut self, id: NodeId, run: u64, group: GroupId) -> Check {
        let now = self.schedule.now;
        if !self.may_delete(id, group) {
            let born = self.live(id, group).map_or(0, |live| live.born);
            self.schedule.after(1_000_000, Event::Delete { node: id, run, group, born });
            return Ok(());
        }
        let Some(node) = self.nodes.get_mut(&id) else { return Ok(()) };
        let local = node.local(now);
        let Some(process) = node.process.as_mut().filter(|process| process.run == run) else {
            return Ok(());
        };
        let removed = process.core.remove_group(local, group);
        ensure!(removed, "Remove", "node {id} did not have group {group}");
        process.groups.remove(&group);
        node.disk.enqueue(Change { group, action: Action::Delete }, Report::Nothing);
        self.coverage.saw(Situation::Deleted);
        #[cfg(feature = "model")]
        self.follower.leave(group);
        self.ghosts[group.0 as usize].forget_holder(id);
        self.begin_writing(id);
        self.flush(id)
    }

    /// The power goes, whether a process runs or not.
    pub(crate) fn lose_power(&mut self, id: NodeId, down: u64) {
        let Some(node) = self.nodes.get(&id).filter(|node| !node.dead) else { return };
        let running = node.process.as_ref();
        if node.disk.is_installing() {
            self.coverage.saw(Situation::LostDuringSnapshot);
        }
        if running.is_some_and(|process| process.core.groups().any(|c| c.recovering().is_some())) {
            self.coverage.saw(Situation::LostAgainWhileRecovering);
        }
        let runs = running.is_some();
        let elsewhere_down =
            self.nodes.values().any(|other| other.id != id && other.disk.lossy && !other.dead);
        if elsewhere_down {
            self.coverage.saw(Situation::LostPowerTogether);
        }
        self.end_process(id);
        let Some(node) = self.nodes.get_mut(&id) else { return };
        if runs || !node.disk.clean {
            self.coverage.saw(Situation::LostPower);
            if node.disk.lose_power(&mut node.random) > 0 {
                self.coverage.saw(Situation::LostTail);
            }
        }
        self.schedule.after(down, Event::Start { node: id });
    }

    /// The process ends; the operating system does not.
    pub(crate) fn crash(&mut self, id: NodeId, down: u64) {
        if self.run(id).is_none() {
            return;
        }
        self.coverage.saw(Situation::Crashed);
        self.end_process(id);
        if let Some(node) = self.nodes.get_mut(&id) {
            node.disk.crash(&mut node.random);
        }
        self.tell_of_loss(id);
        self.schedule.after(down, Event::Start { node: id });
    }

    /// The end of a stop in good order: everything is on the disk, and the disk knows.
    pub(crate) fn stop_clean(&mut self, id: NodeId, run: u64, down: u64) {
        if self.process(id, run).is_none() {
            return;
        }
        self.coverage.saw(Situation::StoppedCleanly);
        self.end_process(id);
        if let Some(node) = self.nodes.get_mut(&id) {
            node.disk.stop_cleanly();
        }
        self.tell_of_loss(id);
        self.schedule.after(down, Event::Start { node: id });
    }
}
