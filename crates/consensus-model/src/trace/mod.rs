//! Replays what real cores do against the model: each change of a replica must be explained by a
//! few steps that the model would have let it take, and each message that promises something by
//! the step that makes the promise (docs/internals/verification.md#trace-validation).
//!
//! Finds a core that is too permissive, and one that does what the model does not know of. It is
//! independent of the checks of what must always be true, which only see the harm once it is done.
//!
//! What a core has changed but not fsynced may be gone after a crash, so the model follows a
//! replica only as far as its hard state is durable, or as far as what it says shows. Messages that
//! are lost in the real network simply remain unhandled in the model. Left out of the model, and
//! taken as they are: a term that a replica is told of, crashes of a process, learners, and a
//! forced recovery that copies the chosen log in pieces, and a snapshot that is installed only
//! after its sender was deposed (it holds nothing but decided entries).

mod effects;
mod explain;
mod mismatch;
mod names;
mod rebase;
mod restart;
mod view;

pub use mismatch::Mismatch;

use crate::protocol::{
    Action, Bounds, Config, Log, MAX_LEN, Message, Nodes, Options, Protocol, State,
};
use flintmq_consensus::{ConfigRegister, Core, Effect, Epoch, History, Index, NodeId, Role};
use names::Names;
use stateright::{Expectation, Model};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use view::View;

/// Follows the replicas of one group in the model.
#[derive(Clone, Debug)]
pub struct TraceChecker {
    /// Everything but power losses.
    protocol: Protocol,
    /// With power losses.
    losing: Protocol,
    state: State,
    names: Names,
    replicas: Vec<Replica>,
    /// Of members to be, until they are told of another.
    first_config: Config,
    /// Entries up to here are cut off in the model: all have them, or will.
    base: Index,
    /// The term of the last of them.
    base_term: u8,
    /// Terms that somebody is or was in.
    seen: BTreeSet<u8>,
    /// Who stood in which term, with which configuration.
    stood: BTreeMap<(u8, u8), Config>,
    over: Option<&'static str>,
    checked: u64,
    used: BTreeMap<&'static str, u64>,
}

/// What is known of a replica beyond the model.
#[derive(Clone, Debug, Default)]
struct Replica {
    /// What it became and has not made durable yet, oldest first.
    pending: VecDeque<View>,
    /// The newest of these.
    last: Option<View>,
    /// Whom it voted for in each term.
    votes: BTreeMap<u8, Option<u8>>,
    /// Entries that it acknowledged, by index and term.
    acked: BTreeSet<(u8, u8)>,
    /// It acknowledged all that was cut off.
    acked_base: bool,
    /// Snapshots that may be in the place of the log, although the core does not know yet.
    installed: Vec<Log>,
    /// The term, and the log that a snapshot replaced in it although its leader did not ask for it.
    replaced: Option<(u8, Log)>,
    epoch: Option<Epoch>,
    history: History,
    /// Of a leader: what a change of members waits for, when that is cut off.
    need: Index,
    order: Option<Order>,
    /// What it may be granted in the present epoch.
    grants: BTreeSet<Message>,
    /// Some of these are cut off.
    grants_cut: bool,
    /// Terms and ends of the logs of those who led when it last lost its power.
    at_loss: BTreeMap<u8, (u8, u8)>,
}

/// What the operator told a replica, until somebody leads or the process ends.
#[derive(Clone, Copy, Debug)]
struct Order {
    dead: Nodes,
    expect_history: History,
    number: u32,
}

/// Why a step is not followed.
#[derive(Clone, Debug)]
enum Trouble {
    /// It leaves what the model can hold.
    Over(&'static str),
    /// The model cannot explain it.
    Wrong(String),
}

impl TraceChecker {
    /// A group whose replicas are all as they are born: empty, with these voters. Members to be,
    /// which have no configuration yet, are among the nodes.
    ///
    /// # Panics
    /// With more than 7 nodes, or voters that are not among them.
    #[must_use]
    pub fn new(nodes: &[NodeId], voters: &[NodeId]) -> Self {
        assert!(nodes.len() <= 7, "the model keeps nodes in 8 bits");
        assert!(voters.iter().all(|voter| nodes.contains(voter)), "voters are nodes");
        let bounds = Bounds {
            nodes: nodes.len() as u8,
            voters: voters.len() as u8,
            candidates: 8,
            terms: u8::MAX - 1,
            len: MAX_LEN as u8,
            losses: 0,
            changes: u8::MAX,
            forks: u8::MAX,
            dead: 0,
        };
        let options = Options { versions: true, partial: true, joint: true, ..Options::default() };
        let protocol = Protocol { bounds, options, shortcut: None };
        let losing =
            Protocol { bounds: Bounds { losses: u8::MAX, ..bounds }, options, shortcut: None };
        let state = protocol.first_state();
        Self {
            protocol,
            losing,
            first_config: state.nodes[0].config,
            state,
            names: Names::new(nodes, voters),
            replicas: vec![Replica::default(); nodes.len()],
            base: 0,
            base_term: 0,
            seen: BTreeSet::from([0]),
            stood: BTreeMap::new(),
            over: None,
            checked: 0,
            used: BTreeMap::new(),
        }
    }

    /// To be called after each step of a replica (or several), proposals and changes of members
    /// included, with the core as it is now and the effects that it gave, in their order.
    ///
    /// # Errors
    /// [`Mismatch`] when the model would not have done this.
    pub fn stepped(&mut self, core: &Core, effects: &[Effect]) -> Result<(), Mismatch> {
        self.look(core, |checker, number| checker.follow(number, core, effects))
    }

