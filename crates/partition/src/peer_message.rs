//! What the engines of one partition on different nodes tell each other about clients: forwarders
//! to the leader, and the leader back.
//!
//! A forwarder *attaches* to a leader under an id that no other attachment has, whatever process of
//! whatever node made it. From then on each side counts its frames. A frame of another attachment
//! is dropped; a gap in the count ends the attachment, and the forwarder attaches again and repeats
//! what was not answered. So nothing relies on a connection that is never replaced unnoticed.
//!
//! Tags are never used again for other things. Unknown messages are ignored.

use bytes::Bytes;
use flintmq_consensus::{Index, Term};
use flintmq_protocol::guid::MessageGuid;
use flintmq_queue::{Attributes, Filter, Subscription};
use prost::Message as _;

/// Names one attachment of a forwarder to a leader.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Message)]
pub(crate) struct AttachmentId {
    /// The forwarder's process.
    #[prost(uint64, tag = "1")]
    pub(crate) process: u64,
    /// That process's count, over all partitions.
    #[prost(uint64, tag = "2")]
    pub(crate) number: u64,
}

/// One frame.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Frame {
    /// The attachment; none for an announcement.
    #[prost(message, optional, tag = "1")]
    pub(crate) attachment: Option<AttachmentId>,
    /// The sender's count of frames of this attachment, from 1; 0 where none is due.
    #[prost(uint64, tag = "2")]
    pub(crate) number: u64,
    #[prost(
        oneof = "PeerMessage",
        tags = "3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 16, 17, 18, 19, 20, 21, 22, 23, 24"
    )]
    pub(crate) message: Option<PeerMessage>,
}

/// What a frame says.
#[derive(Clone, PartialEq, prost::Oneof)]
pub(crate) enum PeerMessage {
    // To the leader.
    /// The first of an attachment: what the sender had open before is closed.
    #[prost(message, tag = "3")]
    Attach(Attach),
    #[prost(message, tag = "4")]
    Open(Open),
    #[prost(message, tag = "5")]
    Configure(Configure),
    #[prost(message, tag = "6")]
    Close(Close),
    #[prost(message, tag = "7")]
    Publish(Publish),
    #[prost(message, tag = "8")]
    Confirm(Confirm),
    /// Handles whose client takes nothing at present.
    #[prost(message, tag = "9")]
    Pause(Handles),
    #[prost(message, tag = "10")]
    Resume(Handles),
    #[prost(message, tag = "11")]
    Update(Update),
    #[prost(message, tag = "12")]
    Ask(Ask),
    /// Are all frames there? Answered by [`Self::Received`].
    #[prost(message, tag = "13")]
    Probe(Probe),
    /// To any node, of no attachment: does it lead? Answered by [`Self::Announce`] if so.
    #[prost(message, tag = "14")]
    Seek(Seek),
    // From the leader.
    /// The sender leads and serves: attach.
    #[prost(message, tag = "16")]
    Announce(Announce),
    #[prost(message, tag = "17")]
    Opened(Opened),
    #[prost(message, tag = "18")]
    Configured(Configured),
    /// The numbered close is done.
    #[prost(uint64, tag = "19")]
    Closed(u64),
    #[prost(message, tag = "20")]
    Deliver(Deliver),
    /// The confirmations up to this number are committed.
    #[prost(uint64, tag = "21")]
    Confirmed(u64),
    #[prost(message, tag = "22")]
    Answer(Answer),
    /// Answer to [`Self::Probe`], with the number of the last frame received in order.
    #[prost(uint64, tag = "23")]
    Received(u64),
    /// The leader does not know the attachment, or missed a frame of it: attach again.
    #[prost(message, tag = "24")]
    Detached(Detached),
}

#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(crate) struct Attach {
    /// The leadership that it believes in.
    #[prost(uint64, tag = "1")]
    pub(crate) term: Term,
    /// It looks up messages in its own log.
    #[prost(bool, tag = "2")]
    pub(crate) has_log: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(crate) struct Probe {}

#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(crate) struct Seek {}

#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(crate) struct Detached {}

