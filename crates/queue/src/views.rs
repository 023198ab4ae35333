//! What an administrator sees: plain copies of numbers, cheap enough to take for every queue now
//! and then.

use bytes::Bytes;

use crate::delivery::EntryMismatch;
use crate::ids::{AppKey, Index, Position, QueueId};
use crate::message::{Located, Message};
use crate::partition::Partition;

/// One queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueView {
    /// The queue.
    pub id: QueueId,
    /// Its canonical URI.
    pub uri: String,
    /// Messages that at least one app still needs.
    pub messages: u64,
    /// Their application data, counted once however many apps need it.
    pub bytes: u64,
    /// Arrival time of the oldest of them, milliseconds since 1970.
    pub oldest_arrival_ms: Option<u64>,
    /// The position that the next message gets; the number of messages ever seen, refused ones
    /// included.
    pub next_position: Position,
    /// GUIDs remembered.
    pub history_guids: u64,
    /// Bytes that the GUIDs take, about.
    pub history_bytes: u64,
    /// Handles that write; 0 on a follower.
    pub producers: u32,
    /// The apps, by key.
    pub apps: Vec<AppView>,
}

/// One app of a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppView {
    /// Its key.
    pub key: AppKey,
    /// Its id; empty for the implicit app of a priority queue.
    pub name: String,
    /// Messages it has not confirmed.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Messages sent and not confirmed; 0 on a follower.
    pub unconfirmed: u64,
    /// Messages that wait for another delivery; 0 on a follower.
    pub redelivery: u64,
    /// Handles that read; 0 on a follower.
    pub consumers: u32,
}

/// Where a waiting message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Location {
    /// The message.
    pub position: Position,
    /// The log entry that holds it.
    pub index: Index,
    /// Its arrival, milliseconds since 1970.
    pub arrival_ms: u64,
    /// Bytes of its application data.
    pub size: u32,
    queue: QueueId,
    offset: u32,
    count: u32,
    ordinal: u32,
}

impl Partition {
    /// What there is to know about a queue.
    pub fn view(&self, queue: QueueId) -> Option<QueueView> {
        let queue = self.state.queues.get(&queue)?;
        let engine = self.engine.as_ref();
        let apps = queue.apps.iter().map(|app| {
            let (consumers, unconfirmed, redelivery) =
                engine.map_or((0, 0, 0), |engine| engine.app_figures(queue.id, app.key));
            AppView {
                key: app.key,
                name: app.name.clone(),
                messages: app.pending.len(),
                bytes: app.bytes,
                unconfirmed,
                redelivery,
                consumers,
            }
        });
        Some(QueueView {
            id: queue.id,
            uri: queue.uri.clone(),
            messages: queue.meter.messages(),
            bytes: queue.meter.bytes(),
            oldest_arrival_ms: queue.extents.front().map(|extent| extent.arrival_ms),
            next_position: queue.next_position,
            history_guids: queue.history.guids(),
            history_bytes: queue.history.memory(),
            producers: engine.map_or(0, |engine| engine.producers(queue.id)),
            apps: apps.collect(),
        })
    }

    /// Finds up to `count` waiting messages of a queue at or after a position. Read the entry of
    /// each and hand it to [`read`](Self::read).
    pub fn peek(&self, queue: QueueId, from: Position, count: usize) -> Vec<Location> {
        let mut found = Vec::new();
        let Some(queue) = self.state.queues.get(&queue) else { return found };
        let mut next = from;
        while found.len() < count
            && let Some(position) = queue.apps.iter().filter_map(|app| app.pending.next(next)).min()
            && let Some(extent) = queue.extents.find(position)
        {
            found.push(Location {
                position,
                index: extent.index,
                arrival_ms: extent.arrival_ms,
                size: extent.size_of(position),
                queue: queue.id,
                offset: extent.offset,
                count: extent.count,
                ordinal: (position - extent.first) as u32,
            });
            next = position + 1;
        }
        found
    }

    /// Takes a message out of its entry; the data is a slice of `payload`.
    pub fn read(location: &Location, payload: &Bytes) -> Result<Message, EntryMismatch> {
        let Location { queue, offset, count, ordinal, index, .. } = *location;
        let mismatch = EntryMismatch { index };
        if !crate::delivery::matches(offset, count, queue, payload) {
            return Err(mismatch);
        }
        let located = Located { entry: payload.clone(), offset, count };
        let header = located.header(ordinal).ok_or(mismatch)?;
        let app_data = located.app_data(&header);
        Ok(Message { guid: header.guid, attributes: header.attributes, app_data })
    }
}
