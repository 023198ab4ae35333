//! What is true of the cluster, seen from outside: which entries are committed, what became of
//! every message, and what of it clients were told.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use flintmq_consensus::{Entry, EntryKind, GroupId, Index, LogPosition, Term};
use flintmq_protocol::guid::MessageGuid;
use flintmq_queue::{Applied, Effect, Outcome, Partition, Position, QueueId};

/// Something that must not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// What does not hold.
    pub invariant: &'static str,
    /// Where and how.
    pub detail: String,
}

pub(crate) fn violation<T>(invariant: &'static str, detail: String) -> Result<T, Violation> {
    Err(Violation { invariant, detail })
}

/// Names a message: its client, and that client's count.
pub(crate) type Key = u64;

const MAGIC: [u8; 4] = [0xf1, 0x5a, 0x1e, 0x77];

/// Bytes of the head of a message's data.
pub(crate) const HEAD: usize = 20;

/// The data of a message: what names it, and filling.
pub(crate) fn app_data(key: Key, queue: QueueId, size: usize) -> Bytes {
    let size = size.max(HEAD);
    let mut data = Vec::with_capacity(size);
    data.extend_from_slice(&MAGIC);
    data.extend_from_slice(&key.to_be_bytes());
    data.extend_from_slice(&queue.0.to_be_bytes());
    data.extend_from_slice(&(size as u32).to_be_bytes());
    data.resize(size, 0x11);
    Bytes::from(data)
}

pub(crate) fn key_of_data(data: &[u8]) -> Option<Key> {
    let rest = data.strip_prefix(&MAGIC)?;
    Some(u64::from_be_bytes(*rest.first_chunk()?))
}

/// All messages in an entry, in order, with their queues.
fn messages_in(payload: &[u8]) -> Vec<(QueueId, Key)> {
    let mut messages = Vec::new();
    let mut at = 0;
    while let Some(next) = payload[at..].windows(4).position(|window| window == MAGIC) {
        let data = &payload[at + next..];
        let word = |from: usize| {
            let bytes = data.get(from..from + 4).and_then(|bytes| bytes.first_chunk().copied());
            u32::from_be_bytes(bytes.unwrap_or_default())
        };
        messages.extend(key_of_data(data).map(|key| (QueueId(word(12)), key)));
        at += next + (word(16) as usize).max(HEAD);
        at = at.min(payload.len());
    }
    messages
}

pub(crate) fn guid_of(key: Key) -> MessageGuid {
    let (client, seq) = ((key >> 32) as u32, key as u32);
    let mut bytes = [0; 16];
    bytes[0] = 0x40;
    bytes[6..10].copy_from_slice(&seq.to_be_bytes());
    bytes[10..12].copy_from_slice(&[0xc1, 0x1e]);
    bytes[12..].copy_from_slice(&client.to_be_bytes());
    MessageGuid(bytes)
}

pub(crate) fn key_of(guid: MessageGuid) -> Key {
    let part = |at: usize| guid.0.get(at..at + 4).and_then(|b| b.first_chunk().copied());
    let number = |at| u64::from(u32::from_be_bytes(part(at).unwrap_or_default()));
    number(12) << 32 | number(6)
}

/// A message in a queue, as the log has it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stored {
    pub(crate) position: Position,
    /// When its PUT first reached a node; its time to live begins at a leader, later.
    pub(crate) since: u64,
    /// When it was seen to be gone, and by which entry.
    pub(crate) gone: Option<(u64, Index)>,
}

/// One partition.
#[derive(Default)]
pub(crate) struct GroupOracle {
    pub(crate) committed: BTreeMap<Index, Entry>,
    pub(crate) reference: Partition,
    pub(crate) applied: Index,
    /// When PUTs first reached a node.
    sent: BTreeMap<Key, u64>,
    /// What was ever stored.
    pub(crate) stored: BTreeMap<(QueueId, Key), Stored>,
    /// Those that clients have confirmed and that were still there.
    leaving: BTreeSet<(QueueId, Key)>,
    /// All that clients ever confirmed.
    pub(crate) confirmed: BTreeSet<(QueueId, Key)>,
    /// Messages that were purged or expired.
    pub(crate) dropped: BTreeSet<(QueueId, Key)>,
    /// The highest term with an entry.
    pub(crate) term: Term,
}

/// What an applied entry says that the world should know.
#[derive(Debug, Default)]
pub(crate) struct News {
    /// Queues that went, with the messages that nothing had confirmed.
    pub(crate) deleted: Vec<(QueueId, Vec<Key>)>,
    /// Messages that were purged.
    pub(crate) purged: u64,
    /// Messages that expired, and the age of the youngest, in microseconds.
    pub(crate) expired: Vec<(QueueId, u64, u64)>,
    pub(crate) duplicates: u64,
}

impl GroupOracle {
    /// An entry is committed, as some node says.
    pub(crate) fn commit(
        &mut self,
        group: GroupId,
        now: u64,
        entry: Entry,
    ) -> Result<News, Violation> {
        let mut news = News::default();
        if let Some(known) = self.committed.get(&entry.index) {
            if known.position() != entry.position() || known.payload != entry.payload {
                return violation(
                    "OneLog",
                    format!(
                        "group {group}: {:?} is committed beside {:?}",
                        entry.position(),
                        known.position()
                    ),
                );
            }
            return Ok(news);
        }
        self.term = self.term.max(entry.term);
        self.committed.insert(entry.index, entry);
        while let Some(entry) = self.committed.get(&(self.applied + 1)).cloned() {
            self.applied += 1;
            self.apply(group, now, &entry, &mut news)?;
        }
        Ok(news)
    }