#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(crate) struct Announce {
    #[prost(uint64, tag = "1")]
    pub(crate) term: Term,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct Open {
    #[prost(uint64, tag = "1")]
    pub(crate) handle: u64,
    #[prost(uint32, tag = "2")]
    pub(crate) queue: u32,
    #[prost(string, tag = "3")]
    pub(crate) uri: String,
    /// The queue's settings, should it have to be created.
    #[prost(bytes = "bytes", tag = "4")]
    pub(crate) settings: Bytes,
    #[prost(bool, tag = "5")]
    pub(crate) reads: bool,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct Opened {
    #[prost(uint64, tag = "1")]
    pub(crate) handle: u64,
    /// 0 opened, 1 refused, 2 the queue is deleted, 3 not ready.
    #[prost(uint32, tag = "2")]
    pub(crate) outcome: u32,
    #[prost(string, tag = "3")]
    pub(crate) reason: String,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct Configure {
    /// 0: no answer is due.
    #[prost(uint64, tag = "1")]
    pub(crate) number: u64,
    #[prost(uint64, tag = "2")]
    pub(crate) handle: u64,
    #[prost(message, repeated, tag = "3")]
    pub(crate) subscriptions: Vec<WireSubscription>,
}

#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(crate) struct WireSubscription {
    #[prost(uint32, tag = "1")]
    pub(crate) id: u32,
    #[prost(sint32, tag = "2")]
    pub(crate) priority: i32,
    #[prost(uint32, tag = "3")]
    pub(crate) count: u32,
    #[prost(uint64, tag = "4")]
    pub(crate) max_messages: u64,
    #[prost(uint64, tag = "5")]
    pub(crate) max_bytes: u64,
}

impl From<&Subscription> for WireSubscription {
    fn from(subscription: &Subscription) -> Self {
        Self {
            id: subscription.id,
            priority: subscription.priority,
            count: subscription.count,
            max_messages: subscription.max_messages,
            max_bytes: subscription.max_bytes,
        }
    }
}

impl From<&WireSubscription> for Subscription {
    fn from(subscription: &WireSubscription) -> Self {
        Self {
            id: subscription.id,
            priority: subscription.priority,
            count: subscription.count,
            max_messages: subscription.max_messages,
            max_bytes: subscription.max_bytes,
            filter: Filter::All,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(crate) struct Configured {
    #[prost(uint64, tag = "1")]
    pub(crate) number: u64,
    #[prost(bool, tag = "2")]
    pub(crate) done: bool,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct Close {
    #[prost(uint64, tag = "1")]
    pub(crate) number: u64,
    #[prost(uint64, repeated, tag = "2")]
    pub(crate) handles: Vec<u64>,
    /// The client vanished: what it held counts as a failed delivery.
    #[prost(bool, tag = "3")]
    pub(crate) lost: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Publish {
    #[prost(message, repeated, tag = "1")]
    pub(crate) puts: Vec<WirePut>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct WirePut {
    /// The forwarder's number for it; comes back in its ACK.
    #[prost(uint64, tag = "5")]
    pub(crate) number: u64,
    #[prost(uint32, tag = "1")]
    pub(crate) queue: u32,
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) guid: Bytes,
    /// Flags, compression, schema: one byte, one byte, two bytes.
    #[prost(fixed32, tag = "3")]
    pub(crate) attributes: u32,
    #[prost(bytes = "bytes", tag = "4")]
    pub(crate) app_data: Bytes,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct Confirm {
    /// The forwarder's number for the last of them; comes back when they are committed.
    #[prost(uint64, tag = "1")]
    pub(crate) number: u64,
    #[prost(message, repeated, tag = "2")]
    pub(crate) confirms: Vec<OneConfirm>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct OneConfirm {
    #[prost(uint64, tag = "1")]
    pub(crate) handle: u64,
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) guid: Bytes,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct Handles {
    #[prost(uint64, repeated, tag = "1")]
    pub(crate) handles: Vec<u64>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct Update {
    #[prost(uint32, tag = "1")]
    pub(crate) queue: u32,
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) settings: Bytes,
}

/// An administrator's request.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(crate) struct Ask {
    #[prost(uint64, tag = "1")]
    pub(crate) number: u64,
    #[prost(uint32, tag = "2")]
    pub(crate) queue: u32,
    /// 1 purge, 2 delete if closed, 3 delete if closed and empty for `unused_ms`.
    #[prost(uint32, tag = "3")]
    pub(crate) what: u32,
    #[prost(uint64, tag = "4")]
    pub(crate) unused_ms: u64,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct Answer {
    #[prost(uint64, tag = "1")]
    pub(crate) number: u64,
    /// 0 done, 1 no such queue, 2 used, 3 in use, 4 failed.
    #[prost(uint32, tag = "2")]
    pub(crate) outcome: u32,
    #[prost(string, tag = "3")]
    pub(crate) reason: String,
    /// Messages purged, or consumers.
    #[prost(uint64, tag = "4")]
    pub(crate) first: u64,
    /// Bytes purged, or producers.
    #[prost(uint64, tag = "5")]
    pub(crate) second: u64,
}

/// What one turn of the leader has for the clients of a forwarder.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Deliver {
    #[prost(message, repeated, tag = "1")]
    pub(crate) acks: Vec<WireAck>,
    #[prost(message, repeated, tag = "2")]
    pub(crate) pushes: Vec<WirePush>,
}

#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(crate) struct WireAck {
    /// As given with the PUT.
    #[prost(uint64, tag = "1")]
    pub(crate) number: u64,
    /// As on the wire to clients.
    #[prost(uint32, tag = "2")]
    pub(crate) status: u32,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct WirePush {
    #[prost(uint64, tag = "1")]
    pub(crate) handle: u64,
    #[prost(uint32, tag = "2")]
    pub(crate) subscription: u32,
    #[prost(bytes = "bytes", tag = "3")]
    pub(crate) guid: Bytes,
    #[prost(fixed32, tag = "4")]
    pub(crate) attributes: u32,
    #[prost(bool, tag = "5")]
    pub(crate) redelivered: bool,
    #[prost(bytes = "bytes", tag = "7")]
    pub(crate) app_data: Bytes,
    /// Where the application data are instead, if they are not here.
    #[prost(message, optional, tag = "8")]
    pub(crate) reference: Option<LogReference>,
}

/// Where the receiver's own log has the application data of a message.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(crate) struct LogReference {
    #[prost(uint64, tag = "1")]
    pub(crate) index: Index,
    #[prost(uint64, tag = "2")]
    pub(crate) term: Term,
    /// In the entry's payload, bytes.
    #[prost(uint32, tag = "3")]
    pub(crate) offset: u32,
    #[prost(uint32, tag = "4")]
    pub(crate) size: u32,
}

impl PeerMessage {
    /// The message as one frame of an attachment.
    pub(crate) fn frame(self, attachment: Option<AttachmentId>, number: u64) -> Bytes {
        Bytes::from(Frame { attachment, number, message: Some(self) }.encode_to_vec())
    }
}

pub(crate) fn guid_bytes(guid: MessageGuid) -> Bytes {
    Bytes::copy_from_slice(&guid.0)
}

pub(crate) fn guid_of(bytes: &Bytes) -> Option<MessageGuid> {
    Some(MessageGuid(bytes.as_ref().try_into().ok()?))
}

pub(crate) fn attributes_word(attributes: Attributes) -> u32 {
    u32::from(attributes.flags) << 24
        | u32::from(attributes.compression) << 16
        | u32::from(attributes.schema_wire_id)
}

pub(crate) fn attributes_of(word: u32) -> Attributes {
    let [flags, compression, high, low] = word.to_be_bytes();
    Attributes { flags, compression, schema_wire_id: u16::from_be_bytes([high, low]) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_comes_back_as_it_was_and_unknown_messages_as_none() {
        let attachment = AttachmentId { process: 7, number: 3 };
        let message = PeerMessage::Closed(9);
        let frame = Frame::decode(message.clone().frame(Some(attachment), 4)).unwrap();
        assert_eq!((frame.attachment, frame.number), (Some(attachment), 4));
        assert_eq!(frame.message, Some(message));
        // Field 99, a varint: of a newer version.
        let newer = Frame::decode(&[0x98, 0x06, 0x01][..]).unwrap();
        assert_eq!(newer.message, None);
    }

    #[test]
    fn attributes_fit_a_word() {
        let attributes = Attributes { flags: 3, compression: 1, schema_wire_id: 0x1234 };
        assert_eq!(attributes_of(attributes_word(attributes)), attributes);
    }
}
