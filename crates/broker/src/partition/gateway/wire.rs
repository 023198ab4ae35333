//! What a partition's tasks on different nodes say to each other about clients: the follower, as
//! their gateway, to the leader, and the leader back. Tags are never used again for other things.

use bytes::Bytes;
use flintmq_consensus::{Index, Term};
use prost::Message as _;

/// One frame.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Frame {
    #[prost(
        oneof = "Said",
        tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 16, 17, 18, 19, 20, 21, 22, 23"
    )]
    pub(super) said: Option<Said>,
}

/// What it says.
#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum Said {
    // To the leader.
    /// The gateway begins anew: what it had open before is closed.
    #[prost(message, tag = "1")]
    Hello(Hello),
    #[prost(message, tag = "2")]
    Open(Open),
    #[prost(message, tag = "3")]
    Configure(Configure),
    #[prost(message, tag = "4")]
    Close(Close),
    #[prost(message, tag = "5")]
    Publish(Publish),
    #[prost(message, tag = "6")]
    Confirm(Confirm),
    /// Handles whose client takes nothing at present.
    #[prost(message, tag = "7")]
    Pause(Handles),
    #[prost(message, tag = "8")]
    Resume(Handles),
    #[prost(message, tag = "9")]
    Update(Update),
    #[prost(message, tag = "10")]
    Ask(Ask),
    /// The sender has left the group: may it drop what it has? With the leadership that it asks.
    #[prost(uint64, tag = "11")]
    MayDrop(Term),
    // From the leader.
    /// The sender leads and serves: say hello.
    #[prost(message, tag = "16")]
    Invite(Invite),
    #[prost(message, tag = "17")]
    Opened(Opened),
    #[prost(message, tag = "18")]
    Configured(Configured),
    /// The numbered close is done.
    #[prost(uint64, tag = "19")]
    Closed(u64),
    #[prost(message, tag = "20")]
    Deliver(Deliver),
    /// The confirmations up to this number are decided.
    #[prost(uint64, tag = "21")]
    Confirmed(u64),
    #[prost(message, tag = "22")]
    Answer(Answer),
    /// Nobody needs what the receiver has of the group that it has left.
    #[prost(uint64, tag = "23")]
    Drop(Term),
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct Hello {
    /// The leadership that it believes in.
    #[prost(uint64, tag = "1")]
    pub(super) term: Term,
    /// It looks up messages in its own log.
    #[prost(bool, tag = "2")]
    pub(super) has_log: bool,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct Invite {
    #[prost(uint64, tag = "1")]
    pub(super) term: Term,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct Open {
    #[prost(uint64, tag = "1")]
    pub(super) handle: u64,
    #[prost(uint32, tag = "2")]
    pub(super) queue: u32,
    #[prost(string, tag = "3")]
    pub(super) uri: String,
    /// The queue's settings, should it have to be created.
    #[prost(bytes = "bytes", tag = "4")]
    pub(super) settings: Bytes,
    #[prost(bool, tag = "5")]
    pub(super) reads: bool,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct Opened {
    #[prost(uint64, tag = "1")]
    pub(super) handle: u64,
    /// 0 opened, 1 refused, 2 the queue is deleted, 3 not ready.
    #[prost(uint32, tag = "2")]
    pub(super) outcome: u32,
    #[prost(string, tag = "3")]
    pub(super) reason: String,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct Configure {
    #[prost(uint64, tag = "1")]
    pub(super) number: u64,
    #[prost(uint64, tag = "2")]
    pub(super) handle: u64,
    #[prost(message, repeated, tag = "3")]
    pub(super) subscriptions: Vec<Subscription>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct Subscription {
    #[prost(uint32, tag = "1")]
    pub(super) id: u32,
    #[prost(sint32, tag = "2")]
    pub(super) priority: i32,
    #[prost(uint32, tag = "3")]
    pub(super) count: u32,
    #[prost(uint64, tag = "4")]
    pub(super) max_messages: u64,
    #[prost(uint64, tag = "5")]
    pub(super) max_bytes: u64,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct Configured {
    #[prost(uint64, tag = "1")]
    pub(super) number: u64,
    #[prost(bool, tag = "2")]
    pub(super) done: bool,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct Close {
    #[prost(uint64, tag = "1")]
    pub(super) number: u64,
    #[prost(uint64, repeated, tag = "2")]
    pub(super) handles: Vec<u64>,
    /// The client vanished: what it held counts as a failed delivery.
    #[prost(bool, tag = "3")]
    pub(super) lost: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Publish {
    #[prost(message, repeated, tag = "1")]
    pub(super) puts: Vec<Put>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct Put {
    #[prost(uint32, tag = "1")]
    pub(super) queue: u32,
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) guid: Bytes,
    /// Flags, compression, schema: one byte, one byte, two bytes.
    #[prost(fixed32, tag = "3")]
    pub(super) attributes: u32,
    #[prost(bytes = "bytes", tag = "4")]
    pub(super) app_data: Bytes,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct Confirm {
    #[prost(uint64, tag = "1")]
    pub(super) number: u64,
    #[prost(message, repeated, tag = "2")]
    pub(super) confirms: Vec<OneConfirm>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct OneConfirm {
    #[prost(uint64, tag = "1")]
    pub(super) handle: u64,
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) guid: Bytes,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct Handles {
    #[prost(uint64, repeated, tag = "1")]
    pub(super) handles: Vec<u64>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct Update {
    #[prost(uint32, tag = "1")]
    pub(super) queue: u32,
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) settings: Bytes,
}

/// An administrator's request.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct Ask {
    #[prost(uint64, tag = "1")]
    pub(super) number: u64,
    #[prost(uint32, tag = "2")]
    pub(super) queue: u32,
    /// 1 purge, 2 delete if closed.
    #[prost(uint32, tag = "3")]
    pub(super) what: u32,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct Answer {
    #[prost(uint64, tag = "1")]
    pub(super) number: u64,
    /// 0 done, 1 no such queue, 2 used, 3 in use, 4 failed.
    #[prost(uint32, tag = "2")]
    pub(super) outcome: u32,
    #[prost(string, tag = "3")]
    pub(super) reason: String,
    /// Messages purged, or consumers.
    #[prost(uint64, tag = "4")]
    pub(super) first: u64,
    /// Bytes purged, or producers.
    #[prost(uint64, tag = "5")]
    pub(super) second: u64,
}

/// What one round of the leader has for the clients of a gateway.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Deliver {
    #[prost(message, repeated, tag = "1")]
    pub(super) acks: Vec<Ack>,
    #[prost(message, repeated, tag = "2")]
    pub(super) pushes: Vec<Push>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct Ack {
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) guid: Bytes,
    /// As on the wire to clients.
    #[prost(uint32, tag = "2")]
    pub(super) status: u32,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct Push {
    #[prost(uint64, tag = "1")]
    pub(super) handle: u64,
    #[prost(uint32, tag = "2")]
    pub(super) subscription: u32,
    #[prost(bytes = "bytes", tag = "3")]
    pub(super) guid: Bytes,
    #[prost(fixed32, tag = "4")]
    pub(super) attributes: u32,
    #[prost(bool, tag = "5")]
    pub(super) redelivered: bool,
    #[prost(uint64, tag = "6")]
    pub(super) arrival_ms: u64,
    #[prost(bytes = "bytes", tag = "7")]
    pub(super) app_data: Bytes,
    /// Where the application data are instead, if they are not here.
    #[prost(message, optional, tag = "8")]
    pub(super) place: Option<Place>,
}

/// Where the receiver's own log has the application data of a message.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(super) struct Place {
    #[prost(uint64, tag = "1")]
    pub(super) index: Index,
    #[prost(uint64, tag = "2")]
    pub(super) term: Term,
    /// In the entry's payload, bytes.
    #[prost(uint32, tag = "3")]
    pub(super) offset: u32,
    #[prost(uint32, tag = "4")]
    pub(super) size: u32,
}

impl Said {
    /// The frame as bytes.
    pub(super) fn into_bytes(self) -> Bytes {
        Bytes::from(Frame { said: Some(self) }.encode_to_vec())
    }

    /// What the frame says; none for what a newer version says.
    pub(super) fn from_bytes(bytes: Bytes) -> Result<Option<Self>, prost::DecodeError> {
        Frame::decode(bytes).map(|frame| frame.said)
    }
}
