//! What a shard asks of its host.

use std::convert::Infallible;

use flintmq_consensus::{
    GroupId, History, Index, LogPosition, NodeId, RestoreError, StopReason, Term, UnfitReasons,
};
use flintmq_log_store::{ReadError, RefusedReason, StorageError};

use crate::admin::AdminAnswer;
use crate::machine::MachineFailure;

/// What the host must do, in order. Writes and messages are not among it: the shard gives them to
/// its store and its network itself.
#[derive(Debug)]
pub enum ShardEffect<E> {
    /// A machine's own effect.
    Machine {
        /// The group.
        group: GroupId,
        /// What.
        effect: E,
    },
    /// Answers a command of an administrator.
    Answer {
        /// As given with the command.
        ticket: u64,
        /// The answer.
        answer: AdminAnswer,
    },
    /// Read the payload of this entry, report [`crate::ShardInput::EntryRead`].
    ReadEntry {
        /// The group.
        group: GroupId,
        /// The entry.
        index: Index,
    },
    /// Read the group's applied state with [`crate::read_state`], beside the shard's thread, and
    /// report [`crate::ShardInput::StateRead`]. The group applies nothing before.
    ReadState {
        /// The group.
        group: GroupId,
        /// Names the answer.
        read: u64,
    },
    /// [`crate::Shard::status`] says something else now about who leads the group.
    StatusChanged {
        /// The group.
        group: GroupId,
    },
    /// For logs and metrics.
    Notice {
        /// The group.
        group: GroupId,
        /// What happened.
        notice: Notice,
    },
    /// This node should not lead, for these reasons, or may again: for logs and metrics, and to
    /// be said in beats ([`flintmq_consensus::NodeInput::Unfit`]).
    Unfit {
        /// Why.
        reasons: UnfitReasons,
    },
    /// The node must stop. The shard has ceded its leaderships and does nothing any more.
    Fatal(ShardError),
    /// All groups are stopped, and all that they had to write was given to the store.
    Stopped,
}

/// Something to be logged or counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// This node stands for election.
    ElectionStarted {
        /// In which term.
        term: Term,
    },
    /// This node leads and serves.
    ElectionWon {
        /// In which term.
        term: Term,
    },
    /// This node served, and does not any more.
    LeadershipLost {
        /// The term that it led.
        term: Term,
    },
    /// A leadership was handed over, as asked.
    TransferDone {
        /// To this node, as far as was asked.
        to: NodeId,
    },
    /// A leadership that was to be handed over stays here: the other node did not catch up in
    /// time, or cannot be reached.
    TransferAbandoned {
        /// The node.
        to: NodeId,
    },
    /// The end of the log may be lost after unclean stops: the group goes on with what is there.
    HistoryForked {
        /// The new history number.
        history: History,
        /// The last entry that is left.
        last: LogPosition,
        /// The highest index that some replica knew to be committed.
        commit_bound: Index,
    },
    /// Another state takes the place of the group's own.
    StateReplaced {
        /// Whether it is a snapshot's; otherwise nothing is left.
        by_snapshot: bool,
    },
    /// What came in of a snapshot cannot be used; another try follows.
    SnapshotRefused,
    /// This node's disk is so far behind those of the others that another node is to lead.
    OwnWritesLag,
    /// This node is no member of the group any more.
    Removed,
    /// The members drop what this node has of a group that it left.
    LeftoverDropped,
}

/// Why a shard cannot go on. The node stops: an operator has to look at it.
#[derive(Debug, thiserror::Error)]
pub enum ShardError {
    /// The store failed.
    #[error("group={group}: {source}")]
    Storage {
        /// The group.
        group: GroupId,
        /// What failed.
        source: StorageError,
    },
    /// The log or the state cannot be read back.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The store's content does not belong together.
    #[error(transparent)]
    Restore(#[from] RestoreError),
    /// The group's configuration does not let this node vote, and there is no other to ask.
    #[error(
        "this node is not a voter of the group: start it with the data directory that belongs to it, node={node} group={group}"
    )]
    NotAVoter {
        /// The group.
        group: GroupId,
        /// This node.
        node: NodeId,
    },
    /// The group has members on other nodes, of which the configuration knows nothing.
    #[error(
        "the group has members on other nodes: list them as [[cluster_nodes]] and set [peers], group={group} members={members}"
    )]
    SeveralMembers {
        /// The group.
        group: GroupId,
        /// How many members the configuration lists.
        members: usize,
    },
    /// The machine cannot go on.
    #[error("{source}, group={group}")]
    Machine {
        /// The group.
        group: GroupId,
        /// Why.
        source: MachineFailure,
    },
    /// The core gave up.
    #[error("{reason}, group={group}")]
    Stopped {
        /// The group.
        group: GroupId,
        /// Why.
        reason: StopReason,
    },
    /// The store refused a write that it must take.
    #[error("the store refuses to write: {reason}, group={group}")]
    Refused {
        /// The group.
        group: GroupId,
        /// Why.
        reason: RefusedReason,
    },
}

/// An effect that is no machine's.
pub(crate) type Told = ShardEffect<Infallible>;

impl Told {
    /// The same among the effects of machines.
    pub(crate) fn lift<E>(self) -> ShardEffect<E> {
        match self {
            Self::Machine { effect, .. } => match effect {},
            Self::Answer { ticket, answer } => ShardEffect::Answer { ticket, answer },
            Self::ReadEntry { group, index } => ShardEffect::ReadEntry { group, index },
            Self::ReadState { group, read } => ShardEffect::ReadState { group, read },
            Self::StatusChanged { group } => ShardEffect::StatusChanged { group },
            Self::Notice { group, notice } => ShardEffect::Notice { group, notice },
            Self::Unfit { reasons } => ShardEffect::Unfit { reasons },
            Self::Fatal(error) => ShardEffect::Fatal(error),
            Self::Stopped => ShardEffect::Stopped,
        }
    }
}
