//! A counterexample too deep for a search, step by step.

use super::{Action, Bounds, Message, Protocol, Shortcut, State};
use crate::search::violated;
use stateright::Model;

/// How a script ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScriptEnd {
    /// This property failed after this step.
    Violated {
        /// Counted from 1.
        step: usize,
        /// Its name.
        property: &'static str,
    },
    /// The protocol does not allow this step.
    Refused {
        /// Counted from 1.
        step: usize,
    },
    /// All steps were taken, nothing was violated.
    Finished,
}

enum Step {
    /// Stands until it is in this term.
    Campaign(u8, u8),
    Vote(u8, u8, u8),
    FinishSync(u8),
    Ready(u8),
    Append(u8, u8, u8),
    AckConfig(u8, u8),
    Change(u8, u8),
    Learn(u8, u8),
    Propose(u8),
    Commit(u8, u8),
    /// A power loss after which this much of the log is left.
    Lose(u8, u8),
    Order(u8, u8),
    Fork(u8),
}

impl Step {
    fn is(&self, action: &Action) -> bool {
        match (self, action) {
            (Self::Campaign(node, _), Action::Campaign(x))
            | (Self::FinishSync(node), Action::FinishSync(x, _))
            | (Self::Ready(node), Action::BecomeReady(x))
            | (Self::Propose(node), Action::Propose(x)) => node == x,
            (Self::Vote(node, whom, in_term), Action::Vote(x, message)) => {
                matches!(message, Message::Propose { term, from, .. }
                    if node == x && from == whom && term == in_term)
            }
            (Self::Append(node, leader, len), Action::TakeAppend(x, message, k)) => {
                matches!(message, Message::Append { from, .. }
                    if node == x && from == leader && k == len)
            }
            (Self::AckConfig(node, to), Action::AckConfig(x, y)) => node == x && to == y,
            (Self::Change(node, voters), Action::Change(x, config))
            | (Self::Learn(node, voters), Action::Learn(x, config)) => {
                node == x && config.voters == *voters
            }
            (Self::Commit(node, index), Action::Commit(x, k)) => node == x && index == k,
            (Self::Lose(node, len), Action::Lose(x, log, _)) => node == x && *len == log.len(),
            (Self::Order(node, dead), Action::Order(x, named)) => node == x && dead == named,
            (Self::Fork(node), Action::Fork(x)) => node == x,
            _ => false,
        }
    }
}

/// Ongaro's counterexample of 2015 to changes of single members, in this protocol (W15): a change
/// of term 1 is known to its leader only, another is committed in term 2, and a leader of term 3 is
/// elected with the first. Without the re-stamp (C3) it runs to a lost entry; with it, node 3
/// refuses its last vote.
#[must_use]
pub fn deposed_change(shortcut: Option<Shortcut>) -> ScriptEnd {
    use Step::*;
    let script = [
        // Term 1: node 0 leads 0 to 3 and adds 4, of which nobody else hears.
        Campaign(0, 1),
        Vote(2, 0, 1),
        Vote(3, 0, 1),
        FinishSync(0),
        Ready(0),
        Append(2, 0, 1),
        Append(3, 0, 1),
        AckConfig(2, 0),
        AckConfig(3, 0),
        Change(0, 0b11111),
        // Term 2: node 1 leads 0 to 3, commits, removes 0, commits index 3 with 1 and 2.
        Learn(1, 0b01111),
        Campaign(1, 2),
        Vote(2, 1, 2),
        Vote(3, 1, 2),
        FinishSync(1),
        Ready(1),
        Append(2, 1, 2),
        Append(3, 1, 2),
        Commit(1, 2),
        AckConfig(2, 1),
        AckConfig(3, 1),
        Change(1, 0b01110),
        Propose(1),
        Append(2, 1, 3),
        Commit(1, 3),
        // Term 3: node 0 stands with its configuration of term 1.
        Learn(4, 0b11111),
        Campaign(0, 3),
        Vote(4, 0, 3),
        Vote(3, 0, 3),
        FinishSync(0),
        Ready(0),
    ];
    let bounds = Bounds {
        nodes: 5,
        voters: 4,
        terms: 3,
        len: 3,
        losses: 0,
        changes: 2,
        ..Bounds::default()
    };
    let mut model = Protocol::new(bounds);
    model.options.symmetry = false;
    model.shortcut = shortcut;
    run(&model, &script)
}

/// The operator's order: five nodes, an entry acknowledged by 0, 3 and 4; 3 and 4 are gone, and 0
/// lost power but still has the entry. It goes on without them, and fails at once. If the dead have
/// left the configuration by then, 1 and 2 are a majority that never heard of the entry.
#[must_use]
pub fn failed_order(shortcut: Option<Shortcut>) -> ScriptEnd {
    use Step::*;
    let script = [
        Campaign(0, 1),
        Vote(3, 0, 1),
        Vote(4, 0, 1),
        FinishSync(0),
        Ready(0),
        Append(3, 0, 1),
        Append(4, 0, 1),
        Commit(0, 1),
        Lose(0, 1),
        Order(0, 0b11000),
        Vote(1, 0, 2),
        Vote(2, 0, 2),
        Fork(0),
        Ready(0),
        Learn(1, 0b00111),
        Campaign(1, 3),
        Vote(2, 1, 3),
        FinishSync(1),
        Ready(1),
    ];
    let bounds =
        Bounds { nodes: 5, voters: 5, terms: 3, losses: 1, forks: 1, dead: 2, ..Bounds::default() };
    let mut model = Protocol::new(bounds);
    model.options.symmetry = false;
    model.shortcut = shortcut;
    run(&model, &script)
}

fn run(model: &Protocol, script: &[Step]) -> ScriptEnd {
    let mut state = model.first_state();
    for (at, step) in script.iter().enumerate() {
        let take = |state: &mut State| {
            let mut actions = Vec::new();
            model.actions(state, &mut actions);
            let action = actions.iter().find(|action| step.is(action));
            action.map(|action| *state = model.take(state, action)).is_some()
        };
        let taken = match step {
            Step::Campaign(node, term) => {
                while state.node(*node).term < *term && take(&mut state) {}
                state.node(*node).term == *term
            }
            // There may be nothing to learn.
            Step::Learn(..) => {
                take(&mut state);
                true
            }
            _ => take(&mut state),
        };
        if !taken {
            return ScriptEnd::Refused { step: at + 1 };
        }
        if let Some(property) = violated(model, &state) {
            return ScriptEnd::Violated { step: at + 1, property };
        }
    }
    ScriptEnd::Finished
}
