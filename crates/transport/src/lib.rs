//! QUIC between the nodes of a FlintMQ cluster.

mod frame;
pub mod wire;

pub use flintmq_consensus::NodeId;
pub use frame::Frame;
