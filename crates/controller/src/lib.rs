//! The cluster's metadata, and the state machine that replicates them.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod command;
pub mod domain;
pub mod membership;
pub mod metadata;
pub mod placement;
pub mod planning;
pub mod refusal;
mod settings;
