//! Carries out what the cores ask for.

use super::{Action, Harness, NOW, Replica, State};
use bytes::Bytes;
use flintmq_consensus::{
    Body, Core, Effect, EntryKind, Input, MemberChange, Message, NodeId, Role,
};
use std::collections::BTreeSet;
use std::sync::Arc;

/// The number of the operator's order.
const ORDER: u64 = 7;

impl Replica {
    pub(super) fn new(core: Core, disk: super::Disk) -> Self {
        let print = super::print(&(&core, &disk));
        Self { core, disk, print }
    }
}

impl Harness {
    pub(super) fn enabled(&self, state: &State, actions: &mut Vec<Action>) {
        let reach = &self.reach;
        for (node, replica) in &state.replicas {
            let (node, core, disk) = (*node, &replica.core, &replica.disk);
            if state.dead.contains(&node) {
                continue;
            }
            let leads = matches!(core.role(), Role::Syncing | Role::Ready);
            // The upper half of a term is the number of the operator's order.
            if node.0 <= reach.candidates && core.term() & 0xffff < reach.terms && !leads {
                actions.push(Action::Stand(node));
            }
            if reach.dead > 0 && core.role() != Role::Ready && core.term() < ORDER << 32 {
                self.orders(state, node, core, actions);
            }
            if core.role() == Role::Ready {
                if core.last().index < reach.len {
                    actions.push(Action::Propose(node));
                }
                if state.changes < reach.changes {
                    self.changes(node, core, actions);
                }
            }
            if !disk.saves.is_empty() {
                actions.push(Action::Saved(node));
            }
            if !disk.writes.is_empty() {
                actions.push(Action::Written(node));
            }
            if state.crashes < reach.crashes {
                actions.push(Action::Crash(node, false));
                if !disk.saves.is_empty() || !disk.writes.is_empty() {
                    actions.push(Action::Crash(node, true));
                }
            }
            if state.losses < reach.losses {
                let versions = disk.left_by_power_loss().len();
                actions.extend((0..versions).map(|version| Action::PowerLoss(node, version)));
            }
        }
        let arrives = |message: &&Arc<Message>| !state.dead.contains(&message.to);
        actions.extend(state.network.iter().filter(arrives).map(Arc::clone).map(Action::Deliver));
    }

    /// One order, to any number of replicas.
    fn orders(&self, state: &State, node: NodeId, core: &Core, actions: &mut Vec<Action>) {
        let others: Vec<NodeId> = self.names().filter(|n| *n != node).collect();
        for set in 1..1u32 << others.len() {
            let chosen = others.iter().enumerate().filter(|(at, _)| set & (1 << at) != 0);
            let dead: BTreeSet<NodeId> = chosen.map(|(_, node)| *node).collect();
            let first = state.dead.is_empty() && dead.len() <= self.reach.dead;
            let voters = dead.iter().all(|node| core.config().is_voter(*node));
            if voters && (first || dead == state.dead) {
                actions.push(Action::Order(node, dead));
            }
        }
    }

    fn changes(&self, node: NodeId, core: &Core, actions: &mut Vec<Action>) {
        let config = core.config();
        for peer in self.names().filter(|peer| *peer != node) {
            let change = if config.voters.contains(&peer) {
                MemberChange::RemoveVoter(peer)
            } else if config.learners.contains(&peer) {
                MemberChange::Promote(peer)
            } else {
                MemberChange::AddLearner(peer)
            };
            actions.push(Action::Change(node, change));
        }
        let everybody = MemberChange::Joint { voters: self.names().collect(), learners: vec![] };
        actions.push(Action::Change(node, everybody));
    }

    /// The state after this step; none where it is not possible.
    #[must_use]
    pub fn take(&self, before: &State, action: &Action) -> Option<State> {
        let mut state = before.clone();
        match action {
            Action::Stand(node) => {
                self.step(&mut state, *node, Input::Stand { scout: self.reach.scouting });
            }
            Action::Order(node, dead) => {
                let expect_history = state.replicas.get(node)?.core.history();
                let (dead, number) = (dead.clone(), ORDER as u32);
                state.dead.clone_from(&dead);
                let left = state.replicas.iter().filter(|(node, _)| !state.dead.contains(node));
                let configs = left.map(|(_, left)| left.core.config());
                let newest = configs.max_by_key(|config| config.stamp)?.clone();
                let order = Input::ForceRecover { dead, expect_history, newest, number };
                self.step(&mut state, *node, order);
            }
            Action::Deliver(message) => self.deliver(&mut state, message),
            Action::Propose(node) => {
                let term = state.replicas.get(node)?.core.term();
                // Two leaders of one term would be noticed by what they wrote.
                let payload = Bytes::copy_from_slice(&[node.0 as u8, term as u8]);
                self.turn(&mut state, *node, |core, effects| {
                    core.propose(NOW, EntryKind::Commands, payload, effects).is_ok()
                });
            }
            Action::Change(node, change) => {
                state.changes += 1;
                let done = self.turn(&mut state, *node, |core, effects| {
                    core.change_members(NOW, change, effects).is_ok()
                });
                if !done {
                    return None;
                }
            }
            Action::Saved(node) => {
                let mut replica = Replica::clone(state.replicas.get(node)?);
                let save = replica.disk.save()?;
                state.replicas.insert(*node, Arc::new(replica));
                self.step(&mut state, *node, Input::HardStateSynced { save });
            }
            Action::Written(node) => {
                let mut replica = Replica::clone(state.replicas.get(node)?);
                let write = replica.disk.write(self.keeps_versions(&state))?;
                state.replicas.insert(*node, Arc::new(replica));
                self.step(&mut state, *node, Input::Appended { write });
            }
            Action::Crash(node, done) => {
                state.crashes += 1;
                let keep = self.keeps_versions(&state);
                let mut disk = state.replicas.get(node)?.disk.clone();
                disk.crash(*done, keep);
                self.restart(&mut state, *node, disk);
            }
            Action::PowerLoss(node, version) => {
                state.losses += 1;
                let keep = self.keeps_versions(&state);
                let mut disk = state.replicas.get(node)?.disk.clone();
                let version = disk.left_by_power_loss().get(*version).map(Arc::clone)?;
                disk.lose_power(&version, keep);
                self.restart(&mut state, *node, disk);
            }
        }
        if !self.keeps_versions(&state) && self.keeps_versions(before) {
            forget_versions(&mut state);
        }
        self.prune(&mut state);
        self.check_step(before, &mut state);
        Some(state)
    }

