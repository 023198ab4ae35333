//! What the implementations of the contract share: checks of a group's requests, and the codec of
//! records and snapshots. For stores, not for their users.

pub mod entry_record;
pub mod fields;
pub mod group_log;
pub mod group_record;
pub mod snapshot_pieces;
pub mod snapshot_staging;
