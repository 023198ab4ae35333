//! The sessions that a partition answers, and what it is about to send them. Everything that one
//! turn produces for a session leaves as few, large events.

use bytes::{Bytes, BytesMut};
use flintmq_protocol::ack::{AckBuilder, AckMessage};
use flintmq_protocol::app_data::rewrite_for_old_consumer;
use flintmq_protocol::compression::{Compression, Inflater};
use flintmq_protocol::event::PACKED_EVENT_SIZE;
use flintmq_protocol::flags::PushFlags;
use flintmq_protocol::guid::MessageGuid;
use flintmq_protocol::malformed::MAX_APP_DATA_SIZE;
use flintmq_protocol::options::sub_queue_id_option;
use flintmq_protocol::push::{PushBuilder, PushHead};
use flintmq_queue::{Attributes, HandleId};

use crate::FastMap;
use crate::effect::Effect;
use crate::request::SessionId;

/// A message for a consumer.
#[derive(Clone, Debug)]
pub(crate) struct OutgoingPush {
    /// The client's name for the queue.
    pub(crate) queue_id: u32,
    /// The client's name for the subscription.
    pub(crate) subscription: u32,
    pub(crate) guid: MessageGuid,
    pub(crate) attributes: Attributes,
    pub(crate) redelivered: bool,
    pub(crate) app_data: Bytes,
}

/// A session as one partition sees it.
#[derive(Debug, Default)]
pub(crate) struct Session {
    /// Its client knows only the older layout of properties.
    old_properties: bool,
    /// What it has open here, in the order of the opens.
    pub(crate) handles: Vec<HandleId>,
    /// The way out to it is full: its readers get nothing until it has room.
    pub(crate) paused: bool,
    acks: Vec<AckMessage>,
    pushes: Vec<OutgoingPush>,
    /// Bytes of PUTs answered in this turn.
    answered: usize,
    dirty: bool,
}

/// All sessions with something open in the partition.
#[derive(Debug, Default)]
pub(crate) struct SessionTable {
    sessions: FastMap<SessionId, Session>,
    /// Those with something to send.
    dirty: Vec<SessionId>,
    /// Where events are put together; handed out piece by piece.
    scratch: BytesMut,
}

impl SessionTable {
    /// The session, which is new when it has its first handle here.
    pub(crate) fn enter(&mut self, session: SessionId, old_properties: bool) -> &mut Session {
        let new = || Session { old_properties, ..Session::default() };
        self.sessions.entry(session).or_insert_with(new)
    }

    /// The session.
    pub(crate) fn get(&self, session: SessionId) -> Option<&Session> {
        self.sessions.get(&session)
    }

    /// The session.
    pub(crate) fn get_mut(&mut self, session: SessionId) -> Option<&mut Session> {
        self.sessions.get_mut(&session)
    }

    /// Forgets a session, with what was about to be sent.
    pub(crate) fn remove(&mut self, session: SessionId) {
        self.sessions.remove(&session);
    }

    /// An answer to a PUT, to leave at the end of the turn.
    pub(crate) fn ack(&mut self, session: SessionId, ack: AckMessage) {
        if let Some(session) = self.mark(session) {
            session.acks.push(ack);
        }
    }

    /// Bytes of PUTs are answered, whether the session has anything open here or not.
    pub(crate) fn answered(&mut self, id: SessionId, bytes: usize, effects: &mut Vec<Effect>) {
        match self.mark(id) {
            Some(session) => session.answered += bytes,
            None => {
                effects.push(Effect::Send { session: id, events: Bytes::new(), answered: bytes });
            }
        }
    }

    /// A message for a consumer, to leave at the end of the turn.
    pub(crate) fn push(&mut self, session: SessionId, push: OutgoingPush) {
        if let Some(session) = self.mark(session) {
            session.pushes.push(push);
        }
    }

    /// Sends what there is for the session now: what follows must come behind it.
    pub(crate) fn flush_session(&mut self, session: SessionId, effects: &mut Vec<Effect>) {
        if let Some(found) = self.sessions.get_mut(&session) {
            flush(session, found, &mut self.scratch, effects);
        }
    }

    /// Sends everything.
    pub(crate) fn flush(&mut self, effects: &mut Vec<Effect>) {
        for session in self.dirty.drain(..) {
            let Some(found) = self.sessions.get_mut(&session) else { continue };
            found.dirty = false;
            flush(session, found, &mut self.scratch, effects);
        }
    }

    fn mark(&mut self, id: SessionId) -> Option<&mut Session> {
        let session = self.sessions.get_mut(&id)?;
        if !std::mem::replace(&mut session.dirty, true) {
            self.dirty.push(id);
        }
        Some(session)
    }
}

fn flush(id: SessionId, session: &mut Session, scratch: &mut BytesMut, effects: &mut Vec<Effect>) {
    if !session.acks.is_empty() {
        let mut builder = AckBuilder::new(scratch, PACKED_EVENT_SIZE);
        session.acks.drain(..).for_each(|ack| builder.append(&ack));
    }
    if !session.pushes.is_empty() {
        let bytes: usize = session.pushes.iter().map(|push| push.app_data.len() + 64).sum();
        scratch.reserve(bytes);
        let old = session.old_properties;
        let mut builder = PushBuilder::new(scratch, PACKED_EVENT_SIZE);
        session.pushes.drain(..).for_each(|push| append(&mut builder, &push, old));
    }
    let answered = std::mem::take(&mut session.answered);
    if answered > 0 || !scratch.is_empty() {
        effects.push(Effect::Send { session: id, events: scratch.split().freeze(), answered });
    }
}

fn append(builder: &mut PushBuilder<'_>, push: &OutgoingPush, old_properties: bool) {
    let attributes = push.attributes;
    let mut head = PushHead {
        flags: PushFlags(attributes.flags & PushFlags::MESSAGE_PROPERTIES.0),
        queue_id: push.queue_id,
        guid: push.guid,
        compression: Compression::from_wire(attributes.compression).unwrap_or(Compression::None),
        schema_wire_id: attributes.schema_wire_id,
    };
    if push.redelivered {
        head.flags = head.flags.with(PushFlags::OUT_OF_ORDER);
    }
    let option = sub_queue_id_option(push.subscription);
    let appended = if !old_properties || attributes.schema_wire_id == 0 {
        builder.append(&head, &option, &push.app_data)
    } else {
        let old = old_layout(&push.app_data, &mut head);
        builder.append(&head, &option, &old)
    };
    if let Err(error) = appended {
        // Only sizes and emptiness can be wrong, and both were checked when the message came in.
        tracing::error!(guid = %head.guid, %error, "a stored message cannot be sent");
    }
}

/// The message as clients read it that know only the older layout of properties (docs/protocol,
/// data events, section 4.4). What cannot be converted is sent as it is.
fn old_layout(app_data: &Bytes, head: &mut PushHead) -> Bytes {
    let mut inflater = Inflater::default();
    match rewrite_for_old_consumer(app_data, head.compression, &mut inflater, MAX_APP_DATA_SIZE) {
        Ok(old) => {
            head.compression = Compression::None;
            head.schema_wire_id = 0;
            old
        }
        Err(error) => {
            tracing::warn!(guid = %head.guid, %error, "properties cannot be rewritten for an old consumer");
            app_data.clone()
        }
    }
}
