//! What each step changes.

use super::{
    Action, Committed, Config, Log, Message, Protocol, Role, Shortcut, State, only, symmetry,
};

impl Protocol {
    /// The state after this step, in its canonical form where symmetry is used.
    #[must_use]
    pub fn take(&self, state: &State, action: &Action) -> State {
        let mut next = state.clone();
        self.apply(&mut next, action);
        self.forget(&mut next);
        if self.options.symmetry { symmetry::canonical(&next) } else { next }
    }

    fn apply(&self, state: &mut State, action: &Action) {
        match action {
            Action::Campaign(node) => {
                let term = self.next_term(state, *node);
                self.campaign(state, *node, term);
            }
            Action::Order(node, dead) => {
                state.dead |= dead;
                state.node_mut(*node).order = *dead;
                // Also when it was elected already: the dead may have voted for another since.
                let term = self.ordered_term(state, *node);
                self.campaign(state, *node, term);
            }
            Action::Vote(node, Message::Propose { term, from, config }) => {
                self.answer(state, *node, *term, *from);
                let order = state.node(*from).order;
                let voted = voters(state, *term, *from);
                let won = if order == 0 {
                    config.is_quorum(voted)
                } else {
                    config.is_everyone(voted | order)
                };
                if won {
                    state.elected.insert((*term, *from));
                }
            }
            Action::AnswerSync(node, leader) => {
                let term = state.node(*leader).term;
                self.answer(state, *node, term, *leader);
            }
            Action::FinishSync(node, best) => self.finish_sync(state, *node, *best),
            Action::Fork(node) => self.fork(state, *node),
            Action::BecomeReady(node) => self.become_ready(state, *node),
            Action::FetchPart(node, log) => self.set_log(state, *node, *log),
            Action::Propose(node) => {
                let own = state.node_mut(*node);
                own.log = own.log.push(own.term);
                let (term, log) = (own.term, own.log);
                state.messages.insert(Message::Append { term, from: *node, log });
            }
            Action::TakeAppend(node, Message::Append { term, from, log }, len) => {
                self.take_append(state, *node, *term, *from, &log.prefix(*len));
            }
            Action::Commit(node, index) => commit(state, *node, *index),
            Action::Lose(node, log, term) => {
                state.losses += 1;
                let own = state.node_mut(*node);
                (own.log, own.term, own.role) = (*log, *term, Role::Follower);
                own.recovering = !self.breaks(Shortcut::LossUndetected) && !own.witness;
                own.order = 0;
                if !self.breaks(Shortcut::GrantWithoutEpoch) {
                    state
                        .messages
                        .retain(|m| !matches!(m, Message::Grant { to, .. } if to == node));
                }
            }
            Action::Grant(node, to) => {
                let own = state.node(*node);
                let (term, index, last) = (own.term, own.log.len(), own.log.last_term());
                state.messages.insert(Message::Grant { term, to: *to, index, last });
            }
            Action::TakeGrant(node, Message::Grant { term, .. }) => {
                let own = state.node_mut(*node);
                own.recovering = false;
                if *term > own.term {
                    (own.term, own.role) = (*term, Role::Follower);
                }
            }
            Action::TakePeerLog(node, peer) => {
                let (term, log) = (state.node(*peer).term, state.node(*peer).log);
                let own = state.node_mut(*node);
                own.log = own.log.merge(&log);
                (own.recovering, own.term, own.role) = (false, term, Role::Follower);
            }
            Action::Learn(node, config) => {
                let own = state.node_mut(*node);
                own.config = *config;
                own.term = own.term.max(config.term);
                own.role = Role::Follower;
            }
            Action::AckConfig(node, leader) => {
                let (term, config) = (state.node(*leader).term, state.node(*leader).config);
                let own = state.node_mut(*node);
                (own.term, own.config, own.role) = (term, config, Role::Follower);
                let (from, to) = (*node, *leader);
                state.messages.insert(Message::ConfigAck { term, from, to, config });
            }
            Action::Change(node, config) => {
                state.changes += 1;
                self.enter(state, *node, *config);
            }
            Action::DropDead(node) => {
                let own = state.node_mut(*node);
                let config = own.config.without(own.order);
                own.order = 0;
                self.enter(state, *node, config);
            }
            // Only messages of the kinds above are in these actions.
            Action::Vote(..) | Action::TakeAppend(..) | Action::TakeGrant(..) => {}
        }
    }

    fn campaign(&self, state: &mut State, node: u8, term: u8) {
        let own = state.node_mut(node);
        (own.term, own.role) = (term, Role::Candidate);
        let (config, log, recovering, order) = (own.config, own.log, own.recovering, own.order);
        state.messages.insert(Message::Propose { term, from: node, config });
        state.messages.insert(Message::Reply { term, from: node, to: node, log, recovering });
        let alone = if order == 0 {
            config.is_quorum(only(node))
        } else {
            config.is_everyone(only(node) | order)
        };
        if alone {
            state.elected.insert((term, node));
        }
    }

    /// Durably in the term, so that the answer is final.
    fn answer(&self, state: &mut State, node: u8, term: u8, to: u8) {
        let own = state.node_mut(node);
        (own.term, own.role) = (term, Role::Follower);
        let (log, recovering) = (own.log, own.recovering);
        state.messages.insert(Message::Reply { term, from: node, to, log, recovering });
    }

    fn finish_sync(&self, state: &mut State, node: u8, best: Log) {
        self.set_log(state, node, best);
        let (restamp, changes) = (!self.breaks(Shortcut::NoRestamp), self.has_changes());
        let own = state.node_mut(node);
        own.role = Role::Finishing;
        if changes && restamp {
            own.config.term = own.term;
            let config = own.config;
            state.configs.insert(config);
        }
    }

