//! What a group's log drives, and what it may ask of its group.
//!
//! A [`Machine`] is a replicated state machine with a job around it: a partition's queues with the
//! delivery to consumers, or the cluster's metadata. The shard owns it together with the group's
//! consensus and calls it in one fixed order, see [`Machine`]. Through [`Group`] it reads facts of
//! its group and asks for what only the group can do. Neither side does I/O.

use bytes::Bytes;
use flintmq_consensus::{
    ConfigRegister, Entry, EntryKind, GroupId, Index, LogPosition, NodeId, Term, Time,
};
use flintmq_log_store::{AppendKind, CheckpointBatch, QueueRecord, ReadError};

use crate::status::ReplicaStatus;

/// A committed entry, to be applied. Position and term together name it: what was proposed here at
/// the same index under another term is another entry, and did not come to be.
#[derive(Clone, Debug)]
pub struct Committed {
    /// Its place in the log, with the term of the leader that appended it.
    pub position: LogPosition,
    /// What it is for.
    pub kind: EntryKind,
    /// The commands; empty for a leader's no-op.
    pub payload: Bytes,
}

/// Why a proposal was not taken. Nothing was appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotProposed {
    /// This replica does not lead now, or hands its leadership over.
    NotLeader,
    /// Too much is under way: propose again after the next commit.
    WindowFull,
}

/// Why a message to another node was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotSent {
    /// The connection is full: send it again after [`Machine::on_room`].
    Full,
    /// The connection is gone, and with it whom the message was meant for.
    Gone,
}

/// Why a machine cannot go on: the node must stop, because it would serve a wrong state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct MachineFailure(pub String);

/// A replicated state machine and the work around it.
///
/// In each turn the shard hands over what has arrived (`on_…`), then, in this order:
///
/// 1. [`Self::lose_leadership`], if this node led and does not lead any more, **before** anything
///    is applied that the next leader appended;
/// 2. [`Self::restore`], if another state took the place of the group's own;
/// 3. [`Self::apply`] for every committed entry that is not applied yet;
/// 4. [`Self::take_leadership`], if this node has begun to serve;
/// 5. [`Self::work`].
pub trait Machine {
    /// What the node's other parts ask of it.
    type Request;
    /// What the node's other parts have to do for it.
    type Effect;

    /// Takes one request.
    fn on_request(&mut self, group: &mut dyn Group, request: Self::Request);

    /// Whether one more request may be handed over now. While it may not, those who ask wait.
    fn takes_requests(&self) -> bool {
        true
    }

    /// Takes a message of the same group's machine on another node. Messages of one connection
    /// arrive in order and none is missing; a lost connection is told by [`Self::on_peer`].
    fn on_message(&mut self, group: &mut dyn Group, from: NodeId, message: Bytes);

    /// Another node's process can be reached now, or cannot be any more. A restarted process is
    /// told as one that went away and came.
    fn on_peer(&mut self, group: &mut dyn Group, peer: NodeId, up: bool);

    /// The connection to this node has room again.
    fn on_room(&mut self, group: &mut dyn Group, peer: NodeId);

    /// An entry that [`Group::read_entry`] asked for.
    fn on_entry_read(
        &mut self,
        group: &mut dyn Group,
        index: Index,
        read: Result<Bytes, ReadError>,
    );

    /// Answer to [`Group::read_index`]: once everything up to this index is applied, the state
    /// shows all that was committed when it was asked. `None`: the leadership ended before.
    fn on_read_index(&mut self, group: &mut dyn Group, read: u64, index: Option<Index>);

    /// A second has passed, more or less.
    fn on_tick(&mut self, group: &mut dyn Group);

    /// This node does not lead any more. What it proposed and did not see applied has an unknown
    /// outcome.
    fn lose_leadership(&mut self, group: &mut dyn Group);

    /// This node leads, and everything that was committed before is applied.
    fn take_leadership(&mut self, group: &mut dyn Group);

    /// Takes up the state of these records in place of its own.
    ///
    /// # Errors
    /// The records cannot be read: the node stops.
    fn restore(
        &mut self,
        group: &mut dyn Group,
        records: Vec<QueueRecord>,
    ) -> Result<(), MachineFailure>;

    /// These entries at or below the restored state are in the log, ascending. Whatever found some
    /// of them dead may have ended, or kept them for members that are late, before a checkpoint
    /// said so: those that the state does not need are dead, and go only if a checkpoint of this
    /// machine names them. Comes right after [`Self::restore`].
    fn reclaim(&mut self, _group: &mut dyn Group, _stored: &[Index]) {}

    /// Applies one entry. The state depends on the entries alone, so that it is the same on every
    /// node.
    ///
    /// # Errors
    /// The entry cannot be applied: the node stops.
    fn apply(&mut self, group: &mut dyn Group, entry: &Committed) -> Result<(), MachineFailure>;

    /// The end of a turn: proposes what was collected, delivers, sends. True when there is more to
    /// do at once.
    fn work(&mut self, group: &mut dyn Group) -> bool;

