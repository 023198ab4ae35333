//! Whether runs got to where it is interesting.

use std::fmt;

macro_rules! situations {
    ($($(#[doc = $doc:expr])* $name:ident,)*) => {
        /// Something that must happen in some of many runs, else they prove little.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Situation {
            $($(#[doc = $doc])* $name,)*
        }

        impl Situation {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)*];
        }
    };
}

situations! {
    /// A process ended, and another began with the same disk.
    Crashed,
    /// A node lost power.
    LostPower,
    /// A power loss took writes along.
    LostTail,
    /// A process did not run for a while.
    Paused,
    /// A shard was not stepped for a while, although its node beat on.
    ShardStalled,
    /// A node stopped in good order.
    StoppedInOrder,
    /// A link was cut in both directions.
    CutBothWays,
    /// A link was cut in one direction.
    CutOneWay,
    /// A connection was replaced, and frames were lost without an error.
    FramesLostSilently,
    /// A connection was lost, as both ends were told.
    ConnectionLost,
    /// A message found the connection full.
    SentIntoFull,
    /// A message found no connection.
    SentIntoGone,
    /// There was room again.
    RoomAgain,
    /// Packets got lost.
    PacketLost,
    /// A disk stalled.
    DiskStalled,
    /// A disk was nearly full.
    DiskLow,
    /// A store had no room for a request.
    StoreFull,
    /// A snapshot could not be opened or read.
    SnapshotFailed,
    /// An entry could not be read.
    ReadFailed,
    /// All snapshots were closed by their age.
    SnapshotsExpired,
    /// A node found that it should not lead, or may again.
    Unfit,
    /// A wall clock jumped.
    ClockJumped,
    /// A leadership was handed over by an administrator.
    Transferred,
    /// A leadership was to be handed over and was not.
    NotTransferred,
    /// A leadership began.
    LeadershipTaken,
    /// A leadership ended.
    LeadershipLost,
    /// A leader with pending PUTs of its clients lost its leadership.
    LostWithPending,
    /// An entry of a leader was replaced by another at the same index.
    EntryReplaced,
    /// A snapshot took the place of a state.
    SnapshotInstalled,
    /// A replica gave its state up.
    StateEmptied,
    /// A member was added or removed.
    MembersChanged,
    /// A replica that left dropped its data.
    LeftoverDropped,
    /// A node led a group with clients on a node that holds no replica.
    ServedNonMember,
    /// A PUT was acknowledged.
    Acknowledged,
    /// A PUT was acknowledged through a forwarder.
    AcknowledgedThroughForwarder,
    /// A PUT was refused.
    Refused,
    /// A PUT was sent again under its GUID.
    Retransmitted,
    /// The log found a message that was there already.
    DuplicateInLog,
    /// A message was delivered.
    Delivered,
    /// A message was delivered through a forwarder.
    DeliveredThroughForwarder,
    /// A message was delivered again.
    Redelivered,
    /// A message was delivered again to a consumer that never shared its queue.
    RedeliveredToLoneConsumer,
    /// A message was looked up in the store for delivery.
    EntryRead,
    /// A message was confirmed.
    Confirmed,
    /// Subscriptions changed while messages flowed.
    Reconfigured,
    /// A handle was closed while PUTs were not answered.
    ClosedWithPending,
    /// A client died.
    ClientDied,
    /// A client said goodbye.
    ClientLeft,
    /// A client was slow.
    ClientSlow,
    /// The broker ended a session.
    SessionEnded,
    /// An idle queue was removed.
    IdleQueueRemoved,
    /// An idle queue's removal was asked for and refused.
    RemovalRefused,
    /// A queue was purged.
    Purged,
    /// Messages outlived their time to live.
    Expired,
    /// The controller gave a queue a place.
    QueuePlaced,
    /// A queue was deleted while it was opened, and a new place was asked for.
    PlacedAgain,
    /// The place of a deleted queue was given up.
    PlaceGivenUp,
    /// A domain's limit of queues was reached.
    TooManyQueues,
    /// A change of a domain was answered and in force.
    DomainChanged,
    /// What an operator asked for did not fit.
    OperatorRefused,
    /// A group's members were moved.
    MembersMoved,
    /// A node was drained.
    NodeDrained,
    /// A drained node may lead again.
    DrainUndone,
    /// A node was added to the membership.
    NodeAdded,
    /// A node was added to take the place of another.
    NodeReplaced,
    /// A node with an empty directory joined.
    NodeJoined,
    /// A node without a leader of the controller was told of a node that it did not know.
    NodeNamed,
    /// A node was to leave.
    NodeRemoved,
    /// A node that left was forgotten.
    NodeForgotten,
    /// A majority of the nodes was lost with their disks.
    MajorityLost,
    /// A group went on without a lost majority.
    GroupRecovered,
    /// Committed entries were lost with a majority.
    CommittedLost,
}

/// How often each situation came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coverage {
    counts: Vec<u64>,
}

impl Default for Coverage {
    fn default() -> Self {
        Self { counts: vec![0; Situation::ALL.len()] }
    }
}

impl Coverage {
    pub(crate) fn saw(&mut self, situation: Situation) {
        self.saw_times(situation, 1);
    }

    pub(crate) fn saw_times(&mut self, situation: Situation, times: u64) {
        self.counts[situation as usize] += times;
    }

    /// How often it came.
    #[must_use]
    pub fn count(&self, situation: Situation) -> u64 {
        self.counts[situation as usize]
    }

    /// Adds what another run saw.
    pub fn add(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
    }

    /// What never came.
    #[must_use]
    pub fn missing(&self) -> Vec<Situation> {
        Situation::ALL.iter().copied().filter(|situation| self.count(*situation) == 0).collect()
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for situation in Situation::ALL {
            writeln!(f, "{:>10}  {situation:?}", self.count(*situation))?;
        }
        Ok(())
    }
}
