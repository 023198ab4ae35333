//! Messages on their way: kept until the broker has answered, so that they can be sent again with
//! the same GUIDs and in the same order after a reconnect.

use std::time::{Duration, Instant};

use flintmq_protocol::guid::MessageGuid;
use flintmq_protocol::put::PutMessage;
use rustc_hash::FxHashMap;
use tokio::sync::oneshot;

use crate::error::PublishError;

/// What became of a published message.
pub(crate) type Outcome = Result<MessageGuid, PublishError>;

/// One message and whoever waits for its outcome.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) put: PutMessage,
    pub(crate) outcome: oneshot::Sender<Outcome>,
    /// Bytes that it holds of its producer's in-flight limit.
    pub(crate) byte_permits: u32,
    order: u64,
    since: Instant,
}

/// All messages of a session without an answer. Bounded by the producers' in-flight limits.
#[derive(Debug, Default)]
pub(crate) struct Unacknowledged {
    waiting: FxHashMap<MessageGuid, Waiting>,
    next_order: u64,
}

impl Unacknowledged {
    /// Remembers a message behind all earlier ones.
    pub(crate) fn insert(
        &mut self,
        put: PutMessage,
        outcome: oneshot::Sender<Outcome>,
        byte_permits: u32,
        now: Instant,
    ) {
        let order = self.next_order;
        self.next_order += 1;
        let waiting = Waiting { put, outcome, byte_permits, order, since: now };
        self.waiting.insert(waiting.put.guid, waiting);
    }

    /// Takes the message that an answer is for; `None` when the answer is for none, or for one of
    /// another queue.
    pub(crate) fn answered(&mut self, guid: MessageGuid, queue_id: u32) -> Option<Waiting> {
        match self.waiting.entry(guid) {
            std::collections::hash_map::Entry::Occupied(entry)
                if entry.get().put.queue_id == queue_id =>
            {
                Some(entry.remove())
            }
            _ => None,
        }
    }

    /// Everything that must be sent again, oldest first.
    pub(crate) fn in_order(&self) -> Vec<PutMessage> {
        let mut all: Vec<&Waiting> = self.waiting.values().collect();
        all.sort_unstable_by_key(|waiting| waiting.order);
        all.into_iter().map(|waiting| waiting.put.clone()).collect()
    }

    /// Takes the messages of one queue, oldest first: it is closed.
    pub(crate) fn take_queue(&mut self, queue_id: u32) -> Vec<Waiting> {
        self.take_if(|waiting| waiting.put.queue_id == queue_id)
    }

    /// Takes every message, oldest first: the session ends.
    pub(crate) fn take_all(&mut self) -> Vec<Waiting> {
        self.take_if(|_| true)
    }

    /// Takes the messages that are older than what `memory_of` says about their queue: the broker
    /// may have forgotten their GUIDs, so that sending them again could double them.
    pub(crate) fn take_expired(
        &mut self,
        now: Instant,
        memory_of: impl Fn(u32) -> Duration,
    ) -> Vec<Waiting> {
        self.take_if(|waiting| {
            now.saturating_duration_since(waiting.since) >= memory_of(waiting.put.queue_id)
        })
    }

    fn take_if(&mut self, wanted: impl Fn(&Waiting) -> bool) -> Vec<Waiting> {
        let mut taken: Vec<Waiting> =
            self.waiting.extract_if(|_, waiting| wanted(waiting)).map(|(_, found)| found).collect();
        taken.sort_unstable_by_key(|waiting| waiting.order);
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn insert(all: &mut Unacknowledged, number: u8, queue_id: u32, now: Instant) {
        let put = PutMessage {
            flags: flintmq_protocol::flags::PutFlags::ACK_REQUESTED,
            queue_id,
            guid: MessageGuid([number; 16]),
            compression: flintmq_protocol::compression::Compression::None,
            schema_wire_id: 0,
            crc32c: 0,
            options: Bytes::new(),
            app_data: Bytes::from_static(b"x"),
        };
        all.insert(put, oneshot::channel().0, 1, now);
    }

    fn numbers(waiting: &[Waiting]) -> Vec<u8> {
        waiting.iter().map(|waiting| waiting.put.guid.0[0]).collect()
    }

    #[test]
    fn order_survives_answers_out_of_order() {
        let now = Instant::now();
        let mut all = Unacknowledged::default();
        for number in [9, 3, 7, 1, 5] {
            insert(&mut all, number, u32::from(number > 6), now);
        }
        assert!(all.answered(MessageGuid([3; 16]), 1).is_none(), "another queue's answer");
        assert!(all.answered(MessageGuid([3; 16]), 0).is_some());
        assert!(all.answered(MessageGuid([3; 16]), 0).is_none(), "answered twice");
        let order: Vec<u8> = all.in_order().iter().map(|put| put.guid.0[0]).collect();
        assert_eq!(order, [9, 7, 1, 5]);
        assert_eq!(numbers(&all.take_queue(1)), [9, 7]);
        assert_eq!(numbers(&all.take_all()), [1, 5]);
    }

    #[test]
    fn messages_expire_by_what_their_broker_remembers() {
        let start = Instant::now();
        let mut all = Unacknowledged::default();
        insert(&mut all, 1, 0, start);
        insert(&mut all, 2, 1, start);
        insert(&mut all, 3, 0, start + Duration::from_secs(5));
        let memory = |queue_id| Duration::from_secs(if queue_id == 0 { 10 } else { 100 });
        assert!(all.take_expired(start + Duration::from_secs(9), memory).is_empty());
        assert_eq!(numbers(&all.take_expired(start + Duration::from_secs(10), memory)), [1]);
        assert_eq!(all.in_order().len(), 2);
    }
}
