//! A deterministic simulator of whole clusters: nodes of real shards with partition engines and
//! stores in memory, the liveness between them, a network, clients and an administrator, driven by
//! one seed in virtual time.
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
//! | `world` | the events of a run, in order |
//! | `node`, `store`, `network` | what nodes are made of |
//! | `hosting` | carries out what shards ask for, as a node does |
//! | `client`, `acting` | what clients do, and check |
//! | `oracle`, `checks` | what must hold after every step |
//! | `inject` | faults |
//! | `settle` | what must hold in the end |
//! | `run`, `shrink`, `coverage` | many runs, short ones, and where they got to |

mod acting;
mod checks;
mod client;
mod clocks;
mod coverage;
mod hosting;
mod inject;
mod network;
mod node;
mod oracle;
mod plan;
mod random;
mod run;
mod settle;
mod shrink;
mod store;
mod world;

pub use coverage::{Coverage, Situation};
pub use oracle::Violation;
pub use plan::{Fault, FaultKind, Plan, Profile, Target};
pub use run::{Failure, Outcome, Watching, run};
pub use shrink::shrink;