    /// Everybody who is not dead answered, whatever its state: the best of all. What survived
    /// nowhere is gone; from here on the promise is about what is chosen.
    fn fork(&self, state: &mut State, node: u8) {
        let answers = state.answers(node);
        let best = answers.iter().map(|answer| answer.1).max_by_key(Log::rank).unwrap_or_default();
        let survives = |entry: &Committed| answers.iter().any(|answer| answer.1.holds(entry));
        state.bad_fork |= state.committed.iter().any(|e| survives(e) && !best.holds(e));
        state.committed.retain(|entry| best.holds(entry));
        state.forks += 1;
        self.finish_sync(state, node, best);
        if self.breaks(Shortcut::ForceDropsFirst) {
            let own = state.node_mut(node);
            let mut config = own.config.without(own.order);
            own.order = 0;
            config.version += 1;
            own.config = config;
            state.configs.insert(config);
        }
    }

    fn become_ready(&self, state: &mut State, node: u8) {
        let log = state.node(node).log.push(state.node(node).term);
        let own = state.node_mut(node);
        (own.log, own.need) = (log, log.len());
        (own.role, own.recovering) = (Role::Leader, false);
        let term = own.term;
        state.messages.insert(Message::Append { term, from: node, log });
    }

    fn take_append(&self, state: &mut State, node: u8, term: u8, from: u8, sent: &Log) {
        let new = state.node(node).log.merge(sent);
        if !state.node(node).witness {
            self.set_log(state, node, new);
        }
        let unverified = self.breaks(Shortcut::AckUnverified);
        let own = state.node_mut(node);
        (own.term, own.role) = (term, Role::Follower);
        if self.breaks(Shortcut::RejoinOnContact) {
            own.recovering = false;
        }
        let index = if unverified { own.log.len() } else { sent.len() };
        let counts = !own.recovering || !self.options.ignore_recovering;
        if counts && index > 0 {
            state.messages.insert(Message::Ack { term, from: node, to: from, index });
        }
    }

    fn set_log(&self, state: &mut State, node: u8, log: Log) {
        let own = state.node_mut(node);
        if self.options.versions && own.log.contradicts(&log) {
            own.versions.insert(own.log);
        }
        own.log = log;
    }

    /// The next configuration of a Ready leader. What it committed has to be there again before the
    /// one after it.
    fn enter(&self, state: &mut State, node: u8, config: Config) {
        let term = state.node(node).term;
        let top = state.committed.iter().filter(|e| e.by == term).map(|e| e.index).max();
        let own = state.node_mut(node);
        own.config = Config { term, version: own.config.version + 1, ..config };
        own.need = own.need.max(top.unwrap_or(0));
        let config = own.config;
        state.configs.insert(config);
    }

    /// Drops messages that can have no effect any more, and those that a stronger one replaces.
    fn forget(&self, state: &mut State) {
        let changes = self.has_changes();
        for node in &mut state.nodes {
            if node.role != Role::Leader || !changes {
                node.need = 0;
            }
        }
        let nodes = &state.nodes;
        let at = |node: u8| &nodes[usize::from(node)];
        let useful = |message: &Message| match message {
            Message::Propose { term, from, .. } => {
                at(*from).role == Role::Candidate && at(*from).term == *term
            }
            Message::Reply { term, to, .. } => {
                at(*to).role == Role::Candidate && at(*to).term == *term
            }
            Message::Append { term, from, .. } => nodes
                .iter()
                .enumerate()
                .any(|(number, node)| number != usize::from(*from) && node.term <= *term),
            Message::Ack { term, to, .. } => {
                self.breaks(Shortcut::CountOldAcks)
                    || at(*to).role == Role::Leader && at(*to).term == *term
            }
            Message::ConfigAck { term, to, config, .. } => {
                let to = at(*to);
                to.role == Role::Leader && to.term == *term && to.config == *config
            }
            Message::Grant { term, to, .. } => {
                (at(*to).recovering || self.breaks(Shortcut::GrantWithoutEpoch))
                    && (at(*to).term <= *term || self.breaks(Shortcut::GrantOfOlderTerm))
            }
        };
        let all: Vec<Message> = state.messages.iter().copied().filter(useful).collect();
        let weaker = |message: &Message| all.iter().any(|other| is_stronger(other, message));
        state.messages = all.iter().filter(|message| !weaker(message)).copied().collect();
        // Configurations that nobody would adopt any more.
        let least = nodes.iter().map(|node| node.config.stamp()).min().unwrap_or_default();
        state.configs.retain(|config| config.stamp() > least);
    }
}

fn is_stronger(one: &Message, other: &Message) -> bool {
    match (one, other) {
        (
            Message::Append { term, from, log },
            Message::Append { term: other_term, from: other_from, log: other_log },
        ) => term == other_term && from == other_from && log.len() > other_log.len(),
        (
            Message::Ack { term, from, to, index },
            Message::Ack { term: other_term, from: other_from, to: other_to, index: other_index },
        ) => term == other_term && from == other_from && to == other_to && index > other_index,
        _ => false,
    }
}

fn voters(state: &State, term: u8, candidate: u8) -> u8 {
    state.messages.iter().fold(0, |who, message| match message {
        Message::Reply { term: t, from, to, .. } if *t == term && *to == candidate => {
            who | only(*from)
        }
        _ => who,
    })
}

fn commit(state: &mut State, node: u8, index: u8) {
    let own = state.node(node);
    let (by, log) = (own.term, own.log);
    for index in 1..=index {
        let term = log.at(index);
        if !state.committed.iter().any(|e| e.index == index && e.term == term && e.by <= by) {
            state.committed.insert(Committed { index, term, by });
        }
    }
}
