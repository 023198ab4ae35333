//! The shard's way to other nodes.

use bytes::Bytes;
use flintmq_consensus::{Class, GroupId, NodeId, Packet};
use flintmq_shard::{Network, NotSent};
use flintmq_transport::{Lane, SendError};

use super::inbox::{ShardSender, Signal};
use crate::cluster::PeerLinks;

/// The connections to the other nodes; none for a node alone.
pub(crate) struct ShardNetwork {
    links: Option<PeerLinks>,
    shard: ShardSender,
    runtime: tokio::runtime::Handle,
}

impl ShardNetwork {
    pub(crate) fn new(links: Option<PeerLinks>, shard: ShardSender) -> Self {
        Self { links, shard, runtime: tokio::runtime::Handle::current() }
    }
}

impl Network for ShardNetwork {
    fn send_packet(&mut self, class: Class, packet: Packet) {
        let Some(links) = &self.links else { return };
        // Messages of all groups share a packet, and so a lane.
        let lane = match class {
            Class::Urgent => Lane::URGENT,
            Class::Append => Lane::append(0),
            Class::Bulk => Lane::BULK,
        };
        links.send_packet(&packet, lane);
    }

    fn send_message(&mut self, to: NodeId, group: GroupId, message: Bytes) -> Result<(), NotSent> {
        let Some(links) = &self.links else { return Err(NotSent::Gone) };
        match links.send_gateway(to, group, message) {
            Ok(()) => Ok(()),
            Err(SendError::Full { .. }) => {
                let (links, shard) = (links.clone(), self.shard.clone());
                self.runtime.spawn(async move {
                    // A connection that ends is told as a node that is gone.
                    let _gone: Result<(), SendError> = links.gateway_room(to, group).await;
                    shard.signal(Signal::Room { peer: to });
                });
                Err(NotSent::Full)
            }
            Err(_) => Err(NotSent::Gone),
        }
    }
}
