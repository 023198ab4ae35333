//! One rule of the driver broken at a time, to show that the cluster's simulator notices.
//!
//! Without the feature `mutants` nothing is broken, and asking costs nothing.

/// A rule that may be broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mutant {
    /// A deletion is forwarded without its condition.
    ConditionDropped,
    /// Checkpoints go to the store ahead of appends that wait.
    CheckpointsOvertake,
    /// Peers that were never heard count as up.
    PeersStartUp,
    /// A snapshot that cannot be opened or read is not tried again.
    SnapshotNotRetried,
    /// Answers to configure and close requests overtake messages that wait for a read.
    AnswersOvertake,
    /// Frames that are missing are not noticed.
    GapsUnnoticed,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::ConditionDropped,
        Self::CheckpointsOvertake,
        Self::PeersStartUp,
        Self::SnapshotNotRetried,
        Self::AnswersOvertake,
        Self::GapsUnnoticed,
    ];
}

#[cfg(feature = "mutants")]
thread_local! {
    static BROKEN: std::cell::Cell<Option<Mutant>> = const { std::cell::Cell::new(None) };
}

/// Breaks a rule for everything that runs on this thread from now on, or none.
#[cfg(feature = "mutants")]
pub fn set(mutant: Option<Mutant>) {
    BROKEN.set(mutant);
}

/// Whether this rule is broken.
#[cfg(feature = "mutants")]
#[must_use]
pub fn breaks(mutant: Mutant) -> bool {
    BROKEN.get() == Some(mutant)
}

/// Whether this rule is broken: never.
#[cfg(not(feature = "mutants"))]
#[must_use]
pub const fn breaks(_: Mutant) -> bool {
    false
}
