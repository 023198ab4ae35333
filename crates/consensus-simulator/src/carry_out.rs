//! What a host does with the effects of its node, and the invariants checked on the way.

use std::collections::BTreeMap;
use std::hash::Hash;
use std::sync::Arc;

use flintmq_consensus::{
    Body, Class, ConfigRegister, Core, Effect, Flow, GroupId, Index, Input, LogTerms, Message,
    NodeEffect, NodeId, Packet, Role, Settings, SnapshotId, StopReason,
};

use crate::coverage::Situation;
use crate::disk::Report;
use crate::event::{Event, Reply};
use crate::fault::Moment;
use crate::ghost::{Check, check_configurations, ensure, violated};
use crate::machine::Machine;
use crate::profile::Durability;
use crate::replica::{Action, Change};
use crate::world::World;

impl World {
    /// Carries out what the node's process wants done, then looks at it.
    pub(crate) fn flush(&mut self, id: NodeId) -> Check {
        let now = self.schedule.now;
        let Some(node) = self.nodes.get_mut(&id) else { return Ok(()) };
        let local = node.local(now);
        let Some(process) = &mut node.process else { return Ok(()) };
        process.flushing = false;
        let mut effects = Vec::new();
        process.core.flush(local, &mut effects);
        #[cfg(feature = "model")]
        self.follower.stepped(&process.core, &process.touched, &effects)?;
        let rejoined = effects
            .iter()
            .filter(|effect| {
                matches!(effect, NodeEffect::Group { effect: Effect::Rejoined { .. }, .. })
            })
            .count();
        if rejoined > 1 {
            self.coverage.saw(Situation::RejoinedInBulk);
        }
        let mut doubted = Vec::new();
        for effect in effects {
            if let NodeEffect::Group { group, effect: Effect::Rejoined { .. } } = &effect {
                doubted.push(*group);
            }
            effect.hash(&mut self.trace);
            if self.verbose {
                self.tell_effect(id, &effect);
            }
            self.carry_out(id, effect)?;
        }
        self.check_touched(id)?;
        for group in doubted {
            self.check_quorums(group)?;
        }
        self.plan_timer(id);
        let failed = self.nodes.get(&id).and_then(|node| node.process.as_ref());
        if failed.is_some_and(|process| process.failed) {
            self.end_process(id);
            if let Some(node) = self.nodes.get_mut(&id) {
                node.disk.lose_power(&mut node.random);
            }
            self.schedule.after(200_000, Event::Start { node: id });
        }
        Ok(())
    }

    fn plan_timer(&mut self, id: NodeId) {
        let now = self.schedule.now;
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let Some(process) = &mut node.process else { return };
        let Some(deadline) = process.core.next_deadline() else { return };
        let at = node.clock.global(deadline, now);
        if process.timer_at.is_none_or(|timer| at < timer) {
            process.timer_at = Some(at);
            let run = process.run;
            self.schedule.at(at, Event::Timer { node: id, run, at });
        }
    }

    fn carry_out(&mut self, id: NodeId, effect: NodeEffect) -> Check {
        match effect {
            NodeEffect::Send { class, packet } => {
                for message in &packet.messages {
                    self.check_message(id, message)?;
                }
                self.send(id, class, packet);
            }
            NodeEffect::SaveHardStates { batch, states } => {
                for (group, _, _) in &states {
                    self.touch(id, *group);
                }
                if let Some(node) = self.nodes.get_mut(&id) {
                    node.disk.save_hard(batch, states);
                }
                self.begin_saving(id);
            }
            NodeEffect::Group { group, effect } => {
                self.touch(id, group);
                self.carry_out_group(id, group, effect)?;
            }
            NodeEffect::PeerSuspected { .. } => self.coverage.saw(Situation::Suspected),
            NodeEffect::PeerTrusted { .. } | NodeEffect::PeerUnfit { .. } => {}
        }
        Ok(())
    }

