//! One rule of the protocol broken at a time, to show that the checks would notice.
//!
//! Without the feature `mutants` this is a constant `false` and costs nothing.

/// A tempting shortcut that loses data or elects two leaders
/// (docs/internals/verification.md#the-broken-rules).
#[cfg(feature = "mutants")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)]
pub enum Mutant {
    W01LossUndetected,
    W02RecoveringCountsInSync,
    W03GrantWithoutEpoch,
    W04TermNotDurable,
    W05GrantOfOlderTerm,
    W06CommitOldTermsByCounting,
    W07ServeWithoutSync,
    W08RejoinOnContact,
    W08RejoinWithoutLog,
    W09RejoinFromAnyPeer,
    W10GrantWhileSyncing,
    W11AckUnverified,
    W12CountAcksOfOlderTerms,
    W13ChooseLongestLog,
    W14VoteForAnyConfig,
    W15NoRestamp,
    W16ChangeBeforeConfigIsHeld,
    W17ChangeBeforeLogIsHeld,
    W18ResumeLeadership,
    W19LeaseOutlivesCession,
}

#[cfg(feature = "mutants")]
impl Mutant {
    /// All of them, in order.
    pub const ALL: [Self; 20] = [
        Self::W01LossUndetected,
        Self::W02RecoveringCountsInSync,
        Self::W03GrantWithoutEpoch,
        Self::W04TermNotDurable,
        Self::W05GrantOfOlderTerm,
        Self::W06CommitOldTermsByCounting,
        Self::W07ServeWithoutSync,
        Self::W08RejoinOnContact,
        Self::W08RejoinWithoutLog,
        Self::W09RejoinFromAnyPeer,
        Self::W10GrantWhileSyncing,
        Self::W11AckUnverified,
        Self::W12CountAcksOfOlderTerms,
        Self::W13ChooseLongestLog,
        Self::W14VoteForAnyConfig,
        Self::W15NoRestamp,
        Self::W16ChangeBeforeConfigIsHeld,
        Self::W17ChangeBeforeLogIsHeld,
        Self::W18ResumeLeadership,
        Self::W19LeaseOutlivesCession,
    ];
}

/// A rule of the node around its groups, broken.
#[cfg(feature = "mutants")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NodeMutant {
    /// A snapshot that failed counts as being sent for ever.
    N01SnapshotNotRetried,
    /// A node that should not lead keeps what it leads.
    N02UnfitKeepsLeading,
    /// Messages of a process count before the node is told of it.
    N03EarlyMessagesCount,
}

#[cfg(feature = "mutants")]
impl NodeMutant {
    /// All of them, in order.
    pub const ALL: [Self; 3] =
        [Self::N01SnapshotNotRetried, Self::N02UnfitKeepsLeading, Self::N03EarlyMessagesCount];
}

/// True when the node is told to break this rule.
#[cfg(feature = "mutants")]
macro_rules! node_broken {
    ($settings:expr, $rule:ident) => {
        $settings.mutant == Some(crate::NodeMutant::$rule)
    };
}

/// Never: rules are not broken without the feature.
#[cfg(not(feature = "mutants"))]
macro_rules! node_broken {
    ($settings:expr, $rule:ident) => {{
        let _ = &$settings;
        false
    }};
}

/// True when the replica is told to break this rule.
#[cfg(feature = "mutants")]
macro_rules! broken {
    ($core:expr, $rule:ident) => {
        $core.settings.mutant == Some(crate::Mutant::$rule)
    };
}

/// Never: rules are not broken without the feature.
#[cfg(not(feature = "mutants"))]
macro_rules! broken {
    ($core:expr, $rule:ident) => {{
        let _ = &$core;
        false
    }};
}

pub(crate) use {broken, node_broken};
