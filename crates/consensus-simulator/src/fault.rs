//! The faults of a run: a list that is drawn before it begins, so that any of them can be left out.

use flintmq_consensus::GroupId;

use crate::network::Weather;
use crate::profile::Profile;
use crate::random::Random;

/// What may go wrong, or be done to a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FaultKind {
    /// A process ends and is started again.
    Crash,
    /// One node loses power.
    PowerLoss,
    /// Several nodes lose power at once.
    PowerLossOfSeveral,
    /// All nodes lose power at once.
    PowerLossOfAll,
    /// A node loses power, comes back, and loses it again soon.
    PowerLossTwice,
    /// A node is stopped in good order.
    CleanStop,
    /// A process does not run for a while.
    Suspend,
    /// A clock jumps forward.
    ClockJump,
    /// The network falls apart into two halves.
    Split,
    /// One node is cut off.
    Isolate,
    /// Packets get through in one direction only.
    OneWay,
    /// A link works and does not work in turns.
    Flap,
    /// A connection is lost and made again.
    LoseConnection,
    /// The network is bad for a while.
    BadWeather,
    /// A disk is slow for a while.
    SlowDisk,
    /// A disk takes no writes for a while.
    FullDisk,
    /// Snapshots can neither be opened nor read nor taken for a while.
    FailSnapshots,
    /// A disk fails: the process stops, and comes back once the disk works.
    FailDisk,
    /// A node is lost for good; another one takes its place.
    Replace,
    /// Leadership is handed over in good order.
    Transfer,
    /// Leadership is handed over at once.
    ForcedTransfer,
    /// A leader gives up.
    Cede,
    /// A voter stands for election, needed or not.
    Stand,
    /// A node stops sending because its host does not get on.
    Stall,
    /// A node should not lead for a while: its clock is off, its disk full or stalled.
    Unfit,
    /// The host says that a group does not get on.
    GroupStalled,
    /// One member is added, promoted or removed.
    ChangeMember,
    /// Several members change at once.
    ChangeMembers,
}

impl FaultKind {
    /// All of them.
    pub const ALL: [Self; 28] = [
        Self::Crash,
        Self::PowerLoss,
        Self::PowerLossOfSeveral,
        Self::PowerLossOfAll,
        Self::PowerLossTwice,
        Self::CleanStop,
        Self::Suspend,
        Self::ClockJump,
        Self::Split,
        Self::Isolate,
        Self::OneWay,
        Self::Flap,
        Self::LoseConnection,
        Self::BadWeather,
        Self::SlowDisk,
        Self::FullDisk,
        Self::FailSnapshots,
        Self::FailDisk,
        Self::Replace,
        Self::Transfer,
        Self::ForcedTransfer,
        Self::Cede,
        Self::Stand,
        Self::Stall,
        Self::Unfit,
        Self::GroupStalled,
        Self::ChangeMember,
        Self::ChangeMembers,
    ];
}

/// Whom a fault hits, decided when it happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Any node that lives, by this number.
    Any(u64),
    /// Who leads this group.
    Leader(GroupId),
    /// Somebody in this group who does not lead.
    Follower(GroupId, u64),
    /// Where the awaited moment came.
    There,
}

/// A moment worth waiting for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Moment {
    /// A node is elected and finds out what was acknowledged.
    Syncing,
    /// A syncing leader copies a better log: the fault hits the leader.
    Fetching,
    /// A syncing leader copies a better log: the fault hits the source.
    FetchedFrom,
    /// Pieces of a snapshot are on a disk.
    Receiving,
    /// A snapshot is being switched to.
    Installing,
    /// A leader serves since just now.
    Serving,
    /// A replica counts again since just now.
    Rejoined,
    /// A leader changed the members just now.
    Changing,
    /// A replica was granted to rejoin, and lacks entries.
    Granted,
    /// An entry was decided just now: the fault hits one who acknowledged it.
    Acknowledged,
}

impl Moment {
    const ALL: [Self; 10] = [
        Self::Syncing,
        Self::Fetching,
        Self::FetchedFrom,
        Self::Receiving,
        Self::Installing,
        Self::Serving,
        Self::Rejoined,
        Self::Changing,
        Self::Granted,
        Self::Acknowledged,
    ];
}

/// One fault of a run. Durations are in microseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// When, in microseconds.
    pub at: u64,
    /// The first such moment from then on, if any; it is waited for three seconds.
    pub moment: Option<Moment>,
    /// What.
    pub kind: FaultKind,
    /// Whom.
    pub target: Target,
    /// Which group, where one is meant.
    pub group: GroupId,
    /// How long it lasts, or the node is down.
    pub lasts: u64,
    /// The weather, where it changes.
    pub weather: Weather,
    /// Decides what else is open.
    pub choice: u64,
}

fn draw_target(random: &mut Random, group: GroupId) -> Target {
    match random.below(4) {
        0 => Target::Leader(group),
        1 => Target::Follower(group, random.number()),
        _ => Target::Any(random.number()),
    }
}

fn draw_moment(random: &mut Random, kind: FaultKind, ambushes: u64) -> Option<Moment> {
    let hits_a_node = matches!(
        kind,
        FaultKind::Crash
            | FaultKind::PowerLoss
            | FaultKind::PowerLossTwice
            | FaultKind::CleanStop
            | FaultKind::Suspend
            | FaultKind::Isolate
            | FaultKind::FailDisk
    );
    if hits_a_node && random.chance(ambushes) { random.pick(&Moment::ALL) } else { None }
}

/// Bad weather of any strength.
pub(crate) fn draw_weather(random: &mut Random) -> Weather {
    let some = |random: &mut Random, high: u64| {
        if random.chance(500_000) { random.skewed(100, high) } else { 0 }
    };
    let delay_min = random.skewed(50, 2_000);
    Weather {
        loss: some(random, 300_000),
        doubled: some(random, 300_000),
        reordered: some(random, 1_000_000),
        delay_min,
        delay_max: delay_min + random.skewed(50, 20_000),
        late: some(random, 100_000),
    }
}

/// All faults of a seed.
pub(crate) fn draw_faults(seed: u64, profile: &Profile) -> Vec<Fault> {
    let mut random = Random::new(seed, 2);
    let total: u64 = profile.weights.iter().map(|(_, weight)| weight).sum();
    let mut faults = Vec::new();
    let mut at = 500_000;
    if total == 0 {
        return faults;
    }
    loop {
        at += random.below(2 * profile.fault_gap) + 1;
        if at >= profile.faults_end {
            return faults;
        }
        let mut ticket = random.below(total);
        let kind = profile.weights.iter().find_map(|(kind, weight)| {
            let won = ticket < *weight;
            ticket = ticket.saturating_sub(*weight);
            won.then_some(*kind)
        });
        let Some(kind) = kind else { continue };
        let group = GroupId(u32::try_from(random.below(profile.groups.len() as u64)).unwrap_or(0));
        let moment = draw_moment(&mut random, kind, profile.ambushes);
        let target = if moment.is_some() { Target::There } else { draw_target(&mut random, group) };
        let lasts = random.skewed(20_000, profile.longest_fault);
        let weather = draw_weather(&mut random);
        let choice = random.number();
        faults.push(Fault { at, moment, kind, target, group, lasts, weather, choice });
    }
}
