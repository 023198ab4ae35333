//! Timing, windows and policies of a group. The defaults suit nodes on one network.

use std::time::Duration;

/// What a group does when more voters have lost their tails than a majority can spare
/// (docs/internals/consensus.md#when-a-majority-has-lost-its-tail).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum RecoveryPolicy {
    /// Go on by itself once *every* voter has told what it has: whatever survives on any disk is
    /// kept, the history number rises.
    #[default]
    AllReported,
    /// Never without [`crate::Input::ForceRecover`].
    Strict,
}

/// Reads without a round of messages, for a stated price: the clocks of all nodes must run at rates
/// that differ by no more than the drift (docs/internals/consensus.md#reads).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Lease {
    /// How long a voter stays loyal after it confirmed a leader.
    pub duration: Duration,
    /// Greatest difference of two clocks' rates, in parts per million.
    pub drift_ppm: u32,
}

/// All settings of a group's replica.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Settings {
    /// Shortest delay before a replica without a leader scouts.
    pub election_delay_min: Duration,
    /// Longest delay; the draw is uniform between the two.
    pub election_delay_max: Duration,
    /// How long scouts and candidates wait for their answers.
    pub round_timeout: Duration,
    /// How often an elected leader repeats what was not answered.
    pub sync_retry: Duration,
    /// How long an appending leader waits for an acknowledgement before it probes.
    pub append_retry: Duration,
    /// How long after its commit index rose an otherwise silent leader tells its followers.
    pub commit_delay: Duration,
    /// How long a leader may miss a majority before it cedes, and how long a graceful transfer may
    /// take.
    pub election_timeout: Duration,
    /// How long nothing has happened before a leader quiesces its group.
    pub quiesce_after: Duration,
    /// Unacknowledged entries per follower at most.
    pub window_entries: u32,
    /// Unacknowledged bytes per follower at most; one entry may exceed it.
    pub window_bytes: u64,
    /// Entries in one message at most.
    pub message_entries: u32,
    /// Bytes of payload in one message at most; one entry may exceed it.
    pub message_bytes: u32,
    /// Proposed and undecided bytes before proposals are refused.
    pub proposal_window_bytes: u64,
    /// Bytes of recent entries that a leader keeps for its followers; older ones are read back from
    /// the log.
    pub cache_bytes: u64,
    /// Bytes of one piece of a snapshot at most.
    pub snapshot_chunk_bytes: u32,
    /// What to do after a majority's loss.
    pub recovery: RecoveryPolicy,
    /// Reads by lease; off by default.
    pub lease: Option<Lease>,
    /// The rule to break, for the tests that show that each one matters.
    #[cfg(feature = "mutants")]
    pub mutant: Option<crate::Mutant>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            election_delay_min: Duration::from_millis(50),
            election_delay_max: Duration::from_millis(300),
            round_timeout: Duration::from_millis(150),
            sync_retry: Duration::from_millis(200),
            append_retry: Duration::from_millis(200),
            commit_delay: Duration::from_millis(25),
            election_timeout: Duration::from_millis(1000),
            quiesce_after: Duration::from_millis(500),
            window_entries: 4096,
            window_bytes: 8 << 20,
            message_entries: 256,
            message_bytes: 1 << 20,
            proposal_window_bytes: 32 << 20,
            cache_bytes: 16 << 20,
            snapshot_chunk_bytes: 1 << 20,
            recovery: RecoveryPolicy::default(),
            lease: None,
            #[cfg(feature = "mutants")]
            mutant: None,
        }
    }
}