    /// Puts a packet on its way.
    pub(crate) fn send(&mut self, id: NodeId, class: Class, packet: Packet) {
        let (now, to) = (self.schedule.now, packet.to);
        let arrivals = self.network.send(now, id, to, class);
        if arrivals.is_empty()
            && packet.messages.iter().any(|m| matches!(m.body, Body::Cede { .. }))
        {
            self.coverage.saw(Situation::CedeLost);
        }
        let run = self.run(to).unwrap_or(0);
        let connection = self.network.connection(id, to);
        for at in arrivals {
            let packet = Box::new(packet.clone());
            self.schedule.at(at, Event::Deliver { packet, run, connection });
        }
    }

    fn touch(&mut self, id: NodeId, group: GroupId) {
        if let Some(process) = self.nodes.get_mut(&id).and_then(|node| node.process.as_mut()) {
            process.touched.insert(group);
        }
    }

    /// I2 and I11, for what leaves.
    fn check_message(&mut self, id: NodeId, message: &Message) -> Check {
        let group = message.group;
        let Some(node) = self.nodes.get(&id) else { return Ok(()) };
        let durable = node.disk.hard_state(group).map_or(0, |state| state.term);
        ensure!(
            message.term <= durable,
            "I2 TermMonotone",
            "node {id} says {message:?} while its durable term is {durable}"
        );
        match &message.body {
            Body::Ack { outcome: Ok(upto), .. } if *upto > 0 => {
                let Some(replica) = node.disk.replica(group) else { return Ok(()) };
                let synchronous = self.spec(group).durability == Durability::Synchronous;
                let log = if synchronous {
                    node.disk.synced_replica(group).map_or(&replica.log, |synced| &synced.log)
                } else {
                    &replica.log
                };
                ensure!(
                    log.last().index >= *upto,
                    "I11 AckSound",
                    "node {id} acknowledges {upto}, on its disk is {:?}",
                    log.last()
                );
                let has = replica.log.term_at(*upto);
                self.ghosts[group.0 as usize].acknowledges(id, message.term, *upto, has)?;
            }
            Body::SnapshotOffer { .. } => self.coverage.saw(Situation::SnapshotOffered),
            Body::Fetch { .. } => {
                let to = message.to;
                self.moments.push((Moment::Fetching, id));
                self.moments.push((Moment::FetchedFrom, to));
                self.coverage.saw(Situation::SyncedByFetching);
                if let Some(live) = self.live(id, group) {
                    live.source = Some(to);
                }
            }
            Body::RejoinGrant(grant)
                if node.process.as_ref().and_then(|p| p.core.group(group)).is_some()
                    && !self.nodes.get(&message.to).is_some_and(|peer| {
                        peer.disk.replica(group).is_some_and(|replica| {
                            let target = grant.target;
                            replica.log.term_at(target.index) == Some(target.term)
                        })
                    }) =>
            {
                self.moments.push((Moment::Granted, message.to));
            }
            _ => {}
        }
        Ok(())
    }

    pub(crate) fn live(&mut self, id: NodeId, group: GroupId) -> Option<&mut crate::node::Live> {
        self.nodes.get_mut(&id)?.process.as_mut()?.groups.get_mut(&group)
    }

    pub(crate) fn core(&self, id: NodeId, group: GroupId) -> Option<&Core> {
        self.nodes.get(&id)?.process.as_ref()?.core.group(group)
    }

    pub(crate) fn write(&mut self, id: NodeId, group: GroupId, action: Action, report: Report) {
        if let Some(node) = self.nodes.get_mut(&id) {
            node.disk.enqueue(Change { group, action }, report);
        }
        self.begin_writing(id);
    }

    fn later(&mut self, id: NodeId, group: GroupId, longest: u64, input: Input) {
        let Some(run) = self.run(id) else { return };
        let delay = self.random.between(10, longest.max(20));
        self.schedule.after(delay, Event::Answer { node: id, run, group, input });
    }

