//! Shards over stores in memory, whose writes the tests let happen when they want.

mod alone;
mod bench;
mod cluster;
mod departed;
mod fitness;
mod snapshots;
