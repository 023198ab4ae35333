//! Log entries: a batch of commands, built by the leader, applied by every replica.
//!
//! # Layout, version 2
//!
//! | part | bytes |
//! | --- | --- |
//! | version | 1 byte, value 2 |
//! | time | varint: the leader's wall clock when it built the entry, milliseconds since 1970 |
//! | commands | until the end of the entry: 1 byte tag, then the body |
//!
//! | tag | command | body |
//! | --- | --- | --- |
//! | 1 | publish | queue, count, `count` headers of 24 bytes, application data back to back |
//! | 2 | confirm | queue, app, count of runs, per run: positions skipped since the last run, length - 1 |
//! | 3 | attempt | queue, app, count, per position the signed difference to the one before (zigzag) |
//! | 4 | expire | queue, last position that expires |
//! | 5 | purge | queue, 0 for all apps or 1 + app |
//! | 8 | delete queue | queue |
//! | 9 | set domain | domain: id, version (term, index), settings |
//! | 10 | create queue | queue, URI (length and bytes), 0 and the domain's id, or 1 and the domain |
//!
//! Entries of version 1 are read, too. They have no commands 9 and 10, and instead of them:
//!
//! | tag | command | body |
//! | --- | --- | --- |
//! | 6 | create queue | queue, URI (length and bytes), domain's id, settings |
//! | 7 | set domain | a queue of the domain, domain's id, settings |
//!
//! Numbers are varints unless a size is given; a header is GUID (16), end of its data counted from
//! the end of the table (4, big-endian), flags (1), compression (1), schema id (2, big-endian). An
//! entry without any byte is a legal entry without commands.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::codec::{Malformed, Reader, malformed, put_str, put_varint, unzigzag, zigzag};
use crate::ids::{AppKey, DomainId, Position, QueueId};
use crate::message::{Batch, MAX_APP_DATA_BYTES, Message, put_header};
use crate::settings::Domain;

const VERSION: u8 = 2;

/// Data of one publish command stays below this, so that offsets in it fit 32 bits.
const MAX_PUBLISH_BYTES: usize = 1 << 30;

/// A message that no entry can carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("message is too large, split it: bytes={bytes} limit={MAX_APP_DATA_BYTES}")]
pub struct MessageTooLarge {
    /// Bytes of its application data.
    pub bytes: usize,
}

/// A confirm that the delivery engine wants in the log: this message is done for this app.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConfirmItem {
    /// The queue.
    pub queue: QueueId,
    /// The app that is done with the message.
    pub app: AppKey,
    /// The message.
    pub position: Position,
}

/// Failed deliveries that the delivery engine wants in the log: a consumer died holding these.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptItem {
    /// The queue.
    pub queue: QueueId,
    /// The app whose delivery failed.
    pub app: AppKey,
    /// The messages in the order of their delivery; they are redelivered in it.
    pub positions: Vec<Position>,
}

/// Messages of a queue that have outlived their TTL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExpireItem {
    /// The queue.
    pub queue: QueueId,
    /// Everything up to and including this position goes.
    pub up_to: Position,
}

/// How the creation of a queue names its domain.
#[derive(Debug, Clone, Copy)]
pub enum QueueDomain<'a> {
    /// The partition knows it, at the version that is meant or a newer one.
    Known(DomainId),
    /// With its settings: they count for all its queues in the partition, unless it knows newer
    /// ones.
    Carried(&'a Domain),
}

/// A finished entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Built {
    /// What goes to the log.
    pub payload: Bytes,
    /// For each publish outcome that applying this entry will report, in order: the how-manieth
    /// [`EntryBuilder::publish`] call it belongs to, counted from 0. Messages of several queues are
    /// regrouped by queue, hence the permutation.
    pub publish_order: Vec<u32>,
}

/// Collects commands for one entry.
///
/// All messages of a queue, and all confirms of an app, join one command as long as no other kind
/// of command for that queue comes between; the order between commands of one queue is kept. Finish
/// an entry long before [`EntryBuilder::bytes`] comes near 4 GiB, the most that a replica reads.
///
/// ```
/// use bytes::Bytes;
/// use flintmq_queue::{Attributes, EntryBuilder, Guid, Message, QueueId};
///
/// let mut builder = EntryBuilder::default();
/// builder.publish(QueueId(7), Message {
///     guid: Guid([1; 16]),
///     attributes: Attributes::default(),
///     app_data: Bytes::from_static(b"hello"),
/// })?;
/// let built = builder.finish(1_700_000_000_000);
/// assert_eq!(built.publish_order, [0]);
/// assert!(builder.is_empty());
/// # Ok::<(), flintmq_queue::MessageTooLarge>(())
/// ```
#[derive(Debug, Default)]
pub struct EntryBuilder {
    parts: Vec<Part>,
    publishing: BTreeMap<QueueId, usize>,
    confirming: BTreeMap<(QueueId, AppKey), usize>,
    last_publish: Option<(QueueId, usize)>,
    last_confirm: Option<((QueueId, AppKey), usize)>,
    published: u32,
    bytes: usize,
}

