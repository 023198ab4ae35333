//! What nodes tell each other beside consensus packets: one envelope for all of it.
//!
//! A [`PeerMessage`] says for whom it is ([`Addressee`]) and carries a body that belongs to that
//! part of the node. Connections between nodes carry such messages in order, in the transport's
//! class `gateway`; what consensus sends goes by other classes and has its own format.
//!
//! # Layout, version 1
//!
//! | part | bytes |
//! | --- | --- |
//! | version | 1, value 1 |
//! | kind | 1 |
//! | group | 4, big-endian; kinds 1 and 3 only |
//! | body | the rest |
//!
//! | kind | for | body | at most |
//! | --- | --- | --- | --- |
//! | 1 | the partition's engine on the other node (`flintmq-partition`, `peer_message`) | protobuf | 256 MiB |
//! | 2 | the controller's machine (`flintmq-controller`, `message`) | JSON | 128 MiB |
//! | 3 | the shard that hosts the group (`flintmq-shard`, `leftover`) | 9 bytes | 64 B |
//! | 4 | the administration (broker, `operations/peer_calls`): a call, or its answer | JSON | 32 MiB |
//! | 5 | nodes that form or join the cluster (broker, `cluster/forming`) | JSON | 1 MiB |
//!
//! # What a receiver does
//!
//! Every body that does not come from a node of the same version is unreadable, so the version
//! counts for bodies, too: it is raised when a body changes in a way that its own format cannot
//! express. A message of another version, of an unknown kind, or too long for its kind is dropped,
//! with a counter and a line in the log ([`Unreadable`] says what). Whoever waits for an answer to
//! it has a deadline.
//!
//! Numbers of kinds are never used again for other things.
//!
//! ```
//! use bytes::Bytes;
//! use flintmq_peer_message::{Addressee, PeerMessage, Unreadable};
//!
//! let message = PeerMessage::new(Addressee::Formation, Bytes::from_static(b"{}"));
//! let frame = [message.head(), message.body.clone()].concat();
//! assert_eq!(PeerMessage::decode(frame.into()), Ok(message));
//! assert_eq!(PeerMessage::decode(Bytes::from_static(&[9, 5])), Err(Unreadable::Version(9)));
//! ```

#![cfg_attr(test, allow(clippy::unwrap_used))]

use bytes::{Buf, BufMut, Bytes, BytesMut};
use flintmq_consensus::GroupId;

/// The version that this program writes and reads.
pub const VERSION: u8 = 1;

/// Bytes of a head at most.
const MAX_HEAD_BYTES: usize = 6;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// The part of another node that a message is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Addressee {
    /// The same partition there.
    Partition(GroupId),
    /// The controller there.
    Controller,
    /// The shard that hosts the group there.
    Shard(GroupId),
    /// The administration there.
    Administration,
    /// Whoever there forms the cluster, or admits to it.
    Formation,
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerMessage {
    /// For whom it is.
    pub to: Addressee,
    /// What that part of the node makes of it.
    pub body: Bytes,
}

/// Why a frame is no message that this program reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// It ends within its head.
    #[error("it is too short")]
    TooShort,
    /// Of another version of the envelope.
    #[error("it has another version: run the same version of flintmq on all nodes, version={0}")]
    Version(u8),
    /// For a part of the node that does not exist here.
    #[error("its kind is not known: run the same version of flintmq on all nodes, kind={0}")]
    Kind(u8),
    /// Longer than any message of its kind.
    #[error("it is longer than any of its kind, bytes={bytes} limit={limit}")]
    TooLong {
        /// Bytes of its body.
        bytes: usize,
        /// What its kind may have.
        limit: usize,
    },
}

impl Unreadable {
    /// One word for it, for a label of a metric.
    pub fn reason(self) -> &'static str {
        match self {
            Self::TooShort => "short",
            Self::Version(_) => "version",
            Self::Kind(_) => "kind",
            Self::TooLong { .. } => "long",
        }
    }
}

impl Addressee {
    /// Bytes of a body at most. One that is longer is dropped by the receiver.
    pub const fn limit(self) -> usize {
        match self {
            Self::Partition(_) => 256 * MIB,
            Self::Controller => 128 * MIB,
            Self::Shard(_) => 64,
            Self::Administration => 32 * MIB,
            Self::Formation => 1024 * KIB,
        }
    }

    const fn kind(self) -> u8 {
        match self {
            Self::Partition(_) => 1,
            Self::Controller => 2,
            Self::Shard(_) => 3,
            Self::Administration => 4,
            Self::Formation => 5,
        }
    }
}

