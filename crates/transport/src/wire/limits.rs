//! Bounds of one packet. Both sides keep them, so that a few bytes can never claim much memory.

/// Messages in one packet.
pub const MAX_MESSAGES: usize = 65_536;
/// Entries in one packet, of all its messages together.
pub const MAX_ENTRIES: usize = 262_144;
/// Nodes in one list of a configuration, or of those that lag.
pub const MAX_NODES: usize = 1024;
/// Nodes in one packet, of all its lists together.
pub const MAX_NODES_IN_PACKET: usize = 1 << 20;
/// Configurations in one packet.
pub const MAX_CONFIGS: usize = 16_384;
