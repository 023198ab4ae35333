//! What a run depends on: its seed, what kind of run it is, and what goes wrong in it.

use crate::random::{Purpose, Random};

/// What may go wrong, or be done to a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FaultKind {
    /// A process ends and is started again.
    Crash,
    /// A node loses power.
    PowerLoss,
    /// A process does not run for a while.
    Pause,
    /// A shard is not stepped for a while; its node beats on.
    ShardStall,
    /// A node stops in good order and comes back.
    Stop,
    /// A link is cut.
    Cut,
    /// A link is cut in one direction.
    CutOneWay,
    /// A node is cut off from all others.
    Isolate,
    /// A connection is replaced and what was on it is lost; nobody is told.
    ReplaceConnection,
    /// A connection is lost and made again.
    LoseConnection,
    /// Connections take little for a while.
    Congestion,
    /// Packets are late and get lost for a while.
    BadWeather,
    /// A disk takes no writes for a while.
    DiskStall,
    /// A disk is slow for a while.
    SlowDisk,
    /// A disk is nearly full for a while.
    DiskLow,
    /// A store has room for few requests for a while.
    StoreFull,
    /// Snapshots cannot be read for a while.
    FailSnapshots,
    /// Entries cannot be read for a while.
    FailReads,
    /// All snapshots are closed.
    ExpireSnapshots,
    /// A wall clock jumps, and back later.
    ClockJump,
    /// A leadership is handed over.
    Transfer,
    /// The host says that a group does not get on.
    Cede,
    /// Idle queues are removed.
    RemoveIdle,
    /// A queue is purged.
    Purge,
    /// A group gets other members.
    MoveMembers,
    /// A domain is changed.
    ChangeDomain,
    /// A node is to lead nothing for a while.
    Drain,
    /// One more node comes.
    AddNode,
    /// A node leaves.
    RemoveNode,
    /// A new node takes the place of one that leaves.
    ReplaceNode,
    /// More than half of the nodes are lost, and operators let the groups go on without them.
    LoseMajority,
}

impl FaultKind {
    /// In how many of a thousand runs it may happen.
    fn often(self) -> u64 {
        match self {
            Self::LoseMajority => 100,
            Self::AddNode | Self::RemoveNode | Self::ReplaceNode => 200,
            _ => 350,
        }
    }

    /// All of them.
    pub const ALL: [Self; 31] = [
        Self::Crash,
        Self::PowerLoss,
        Self::Pause,
        Self::ShardStall,
        Self::Stop,
        Self::Cut,
        Self::CutOneWay,
        Self::Isolate,
        Self::ReplaceConnection,
        Self::LoseConnection,
        Self::Congestion,
        Self::BadWeather,
        Self::DiskStall,
        Self::SlowDisk,
        Self::DiskLow,
        Self::StoreFull,
        Self::FailSnapshots,
        Self::FailReads,
        Self::ExpireSnapshots,
        Self::ClockJump,
        Self::Transfer,
        Self::Cede,
        Self::RemoveIdle,
        Self::Purge,
        Self::MoveMembers,
        Self::ChangeDomain,
        Self::Drain,
        Self::AddNode,
        Self::RemoveNode,
        Self::ReplaceNode,
        Self::LoseMajority,
    ];
}

/// Whom a fault hits, decided when it happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Any node that lives, by this number.
    Any(u64),
    /// Who leads the fault's group.
    Leader,
    /// A node that does not lead it, by this number.
    Other(u64),
}

/// One fault. Times are in microseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// When.
    pub at: u64,
    /// What.
    pub kind: FaultKind,
    /// Whom.
    pub target: Target,
    /// Which group, where one is meant.
    pub group: u32,
    /// How long it lasts.
    pub lasts: u64,
    /// Decides what else is open.
    pub choice: u64,
}

