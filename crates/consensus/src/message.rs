//! What replicas of a group tell each other (docs/internals/consensus.md#messages).

use std::sync::Arc;

use bytes::Bytes;

use crate::{
    ConfigRegister, ConfigStamp, CreationId, Entry, Epoch, GroupId, History, Index, LogPosition,
    NodeId, Term,
};

/// One message from a replica to another of the same group. May be lost, doubled, delayed and
/// overtaken.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Message {
    /// The group.
    pub group: GroupId,
    /// Which making of the group.
    pub creation: CreationId,
    /// The sender.
    pub from: NodeId,
    /// The receiver.
    pub to: NodeId,
    /// The sender's term, durable when the message leaves. For [`Body::Cede`] the ceded term.
    pub term: Term,
    /// What is said.
    pub body: Body,
}

/// Proof that a leadership ended: whoever follows exactly this leader in exactly this term need not
/// be loyal to it any more (docs/internals/consensus.md#giving-leadership-up).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cession {
    /// Who led.
    pub leader: NodeId,
    /// The ceded term.
    pub term: Term,
}

/// What a recovering replica has to hold before it counts again
/// (docs/internals/consensus.md#lost-tails).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RejoinTarget {
    /// The loss that this is about.
    pub epoch: Epoch,
    /// The leader's last entry when it learnt of that loss.
    pub target: LogPosition,
}

/// Names one transfer of a snapshot, for resuming it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SnapshotId {
    /// Who sends.
    pub source: NodeId,
    /// The sender's count; the host keeps the same number for the same content.
    pub number: u64,
    /// The last entry that the snapshot stands for.
    pub position: LogPosition,
}

/// Answer to [`Body::Fetch`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum FetchOutcome {
    /// The entries behind `prev`, as many as fit.
    Entries(Vec<Entry>),
    /// `prev` is not in this log; the greatest own position that may match.
    Conflict(LogPosition),
    /// The entry that was asked for is only part of a snapshot, which is offered next.
    Compacted,
    /// The log no longer reaches as far as was told. Ask again for what there is.
    Gone,
}

/// Vote and answer to a sync request in one (docs/internals/consensus.md#sync-phase).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Answer {
    /// Whether this is also a vote for the receiver.
    pub vote: bool,
    /// First index that is in the log and not only in the snapshot.
    pub first: Index,
    /// The last entry.
    pub last: LogPosition,
    /// The own commit index.
    pub commit: Index,
    /// Set while the tail of the log may be lost.
    pub recovering: Option<Epoch>,
    /// The own history number.
    pub history: History,
}

