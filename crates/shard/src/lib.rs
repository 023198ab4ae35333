//! The host of a node's consensus groups, and what their state machines may ask of it.
//!
//! [`Machine`] is what a group's log drives; [`Group`] is what it may ask of its group. A [`Shard`]
//! owns many groups, each with its machine, and runs them on one
//! [`NodeCore`](flintmq_consensus::NodeCore): the same code in a node's thread and in a
//! simulation. It does no I/O itself, reads no clock and draws no randomness.
//!
//! # How it is driven
//!
//! The host of a shard
//!
//! 1. gives it every input there is with [`Shard::step`]: packets and messages of other nodes, what
//!    the store tells ([`StoreEvents`]), requests for machines, who can be reached;
//! 2. calls [`Shard::turn`] with the cluster's time, and again at once while it says so;
//! 3. does what the [`ShardEffect`]s say;
//! 4. sleeps until there is another input, or until [`Shard::next_deadline`].
//!
//! Writes and messages to other nodes are no effects: the shard gives them to its
//! [`LogStore`](flintmq_log_store::LogStore) and its [`Network`] itself, which never wait.
//!
//! Who can be reached is found out elsewhere, once for all shards of a node ([`ShardInput::Peer`]).
//!
//! # What it sees to
//!
//! | module | job |
//! | --- | --- |
//! | `turning` | one turn, and a group's part in it: leadership lost, restored, applied, taken, worked |
//! | `stepping` | one input |
//! | `carrying_out` | what the consensus asks for, done at store and network |
//! | `store_queue`, `own_writes` | the order of a group's requests, and a disk that is behind |
//! | `replica` | the log's tail, checkpoints, states that take the place of others |
//! | `leadership`, `members`, `leftover` | who leads, who is a member, what is left of a group that left |
//! | `retention`, `at_risk` | how much of the log stays, and what a power loss would take |
//! | `clock`, `fitness` | the cluster's time, and whether this node should not lead |
//! | `admin` | what administrators ask |
//! | `peers`, `ticks`, `host` | other nodes, the time, what all groups share |
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod admin;
mod assignment;
mod at_risk;
mod carrying_out;
mod clock;
mod effect;
mod fitness;
mod group;
mod host;
mod input;
mod leadership;
mod leftover;
mod machine;
mod members;
pub mod mutants;
mod network;
mod own_writes;
mod peers;
mod replica;
mod retention;
mod shard;
mod status;
mod stepping;
mod store_queue;
#[cfg(test)]
mod tests;
mod ticks;
mod turning;

pub use admin::{AdminAnswer, AdminCommand, Ceded, GroupView, NotCeded, PeerView, Recovery};
pub use assignment::{Assignment, Place};
pub use effect::{Notice, ShardEffect, ShardError};
pub use flintmq_log_store::{AppendKind, CheckpointBatch, QueueRecord, ReadError};
pub use input::{FromStore, ShardInput, StoreEvent, StoreEvents};
pub use machine::{Committed, Group, Machine, MachineFailure, NotProposed, NotSent};
pub use network::{Network, hosted_group, own_number};
pub use replica::{StoredGroup, StoredState, read_state};
pub use shard::{Shard, ShardParts};
pub use status::{Leaderless, ReplicaStatus};