impl PeerMessage {
    /// A message to be sent.
    pub fn new(to: Addressee, body: Bytes) -> Self {
        Self { to, body }
    }

    /// What goes ahead of the body. Apart from it, so that no body is copied.
    pub fn head(&self) -> Bytes {
        let mut head = BytesMut::with_capacity(MAX_HEAD_BYTES);
        head.put_u8(VERSION);
        head.put_u8(self.to.kind());
        if let Addressee::Partition(group) | Addressee::Shard(group) = self.to {
            head.put_u32(group.0);
        }
        head.freeze()
    }

    /// Reads a frame: head and body in one. The body is a slice of it.
    ///
    /// # Errors
    /// [`Unreadable`] says why the frame is to be dropped.
    pub fn decode(mut frame: Bytes) -> Result<Self, Unreadable> {
        // The version first: the rest may mean something else in another one.
        match frame.first() {
            None => return Err(Unreadable::TooShort),
            Some(&version) if version != VERSION => return Err(Unreadable::Version(version)),
            Some(_) => {}
        }
        let Some(&kind) = frame.get(1) else { return Err(Unreadable::TooShort) };
        frame.advance(2);
        let to = match kind {
            1 => Addressee::Partition(group(&mut frame)?),
            2 => Addressee::Controller,
            3 => Addressee::Shard(group(&mut frame)?),
            4 => Addressee::Administration,
            5 => Addressee::Formation,
            _ => return Err(Unreadable::Kind(kind)),
        };
        let (bytes, limit) = (frame.len(), to.limit());
        if bytes > limit {
            return Err(Unreadable::TooLong { bytes, limit });
        }
        Ok(Self { to, body: frame })
    }
}

fn group(frame: &mut Bytes) -> Result<GroupId, Unreadable> {
    if frame.len() < size_of::<u32>() {
        return Err(Unreadable::TooShort);
    }
    Ok(GroupId(frame.get_u32()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(group: u32) -> [Addressee; 5] {
        [
            Addressee::Partition(GroupId(group)),
            Addressee::Controller,
            Addressee::Shard(GroupId(group)),
            Addressee::Administration,
            Addressee::Formation,
        ]
    }

    fn framed(to: Addressee, body: &[u8]) -> Bytes {
        let message = PeerMessage::new(to, Bytes::copy_from_slice(body));
        [message.head(), message.body].concat().into()
    }

    proptest! {
        #[test]
        fn messages_come_back(group: u32, body in prop::collection::vec(any::<u8>(), 0..64)) {
            for to in all(group) {
                let read = PeerMessage::decode(framed(to, &body)).unwrap();
                prop_assert_eq!(read, PeerMessage { to, body: Bytes::from(body.clone()) });
            }
        }

        #[test]
        fn no_bytes_panic_the_decoder(mut bytes: Vec<u8>, kind in 0u8..8, known: bool) {
            if known {
                bytes.splice(0..0, [VERSION, kind]);
            }
            if let Ok(message) = PeerMessage::decode(bytes.clone().into()) {
                prop_assert!(message.body.len() <= message.to.limit());
                prop_assert_eq!(&framed(message.to, &message.body)[..], &bytes[..]);
            }
        }
    }

    #[test]
    fn golden_bytes() {
        let heads: Vec<Vec<u8>> = all(258).map(|to| framed(to, b"x").to_vec()).into();
        let expected: [&[u8]; 5] = [
            &[1, 1, 0, 0, 1, 2, b'x'],
            &[1, 2, b'x'],
            &[1, 3, 0, 0, 1, 2, b'x'],
            &[1, 4, b'x'],
            &[1, 5, b'x'],
        ];
        assert_eq!(heads, expected);
    }

    #[test]
    fn what_cannot_be_read_says_why() {
        let reason = |bytes: &[u8]| {
            let frame = Bytes::copy_from_slice(bytes);
            PeerMessage::decode(frame).map_err(|unreadable| unreadable.reason()).unwrap_err()
        };
        assert_eq!(reason(&[]), "short");
        assert_eq!(reason(&[VERSION]), "short");
        assert_eq!(reason(&[VERSION, 1, 0, 0, 0]), "short");
        assert_eq!(reason(&[VERSION, 6]), "kind");
        assert_eq!(reason(&[VERSION + 1, 1, 0, 0, 0, 1]), "version");
        // A message of before the envelope began with the group's number.
        assert_eq!(reason(&[0, 0, 0, 1, 8, 1]), "version");
        let long = framed(Addressee::Shard(GroupId(1)), &[0; 65]);
        assert_eq!(reason(&long), "long");
    }
}
