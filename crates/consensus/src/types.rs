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

/// How often a forced recovery has changed the past of a group (design, section 9).
pub type History = u32;

/// Term and index of an entry: what two logs are compared by, term first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogPosition {
    /// Term of the entry.
    pub term: Term,
    /// Index of the entry.
    pub index: Index,
}

/// What an entry is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EntryKind {
    /// The first entry of a leadership; it carries nothing, its commit opens the service.
    Barrier,
    /// A batch of commands for the state machine.
    Commands,
}

/// One record of a group's log.
#[derive(Clone, Debug, PartialEq, Eq)]
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

/// The stamp that orders configurations of a group: greater wins (design, section 10).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConfigStamp {
    /// Term of the leader that wrote the configuration.
    pub term: Term,
    /// Version within that term's succession.
    pub version: u64,
}

/// The members of a group, kept beside the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigRegister {
    /// Orders this configuration among all others of the group.
    pub stamp: ConfigStamp,
    /// Members that vote and count for commit, ascending.
    pub voters: Vec<NodeId>,
    /// Members that only receive the log, ascending.
    pub learners: Vec<NodeId>,
}

/// What a replica must never forget: written with an fsync before it is acted on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HardState {
    /// Highest term seen.
    pub term: Term,
    /// Whom this replica voted for in that term.
    pub voted_for: Option<NodeId>,
    /// The configuration in force.
    pub config: ConfigRegister,
    /// Number of forced recoveries.
    pub history: History,
}