#[derive(Debug)]
enum Part {
    Publish { queue: QueueId, messages: Vec<(u32, Message)>, bytes: usize },
    Confirm { queue: QueueId, app: AppKey, positions: Vec<Position> },
    Encoded(Vec<u8>),
}

impl EntryBuilder {
    /// Adds a message. The bytes are copied once, by [`EntryBuilder::finish`].
    pub fn publish(&mut self, queue: QueueId, message: Message) -> Result<(), MessageTooLarge> {
        let size = message.app_data.len();
        if size > MAX_APP_DATA_BYTES {
            return Err(MessageTooLarge { bytes: size });
        }
        let number = self.published;
        self.published += 1;
        self.bytes += size + crate::message::HEADER_BYTES;
        let known = match self.last_publish {
            Some((last, part)) if last == queue => Some(part),
            _ => self.publishing.get(&queue).copied(),
        };
        if let Some(part) = known
            && let Some(Part::Publish { messages, bytes, .. }) = self.parts.get_mut(part)
            && *bytes + size <= MAX_PUBLISH_BYTES
        {
            *bytes += size;
            messages.push((number, message));
            self.last_publish = Some((queue, part));
            return Ok(());
        }
        let part = self.parts.len();
        self.parts.push(Part::Publish { queue, messages: vec![(number, message)], bytes: size });
        self.publishing.insert(queue, part);
        self.last_publish = Some((queue, part));
        Ok(())
    }

    /// Adds a confirm.
    pub fn confirm(&mut self, item: ConfirmItem) {
        self.bytes += 2;
        let key = (item.queue, item.app);
        let known = match self.last_confirm {
            Some((last, part)) if last == key => Some(part),
            _ => self.confirming.get(&key).copied(),
        };
        if let Some(part) = known
            && let Some(Part::Confirm { positions, .. }) = self.parts.get_mut(part)
        {
            positions.push(item.position);
            self.last_confirm = Some((key, part));
            return;
        }
        let part = self.parts.len();
        let positions = vec![item.position];
        self.parts.push(Part::Confirm { queue: item.queue, app: item.app, positions });
        self.confirming.insert(key, part);
        self.last_confirm = Some((key, part));
    }

    /// Adds failed deliveries.
    pub fn attempt(&mut self, item: &AttemptItem) {
        self.other(3, item.queue, |out| {
            put_varint(out, u64::from(item.app.0));
            put_varint(out, item.positions.len() as u64);
            let mut last = 0u64;
            for &position in &item.positions {
                put_varint(out, zigzag(position.wrapping_sub(last) as i64));
                last = position;
            }
        });
    }

    /// Adds the end of messages that have outlived their TTL.
    pub fn expire(&mut self, item: ExpireItem) {
        self.other(4, item.queue, |out| put_varint(out, item.up_to));
    }

    /// Adds a purge: of one app's share, or with `None` of the whole queue.
    pub fn purge(&mut self, queue: QueueId, app: Option<AppKey>) {
        self.other(5, queue, |out| put_varint(out, app.map_or(0, |app| u64::from(app.0) + 1)));
    }

    /// Adds the creation of a queue of a domain that has queues in the partition already, or, where
    /// that is not known, together with the domain. Ignored by replicas that have a queue with this
    /// id.
    pub fn create_queue(&mut self, queue: QueueId, uri: &str, domain: QueueDomain<'_>) {
        self.other(10, queue, |out| {
            put_str(out, uri);
            match domain {
                QueueDomain::Known(id) => {
                    out.push(0);
                    put_varint(out, u64::from(id.0));
                }
                QueueDomain::Carried(domain) => {
                    out.push(1);
                    domain.encode(out);
                }
            }
        });
        if let QueueDomain::Carried(_) = domain {
            self.separate();
        }
    }

