//! What waits for the writer: one ordered list that publishing, confirming and control requests
//! append to. Whatever has gathered while the writer was busy leaves in one event and one write.

use std::mem;

use bytes::{Bytes, BytesMut};
use flintmq_protocol::confirm::{ConfirmBuilder, ConfirmMessage};
use flintmq_protocol::event::PACKED_EVENT_SIZE;
use flintmq_protocol::put::{PutBuilder, PutMessage};

/// Messages and confirmations, closed by at most one control event. Control events are barriers:
/// what was queued before one is written before it, so that a close never overtakes a confirmation.
#[derive(Debug, Default)]
pub(crate) struct Segment {
    puts: Vec<PutMessage>,
    confirms: Vec<ConfirmMessage>,
    then: Option<Bytes>,
}

impl Segment {
    /// Removes and encodes what fits into about `most` bytes behind what `out` holds. Gives whether
    /// the segment is used up.
    ///
    /// A message that cannot be encoded was refused before it was queued; should one get here all
    /// the same, it is dropped and told about, because nothing else can be done for it.
    pub(crate) fn encode(&mut self, from: &mut usize, out: &mut BytesMut, most: usize) -> bool {
        let mut builder = PutBuilder::new(out, PACKED_EVENT_SIZE.min(most));
        while let Some(put) = self.puts.get(*from) {
            if builder.buffered() >= most {
                return false;
            }
            if let Err(error) = builder.append_message(put) {
                tracing::error!(%error, guid = %put.guid, "a message could not be written");
            }
            *from += 1;
        }
        let mut builder = ConfirmBuilder::new(out, PACKED_EVENT_SIZE);
        for confirm in self.confirms.drain(..) {
            builder.append(&confirm);
        }
        if let Some(event) = self.then.take() {
            out.extend_from_slice(&event);
        }
        true
    }

    fn clear(&mut self) {
        self.puts.clear();
        self.confirms.clear();
        self.then = None;
    }
}

/// The list itself. It is bounded by what fills it: the producers' in-flight limits, the consumers'
/// unconfirmed messages, and the number of control requests that callers wait for.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    closed: Vec<Segment>,
    open: Segment,
    spare: Vec<Segment>,
    writer_idle: bool,
}

impl Outbox {
    /// Queues a message. Gives whether the writer has to be woken.
    #[must_use]
    pub(crate) fn put(&mut self, put: PutMessage) -> bool {
        self.open.puts.push(put);
        mem::take(&mut self.writer_idle)
    }

    /// Queues a confirmation. Gives whether the writer has to be woken.
    #[must_use]
    pub(crate) fn confirm(&mut self, confirm: ConfirmMessage) -> bool {
        self.open.confirms.push(confirm);
        mem::take(&mut self.writer_idle)
    }

    /// Queues a whole event behind everything before it. Gives whether the writer has to be woken.
    #[must_use]
    pub(crate) fn event(&mut self, event: Bytes) -> bool {
        self.open.then = Some(event);
        let next = self.spare.pop().unwrap_or_default();
        self.closed.push(mem::replace(&mut self.open, next));
        mem::take(&mut self.writer_idle)
    }

    /// Gives everything queued, in order, in exchange for segments that are done with; `false` when
    /// there is nothing: the next one to queue something then wakes the writer.
    pub(crate) fn take(&mut self, work: &mut Vec<Segment>) -> bool {
        for mut done in work.drain(..) {
            if self.spare.len() < 2 && done.puts.capacity() <= MOST_SPARE_PUTS {
                done.clear();
                self.spare.push(done);
            }
        }
        mem::swap(work, &mut self.closed);
        if !self.open.puts.is_empty() || !self.open.confirms.is_empty() {
            let next = self.spare.pop().unwrap_or_default();
            work.push(mem::replace(&mut self.open, next));
        }
        self.writer_idle = work.is_empty();
        !work.is_empty()
    }

    /// Drops everything: the connection is gone. Unacknowledged messages live on elsewhere.
    pub(crate) fn clear(&mut self) {
        self.closed.clear();
        self.open.clear();
        self.writer_idle = false;
    }
}

/// Room that an emptied segment may keep; a larger burst gives its memory back.
const MOST_SPARE_PUTS: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use flintmq_protocol::event::{EventType, Frame, HEARTBEAT_REQUEST};
    use flintmq_protocol::frame::FrameDecoder;
    use flintmq_protocol::guid::MessageGuid;
    use flintmq_protocol::put::PutMessages;

    fn put(number: u8, size: usize) -> PutMessage {
        PutMessage {
            flags: flintmq_protocol::flags::PutFlags::ACK_REQUESTED,
            queue_id: 0,
            guid: MessageGuid([number; 16]),
            compression: flintmq_protocol::compression::Compression::None,
            schema_wire_id: 0,
            crc32c: 0,
            options: Bytes::new(),
            app_data: Bytes::from(vec![number; size]),
        }
    }

    fn confirm(number: u8) -> ConfirmMessage {
        ConfirmMessage { queue_id: 0, guid: MessageGuid([number; 16]), sub_queue_id: 0 }
    }

    fn frames(mut bytes: BytesMut) -> Vec<Frame> {
        let mut decoder = FrameDecoder::new(1 << 30);
        std::iter::from_fn(|| decoder.decode(&mut bytes).unwrap()).collect()
    }

    #[test]
    fn control_events_keep_their_place_and_the_rest_is_packed() {
        let mut outbox = Outbox::default();
        let mut work = Vec::new();
        assert!(!outbox.take(&mut work));
        assert!(outbox.put(put(1, 10)), "an idle writer must be woken");
        assert!(!outbox.put(put(2, 10)), "a woken writer need not be woken again");
        let _ = outbox.confirm(confirm(3));
        let _ = outbox.event(Bytes::copy_from_slice(&HEARTBEAT_REQUEST));
        let _ = outbox.put(put(4, 10));
        assert!(outbox.take(&mut work));
        let mut out = BytesMut::new();
        for segment in &mut work {
            assert!(segment.encode(&mut 0, &mut out, 1 << 20));
        }
        let types: Vec<EventType> =
            frames(out).into_iter().map(|frame| frame.parse().unwrap().event_type()).collect();
        let expected =
            [EventType::Put, EventType::Confirm, EventType::HeartbeatRequest, EventType::Put];
        assert_eq!(types, expected);
        assert!(!outbox.take(&mut work));
        assert!(outbox.confirm(confirm(1)));
    }

    #[test]
    fn a_burst_is_cut_into_pieces_without_losing_its_order() {
        let mut outbox = Outbox::default();
        for number in 0..100 {
            let _ = outbox.put(put(number, 1000));
        }
        let mut work = Vec::new();
        assert!(outbox.take(&mut work));
        let (mut from, mut seen) = (0, Vec::new());
        loop {
            let mut out = BytesMut::new();
            let done = work[0].encode(&mut from, &mut out, 10_000);
            assert!(out.len() < 12_000);
            for frame in frames(out) {
                let body = frame.parse().unwrap().body;
                seen.extend(PutMessages::new(&body).map(|put| put.unwrap().guid.0[0]));
            }
            if done {
                break;
            }
        }
        assert_eq!(seen, (0..100).collect::<Vec<u8>>());
    }
}
