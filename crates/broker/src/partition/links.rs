//! The sessions that a partition answers, and what it is about to send them. Everything that one
//! round of the task produces for a session leaves as few, large events.

use std::sync::Arc;

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
use flintmq_queue::{Delivery, HandleId};
use rustc_hash::FxHashMap;

use crate::link::{SessionId, SessionLink};

/// A session as one partition sees it.
pub(super) struct Link {
    pub(super) session: Arc<SessionLink>,
    /// What it has open here.
    pub(super) handles: Vec<HandleId>,
    /// Its outbox was full: its readers get nothing until it has room.
    pub(super) paused: bool,
    acks: Vec<AckMessage>,
    pushes: Vec<(u32, Delivery)>,
    /// Bytes of PUTs answered in this round.
    answered: usize,
    dirty: bool,
}

/// All sessions with something open in the partition.
#[derive(Default)]
pub(super) struct Links {
    by_session: FxHashMap<SessionId, Link>,
    dirty: Vec<SessionId>,
    /// Where events are put together; handed out piece by piece.
    scratch: BytesMut,
}

impl Links {
    /// The session's link, made when it is the session's first handle here.
    pub(super) fn enter(&mut self, session: &Arc<SessionLink>) -> &mut Link {
        self.by_session.entry(session.id).or_insert_with(|| Link {
            session: Arc::clone(session),
            handles: Vec::new(),
            paused: false,
            acks: Vec::new(),
            pushes: Vec::new(),
            answered: 0,
            dirty: false,
        })
    }

    /// The session's link.
    pub(super) fn get_mut(&mut self, session: SessionId) -> Option<&mut Link> {
        self.by_session.get_mut(&session)
    }

    /// Forgets a session, with what was about to be sent.
    pub(super) fn remove(&mut self, session: SessionId) -> Option<Link> {
        self.by_session.remove(&session)
    }

    /// An answer to a PUT, to leave at the end of the round.
    pub(super) fn ack(&mut self, session: SessionId, ack: AckMessage) {
        if let Some(link) = mark(&mut self.by_session, &mut self.dirty, session) {
            link.acks.push(ack);
        }
    }

    /// Counts bytes of PUTs as answered.
    pub(super) fn answered(&mut self, session: SessionId, bytes: usize) {
        if let Some(link) = mark(&mut self.by_session, &mut self.dirty, session) {
            link.answered += bytes;
        }
    }

    /// A message for a consumer, to leave at the end of the round.
    pub(super) fn push(&mut self, session: SessionId, queue_id: u32, delivery: Delivery) {
        if let Some(link) = mark(&mut self.by_session, &mut self.dirty, session) {
            link.pushes.push((queue_id, delivery));
        }
    }

    /// Sends what the session has in this partition now: what follows must come after it.
    pub(super) fn flush_session(&mut self, session: SessionId) {
        if let Some(link) = self.by_session.get_mut(&session) {
            flush(link, &mut self.scratch);
        }
    }

    /// Sends everything; returns sessions whose outbox got full by it and that are not paused yet.
    pub(super) fn flush(&mut self) -> Vec<SessionId> {
        let mut full = Vec::new();
        for session in self.dirty.drain(..) {
            let Some(link) = self.by_session.get_mut(&session) else { continue };
            link.dirty = false;
            flush(link, &mut self.scratch);
            if !link.paused && link.session.outbox.is_full() {
                full.push(session);
            }
        }
        full
    }
}

fn mark<'a>(
    by_session: &'a mut FxHashMap<SessionId, Link>,
    dirty: &mut Vec<SessionId>,
    session: SessionId,
) -> Option<&'a mut Link> {
    let link = by_session.get_mut(&session)?;
    if !std::mem::replace(&mut link.dirty, true) {
        dirty.push(session);
    }
    Some(link)
}

fn flush(link: &mut Link, scratch: &mut BytesMut) {
    link.session.in_flight.release(std::mem::take(&mut link.answered));
    if !link.acks.is_empty() {
        let mut builder = AckBuilder::new(scratch, PACKED_EVENT_SIZE);
        link.acks.drain(..).for_each(|ack| builder.append(&ack));
    }
    if !link.pushes.is_empty() {
        let bytes: usize = link.pushes.iter().map(|(_, d)| d.app_data.len() + 64).sum();
        scratch.reserve(bytes);
        let extended = link.session.reads_extended_properties;
        let mut builder = PushBuilder::new(scratch, PACKED_EVENT_SIZE);
        for (queue_id, delivery) in link.pushes.drain(..) {
            append(&mut builder, queue_id, &delivery, extended);
        }
    }
    link.session.outbox.push(scratch.split().freeze());
}

fn append(builder: &mut PushBuilder<'_>, queue_id: u32, delivery: &Delivery, extended: bool) {
    let attributes = delivery.attributes;
    let mut head = PushHead {
        flags: PushFlags(attributes.flags & PushFlags::MESSAGE_PROPERTIES.0),
        queue_id,
        guid: MessageGuid(delivery.guid.0),
        compression: Compression::from_wire(attributes.compression).unwrap_or(Compression::None),
        schema_wire_id: attributes.schema_wire_id,
    };
    if delivery.redelivered {
        head.flags = head.flags.with(PushFlags::OUT_OF_ORDER);
    }
    let option = sub_queue_id_option(delivery.subscription);
    let appended = if extended || attributes.schema_wire_id == 0 {
        builder.append(&head, &option, &delivery.app_data)
    } else {
        let old = old_style(&delivery.app_data, &mut head);
        builder.append(&head, &option, &old)
    };
    if let Err(error) = appended {
        // Only sizes and emptiness can be wrong, and both were checked when the message came in.
        tracing::error!(guid = %head.guid, %error, "a stored message cannot be sent");
    }
}

/// The message as clients read it that know only the older layout of properties (protocol: data
/// events, section 4.4). What cannot be converted is sent as it is.
fn old_style(app_data: &Bytes, head: &mut PushHead) -> Bytes {
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