    /// Adds new settings for all queues of a domain. Ignored by partitions that hold none of them,
    /// and by those that know newer settings. The mode's kind cannot change.
    pub fn set_domain(&mut self, domain: &Domain) {
        let mut out = vec![9];
        domain.encode(&mut out);
        self.bytes += out.len();
        self.parts.push(Part::Encoded(out));
        self.separate();
    }

    /// Adds the end of a queue, with all its messages and its history.
    pub fn delete_queue(&mut self, queue: QueueId) {
        self.other(8, queue, |_| {});
    }

    /// True when nothing was added since the last [`EntryBuilder::finish`].
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// True when confirms were added and nothing else.
    pub fn is_only_confirms(&self) -> bool {
        !self.parts.is_empty() && self.parts.len() == self.confirming.len()
    }

    /// Messages added so far.
    pub fn messages(&self) -> usize {
        self.published as usize
    }

    /// About how many bytes the entry will have.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Builds the entry and leaves the builder empty for the next one. `time_ms` is the leader's
    /// wall clock in milliseconds since 1970: the arrival time of every message in the entry.
    pub fn finish(&mut self, time_ms: u64) -> Built {
        let mut out = Vec::with_capacity(self.bytes + 16 + self.parts.len() * 16);
        let mut order = Vec::with_capacity(self.published as usize);
        out.push(VERSION);
        put_varint(&mut out, time_ms);
        for part in self.parts.drain(..) {
            match part {
                Part::Publish { queue, messages, .. } => {
                    order.extend(messages.iter().map(|(number, _)| *number));
                    put_publish(&mut out, queue, &messages);
                }
                Part::Confirm { queue, app, positions } => {
                    put_confirm(&mut out, queue, app, positions);
                }
                Part::Encoded(bytes) => out.extend_from_slice(&bytes),
            }
        }
        self.separate();
        self.published = 0;
        self.bytes = 0;
        Built { payload: Bytes::from(out), publish_order: order }
    }

    /// What comes later must not join what was added before, whatever its queue.
    fn separate(&mut self) {
        self.publishing.clear();
        self.confirming.clear();
        self.last_publish = None;
        self.last_confirm = None;
    }

    fn other(&mut self, tag: u8, queue: QueueId, body: impl FnOnce(&mut Vec<u8>)) {
        let mut out = vec![tag];
        put_varint(&mut out, u64::from(queue.0));
        body(&mut out);
        self.bytes += out.len();
        self.parts.push(Part::Encoded(out));
        // Later messages and confirms of this queue must not overtake this command.
        self.publishing.remove(&queue);
        self.confirming.retain(|(of, _), _| *of != queue);
        self.last_publish = None;
        self.last_confirm = None;
    }
}

fn put_publish(out: &mut Vec<u8>, queue: QueueId, messages: &[(u32, Message)]) {
    out.push(1);
    put_varint(out, u64::from(queue.0));
    put_varint(out, messages.len() as u64);
    let mut end = 0u32;
    for (_, message) in messages {
        end += message.app_data.len() as u32;
        put_header(out, message.guid, message.attributes, end);
    }
    messages.iter().for_each(|(_, message)| out.extend_from_slice(&message.app_data));
}

fn put_confirm(out: &mut Vec<u8>, queue: QueueId, app: AppKey, mut positions: Vec<Position>) {
    if !positions.is_sorted() {
        positions.sort_unstable();
    }
    positions.dedup();
    let runs: Vec<&[Position]> = positions.chunk_by(|a, b| a.checked_add(1) == Some(*b)).collect();
    out.push(2);
    put_varint(out, u64::from(queue.0));
    put_varint(out, u64::from(app.0));
    put_varint(out, runs.len() as u64);
    let mut next = 0u64;
    for run in runs {
        put_varint(out, run[0] - next);
        put_varint(out, run.len() as u64 - 1);
        next = run[0].saturating_add(run.len() as u64);
    }
}

/// A command as read from an entry.
#[derive(Debug)]
pub(crate) enum Command<'a> {
    Publish(Batch<'a>),
    /// Runs of positions: first, last (inclusive); ascending.
    Confirm {
        queue: QueueId,
        app: AppKey,
        runs: Vec<(Position, Position)>,
    },
    Attempt {
        queue: QueueId,
        app: AppKey,
        positions: Vec<Position>,
    },
    Expire {
        queue: QueueId,
        up_to: Position,
    },
    Purge {
        queue: QueueId,
        app: Option<AppKey>,
    },
    CreateQueue {
        queue: QueueId,
        uri: &'a str,
        domain: DomainId,
        /// Its settings, where the leader was not sure that they are known.
        carried: Option<Box<Domain>>,
    },
    DeleteQueue {
        queue: QueueId,
    },
    SetDomain(Box<Domain>),
}

