//! Messages from the leader on their way to this node's clients.
//!
//! The leader sends no message that this node has in its own log already, only where it is there.
//! Most are found among the entries that came last; what a slow consumer gets later is read from
//! the store, and what comes behind it waits, answers included, so that every client keeps the
//! order of the leader.

use std::collections::VecDeque;

use bytes::Bytes;
use flintmq_consensus::Index;
use flintmq_queue::HandleId;
use flintmq_shard::{Group, ReadError};

use super::Forwarder;
use crate::context::Context;
use crate::peer_message::{LogReference, WirePush, attributes_of, guid_of};
use crate::pending::Closing;

/// Bytes of applied entries that are kept at hand.
const RECENT_BYTES: usize = 1 << 20;

/// Entries that were read from the store and are kept at hand, at most, and their bytes.
const READ_ENTRIES: usize = 8;
const READ_BYTES: usize = 4 << 20;

/// Something that clients get in the leader's order.
pub(super) enum Arrived {
    Push(WirePush),
    /// The number of the request, and whether it was carried out.
    Configured(u64, bool),
    /// The number of the close.
    Closed(u64),
}

/// What a forwarder keeps of them. The leader bounds what is on its way to a client by the client's
/// own limits of unconfirmed messages.
#[derive(Default)]
pub(super) struct Arriving {
    /// In the leader's order.
    waiting: VecDeque<Arrived>,
    /// The entry that is being read for the first of them.
    reading: Option<Index>,
    /// The entries that were read last: messages of several queues may come in turns.
    read: VecDeque<(Index, Bytes)>,
    /// Entries that were applied last, ascending.
    recent: VecDeque<(Index, Bytes)>,
    recent_bytes: usize,
}

/// Where the entry is that a message is in.
enum Found {
    Here(Bytes),
    /// In the store, to be read.
    Stored,
    /// Not in this node's log.
    Nowhere,
}

impl Arriving {
    fn recent(&self, index: Index) -> Option<&Bytes> {
        let at = self.recent.binary_search_by_key(&index, |(index, _)| *index).ok()?;
        self.recent.get(at).map(|(_, payload)| payload)
    }

    /// Keeps the entry, whatever its size: a message of it waits.
    fn keep_read(&mut self, index: Index, payload: Bytes) {
        self.read.push_back((index, payload));
        let bytes = |read: &VecDeque<(Index, Bytes)>| -> usize {
            read.iter().map(|(_, payload)| payload.len()).sum()
        };
        while self.read.len() > 1
            && (self.read.len() > READ_ENTRIES || bytes(&self.read) > READ_BYTES)
        {
            self.read.pop_front();
        }
    }

    fn keep(&mut self, index: Index, payload: Bytes) {
        if self.recent.back().is_some_and(|(last, _)| *last >= index) {
            self.recent.clear();
            self.recent_bytes = 0;
        }
        self.recent_bytes += payload.len();
        self.recent.push_back((index, payload));
        while self.recent_bytes > RECENT_BYTES
            && let Some((_, oldest)) = self.recent.pop_front()
        {
            self.recent_bytes -= oldest.len();
        }
    }
}

impl Forwarder {
    /// Keeps an applied entry at hand, if clients of this node may get messages of it.
    pub(crate) fn on_applied(&mut self, cx: &Context, index: Index, payload: &Bytes) {
        if !cx.handles.is_empty() {
            self.arriving.keep(index, payload.clone());
        }
    }

    /// Takes what the leader sent, to be given to a client in its turn.
    pub(super) fn arrived(&mut self, arrived: Arrived) {
        self.arriving.waiting.push_back(arrived);
    }

    /// An entry was read for the first message that waits.
    pub(crate) fn on_entry_read(
        &mut self,
        cx: &mut Context,
        group: &mut dyn Group,
        index: Index,
        read: Result<Bytes, ReadError>,
    ) {
        // The leader may have changed meanwhile, and with it what waits.
        if self.arriving.reading != Some(index) {
            return;
        }
        self.arriving.reading = None;
        match read {
            Ok(payload) => {
                self.arriving.keep_read(index, payload);
                self.pass_on(cx, group);
            }
            Err(error) => {
                tracing::warn!(
                    group = group.id().0, index, %error,
                    "a message to be delivered is not found in this node's log: the leader is asked for it"
                );
                self.not_found();
            }
        }
    }

