//! What a core asks its host to do.

use bytes::Bytes;

use crate::{
    Entry, Epoch, HardState, History, Index, LogPosition, Message, NodeId, Role, SnapshotId, Term,
};

/// What the host must do, in the order in which effects are given.
///
/// Whatever depends on a write is held back by the core until the write is reported: an effect that
/// the host gets may be carried out at once.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Send it; it may be lost. All that it promises is durable or written already.
    Send(Message),
    /// Write and **fsync**, then report [`crate::Input::HardStateSynced`] with this number. A later
    /// state replaces an earlier one that is not written yet.
    SaveHardState {
        /// Numbers the saves of this group.
        save: u64,
        /// All of the state.
        state: HardState,
    },
    /// Cut the log before `truncate_from`, where given, append the entries, then report
    /// [`crate::Input::Appended`] with this number once the write call returned (or its fsync, in a
    /// group of synchronous durability). Writes keep their order.
    Append {
        /// Numbers the writes of this group.
        write: u64,
        /// First index to remove.
        truncate_from: Option<Index>,
        /// Consecutive entries that follow what is left.
        entries: Vec<Entry>,
    },
    /// A forced recovery that this replica had no part in changed the past: drop all of the log
    /// **and** all of the machine's state, in one write, **fsync**, then report
    /// [`crate::Input::Appended`]. The leader's log, or a snapshot, follows.
    Reset {
        /// Numbers the writes of this group, together with [`Effect::Append`].
        write: u64,
    },
    /// Read entries behind `after`, up to `upto`, at least one, then as many as fit; report
    /// [`crate::Input::LogRead`] with this number.
    ReadLog {
        /// Numbers the reads of this group.
        read: u64,
        /// The index before the first wanted.
        after: Index,
        /// The last index wanted.
        upto: Index,
        /// Bytes of payload at most.
        max_bytes: u32,
    },
    /// Entries up to this index are decided: apply them in order, then let their acknowledgements
    /// leave. The own writes of some may still be under way, as given by [`Self::Append`] before:
    /// the entries to apply are those of the log **with** these writes, and whatever is written of
    /// applying them must come behind them on the disk. (Waiting here would make a leader as slow
    /// as its own disk, when a quorum of others is quicker.)
    Commit {
        /// The last decided entry.
        upto: Index,
    },
    /// The barrier of the own leadership is committed: reads may be served, proposals are
    /// acknowledged as they commit.
    Serving {
        /// The term led.
        term: Term,
    },
    /// Role or leader changed; for logs, metrics, and for closing the service. Proposals that were
    /// not committed when a leadership ends have an unknown outcome.
    RoleChanged {
        /// The new role.
        role: Role,
        /// The term it is true for.
        term: Term,
        /// Who leads that term, where known.
        leader: Option<NodeId>,
    },
    /// The state of this index answers the read, as soon as it is applied.
    ReadReady {
        /// As given with the read.
        read: u64,
        /// Apply up to here first.
        index: Index,
    },
    /// The leadership ended before the read was confirmed: retry at the leader.
    ReadRefused {
        /// As given with the read.
        read: u64,
    },
    /// This replica has all that was acknowledged again: write `rejoined_epoch`, no fsync needed.
    Rejoined {
        /// The loss that is made good.
        epoch: Epoch,
    },
    /// Nobody can tell any more what was acknowledged: the group goes on with the best log there
    /// is, under a new history number. An operator must hear of it
    /// (docs/internals/consensus.md#when-a-majority-has-lost-its-tail).
    HistoryForked {
        /// The new history number.
        history: History,
        /// The last entry that is left.
        last: LogPosition,
        /// The highest index that some replica knew to be decided.
        commit_bound: Index,
    },
    /// Open a snapshot of the applied state for this peer and report
    /// [`crate::Input::SnapshotOpened`], or [`crate::Input::SnapshotFailed`].
    SnapshotOpen {
        /// Who needs it.
        to: NodeId,
    },
    /// Read the piece at this cursor, report [`crate::Input::SnapshotRead`], or
    /// [`crate::Input::SnapshotFailed`].
    SnapshotRead {
        /// Who gets it.
        to: NodeId,
        /// Which snapshot.
        id: SnapshotId,
        /// Where to read; empty is the beginning.
        cursor: Bytes,
        /// Bytes at most.
        max_bytes: u32,
    },
    /// The transfer ended or was given up: the snapshot may be closed.
    SnapshotClose {
        /// Who it was for.
        to: NodeId,
        /// Which snapshot.
        id: SnapshotId,
    },
    /// Keep this piece aside, durably or not, and report [`crate::Input::SnapshotStaged`]. An empty
    /// cursor begins anew and drops what was kept before.
    SnapshotStage {
        /// Which snapshot.
        id: SnapshotId,
        /// Where it begins.
        cursor: Bytes,
        /// The bytes.
        data: Bytes,
    },
    /// All pieces are there: switch to them in **one** write together with removing the log up to
    /// the snapshot's position (all of it, unless `keep_log_after`), **fsync**, then report
    /// [`crate::Input::SnapshotInstalled`].
    SnapshotInstall {
        /// Which snapshot.
        id: SnapshotId,
        /// True when the entries behind the position belong to the same log and stay.
        keep_log_after: bool,
    },
    /// A transfer of leadership that was asked for did not come about in time; the leader goes on.
    TransferAbandoned {
        /// Whom it was meant for.
        to: NodeId,
    },
    /// This replica learnt that it is no longer a member of the group. Its log and state must stay
    /// until the group's *leader* tells [`crate::Core::change_complete`]: before, what was
    /// acknowledged may be nowhere else. Its **hard state must stay** for as long as the node keeps
    /// its id: if the group ever takes it back, forgetting what it voted for would let two nodes
    /// lead one term.
    Removed,
    /// Something is wrong that no fault explains. The replica does nothing any more; look at the
    /// node, and replace it with an empty one.
    Stop {
        /// What was found.
        reason: StopReason,
    },
}

/// What makes a replica stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum StopReason {
    /// The leader's log contradicts what is decided here.
    #[error(
        "the leader's log contradicts what is decided here: replace this replica with an empty one, index={index} leader_term={leader_term}"
    )]
    DecidedEntryContradicted {
        /// The first index that differs.
        index: Index,
        /// The term of the leader.
        leader_term: Term,
    },
    /// A write or an fsync failed.
    #[error("a write failed: restart the node once its disk works")]
    StorageFailed,
}
