//! The host of a node's consensus groups, and what their state machines may ask of it.
//!
//! [`Machine`] is what a group's log drives; [`Group`] is what it may ask of its group. Neither
//! side does I/O, reads a clock or draws randomness.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod machine;
mod status;

pub use flintmq_log_store::{AppendKind, CheckpointBatch, DiskState, QueueRecord, ReadError};
pub use machine::{Committed, Group, Machine, MachineFailure, NotProposed, NotSent};
pub use status::{Leaderless, ReplicaStatus};