    /// Gives clients what is at hand, in order.
    pub(super) fn pass_on(&mut self, cx: &mut Context, group: &mut dyn Group) {
        if self.arriving.reading.is_some() || self.broken {
            return;
        }
        while let Some(arrived) = self.arriving.waiting.pop_front() {
            match arrived {
                Arrived::Configured(number, done) => {
                    if let Some(configure) = cx.pending.configures.remove(&number) {
                        cx.configured(configure, done);
                    }
                }
                Arrived::Closed(number) => match cx.pending.closes.remove(&number) {
                    Some(Closing::Close(close)) => cx.closed(*close),
                    Some(Closing::Session(ended)) => cx.session_ended(ended),
                    None => {}
                },
                Arrived::Push(push) => {
                    let Some(reference) = push.reference else {
                        let app_data = push.app_data.clone();
                        give(cx, &push, app_data);
                        continue;
                    };
                    match self.find(group, &reference) {
                        Found::Here(payload) => {
                            let start = reference.offset as usize;
                            let end = start.saturating_add(reference.size as usize);
                            if payload.get(start..end).is_none() {
                                return self.not_found();
                            }
                            give(cx, &push, payload.slice(start..end));
                        }
                        Found::Stored => {
                            self.arriving.waiting.push_front(Arrived::Push(push));
                            self.arriving.reading = Some(reference.index);
                            return group.read_entry(reference.index);
                        }
                        Found::Nowhere => return self.not_found(),
                    }
                }
            }
        }
    }

    /// What the leader referred to is not here: begin again, and have the messages sent.
    fn not_found(&mut self) {
        self.lookup_failed = true;
        self.broken = true;
    }

    fn find(&self, group: &dyn Group, reference: &LogReference) -> Found {
        let index = reference.index;
        if index > group.applied().index {
            // Committed, as the leader says, but not known to be so here.
            let entry = group.unapplied(index).filter(|entry| entry.term == reference.term);
            return entry.map_or(Found::Nowhere, |entry| Found::Here(entry.payload));
        }
        if let Some(payload) = self.arriving.recent(index) {
            return Found::Here(payload.clone());
        }
        let read = self.arriving.read.iter().find(|(read, _)| *read == index);
        read.map_or(Found::Stored, |(_, payload)| Found::Here(payload.clone()))
    }
}

fn give(cx: &mut Context, push: &WirePush, app_data: Bytes) {
    let Some(guid) = guid_of(&push.guid) else { return };
    let message = (guid, attributes_of(push.attributes));
    cx.push(HandleId(push.handle), push.subscription, message, push.redelivered, app_data);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(len: usize) -> Bytes {
        Bytes::from(vec![7; len])
    }

    #[test]
    fn what_came_last_is_at_hand_within_bounds() {
        let mut arriving = Arriving::default();
        let size = RECENT_BYTES / 4;
        for index in 10..20 {
            arriving.keep(index, payload(size));
        }
        assert!(arriving.recent(15).is_none(), "it is too long ago");
        assert!((16..20).all(|index| arriving.recent(index).is_some()));
        assert!(arriving.recent(20).is_none());
        arriving.keep(12, payload(1));
        assert!(arriving.recent(12).is_some(), "another past has begun");
        assert!(arriving.recent(19).is_none());
    }

    #[test]
    fn few_read_entries_are_kept_but_always_the_last() {
        let mut arriving = Arriving::default();
        for index in 0..20 {
            arriving.keep_read(index, payload(1));
        }
        assert_eq!(arriving.read.len(), READ_ENTRIES);
        arriving.keep_read(20, payload(READ_BYTES + 1));
        assert_eq!(arriving.read.len(), 1, "one that is large is kept alone");
        assert_eq!(arriving.read[0].0, 20);
    }
}
