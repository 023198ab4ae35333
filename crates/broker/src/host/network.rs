//! The shard's way to other nodes.

use bytes::Bytes;
use flintmq_consensus::{Class, GroupId, Message, NodeId, Packet};
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

/// Streams that entries are spread over, by group: a large entry of one group holds up few others.
const LANES: u32 = 4;

/// One packet for each lane that has messages: those of a group share one, and so keep their order.
fn by_lane(packet: Packet) -> Vec<(u32, Packet)> {
    let lane = |message: &Message| message.group.0 % LANES;
    let first = packet.messages.first().map_or(0, lane);
    if packet.messages.iter().all(|message| lane(message) == first) {
        return vec![(first, packet)];
    }
    let head = Packet { messages: Vec::new(), ..packet };
    let mut lanes = vec![Vec::new(); LANES as usize];
    for message in packet.messages {
        lanes[lane(&message) as usize].push(message);
    }
    let filled = (0..LANES).zip(lanes).filter(|(_, messages)| !messages.is_empty());
    filled.map(|(lane, messages)| (lane, Packet { messages, ..head.clone() })).collect()
}

impl Network for ShardNetwork {
    fn send_packet(&mut self, class: Class, packet: Packet) {
        let Some(links) = &self.links else { return };
        match class {
            Class::Urgent => links.send_packet(&packet, Lane::URGENT),
            Class::Bulk => links.send_packet(&packet, Lane::BULK),
            Class::Append => {
                for (lane, packet) in by_lane(packet) {
                    links.send_packet(&packet, Lane::append(lane));
                }
            }
        }
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
