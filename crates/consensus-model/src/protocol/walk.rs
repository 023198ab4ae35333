//! Random walks: no memory of visited states, so that far larger bounds can be sampled.

use super::script::violated;
use super::{Action, Protocol, State};
use stateright::Model;

/// What a number of walks found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Walked {
    /// Steps taken.
    pub steps: u64,
    /// Leaders that became ready.
    pub leaders: u64,
    /// Commits.
    pub commits: u64,
    /// Changes of members.
    pub changes: u64,
    /// Forced recoveries.
    pub forks: u64,
    /// The property that failed, with all steps that led there.
    pub violated: Option<(&'static str, Vec<(Action, State)>)>,
}

/// A small seeded generator (xorshift): walks need no more.
struct Draws(u64);

impl Draws {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % bound
    }
}

/// Takes one walk of at most this many steps, decided by the seed. Call it with successive seeds.
pub fn walk(model: &Protocol, seed: u64, depth: u64, walked: &mut Walked) {
    let mut draws = Draws(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    for _ in 0..8 {
        draws.below(2);
    }
    let mut state = model.first_state();
    let mut trace = Vec::new();
    for _ in 0..depth {
        let mut actions = Vec::new();
        model.actions(&state, &mut actions);
        let weights = actions.iter().map(weight);
        if actions.is_empty() {
            return;
        }
        let mut drawn = draws.below(weights.clone().sum());
        let chosen = weights.zip(&actions).find(|(weight, _)| {
            let here = drawn < *weight;
            drawn = drawn.saturating_sub(*weight);
            here
        });
        let Some((_, action)) = chosen else { return };
        state = model.take(&state, action);
        walked.steps += 1;
        match action {
            Action::Commit(..) => walked.commits += 1,
            Action::BecomeReady(_) => walked.leaders += 1,
            Action::Change(..) | Action::DropDead(_) => walked.changes += 1,
            Action::Fork(_) => walked.forks += 1,
            _ => {}
        }
        trace.push((action.clone(), state.clone()));
        if let Some(property) = violated(model, &state) {
            walked.violated = Some((property, trace));
            return;
        }
    }
}

/// Steps that bring a group forward are taken more often than those that throw it back.
fn weight(action: &Action) -> u64 {
    match action {
        Action::Lose(..) | Action::Order(..) => 1,
        Action::Campaign(_) | Action::Fork(_) | Action::FetchPart(..) => 2,
        Action::Vote(..) | Action::TakeGrant(..) => 10,
        Action::FinishSync(..)
        | Action::BecomeReady(_)
        | Action::Commit(..)
        | Action::Change(..)
        | Action::DropDead(_) => 20,
        _ => 6,
    }
}
