//! What a core asks its host to do, and what the host tells it.

use crate::{Entry, HardState, LogPosition, Role, Term};

/// What happened outside of the core. Proposals have a method of their own, because they have an
/// answer: [`crate::Core::propose`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// The host has opened the store and hands over; the first input of a core's life.
    Started,
    /// The hard state of this term is fsynced.
    HardStateSynced {
        /// The term of the synced state.
        term: Term,
    },
    /// The write call of the log returned: everything up to here is in the page cache at least, or
    /// on the disk where the node is configured to be synchronous.
    Appended {
        /// The last entry written.
        upto: LogPosition,
    },
    /// A write or an fsync failed. Final: the log on disk can no longer be told.
    StorageFailed,
}

/// What the host must do, in the order in which effects are given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Write and fsync this, then report [`Input::HardStateSynced`]. Nothing that depends on it
    /// leaves before.
    SyncHardState(HardState),
    /// Append these to the log, then report [`Input::Appended`]. The entries are consecutive and
    /// follow what was appended before; an acknowledgement is held until the report.
    Append(Vec<Entry>),
    /// Entries up to this index are decided: apply them in order, then let their acknowledgements
    /// leave.
    Commit {
        /// The last decided entry.
        upto: u64,
    },
    /// The role changed; for logs, metrics and for opening or closing the service.
    RoleChanged {
        /// The new role.
        role: Role,
        /// The term it is true for.
        term: Term,
    },
    /// The tail of the log may have been lost and nobody else can tell: the group goes on with what
    /// is there, under a new history number. An operator must hear of it (design, section 9).
    HistoryForked {
        /// The new history number.
        history: u32,
        /// What the log still holds.
        last: LogPosition,
    },
}
