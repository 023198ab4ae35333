//! The replicated log of FlintMQ, as a state machine without I/O.
//!
//! A [`Core`] is one replica of one group. It is fed with [`Input`]s and proposals and answers with
//! [`Effect`]s; it opens no file or socket, starts no thread and reads no clock. That is what lets
//! a test run it through any order of events, and what keeps one rule in one place: **nothing is
//! acknowledged before the effect it depends on was reported back**.
//!
//! # What it serves today
//!
//! Groups with **one** voter: a single node. Terms are durable before they are acted on, every
//! leadership starts with a barrier entry, entries commit when a write is reported, proposals are
//! bounded by a window in bytes, and a lost tail after a power failure becomes a new history number
//! that the operator hears of. Groups of several voters (scouting, votes, the sync phase,
//! replication, membership) are not built yet, and [`Core::new`] refuses them rather than
//! pretending.
//!
//! # The order of calls
//!
//! 1. [`Core::new`] with what the store knows, then [`Input::Started`].
//! 2. Carry out effects in their order. [`Effect::SyncHardState`] is answered by
//!    [`Input::HardStateSynced`], [`Effect::Append`] by [`Input::Appended`]; both may come late and
//!    several appends may be under way.
//! 3. [`Core::propose`] as soon as the role is [`Role::Syncing`] or [`Role::Ready`].
//! 4. Apply entries up to each [`Effect::Commit`]; acknowledge after that.
//!
//! ```
//! use bytes::Bytes;
//! use flintmq_consensus::{Core, Effect, GroupId, Input, LogPosition, NodeId, Restored, Role};
//!
//! let node = NodeId(1);
//! let mut core = Core::new(Restored {
//!     group: GroupId(1),
//!     node,
//!     hard_state: Core::sole_member(node),
//!     last: LogPosition::default(),
//!     applied: 0,
//!     recovering: false,
//! })?;
//!
//! let mut effects = Vec::new();
//! core.step(Input::Started, &mut effects);
//! // The vote must be on disk before anything depends on it ...
//! assert!(effects.iter().any(|e| matches!(e, Effect::SyncHardState(_))));
//! effects.clear();
//! core.step(Input::HardStateSynced { term: 1 }, &mut effects);
//! // ... then the barrier is appended, and its write opens the service.
//! core.step(Input::Appended { upto: LogPosition { term: 1, index: 1 } }, &mut effects);
//! assert_eq!(core.role(), Role::Ready);
//!
//! let index = core.propose(Bytes::from_static(b"commands"), &mut effects)?;
//! effects.clear();
//! core.step(Input::Appended { upto: LogPosition { term: 1, index } }, &mut effects);
//! assert_eq!(effects, vec![Effect::Commit { upto: index }]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod core;
mod effect;
mod types;

pub use self::core::{Core, ProposeError, RestoreError, Restored, Role};
pub use effect::{Effect, Input};
pub use types::*;
