//! A deterministic simulator around [`flintmq_consensus::NodeCore`]: nodes with clocks and disks, a
//! network, clients and an operator, driven by one seed in virtual time, with the invariants of the
//! protocol checked after every step.
//!
//! ```text
//! cargo run --release -p flintmq-consensus-simulator -- --seeds 0..20000 --jobs 2
//! ```
//!
//! A run draws a profile (which faults, how strong, which settings), then a list of faults, and
//! plays them against the cluster. After the last fault everything is mended; then one leader has
//! to serve each group, every proposal has to be answered, all replicas have to become equal, and
//! all groups have to come to rest. What fails is replayed by its seed, and made shorter by leaving
//! faults out.

mod beats;
mod carry_out;
mod client;
mod coverage;
mod disk;
mod event;
mod fault;
#[cfg(feature = "model")]
mod follower;
mod ghost;
mod inject;
mod machine;
#[cfg(feature = "mutants")]
pub mod mutants;
mod network;
mod node;
mod operator;
mod profile;
mod random;
mod replica;
mod run;
mod settle;
mod show;
mod shrink;
mod storage;
mod world;

pub use coverage::{Coverage, Situation};
pub use fault::{Fault, FaultKind, Moment, Target};
pub use ghost::Violation;
pub use network::Weather;
pub use profile::{DiskSpeed, Durability, GroupSpec, Load, Profile};
pub use run::{Failure, Outcome, Plan, Watching, run};
pub use shrink::shrink;
