//! FlintMQ storage.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod batch;
mod disk_space;
mod error;
mod log_store;
mod options;
mod statistics;
mod store;

pub use batch::{AppendBatch, AppendKind, CheckpointBatch, Report, Sink};
pub use disk_space::{DiskState, FreeSpace};
pub use error::{OpenError, ReadError, Refused, RefusedReason, StorageError};
pub use log_store::{GroupRecord, LogBounds, LogStore, QueueRecord, QueueRecords};
pub use options::{Durability, NodeIdentity, StoreOptions, Tuning};
pub use statistics::StoreStats;
pub use store::{Opened, Shutdown, Store};
