//! What the node's other parts ask of the controller, and what they are answered.

use std::sync::Arc;

use flintmq_consensus::Time;
use thiserror::Error;

use crate::command::MetadataCommand;
use crate::membership::ClusterMembership;
use crate::metadata::Metadata;
use crate::planning::PlanningSettings;
use crate::refusal::Refusal;

/// What the node's other parts ask of the controller. Each ticket is answered once.
#[derive(Clone, Debug)]
pub enum Request {
    /// Make a change; answered with [`Effect::Changed`] when it is committed and applied here.
    Change {
        /// Comes back with the answer.
        ticket: u64,
        /// What to do, in order, up to the first that does not fit.
        commands: Vec<MetadataCommand>,
        /// When to give up.
        deadline: Time,
    },
    /// See to it that this node's metadata are as new as anything that a client may have seen at
    /// another node before; answered with [`Effect::CaughtUp`].
    CatchUp {
        /// Comes back with the answer.
        ticket: u64,
        /// When to give up.
        deadline: Time,
    },
    /// Plan with this while the node leads.
    Plan(PlanningSettings),
}

/// What the node has to do for the controller. New metadata come before the answers that rest on
/// them.
#[derive(Clone, Debug)]
pub enum Effect {
    /// The metadata are now these: publish them. Its version is [`Metadata::applied`].
    MetadataChanged(Metadata),
    /// The nodes, or what they are to hold, are now these.
    MembershipChanged(Arc<ClusterMembership>),
    /// Answer to [`Request::Change`].
    Changed {
        /// The request's.
        ticket: u64,
        /// What came of it.
        result: Result<(), ChangeError>,
    },
    /// Answer to [`Request::CatchUp`].
    CaughtUp {
        /// The request's.
        ticket: u64,
        /// Whether the metadata are as new as needed.
        result: Result<(), CatchUpError>,
    },
}

/// Why a change was not made, or is not known to be.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ChangeError {
    /// It does not fit.
    #[error("{0}")]
    Refused(#[from] Refusal),
    /// Too many changes wait. It was not made.
    #[error("too many changes of the cluster's metadata wait already: try again in a moment")]
    Busy,
    /// It is larger than any legitimate change. It was not made.
    #[error("the change is too large: split it, bytes={bytes} limit={limit}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The largest size.
        limit: usize,
    },
    /// No leader was found in time. It was not made, and will not be.
    #[error("the controller has no leader in reach: try again when a majority of nodes is up")]
    NoLeader,
    /// A leader got it, and its outcome was not known in time. It may have been made.
    #[error("the controller did not answer in time: look whether the change was made")]
    Unknown,
}

/// Why the metadata here may be older than what a client has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CatchUpError {
    /// Too many wait already.
    #[error("too many requests wait for the controller already: try again in a moment")]
    Busy,
    /// It took too long.
    #[error("the controller did not answer in time: try again when it has a leader")]
    TimedOut,
}

/// What a controller counts, since its process started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Messages that could not be read: from another version.
    pub unknown_messages: u64,
    /// Changes sent to a leader elsewhere, repetitions included.
    pub forwarded: u64,
    /// Changes that came up again and were not made again.
    pub repeated: u64,
    /// Changes of other nodes that this leader had no room for.
    pub not_taken: u64,
    /// Requests refused because too many waited.
    pub busy: u64,
    /// Times that this node asked its group what is committed.
    pub reads: u64,
}
