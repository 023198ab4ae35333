//! The protocol: a replicated log whose leader is elected irrespective of its log and then
//! synchronises from a quorum; entries are not fsynced, so a power loss takes a tail away.
//!
//! An entry is known by its index and term, a log is a list of terms. The network keeps every
//! message that can still have an effect: messages are lost (never handled), delayed, doubled and
//! reordered. Scouting, loyalty, cession and failure detection only decide when a node stands; here
//! every node may stand at any time. A process crash that keeps what was written is a node that
//! does nothing for a while and then stands or follows, so it is no step of its own.

mod action;
mod config;
mod enabled;
mod log;
mod properties;
mod rules;
mod script;
mod state;
mod steps;
mod symmetry;
mod walk;

pub use action::Action;
pub use config::{Config, Nodes, only};
pub use log::{Log, MAX_LEN};
pub use rules::{Bounds, Options, Shortcut};
pub use script::{ScriptEnd, deposed_change, failed_order};
pub use state::{Committed, Message, Node, Role, State};
pub use walk::{Walked, walk};

use stateright::{Model, Property};
use std::collections::BTreeSet;

/// One model to explore.
#[derive(Clone, Debug)]
pub struct Protocol {
    /// How far.
    pub bounds: Bounds,
    /// With what.
    pub options: Options,
    /// The rule to break.
    pub shortcut: Option<Shortcut>,
}

impl Protocol {
    /// The right protocol within these bounds.
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        let options = Options { symmetry: true, ..Options::default() };
        Self { bounds, options, shortcut: None }
    }

    /// The protocol with one rule broken.
    #[must_use]
    pub fn broken(bounds: Bounds, shortcut: Shortcut) -> Self {
        Self { shortcut: Some(shortcut), ..Self::new(bounds) }
    }

    fn breaks(&self, shortcut: Shortcut) -> bool {
        self.shortcut == Some(shortcut)
    }

    /// True when members may change or leave, so that the register matters.
    fn has_changes(&self) -> bool {
        self.bounds.changes > 0 || self.bounds.dead > 0
    }

    /// The only state to start from.
    #[must_use]
    pub fn first_state(&self) -> State {
        let Bounds { nodes, voters, candidates, .. } = self.bounds;
        let config = Config { voters: only(voters) - 1, ..Config::default() };
        let node = |number: u8| Node {
            term: 0,
            config,
            role: Role::Follower,
            log: Log::default(),
            recovering: false,
            need: 0,
            versions: BTreeSet::new(),
            stands: number < candidates,
            witness: self.breaks(Shortcut::WitnessAcks) && number + 1 == voters,
            order: 0,
        };
        let state = State {
            nodes: (0..nodes).map(node).collect(),
            messages: BTreeSet::new(),
            committed: BTreeSet::new(),
            elected: BTreeSet::new(),
            configs: BTreeSet::new(),
            losses: 0,
            changes: 0,
            forks: 0,
            bad_fork: false,
            dead: 0,
        };
        if self.options.symmetry { symmetry::canonical(&state) } else { state }
    }
}

impl Model for Protocol {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![self.first_state()]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for node in 0..self.bounds.nodes {
            self.actions_of(state, node, actions);
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let next = self.take(state, &action);
        (next != *state).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        self.all_properties()
    }
}
