//! Many groups on one node: what they share is done once per pair of nodes, not once per group
//! (docs/internals/nodes.md).
//!
//! - **Life** (`liveness`): one beat per pair of nodes and interval stands for all groups. A peer
//!   is up when packets get through in both directions; that it goes down, comes up or comes back
//!   as a new process is told to the groups that it matters to, and only to those.
//! - **Packets** (`outbox`): the messages of all groups for one peer leave together, and so do the
//!   hard states of all groups (`saves`).
//! - **Timers** (`timers`): only groups that wait for something are looked at. One at rest costs
//!   nothing but its memory.
//! - **Elections** (`elections`): when a node dies that led thousands of groups, their elections
//!   are admitted in bounded numbers.
//! - **Bytes on the way** (`budget`) and snapshots (`transfers`) are bounded per pair and per node;
//!   groups take turns, and those that catch up leave room for those that are live.
//!
//! A host steps a [`NodeCore`] with as many inputs as there are, then calls [`NodeCore::flush`] and
//! carries out what it is told, in any number of threads, reporting what it did as further inputs.
//! Proposals leave with the flush as well, so those of one group share messages and writes. When
//! there is nothing to do it sleeps until [`NodeCore::next_deadline`] and steps
//! [`NodeInput::Tick`].
//!
//! As long as a node beats, its groups are taken to be alive. A host that lets one `NodeCore` beat
//! for others, which have the groups and [`Liveness::Told`], has to look after them itself: it
//! tells the one that beats [`NodeInput::Stalled`] when another is not stepped in time.

mod books;
mod budget;
mod clock;
mod counters;
mod effect;
mod elections;
mod fitness;
mod flushing;
mod group;
mod input;
mod liveness;
mod outbox;
mod packet;
mod saves;
mod settings;
mod stepping;
#[cfg(test)]
mod tests;
mod timers;
mod told;
mod transfers;

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use bytes::Bytes;

use self::books::Books;
pub use self::clock::{ClockReading, ClockState, Clocks, ClusterClock};
pub use self::counters::NodeCounters;
pub use self::effect::NodeEffect;
pub use self::fitness::UnfitReasons;
use self::group::Group;
pub use self::input::NodeInput;
pub use self::packet::{Class, Packet};
use self::saves::Saves;
pub use self::settings::{Liveness, NodeSettings};
use crate::jitter::Jitter;
use crate::{
    ChangeError, ConfigStamp, Core, EntryKind, GroupId, Index, Input, MemberChange, NodeId,
    ProposeError, RestoreError, Restored, Settings, Time,
};

/// What a node knows of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PeerState {
    /// True when packets get through in both directions.
    pub up: bool,
    /// The peer's process; zero before it was heard.
    pub incarnation: u64,
    /// When it was heard last, unless it was silent for too long since.
    pub heard: Option<Time>,
    /// Bytes of entries on the way to it, of all groups led here.
    pub in_flight_bytes: u64,
    /// Why it should not lead.
    pub unfit: UnfitReasons,
}

/// Whether a node says anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Voice {
    Speaking,
    /// Not at present.
    Stalled,
    /// Once more.
    LastWords,
    /// Never again.
    Silent,
}

/// All groups of one node. No I/O, no clock, no randomness but its seed.
///
/// A group of one, from its birth to its first entry:
///
/// ```
/// use bytes::Bytes;
/// use flintmq_consensus::*;
///
/// let (node, group) = (NodeId(1), GroupId(7));
/// let mut core = NodeCore::new(NodeSettings::new(node, 1, []));
/// let restored = Restored {
///     group,
///     creation: CreationId(1),
///     node,
///     hard_state: Core::sole_member(node),
///     log: LogTerms::default(),
///     applied: 0,
///     recovering: None,
/// };
/// let mut now = Time::from_millis(0);
/// core.add_group(now, restored)?;
///
/// let mut decided = 0;
/// let mut proposed = None;
/// while proposed.is_none_or(|index| decided < index) {
///     let mut effects = Vec::new();
///     core.flush(now, &mut effects);
///     for effect in effects {
///         match effect {
///             // Written and fsynced by a real host, which reports it when that is done.
///             NodeEffect::SaveHardStates { batch, .. } => {
///                 core.step(now, NodeInput::HardStatesSynced { batch });
///             }
///             NodeEffect::Group { group, effect: Effect::Append { write, .. } } => {
///                 core.step(now, NodeInput::Group { group, input: Input::Appended { write } });
///             }
///             NodeEffect::Group { effect: Effect::Commit { upto }, .. } => decided = upto,
///             NodeEffect::Group { effect: Effect::Serving { .. }, .. } => {
///                 let payload = Bytes::from_static(b"hello");
///                 proposed = Some(core.propose(now, group, EntryKind::Commands, payload)?);
///             }
///             _ => {}
///         }
///     }
///     if let Some(deadline) = core.next_deadline() {
///         now = now.max(deadline);
///         core.step(now, NodeInput::Tick);
///     }
/// }
/// assert_eq!(decided, 2, "the first entry of a leadership is its barrier");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct NodeCore {
    groups: BTreeMap<GroupId, Box<Group>>,
    books: Books,
    saves: Saves,
    /// Effects that are no group's.
    events: Vec<NodeEffect>,
    /// When all peers are to be greeted next.
    beat_at: Time,
    last_step: Option<Time>,
    voice: Voice,
}

impl NodeCore {
    /// A node without groups that has heard of nobody: all peers are down until they are heard.
    #[must_use]
    pub fn new(settings: NodeSettings) -> Self {
        Self {
            groups: BTreeMap::new(),
            books: Books::new(settings),
            saves: Saves::default(),
            events: Vec::new(),
            beat_at: Time(0),
            last_step: None,
            voice: Voice::Speaking,
        }
    }

