//! FlintMQ consensus.

mod types;
pub use types::*;
