//! Many groups on one node: what they share is done once per pair of nodes, not once per group
//! (design, sections 4, 14 and 15).
//!
//! A host steps a [`NodeCore`] with as many inputs as there are, then calls [`NodeCore::flush`] and
//! carries out what it is told. When there is nothing to do it sleeps until
//! [`NodeCore::next_deadline`] and steps [`NodeInput::Tick`].

mod counters;
mod effect;
mod input;
mod packet;
mod settings;

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use bytes::Bytes;

pub use counters::NodeCounters;
pub use effect::NodeEffect;
pub use input::NodeInput;
pub use packet::{Class, Packet};
pub use settings::NodeSettings;

use crate::{
    ChangeError, ConfigStamp, Core, EntryKind, GroupId, Index, MemberChange, NodeId, ProposeError,
    RestoreError, Restored, Settings, Time,
};

/// What a node knows of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PeerState {
    /// True when packets get through in both directions.
    pub up: bool,
    /// The peer's process; zero before it was heard.
    pub incarnation: u64,
    /// When it was heard last, since the last loss of contact.
    pub heard: Option<Time>,
    /// Bytes of entries on the way to it, of all groups led here.
    pub in_flight_bytes: u64,
}

/// All groups of one node. No I/O, no clock, no randomness but its seed.
#[derive(Clone, Debug)]
pub struct NodeCore {
    settings: NodeSettings,
    groups: BTreeMap<GroupId, Core>,
    counters: NodeCounters,
}

impl NodeCore {
    /// A node without groups that has heard of nobody: all peers are down until they are heard.
    #[must_use]
    pub fn new(settings: NodeSettings) -> Self {
        Self { settings, groups: BTreeMap::new(), counters: NodeCounters::default() }
    }

    /// Adds a group and starts it. One of the same number that is there is removed first.
    ///
    /// # Errors
    /// [`RestoreError`] when the store's content does not belong together.
    pub fn add_group(&mut self, now: Time, restored: Restored) -> Result<(), RestoreError> {
        self.add_group_with(now, restored, Arc::clone(&self.settings.group))
    }

    /// Adds a group that has settings of its own.
    ///
    /// # Errors
    /// [`RestoreError`] when the store's content does not belong together.
    pub fn add_group_with(
        &mut self,
        _now: Time,
        restored: Restored,
        settings: Arc<Settings>,
    ) -> Result<(), RestoreError> {
        let group = restored.group;
        self.groups.insert(group, Core::new(restored, settings, self.settings.seed)?);
        Ok(())
    }

    /// Forgets a group, after it ceded if it led. False when it was not there.
    pub fn remove_group(&mut self, _now: Time, group: GroupId) -> bool {
        self.groups.remove(&group).is_some()
    }

    /// Takes one input. What is to be done comes with the next [`Self::flush`].
    pub fn step(&mut self, _now: Time, _input: NodeInput) {}

    /// Appends one entry to a group led here, see [`Core::propose`].
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
        _now: Time,
        _group: GroupId,
        _proposals: impl IntoIterator<Item = (EntryKind, Bytes)>,
    ) -> Result<RangeInclusive<Index>, ProposeError> {
        Err(ProposeError::NotLeader { leader: None })
    }

    /// Changes the members of a group led here, see [`Core::change_members`].
    ///
    /// # Errors
    /// [`ChangeError`]; nothing was changed.
    pub fn change_members(
        &mut self,
        _now: Time,
        _group: GroupId,
        _change: MemberChange,
    ) -> Result<ConfigStamp, ChangeError> {
        Err(ChangeError::NotLeader { leader: None })
    }

    /// Hands over all that is to be done since the last flush: at most one batch of hard states,
    /// and as few packets as their bounds allow.
    pub fn flush(&mut self, _now: Time, _effects: &mut Vec<NodeEffect>) {}

    /// When [`NodeInput::Tick`] is due next, as of the last flush. None: not before another input.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Time> {
        None
    }

    /// A group, to look at.
    #[must_use]
    pub fn group(&self, group: GroupId) -> Option<&Core> {
        self.groups.get(&group)
    }

    /// All groups, ascending.
    pub fn groups(&self) -> impl Iterator<Item = &Core> {
        self.groups.values()
    }

    /// What is known of a peer.
    #[must_use]
    pub fn peer(&self, _peer: NodeId) -> Option<PeerState> {
        None
    }

    /// The settings.
    #[must_use]
    pub fn settings(&self) -> &NodeSettings {
        &self.settings
    }

    /// What happened so far.
    #[must_use]
    pub fn counters(&self) -> &NodeCounters {
        &self.counters
    }
}
