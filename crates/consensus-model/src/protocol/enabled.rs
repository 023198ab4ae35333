//! Which steps a node may take.

use super::{Action, Bounds, Config, Log, Message, Nodes, Protocol, Role, Shortcut, State, only};
use std::collections::BTreeSet;

impl Protocol {
    /// Adds the steps that this node may take.
    pub(crate) fn actions_of(&self, state: &State, node: u8, actions: &mut Vec<Action>) {
        if state.dead & only(node) != 0 && !self.breaks(Shortcut::DeadGoOn) {
            return;
        }
        self.may_stand(state, node, actions);
        self.may_receive(state, node, actions);
        for peer in (0..self.bounds.nodes).filter(|peer| *peer != node) {
            self.may_turn_to(state, node, peer, actions);
        }
        let own = state.node(node);
        for config in &state.configs {
            let leads = own.role == Role::Leader && config.term <= own.term;
            if config.stamp() > own.config.stamp() && !leads {
                actions.push(Action::Learn(node, *config));
            }
        }
        self.may_lose(state, node, actions);
        match own.role {
            Role::Candidate if state.is_elected(node) => self.may_sync(state, node, actions),
            Role::Finishing => {
                if own.log.len() < self.bounds.len {
                    actions.push(Action::BecomeReady(node));
                }
            }
            Role::Leader => self.may_lead(state, node, actions),
            Role::Follower | Role::Candidate => {}
        }
    }

    fn may_stand(&self, state: &State, node: u8, actions: &mut Vec<Action>) {
        let own = state.node(node);
        if !own.stands || !own.config.is_voter(node) {
            return;
        }
        if self.next_term(state, node) <= self.bounds.terms {
            actions.push(Action::Campaign(node));
        }
        if self.bounds.dead == 0
            || own.order != 0
            || own.role == Role::Leader
            || state.forks >= self.bounds.forks
            || self.ordered_term(state, node) > self.bounds.terms
        {
            return;
        }
        // One order, to any number of nodes.
        let all = only(self.bounds.nodes).wrapping_sub(1);
        for dead in 1..=all {
            let named = if state.dead == 0 {
                dead.count_ones() <= u32::from(self.bounds.dead)
            } else {
                dead == state.dead
            };
            let fits = dead & own.config.all() == dead && dead & only(node) == 0;
            if named && fits {
                actions.push(Action::Order(node, dead));
            }
        }
    }

    /// The term that a node stands in by itself: under an order still one that the dead cannot have
    /// used.
    pub(super) fn next_term(&self, state: &State, node: u8) -> u8 {
        let own = state.node(node);
        let dead = (0..self.bounds.nodes).filter(|peer| own.order & only(*peer) != 0);
        let used = dead.map(|peer| state.node(peer).term).max().unwrap_or(0);
        if self.breaks(Shortcut::ForceInNextTerm) { 1 + own.term } else { 1 + own.term.max(used) }
    }

    /// The term that a node stands in when it takes the operator's order: one that nobody can have
    /// used. The real core skips as many terms as no group gets through; here it is known.
    pub(super) fn ordered_term(&self, state: &State, node: u8) -> u8 {
        if self.breaks(Shortcut::ForceInNextTerm) {
            self.next_term(state, node)
        } else {
            1 + state.nodes.iter().map(|node| node.term).max().unwrap_or(0)
        }
    }

    fn may_receive(&self, state: &State, node: u8, actions: &mut Vec<Action>) {
        let own = state.node(node);
        for message in &state.messages {
            match message {
                Message::Propose { term, from, config }
                    if *term > own.term
                        && *from != node
                        && (self.breaks(Shortcut::VoteForAnyConfig)
                            || config.stamp() >= own.config.stamp()) =>
                {
                    actions.push(Action::Vote(node, *message));
                }
                Message::Append { term, from, log } if *from != node && *term >= own.term => {
                    for len in 0..=log.len() {
                        let new = own.log.merge(&log.prefix(len));
                        let silent = len == 0 && !self.breaks(Shortcut::AckUnverified)
                            || own.recovering
                                && self.options.ignore_recovering
                                && !self.breaks(Shortcut::RejoinOnContact);
                        let idle = *term == own.term && own.role == Role::Follower && silent;
                        if new != own.log || !idle {
                            actions.push(Action::TakeAppend(node, *message, len));
                        }
                    }
                }
                Message::Grant { term, to, index, last }
                    if *to == node
                        && own.recovering
                        && (*term >= own.term || self.breaks(Shortcut::GrantOfOlderTerm))
                        && (self.breaks(Shortcut::RejoinWithoutLog)
                            || own.log.at(*index) == *last) =>
                {
                    actions.push(Action::TakeGrant(node, *message));
                }
                _ => {}
            }
        }
    }

