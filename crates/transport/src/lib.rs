//! QUIC between the nodes of a FlintMQ cluster.
//!
//! Nothing is built here yet. A single node needs no peers, and the crate exists so that the layout
//! of the whole system stands: it will carry opaque frames over mutually authenticated connections,
//! one per pair of nodes, with separate streams for heartbeats and votes, appends and
//! acknowledgements, gateway traffic and snapshots. It will know nothing of queues or logs, and no
//! other crate will know of sockets between nodes.
