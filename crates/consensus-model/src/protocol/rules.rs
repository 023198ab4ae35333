//! What one run of the model explores: its bounds, and the one rule that it may break.

/// How far a run goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Nodes, at most 8.
    pub nodes: u8,
    /// How many of them vote at first; the others are learners.
    pub voters: u8,
    /// How many of them ever stand for election.
    pub candidates: u8,
    /// The greatest term.
    pub terms: u8,
    /// The longest log.
    pub len: u8,
    /// Power losses, over all nodes.
    pub losses: u8,
    /// Changes of members, entering and leaving a joint configuration counted separately.
    pub changes: u8,
    /// Forced recoveries: all voters reported, or the operator's order.
    pub forks: u8,
    /// Nodes that the operator may name dead.
    pub dead: u8,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            nodes: 3,
            voters: 3,
            candidates: 8,
            terms: 2,
            len: 3,
            losses: 2,
            changes: 0,
            forks: 0,
            dead: 0,
        }
    }
}

/// What a run explores beyond the plain protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// A power loss may undo a truncation: any earlier version of the log can come back.
    pub versions: bool,
    /// A fetch of the sync phase may stop half-way.
    pub partial: bool,
    /// Changes of several members at once, through a joint configuration.
    pub joint: bool,
    /// Acknowledgements of recovering nodes are not counted (allowed, not needed).
    pub ignore_recovering: bool,
    /// Merge states that differ only in the names of the nodes.
    pub symmetry: bool,
    /// Look for states that must be reachable, to show that a run explores what it is about.
    pub goals: bool,
}

macro_rules! shortcuts {
    ($($(#[doc = $doc:literal])* $name:ident = $word:literal,)*) => {
        /// A tempting shortcut that loses an acknowledged entry or elects two leaders.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Shortcut {
            $($(#[doc = $doc])* $name,)*
        }

        impl Shortcut {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The name on the command line.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => $word,)* }
            }
        }
    };
}

shortcuts! {
    /// W1: a lost tail is not noticed.
    LossUndetected = "w01_loss_undetected",
    /// W2: recovering nodes count in the sync quorum.
    RecoveringInSync = "w02_recovering_in_sync",
    /// W3: a grant of an earlier recovery is taken.
    GrantWithoutEpoch = "w03_grant_without_epoch",
    /// W4: the term is not durable.
    VolatileTerm = "w04_volatile_term",
    /// W5: a grant of an older term is taken.
    GrantOfOlderTerm = "w05_grant_of_older_term",
    /// W6: entries of older terms are committed by counting.
    CommitOldTerms = "w06_commit_old_terms",
    /// W7: the elected serves without a sync phase.
    NoSync = "w07_no_sync",
    /// W8: normal again at the first word of a leader.
    RejoinOnContact = "w08_rejoin_on_contact",
    /// W8: normal again with a grant, whatever the log has.
    RejoinWithoutLog = "w08_rejoin_without_log",
    /// W9: normal again with the log of any peer.
    RejoinFromPeer = "w09_rejoin_from_peer",
    /// W10: a leader grants in its sync phase.
    GrantWhileSyncing = "w10_grant_while_syncing",
    /// W11: the own last index is acknowledged.
    AckUnverified = "w11_ack_unverified",
    /// W12: acknowledgements of older terms count.
    CountOldAcks = "w12_count_old_acks",
    /// W13: the longest log is chosen, whatever its last term.
    ChooseLongest = "w13_choose_longest",
    /// W14: a vote whatever the candidate's configuration.
    VoteForAnyConfig = "w14_vote_for_any_config",
    /// W15: the elected does not re-stamp its configuration.
    NoRestamp = "w15_no_restamp",
    /// W16: a change before a quorum holds the configuration.
    ChangeBeforeConfig = "w16_change_before_config",
    /// W17: a change before a quorum has what was committed.
    ChangeBeforeLog = "w17_change_before_log",
    /// Several members change at once without a joint configuration.
    ChangeWithoutJoint = "change_without_joint",
    /// The forced leader takes the next term, which the dead may have used.
    ForceInNextTerm = "force_in_next_term",
    /// The dead leave the configuration before the others have what the forced leader chose.
    ForceDropsFirst = "force_drops_first",
    /// Nodes that the operator named dead go on.
    DeadGoOn = "dead_go_on",
    /// A voter that acknowledges entries and keeps none.
    WitnessAcks = "witness_acks",
}

impl Shortcut {
    /// The shortcut of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|shortcut| shortcut.name() == name)
    }
}
