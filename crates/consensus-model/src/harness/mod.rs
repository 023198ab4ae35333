//! The real [`flintmq_consensus::Core`] under the model checker: three replicas, their disks and a
//! network, all interleavings within small bounds.
//!
//! Timers do not run: a replica stands when the search says so, and is taken for dead by those who
//! are asked for a vote. A message stays in the network until it can have no effect any more, so it
//! is lost, delayed, doubled and reordered. A disk keeps every version of its log that a power loss
//! may bring back (docs/internals/consensus.md#what-is-written-where).

mod checks;
mod disk;
mod host;
mod network;

pub use disk::Disk;
pub use network::Network;

use flintmq_consensus::{
    ConfigRegister, Core, CreationId, Entry, GroupId, HardState, Index, LogTerms, MemberChange,
    Message, Mutant, NodeId, RecoveryPolicy, Restored, Settings, Term, Time,
};
use stateright::{Model, Property};
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

/// How far a run goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reach {
    /// Replicas, named from 1.
    pub nodes: u32,
    /// How many of them vote at first.
    pub voters: u32,
    /// How many of them ever stand.
    pub candidates: u32,
    /// The greatest term that is stood for.
    pub terms: Term,
    /// Nothing is proposed behind this index.
    pub len: Index,
    /// Process crashes.
    pub crashes: u8,
    /// Power losses.
    pub losses: u8,
    /// Changes of members that are begun.
    pub changes: u8,
    /// Writes and fsyncs take their time, and a crash may come before.
    pub slow_disks: bool,
    /// Replicas scout before they stand.
    pub scouting: bool,
    /// Voters that the operator may name dead, with one order; needs scouting.
    pub dead: usize,
    /// Groups go on by themselves once every voter told what it has.
    pub all_reported: bool,
}

impl Default for Reach {
    fn default() -> Self {
        Self {
            nodes: 3,
            voters: 3,
            candidates: 3,
            terms: 2,
            len: 2,
            crashes: 0,
            losses: 1,
            changes: 0,
            slow_disks: false,
            scouting: false,
            dead: 0,
            all_reported: false,
        }
    }
}

/// The real core within these bounds.
#[derive(Clone, Debug)]
pub struct Harness {
    /// How far.
    pub reach: Reach,
    settings: Arc<Settings>,
}

/// One replica with its disk, hashed once per change.
#[derive(Clone, Debug)]
pub struct Replica {
    /// The real thing.
    pub core: Core,
    /// What it has written.
    pub disk: Disk,
    print: u64,
}

/// What was acknowledged: an entry, who counted for it, and in which term.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Acked {
    entry: Entry,
    by: Term,
    holders: BTreeSet<NodeId>,
}

/// Everything, with what only the checks know.
#[derive(Clone, Debug)]
pub struct State {
    /// By name.
    pub replicas: BTreeMap<NodeId, Arc<Replica>>,
    /// What is under way.
    pub network: Network,
    elected: BTreeMap<Term, NodeId>,
    /// The longest log that the leader of a term had.
    led: BTreeMap<Term, Arc<Vec<Entry>>>,
    acked: Arc<Vec<Acked>>,
    crashes: u8,
    losses: u8,
    changes: u8,
    /// They take no step any more.
    dead: BTreeSet<NodeId>,
    /// What the last step did wrong.
    pub broken: Option<&'static str>,
}

impl PartialEq for State {
    fn eq(&self, other: &Self) -> bool {
        let prints = |state: &Self| state.replicas.values().map(|r| r.print).collect::<Vec<_>>();
        prints(self) == prints(other)
            && self.network == other.network
            && self.elected == other.elected
            && self.led == other.led
            && self.acked == other.acked
            && self.dead == other.dead
            && (self.crashes, self.losses, self.changes, self.broken)
                == (other.crashes, other.losses, other.changes, other.broken)
    }
}

impl Hash for State {
    fn hash<H: Hasher>(&self, state: &mut H) {
        for replica in self.replicas.values() {
            replica.print.hash(state);
        }
        self.network.hash(state);
        self.elected.hash(state);
        self.led.hash(state);
        self.acked.hash(state);
        self.dead.hash(state);
        (self.crashes, self.losses, self.changes, self.broken).hash(state);
    }
}

