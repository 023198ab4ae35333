//! Models of the consensus protocol, for development only: nothing that runs depends on this crate.
//!
//! * [`protocol`]: the protocol as a stateright model, all interleavings within small bounds, and
//!   random walks within larger ones. Every wrong shortcut
//!   (docs/internals/verification.md#the-broken-rules) is a switch that must be refuted.
//! * [`harness`]: the real core, with disks and a network, in all interleavings within small
//!   bounds.
//! * [`search`]: runs a model and tells what was found.
//! * [`trace`]: replays what real cores do against the model.
//!
//! `cargo run --release -p flintmq-consensus-model -- help` explores by hand; `RESULTS.md` says
//! what was explored so far.

pub mod harness;
pub mod protocol;
pub mod search;
pub mod trace;
