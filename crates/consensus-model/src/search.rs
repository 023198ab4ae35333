//! Runs a model and tells what was found.

use stateright::{Checker, Expectation, HasDiscoveries, Model};
use std::collections::BTreeSet;
use std::fmt;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// How much a search may cost.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Threads.
    pub threads: usize,
    /// Time after which the search is given up.
    pub time: Duration,
    /// States, repeated ones too, after which it is given up; that bounds the memory.
    pub states: usize,
}

impl Default for Effort {
    fn default() -> Self {
        Self { threads: 1, time: Duration::from_secs(3600), states: 1_000_000_000 }
    }
}

/// States on the way to what was found, each with the step taken from it.
pub type Way<S, A> = Vec<(S, Option<A>)>;

/// What a search found.
#[derive(Clone, Debug)]
pub struct Found<S, A> {
    /// The property that failed, with a shortest way there.
    pub violated: Option<(&'static str, Way<S, A>)>,
    /// States that should be reachable and were reached.
    pub reached: BTreeSet<&'static str>,
    /// True when every reachable state was seen.
    pub exhaustive: bool,
    /// Distinct states.
    pub distinct: usize,
    /// States, repeated ones too.
    pub generated: usize,
    /// Steps of the longest shortest way.
    pub depth: usize,
    /// How long it took.
    pub took: Duration,
}

impl<S, A> Found<S, A> {
    /// The name of what failed.
    #[must_use]
    pub fn property(&self) -> Option<&'static str> {
        self.violated.as_ref().map(|(name, _)| *name)
    }
}

impl<S, A> fmt::Display for Found<S, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.violated {
            Some((name, way)) => write!(f, "VIOLATED {name} in {} steps", way.len() - 1)?,
            None if self.exhaustive => write!(f, "holds")?,
            None => write!(f, "holds as far as explored")?,
        }
        write!(
            f,
            " | distinct {} | generated {} | depth {} | {:.1} s",
            self.distinct,
            self.generated,
            self.depth,
            self.took.as_secs_f64()
        )?;
        for reached in &self.reached {
            write!(f, " | reached: {reached}")?;
        }
        Ok(())
    }
}

/// Explores breadth first, so that what is found is found on a shortest way.
pub fn search<M>(model: M, effort: Effort) -> Found<M::State, M::Action>
where
    M: Model + Send + Sync + 'static,
    M::State: Hash + Send + Sync + Clone + fmt::Debug + PartialEq,
    M::Action: Clone + PartialEq + fmt::Debug,
{
    let start = Instant::now();
    let goals: BTreeSet<&'static str> = model
        .properties()
        .iter()
        .filter(|property| property.expectation == Expectation::Sometimes)
        .map(|property| property.name)
        .collect();
    let checker = model
        .checker()
        .threads(effort.threads)
        .timeout(effort.time)
        .target_state_count(effort.states)
        .finish_when(HasDiscoveries::AnyFailures)
        .spawn_bfs()
        .join();
    let took = start.elapsed();
    let mut reached = BTreeSet::new();
    let mut violated = None;
    for (name, way) in checker.discoveries() {
        if goals.contains(name) {
            reached.insert(name);
        } else {
            violated = Some((name, way.into_vec()));
        }
    }
    Found {
        exhaustive: violated.is_none()
            && checker.is_done()
            && took < effort.time
            && checker.state_count() < effort.states,
        violated,
        reached,
        distinct: checker.unique_state_count(),
        generated: checker.state_count(),
        depth: checker.max_depth(),
        took,
    }
}

/// The first property that must always hold and does not.
pub fn violated<M: Model>(model: &M, state: &M::State) -> Option<&'static str> {
    let mut broken = model.properties().into_iter().filter(|property| {
        property.expectation == Expectation::Always && !(property.condition)(model, state)
    });
    broken.next().map(|property| property.name)
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

/// What a walk found: the property that failed, and each step with the state after it.
pub type Stumble<S, A> = (&'static str, Vec<(A, S)>);

/// One random walk of at most this many steps, decided by the seed: no memory of visited states, so
/// that far larger bounds can be sampled. Actions are drawn by their weight.
pub fn walk_once<M>(
    model: &M,
    seed: u64,
    depth: u64,
    weight: impl Fn(&M::Action) -> u64,
    mut taken: impl FnMut(&M::Action),
) -> Option<Stumble<M::State, M::Action>>
where
    M: Model,
    M::State: Clone,
    M::Action: Clone,
{
    let mut draws = Draws(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    for _ in 0..8 {
        draws.below(2);
    }
    let mut state = model.init_states().into_iter().next()?;
    let mut trace = Vec::new();
    // Most of what could happen changes nothing.
    for _ in 0..depth * 4 {
        if trace.len() as u64 == depth {
            break;
        }
        let mut actions = Vec::new();
        model.actions(&state, &mut actions);
        let total: u64 = actions.iter().map(&weight).sum();
        if total == 0 {
            break;
        }
        let mut drawn = draws.below(total);
        let chosen = actions.iter().find(|action| {
            let here = drawn < weight(action);
            drawn = drawn.saturating_sub(weight(action));
            here
        })?;
        let Some(next) = model.next_state(&state, chosen.clone()) else { continue };
        taken(chosen);
        state = next;
        trace.push((chosen.clone(), state.clone()));
        if let Some(property) = violated(model, &state) {
            return Some((property, trace));
        }
    }
    None
}
