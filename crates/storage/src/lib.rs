//! The disk of a node: the logs, hard states and applied states of all its groups, in one RocksDB.
//!
//! # What it promises
//!
//! A request of a group is done in the order of that group's requests, and reported when it is
//! done. What was reported survives the process. Whether it survives the machine depends on
//! [`Durability`]: by default nothing waits for an fsync, and the replication of the log is what
//! makes an acknowledged message safe; a background fsync bounds what is at risk. Hard states are
//! always fsynced.
//!
//! After a stop that was not clean, the store is in *some earlier state of its own history*, of all
//! groups and families at once, and [`Opened::shutdown`] says whether acknowledged writes may be
//! missing. If so, every group is [`GroupRecord::recovering`] until [`LogStore::mark_rejoined`].
//!
//! A failed write or fsync is final ([`StorageError`]): the store acknowledges nothing more, tells
//! every group, and does not try again.
//!
//! # How it is used
//!
//! [`Store::open`] gives the store and what is in it. Requests go in through [`LogStore`] (or a
//! [`LogHandle`]) and never wait: what does not fit is handed back ([`Refused`]), and
//! [`Report::Room`] follows. Reports come out at the [`Sink`] of the group, which the writer's
//! thread calls. Reads go past the writer, from any thread ([`StoreReader`]).
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use bytes::Bytes;
//! use flintmq_consensus::{Entry, EntryKind, GroupId, HardState, LogPosition, NodeId};
//! use flintmq_storage::{
//!     AppendBatch, CheckpointBatch, LogStore, NodeIdentity, Report, Store, StoreOptions,
//! };
//! use std::sync::mpsc;
//!
//! # let place = tempfile::tempdir()?;
//! # let dir = place.path().join("data");
//! let identity = NodeIdentity { cluster: "example".to_owned(), node: NodeId(1) };
//! let opened = Store::open(StoreOptions::new(dir, identity))?;
//! let (store, group) = (opened.store, GroupId(1));
//! # let _ = opened.groups;
//!
//! // Reports come from the writer's thread; a channel takes them to where they are needed.
//! let (sender, reports) = mpsc::channel();
//! store.register(group, Box::new(move |report| drop(sender.send(report))));
//! store.create_group(group, HardState::default())?;
//! assert_eq!(reports.recv()?, Report::Created);
//!
//! let payload = Bytes::from_static(b"commands");
//! let entry = Entry { index: 1, term: 1, history: 0, kind: EntryKind::Commands, payload };
//! store.try_append(group, AppendBatch { write: 1, entries: vec![entry.clone()], ..Default::default() })?;
//! let position = LogPosition { term: 1, index: 1 };
//! assert_eq!(reports.recv()?, Report::Appended { write: 1, upto: position });
//! assert_eq!(store.entry(group, 1)?, Some(entry));
//!
//! // Once the entry is applied and holds no message that anybody needs, it goes.
//! let batch = CheckpointBatch {
//!     applied: position,
//!     puts: vec![(b"queues".to_vec(), b"state".to_vec())],
//!     dead_entries: vec![1],
//!     ..Default::default()
//! };
//! store.try_checkpoint(group, batch)?;
//! while reports.recv()? != (Report::Checkpointed { applied: position }) {}
//! assert_eq!(store.entry(group, 1)?, None);
//!
//! store.close()?;
//! # Ok(())
//! # }
//! ```
//!
//! # Replacing a past
//!
//! A replica whose log is of no use any more gets another past as a whole: none
//! ([`LogStore::reset`]), or a peer's snapshot. A snapshot is the group's last checkpoint with the
//! entries that are alive in it; it is read and staged in pieces, and one fsynced write switches to
//! it. A power loss leaves the old past or the new one. [`LogStore::remove_group`] drops both log
//! and state and keeps what the replica voted for.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # use bytes::Bytes;
//! # use flintmq_consensus::{GroupId, HardState, NodeId, SnapshotId};
//! # use flintmq_storage::{
//! #     CheckpointBatch, Delivery, LogStore, MemoryStore, OnRead, ReadError, StagedPiece,
//! # };
//! # use std::sync::mpsc;
//! # fn ask<T: Send + 'static>(ask: impl FnOnce(OnRead<T>)) -> Result<T, Box<dyn std::error::Error>> {
//! #     let (sender, answer) = mpsc::channel();
//! #     ask(Box::new(move |found: Result<T, ReadError>| drop(sender.send(found))));
//! #     Ok(answer.recv()??)
//! # }
//! # let store = MemoryStore::new(Delivery::Immediate);
//! # let (here, there) = (GroupId(1), GroupId(2));
//! # store.create_group(here, HardState::default())?;
//! # store.create_group(there, HardState::default())?;
//! # let puts = vec![(b"queues".to_vec(), b"state".to_vec())];
//! # store.try_checkpoint(here, CheckpointBatch { puts, ..Default::default() })?;
//! // The sender: `ask` waits for what the callback is given, a server would not.
//! let opened = ask(|then| store.open_snapshot(here, then))?;
//! let id = SnapshotId { source: NodeId(1), number: opened.number, position: opened.position };
//! let mut next = Some(Bytes::new());
//! while let Some(cursor) = next {
//!     let at = cursor.clone();
//!     let piece = ask(|then| store.read_snapshot(here, opened.number, at, 1 << 20, then))?;
//!     next = piece.next;
//!     // The receiver, who has them in the same order.
//!     store.try_stage(there, StagedPiece { id, cursor, data: piece.data })?;
//! }
//! store.close_snapshot(opened.number);
//! store.install(there, id, false)?;
//! assert_eq!(store.queue_record(there, b"queues")?, Some(b"state".to_vec()));
//! # Ok(())
//! # }
//! ```
//!
//! # Testing against it
//!
//! [`MemoryStore`] keeps the same contract without disk, threads and clock, and can lose its
//! un-synced tail on demand. The feature `testing` adds `conformance`, the contract as scenarios.
//!
//! # Inside
//!
//! | module | job |
//! | --- | --- |
//! | `opening`, `judgement`, `marker`, `vouching`, `witness`, `host`, `directory_lock` | whose directory is it, and may its tail be lost |
//! | `inbox`, `log_writer`, `group_log` | what waits, the one thread that writes, and what it refuses to write |
//! | `group_replacing`, `side_clearing` | what switches the two sides of a group, what deletes the old one |
//! | `wal_sync` | the fsync in the background |
//! | `space_reclaim`, `disk_space` | dead payloads give their space back; a nearly full disk refuses messages |
//! | `database`, `records` | RocksDB's options and events; keys and values |
//! | `store_reader`, `background_reads` | reading, on the asker's thread and beside it |
//!
//! The contract, its double in memory, and what both implementations share (checks of requests,
//! codec of records and snapshots) are in `flintmq-log-store`.
//!
//! docs/internals/storage.md has the reasons and the measurements.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod background_reads;
mod database;
mod directory_lock;
mod disk_space;
mod group_replacing;
mod host;
mod inbox;
mod judgement;
mod log_handle;
mod log_writer;
mod marker;
mod open_error;
mod opening;
mod options;
mod records;
mod shutdown_signal;
mod side_clearing;
mod small_writes;
mod space_reclaim;
mod statistics;
mod store;
mod store_reader;
mod vouching;
mod wal_sync;
mod witness;

pub use disk_space::{DiskListener, FreeSpace};
#[cfg(any(test, feature = "testing"))]
pub use flintmq_log_store::conformance;
pub use flintmq_log_store::{
    AppendBatch, AppendKind, CheckpointBatch, Delivery, DiskState, DurationHistogram,
    ENTRIES_PLACES, GroupRecord, HardStates, LogBounds, LogStore, MemoryStore, NewGroup, OnRead,
    OnSaved, OpenSnapshot, QueueRecord, QueueRecords, ReadError, Refused, RefusedReason, Report,
    Sink, SnapshotPiece, SnapshotReport, StagedPiece, StorageError, StoreStats,
};
pub use log_handle::LogHandle;
pub use open_error::OpenError;
pub use options::{Durability, NodeIdentity, StoreOptions, Tuning};
pub use store::{Opened, Shutdown, Store};
pub use store_reader::StoreReader;