    /// When [`Self::work`] is wanted next, if nothing else happens before.
    fn next_deadline(&self) -> Option<Time>;

    /// Writes what was applied since the last checkpoint. False when the store has no room for it
    /// now: it is asked again.
    fn checkpoint(&mut self, group: &mut dyn Group) -> bool;

    /// Whether nothing is collected or under way that the members in reach can commit: the node may
    /// stop.
    fn is_settled(&self, group: &dyn Group) -> bool;

    /// The leader that serves this node's clients, and its term, where that is another node.
    fn leader_elsewhere(&self) -> Option<(NodeId, Term)>;

    /// Moves what is to be done for it to `effects`, in order.
    fn take_effects(&mut self, effects: &mut Vec<Self::Effect>);
}

/// A machine's own group on this node.
pub trait Group {
    /// The group.
    fn id(&self) -> GroupId;
    /// This node.
    fn node(&self) -> NodeId;
    /// The monotonic time of this turn.
    fn now(&self) -> Time;
    /// Milliseconds since 1970, as a majority of the cluster's clocks has it. It never goes back
    /// while the process lives, and steps of this node's own clock do not move it.
    fn wall_ms(&self) -> u64;
    /// Whether [`Self::wall_ms`] may decide that something is over. False while this node's clock
    /// contradicts the others'.
    fn is_clock_trusted(&self) -> bool;
    /// Whether the cluster has other nodes at all.
    fn is_clustered(&self) -> bool;

    /// Present state of the replica.
    fn status(&self) -> ReplicaStatus;
    /// The term.
    fn term(&self) -> Term {
        self.status().term
    }
    /// True while this replica leads and everything committed before is there to be applied.
    fn is_serving(&self) -> bool {
        self.status().serving
    }
    /// True while the leadership is being handed over: nothing can be proposed.
    fn is_transferring(&self) -> bool;
    /// Whether [`Self::propose`] takes an entry now. Not while the leadership is being handed over,
    /// and not while this node's own disk is far behind.
    fn takes_proposals(&self) -> bool {
        self.is_serving() && !self.is_transferring()
    }
    /// Entries proposed and not committed.
    fn under_way(&self) -> usize;
    /// Their bytes.
    fn bytes_under_way(&self) -> u64;
    /// Last entry given to [`Machine::apply`].
    fn applied(&self) -> LogPosition;
    /// The members as this replica knows them.
    fn members(&self) -> &ConfigRegister;
    /// Whether this node holds a replica, as far as it knows.
    fn is_member(&self) -> bool {
        self.members().is_member(self.node())
    }
    /// Whether enough members can be reached to commit anything.
    fn is_quorum_in_reach(&self) -> bool;
    /// Another node that leads, as far as is known, and can be reached.
    fn leader_in_reach(&self) -> Option<NodeId>;
    /// The other nodes that can be reached, members or not, ascending.
    fn peers_in_reach(&self) -> Vec<NodeId>;
    /// The member to lead when this node stops, if one is fit for it.
    fn successor(&self) -> Option<NodeId>;
    /// The member that this leader had better make room for, if one is fit for it.
    fn preferred_leader(&self) -> Option<NodeId>;
    /// Whether this node's disk, or those of so many members that too few are left for a commit,
    /// have no room for new messages.
    fn is_disk_low(&self) -> bool;
    /// Up to where dead entries may go from the log.
    fn compaction_limit(&self) -> Index;
    /// As the leader: the term of an entry that this follower is known to have in its log.
    fn term_held_by(&self, node: NodeId, index: Index) -> Option<Term>;
    /// An entry of the log that is not applied yet.
    fn unapplied(&self, index: Index) -> Option<Entry>;

    /// Proposes one entry and tells where it stands. It is committed when [`Machine::apply`] is
    /// given an entry of exactly this position.
    ///
    /// # Errors
    /// [`NotProposed`]; nothing was appended.
    fn propose(&mut self, payload: Bytes, kind: AppendKind) -> Result<LogPosition, NotProposed>;
    /// Hands the leadership to this voter, once it has caught up.
    fn transfer(&mut self, to: NodeId);
    /// Gives the leadership up at once, if there is one.
    fn cede(&mut self);
    /// Sends a message to the same group's machine on another node.
    ///
    /// # Errors
    /// [`NotSent`]. After [`NotSent::Full`] comes [`Machine::on_room`].
    fn send(&mut self, to: NodeId, message: Bytes) -> Result<(), NotSent>;
    /// Reads an entry's payload beside this thread; answered by [`Machine::on_entry_read`].
    fn read_entry(&mut self, index: Index);
    /// Asks what is committed now, as the leader: answered by [`Machine::on_read_index`] with the
    /// returned number.
    fn read_index(&mut self) -> u64;
    /// Writes a checkpoint of the applied state.
    ///
    /// # Errors
    /// The batch comes back: there is no room for it now, or another state is about to take the
    /// place of the one that it is of. Offer it again at the next tick, unless
    /// [`Machine::restore`] came in between.
    fn checkpoint(&mut self, batch: CheckpointBatch) -> Result<(), CheckpointBatch>;
}
