//! Finds steps of the model that make a replica what its core is.

use super::{TraceChecker, Trouble, View, name, view::Standing};
use crate::protocol::{Action, Config, Log, Message, Role, State, only};
use std::collections::BTreeSet;

/// States looked at before a change counts as not explained.
const PATIENCE: usize = 300;

/// A snapshot is in the place of the log after its sender was deposed.
const LATE_SNAPSHOT: &str = "late snapshot";

/// One way to go, not yet followed further.
struct Path {
    distance: u32,
    steps: Vec<&'static str>,
    state: State,
}

impl TraceChecker {
    /// Lets the model follow the oldest change that is not durable yet. False when there is none.
    pub(super) fn advance(&mut self, number: u8) -> Result<bool, Trouble> {
        let Some(view) = self.replicas[usize::from(number)].pending.pop_front() else {
            return Ok(false);
        };
        let voted = self.replicas[usize::from(number)].votes.get(&view.term).copied();
        if voted.unwrap_or(view.vote) != view.vote {
            return Err(Trouble::Wrong(format!("a second vote in term {}", view.term)));
        }
        let Some(path) = self.search(number, &view) else {
            return Err(Trouble::Wrong(format!("no steps of the model lead to {view:?}")));
        };
        let Path { state, steps, .. } = path;
        if steps.contains(&LATE_SNAPSHOT) {
            let before = self.state.node(number).log;
            self.replicas[usize::from(number)].replaced = Some((view.term, before));
        }
        self.state = state;
        for step in steps {
            if step == "Campaign" || step == "Order" {
                let config = self.standing_config(number, view.term);
                self.stood.insert((view.term, number), config);
            }
            self.count(step);
        }
        self.seen.insert(view.term);
        let replica = &mut self.replicas[usize::from(number)];
        replica.votes.insert(view.term, view.vote);
        replica.history = view.history;
        Ok(true)
    }

    /// The configuration that a candidate asked for votes with.
    fn standing_config(&self, number: u8, standing: u8) -> Config {
        let proposal = self.state.messages.iter().find_map(|message| match message {
            Message::Propose { term, from, config } if *term == standing && *from == number => {
                Some(*config)
            }
            _ => None,
        });
        proposal.unwrap_or_else(|| self.state.node(number).config)
    }

    /// The way that gets nearer fastest is followed first.
    fn search(&self, number: u8, view: &View) -> Option<Path> {
        let distance = view.distance(&self.state, number);
        let mut open = vec![Path { distance, steps: Vec::new(), state: self.state.clone() }];
        let mut known = BTreeSet::new();
        for _ in 0..PATIENCE {
            let at =
                (0..open.len()).min_by_key(|at| (open[*at].distance, open[*at].steps.len()))?;
            let path = open.swap_remove(at);
            if path.distance == 0 {
                return Some(path);
            }
            for (step, state) in self.moves(&path.state, number, view) {
                let node = state.node(number);
                let beyond = node.term > view.term || node.config.stamp() > view.config.stamp();
                if !beyond && known.insert(state.clone()) {
                    let mut steps = path.steps.clone();
                    steps.push(step);
                    open.push(Path { distance: view.distance(&state, number), steps, state });
                }
            }
        }
        None
    }

    /// What may have changed the replica. What it tells others is another matter: see `effects`.
    fn moves(&self, state: &State, number: u8, view: &View) -> Vec<(&'static str, State)> {
        let own = state.node(number);
        let replica = &self.replicas[usize::from(number)];
        let mut moves = Vec::new();
        if view.term > own.term {
            self.raise_term(state, number, view, &mut moves);
        }
        let mut enabled = Vec::new();
        self.protocol.actions_of(state, number, &mut enabled);
        let may_change = enabled.iter().any(|action| matches!(action, Action::Change(..)));
        let greatest = self.replicas.iter().map(|replica| replica.history).max();
        for action in enabled {
            let take = match &action {
                Action::TakeAppend(..) => {
                    moves.push((name(&action), self.take_append_silently(state, &action)));
                    continue;
                }
                // The history number tells which of the two it was.
                Action::Fork(_) => {
                    if view.history > replica.history {
                        self.fork(state, number, &mut moves);
                    }
                    false
                }
                Action::FinishSync(..) => Some(view.history) <= greatest,
                Action::BecomeReady(_)
                | Action::FetchPart(..)
                | Action::Propose(_)
                | Action::TakeGrant(..)
                | Action::Learn(..)
                | Action::DropDead(_) => true,
                _ => false,
            };
            if take {
                moves.push((name(&action), self.protocol.take(state, &action)));
            }
        }
        if may_change {
            self.change(state, number, view, &mut moves);
        }
        if view.log != own.log && replica.installed.contains(&view.log) {
            late_snapshot(state, number, view, &mut moves);
        }
        if own.role == Role::Candidate && state.is_elected(number) && view.log != own.log {
            fetch_before_fork(state, number, view, &mut moves);
        }
        moves
    }

