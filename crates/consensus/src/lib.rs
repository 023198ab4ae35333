//! The replicated log of FlintMQ, as a state machine without I/O.
//!
//! A *group* is one log with its members. Each member runs a [`Core`], which is fed with [`Input`]s
//! and answers with [`Effect`]s: messages to send, entries to write, a commit index up to which to
//! apply. It opens no file or socket, starts no thread, reads no clock and draws no random number:
//! time and a seed are arguments. That is what lets tests run it through any order of events, again
//! and again, and what keeps one rule in one place: **nothing leaves before what it depends on is
//! written**. A [`NodeCore`] runs thousands of groups on one node.
//!
//! # What it promises
//!
//! - At most one leader per term, always.
//! - Two replicas never apply different entries at one index, except across a *forced* recovery,
//!   which raises the history number for everybody to see.
//! - What was committed is never lost, although entries are **not fsynced**, whatever number of
//!   nodes lose the ends of their logs in power losses, in whatever order, unless an operator (or
//!   the policy [`RecoveryPolicy::AllReported`], once every voter has told what it has) makes the
//!   group go on while nobody can tell any more.
//! - While a majority is up and has not lost its tail, or has rejoined, the group makes progress.
//!
//! # How it works, in the order of the files
//!
//! Raft's log and commit rules, with three differences that belong together.
//!
//! **Any node may lead** (`election`). Votes do not compare logs. A replica without a living leader
//! waits for a random while, *scouts* whether anybody would vote for it, which changes nothing at
//! the others, then raises its term durably and asks for votes. Who follows a living leader is
//! loyal to it, unless shown its *cession*: a leader that stops says so, and may name its successor
//! (`cession`).
//!
//! **The elected synchronises before it serves** (`sync`). It asks all voters for the ends of their
//! logs. As soon as a majority *whose word counts* has answered, the best answer, by last term and
//! then by length, has everything that was ever committed. The leader copies what it lacks from
//! there, stamps the configuration with its term, and appends a *barrier*. From then on it is
//! [`Role::Ready`] and takes proposals; when the barrier is committed it serves:
//! [`Effect::Serving`].
//!
//! **Whoever may have lost its tail says so** (`recovery`). After a power loss a replica starts as
//! *recovering*. It votes, takes entries and acknowledges them, but its word does not count in a
//! sync phase, for its log may lack what it once acknowledged. A ready leader that hears of the
//! loss names its own last entry as a target; a replica that has the target has everything again,
//! and rejoins. Terms and votes are fsynced, always: only entries may get lost.
//!
//! The rest is what a broker needs of a log: pipelined replication within windows (`replication`,
//! [`Progress`], `append`), members that change one at a time or all at once through a register
//! beside the log (`membership`), snapshots in resumable pieces (`snapshot`), reads without log
//! entries (`reads`), groups that rest without timers or messages (`quiescence`), and windows that
//! apply a retried proposal once ([`ProducerWindows`]).
//!
//! `tests/scripts` tells all of it as stories, with everything that is said and written.
//!
//! # The order of calls
//!
//! 1. [`Core::new`] with what the store knows, then [`Input::Started`].
//! 2. Carry out effects in their order. Writes are reported when they are done:
//!    [`Effect::SaveHardState`], fsynced, by [`Input::HardStateSynced`]; [`Effect::Append`],
//!    written in order, by [`Input::Appended`]. Several may be under way. What depends on them is
//!    held back by the core.
//! 3. [`Input::Tick`] whenever [`Core::next_deadline`] is reached, [`Input::PeerDown`] and
//!    [`Input::PeerUp`] when a peer's *process* is lost or back. Groups send no heartbeats.
//! 4. [`Core::propose`] at a ready leader; apply entries up to each [`Effect::Commit`];
//!    acknowledge after that.
//!
//! # A group of three, in memory
//!
//! ```
//! use std::collections::VecDeque;
//! use std::sync::Arc;
//!
//! use bytes::Bytes;
//! use flintmq_consensus::{
//!     ConfigRegister, Core, CreationId, Effect, EntryKind, GroupId, HardState, Index, Input,
//!     LogTerms, Message, NodeId, Restored, Role, Settings, Time,
//! };
//!
//! /// A host: messages go to the network, writes to a disk that is always done at once.
//! fn carry_out(
//!     core: &mut Core,
//!     effects: Vec<Effect>,
//!     network: &mut VecDeque<Message>,
//!     decided: &mut [Index; 4],
//! ) {
//!     for effect in effects {
//!         let report = match effect {
//!             Effect::Send(message) => {
//!                 network.push_back(message);
//!                 continue;
//!             }
//!             Effect::SaveHardState { save, .. } => Input::HardStateSynced { save },
//!             Effect::Append { write, .. } => Input::Appended { write },
//!             Effect::Commit { upto } => {
//!                 decided[core.node().0 as usize] = upto;
//!                 continue;
//!             }
//!             _ => continue,
//!         };
//!         let mut next = Vec::new();
//!         core.step(Time(0), report, &mut next);
//!         carry_out(core, next, network, decided);
//!     }
//! }
//!
//! let voters = [NodeId(1), NodeId(2), NodeId(3)];
//! let mut cores = Vec::new();
//! for node in voters {
//!     let restored = Restored {
//!         group: GroupId(7),
//!         creation: CreationId(1),
//!         node,
//!         hard_state: HardState { config: ConfigRegister::of_voters(voters), ..Default::default() },
//!         log: LogTerms::default(),
//!         applied: 0,
//!         recovering: None,
//!     };
//!     cores.push(Core::new(restored, Arc::new(Settings::default()), u64::from(node.0))?);
//! }
//!
//! let (mut network, mut decided) = (VecDeque::new(), [0; 4]);
//! let mut effects = Vec::new();
//! cores[0].step(Time(0), Input::Stand { scout: true }, &mut effects);
//! carry_out(&mut cores[0], effects, &mut network, &mut decided);
//! while let Some(message) = network.pop_front() {
//!     let core = &mut cores[message.to.0 as usize - 1];
//!     let mut effects = Vec::new();
//!     core.step(Time(0), Input::Message(message), &mut effects);
//!     carry_out(core, effects, &mut network, &mut decided);
//! }
//! assert_eq!(cores[0].role(), Role::Ready);
//! assert!(cores[0].is_serving());
//!
//! let mut effects = Vec::new();
//! let payload = Bytes::from_static(b"commands");
//! let index = cores[0].propose(Time(0), EntryKind::Commands, payload, &mut effects)?;
//! carry_out(&mut cores[0], effects, &mut network, &mut decided);
//! assert!(decided[1] < index, "not before a majority has it");
//! while let Some(message) = network.pop_front() {
//!     let core = &mut cores[message.to.0 as usize - 1];
//!     let mut effects = Vec::new();
//!     core.step(Time(0), Input::Message(message), &mut effects);
//!     carry_out(core, effects, &mut network, &mut decided);
//! }
//! assert_eq!(decided[1], index);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod append;
mod cession;
mod core;
mod durability;
mod effect;
mod election;
mod entry_cache;
mod input;
mod jitter;
mod leading;
mod log_terms;
mod membership;
mod message;
mod mutants;
mod node;
mod producers;
mod progress;
mod quiescence;
mod quorum;
mod reads;
mod recovery;
#[cfg(feature = "mutants")]
mod renumber;
mod replication;
mod settings;
mod snapshot;
mod sync;
mod time;
mod types;

pub use self::core::{Core, ProposeError, RestoreError, Restored, Role};
pub use effect::{Effect, StopReason};
pub use input::Input;
pub use log_terms::LogTerms;
pub use membership::{ChangeError, MAX_VOTERS, MemberChange};
pub use message::{Answer, Body, Cession, FetchOutcome, Message, RejoinTarget, SnapshotId};
#[cfg(feature = "mutants")]
pub use mutants::{Mutant, NodeMutant};
pub use node::{
    Class, ClockReading, ClockState, Clocks, ClusterClock, Liveness, NodeCore, NodeCounters,
    NodeEffect, NodeInput, NodeSettings, Packet, PeerState, UnfitReasons,
};
pub use producers::{Admission, PRODUCER_WINDOW, ProducerWindows};
pub use progress::{Flow, Progress};
pub use reads::{ReadToken, TokenRead};
pub use settings::{Lease, RecoveryPolicy, Settings};
pub use time::Time;
pub use types::*;
