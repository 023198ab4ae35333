//! What clients ask for and what they get, in short.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use flintmq_protocol::ack::{AckMessages, AckStatus};
use flintmq_protocol::event::{EventType, MAX_EVENT_SIZE};
use flintmq_protocol::frame::FrameDecoder;
use flintmq_protocol::guid::MessageGuid;
use flintmq_protocol::push::PushMessages;
use flintmq_queue::{
    Attributes, Domain, DomainId, DomainSettings, DomainVersion, Filter, HandleId, QueueId,
    Subscription,
};

use crate::{
    Answer, Close, Configure, Confirm, HandleRole, Open, Publish, Put, Request, SessionEnded,
    SessionId, Ticket,
};

/// What a client of a node saw, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    Ack {
        message: u64,
        status: AckStatus,
    },
    Push {
        message: u64,
        subscription: u32,
        bytes: usize,
    },
    /// The answer to a configure or close, by its number.
    Response(u8),
    Refused,
    SessionEnds,
}

/// All clients of a node.
#[derive(Default)]
pub(super) struct Client {
    pub(super) answers: BTreeMap<Ticket, Vec<Answer>>,
    pub(super) sessions: BTreeMap<u64, Vec<Seen>>,
    /// Bytes of PUTs that are answered.
    pub(super) answered: usize,
    /// Queues created under this node's leadership, and the version of their settings.
    pub(super) created: Vec<(String, u64)>,
}

impl Client {
    pub(super) fn seen(&self, session: u64) -> &[Seen] {
        self.sessions.get(&session).map_or(&[], Vec::as_slice)
    }

    /// The messages that a session was pushed, in order.
    pub(super) fn pushed(&self, session: u64) -> Vec<u64> {
        let pushed = self.seen(session).iter().filter_map(|seen| match seen {
            Seen::Push { message, .. } => Some(*message),
            _ => None,
        });
        pushed.collect()
    }

    /// The messages that were acknowledged to a session with success, in order.
    pub(super) fn acked(&self, session: u64) -> Vec<u64> {
        let acked = self.seen(session).iter().filter_map(|seen| match seen {
            Seen::Ack { message, status: AckStatus::Success } => Some(*message),
            _ => None,
        });
        acked.collect()
    }
}

/// The domain of all queues.
pub(super) fn domain(version: u64, settings: DomainSettings) -> Domain {
    Domain { id: DomainId(1), version: DomainVersion { term: 1, index: version }, settings }
}

const RESPONSE: u8 = 0xff;

pub(super) fn decode(events: Bytes, seen: &mut Vec<Seen>) {
    if events.first() == Some(&RESPONSE) {
        return seen.push(Seen::Response(events[1]));
    }
    let (mut decoder, mut bytes) = (FrameDecoder::new(MAX_EVENT_SIZE), BytesMut::from(events));
    while !bytes.is_empty() {
        let event = decoder.decode(&mut bytes).unwrap().unwrap().parse().unwrap();
        match event.event_type() {
            EventType::Ack => seen.extend(
                AckMessages::parse(&event.body)
                    .unwrap()
                    .map(|ack| Seen::Ack { message: number(ack.guid), status: ack.status }),
            ),
            EventType::Push => seen.extend(PushMessages::new(&event.body).map(|push| {
                let push = push.unwrap();
                let subscription = push.subscription_ids().next().unwrap_or(0);
                let (message, bytes) = (number(push.guid), push.app_data.len());
                Seen::Push { message, subscription, bytes }
            })),
            other => panic!("a client gets {other:?}"),
        }
    }
}

pub(super) fn guid(message: u64) -> MessageGuid {
    let mut guid = [0; 16];
    guid[8..].copy_from_slice(&message.to_be_bytes());
    MessageGuid(guid)
}

fn number(guid: MessageGuid) -> u64 {
    u64::from_be_bytes(guid.0[8..].try_into().unwrap())
}

/// Opens queue 1; handles are numbered by the test, and each answers under its own number.
pub(super) fn open(session: u64, handle: u64, reads: bool) -> Request {
    open_queue(session, handle, reads, 1)
}

pub(super) fn open_queue(session: u64, handle: u64, reads: bool, queue: u32) -> Request {
    let queue_id = handle as u32;
    Request::Open(Box::new(Open {
        ticket: Ticket(handle),
        session: SessionId(session),
        old_properties: false,
        handle: HandleId(handle),
        queue: QueueId(queue),
        uri: format!("bmq://domain/queue{queue}"),
        domain: Arc::new(domain(1, DomainSettings::priority())),
        role: if reads { HandleRole::Reader { queue_id } } else { HandleRole::Writer { queue_id } },
    }))
}

/// Subscribes under this id with room for so many messages; the answer is the id.
pub(super) fn configure(session: u64, handle: u64, id: u32, room: u64) -> Request {
    let subscription = Subscription {
        id,
        priority: 1,
        count: 1,
        max_messages: room,
        max_bytes: 1 << 40,
        filter: Filter::All,
    };
    Request::Configure(Box::new(Configure {
        session: SessionId(session),
        handle: HandleId(handle),
        subscriptions: vec![subscription],
        response: Bytes::from(vec![RESPONSE, id as u8]),
        request_id: None,
    }))
}

pub(super) fn put(session: u64, handle: u64, message: u64) -> Request {
    sized(session, handle, message, 100)
}

pub(super) fn sized(session: u64, handle: u64, message: u64, bytes: usize) -> Request {
    let put = Put {
        handle: HandleId(handle),
        queue: QueueId(1),
        guid: guid(message),
        correlation_id: 0,
        ack_requested: true,
        attributes: Attributes::default(),
        app_data: Bytes::from(vec![message as u8; bytes]),
    };
    Request::Publish(Publish { session: SessionId(session), puts: vec![put] })
}

pub(super) fn confirm(handle: u64, message: u64) -> Request {
    Request::Confirm(vec![Confirm { handle: HandleId(handle), guid: guid(message) }])
}

pub(super) fn close(session: u64, handle: u64, response: u8) -> Request {
    let handles = vec![HandleId(handle)];
    let response = Bytes::from(vec![RESPONSE, response]);
    Request::Close(Box::new(Close { session: SessionId(session), handles, response }))
}

pub(super) fn end(session: u64, lost: bool, ticket: u64) -> Request {
    let (session, ticket) = (SessionId(session), Ticket(ticket));
    Request::SessionEnded(SessionEnded { session, lost, ticket })
}