    /// Adds a group and starts it. One of the same number that is there is removed first.
    ///
    /// # Errors
    /// [`RestoreError`] when the store's content does not belong together.
    pub fn add_group(&mut self, now: Time, restored: Restored) -> Result<(), RestoreError> {
        let settings = Arc::clone(&self.books.settings.group);
        self.add_group_with(now, restored, settings)
    }

    /// Adds a group that has settings of its own.
    ///
    /// # Errors
    /// [`RestoreError`] when the store's content does not belong together.
    pub fn add_group_with(
        &mut self,
        now: Time,
        restored: Restored,
        settings: Arc<Settings>,
    ) -> Result<(), RestoreError> {
        let (id, node) = (restored.group, self.books.settings.node);
        // Neither two nodes nor two groups may draw the same delays.
        let place = (u64::from(node.0) << 32) | u64::from(id.0);
        let seed = Jitter::new(self.books.settings.seed).fork(place);
        let core = Core::new(restored, settings, seed)?;
        self.remove_group(now, id);
        let mut group = Box::new(Group::new(core));
        self.books.step(now, &mut group, Input::Started);
        if self.books.is_unfit() {
            self.books.step(now, &mut group, Input::Reluctant { reluctant: true });
        }
        self.groups.insert(id, group);
        Ok(())
    }

    /// Forgets a group, after it ceded if it led: its last messages leave with the next flush, all
    /// its other effects are void. False when it was not there.
    pub fn remove_group(&mut self, now: Time, group: GroupId) -> bool {
        let Some(mut removed) = self.groups.remove(&group) else { return false };
        self.saves.forget(group);
        self.books.step(now, &mut removed, Input::Cede);
        self.books.strike_out(now, &mut removed);
        for effect in Books::take_effects(&mut removed) {
            if let crate::Effect::Send(message) = effect {
                self.books.post(message);
            }
        }
        true
    }

    /// Appends one entry to a group led here, see [`Core::propose`]. It leaves with the next flush,
    /// together with all others of its group.
    ///
    /// # Errors
    /// [`ProposeError`]; nothing was appended.
    pub fn propose(
        &mut self,
        now: Time,
        group: GroupId,
        kind: EntryKind,
        payload: Bytes,
    ) -> Result<Index, ProposeError> {
        self.propose_all(now, group, [(kind, payload)]).map(|indexes| *indexes.start())
    }

    /// Appends several entries to a group led here, see [`Core::propose_all`].
    ///
    /// # Errors
    /// [`ProposeError`]; nothing was appended.
    pub fn propose_all(
        &mut self,
        now: Time,
        group: GroupId,
        proposals: impl IntoIterator<Item = (EntryKind, Bytes)>,
    ) -> Result<RangeInclusive<Index>, ProposeError> {
        let not_here = ProposeError::NotLeader { leader: None };
        let group = self.groups.get_mut(&group).ok_or(not_here)?;
        self.books.touch(group);
        let indexes = group.core.propose_all(now, proposals, &mut group.effects)?;
        self.books.settle(now, group);
        Ok(indexes)
    }

    /// Changes the members of a group led here, see [`Core::change_members`].
    ///
    /// # Errors
    /// [`ChangeError`]; nothing was changed.
    pub fn change_members(
        &mut self,
        now: Time,
        group: GroupId,
        change: MemberChange,
    ) -> Result<ConfigStamp, ChangeError> {
        let not_here = ChangeError::NotLeader { leader: None };
        let group = self.groups.get_mut(&group).ok_or(not_here)?;
        self.books.touch(group);
        let stamp = group.core.change_members(now, &change, &mut group.effects)?;
        self.books.settle(now, group);
        Ok(stamp)
    }

    /// When [`NodeInput::Tick`] is due next, as of the last flush. None: not before another input.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Time> {
        let books = &self.books;
        let limit = books.election_limit();
        let beats =
            books.has_own_liveness() && !books.peers.is_empty() && self.voice != Voice::Silent;
        let beat = beats.then_some(self.beat_at);
        let silence =
            books.peers.values().filter_map(|peer| peer.contact.deadline(&books.settings)).min();
        let transfers = books.transfers.deadline();
        let elections = books.elections.next_overdue(limit);
        [books.timers.next(), elections, beat, silence, transfers, books.hand_over_at]
            .into_iter()
            .flatten()
            .min()
    }

    /// A group, to look at.
    #[must_use]
    pub fn group(&self, group: GroupId) -> Option<&Core> {
        self.groups.get(&group).map(|group| &group.core)
    }

    /// All groups, ascending.
    pub fn groups(&self) -> impl Iterator<Item = &Core> {
        self.groups.values().map(|group| &group.core)
    }

    /// What is known of a peer; none for nodes that are no peers.
    #[must_use]
    pub fn peer(&self, peer: NodeId) -> Option<PeerState> {
        let peer = self.books.peers.get(&peer)?;
        Some(PeerState {
            up: peer.contact.up,
            incarnation: peer.contact.incarnation,
            heard: peer.contact.heard,
            in_flight_bytes: peer.pair.in_flight(),
            unfit: peer.contact.unfit,
        })
    }

    /// The settings.
    #[must_use]
    pub fn settings(&self) -> &NodeSettings {
        &self.books.settings
    }

    /// What happened so far.
    #[must_use]
    pub fn counters(&self) -> &NodeCounters {
        &self.books.counters
    }
}
