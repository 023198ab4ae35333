//! QUIC connections: one for each pair of nodes, made by either, kept by a supervisor.

mod accepting;
mod dialing;
mod endpoint;
mod hello;
mod preference;
pub(crate) mod reader;
mod session;
mod socket;
mod supervisor;
mod writer;

pub(crate) use endpoint::Quic;
