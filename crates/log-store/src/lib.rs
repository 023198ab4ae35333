//! The contract of a node's storage: logs, hard states and applied states of all its groups.
//!
//! [`LogStore`] is the contract; `flintmq-storage` keeps it with RocksDB, and [`MemoryStore`]
//! without disk, threads and clock. Requests never wait: what does not fit is handed back
//! ([`Refused`]), and [`Report::Room`] follows. Reports come out at the [`Sink`] of the group, in
//! the order of its requests. The feature `testing` adds `conformance`, the contract as scenarios.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use flintmq_consensus::{GroupId, HardState};
//! use flintmq_log_store::{Delivery, LogStore, MemoryStore, Report};
//! use std::sync::mpsc;
//!
//! let (store, group) = (MemoryStore::new(Delivery::Immediate), GroupId(1));
//! let (sender, reports) = mpsc::channel();
//! store.register(group, Box::new(move |report| drop(sender.send(report))));
//! store.create_group(group, HardState::default())?;
//! assert_eq!(reports.recv()?, Report::Created);
//! # Ok(())
//! # }
//! ```
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod batch;
#[cfg(any(test, feature = "testing"))]
pub mod conformance;
mod disk_state;
mod error;
mod log_store;
mod memory_disk;
mod memory_room;
mod memory_store;
pub mod parts;
mod statistics;

pub use batch::{
    AppendBatch, AppendKind, CheckpointBatch, HardStates, NewGroup, OnSaved, Report, Sink,
    SnapshotReport, StagedPiece,
};
pub use disk_state::DiskState;
pub use error::{ReadError, Refused, RefusedReason, StorageError};
pub use log_store::{
    GroupRecord, LogBounds, LogStore, OnRead, OpenSnapshot, QueueRecord, QueueRecords,
};
pub use memory_store::{Delivery, MemoryStore};
pub use parts::snapshot_pieces::SnapshotPiece;
pub use statistics::{DurationHistogram, ENTRIES_PLACES, StoreStats};
