//! The names of things: queues, domains, apps, handles, messages.

use std::fmt;

/// A queue within its partition; given by the controller and never reused while anything of the
/// queue is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueId(pub u32);

/// A domain; the queues of one domain in one partition share a meter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DomainId(pub u32);

/// An app of one queue. Keys ascend and are never given twice in a queue, so an app that is removed
/// and added again is a new one. Priority queues have the single app [`AppKey::DEFAULT`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AppKey(pub u32);

impl AppKey {
    /// The implicit app of a priority queue.
    pub const DEFAULT: Self = Self(0);
}

/// One open of one queue for one app by one session; chosen by the host, never reused while open. A
/// client that reads two apps of a queue has two handles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HandleId(pub u64);

/// The place of a message in its queue: ascending in stored order, never given twice. Positions
/// have gaps where a message was a duplicate or over a limit.
pub type Position = u64;

/// The index of a log entry, as the log counts.
pub type Index = u64;

/// The identity of a message, 16 bytes, made by the producer (docs/protocol/messages.md#guids).
///
/// Layout, big-endian: 2 bits version, 22 bits counter, 56 bits timer, 48 bits client id. Any bytes
/// are legal; the layout only decides how compactly the history of a queue remembers them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Guid(pub [u8; 16]);

impl Guid {
    /// Bytes 10 to 15: the same for all messages of one producer session.
    pub fn client(&self) -> [u8; 6] {
        let [.., a, b, c, d, e, f] = self.0;
        [a, b, c, d, e, f]
    }

    /// The 80 bits that order the messages of a client: timer first, then version and counter.
    pub(crate) fn stamp(&self) -> Stamp {
        let b = &self.0;
        let timer = u64::from_be_bytes([0, b[3], b[4], b[5], b[6], b[7], b[8], b[9]]);
        let head = u32::from_be_bytes([0, b[0], b[1], b[2]]);
        Stamp { timer, head }
    }

    #[cfg(test)]
    pub(crate) fn from_parts(client: [u8; 6], stamp: Stamp) -> Self {
        let mut bytes = [0; 16];
        bytes[..3].copy_from_slice(&stamp.head.to_be_bytes()[1..]);
        bytes[3..10].copy_from_slice(&stamp.timer.to_be_bytes()[1..]);
        bytes[10..].copy_from_slice(&client);
        Self(bytes)
    }
}

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02X}"))
    }
}

impl fmt::Debug for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What distinguishes and orders the GUIDs of one client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Stamp {
    /// 56 bits: nanoseconds since the producer started.
    pub(crate) timer: u64,
    /// 24 bits: version and wrapping counter.
    pub(crate) head: u32,
}
