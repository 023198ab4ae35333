//! Whether runs got to where it is interesting.

use std::fmt;

macro_rules! situations {
    ($($(#[doc = $doc:expr])* $name:ident,)*) => {
        /// Something that must have happened in some of many runs, else they prove little.
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
    /// A process ended and left what it wrote.
    Crashed,
    /// A node lost power.
    LostPower,
    /// A power loss cost writes.
    LostTail,
    /// Several nodes were down at once for want of power.
    LostPowerTogether,
    /// A replica that recovers lost power again.
    LostAgainWhileRecovering,
    /// A node was stopped in good order.
    StoppedCleanly,
    /// A disk failed.
    DiskFailed,
    /// A disk took no writes for a while.
    DiskFull,
    /// A node was replaced for good.
    NodeReplaced,
    /// A process was not run for a while.
    Suspended,
    /// An elected leader had to fetch what it lacked.
    SyncedByFetching,
    /// The fetched log began with a conflict.
    FetchConflicted,
    /// The source of a fetch went away meanwhile.
    FetchSourceLost,
    /// The leader went away in its sync phase.
    SyncingLeaderLost,
    /// A syncing leader took a snapshot from its source.
    SyncedBySnapshot,
    /// A replica rejoined.
    Rejoined,
    /// A replica rejoined that had to cut its log.
    RejoinedWithTruncation,
    /// Several groups of a node rejoined at once.
    RejoinedInBulk,
    /// A recovering replica was elected and became ready.
    RecoveringLed,
    /// A target named for an earlier loss arrived after a later one.
    OldGrantArrived,
    /// A cession was lost on the way.
    CedeLost,
    /// Power was lost while a snapshot was being taken.
    LostDuringSnapshot,
    /// All reported, and the best there was had to do.
    ForkedByPolicy,
    /// An operator forced a group to go on.
    ForkedByOperator,
    /// An acknowledged entry survived nowhere and was given up by force.
    GivenUpByForce,
    /// A replica that was not asked gave its past up.
    Reset,
    /// A learner was added.
    LearnerAdded,
    /// A learner was promoted.
    Promoted,
    /// A voter was removed.
    VoterRemoved,
    /// Several members began to change at once.
    JointBegun,
    /// Several members finished changing at once.
    JointDone,
    /// A leader went away while several members changed.
    JointInterrupted,
    /// A leader was deposed before its change was held by a majority.
    ChangeDeposed,
    /// A group was handed over in good order.
    Transferred,
    /// A group was handed over at once.
    TransferForced,
    /// A transfer did not come about.
    TransferAbandoned,
    /// A read was answered with a round of messages.
    Read,
    /// A read was answered at once, by lease.
    LeaseRead,
    /// A read was refused.
    ReadRefused,
    /// A follower answered a read by token.
    FollowerRead,
    /// A proposal was answered from the window of its producer.
    AnsweredFromWindow,
    /// A proposal was refused because too much was under way.
    WindowFull,
    /// A group went to rest.
    Quiesced,
    /// A group at rest went on.
    Woke,
    /// A snapshot was offered.
    SnapshotOffered,
    /// A snapshot was taken.
    SnapshotInstalled,
    /// A snapshot could not be opened.
    SnapshotNotOpened,
    /// A snapshot was refused because too many are open.
    SnapshotBusy,
    /// A piece of a snapshot could not be read.
    SnapshotNotRead,
    /// A receiver's store refused a piece of a snapshot.
    SnapshotRefused,
    /// A snapshot was taken in front of a log that stayed.
    SnapshotKeptLog,
    /// A snapshot went on where it was interrupted.
    SnapshotResumed,
    /// Entries were cut from a log.
    Truncated,
    /// Entries were read back for a member that lagged.
    ReadBack,
    /// A link worked in one direction.
    OneWay,
    /// A peer's silence was noticed.
    Suspected,
    /// A packet of a process came through before the groups were told of that process.
    EarlyPacket,
    /// A node that should not lead handed over what it led.
    UnfitHandsOver,
    /// A run came right although one node should not lead.
    SettledWithUnfit,
    /// A node fell silent because its groups were not stepped.
    FellSilent,
    /// A replica was removed from its group and deleted.
    Deleted,
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
        self.counts[situation as usize] += 1;
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
