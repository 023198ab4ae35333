//! The cluster's metadata, and the state machine that replicates them: which domains there are,
//! which queue lives in which partition, and which nodes hold what.
//!
//! [`Metadata`] is what a node looks at, [`ControllerMachine`] what changes it: the machine of the
//! controller's group. A change is committed and applied at the node that asked for it before it is
//! answered ([`Request::Change`]), and answered with what did not fit. A node that is about to
//! refuse something because of its own, perhaps older, metadata first asks to
//! [catch up](Request::CatchUp).
//!
//! The crate does no I/O and knows no clock, thread or randomness.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod command;
pub mod domain;
mod machine;
mod membership;
mod message;
mod metadata;
mod placement;
mod planning;
mod refusal;
mod request;
mod settings;

pub use command::{
    ChangeId, LoggedChange, MetadataCommand, PutCondition, UnreadableRecord, decode_entry,
    encode_entry,
};
pub use machine::ControllerMachine;
pub use membership::{
    ClusterMembership, MembershipCommand, MembershipRefusal, NodeRecord, NodeState,
    ReplicaAssignment, Touched,
};
pub use metadata::{
    AppliedChange, CHANGE_WINDOW, DomainRecord, DomainVersion, Metadata, MetadataState, QueuePlace,
    Seen,
};
pub use placement::plan;
pub use planning::PlanningSettings;
pub use refusal::Refusal;
pub use request::{CatchUpError, ChangeError, Counters, Effect, Request};
