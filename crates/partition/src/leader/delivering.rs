//! From stored messages to consumers, here and behind forwarders.

use flintmq_protocol::guid::MessageGuid;
use flintmq_shard::Group;

use super::Leader;
use crate::context::Context;
use crate::effect::Effect;

/// Bytes delivered in one turn, before it is looked whether the ways out are full.
const TURN_BYTES: usize = 1 << 20;

impl Leader {
    /// Gives consumers what they have room for. True when more could be delivered at once.
    pub(super) fn deliver(&mut self, cx: &mut Context, group: &mut dyn Group) -> bool {
        if self.draining.is_some() || self.drained {
            return false;
        }
        let mut deliveries = std::mem::take(&mut self.deliveries);
        let more = cx.machine.deliver(TURN_BYTES, &mut deliveries);
        for index in deliveries.loads.drain(..) {
            group.read_entry(index);
        }
        let now = group.wall_ms();
        let mut waited: Vec<(u64, u32)> = Vec::new();
        for delivery in deliveries.messages.drain(..) {
            let bytes = delivery.app_data.len() as u64;
            cx.queues.count(delivery.queue, |counts| {
                counts.delivered.0 += 1;
                counts.delivered.1 += bytes;
                counts.redelivered += u64::from(delivery.redelivered);
            });
            if !delivery.redelivered {
                let ms = now.saturating_sub(delivery.arrival_ms);
                match waited.last_mut() {
                    Some((last, count)) if *last == ms => *count += 1,
                    _ => waited.push((ms, 1)),
                }
            }
            if let Some(remote) = self.remote.get(&delivery.handle).copied() {
                self.push_remote(group, remote.node, delivery);
            } else {
                let message = (MessageGuid(delivery.guid.0), delivery.attributes);
                let (handle, subscription) = (delivery.handle, delivery.subscription);
                cx.push(handle, subscription, message, delivery.redelivered, delivery.app_data);
            }
        }
        if !waited.is_empty() {
            cx.effects.push(Effect::DeliveryLatency(waited));
        }
        self.deliveries = deliveries;
        more
    }
}
