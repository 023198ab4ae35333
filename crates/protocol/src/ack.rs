//! ACK events: a broker's answers to PUT messages.

use bytes::BytesMut;

use crate::entries::{ENTRY_SIZE, Entries, append_entry, guid_of};
use crate::event::{EventPacker, EventType};
use crate::guid::MessageGuid;
use crate::malformed::MalformedEvent;

/// What became of a published message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AckStatus {
    /// Stored as safely as the queue's domain asks for.
    Success,
    /// A queue or domain has as many messages as it may have.
    LimitMessages,
    /// A queue or domain has as many bytes as it may have.
    LimitBytes,
    /// Every other failure: not a writer, invalid message, refused, timed out.
    Unknown,
    /// The message could not be stored.
    StorageFailure,
    /// Nobody is ready to take the message.
    NotReady,
}

impl AckStatus {
    /// The status with this number on the wire; numbers without a meaning are
    /// [`Unknown`](Self::Unknown).
    #[must_use]
    pub const fn from_wire(number: u8) -> Self {
        match number {
            0 => Self::Success,
            1 => Self::LimitMessages,
            2 => Self::LimitBytes,
            6 => Self::StorageFailure,
            7 => Self::NotReady,
            _ => Self::Unknown,
        }
    }

    /// The number on the wire.
    #[must_use]
    pub const fn to_wire(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::LimitMessages => 1,
            Self::LimitBytes => 2,
            Self::Unknown => 5,
            Self::StorageFailure => 6,
            Self::NotReady => 7,
        }
    }
}

impl std::fmt::Display for AckStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Success => "SUCCESS",
            Self::LimitMessages => "LIMIT_MESSAGES",
            Self::LimitBytes => "LIMIT_BYTES",
            Self::Unknown => "UNKNOWN",
            Self::StorageFailure => "STORAGE_FAILURE",
            Self::NotReady => "NOT_READY",
        })
    }
}

/// One acknowledgement.
///
/// A success must be sent exactly once per message that asked for it, and never to a client that
/// has closed the queue: released clients abort or crash otherwise.
///
/// | offset | bits | field |
/// | --- | --- | --- |
/// | 0 | 4 + 4 + 24 | reserved; status; correlation id |
/// | 4 | 128 | GUID |
/// | 20 | 32 | queue id |
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AckMessage {
    /// What became of the message.
    pub status: AckStatus,
    /// The 24-bit id of the PUT for a client that makes no GUIDs, else 0. Higher bits are not sent.
    pub correlation_id: u32,
    /// The PUT's GUID, or the one that the broker made.
    pub guid: MessageGuid,
    /// The producer's id for the queue.
    pub queue_id: u32,
}

/// The acknowledgements of an ACK event.
#[derive(Debug, Clone)]
pub struct AckMessages<'a> {
    entries: Entries<'a>,
}

impl<'a> AckMessages<'a> {
    /// Checks the whole body, so that walking over it cannot fail.
    ///
    /// # Errors
    /// The body is not a header and a whole number of entries, at least one.
    pub fn parse(body: &'a [u8]) -> Result<Self, MalformedEvent> {
        Ok(Self { entries: Entries::parse(EventType::Ack, body)? })
    }
}

impl Iterator for AckMessages<'_> {
    type Item = AckMessage;

    fn next(&mut self) -> Option<AckMessage> {
        let entry = self.entries.next()?;
        Some(AckMessage {
            status: AckStatus::from_wire(entry[0] & 0x0f),
            correlation_id: u32::from_be_bytes([0, entry[1], entry[2], entry[3]]),
            guid: guid_of(entry),
            queue_id: u32::from_be_bytes([entry[20], entry[21], entry[22], entry[23]]),
        })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.entries.remaining(), Some(self.entries.remaining()))
    }
}

impl ExactSizeIterator for AckMessages<'_> {}

/// Appends acknowledgements to a buffer as ACK events; begins another event when one would grow
/// beyond its limit.
///
/// The buffer holds whole events after every call, so there is nothing to finish.
#[derive(Debug)]
pub struct AckBuilder<'a> {
    packer: EventPacker<'a>,
}

impl<'a> AckBuilder<'a> {
    /// Writes behind what `out` holds already; events grow to at most `max_event_size` bytes.
    #[must_use]
    pub fn new(out: &'a mut BytesMut, max_event_size: usize) -> Self {
        Self { packer: EventPacker::new(out, EventType::Ack, max_event_size) }
    }

    /// Appends one acknowledgement.
    pub fn append(&mut self, ack: &AckMessage) {
        let mut entry = [0; ENTRY_SIZE];
        entry[..4].copy_from_slice(&ack.correlation_id.to_be_bytes());
        entry[0] = ack.status.to_wire();
        entry[4..20].copy_from_slice(&ack.guid.0);
        entry[20..].copy_from_slice(&ack.queue_id.to_be_bytes());
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

    #[test]
    fn statuses_are_the_ones_that_clients_show() {
        let shown: Vec<_> = (0..16).map(|n| AckStatus::from_wire(n).to_string()).collect();
        let mut expected = ["UNKNOWN"; 16];
        expected[0] = "SUCCESS";
        expected[1] = "LIMIT_MESSAGES";
        expected[2] = "LIMIT_BYTES";
        expected[6] = "STORAGE_FAILURE";
        expected[7] = "NOT_READY";
        assert_eq!(shown, expected);
    }

    #[test]
    fn an_ack_has_the_documented_bytes() {
        let mut out = BytesMut::new();
        AckBuilder::new(&mut out, 1 << 20).append(&AckMessage {
            status: AckStatus::StorageFailure,
            correlation_id: 0xff01_0203,
            guid: MessageGuid([8; 16]),
            queue_id: 5,
        });
        let mut expected = vec![0, 0, 0, 36, 0x45, 2, 0, 0, 0x16, 0, 0, 0, 6, 1, 2, 3];
        expected.extend([8; 16]);
        expected.extend([0, 0, 0, 5]);
        assert_eq!(out, expected);
    }
}