/// One step.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Stands for election.
    Stand(NodeId),
    /// A message arrives.
    Deliver(Arc<Message>),
    /// The operator's order to go on without these, who are off for good.
    Order(NodeId, BTreeSet<NodeId>),
    /// Proposes an entry.
    Propose(NodeId),
    /// Begins a change of members.
    Change(NodeId, MemberChange),
    /// The next fsync of the hard state is done.
    Saved(NodeId),
    /// The next write of the log is done.
    Written(NodeId),
    /// The process dies and is started again; what was not reported is done or not.
    Crash(NodeId, bool),
    /// The node loses power: back to this version of the log, counted from the newest.
    PowerLoss(NodeId, usize),
}

impl Harness {
    /// The right core within these bounds.
    #[must_use]
    pub fn new(reach: Reach) -> Self {
        Self::with(reach, None)
    }

    /// The core with one rule broken.
    #[must_use]
    pub fn broken(reach: Reach, mutant: Mutant) -> Self {
        Self::with(reach, Some(mutant))
    }

    fn with(reach: Reach, mutant: Option<Mutant>) -> Self {
        let delay = Duration::from_millis(100);
        let recovery =
            if reach.all_reported { RecoveryPolicy::AllReported } else { RecoveryPolicy::Strict };
        let settings = Settings {
            // Nothing is drawn, so that the seed stays out of the state.
            election_delay_min: delay,
            election_delay_max: delay,
            recovery,
            mutant,
            ..Settings::default()
        };
        Self { reach, settings: Arc::new(settings) }
    }

    fn breaks(&self, mutant: Mutant) -> bool {
        self.settings.mutant == Some(mutant)
    }

    fn names(&self) -> impl Iterator<Item = NodeId> + use<> {
        (1..=self.reach.nodes).map(NodeId)
    }

    fn restore(&self, node: NodeId, disk: &Disk) -> Core {
        let positions = disk.log.iter().map(Entry::position);
        let restored = Restored {
            group: GroupId(1),
            creation: CreationId(1),
            node,
            hard_state: disk.hard.clone(),
            log: LogTerms::from_positions(flintmq_consensus::LogPosition::default(), positions),
            applied: 0,
            recovering: (disk.rejoined < disk.epoch).then_some(disk.epoch),
        };
        Core::new(restored, Arc::clone(&self.settings), 0).expect("the disk keeps its own contract")
    }

    /// The only state to start from.
    #[must_use]
    pub fn first_state(&self) -> State {
        let config = ConfigRegister::of_voters(self.names().take(self.reach.voters as usize));
        let hard = HardState { config: config.clone(), ..HardState::default() };
        let replica = |node: NodeId| {
            let hard = if config.is_member(node) { hard.clone() } else { HardState::default() };
            let disk = Disk::new(hard);
            (node, Arc::new(Replica::new(self.restore(node, &disk), disk)))
        };
        let mut state = State {
            replicas: self.names().map(replica).collect(),
            network: Network::default(),
            elected: BTreeMap::new(),
            led: BTreeMap::new(),
            acked: Arc::default(),
            crashes: 0,
            losses: 0,
            changes: 0,
            dead: BTreeSet::new(),
            broken: None,
        };
        for node in self.names() {
            self.start(&mut state, node);
        }
        state
    }
}

impl Action {
    /// How often random walks take it: what throws a group back is rare.
    #[must_use]
    pub fn weight(&self) -> u64 {
        match self {
            Self::PowerLoss(..) | Self::Crash(..) | Self::Order(..) => 1,
            Self::Stand(_) => 4,
            Self::Change(..) => 6,
            Self::Propose(_) => 8,
            Self::Deliver(_) | Self::Saved(_) | Self::Written(_) => 12,
        }
    }
}

/// The same in every run.
fn print(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// Time does not pass.
const NOW: Time = Time::from_millis(1000);

impl Model for Harness {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![self.first_state()]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        self.enabled(state, actions);
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let next = self.take(state, &action)?;
        (next != *state).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        self.all_properties()
    }
}
