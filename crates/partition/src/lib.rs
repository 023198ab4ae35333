//! What a partition does for its clients: as the leader of its group, as the forwarder of this
//! node's clients to a leader elsewhere, and while there is no leader. No I/O, no clock, no thread,
//! no randomness.
//!
//! A [`PartitionEngine`] is the [`Machine`](flintmq_shard::Machine) of one group. Its shard hands
//! it [`Request`]s, messages of the same partition on other nodes, and committed entries; it
//! answers with [`Effect`]s. The replicated state of the queues is in `flintmq_queue`, consensus is
//! behind [`Group`](flintmq_shard::Group).
//!
//! # The way of a message, by file
//!
//! | step | file |
//! | --- | --- |
//! | a session's PUTs come as a [`Request::Publish`] and are kept until they are answered | `engine`, `pending` |
//! | they are collected into an entry, which is proposed | `leader/publishing` |
//! | the committed entry is applied, its PUTs are acknowledged | `engine`, `leader/applying` |
//! | consumers get the message, here or behind a forwarder | `leader/delivering`, `leader/forwarders` |
//! | what one turn has for a session leaves as few events | `sessions` |
//!
//! Where another node leads, `forwarder` sends the same pending work there and passes back what
//! comes.
//!
//! # Roles
//!
//! The role is explicit: leader, forwarder or leaderless. Every request has one meaning per role,
//! in the file of the role. What clients of this node wait for belongs to no role: it stays when
//! the role changes, and the next role begins with it from its first item. An entry counts as this
//! leader's own only if term and index are those under which it was proposed.
//!
//! # What it promises
//!
//! - Success is acknowledged only for a message of a committed and applied entry.
//! - Every PUT, open, close and request of an administrator is answered exactly once, as long as
//!   there is a leader at last.
//! - Answers to a client's requests leave behind the messages that came before them and ahead of
//!   those that come after.
//! - Frames lost between nodes are noticed, whatever lost them: each side counts, and probes.
//! - Every collection is bounded; the bound stands beside it.
//!
//! ```
//! use flintmq_partition::{DomainUsage, PartitionEngine, PartitionUsage};
//! use flintmq_queue::Partition;
//!
//! let usage = PartitionUsage::new(std::sync::Arc::<DomainUsage>::default());
//! let engine = PartitionEngine::new(Partition::default(), usage, 1);
//! assert!(engine.is_idle());
//! ```

mod checkpoints;
mod context;
mod domain_usage;
mod effect;
mod engine;
mod forwarder;
mod handles;
mod leader;
mod peer_message;
mod pending;
mod queues;
mod request;
mod sessions;

pub use domain_usage::{DomainUsage, PartitionUsage};
pub use effect::{
    AdminRefusal, Answer, DropReason, Effect, OpenRefusal, Purged, QueueCounts, QueueLevels,
    QueueSnapshot, RejectReason,
};
pub use engine::{MAX_PEEKED, PartitionEngine};
pub use request::{
    Close, Configure, Confirm, HandleRole, Open, Publish, Put, Removable, Request, SessionEnded,
    SessionId, Ticket,
};

/// A map whose order depends on nothing but what was done to it.
pub(crate) type FastMap<K, V> = hashbrown::HashMap<K, V, rustc_hash::FxBuildHasher>;
/// A set whose order depends on nothing but what was done to it.
pub(crate) type FastSet<K> = hashbrown::HashSet<K, rustc_hash::FxBuildHasher>;
