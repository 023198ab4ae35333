//! What an administrator sees: plain copies of numbers, cheap enough to take for every queue now and then.

use crate::ids::{AppKey, Index, Position, QueueId};

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
    /// The position that the next message gets; the number of messages ever seen, refused ones included.
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
    pub(crate) offset: u32,
    pub(crate) count: u32,
    pub(crate) ordinal: u32,
}