    /// Versions of before matter only while power may still be lost.
    fn keeps_versions(&self, state: &State) -> bool {
        state.losses < self.reach.losses
    }

    fn restart(&self, state: &mut State, node: NodeId, disk: super::Disk) {
        let core = self.restore(node, &disk);
        state.replicas.insert(node, Arc::new(Replica::new(core, disk)));
        self.start(state, node);
        for peer in self.names().filter(|peer| *peer != node) {
            self.step(state, peer, Input::PeerDown { peer: node });
            self.step(state, peer, Input::PeerUp { peer: node, restarted: true });
        }
    }

    pub(super) fn start(&self, state: &mut State, node: NodeId) {
        self.step(state, node, Input::Started);
    }

    fn deliver(&self, state: &mut State, message: &Message) {
        let to = message.to;
        let Some(replica) = state.replicas.get(&to) else { return };
        let vote = matches!(message.body, Body::Propose { .. } | Body::Scout { .. });
        // Whoever is asked for a vote has just lost sight of its leader, or of its followers.
        let leader = replica.core.leader().filter(|_| vote);
        match leader {
            Some(leader) if leader == to => self.step(state, to, Input::Cede),
            Some(leader) => self.step(state, to, Input::PeerDown { peer: leader }),
            None => {}
        }
        self.step(state, to, Input::Message(message.clone()));
        if let Some(peer) = leader.filter(|leader| *leader != to) {
            self.step(state, to, Input::PeerUp { peer, restarted: false });
        }
    }

    pub(super) fn step(&self, state: &mut State, node: NodeId, input: Input) {
        self.turn(state, node, |core, effects| {
            core.step(NOW, input, effects);
            true
        });
    }

    /// One call of a core, and all that follows from it at once.
    fn turn(
        &self,
        state: &mut State,
        node: NodeId,
        call: impl FnOnce(&mut Core, &mut Vec<Effect>) -> bool,
    ) -> bool {
        let Some(replica) = state.replicas.get(&node) else { return false };
        let mut replica = Replica::clone(replica);
        let mut effects = Vec::new();
        let done = call(&mut replica.core, &mut effects);
        while !effects.is_empty() {
            let mut reports = Vec::new();
            let mut next = Vec::new();
            for effect in effects {
                self.carry_out(state, &mut replica, effect, &mut next);
                // A quick disk has written before the next effect, and says so after the last.
                if !self.reach.slow_disks {
                    let write = replica.disk.write(self.keeps_versions(state));
                    let save = replica.disk.save();
                    reports.extend(save.map(|save| Input::HardStateSynced { save }));
                    reports.extend(write.map(|write| Input::Appended { write }));
                }
            }
            for report in reports {
                replica.core.step(NOW, report, &mut next);
            }
            effects = next;
        }
        // How often it has written tells only how the state was come to.
        let (saves, writes) = replica.core.renumber();
        replica.disk.renumber(saves, writes);
        state.replicas.insert(node, Arc::new(Replica::new(replica.core, replica.disk)));
        done
    }

    fn carry_out(
        &self,
        state: &mut State,
        replica: &mut Replica,
        effect: Effect,
        next: &mut Vec<Effect>,
    ) {
        match effect {
            Effect::Send(message) => self.send(state, replica, message),
            Effect::SaveHardState { save, state } => replica.disk.saves.push_back((save, state)),
            Effect::Append { write: number, truncate_from, entries } => {
                let write = super::disk::Write { number, reset: false, truncate_from, entries };
                replica.disk.writes.push_back(write);
            }
            Effect::Reset { write: number } => {
                let (truncate_from, entries) = (None, Vec::new());
                let write = super::disk::Write { number, reset: true, truncate_from, entries };
                replica.disk.writes.push_back(write);
            }
            Effect::ReadLog { read, after, upto, .. } => {
                let within = |index| index > after && index <= upto;
                let log = replica.disk.log.iter();
                let entries = log.filter(|entry| within(entry.index)).cloned().collect();
                replica.core.step(NOW, Input::LogRead { read, entries }, next);
            }
            Effect::Rejoined { epoch } => replica.disk.rejoined = epoch,
            Effect::Commit { upto } => self.apply(state, replica, upto),
            Effect::HistoryForked { .. } => self.forked(state, replica),
            Effect::Stop { .. } => state.broken = Some("I10 nothing decided is contradicted"),
            _ => {}
        }
    }
}

fn forget_versions(state: &mut State) {
    for replica in state.replicas.values_mut() {
        if !replica.disk.versions.is_empty() {
            let mut disk = replica.disk.clone();
            disk.versions.clear();
            *replica = Arc::new(Replica::new(replica.core.clone(), disk));
        }
    }
}
