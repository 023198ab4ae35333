//! Messages from the leader on their way to this node's clients.
//!
//! The leader sends no message that this node has in its own log already, only where it is there.
//! Most are found among the entries that came last; what a slow consumer gets later is read from
//! the store, and what comes behind it waits, so that everybody keeps the order of the leader.

use std::collections::VecDeque;

use bytes::Bytes;
use flintmq_consensus::Index;
use flintmq_queue::{Delivery, Guid, HandleId};
use flintmq_storage::ReadError;

use super::wire;
use super::{attributes_of, guid_of};
use crate::partition::requests::HandleRole;
use crate::partition::task::{Owner, PartitionTask, Signal};

/// Bytes of applied entries that are kept at hand.
const RECENT_BYTES: usize = 1 << 20;

/// Entries that were read from the store and are kept at hand, at most, and their bytes.
const READ_ENTRIES: usize = 8;
const READ_BYTES: usize = 4 << 20;

/// What a gateway keeps of them.
#[derive(Default)]
pub(super) struct Arriving {
    /// In the leader's order.
    pushes: VecDeque<wire::Push>,
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
    /// The leader is another one: it delivers anew.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }

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

impl PartitionTask {
    /// Keeps an applied entry at hand, if clients of this node may get messages of it from a leader
    /// elsewhere.
    pub(in crate::partition) fn keep_at_hand(&mut self, index: Index, payload: &Bytes) {
        // On a follower only its own clients have handles.
        let has_clients = !self.handles.is_empty();
        if has_clients && self.gateway.leader.is_some() && !self.machine.is_leading() {
            self.gateway.arriving.keep(index, payload.clone());
        }
    }

    /// Takes what the leader delivers.
    pub(super) fn take_pushes(&mut self, pushes: Vec<wire::Push>) {
        self.gateway.arriving.pushes.extend(pushes);
        self.pass_on_pushes();
    }

    /// An entry was read for the first message that waits.
    pub(in crate::partition) fn on_entry_read(
        &mut self,
        index: Index,
        read: Result<Bytes, ReadError>,
    ) {
        // The leader may have changed meanwhile, and with it what waits.
        if self.gateway.arriving.reading != Some(index) {
            return;
        }
        self.gateway.arriving.reading = None;
        match read {
            Ok(payload) => {
                self.gateway.arriving.keep_read(index, payload);
                self.pass_on_pushes();
            }
            Err(error) => {
                tracing::warn!(group = self.group().0, index, %error, "a message to be delivered is not found in the own log: the leader is asked for all of them anew");
                self.ask_leader_anew();
            }
        }
    }

    fn pass_on_pushes(&mut self) {
        if self.gateway.arriving.reading.is_some() {
            return;
        }
        while let Some(push) = self.gateway.arriving.pushes.pop_front() {
            let Some(place) = push.place else {
                let app_data = push.app_data.clone();
                self.pass_on(&push, app_data);
                continue;
            };
            match self.find(&place) {
                Found::Here(payload) => {
                    let start = place.offset as usize;
                    let end = start.saturating_add(place.size as usize);
                    if payload.get(start..end).is_none() {
                        return self.ask_leader_anew();
                    }
                    self.pass_on(&push, payload.slice(start..end));
                }
                Found::Stored => {
                    self.gateway.arriving.pushes.push_front(push);
                    self.gateway.arriving.reading = Some(place.index);
                    let signals = self.signals.clone();
                    let then = move |read| {
                        let _task_gone = signals.send(Signal::EntryRead(place.index, read));
                    };
                    self.reader.read(self.group(), place.index, Box::new(then));
                    return;
                }
                Found::Nowhere => return self.ask_leader_anew(),
            }
        }
    }

    fn find(&self, place: &wire::Place) -> Found {
        let arriving = &self.gateway.arriving;
        if place.index > self.replica.applied().index {
            // Decided, as the leader says, but not known to be so here.
            let entry = self.replica.unapplied(place.index);
            let same = entry.filter(|entry| entry.term == place.term);
            return same.map_or(Found::Nowhere, |entry| Found::Here(entry.payload.clone()));
        }
        if let Some(payload) = arriving.recent(place.index) {
            return Found::Here(payload.clone());
        }
        let read = arriving.read.iter().find(|(index, _)| *index == place.index);
        read.map_or(Found::Stored, |(_, payload)| Found::Here(payload.clone()))
    }

    fn pass_on(&mut self, push: &wire::Push, app_data: Bytes) {
        let handle = HandleId(push.handle);
        let Some(guid) = guid_of(&push.guid) else { return };
        let Some(entry) = self.handles.get(&handle) else { return };
        let Owner::Session(local) = &entry.owner else { return };
        let HandleRole::Reader { queue_id } = local.role else { return };
        let delivery = Delivery {
            queue: entry.queue,
            handle,
            subscription: push.subscription,
            app: flintmq_queue::AppKey(0),
            position: 0,
            guid: Guid(guid.0),
            attributes: attributes_of(push.attributes),
            app_data,
            entry: 0,
            offset: 0,
            arrival_ms: push.arrival_ms,
            redelivered: push.redelivered,
            attempts_left: None,
        };
        self.links.push(local.session, queue_id, delivery);
    }

    /// Begins anew at the same leader, which delivers everything that is not confirmed once more.
    fn ask_leader_anew(&mut self) {
        if let Some((leader, term)) = self.gateway.leader.take() {
            self.on_invite(leader, term);
        }
    }
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
