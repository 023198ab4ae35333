//! What leaves a replica promises something, and shows what is durable.

use super::{TraceChecker, Trouble};
use crate::protocol::{Action, Message, Role, State};
use flintmq_consensus::{
    Answer, Body, ConfigStamp, Core, Effect, Index, RejoinTarget, Role as Real,
};

impl TraceChecker {
    /// One step: what the core became, what it said, what of it is durable.
    pub(super) fn follow(
        &mut self,
        number: u8,
        core: &Core,
        effects: &[Effect],
    ) -> Result<(), Trouble> {
        if core.hard_state().void {
            return Err(Trouble::Over("a replica gave its past up for a later history"));
        }
        let view = self.view(number, core)?;
        let replica = &mut self.replicas[usize::from(number)];
        if replica.last.as_ref() != Some(&view) {
            replica.pending.push_back(view.clone());
            replica.last = Some(view);
        }
        if core.leader().is_some_and(|leader| leader != core.node()) || core.role() == Real::Ready {
            self.replicas[usize::from(number)].order = None;
        }
        for effect in effects {
            match effect {
                Effect::Send(message) => self.said(number, message)?,
                Effect::Commit { upto } => self.commits(number, *upto)?,
                Effect::SnapshotInstall { id, keep_log_after: false } => {
                    let position = id.position;
                    let index = self.place(position.index).ok_or(Trouble::Over("a long log"))?;
                    let log = self.known_log(number, index, self.term(position.term)?);
                    self.replicas[usize::from(number)].installed.extend(log);
                }
                _ => {}
            }
        }
        if core.is_hard_state_synced() {
            while self.advance(number)? {}
        }
        Ok(())
    }

    /// Follows the replica until this is true of it, which it must be before long.
    fn reach(
        &mut self,
        number: u8,
        what: &str,
        is_true: impl Fn(&Self) -> bool,
    ) -> Result<(), Trouble> {
        while !is_true(self) {
            if !self.advance(number)? {
                return Err(Trouble::Wrong(format!("it is not so, but {what} left")));
            }
        }
        Ok(())
    }

    fn said(&mut self, number: u8, message: &flintmq_consensus::Message) -> Result<(), Trouble> {
        let term = self.term(message.term)?;
        let to = self.names.node(message.to).ok_or(Trouble::Over("a foreign node"))?;
        let shown = shown_stamp(&message.body).map(|stamp| self.stamp(stamp)).transpose()?;
        self.reach(number, "a message with this term and configuration", |checker| {
            let node = checker.state.node(number);
            node.term >= term && shown.is_none_or(|stamp| node.config.stamp() >= stamp)
        })?;
        match &message.body {
            Body::Propose { .. } => {
                self.reach(number, "a question for votes", |checker| {
                    checker.stood.contains_key(&(term, number))
                })?;
            }
            Body::SyncRequest { .. } => {
                self.reach(number, "a sync request of one who is not elected", |checker| {
                    checker.state.elected.contains(&(term, number))
                })?;
            }
            Body::Reply(answer) => self.replied(number, term, to, answer)?,
            Body::Append { prev, entries, rejoin, .. } => {
                let last = entries.last().map_or(*prev, flintmq_consensus::Entry::position);
                self.leads_with(number, term, last)?;
                if let Some(target) = rejoin {
                    self.granted(number, term, to, target)?;
                }
            }
            Body::Ack { outcome, config, .. } => {
                if let Ok(verified) = outcome {
                    self.acknowledged(number, term, to, *verified)?;
                }
                self.holds_config(number, term, to, *config)?;
            }
            Body::RejoinGrant(target) => self.granted(number, term, to, target)?,
            _ => {}
        }
        Ok(())
    }

    /// A leader's word of an entry; nothing to check once it is out of date.
    fn leads_with(
        &mut self,
        number: u8,
        term: u8,
        entry: flintmq_consensus::LogPosition,
    ) -> Result<(), Trouble> {
        let index = self.place(entry.index).ok_or(Trouble::Over("a long log"))?;
        let entry_term = if index == 0 { 0 } else { self.term(entry.term)? };
        self.reach(number, "entries of a leader that has no such entries", |checker| {
            let node = checker.state.node(number);
            node.term > term
                || node.term == term
                    && node.role == Role::Leader
                    && node.log.at(index) == entry_term
        })
    }

