//! A deterministic simulator of whole clusters: nodes of real shards with the controller, partition
//! engines and stores in memory, the liveness between them, a network, clients and operators,
//! driven by one seed in virtual time.
//!
//! ```text
//! cargo run --release -p flintmq-cluster-simulator -- --seeds 0..10000 --jobs 2
//! ```
//!
//! A run draws a profile (how large, how fast, what may go wrong), then a list of faults, and plays
//! them against the cluster while clients publish, consume, die and connect elsewhere. After the
//! last fault everything is healed; then every request has to be answered, every message to be
//! confirmed, and all replicas have to become equal, within a stated time. What fails is replayed
//! by its seed, and made shorter by leaving faults out.
//!
//! | file | job |
//! | --- | --- |
//! | `plan`, `random` | what a run depends on |
//! | `world`, `building`, `event` | everything there is, and what happens in which order |
//! | `node`, `store`, `network` | what nodes are made of |
//! | `starting`, `hosting`, `disks`, `links` | processes, shards, disks and connections at work |
//! | `effects`, `metadata`, `sessions`, `placing` | what partitions, controllers and sessions ask for, done as a node does |
//! | `client`, `acting`, `opening`, `publishing`, `hearing` | what clients do, and check |
//! | `operators`, `domains`, `idle_queues` | what operators and the nodes' own administration do |
//! | `joining`, `leaving`, `recovering` | nodes that come, go, or are lost |
//! | `oracle`, `controller`, `checks` | what must hold after every step |
//! | `inject`, `faults`, `clocks` | faults |
//! | `settle`, `settle_cluster` | what must hold in the end |
//! | `run`, `shrink`, `coverage` | many runs, short ones, and where they got to |

mod acting;
mod building;
mod checks;
mod client;
mod clocks;
mod controller;
mod coverage;
mod disks;
mod domains;
mod effects;
mod event;
mod faults;
mod hearing;
mod hosting;
mod idle_queues;
mod inject;
mod joining;
mod leaving;
mod links;
mod metadata;
mod network;
mod node;
mod opening;
mod operators;
mod oracle;
mod placing;
mod plan;
mod publishing;
mod random;
mod recovering;
mod run;
mod sessions;
mod settle;
mod settle_cluster;
mod shrink;
mod starting;
mod store;
#[cfg(feature = "mutants")]
mod trials;
mod world;

pub use coverage::{Coverage, Situation};
pub use oracle::Violation;
pub use plan::{Fault, FaultKind, Plan, Profile, Target};
pub use run::{Failure, Outcome, Watching, run};
pub use shrink::shrink;
#[cfg(feature = "mutants")]
pub use trials::Trial;