    fn raise_term(
        &self,
        state: &State,
        number: u8,
        view: &View,
        moves: &mut Vec<(&'static str, State)>,
    ) {
        let own = state.node(number);
        let told = |term: u8| {
            let mut state = state.clone();
            let node = state.node_mut(number);
            (node.term, node.role) = (term, Role::Follower);
            ("told a term", state)
        };
        match view.vote {
            Some(candidate) if candidate != number => {
                let stood = self.stood.get(&(view.term, candidate));
                if stood.is_some_and(|config| config.stamp() >= own.config.stamp()) {
                    moves.push(told(view.term));
                }
            }
            Some(_) if view.ordered => {
                let order = self.replicas[usize::from(number)].order;
                let dead = order.map_or(0, |order| order.dead) & own.config.all();
                if own.config.is_voter(number) {
                    let mut state = self.protocol.take(state, &Action::Order(number, dead));
                    rename_newest(&mut state, number, view.term);
                    moves.push(("Order", state));
                }
            }
            Some(_) => {
                let before = view.term - 1;
                if own.term < before && self.seen.contains(&before) {
                    moves.push(told(before));
                }
                // An order is void once somebody led, or history moved on.
                let mut state = state.clone();
                state.node_mut(number).order = 0;
                let campaign = Action::Campaign(number);
                let mut enabled = Vec::new();
                self.protocol.actions_of(&state, number, &mut enabled);
                if enabled.contains(&campaign) {
                    moves.push((name(&campaign), self.protocol.take(&state, &campaign)));
                }
            }
            None if self.seen.contains(&view.term) => moves.push(told(view.term)),
            None => {}
        }
    }

    /// Takes entries; the acknowledgement is another step, once they are written.
    fn take_append_silently(&self, state: &State, action: &Action) -> State {
        let number = action.actor();
        let mut next = self.protocol.take(state, action);
        let own =
            |message: &&Message| matches!(message, Message::Ack { from, .. } if *from == number);
        next.messages.retain(|message| !own(&message));
        let nodes = &next.nodes;
        let useful = |message: &&Message| match message {
            Message::Ack { term, to, .. } => {
                let leader = &nodes[usize::from(*to)];
                leader.role == Role::Leader && leader.term == *term
            }
            _ => false,
        };
        next.messages.extend(state.messages.iter().filter(own).filter(useful).copied());
        next
    }

    /// The model lists changes by one voter, and joint ones of more. The real core may also go
    /// through a joint configuration for one, and counts learners in the version.
    fn change(
        &self,
        state: &State,
        number: u8,
        view: &View,
        moves: &mut Vec<(&'static str, State)>,
    ) {
        let (own, next) = (state.node(number).config, view.config);
        let stamped = next.term == own.term && next.version == own.version.wrapping_add(1);
        let moved = (next.voters ^ own.voters).count_ones();
        let stays = next.voters & only(number) != 0;
        let step = match (own.outgoing, next.outgoing) {
            (0, 0) if moved == 0 => "learners changed",
            (0, 0) if moved == 1 && stays => "Change",
            (0, outgoing) if outgoing == own.voters && moved > 0 => "Change",
            (_, 0) if moved == 0 && stays && own.outgoing != 0 => "Change",
            _ => return,
        };
        if stamped {
            moves.push((step, self.protocol.take(state, &Action::Change(number, next))));
        }
    }

    /// The best of all answers is taken. Of somebody who lost more since it first answered, the
    /// leader may have either answer.
    fn fork(&self, state: &State, number: u8, moves: &mut Vec<(&'static str, State)>) {
        let term = state.node(number).term;
        let answer = |message: &Message| match message {
            Message::Reply { term: t, from, to, .. } if *t == term && *to == number => Some(*from),
            _ => None,
        };
        let mut variants = vec![state.clone()];
        for peer in 0..state.nodes.len() as u8 {
            let mine: Vec<Message> =
                state.messages.iter().filter(|m| answer(m) == Some(peer)).copied().collect();
            if mine.len() > 1 {
                let keep = |state: &State, kept: &Message| {
                    let mut state = state.clone();
                    state.messages.retain(|m| answer(m) != Some(peer) || m == kept);
                    state
                };
                variants = variants
                    .iter()
                    .flat_map(|state| mine.iter().map(|kept| keep(state, kept)))
                    .collect();
            }
        }
        for state in variants {
            moves.push(("Fork", self.protocol.take(&state, &Action::Fork(number))));
        }
    }
}

/// What a snapshot stands for is decided, so it may come at any time.
fn late_snapshot(state: &State, number: u8, view: &View, moves: &mut Vec<(&'static str, State)>) {
    let decided = |index: u8| {
        let term = view.log.at(index);
        state.committed.iter().any(|entry| entry.index == index && entry.term == term)
    };
    if (1..=view.log.len()).all(decided) {
        moves.push((LATE_SNAPSHOT, with_log(state, number, view.log)));
    }
}

fn with_log(state: &State, number: u8, log: Log) -> State {
    let mut state = state.clone();
    let node = state.node_mut(number);
    if node.log.contradicts(&log) {
        node.versions.insert(node.log);
    }
    node.log = log;
    state
}

/// The model copies the log that a forced recovery chose at once.
fn fetch_before_fork(
    state: &State,
    number: u8,
    view: &View,
    moves: &mut Vec<(&'static str, State)>,
) {
    let own = state.node(number);
    if view.standing == Standing::Idle
        || !own.config.is_everyone(state.answered(number) | own.order)
    {
        return;
    }
    let bests: BTreeSet<Log> = state.answers(number).iter().map(|answer| answer.1).collect();
    let copied =
        |best: &Log| (1..=best.len()).any(|len| own.log.merge(&best.prefix(len)) == view.log);
    if bests.iter().any(copied) {
        moves.push(("fetched before a fork", with_log(state, number, view.log)));
    }
}

/// The model takes the next term that nobody is in, the real core one that the dead cannot know.
fn rename_newest(state: &mut State, number: u8, term: u8) {
    let newest = state.node(number).term;
    state.node_mut(number).term = term;
    let rename = |message: Message| match message {
        Message::Propose { term: t, from, config } if t == newest => {
            Message::Propose { term, from, config }
        }
        Message::Reply { term: t, from, to, log, recovering } if t == newest => {
            Message::Reply { term, from, to, log, recovering }
        }
        other => other,
    };
    state.messages = state.messages.iter().copied().map(rename).collect();
    if state.elected.remove(&(newest, number)) {
        state.elected.insert((term, number));
    }
}