    fn may_turn_to(&self, state: &State, node: u8, peer: u8, actions: &mut Vec<Action>) {
        let (own, other) = (state.node(node), state.node(peer));
        if other.role == Role::Candidate
            && state.is_elected(peer)
            && other.term >= own.term
            && state.answered(peer) & only(node) == 0
        {
            actions.push(Action::AnswerSync(node, peer));
        }
        let granting = own.role == Role::Leader
            || self.breaks(Shortcut::GrantWhileSyncing)
                && own.role == Role::Candidate
                && state.is_elected(node);
        if other.recovering
            && granting
            && !self.breaks(Shortcut::RejoinFromPeer)
            && !self.breaks(Shortcut::RejoinOnContact)
            && (own.term >= other.term || self.breaks(Shortcut::GrantOfOlderTerm))
            && !state.messages.iter().any(|message| {
                matches!(message, Message::Grant { term, to, index, .. }
                    if *to == peer && *term == own.term && *index <= own.log.len())
            })
        {
            actions.push(Action::Grant(node, peer));
        }
        if self.breaks(Shortcut::RejoinFromPeer)
            && own.recovering
            && !other.recovering
            && other.term >= own.term
        {
            actions.push(Action::TakePeerLog(node, peer));
        }
        if self.has_changes()
            && other.role == Role::Leader
            && other.term >= own.term
            && other.config.stamp() >= own.config.stamp()
            && self.config_held_by(state, peer) & only(node) == 0
        {
            actions.push(Action::AckConfig(node, peer));
        }
    }

    fn may_lose(&self, state: &State, node: u8, actions: &mut Vec<Action>) {
        if state.losses >= self.bounds.losses {
            return;
        }
        let own = state.node(node);
        let mut back_to = BTreeSet::new();
        for version in own.versions.iter().chain([&own.log]) {
            back_to.extend((0..=version.len()).map(|len| version.prefix(len)));
        }
        let lowest = if self.breaks(Shortcut::VolatileTerm) { 0 } else { own.term };
        for log in back_to {
            actions.extend((lowest..=own.term).map(|term| Action::Lose(node, log, term)));
        }
    }

    fn may_sync(&self, state: &State, node: u8, actions: &mut Vec<Action>) {
        let own = state.node(node);
        let Bounds { len, forks, .. } = self.bounds;
        let choices = if self.breaks(Shortcut::NoSync) {
            BTreeSet::from([own.log])
        } else {
            self.choices(state, node)
        };
        for best in choices {
            if best.len() < len {
                actions.push(Action::FinishSync(node, best));
            }
            if self.options.partial {
                let parts: BTreeSet<Log> =
                    (1..=best.len()).map(|len| own.log.merge(&best.prefix(len))).collect();
                let parts = parts.into_iter().filter(|part| *part != own.log);
                actions.extend(parts.map(|part| Action::FetchPart(node, part)));
            }
        }
        if state.forks < forks {
            let longest = state.answers(node).iter().map(|answer| answer.1.len()).max();
            let everyone = own.config.is_everyone(state.answered(node) | own.order);
            if everyone && longest.unwrap_or(0) < len {
                actions.push(Action::Fork(node));
            }
        }
    }

