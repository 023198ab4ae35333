//! What the machine does at the end of a turn, and with messages of other nodes, in each role.

use std::time::Duration;

use flintmq_consensus::{Index, NodeId, Time};
use flintmq_shard::{AppendKind, Group, Machine, NotSent};

use super::ControllerMachine;
use super::changes::{BATCH_BYTES, BATCH_CHANGES};
use super::role::{Leader, Read, Role};
use crate::command::{ChangeId, LoggedChange, MetadataCommand, encode_entry};
use crate::message::{ControllerMessage, ForwardedChange};
use crate::metadata::Seen;
use crate::refusal::Refusal;
use crate::request::CatchUpError;

/// How soon something that was not taken is tried again.
const RETRY: Duration = Duration::from_millis(50);

/// Entries under way at most: what comes meanwhile shares the next one.
const MAX_UNDER_WAY: usize = 8;

/// Questions to the group at most that are not answered: what comes meanwhile shares the next one.
const MAX_READS: usize = 4;

/// How long a planned change may take before it is planned again.
const PLAN_PATIENCE: Duration = Duration::from_secs(30);

impl ControllerMachine {
    pub(super) fn do_work(&mut self, group: &mut dyn Group) {
        let now = group.now();
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry_at = None;
        }
        self.expire(now);
        self.follow(group);
        self.plan(group);
        match self.role {
            Role::Leader(_) => {
                self.propose(group);
                self.ask_group(group);
            }
            Role::Follower { leader, .. } if self.retry_at.is_none() => {
                self.forward(group, leader);
                self.ask_leader(group, leader);
            }
            Role::Follower { .. } | Role::Leaderless => {}
        }
        self.outgoing.flush(group);
        if self.checkpoint_due && !self.checkpoint_held {
            let _written_or_held = self.checkpoint(group);
        }
    }

    fn expire(&mut self, now: Time) {
        for (ticket, error) in self.changes.expired(now) {
            self.answer_change(ticket, Err(error));
        }
        for ticket in self.catch_ups.expired(now) {
            self.answer_caught_up(ticket, Err(CatchUpError::TimedOut));
        }
    }

    /// Takes up who leads elsewhere. A leadership of this node begins and ends by the group's word.
    fn follow(&mut self, group: &dyn Group) {
        let before = match self.role {
            Role::Leader(_) => return,
            Role::Follower { leader, term } => Some((leader, term)),
            Role::Leaderless => None,
        };
        let present = group.leader_in_reach().map(|leader| (leader, group.term()));
        if present != before {
            self.role = match present {
                Some((leader, term)) => Role::Follower { leader, term },
                None => Role::Leaderless,
            };
            self.start_over();
        }
    }

    /// Nothing that this node asks for is with a leader: all of it has to be sent or proposed.
    pub(super) fn start_over(&mut self) {
        self.changes.none_is_handed();
        self.catch_ups.withdraw_question();
        self.retry_at = None;
    }

    fn plan(&mut self, group: &dyn Group) {
        self.planned = self.planned.filter(|number| self.changes.has(*number));
        let (Role::Leader(_), Some(settings)) = (&self.role, &self.planning) else { return };
        if !self.plan_due || self.planned.is_some() {
            return;
        }
        self.plan_due = false;
        let (here, reachable) = (group.node(), group.peers_in_reach());
        let away = |id: u32| id != here.0 && !reachable.contains(&NodeId(id));
        let membership = self.state.metadata().membership();
        if let Some(change) = settings.next_change(membership, &away) {
            let commands = vec![MetadataCommand::Membership { change }];
            // Without room for it now it is planned again at the next tick.
            self.planned = self.changes.add(None, commands, group.now() + PLAN_PATIENCE).ok();
        }
    }

    fn propose(&mut self, group: &mut dyn Group) {
        let Role::Leader(leader) = &mut self.role else { return };
        for (change, bytes) in self.changes.take_for_log(group.now()) {
            if change.id.is_none_or(|id| !leader.has(&id)) {
                leader.push(change, bytes);
            }
        }
        while leader.has_queued() && group.under_way() < MAX_UNDER_WAY {
            let (changes, sizes): (Vec<_>, Vec<_>) =
                leader.take_batch(BATCH_CHANGES, BATCH_BYTES).into_iter().unzip();
            // What was read from JSON, or is to be answered as JSON, is always written as such.
            let Ok(payload) = encode_entry(&changes) else { continue };
            if group.propose(payload, AppendKind::Relief).is_err() {
                leader.put_back(changes.into_iter().zip(sizes).collect());
                self.retry_at = Some(group.now() + RETRY);
                return;
            }
        }
    }

    fn ask_group(&mut self, group: &mut dyn Group) {
        let Role::Leader(leader) = &mut self.role else { return };
        let is_asked = self.catch_ups.has_unasked() || !leader.asked.is_empty();
        if is_asked && leader.reads.len() < MAX_READS {
            let here = self.catch_ups.take_unasked();
            let elsewhere = std::mem::take(&mut leader.asked);
            leader.reads.insert(group.read_index(), Read { here, elsewhere });
            self.counters.reads += 1;
        }
    }

    fn forward(&mut self, group: &mut dyn Group, leader: NodeId) {
        loop {
            let changes = self.changes.batch_to_forward();
            if changes.is_empty() {
                return;
            }
            let numbers: Vec<u64> = changes.iter().map(|change| change.number).collect();
            let (process, oldest) = (self.changes.process(), self.changes.oldest());
            let message = ControllerMessage::Forward { process, oldest, changes };
            match self.outgoing.send(group, leader, &message) {
                Ok(()) => {}
                Err(NotSent::Full) => return,
                Err(NotSent::Gone) => {
                    self.retry_at = Some(group.now() + RETRY);
                    return;
                }
            }
            self.counters.forwarded += numbers.len() as u64;
            self.changes.handed(numbers, group.now());
        }
    }

    fn ask_leader(&mut self, group: &mut dyn Group, leader: NodeId) {
        let Some(number) = self.catch_ups.next_question() else { return };
        let message = ControllerMessage::Read { process: self.changes.process(), number };
        match self.outgoing.send(group, leader, &message) {
            Ok(()) => self.catch_ups.question_sent(group.now()),
            Err(NotSent::Full) => {}
            Err(NotSent::Gone) => self.retry_at = Some(group.now() + RETRY),
        }
    }

    pub(super) fn on_forwarded(
        &mut self,
        from: NodeId,
        process: u64,
        oldest: u64,
        changes: Vec<ForwardedChange>,
    ) {
        for ForwardedChange { number, commands } in changes {
            let id = ChangeId { node: from.0, process, number };
            let is_new = match self.state.seen(&id) {
                // The refusal comes to its node with the log.
                Seen::New | Seen::Applied(Err(Refusal::Superseded)) => true,
                Seen::Applied(_) | Seen::Over => false,
            };
            if !is_new {
                self.counters.repeated += 1;
                continue;
            }
            match &mut self.role {
                Role::Leader(leader) if leader.has(&id) => self.counters.repeated += 1,
                Role::Leader(leader) if leader.has_room() => {
                    let bytes = serde_json::to_vec(&commands).map_or(0, |json| json.len());
                    leader.push(LoggedChange { id: Some(id), oldest, commands }, bytes);
                }
                _ => {
                    self.counters.not_taken += 1;
                    self.outgoing.not_taken(from, process, number);
                }
            }
        }
    }

    pub(super) fn on_not_taken(&mut self, now: Time, process: u64, numbers: &[u64]) {
        if process == self.changes.process() {
            self.changes.not_taken(numbers);
            self.retry_at = Some(now + RETRY);
        }
    }

    pub(super) fn on_question(&mut self, from: NodeId, question: (u64, u64)) {
        match &mut self.role {
            Role::Leader(leader) => {
                leader.asked.insert(from, question);
            }
            Role::Follower { .. } | Role::Leaderless => {
                self.outgoing.read_at(from, question, None);
            }
        }
    }

    pub(super) fn on_answer(
        &mut self,
        group: &dyn Group,
        (process, number): (u64, u64),
        index: Option<Index>,
    ) {
        if process != self.changes.process() {
            return;
        }
        let Some(requests) = self.catch_ups.answered(number) else { return };
        if index.is_none() {
            self.retry_at = Some(group.now() + RETRY);
        }
        self.settle_read(group, requests, index);
    }

    /// These requests may be answered once this entry is applied; without one they ask again.
    pub(super) fn settle_read(
        &mut self,
        group: &dyn Group,
        requests: Vec<u64>,
        index: Option<Index>,
    ) {
        match index {
            Some(index) => {
                self.catch_ups.wait_for(index, requests);
                self.note_applied(group.applied().index);
            }
            None => self.catch_ups.ask_again(requests),
        }
    }

    /// Gives back what a leadership that has ended still had. What it had proposed may yet be
    /// committed: its nodes send it to the next leader, and it is applied once.
    pub(super) fn end_leadership(&mut self, leader: Leader) {
        let here = self.changes.node();
        for id in leader.queued().filter(|id| id.node != here.0) {
            self.outgoing.not_taken(NodeId(id.node), id.process, id.number);
        }
        for (node, question) in leader.asked {
            self.outgoing.read_at(node, question, None);
        }
        for read in leader.reads.into_values() {
            self.catch_ups.ask_again(read.here);
            for (node, question) in read.elsewhere {
                self.outgoing.read_at(node, question, None);
            }
        }
    }
}
