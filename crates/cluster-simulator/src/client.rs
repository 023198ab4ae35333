//! Simulated clients: each has one session at a node at a time, publishes, consumes and confirms,
//! and checks all that it is sent.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::{BufMut as _, Bytes, BytesMut};
use flintmq_consensus::{GroupId, NodeId};
use flintmq_protocol::ack::{AckMessage, AckMessages, AckStatus};
use flintmq_protocol::event::{EVENT_HEADER_SIZE, EventHeader, EventType, Frame};
use flintmq_protocol::push::{PushMessage, PushMessages};
use flintmq_partition::{OpenRefusal, SessionId};
use flintmq_queue::{HandleId, QueueId};

use crate::oracle::{Key, Violation, violation};
use crate::random::Random;

/// A queue as clients name it; it may get another number when it was removed.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    pub(crate) group: GroupId,
    pub(crate) number: QueueId,
    pub(crate) ttl_ms: u64,
    /// Its removal was asked for; what the number is then is decided by the answer.
    pub(crate) removing: bool,
}

/// What a client wants with a queue.
#[derive(Clone, Debug)]
pub(crate) struct Use {
    pub(crate) slot: usize,
    pub(crate) reads: bool,
    pub(crate) state: UseState,
    pub(crate) handle: HandleId,
    pub(crate) queue: QueueId,
    /// The client's name for the queue in this session.
    pub(crate) queue_id: u32,
    /// The subscription in force, and the one that was asked for with the number of the request.
    pub(crate) subscription: u32,
    pub(crate) configuring: Option<(u64, u32)>,
    pub(crate) closing: Option<u64>,
    pub(crate) held: VecDeque<Key>,
    /// PUTs that were sent through it in this session and not answered.
    pub(crate) unanswered: BTreeSet<Key>,
}

/// How far an open is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UseState {
    Closed,
    Opening,
    Open,
    Closing,
}

impl Use {
    pub(crate) fn new(slot: usize, reads: bool) -> Self {
        Self {
            slot,
            reads,
            state: UseState::Closed,
            handle: HandleId(0),
            queue: QueueId(0),
            queue_id: 0,
            subscription: 0,
            configuring: None,
            closing: None,
            held: VecDeque::new(),
            unanswered: BTreeSet::new(),
        }
    }

    pub(crate) fn forget(&mut self) {
        *self = Self::new(self.slot, self.reads);
    }
}

/// Where a client's session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Connection {
    pub(crate) session: SessionId,
    pub(crate) node: NodeId,
    pub(crate) incarnation: u64,
    /// It has said goodbye and waits for the answers of so many partitions.
    pub(crate) leaving: u32,
}

/// A client.
pub(crate) struct Client {
    pub(crate) number: u32,
    pub(crate) random: Random,
    pub(crate) uses: Vec<Use>,
    pub(crate) connection: Option<Connection>,
    pub(crate) retry_at: u64,
    /// PUTs that are not answered, in order, by the use: sent again after a loss.
    pub(crate) unacknowledged: BTreeMap<Key, Outstanding>,
    pub(crate) sent: u32,
    pub(crate) slow_until: Option<u64>,
    /// It confirms at once and publishes nothing more.
    pub(crate) settles: bool,
}

/// A PUT that is not answered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outstanding {
    pub(crate) slot: usize,
    pub(crate) size: usize,
}

