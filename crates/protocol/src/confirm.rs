//! CONFIRM events: a consumer has finished with messages. REJECT events have the same layout.

use bytes::BytesMut;

use crate::entries::{ENTRY_SIZE, Entries, append_entry, guid_of};
use crate::event::{EventPacker, EventType};
use crate::guid::MessageGuid;
use crate::malformed::MalformedEvent;

/// One confirmation (or, in a REJECT event, one rejection).
///
/// | offset | bits | field |
/// | --- | --- | --- |
/// | 0 | 32 | queue id |
/// | 4 | 128 | GUID |
/// | 20 | 32 | sub-queue id |
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConfirmMessage {
    /// The consumer's id for the queue.
    pub queue_id: u32,
    /// The GUID from the PUSH.
    pub guid: MessageGuid,
    /// The `subId` that the consumer opened the queue with, 0 without an app id. Not the
    /// subscription id of the PUSH.
    pub sub_queue_id: u32,
}

/// The confirmations of a CONFIRM event, or the rejections of a REJECT event.
#[derive(Debug, Clone)]
pub struct ConfirmMessages<'a> {
    entries: Entries<'a>,
}

impl<'a> ConfirmMessages<'a> {
    /// Checks the whole body of a CONFIRM event, so that walking over it cannot fail.
    ///
    /// # Errors
    /// The body is not a header and a whole number of entries, at least one.
    pub fn parse(body: &'a [u8]) -> Result<Self, MalformedEvent> {
        Ok(Self { entries: Entries::parse(EventType::Confirm, body)? })
    }

    /// Checks the whole body of a REJECT event. Only brokers send these to each other; from a
    /// client it is an error.
    ///
    /// # Errors
    /// The body is not a header and a whole number of entries, at least one.
    pub fn parse_reject(body: &'a [u8]) -> Result<Self, MalformedEvent> {
        Ok(Self { entries: Entries::parse(EventType::Reject, body)? })
    }
}

impl Iterator for ConfirmMessages<'_> {
    type Item = ConfirmMessage;

    fn next(&mut self) -> Option<ConfirmMessage> {
        let entry = self.entries.next()?;
        Some(ConfirmMessage {
            queue_id: u32::from_be_bytes([entry[0], entry[1], entry[2], entry[3]]),
            guid: guid_of(entry),
            sub_queue_id: u32::from_be_bytes([entry[20], entry[21], entry[22], entry[23]]),
        })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.entries.remaining(), Some(self.entries.remaining()))
    }
}

impl ExactSizeIterator for ConfirmMessages<'_> {}

/// Appends confirmations to a buffer as CONFIRM (or REJECT) events; begins another event when one
/// would grow beyond its limit.
///
/// The buffer holds whole events after every call, so there is nothing to finish.
#[derive(Debug)]
pub struct ConfirmBuilder<'a> {
    packer: EventPacker<'a>,
}

impl<'a> ConfirmBuilder<'a> {
    /// Writes CONFIRM events behind what `out` holds already, of at most `max_event_size` bytes
    /// each.
    #[must_use]
    pub fn new(out: &'a mut BytesMut, max_event_size: usize) -> Self {
        Self { packer: EventPacker::new(out, EventType::Confirm, max_event_size) }
    }

    /// Writes REJECT events instead.
    #[must_use]
    pub fn reject(out: &'a mut BytesMut, max_event_size: usize) -> Self {
        Self { packer: EventPacker::new(out, EventType::Reject, max_event_size) }
    }

    /// Appends one confirmation.
    pub fn append(&mut self, confirm: &ConfirmMessage) {
        let mut entry = [0; ENTRY_SIZE];
        entry[..4].copy_from_slice(&confirm.queue_id.to_be_bytes());
        entry[4..20].copy_from_slice(&confirm.guid.0);
        entry[20..].copy_from_slice(&confirm.sub_queue_id.to_be_bytes());
        append_entry(&mut self.packer, &entry);
    }

    /// Bytes in the buffer, of earlier content too.
    #[must_use]
    pub fn buffered(&self) -> usize {
        self.packer.out.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Frame;

    #[test]
    fn a_reject_has_the_documented_bytes() {
        let reject = ConfirmMessage { queue_id: 1, guid: MessageGuid([8; 16]), sub_queue_id: 2 };
        let mut out = BytesMut::new();
        ConfirmBuilder::reject(&mut out, 1 << 20).append(&reject);
        let mut expected = vec![0, 0, 0, 36, 0x4d, 2, 0, 0, 0x16, 0, 0, 0, 0, 0, 0, 1];
        expected.extend([8; 16]);
        expected.extend([0, 0, 0, 2]);
        assert_eq!(out, expected);
        let event = Frame::new(out.freeze()).unwrap().parse().unwrap();
        assert_eq!(event.event_type(), EventType::Reject);
        let read: Vec<_> = ConfirmMessages::parse_reject(&event.body).unwrap().collect();
        assert_eq!(read, [reject]);
    }
}
