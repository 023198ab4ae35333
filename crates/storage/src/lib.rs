//! FlintMQ storage.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod batch;
#[cfg(any(test, feature = "testing"))]
pub mod conformance;
mod database;
mod directory_lock;
mod disk_space;
mod error;
mod group_log;
mod host;
mod inbox;
mod log_store;
mod log_writer;
mod marker;
mod memory_store;
mod opening;
mod options;
mod records;
mod shutdown_signal;
mod space_reclaim;
mod statistics;
mod store;
mod store_reader;
mod wal_sync;
mod witness;

pub use batch::{AppendBatch, AppendKind, CheckpointBatch, Report, Sink};
pub use disk_space::{DiskListener, DiskState, FreeSpace};
pub use error::{OpenError, ReadError, Refused, RefusedReason, StorageError};
pub use log_store::{GroupRecord, LogBounds, LogStore, QueueRecord, QueueRecords};
pub use log_writer::LogHandle;
pub use memory_store::{Delivery, MemoryStore};
pub use options::{Durability, NodeIdentity, StoreOptions, Tuning};
pub use statistics::{DurationHistogram, StoreStats};
pub use store::{Opened, Shutdown, Store};
pub use store_reader::StoreReader;