impl Command<'_> {
    /// The queue that the command is for; none for a command for a domain.
    pub(crate) fn queue(&self) -> Option<QueueId> {
        let queue = match self {
            Self::SetDomain(_) => return None,
            Self::Publish(batch) => batch.queue,
            Self::Confirm { queue, .. }
            | Self::Attempt { queue, .. }
            | Self::Expire { queue, .. }
            | Self::Purge { queue, .. }
            | Self::CreateQueue { queue, .. }
            | Self::DeleteQueue { queue } => *queue,
        };
        Some(queue)
    }
}

/// Reads a whole entry before anything of it is applied, so that a damaged one changes nothing.
/// Returns the entry's time, if it has any byte, and its commands.
pub(crate) fn decode(entry: &[u8]) -> Result<(Option<u64>, Vec<Command<'_>>), Malformed> {
    let mut reader = Reader::new(entry);
    if reader.is_empty() {
        return Ok((None, Vec::new()));
    }
    let version = reader.u8("entry version")?;
    if version == 0 || version > VERSION {
        return malformed("entry version");
    }
    let time = reader.varint("entry time")?;
    let mut commands = Vec::new();
    while !reader.is_empty() {
        commands.push(decode_command(version, entry, &mut reader)?);
    }
    Ok((Some(time), commands))
}

fn decode_command<'a>(
    version: u8,
    entry: &'a [u8],
    reader: &mut Reader<'a>,
) -> Result<Command<'a>, Malformed> {
    let tag = reader.u8("command tag")?;
    match tag {
        1 => return Ok(Command::Publish(Batch::decode(entry, reader)?)),
        9 if version > 1 => return Ok(Command::SetDomain(Box::new(Domain::decode(reader)?))),
        _ => {}
    }
    let queue = QueueId(reader.varint_u32("queue id")?);
    Ok(match tag {
        2 => decode_confirm(queue, reader)?,
        3 => {
            let app = AppKey(reader.varint_u32("attempt command")?);
            let count = reader.count(1, "attempt command")?;
            let mut positions = Vec::with_capacity(count);
            let mut last = 0u64;
            for _ in 0..count {
                last = last.wrapping_add(unzigzag(reader.varint("attempt command")?) as u64);
                positions.push(last);
            }
            Command::Attempt { queue, app, positions }
        }
        4 => Command::Expire { queue, up_to: reader.varint("expire command")? },
        5 => {
            let app = reader.varint("purge command")?.checked_sub(1);
            let app = app.map(u32::try_from).transpose().or_else(|_| malformed("purge command"))?;
            Command::Purge { queue, app: app.map(AppKey) }
        }
        6 if version == 1 => {
            let uri = reader.str("queue uri")?;
            let domain = Box::new(Domain::decode_unversioned(reader)?);
            Command::CreateQueue { queue, uri, domain: domain.id, carried: Some(domain) }
        }
        7 if version == 1 => Command::SetDomain(Box::new(Domain::decode_unversioned(reader)?)),
        10 if version > 1 => {
            let uri = reader.str("queue uri")?;
            let (domain, carried) = match reader.u8("queue domain")? {
                0 => (DomainId(reader.varint_u32("domain id")?), None),
                1 => {
                    let domain = Box::new(Domain::decode(reader)?);
                    (domain.id, Some(domain))
                }
                _ => return malformed("queue domain"),
            };
            Command::CreateQueue { queue, uri, domain, carried }
        }
        8 => Command::DeleteQueue { queue },
        _ => return malformed("command tag"),
    })
}

fn decode_confirm<'a>(queue: QueueId, reader: &mut Reader<'a>) -> Result<Command<'a>, Malformed> {
    const WHAT: &str = "confirm command";
    let app = AppKey(reader.varint_u32(WHAT)?);
    let count = reader.count(2, WHAT)?;
    let mut runs = Vec::with_capacity(count);
    let mut next = 0u64;
    for _ in 0..count {
        let Some(first) = next.checked_add(reader.varint(WHAT)?) else { return malformed(WHAT) };
        let Some(last) = first.checked_add(reader.varint(WHAT)?) else { return malformed(WHAT) };
        runs.push((first, last));
        next = last.saturating_add(1);
    }
    Ok(Command::Confirm { queue, app, runs })
}

#[cfg(test)]
#[path = "entry_tests.rs"]
mod tests;
