//! Random walks: no memory of visited states, so that far larger bounds can be sampled.

use super::{Action, Protocol, State};
use crate::search::walk_once;

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

/// Takes one walk of at most this many steps, decided by the seed. Call it with successive seeds.
pub fn walk(model: &Protocol, seed: u64, depth: u64, walked: &mut Walked) {
    let found = walk_once(model, seed, depth, weight, |action| {
        walked.steps += 1;
        match action {
            Action::Commit(..) => walked.commits += 1,
            Action::BecomeReady(_) => walked.leaders += 1,
            Action::Change(..) | Action::DropDead(_) => walked.changes += 1,
            Action::Fork(_) => walked.forks += 1,
            _ => {}
        }
    });
    if found.is_some() {
        walked.violated = found;
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