    /// To be called when a replica's process was started again, after [`Core::new`] and before its
    /// first step.
    ///
    /// # Errors
    /// [`Mismatch`] when the store lost what it must not lose.
    pub fn restarted(&mut self, core: &Core, lost_power: bool) -> Result<(), Mismatch> {
        self.look(core, |checker, number| checker.restart(number, core, lost_power))
    }

    /// To be called before an operator's order is given to a replica, with what is in the
    /// [`flintmq_consensus::Input::ForceRecover`]: the named nodes are off for good.
    pub fn ordered(
        &mut self,
        core: &Core,
        dead: &BTreeSet<NodeId>,
        expect_history: History,
        newest: &ConfigRegister,
        number: u32,
    ) {
        let config = if newest.stamp > core.config().stamp { newest } else { core.config() };
        let taken = expect_history == core.history()
            && number > core.history()
            && u64::from(number) > names::order_of(core.term().max(config.stamp.term))
            && core.role() != Role::Ready
            && config.is_voter(core.node())
            && !dead.contains(&core.node());
        if let Some(replica) = self.names.node(core.node()).filter(|_| taken) {
            let known = dead.iter().filter_map(|node| self.names.node(*node));
            let dead = known.fold(0, |set, node| set | 1 << node);
            let order = Order { dead, expect_history, number };
            self.replicas[usize::from(replica)].order = Some(order);
        }
    }

    /// True once something happened that the model has no room for. Nothing is checked any more.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.over.is_some()
    }

    /// What it was that the model has no room for.
    #[must_use]
    pub fn over(&self) -> Option<&'static str> {
        self.over
    }

    /// How many calls were checked.
    #[must_use]
    pub fn checked(&self) -> u64 {
        self.checked
    }

    /// How often each step of the model was taken, by the name of the [`Action`]; those in small
    /// letters are not in the model.
    #[must_use]
    pub fn actions_used(&self) -> &BTreeMap<&'static str, u64> {
        &self.used
    }

    fn look(
        &mut self,
        core: &Core,
        check: impl FnOnce(&mut Self, u8) -> Result<(), Trouble>,
    ) -> Result<(), Mismatch> {
        if self.over.is_some() {
            return Ok(());
        }
        let Some(number) = self.names.node(core.node()) else {
            self.over = Some("a foreign node");
            return Ok(());
        };
        self.make_room(core.last().index);
        let before = self.state.clone();
        match check(self, number).and_then(|()| self.check_properties(&before)) {
            Ok(()) => self.checked += 1,
            Err(Trouble::Over(why)) => self.over = Some(why),
            Err(Trouble::Wrong(why)) => return Err(self.mismatch(number, core, why)),
        }
        Ok(())
    }

    fn mismatch(&self, number: u8, core: &Core, why: String) -> Mismatch {
        let mut enabled = Vec::new();
        self.protocol.actions_of(&self.state, number, &mut enabled);
        let changes = |action: &Action| matches!(action, Action::Change(..));
        if let Some(first) = enabled.iter().position(changes) {
            let first = enabled[first].clone();
            enabled.retain(|action| !changes(action));
            enabled.push(first);
        }
        let waiting = &self.replicas[usize::from(number)].pending;
        Mismatch {
            replica: core.node(),
            step: self.checked + 1,
            why,
            seen: format!(
                "{:?} {:?} recovering {:?} log {:?} commit {}\n  not durable yet: {waiting:?}",
                core.role(),
                core.hard_state(),
                core.recovering(),
                core.log(),
                core.commit_index(),
            ),
            model: format!(
                "number {number}, index 0 is {}, {}",
                self.base,
                mismatch::line(self.state.node(number))
            ),
            enabled: enabled.iter().map(|action| format!("{action:?}")).collect(),
        }
    }

    fn count(&mut self, step: &'static str) {
        *self.used.entry(step).or_default() += 1;
    }

    /// Takes one step of the model.
    fn take(&mut self, action: &Action) {
        self.state = self.protocol.take(&self.state, action);
        self.count(name(action));
    }

    fn enabled(&self, action: &Action) -> bool {
        let mut all = Vec::new();
        self.protocol.actions_of(&self.state, action.actor(), &mut all);
        all.contains(action)
    }

    /// What must always be true is also true of the state that the cores are in.
    fn check_properties(&mut self, before: &State) -> Result<(), Trouble> {
        if self.state == *before {
            return Ok(());
        }
        // Bounds are for searches.
        (self.state.losses, self.state.changes, self.state.forks) = (0, 0, 0);
        let always = self.protocol.properties().into_iter();
        for property in always.filter(|p| p.expectation == Expectation::Always) {
            if !(property.condition)(&self.protocol, &self.state) {
                return Err(Trouble::Wrong(format!("{} is violated", property.name)));
            }
        }
        Ok(())
    }
}

/// What a step is called.
fn name(action: &Action) -> &'static str {
    match action {
        Action::Campaign(..) => "Campaign",
        Action::Order(..) => "Order",
        Action::Vote(..) => "Vote",
        Action::AnswerSync(..) => "AnswerSync",
        Action::FinishSync(..) => "FinishSync",
        Action::Fork(..) => "Fork",
        Action::BecomeReady(..) => "BecomeReady",
        Action::FetchPart(..) => "FetchPart",
        Action::Propose(..) => "Propose",
        Action::TakeAppend(..) => "TakeAppend",
        Action::Commit(..) => "Commit",
        Action::Lose(..) => "Lose",
        Action::Grant(..) => "Grant",
        Action::TakeGrant(..) => "TakeGrant",
        Action::TakePeerLog(..) => "TakePeerLog",
        Action::Learn(..) => "Learn",
        Action::AckConfig(..) => "AckConfig",
        Action::Change(..) => "Change",
        Action::DropDead(..) => "DropDead",
    }
}