/// What kind of run it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// Nodes.
    pub nodes: u32,
    /// Partitions.
    pub groups: u32,
    /// Nodes that hold a partition.
    pub replicas: u32,
    /// Queues of each partition.
    pub queues: u32,
    /// Clients.
    pub clients: u32,
    /// For how long clients publish and faults happen, in microseconds.
    pub lasts: u64,
    /// Microseconds between two acts of a client, about.
    pub pace: u64,
    /// Microseconds for which a client leaves a queue closed at most, before it opens it again.
    pub rest: u64,
    /// Clients close queues more often than they use them.
    pub sparse: bool,
    /// Bytes of the largest messages.
    pub largest: u64,
    /// Unconfirmed messages at which delivery to a consumer stops.
    pub max_unconfirmed: u64,
    /// Milliseconds for which messages of some queues live; 0 = for ever.
    pub ttl_ms: u64,
    /// Whether a step of a store may do several requests.
    pub quick_disks: bool,
    /// One of several nodes has a wall clock that is days ahead, to the end of the run.
    pub wrong_clock: bool,
    /// Parts per million by which clocks' rates differ.
    pub drift_ppm: u64,
    /// Faults.
    pub faults: u64,
    /// What may happen.
    pub kinds: Vec<FaultKind>,
}

impl Profile {
    /// The profile of this seed.
    #[must_use]
    pub fn draw(seed: u64) -> Self {
        let mut random = Random::new(seed, Purpose::Profile);
        let nodes = random.pick(&[1, 3, 3, 3, 3, 5, 5]).unwrap_or(3);
        let replicas = if nodes == 5 { random.pick(&[3, 5, 3]).unwrap_or(3) } else { nodes };
        let mut kinds: Vec<FaultKind> =
            FaultKind::ALL.into_iter().filter(|kind| random.chance(kind.often())).collect();
        if random.chance(60) {
            kinds.clear();
        }
        let mut largest = random.pick(&[200, 2_000, 60_000]).unwrap_or(200);
        if random.chance(100) {
            largest = 400_000;
        }
        let sparse = random.chance(250);
        if sparse && random.chance(700) {
            kinds.extend([FaultKind::RemoveIdle; 10]);
        }
        Self {
            sparse,
            nodes,
            groups: random.pick(&[1, 1, 2, 4]).unwrap_or(1) as u32,
            replicas,
            queues: random.between(1, 2) as u32,
            clients: random.between(2, if sparse { 3 } else { 6 }) as u32,
            lasts: random.between(2, 8) * 1_000_000,
            pace: if sparse {
                random.between(40_000, 150_000)
            } else {
                random.skewed(5_000, 80_000)
            },
            rest: if sparse { 3_000_000 } else { random.pick(&[0, 200_000]).unwrap_or(0) },
            largest,
            max_unconfirmed: random.pick(&[1, 8, 64, 1024]).unwrap_or(64),
            ttl_ms: if random.chance(300) { random.between(500, 3_000) } else { 0 },
            quick_disks: random.chance(600),
            drift_ppm: random.pick(&[0, 50, 500]).unwrap_or(0),
            faults: random.between(3, 30),
            kinds,
            // Drawn last: what was drawn before does not depend on it.
            wrong_clock: random.chance(150),
        }
    }
}

/// All that a run depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The seed.
    pub seed: u64,
    /// What kind of run it is.
    pub profile: Profile,
    /// What is done to the cluster, in order.
    pub faults: Vec<Fault>,
}

impl Plan {
    /// The plan of this seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self::with_profile(seed, Profile::draw(seed))
    }

    /// A plan of this seed with another profile.
    #[must_use]
    pub fn with_profile(seed: u64, profile: Profile) -> Self {
        let faults = draw_faults(seed, &profile);
        Self { seed, profile, faults }
    }
}

fn draw_faults(seed: u64, profile: &Profile) -> Vec<Fault> {
    let mut random = Random::new(seed, Purpose::Faults);
    let mut faults = Vec::new();
    for _ in 0..profile.faults {
        let Some(kind) = random.pick(&profile.kinds) else { break };
        let target = match random.below(4) {
            0 => Target::Any(random.number()),
            1 => Target::Other(random.number()),
            _ => Target::Leader,
        };
        faults.push(Fault {
            at: random.between(300_000, profile.lasts),
            kind,
            target,
            group: random.below(u64::from(profile.groups)) as u32,
            lasts: random.skewed(10_000, 4_000_000),
            choice: random.number(),
        });
    }
    faults.sort_by_key(|fault| fault.at);
    faults
}