/// What reaches a client, in order.
#[derive(Clone, Debug)]
pub(crate) enum Item {
    Opened(HandleId, Result<(), OpenRefusal>),
    Events(Bytes),
    Refused(&'static str),
    /// The broker ends the session.
    Ended(&'static str),
    /// A partition has closed everything, as was asked for.
    Left,
    /// The node is gone.
    Lost,
}

/// An answer to a configure or close request, as an event on the wire.
pub(crate) fn response(number: u64) -> Bytes {
    let mut bytes = BytesMut::new();
    let length = EVENT_HEADER_SIZE + 8;
    bytes.extend_from_slice(&EventHeader::new(EventType::Control, length as u32).to_wire());
    bytes.put_u64(number);
    bytes.freeze()
}

/// One thing in the bytes of a session.
#[derive(Debug)]
pub(crate) enum Said {
    Ack(AckMessage),
    Push(PushMessage),
    Response(u64),
}

/// Takes whole events apart.
pub(crate) fn parse(mut events: Bytes) -> Result<Vec<Said>, Violation> {
    let mut said = Vec::new();
    while !events.is_empty() {
        let Some(length) = events.first_chunk().map(|word| u32::from_be_bytes(*word) as usize)
        else {
            return violation("WholeEvents", format!("{} bytes are left", events.len()));
        };
        if length > events.len() || length < EVENT_HEADER_SIZE {
            return violation("WholeEvents", format!("{length} of {} bytes", events.len()));
        }
        let frame = Frame::new(events.split_to(length));
        let Some(Ok(event)) = frame.map(Frame::parse) else {
            return violation("WholeEvents", "an event cannot be read".to_owned());
        };
        match event.event_type() {
            EventType::Ack => match AckMessages::parse(&event.body) {
                Ok(acks) => said.extend(acks.map(Said::Ack)),
                Err(error) => return violation("WholeEvents", error.to_string()),
            },
            EventType::Push => {
                for push in PushMessages::new(&event.body) {
                    match push {
                        Ok(push) => said.push(Said::Push(push)),
                        Err(error) => return violation("WholeEvents", error.to_string()),
                    }
                }
            }
            EventType::Control => {
                let number = event.body.first_chunk().copied().unwrap_or_default();
                said.push(Said::Response(u64::from_be_bytes(number)));
            }
            other => return violation("WholeEvents", format!("an event of type {other}")),
        }
    }
    Ok(said)
}

impl Client {
    pub(crate) fn is_here(&self, session: SessionId) -> bool {
        self.connection.is_some_and(|connection| connection.session == session)
    }

    pub(crate) fn by_queue_id(&mut self, queue_id: u32) -> Option<&mut Use> {
        self.uses.iter_mut().find(|one| one.queue_id == queue_id && queue_id != 0)
    }

    /// Takes one acknowledgement; tells whether the message was stored.
    pub(crate) fn on_ack(&mut self, ack: &AckMessage, key: Key) -> Result<bool, Violation> {
        let (number, stored) = (self.number, ack.status == AckStatus::Success);
        let Some(one) = self.by_queue_id(ack.queue_id) else {
            let detail = format!("client {number} queue id {} message {key:x}", ack.queue_id);
            return violation("AckForOpenQueue", detail);
        };
        if !one.unanswered.remove(&key) {
            let detail = format!("client {number} message {key:x} {:?}", ack.status);
            return violation("AnsweredOnce", detail);
        }
        self.unacknowledged.remove(&key);
        Ok(stored)
    }

    /// Takes one message. Subscriptions: the old one before the answer, the new one behind it.
    pub(crate) fn on_push(&mut self, push: &PushMessage, key: Key) -> Result<(), Violation> {
        let number = self.number;
        let Some(one) = self.by_queue_id(push.queue_id) else {
            let detail = format!("client {number} queue id {} message {key:x}", push.queue_id);
            return violation("PushForOpenQueue", detail);
        };
        let subscription = push.subscription_ids().next().unwrap_or_default();
        if one.state == UseState::Opening || subscription != one.subscription {
            let detail = format!(
                "client {number} message {key:x}: subscription {subscription}, in force is {}",
                one.subscription
            );
            return violation("PushUnderSubscription", detail);
        }
        one.held.push_back(key);
        Ok(())
    }

    /// Takes the answer to a configure or close request.
    pub(crate) fn on_response(&mut self, response: u64) -> Result<Answered, Violation> {
        let number = self.number;
        for one in &mut self.uses {
            if let Some((asked, subscription)) = one.configuring
                && asked == response
            {
                one.configuring = None;
                one.subscription = subscription;
                return Ok(Answered::Configured);
            }
            if one.closing == Some(response) {
                if !one.unanswered.is_empty() {
                    let detail = format!("client {number}: {:x?}", one.unanswered);
                    return violation("AcksBeforeClosed", detail);
                }
                let handle = one.handle;
                one.forget();
                return Ok(Answered::Closed(handle));
            }
        }
        violation("AnsweredOnce", format!("client {number}: response {response}"))
    }
}

/// What a response was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answered {
    Configured,
    Closed(HandleId),
}
