//! The store of a node: opening and closing it.

use crate::error::OpenError;
use crate::log_store::GroupRecord;
use crate::options::StoreOptions;

/// What was found on opening.
pub struct Opened {
    /// The open store.
    pub store: Store,
    /// All groups, ascending.
    pub groups: Vec<GroupRecord>,
    /// How the directory was left.
    pub shutdown: Shutdown,
}

/// How a directory was left by its last user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shutdown {
    /// The directory is new.
    New,
    /// Closed; everything is there.
    Clean,
    /// The process ended without closing, and nothing acknowledged is missing: the witness, or boot
    /// and mount id, vouch for it.
    ProcessCrash,
    /// Not closed, but every acknowledged write had been fsynced ([`crate::Durability::Sync`]).
    Synced,
    /// Acknowledged writes may be missing: every group is recovering.
    TailMayBeLost {
        /// Why.
        reason: String,
    },
}

/// The open store of a node.
pub struct Store {}

impl Store {
    /// Opens the directory, or creates it.
    pub fn open(options: StoreOptions) -> Result<Opened, OpenError> {
        let _ = options;
        todo!()
    }

    /// Writes and syncs what waits, marks the directory as cleanly closed and closes it.
    pub fn close(self) -> Result<(), crate::StorageError> {
        todo!()
    }
}
