//! The words of the log: groups, nodes, terms, indexes, entries and the hard state.

use bytes::Bytes;
use std::fmt;

/// A replicated log with its members. Group 0 is the controller; the others are partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId(pub u32);

impl GroupId {
    /// The group that holds the cluster's metadata.
    pub const CONTROLLER: Self = Self(0);
}

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A broker process of the cluster, by its fixed number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u32);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The number of a leadership; at most one leader per term. 0 is before the first election.
pub type Term = u64;

/// The place of an entry in its group's log, counted from 1. 0 is before the first entry.
pub type Index = u64;

/// How often a forced recovery has changed the past of a group
/// (docs/internals/consensus.md#when-a-majority-has-lost-its-tail).
pub type History = u32;

/// Term and index of an entry: what two logs are compared by, term first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogPosition {
    /// Term of the entry.
    pub term: Term,
    /// Index of the entry.
    pub index: Index,
}

/// What tells one making of a group from another of the same number, so that a message of a group
/// that was deleted and made again is never taken for one of the new group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CreationId(pub u64);

/// How often a node's store may have lost its tail; raised durably before the node says anything
/// (docs/internals/storage.md#what-an-unclean-stop-leaves).
pub type Epoch = u64;

/// One proposal of a producer: the same pair is applied once per history
/// (docs/internals/consensus.md#retried-proposals).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProducerSequence {
    /// Who proposes; unique for the life of the group.
    pub producer: u64,
    /// The producer's own count, from 1, without gaps.
    pub sequence: u64,
}

/// What an entry is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EntryKind {
    /// The first entry of a leadership; it carries nothing, its commit opens the service.
    Barrier,
    /// A batch of commands for the state machine.
    Commands,
    /// A batch of commands that a producer may have proposed before: apply it once, see
    /// [`crate::ProducerWindows`].
    Sequenced(ProducerSequence),
}

/// One record of a group's log.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    /// Place in the log.
    pub index: Index,
    /// Term of the leader that appended it.
    pub term: Term,
    /// History number at that time.
    pub history: History,
    /// What it is for.
    pub kind: EntryKind,
    /// The commands, opaque here.
    pub payload: Bytes,
}

impl Entry {
    /// Where the entry stands.
    #[must_use]
    pub fn position(&self) -> LogPosition {
        LogPosition { term: self.term, index: self.index }
    }
}

/// The stamp that orders configurations of a group: greater wins
/// (docs/internals/consensus.md#members).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConfigStamp {
    /// Term of the leader that wrote the configuration.
    pub term: Term,
    /// Version within that term's succession.
    pub version: u64,
}

/// The members of a group, kept beside the log (docs/internals/consensus.md#members).
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConfigRegister {
    /// Orders this configuration among all others of the group.
    pub stamp: ConfigStamp,
    /// Members that vote and count for commit, ascending.
    pub voters: Vec<NodeId>,
    /// While several members change at once: the voters of before, ascending. Every quorum then
    /// needs a majority of both lists. Empty otherwise.
    pub outgoing: Vec<NodeId>,
    /// Members that only receive the log, ascending.
    pub learners: Vec<NodeId>,
}

impl ConfigRegister {
    /// The configuration that a group is born with.
    #[must_use]
    pub fn of_voters(voters: impl IntoIterator<Item = NodeId>) -> Self {
        let mut voters: Vec<NodeId> = voters.into_iter().collect();
        voters.sort_unstable();
        voters.dedup();
        Self { voters, ..Self::default() }
    }

    /// True for a member whose vote counts, in either list of a joint configuration.
    #[must_use]
    pub fn is_voter(&self, node: NodeId) -> bool {
        self.voters.contains(&node) || self.outgoing.contains(&node)
    }

    /// True for a voter or a learner.
    #[must_use]
    pub fn is_member(&self, node: NodeId) -> bool {
        self.is_voter(node) || self.learners.contains(&node)
    }

    /// Every member once, ascending.
    #[must_use]
    pub fn members(&self) -> Vec<NodeId> {
        let mut all: Vec<NodeId> =
            self.voters.iter().chain(&self.outgoing).chain(&self.learners).copied().collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// True while several members change at once.
    #[must_use]
    pub fn is_joint(&self) -> bool {
        !self.outgoing.is_empty()
    }
}

/// What a replica must never forget: written with an fsync before it is acted on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct HardState {
    /// Highest term seen.
    pub term: Term,
    /// Whom this replica voted for in that term.
    pub voted_for: Option<NodeId>,
    /// The configuration in force.
    pub config: ConfigRegister,
    /// Number of forced recoveries.
    pub history: History,
    /// This replica gave its past up for a later history and has not made that good yet: whatever
    /// log and state the disk holds may be of the past given up.
    pub void: bool,
}