/// The kinds of messages.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Body {
    /// Would you vote for me in term `next`? Changes nothing at the receiver.
    Scout {
        /// The term that the sender would stand in.
        next: Term,
        /// Stamp of the sender's configuration.
        config: ConfigStamp,
        /// The sender's last entry.
        last: LogPosition,
        /// Why loyalty to the leader may end.
        cession: Option<Cession>,
    },
    /// Answer to [`Body::Scout`].
    ScoutReply {
        /// The term that was asked for.
        next: Term,
        /// Whether the vote would be given.
        granted: bool,
        /// The own last entry.
        last: LogPosition,
        /// Set while the tail of the log may be lost.
        recovering: bool,
        /// The live leader that the vote is refused for, and its term.
        leader: Option<Cession>,
        /// The newest cession that the sender knows of, its own included: the scout shows it to
        /// those who are still loyal because the news was lost.
        ceded: Option<Cession>,
        /// The own configuration, where it is newer than the scout's.
        newer: Option<Arc<ConfigRegister>>,
    },
    /// Vote for me in this message's term.
    Propose {
        /// Stamp of the candidate's configuration.
        config: ConfigStamp,
        /// Why loyalty to the leader may end.
        cession: Option<Cession>,
    },
    /// I am elected in this message's term: what have you got? Also the elected's sign of life.
    SyncRequest {
        /// Stamp of the sender's configuration.
        config: ConfigStamp,
    },
    /// Answer to [`Body::Propose`] and [`Body::SyncRequest`]; final for its term.
    Reply(Answer),
    /// Refusal of any message of an old term, or of an old configuration. The message's term and
    /// the configuration tell why.
    Refused {
        /// The own configuration, where it is newer.
        newer: Option<Arc<ConfigRegister>>,
    },
    /// The syncing leader asks for entries behind `prev`.
    Fetch {
        /// What the leader has.
        prev: LogPosition,
        /// The last entry wanted.
        upto: LogPosition,
        /// How many bytes may come at once.
        max_bytes: u32,
    },
    /// Answer to [`Body::Fetch`].
    FetchReply {
        /// As asked.
        prev: LogPosition,
        /// What was found.
        outcome: FetchOutcome,
    },
    /// Entries from the leader of this message's term, or none: a probe, or news of the commit.
    Append {
        /// The position before the first entry.
        prev: LogPosition,
        /// Consecutive entries.
        entries: Vec<Entry>,
        /// The leader's commit index.
        commit: Index,
        /// The leader's history number.
        history: History,
        /// Stamp of the leader's configuration.
        config: ConfigStamp,
        /// The configuration itself, where the receiver's may be older.
        newer: Option<Arc<ConfigRegister>>,
        /// Repeats the target of a recovering receiver.
        rejoin: Option<RejoinTarget>,
    },
    /// Answer to [`Body::Append`], sent after the write returned.
    Ack {
        /// Up to where the log equals the leader's (docs/internals/consensus.md#replication), or
        /// where to probe next.
        outcome: Result<Index, LogPosition>,
        /// Up to where the own log is fsynced.
        synced: Index,
        /// Stamp of the configuration that is durable here.
        config: ConfigStamp,
        /// Set while the tail of the log may be lost.
        recovering: Option<Epoch>,
    },
    /// From a leader that serves to a recovering replica.
    RejoinGrant(RejoinTarget),
    /// Do you still follow me? Confirms reads.
    Confirm {
        /// The leader's count of such questions.
        round: u64,
    },
    /// Yes, as of this round.
    Confirmed {
        /// As asked.
        round: u64,
    },
    /// The leadership of this message's term has ended, for good.
    Cede {
        /// Who should stand at once.
        successor: Option<NodeId>,
    },
    /// Nothing is going on: all of the log is decided, no word will follow until something does.
    Quiesce {
        /// The last entry, which is committed.
        last: LogPosition,
        /// Members that did not answer and may lag: their return wakes the group.
        lagging: Vec<NodeId>,
    },
    /// Answer to [`Body::Quiesce`].
    Quiesced {
        /// As told.
        last: LogPosition,
    },
    /// From a follower of a quiesced group to its leader: let me hear from you.
    Wake,
    /// A snapshot is there for a replica whose next entry is compacted.
    SnapshotOffer {
        /// Names the transfer.
        id: SnapshotId,
        /// History number of the snapshot.
        history: History,
        /// Stamp of the sender's configuration, when it leads; a source of a syncing leader has
        /// none.
        config: Option<ConfigStamp>,
        /// The configuration itself, where the receiver's may be older.
        newer: Option<Arc<ConfigRegister>>,
    },
    /// The receiver wants the chunk at this cursor; the empty cursor is the beginning.
    SnapshotWanted {
        /// Names the transfer.
        id: SnapshotId,
        /// Where to go on.
        cursor: Bytes,
    },
    /// One piece of a snapshot.
    SnapshotChunk {
        /// Names the transfer.
        id: SnapshotId,
        /// Where it begins.
        cursor: Bytes,
        /// The bytes, opaque here.
        data: Bytes,
        /// CRC-32C over cursor, data and next cursor.
        crc: u32,
        /// Where the next piece begins; none after the last.
        next: Option<Bytes>,
    },
}