    /// A vote, or an answer to a sync request. Of no interest once the receiver is over it.
    fn replied(&mut self, number: u8, term: u8, to: u8, answer: &Answer) -> Result<(), Trouble> {
        let vote = self.replicas[usize::from(number)].votes.get(&term).copied().flatten();
        if answer.vote && vote != Some(to) {
            return Err(Trouble::Wrong("a vote for another one than is durable".into()));
        }
        let index = self.place(answer.last.index).ok_or(Trouble::Over("a long log"))?;
        let last = if index == 0 { 0 } else { self.term(answer.last.term)? };
        let recovering = answer.recovering.is_some();
        let (log, replaced) = loop {
            let (own, receiver) = (self.state.node(number), self.state.node(to));
            if receiver.role != Role::Candidate || receiver.term != term || own.term != term {
                return Ok(());
            }
            // Also of the log as it was before a snapshot took its place.
            let replaced = self.replicas[usize::from(number)].replaced;
            let replaced = replaced.filter(|(then, _)| *then == term).map(|(_, log)| log);
            let mut logs = [Some(own.log), replaced].into_iter().flatten();
            let log = logs.find(|log| (last, index) == log.rank());
            if let Some(log) = log.filter(|_| own.recovering == recovering) {
                break (log, replaced);
            }
            if !self.advance(number)? {
                return Err(Trouble::Wrong("an answer that is not about the present log".into()));
            }
        };
        let reply = Message::Reply { term, from: number, to, log, recovering };
        let answered = |state: &State| {
            state.messages.iter().any(|message| {
                matches!(message, Message::Reply { term: t, from, to: r, .. }
                    if (*t, *from, *r) == (term, number, to))
            })
        };
        if self.state.messages.contains(&reply) {
            return Ok(());
        }
        if answered(&self.state) {
            // It lost something since, and says so.
            if !recovering && replaced.is_none() {
                return Err(Trouble::Wrong("another answer than before".into()));
            }
            self.state.messages.insert(reply);
            self.count("answered again");
            return Ok(());
        }
        let action = if answer.vote {
            let proposal = self.state.messages.iter().copied().find(|message| {
                matches!(message, Message::Propose { term: t, from, .. }
                    if *t == term && *from == to)
            });
            let proposal = proposal.ok_or_else(|| Trouble::Wrong("nobody asked for it".into()))?;
            Action::Vote(number, proposal)
        } else {
            let action = Action::AnswerSync(number, to);
            if !self.enabled(&action) {
                return Err(Trouble::Wrong("an answer that was not asked for".into()));
            }
            action
        };
        let present = std::mem::replace(&mut self.state.node_mut(number).log, log);
        self.take(&action);
        self.state.node_mut(number).log = present;
        Ok(())
    }

    /// The log equals the leader's up to here, and is written.
    fn acknowledged(
        &mut self,
        number: u8,
        term: u8,
        to: u8,
        verified: Index,
    ) -> Result<(), Trouble> {
        let index = self.place(verified).ok_or(Trouble::Over("a long log"))?;
        if self.state.node(number).term > term {
            return Ok(());
        }
        if index == 0 {
            // Of what is cut off; a change of members may still wait for it.
            let leader = self.state.node(to);
            let waits = leader.role == Role::Leader && leader.term == term && leader.need == 0;
            if waits && verified >= self.replicas[usize::from(to)].need {
                let ack = |message: &Message| {
                    matches!(message, Message::Ack { term: t, from, to: leader, .. }
                        if (*t, *from, *leader) == (term, number, to))
                };
                if verified > 0 && !self.state.messages.iter().any(ack) {
                    self.state.messages.insert(Message::Ack { term, from: number, to, index });
                }
            }
            return Ok(());
        }
        let action = loop {
            let sent = self.state.messages.iter().copied().find(|message| {
                matches!(message, Message::Append { term: t, from, .. }
                    if *t == term && *from == to)
            });
            if let Some(sent @ Message::Append { log, .. }) = sent {
                let own = self.state.node(number).log;
                let action = Action::TakeAppend(number, sent, index);
                if index <= log.len() && own.merge(&log.prefix(index)) == own {
                    break action;
                }
            }
            if !self.advance(number)? {
                return Err(Trouble::Wrong(format!(
                    "its log does not equal the leader's up to {index}, but is acknowledged"
                )));
            }
        };
        if !self.enabled(&action) {
            return Err(Trouble::Wrong("an acknowledgement out of turn".into()));
        }
        self.take(&action);
        let log = self.state.node(number).log;
        let entries = (1..=index).map(|index| (index, log.at(index)));
        self.replicas[usize::from(number)].acked.extend(entries);
        Ok(())
    }

