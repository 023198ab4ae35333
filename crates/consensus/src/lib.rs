//! The replicated log of FlintMQ, as a state machine without I/O.

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
mod producers;
mod progress;
mod quiescence;
mod quorum;
mod reads;
mod recovery;
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
pub use mutants::Mutant;
pub use producers::{Admission, PRODUCER_WINDOW, ProducerWindows};
pub use progress::{Flow, Progress};
pub use reads::{ReadToken, TokenRead};
pub use settings::{Lease, RecoveryPolicy, Settings};
pub use time::Time;
pub use types::*;