    #[allow(clippy::too_many_lines)] // one arm per effect
    fn carry_out_group(&mut self, id: NodeId, group: GroupId, effect: Effect) -> Check {
        let at = group.0 as usize;
        let disk_delay = self.profile.disk.write;
        match effect {
            Effect::Append { write, truncate_from, entries } => {
                let Some(live) = self.live(id, group) else { return Ok(()) };
                let (commit, leads) = (live.commit, live.role == Some(Role::Ready));
                let term = live.term;
                if let Some(index) = truncate_from {
                    live.truncated = true;
                    self.coverage.saw(Situation::Truncated);
                    ensure!(
                        !leads,
                        "I4 LeaderAppendOnly",
                        "node {id} cuts its log at {index} while it leads term {term}"
                    );
                    ensure!(
                        index > commit,
                        "I10 CommitSound",
                        "node {id} cuts its log at {index}, decided up to {commit}"
                    );
                }
                if leads && let Some(last) = entries.last().filter(|last| last.term == term) {
                    self.ghosts[at].leader_wrote(term, last.index);
                }
                let action = Action::Append { truncate_from, entries };
                self.write(id, group, action, Report::Appended { write });
            }
            Effect::Reset { write } => {
                self.coverage.saw(Situation::Reset);
                let Some(live) = self.live(id, group) else { return Ok(()) };
                live.machine = Machine::default();
                live.commit = 0;
                self.write(id, group, Action::Reset, Report::Appended { write });
            }
            Effect::ReadLog { read, after, upto, max_bytes } => {
                self.coverage.saw(Situation::ReadBack);
                // What is there is looked up when the answer is due.
                let Some(node) = self.nodes.get(&id) else { return Ok(()) };
                let entries = node
                    .disk
                    .replica(group)
                    .map(|replica| replica.log.read(after, upto, max_bytes))
                    .unwrap_or_default();
                self.later(id, group, disk_delay, Input::LogRead { read, entries });
            }
            Effect::Commit { upto } => self.on_commit(id, group, upto)?,
            Effect::Serving { .. } => self.moments.push((Moment::Serving, id)),
            Effect::RoleChanged { role, term, .. } => self.on_role(id, group, role, term)?,
            Effect::ReadReady { read, index } => self.on_read_ready(id, group, read, index)?,
            Effect::ReadRefused { read } => {
                self.coverage.saw(Situation::ReadRefused);
                let reading = self.live(id, group).and_then(|live| live.reads.remove(&read));
                if let Some(reading) = reading {
                    self.reply(reading.client, Reply::NotLeader { leader: None });
                }
            }
            Effect::Rejoined { epoch } => self.on_rejoined(id, group, epoch)?,
            Effect::HistoryForked { history, commit_bound, .. } => {
                self.on_forked(id, group, history, commit_bound)?;
            }
            Effect::SnapshotOpen { to } => self.open_snapshot(id, group, to),
            Effect::SnapshotRead { to, id: snapshot, cursor, max_bytes } => {
                let (now, usually) = (self.schedule.now, self.profile.failing_snapshots);
                let node = self.nodes.get_mut(&id);
                let fails = node.is_some_and(|node| node.fails_snapshot(now, usually));
                let content = self
                    .live(id, group)
                    .and_then(|live| live.snapshots.get(&snapshot.number).copied());
                let piece =
                    content.and_then(|number| self.snapshots.piece(number, &cursor, max_bytes));
                let input = match piece.filter(|_| !fails) {
                    Some((data, next)) => {
                        Input::SnapshotRead { to, id: snapshot, cursor, data, next }
                    }
                    None => {
                        self.coverage.saw(Situation::SnapshotNotRead);
                        Input::SnapshotFailed { to }
                    }
                };
                self.later(id, group, disk_delay, input);
            }
            Effect::SnapshotClose { id: snapshot, .. } => {
                if let Some(live) = self.live(id, group) {
                    live.snapshots.remove(&snapshot.number);
                }
            }
            Effect::SnapshotStage { id: snapshot, cursor, data } => {
                let (now, usually) = (self.schedule.now, self.profile.failing_snapshots / 4);
                let node = self.nodes.get_mut(&id);
                if node.is_some_and(|node| node.fails_snapshot(now, usually)) {
                    self.coverage.saw(Situation::SnapshotRefused);
                    let input = Input::SnapshotRefused { id: snapshot };
                    self.later(id, group, disk_delay, input);
                    return Ok(());
                }
                self.moments.push((Moment::Receiving, id));
                let report = Report::Staged { id: snapshot, cursor: cursor.clone() };
                self.write(id, group, Action::Stage { id: snapshot, cursor, data }, report);
            }
            Effect::SnapshotInstall { id: snapshot, keep_log_after } => {
                self.moments.push((Moment::Installing, id));
                self.install(id, group, snapshot, keep_log_after)?;
            }
            Effect::TransferAbandoned { .. } => {
                self.coverage.saw(Situation::TransferAbandoned);
                if let Some(live) = self.live(id, group) {
                    live.handed_to = None;
                }
            }
            Effect::Removed => {
                let run = self.run(id).unwrap_or(0);
                let born = self.live(id, group).map_or(0, |live| live.born);
                if self.random.chance(500_000) {
                    let delay = self.random.between(1_000, 1_000_000);
                    self.schedule.after(delay, Event::Delete { node: id, run, group, born });
                }
            }
            Effect::Stop { reason: StopReason::StorageFailed } => {}
            Effect::Stop { reason } => {
                return violated("Stop", format!("node {id} group {group}: {reason}"));
            }
            Effect::Send(_) | Effect::SaveHardState { .. } => {
                return violated("Effects", "the node lets a group speak by itself".into());
            }
        }
        Ok(())
    }

