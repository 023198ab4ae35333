//! What clients and administrators of this node have asked for and not been answered yet.
//!
//! It does not depend on who leads: the leader proposes it, a forwarder sends it to the leader, and
//! while there is no leader it waits. When the role changes it stays where it is and is begun again
//! from its first item, in order and under the same numbers and GUIDs, so that clients notice a
//! delay and no more.

use std::collections::{BTreeMap, VecDeque};

use flintmq_protocol::guid::MessageGuid;
use flintmq_queue::{HandleId, QueueId};

use crate::request::{Close, Configure, Open, Put, Removable, SessionEnded, SessionId, Ticket};

/// PUTs from which on no request is taken. Their bytes are bounded by what sessions may have in
/// flight; this bounds what small ones cost beside their bytes.
pub(crate) const MAX_PUTS: usize = 64 << 10;

/// Requests for configuration that may wait; further ones are refused.
pub(crate) const MAX_CONFIGURES: usize = 16 << 10;

/// Administrators' requests that may wait; further ones are refused.
pub(crate) const MAX_ADMIN: usize = 1024;

/// All of it.
#[derive(Debug, Default)]
pub(crate) struct PendingWork {
    /// Opens, in the order of their handles, which is that of the requests. Bounded by what each
    /// session may have under way.
    pub(crate) opens: BTreeMap<HandleId, Box<Open>>,
    /// At most [`MAX_CONFIGURES`].
    pub(crate) configures: BTreeMap<u64, Configure>,
    pub(crate) puts: PendingPuts,
    /// Confirmations that are not known to be committed, by number. At most one for each delivery:
    /// others are not taken (see [`LocalHandle::unconfirmed`](crate::handles::LocalHandle)).
    pub(crate) confirms: VecDeque<PendingConfirm>,
    /// Closes and ends of sessions. At most one for each handle and session that there is.
    pub(crate) closes: BTreeMap<u64, Closing>,
    /// At most [`MAX_ADMIN`].
    pub(crate) admin: BTreeMap<u64, AdminRequest>,
    last_number: u64,
}

/// A confirmation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PendingConfirm {
    pub(crate) number: u64,
    pub(crate) handle: HandleId,
    pub(crate) guid: MessageGuid,
}

/// What waits until everything before it is answered.
#[derive(Clone, Debug)]
pub(crate) enum Closing {
    Close(Box<Close>),
    Session(SessionEnded),
}

/// An administrator's request that the leader carries out.
#[derive(Clone, Copy, Debug)]
pub(crate) enum AdminRequest {
    Purge { ticket: Ticket, queue: QueueId },
    Delete { ticket: Ticket, queue: QueueId, only_if: Removable },
}

impl PendingWork {
    /// The next number. Numbers of all kinds share one count.
    pub(crate) fn number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    /// Keeps confirmations of one request; tells the number of the last.
    pub(crate) fn add_confirms(
        &mut self,
        confirms: impl Iterator<Item = (HandleId, MessageGuid)>,
    ) -> u64 {
        for (handle, guid) in confirms {
            let number = self.number();
            self.confirms.push_back(PendingConfirm { number, handle, guid });
        }
        self.last_number
    }

    /// The confirmations up to this number are committed.
    pub(crate) fn confirmed(&mut self, number: u64) {
        while self.confirms.front().is_some_and(|confirm| confirm.number <= number) {
            self.confirms.pop_front();
        }
    }

    /// Whether so much waits that no more requests should be taken.
    pub(crate) fn is_full(&self) -> bool {
        self.puts.len() >= MAX_PUTS
    }

    /// Whether nothing waits for an answer of a leader.
    pub(crate) fn is_empty(&self) -> bool {
        self.opens.is_empty()
            && self.configures.is_empty()
            && self.puts.is_empty()
            && self.confirms.is_empty()
            && self.closes.is_empty()
            && self.admin.is_empty()
    }
}

/// A PUT of a client of this node.
#[derive(Clone, Debug)]
pub(crate) struct PendingPut {
    pub(crate) session: SessionId,
    pub(crate) put: Put,
}

/// PUTs by number, in the order in which clients sent them. They are answered in about this order.
#[derive(Debug, Default)]
pub(crate) struct PendingPuts {
    slots: VecDeque<Option<PendingPut>>,
    /// Number of the first slot.
    first: u64,
    waiting: usize,
}

impl PendingPuts {
    /// Keeps one and tells its number.
    pub(crate) fn push(&mut self, put: PendingPut) -> u64 {
        self.slots.push_back(Some(put));
        self.waiting += 1;
        self.end() - 1
    }

    /// One that is not answered.
    pub(crate) fn get(&self, number: u64) -> Option<&PendingPut> {
        self.slots.get(self.slot(number)?)?.as_ref()
    }

    /// Takes one out to answer it; none if it was answered before.
    pub(crate) fn take(&mut self, number: u64) -> Option<PendingPut> {
        let slot = self.slot(number)?;
        let taken = self.slots.get_mut(slot)?.take()?;
        self.waiting -= 1;
        while self.slots.front().is_some_and(Option::is_none) {
            self.slots.pop_front();
            self.first += 1;
        }
        Some(taken)
    }

    /// Those that are not answered, from a number on, with their numbers.
    pub(crate) fn from(&self, number: u64) -> impl Iterator<Item = (u64, &PendingPut)> {
        let skipped = usize::try_from(number.saturating_sub(self.first)).unwrap_or(usize::MAX);
        let slots = self.slots.range(skipped.min(self.slots.len())..);
        let first = number.max(self.first);
        (first..).zip(slots).filter_map(|(number, slot)| Some((number, slot.as_ref()?)))
    }

    /// The number that the next one gets.
    pub(crate) fn end(&self) -> u64 {
        self.first + self.slots.len() as u64
    }

    /// How many are not answered.
    pub(crate) fn len(&self) -> usize {
        self.waiting
    }

    /// Whether all are answered.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    fn slot(&self, number: u64) -> Option<usize> {
        usize::try_from(number.checked_sub(self.first)?).ok()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use bytes::Bytes;
    use flintmq_queue::Attributes;

    use super::*;

    fn put(correlation_id: u32) -> PendingPut {
        PendingPut {
            session: SessionId(1),
            put: Put {
                handle: HandleId(1),
                queue: QueueId(1),
                guid: MessageGuid([0; 16]),
                correlation_id,
                ack_requested: true,
                attributes: Attributes::default(),
                app_data: Bytes::new(),
            },
        }
    }

    #[test]
    fn puts_are_answered_once_in_any_order_and_keep_theirs() {
        let mut puts = PendingPuts::default();
        for id in 0..5 {
            assert_eq!(puts.push(put(id)), u64::from(id));
        }
        assert_eq!(puts.take(2).unwrap().put.correlation_id, 2);
        assert!(puts.take(2).is_none(), "answered before");
        assert_eq!(puts.take(0).unwrap().put.correlation_id, 0);
        let left = |from| puts.from(from).map(|(number, _)| number).collect::<Vec<_>>();
        assert_eq!(left(0), [1, 3, 4]);
        assert_eq!(left(3), [3, 4]);
        assert_eq!(left(9), [0; 0]);
        assert_eq!(puts.len(), 3);
        for number in [1, 4, 3] {
            puts.take(number).unwrap();
        }
        assert!(puts.is_empty() && puts.slots.is_empty());
        assert_eq!(puts.push(put(9)), 5, "numbers go on");
        assert!(puts.take(77).is_none());
    }
}
