//! The keys of the records in the store. All numbers are big-endian, so that keys of one kind and
//! queue lie together in the order of positions.
//!
//! | first byte | rest of the key | record |
//! | --- | --- | --- |
//! | `01` | | partition: version 1, applied index, time, history clock (varints) |
//! | `08` | domain 4 | domain that has queues: version 1, version of the settings, settings |
//! | `10` | queue 4 | queue: see [`Queue::encode`](super::queue::Queue) |
//! | `20` | queue 4, app 4, page 8 | positions that an app has not confirmed, and failed deliveries |
//! | `30` | queue 4, first position 8 | extent |
//! | `40` | queue 4, client 6, number 8 | history block |
//! | `50` | queue 4, GUID 16 | history stray |

use crate::codec::{Malformed, Reader, malformed};
use crate::history::BlockKey;
use crate::ids::{AppKey, DomainId, Guid, Position, QueueId};

/// A key taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Key {
    Partition,
    Domain(DomainId),
    Queue(QueueId),
    Page(QueueId, AppKey, u64),
    Extent(QueueId, Position),
    Block(QueueId, BlockKey),
    Stray(QueueId, Guid),
}

pub(crate) fn partition() -> Vec<u8> {
    vec![0x01]
}

pub(crate) fn domain(id: DomainId) -> Vec<u8> {
    let mut key = vec![0x08];
    key.extend_from_slice(&id.0.to_be_bytes());
    key
}

pub(crate) fn queue(id: QueueId) -> Vec<u8> {
    of_queue(0x10, id)
}

pub(crate) fn page(id: QueueId, app: AppKey, page: u64) -> Vec<u8> {
    let mut key = of_queue(0x20, id);
    key.extend_from_slice(&app.0.to_be_bytes());
    key.extend_from_slice(&page.to_be_bytes());
    key
}

pub(crate) fn extent(id: QueueId, first: Position) -> Vec<u8> {
    let mut key = of_queue(0x30, id);
    key.extend_from_slice(&first.to_be_bytes());
    key
}

pub(crate) fn block(id: QueueId, (client, number): BlockKey) -> Vec<u8> {
    let mut key = of_queue(0x40, id);
    key.extend_from_slice(&client);
    key.extend_from_slice(&number.to_be_bytes());
    key
}

pub(crate) fn stray(id: QueueId, guid: Guid) -> Vec<u8> {
    let mut key = of_queue(0x50, id);
    key.extend_from_slice(&guid.0);
    key
}

impl Key {
    /// Takes a key apart; the inverse of the functions of this module.
    pub(crate) fn decode(key: &[u8]) -> Result<Self, Malformed> {
        const WHAT: &str = "record key";
        let mut reader = Reader::new(key);
        let kind = reader.u8(WHAT)?;
        if kind == 0x01 {
            reader.finish(WHAT)?;
            return Ok(Self::Partition);
        }
        let number = reader.u32(WHAT)?;
        let queue = QueueId(number);
        let key = match kind {
            0x08 => Self::Domain(DomainId(number)),
            0x10 => Self::Queue(queue),
            0x20 => Self::Page(queue, AppKey(reader.u32(WHAT)?), reader.u64(WHAT)?),
            0x30 => Self::Extent(queue, reader.u64(WHAT)?),
            0x40 => Self::Block(queue, (reader.array(WHAT)?, reader.u64(WHAT)?)),
            0x50 => Self::Stray(queue, Guid(reader.array(WHAT)?)),
            _ => return malformed(WHAT),
        };
        reader.finish(WHAT)?;
        Ok(key)
    }
}

fn of_queue(kind: u8, id: QueueId) -> Vec<u8> {
    let mut key = Vec::with_capacity(21);
    key.push(kind);
    key.extend_from_slice(&id.0.to_be_bytes());
    key
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn keys_round_trip(id: u32, app: u32, number: u64, client: [u8; 6], guid: [u8; 16]) {
            let (id, app) = (QueueId(id), AppKey(app));
            let decoded = |key: Vec<u8>| Key::decode(&key).unwrap();
            prop_assert_eq!(decoded(partition()), Key::Partition);
            prop_assert_eq!(decoded(domain(DomainId(id.0))), Key::Domain(DomainId(id.0)));
            prop_assert_eq!(decoded(queue(id)), Key::Queue(id));
            prop_assert_eq!(decoded(page(id, app, number)), Key::Page(id, app, number));
            prop_assert_eq!(decoded(extent(id, number)), Key::Extent(id, number));
            let key = (client, number);
            prop_assert_eq!(decoded(block(id, key)), Key::Block(id, key));
            prop_assert_eq!(decoded(stray(id, Guid(guid))), Key::Stray(id, Guid(guid)));
        }

        #[test]
        fn no_bytes_panic_the_reader(key: Vec<u8>) {
            let _ = Key::decode(&key);
        }
    }

    #[test]
    fn golden_bytes() {
        let (id, app) = (QueueId(0x0102_0304), AppKey(5));
        assert_eq!(page(id, app, 7), [0x20, 1, 2, 3, 4, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 7]);
        assert_eq!(extent(id, 9), [0x30, 1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 0, 9]);
        let key = ([1, 2, 3, 4, 5, 6], 1);
        assert_eq!(block(id, key), [0x40, 1, 2, 3, 4, 1, 2, 3, 4, 5, 6, 0, 0, 0, 0, 0, 0, 0, 1]);
    }
}