    /// Every log that the leader may choose: the best of some set of answers that has a quorum of
    /// nodes not recovering.
    fn choices(&self, state: &State, node: u8) -> BTreeSet<Log> {
        let answers = state.answers(node);
        let config = state.node(node).config;
        let rank = |log: &Log| {
            let (last, len) = log.rank();
            if self.breaks(Shortcut::ChooseLongest) { (len, last) } else { (last, len) }
        };
        let mut choices = BTreeSet::new();
        for set in 1u32..1 << answers.len() {
            let chosen = answers.iter().enumerate().filter(|(at, _)| set & (1 << at) != 0);
            let mut who: Nodes = 0;
            let mut best: Option<Log> = None;
            for (_, (from, log, recovering)) in chosen {
                if !recovering || self.breaks(Shortcut::RecoveringInSync) {
                    who |= only(*from);
                }
                if best.is_none_or(|best| rank(log) > rank(&best)) {
                    best = Some(*log);
                }
            }
            if config.is_quorum(who) {
                choices.extend(best);
            }
        }
        choices
    }

    fn may_lead(&self, state: &State, node: u8, actions: &mut Vec<Action>) {
        let own = state.node(node);
        if own.log.len() < self.bounds.len {
            actions.push(Action::Propose(node));
        }
        for index in 1..=own.log.len() {
            let counts = own.log.at(index) == own.term || self.breaks(Shortcut::CommitOldTerms);
            let news = || {
                (1..=index).any(|index| {
                    let term = own.log.at(index);
                    !state
                        .committed
                        .iter()
                        .any(|e| e.index == index && e.term == term && e.by <= own.term)
                })
            };
            if counts && own.config.is_quorum(self.acked_by(state, node, index)) && news() {
                actions.push(Action::Commit(node, index));
            }
        }
        if own.order != 0 && self.may_change(state, node, &own.config.without(own.order)) {
            actions.push(Action::DropDead(node));
        }
        if state.changes < self.bounds.changes && self.may_change(state, node, &own.config) {
            self.changes(node, &own.config, actions);
        }
    }

    /// C4's two conditions, with the quorums of `of`: a quorum holds exactly the leader's
    /// configuration in this term, and has what it ever committed, at least its barrier.
    fn may_change(&self, state: &State, node: u8, of: &Config) -> bool {
        let need = state.node(node).need;
        (self.breaks(Shortcut::ChangeBeforeConfig)
            || of.is_quorum(self.config_held_by(state, node)))
            && (self.breaks(Shortcut::ChangeBeforeLog)
                || of.is_quorum(self.acked_by(state, node, need)))
    }

    fn changes(&self, node: u8, config: &Config, actions: &mut Vec<Action>) {
        if config.outgoing != 0 {
            // Whoever leaves leads no more: another one completes the change.
            if config.voters & only(node) != 0 {
                actions.push(Action::Change(node, Config { outgoing: 0, ..*config }));
            }
            return;
        }
        let all = only(self.bounds.nodes).wrapping_sub(1);
        for voters in 1..=all {
            let step = (voters ^ config.voters).count_ones();
            let direct = step == 1 || step > 1 && self.breaks(Shortcut::ChangeWithoutJoint);
            if direct && voters & only(node) != 0 {
                actions.push(Action::Change(node, Config { voters, ..*config }));
            }
            if self.options.joint && step > 1 {
                let outgoing = config.voters;
                actions.push(Action::Change(node, Config { voters, outgoing, ..*config }));
            }
        }
    }

    /// Who has the leader's log up to here, as far as it was told.
    pub(super) fn acked_by(&self, state: &State, leader: u8, index: u8) -> Nodes {
        let own = state.node(leader);
        let old = self.breaks(Shortcut::CountOldAcks);
        state.messages.iter().fold(only(leader), |who, message| match message {
            Message::Ack { term, from, to, index: upto }
                if *to == leader
                    && *upto >= index
                    && (*term == own.term || old && *term < own.term) =>
            {
                who | only(*from)
            }
            _ => who,
        })
    }

    /// Who holds the leader's configuration in its term, as far as it was told.
    fn config_held_by(&self, state: &State, leader: u8) -> Nodes {
        let own = state.node(leader);
        state.messages.iter().fold(only(leader), |who, message| match message {
            Message::ConfigAck { term, from, to, config }
                if *to == leader && *term == own.term && *config == own.config =>
            {
                who | only(*from)
            }
            _ => who,
        })
    }
}