    fn apply(
        &mut self,
        group: GroupId,
        now: u64,
        entry: &Entry,
        news: &mut News,
    ) -> Result<(), Violation> {
        let empty = Bytes::new();
        let payload = match entry.kind {
            EntryKind::Commands => &entry.payload,
            _ => &empty,
        };
        let mut applied = Applied::default();
        if let Err(error) = self.reference.apply(entry.index, payload, &mut applied) {
            return violation("Applicable", format!("group {group} {error}"));
        }
        let messages = messages_in(payload);
        if messages.len() != applied.outcomes.len() {
            let detail = format!("group {group} index {} {messages:?}", entry.index);
            return violation("Harness", detail);
        }
        for (outcome, place) in applied.outcomes.iter().zip(messages) {
            if let Outcome::Stored { position } = *outcome {
                let since = self.sent.get(&place.1).copied().unwrap_or(now);
                let stored = Stored { position, since, gone: None };
                if let Some(before) = self.stored.insert(place, stored) {
                    let (queue, key) = place;
                    let detail = format!(
                        "group {group} queue {} message {key:x} at {position}, and before at {}",
                        queue.0, before.position
                    );
                    return violation("StoredOnce", detail);
                }
            }
        }
        let duplicate = |outcome: &&Outcome| **outcome == Outcome::Duplicate;
        news.duplicates += applied.outcomes.iter().filter(duplicate).count() as u64;
        for effect in &applied.effects {
            match effect {
                Effect::QueueDeleted { queue, .. } => {
                    let gone = self.unasked(*queue, now, entry.index);
                    news.deleted.push((*queue, gone.into_iter().map(|(key, _)| key).collect()));
                }
                Effect::Purged { queue, messages, .. } => {
                    let gone = self.unasked(*queue, now, entry.index);
                    self.dropped.extend(gone.iter().map(|(key, _)| (*queue, *key)));
                    news.purged += messages;
                }
                Effect::Expired { queue, messages, .. } => {
                    let gone = self.unasked(*queue, now, entry.index);
                    self.dropped.extend(gone.iter().map(|(key, _)| (*queue, *key)));
                    let age = gone.iter().map(|(_, since)| now - since).min();
                    news.expired.push((*queue, *messages, age.unwrap_or(u64::MAX)));
                }
                _ => {}
            }
        }
        let (reference, stored) = (&self.reference, &mut self.stored);
        self.leaving.retain(|place| {
            let Some(message) = stored.get_mut(place) else { return false };
            let there = is_there(reference, place.0, message.position);
            if !there {
                message.gone = Some((now, entry.index));
            }
            there
        });
        Ok(())
    }

    /// Messages of a queue that are gone by this entry although no client confirmed them, and since
    /// when they were there.
    fn unasked(&mut self, queue: QueueId, now: u64, index: Index) -> Vec<(Key, u64)> {
        let mut gone = Vec::new();
        for (place, stored) in self.stored.range_mut((queue, 0)..=(queue, Key::MAX)) {
            let there = is_there(&self.reference, queue, stored.position);
            if stored.gone.is_none() && !there && !self.leaving.contains(place) {
                stored.gone = Some((now, index));
                gone.push((place.1, stored.since));
            }
        }
        gone
    }

    /// The group goes on without what follows this entry: a majority of it is lost.
    pub(crate) fn fork(&mut self, group: GroupId, now: u64, last: Index) -> Result<(), Violation> {
        let before = std::mem::take(self);
        self.confirmed = before.confirmed;
        for (_, entry) in before.committed.range(..=last) {
            let _known = self.commit(group, now, entry.clone())?;
        }
        for (place, stored) in &mut self.stored {
            stored.since = before.stored.get(place).map_or(now, |known| known.since);
            if stored.gone.is_none() && !is_there(&self.reference, place.0, stored.position) {
                stored.gone = Some((now, last));
            }
        }
        // Confirmations that are lost are no confirmations: these messages come again.
        let there = self.stored.iter().filter(|(_, stored)| stored.gone.is_none());
        let confirmed = &self.confirmed;
        self.leaving = there.map(|(place, _)| *place).filter(|p| confirmed.contains(p)).collect();
        Ok(())
    }

    /// Whether a message of this identity is in the log for this queue.
    pub(crate) fn is_stored(&self, queue: QueueId, key: Key) -> bool {
        self.stored.contains_key(&(queue, key))
    }

    /// A PUT reaches a node.
    pub(crate) fn put_sent(&mut self, key: Key, now: u64) {
        self.sent.entry(key).or_insert(now);
    }

    /// A client has confirmed it.
    pub(crate) fn confirm_sent(&mut self, queue: QueueId, key: Key) {
        self.confirmed.insert((queue, key));
        if self.stored.get(&(queue, key)).is_some_and(|stored| stored.gone.is_none()) {
            self.leaving.insert((queue, key));
        }
    }

    pub(crate) fn position(&self, index: Index) -> Option<LogPosition> {
        self.committed.get(&index).map(Entry::position)
    }
}

fn is_there(reference: &Partition, queue: QueueId, position: Position) -> bool {
    let first = reference.peek(queue, position, 1);
    first.first().is_some_and(|found| found.position == position)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back() {
        let key = 7 << 32 | 9;
        assert_eq!(key_of(guid_of(key)), key);
        let data = app_data(key, QueueId(3), 50);
        assert_eq!((data.len(), key_of_data(&data)), (50, Some(key)));
        let payload = [&b"xx"[..], &data, &app_data(1, QueueId(4), 20)].concat();
        assert_eq!(messages_in(&payload), [(QueueId(3), key), (QueueId(4), 1)]);
    }
}
