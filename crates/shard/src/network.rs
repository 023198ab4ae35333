//! The way to other nodes.

use bytes::Bytes;
use flintmq_consensus::{Class, GroupId, NodeId, Packet};

use crate::machine::NotSent;

/// Sends to other nodes, and never waits.
pub trait Network {
    /// Sends a packet of the consensus; it may get lost, which consensus makes good. Packets of
    /// one class keep their order as far as the network keeps any.
    fn send_packet(&mut self, class: Class, packet: Packet);

    /// Sends a message to the shard that hosts the group on another node, as
    /// [`crate::ShardInput::Message`] with this very number of the group. Messages of one
    /// connection arrive in order and none is missing.
    ///
    /// # Errors
    /// [`NotSent`]. After [`NotSent::Full`] the shard is told [`crate::ShardInput::Room`].
    fn send_message(&mut self, to: NodeId, group: GroupId, message: Bytes) -> Result<(), NotSent>;
}

/// Marks the numbers of groups under which shards themselves talk. Numbers of groups end far
/// below.
const SHARDS_OWN: u32 = 1 << 31;

/// The group that a message is about: which shard it is for.
#[must_use]
pub const fn hosted_group(group: GroupId) -> GroupId {
    GroupId(group.0 & !SHARDS_OWN)
}

/// The number under which shards talk about this group.
#[must_use]
pub const fn own_number(group: GroupId) -> GroupId {
    GroupId(group.0 | SHARDS_OWN)
}

/// Whether a message is of the other shard, and not of the machine.
pub(crate) const fn is_own(group: GroupId) -> bool {
    group.0 & SHARDS_OWN != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shards_own_messages_are_told_apart_and_routed_alike() {
        let group = GroupId(7);
        let own = own_number(group);
        assert!(is_own(own) && !is_own(group));
        assert_eq!((hosted_group(own), hosted_group(group)), (group, group));
    }
}