    /// Counts for the leader's next change of members.
    fn holds_config(
        &mut self,
        number: u8,
        term: u8,
        to: u8,
        config: ConfigStamp,
    ) -> Result<(), Trouble> {
        let stamp = self.stamp(config)?;
        let (own, leader) = (self.state.node(number), self.state.node(to));
        let action = Action::AckConfig(number, to);
        if leader.term == term
            && own.term == term
            && leader.config.stamp() == stamp
            && own.config.stamp() == stamp
            && self.enabled(&action)
        {
            self.take(&action);
        }
        Ok(())
    }

    /// A leader named what a recovering replica has to have. It did so when it heard of the loss,
    /// which may be a while ago.
    fn granted(
        &mut self,
        number: u8,
        term: u8,
        to: u8,
        target: &RejoinTarget,
    ) -> Result<(), Trouble> {
        self.leads_with(number, term, target.target)?;
        let receiver = &self.replicas[usize::from(to)];
        if receiver.epoch != Some(target.epoch) || self.state.node(number).term > term {
            return Ok(());
        }
        let index = self.place(target.target.index).ok_or(Trouble::Over("a long log"))?;
        if index == 0 {
            // Repeated, as a rule, for one that has it already.
            let old = self.state.node(to).recovering;
            return if old { Err(Trouble::Over("an old target")) } else { Ok(()) };
        }
        let last = self.term(target.target.term)?;
        if receiver.at_loss.get(&number).is_some_and(|(led, len)| *led == term && index < *len) {
            return Err(Trouble::Wrong("a target of before the loss".into()));
        }
        let grant = Message::Grant { term, to, index, last };
        if self.replicas[usize::from(to)].grants.insert(grant) {
            let action = Action::Grant(number, to);
            if self.enabled(&action) {
                self.count("Grant");
            }
            if self.state.node(to).recovering && self.state.node(to).term <= term {
                self.state.messages.insert(grant);
            }
        }
        Ok(())
    }

    /// Decided: as the leader by the rule, as a follower because the leader did.
    fn commits(&mut self, number: u8, upto: Index) -> Result<(), Trouble> {
        let index = self.place(upto).ok_or(Trouble::Over("a long log"))?;
        if index == 0 {
            return Ok(());
        }
        loop {
            let action = Action::Commit(number, index);
            if self.state.node(number).role == Role::Leader && self.enabled(&action) {
                self.take(&action);
                return Ok(());
            }
            // What is decided elsewhere may be applied before the own term is durable.
            let seen = self.replicas[usize::from(number)].last.as_ref();
            let term = seen.map_or(0, |view| view.log.at(index));
            let mut decided = self.state.committed.iter();
            if term > 0 && decided.any(|entry| entry.index == index && entry.term == term) {
                return Ok(());
            }
            if !self.advance(number)? {
                return Err(Trouble::Wrong(format!("it commits {index}, which is not decided")));
            }
        }
    }
}

/// The configuration that a message shows the sender to have.
fn shown_stamp(body: &Body) -> Option<ConfigStamp> {
    match body {
        Body::Scout { config, .. }
        | Body::Propose { config, .. }
        | Body::SyncRequest { config }
        | Body::Append { config, .. }
        | Body::Ack { config, .. } => Some(*config),
        Body::ScoutReply { newer, .. } | Body::Refused { newer } => {
            newer.as_ref().map(|config| config.stamp)
        }
        Body::SnapshotOffer { config, .. } => *config,
        _ => None,
    }
}
