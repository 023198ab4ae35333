//! What the host tells a core.

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::{ConfigRegister, Entry, History, Index, LogPosition, Message, NodeId, SnapshotId};

/// What happened outside of the core. Proposals and changes of members have methods of their own,
/// because they have an answer: [`crate::Core::propose`], [`crate::Core::change_members`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// The host has opened the store and hands over; the first input of a core's life.
    Started,
    /// Time passed; due at [`crate::Core::next_deadline`], harmless at any other time.
    Tick,
    /// A message of a peer arrived.
    Message(Message),
    /// The hard state of this save, and of all before it, is fsynced.
    HardStateSynced {
        /// From [`crate::Effect::SaveHardState`].
        save: u64,
    },
    /// This write, and all before it, returned: what it wrote survives the process at least.
    Appended {
        /// From [`crate::Effect::Append`].
        write: u64,
    },
    /// The log is fsynced up to here, as far as it is written. In order with [`Self::Appended`].
    Synced {
        /// The last index known to survive a power loss.
        upto: Index,
    },
    /// Answer to [`crate::Effect::ReadLog`]; empty when the entries are not there any more.
    LogRead {
        /// From the effect.
        read: u64,
        /// Consecutive entries from the index behind `after`.
        entries: Vec<Entry>,
    },
    /// The state machine's checkpoint stands for the log up to here: entries at or below it may be
    /// gone, all of them or those that nothing needs.
    Compacted {
        /// A position at or below the commit index.
        upto: LogPosition,
    },
    /// A peer's process cannot be reached (connection lost, or suspected).
    PeerDown {
        /// Which.
        peer: NodeId,
    },
    /// A peer's process can be reached.
    PeerUp {
        /// Which.
        peer: NodeId,
        /// True when it is not the process that was there before: it leads nothing.
        restarted: bool,
    },
    /// Read at the leader what is decided now: answered by [`crate::Effect::ReadReady`] or
    /// [`crate::Effect::ReadRefused`].
    Read {
        /// The host's number for it.
        read: u64,
    },
    /// Stand for election now, loyal or not: for tests, tools and operators.
    Stand {
        /// Ask first whether anybody would vote. False goes straight to the vote.
        scout: bool,
    },
    /// This node should not lead: it stands for election only when no other did for a long
    /// while. Or it may again.
    Reluctant {
        /// Which of the two.
        reluctant: bool,
    },
    /// Hand the leadership to this voter.
    Transfer {
        /// Who is to lead.
        to: NodeId,
        /// Cede at once, whatever the successor lacks; it synchronises before it serves.
        force: bool,
    },
    /// Give the leadership up, if there is one (clean stop, failing host).
    Cede,
    /// Operator: go on without the voters named, which are off for good, even if nobody can tell
    /// what was acknowledged (docs/internals/consensus.md#when-a-majority-has-lost-its-tail). The
    /// order holds until somebody leads; the voters leave the configuration once the others have
    /// everything. A leader that stops before that leaves it to a new order.
    ForceRecover {
        /// Voters that will never answer again. They come back as new members only.
        dead: BTreeSet<NodeId>,
        /// The history number that the operator has seen; another one voids the order.
        expect_history: History,
        /// The newest of all durable configurations ([`crate::Core::is_hard_state_synced`]) on the
        /// nodes that are left, learners and others included: a replica whose own is older would
        /// not know whom to ask.
        newest: ConfigRegister,
        /// Names the order: greater than every number that an order for this group ever had, and
        /// than its history number. The time in seconds will do. The new history gets this number,
        /// for the dead may have used the next one.
        number: u32,
    },
    /// The group is asked for while it is quiet: let the leader speak.
    Wake,
    /// How many more bytes of entries may be sent to this peer, on top of what is left; a core that
    /// was never told has no limit.
    Allowance {
        /// Which.
        peer: NodeId,
        /// Bytes.
        bytes: u64,
    },
    /// Answer to [`crate::Effect::SnapshotOpen`].
    SnapshotOpened {
        /// Who it is for.
        to: NodeId,
        /// Its name; the position is at or ahead of what was compacted.
        id: SnapshotId,
    },
    /// Answer to [`crate::Effect::SnapshotRead`].
    SnapshotRead {
        /// Who it is for.
        to: NodeId,
        /// Which snapshot.
        id: SnapshotId,
        /// Where the piece begins.
        cursor: Bytes,
        /// The bytes.
        data: Bytes,
        /// Where the next piece begins; none after the last.
        next: Option<Bytes>,
    },
    /// Answer to [`crate::Effect::SnapshotOpen`] or [`crate::Effect::SnapshotRead`] that could not
    /// be carried out: too many are open, the disk refused, the snapshot is gone. What is open of
    /// it is closed by [`crate::Effect::SnapshotClose`]; the core asks again after a while, as long
    /// as the peer needs it.
    SnapshotFailed {
        /// Who it is for.
        to: NodeId,
    },
    /// Answer to [`crate::Effect::SnapshotStage`].
    SnapshotStaged {
        /// Which snapshot.
        id: SnapshotId,
        /// Where the piece began.
        cursor: Bytes,
    },
    /// Answer to [`crate::Effect::SnapshotStage`] or [`crate::Effect::SnapshotInstall`] that could
    /// not be carried out: what came in is damaged or incomplete. Nothing was changed; the snapshot
    /// is taken from its beginning when it is offered again.
    SnapshotRefused {
        /// Which snapshot.
        id: SnapshotId,
    },
    /// Answer to [`crate::Effect::SnapshotInstall`]: the state machine stands at the snapshot.
    SnapshotInstalled {
        /// Which snapshot.
        id: SnapshotId,
    },
    /// A write or an fsync failed. Final: the log on disk can no longer be told.
    StorageFailed,
}
