//! What administrators see of a partition and its queues.

use std::sync::Arc;

use flintmq_consensus::GroupId;
use flintmq_protocol::guid::MessageGuid;
use flintmq_queue::{Partition, QueueId};
use flintmq_storage::LogStore;
use tokio::sync::oneshot;

use super::requests::{AdminRefusal, Peeked, QueueSnapshot};
use super::task::PartitionTask;

/// Messages that one peek returns at most.
pub(crate) const MAX_PEEKED: usize = 1000;

/// Bytes of application data that one peek returns at most.
const MAX_PEEKED_BYTES: usize = 8 << 20;

impl PartitionTask {
    pub(super) fn view(&self, queue: QueueId) -> Option<QueueSnapshot> {
        let view = self.machine.view(queue)?;
        let node = self.replica.status().leader.map(|leader| leader.0);
        Some(QueueSnapshot { group: self.group(), node, view })
    }

    pub(super) fn view_all(&self) -> Vec<QueueSnapshot> {
        self.queues.keys().filter_map(|queue| self.view(*queue)).collect()
    }

    /// Reads the oldest messages beside the task, so that a disk read holds up nothing.
    pub(super) fn peek(
        &self,
        queue: QueueId,
        count: usize,
        done: oneshot::Sender<Result<Vec<Peeked>, AdminRefusal>>,
    ) {
        if self.machine.settings(queue).is_none() {
            let _gone = done.send(Err(AdminRefusal::NoSuchQueue));
            return;
        }
        let locations = self.machine.peek(queue, 0, count.min(MAX_PEEKED));
        let (group, store) = (self.group(), Arc::clone(self.replica.store()));
        tokio::task::spawn_blocking(move || {
            let _gone = done.send(read(group, &*store, &locations));
        });
    }
}

fn read(
    group: GroupId,
    store: &dyn LogStore,
    locations: &[flintmq_queue::Location],
) -> Result<Vec<Peeked>, AdminRefusal> {
    let failed = |error: &dyn std::fmt::Display| AdminRefusal::Failed(error.to_string());
    let mut peeked = Vec::new();
    let mut bytes = 0;
    let mut last: Option<(u64, bytes::Bytes)> = None;
    for location in locations {
        let payload = match &last {
            Some((index, payload)) if *index == location.index => payload.clone(),
            _ => match store.entry(group, location.index).map_err(|error| failed(&error))? {
                Some(entry) => entry.payload,
                // Confirmed and compacted between the look at the queue and this read.
                None => continue,
            },
        };
        let message = Partition::read(location, &payload).map_err(|error| failed(&error))?;
        last = Some((location.index, payload));
        bytes += message.app_data.len();
        if bytes > MAX_PEEKED_BYTES && !peeked.is_empty() {
            break;
        }
        peeked.push(Peeked {
            guid: MessageGuid(message.guid.0),
            arrival_ms: location.arrival_ms,
            attributes: message.attributes,
            app_data: message.app_data,
        });
    }
    Ok(peeked)
}
