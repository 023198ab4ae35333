//! Checkpoints: what changed in the state since the last one, as records for a key-value store.

use crate::ids::Index;

/// The net change of the state since the checkpoint before. Write all of it atomically, together
/// with the applied index; what was added and removed in between is not in it.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The last applied entry: what the state is true for.
    pub applied: Index,
    /// Records to write: key suffix, value. Sorted by key.
    pub puts: Vec<(Vec<u8>, Vec<u8>)>,
    /// Records to remove: key suffix. Sorted; disjoint from `puts`.
    pub deletes: Vec<Vec<u8>>,
    /// Entries at or below `applied` that no waiting message needs; each is reported once,
    /// ascending. Delete them from the log together with writing the checkpoint.
    pub dead_entries: Vec<Index>,
}