    fn on_role(&mut self, id: NodeId, group: GroupId, role: Role, term: u64) -> Check {
        let at = group.0 as usize;
        let run = self.run(id).unwrap_or(0);
        let Some(live) = self.live(id, group) else { return Ok(()) };
        let before = live.role.replace(role);
        live.term = term;
        live.source = None;
        if before == Some(Role::Ready) && role != Role::Ready {
            live.waiting.clear();
            let (changed, handed_to) = (live.changed.take(), live.handed_to.take());
            if changed.is_some() {
                self.coverage.saw(Situation::ChangeDeposed);
            }
            if let Some((to, force)) = handed_to {
                let situation =
                    if force { Situation::TransferForced } else { Situation::Transferred };
                if to != id {
                    self.coverage.saw(situation);
                }
            }
            let joint = self.core(id, group).is_some_and(|core| core.config().is_joint());
            if joint {
                self.coverage.saw(Situation::JointInterrupted);
            }
        }
        match role {
            Role::Syncing => {
                self.ghosts[at].elected(term, id, run)?;
                self.moments.push((Moment::Syncing, id));
            }
            Role::Ready => {
                self.ghosts[at].elected(term, id, run)?;
                if let Some(live) = self.live(id, group) {
                    live.fresh = true;
                }
                if let Some(log) = self.core(id, group).map(|core| core.log().clone()) {
                    self.ghosts[at].leads(term, &log);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn on_commit(&mut self, id: NodeId, group: GroupId, upto: u64) -> Check {
        let at = group.0 as usize;
        let Some(live) = self.live(id, group) else { return Ok(()) };
        let after = live.commit;
        let leads = (live.role == Some(Role::Ready)).then_some(live.term);
        live.commit = upto;
        let Some(node) = self.nodes.get(&id) else { return Ok(()) };
        let core = node.process.as_ref().and_then(|process| process.core.group(group));
        let Some(core) = core else { return Ok(()) };
        let ghost = &mut self.ghosts[at];
        if leads.is_some() || !ghost.is_left(core.history()) {
            ghost.decided(id, leads, after, upto, core.log())?;
        }
        if leads == Some(core.term()) && core.role() == Role::Ready {
            for peer in core.progress() {
                if core.config().is_voter(peer.node) {
                    ghost.held_by(peer.node, peer.matched.min(upto));
                    let holder = self
                        .nodes
                        .get(&peer.node)
                        .and_then(|node| node.process.as_ref()?.core.group(group));
                    if let Some(holder) = holder {
                        let log = holder.log();
                        let recovers = holder.recovering().is_some();
                        let floor = log.floor().index;
                        ghost.check_holder(peer.node, recovers, floor, |i| log.term_at(i))?;
                    }
                    if peer.matched >= upto {
                        self.moments.push((Moment::Acknowledged, peer.node));
                    }
                }
            }
            // Where writes are reported once they are fsynced, the rest does not count yet.
            let fsync = self.profile.groups[at].durability == Durability::Synchronous;
            let disk = &node.disk;
            let replica = if fsync { disk.synced_replica(group) } else { disk.replica(group) };
            let written = replica.map_or(0, |replica| replica.log.last().index);
            ghost.held_by(id, written.min(upto));
        }
        self.plan_apply(id, group);
        Ok(())
    }

    fn on_rejoined(&mut self, id: NodeId, group: GroupId, epoch: u64) -> Check {
        let Some(node) = self.nodes.get(&id) else { return Ok(()) };
        let expected = match self.spec(group).durability {
            Durability::Memory => node.disk.runs,
            _ => node.disk.loss_epoch,
        };
        ensure!(
            epoch == expected,
            "I9 RejoinSound",
            "node {id} rejoins group {group} for epoch {epoch}, lost in {expected}"
        );
        self.coverage.saw(Situation::Rejoined);
        self.moments.push((Moment::Rejoined, id));
        let Some(live) = self.live(id, group) else { return Ok(()) };
        let (truncated, leads) = (live.truncated, live.role == Some(Role::Ready));
        if truncated {
            self.coverage.saw(Situation::RejoinedWithTruncation);
        }
        if leads {
            self.coverage.saw(Situation::RecoveringLed);
        }
        self.write(id, group, Action::Rejoined { epoch }, Report::Nothing);
        Ok(())
    }

    fn on_forked(&mut self, id: NodeId, group: GroupId, history: u32, decided: Index) -> Check {
        let at = group.0 as usize;
        let Some(core) = self.core(id, group) else { return Ok(()) };
        let (chosen, config) = (core.log().clone(), core.config().clone());
        let acked = self.ghosts[at].acked();
        let participants = config
            .voters
            .iter()
            .chain(&config.outgoing)
            .filter_map(|voter| self.nodes.get(voter))
            .filter(|node| !node.dead)
            .filter_map(|node| Some((node.id, &node.disk.replica(group)?.log)));
        let by_operator = self.forced.contains(&group);
        self.ghosts[at].forked(history, (&chosen, decided), participants)?;
        if self.ghosts[at].acked() < acked {
            self.coverage.saw(Situation::GivenUpByForce);
        }
        self.coverage.saw(if by_operator {
            Situation::ForkedByOperator
        } else {
            Situation::ForkedByPolicy
        });
        Ok(())
    }

    fn open_snapshot(&mut self, id: NodeId, group: GroupId, to: NodeId) {
        let longest = self.profile.disk.write;
        let (now, usually) = (self.schedule.now, self.profile.failing_snapshots);
        let most = self.profile.open_snapshots;
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let busy = node.open_snapshots() >= most;
        if busy || node.fails_snapshot(now, usually) {
            let situation =
                if busy { Situation::SnapshotBusy } else { Situation::SnapshotNotOpened };
            self.coverage.saw(situation);
            self.later(id, group, longest, Input::SnapshotFailed { to });
            return;
        }
        node.snapshots_made += 1;
        // Numbers are unique for the node's life: a process that restarts goes on elsewhere.
        let number = node.disk.runs * 1_000_000 + node.snapshots_made;
        let Some(live) = node.process.as_mut().and_then(|p| p.groups.get_mut(&group)) else {
            return;
        };
        let machine = Arc::new(live.machine.clone());
        let position = machine.applied;
        live.snapshots.insert(number, self.snapshots.add(machine));
        let snapshot = SnapshotId { source: id, number, position };
        self.later(id, group, longest, Input::SnapshotOpened { to, id: snapshot });
    }

    fn install(
        &mut self,
        id: NodeId,
        group: GroupId,
        snapshot: SnapshotId,
        keep_log_after: bool,
    ) -> Check {
        if keep_log_after {
            self.coverage.saw(Situation::SnapshotKeptLog);
        }
        let staged = self.nodes.get(&id).and_then(|node| node.disk.replica(group)?.staged.clone());
        let machine = staged
            .filter(|staged| staged.id == snapshot)
            .and_then(|staged| self.snapshots.assemble(&staged.pieces));
        let Some(machine) = machine else {
            return violated(
                "Snapshot",
                format!("node {id} group {group} switches to {snapshot:?}, which is not all there"),
            );
        };
        ensure!(
            machine.applied == snapshot.position,
            "Snapshot",
            "node {id} group {group}: {snapshot:?} holds {:?}",
            machine.applied
        );
        if let Some(live) = self.live(id, group) {
            live.installing = true;
            if live.role == Some(Role::Syncing) {
                self.coverage.saw(Situation::SyncedBySnapshot);
            }
        }
        self.ghosts[group.0 as usize].installing.insert(id);
        let action = Action::Install { id: snapshot, keep_log_after, machine };
        self.write(id, group, action, Report::Installed { id: snapshot });
        Ok(())
    }

    fn on_read_ready(&mut self, id: NodeId, group: GroupId, read: u64, index: u64) -> Check {
        let at = group.0 as usize;
        let forks = self.ghosts[at].forks.len();
        let Some(live) = self.live(id, group) else { return Ok(()) };
        let Some(reading) = live.reads.get_mut(&read) else { return Ok(()) };
        reading.index = Some(index);
        let reading = *reading;
        self.coverage.saw(if reading.at_once { Situation::LeaseRead } else { Situation::Read });
        ensure!(
            reading.forks != forks || index >= reading.acked,
            "I14 ReadLinear",
            "node {id} answers a read of group {group} as of {index}; {} was acknowledged when it \
             began",
            reading.acked
        );
        self.answer_reads(id, group);
        Ok(())
    }

    /// What is true of every group that did something.
    fn check_touched(&mut self, id: NodeId) -> Check {
        let Some(node) = self.nodes.get_mut(&id) else { return Ok(()) };
        let Some(process) = &mut node.process else { return Ok(()) };
        let mut leaders = Vec::new();
        for group in std::mem::take(&mut process.touched) {
            let Some(core) = process.core.group(group) else { continue };
            let Some(live) = process.groups.get_mut(&group) else { continue };
            let ghost = &mut self.ghosts[group.0 as usize];
            if core.hard_state().void && !live.void {
                ghost.gives_way(id, live.history)?;
            }
            live.void = core.hard_state().void;
            let (log, floor) = (core.log(), core.log().floor().index);
            if live.role == Some(Role::Ready) && core.role() == Role::Ready {
                if std::mem::take(&mut live.fresh) {
                    ghost.ready(id, core.term(), log)?;
                }
                check_memory(core, &self.profile.groups[group.0 as usize].settings)?;
                leaders.push((group, core.synced_quorum(), core.config().clone(), log.clone()));
                if live.changed.is_some() && core.config_held() {
                    live.changed = None;
                }
            }
            ghost.check_holder(id, core.recovering().is_some(), floor, |i| log.term_at(i))?;
            let synced = core.synced_index();
            if synced > floor {
                let on_disk = node.disk.synced_replica(group).and_then(|r| r.log.term_at(synced));
                let floor = node.disk.synced_replica(group).map_or(0, |r| r.log.floor.index);
                ensure!(
                    on_disk == log.term_at(synced) || synced < floor,
                    "Synced",
                    "node {id} group {group} takes {synced} for fsynced, the disk has {on_disk:?}"
                );
            }
            if core.is_quiesced() != live.quiesced {
                live.quiesced = core.is_quiesced();
                let quiet = live.quiesced;
                self.coverage.saw(if quiet { Situation::Quiesced } else { Situation::Woke });
            }
            if live.history != core.history() {
                live.history = core.history();
                ghost.installing.remove(&id);
            }
            if let Some(source) = live.source.filter(|_| core.role() == Role::Syncing) {
                live.source = Some(source);
            } else {
                live.source = None;
            }
        }
        for (group, synced, config, log) in leaders {
            self.check_synced_quorum(id, group, synced.unwrap_or(0), &config, &log)?;
        }
        Ok(())
    }

    /// What a leader takes for safe from a power loss of all is on the disks of a quorum.
    fn check_synced_quorum(
        &self,
        id: NodeId,
        group: GroupId,
        synced: u64,
        config: &ConfigRegister,
        log: &LogTerms,
    ) -> Check {
        let durable = |node: NodeId| {
            let disk = self.nodes.get(&node).filter(|node| !node.dead).map(|node| &node.disk);
            disk.is_none_or(|disk| {
                disk.synced_replica(group).is_none_or(|replica| {
                    let floor = replica.log.floor.index.max(log.floor().index);
                    synced <= floor || replica.log.term_at(synced) == log.term_at(synced)
                })
            })
        };
        let memory = self.spec(group).durability == Durability::Memory;
        ensure!(
            memory || synced == 0 || config.is_quorum(durable),
            "Synced",
            "node {id} group {group} takes {synced} for fsynced by a quorum"
        );
        Ok(())
    }

    /// I8: whoever could decide a sync phase now has everything that is acknowledged.
    pub(crate) fn check_all_quorums(&self) -> Check {
        (0..self.ghosts.len())
            .try_for_each(|number| self.check_quorums(GroupId(u32::try_from(number).unwrap_or(0))))
    }

    /// I8, for one group.
    pub(crate) fn check_quorums(&self, group: GroupId) -> Check {
        let ghost = &self.ghosts[group.0 as usize];
        if let Some(newest) = self.newest_config(group) {
            let lacks: Vec<NodeId> = newest
                .voters
                .iter()
                .chain(&newest.outgoing)
                .filter_map(|id| self.nodes.get(id))
                .filter(|node| !node.dead)
                // What is stepped and not flushed yet, nobody knows of.
                .filter(|node| node.process.as_ref().is_none_or(|process| !process.flushing))
                .filter(|node| {
                    let core = node.process.as_ref().and_then(|process| process.core.group(group));
                    core.is_some_and(|core| {
                        let log = core.log();
                        core.recovering().is_none()
                            && !ghost.has_all(log.floor().index, |i| log.term_at(i))
                    })
                })
                .map(|node| node.id)
                .collect();
            ensure!(
                !newest.is_quorum(|node| lacks.contains(&node)),
                "I8 QuorumHolds",
                "group {group}: {lacks:?} decide and lack what is acknowledged up to {}",
                ghost.acked()
            );
        }
        Ok(())
    }

    /// I12, for one group.
    pub(crate) fn check_configs(&self, group: GroupId) -> Check {
        let holders: BTreeMap<_, _> = self
            .cluster
            .iter()
            .filter_map(|id| Some((*id, &self.nodes.get(id)?.disk.hard_state(group)?.config)))
            .collect();
        check_configurations(&holders)
    }
}

/// A leader's memory has bounds, whatever its members do.
fn check_memory(core: &Core, settings: &Settings) -> Check {
    let entry = 1_000;
    ensure!(
        core.uncommitted_bytes() <= settings.proposal_window_bytes + entry
            && core.cached_bytes() <= settings.cache_bytes + entry,
        "Memory",
        "group {}: {} bytes await their commit, {} are cached",
        core.group(),
        core.uncommitted_bytes(),
        core.cached_bytes()
    );
    for peer in core.progress() {
        let bytes = settings.window_bytes + u64::from(settings.message_bytes) + entry;
        let entries = u64::from(settings.window_entries + settings.message_entries);
        ensure!(
            peer.in_flight_bytes() <= bytes
                && (peer.flow != Flow::Replicate || peer.in_flight_entries() <= entries),
            "Memory",
            "group {}: {} bytes and {} entries are on the way to {}",
            core.group(),
            peer.in_flight_bytes(),
            peer.in_flight_entries(),
            peer.node
        );
    }
    Ok(())
}
