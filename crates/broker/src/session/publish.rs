//! PUT events: checks each message at the door and sorts them by partition.

use std::time::Instant;

use bytes::{Bytes, BytesMut};
use flintmq_partition::Put;
use flintmq_protocol::ack::{AckBuilder, AckMessage, AckStatus};
use flintmq_protocol::app_data::inflate_old_style;
use flintmq_protocol::compression::Inflater;
use flintmq_protocol::crc::app_data_crc;
use flintmq_protocol::event::{Event, PACKED_EVENT_SIZE};
use flintmq_protocol::flags::PutFlags;
use flintmq_protocol::guid::{ClientId, GuidGenerator, MessageGuid};
use flintmq_protocol::malformed::{MAX_APP_DATA_SIZE, MalformedEvent};
use flintmq_protocol::properties::{PropertiesView, PropertyStyle, area_size};
use flintmq_protocol::put::{PutError, PutMessage, PutMessages};
use flintmq_queue::Attributes;

use super::handles::Handles;

/// Who makes the GUIDs of a session's messages.
pub(crate) enum GuidSource {
    /// The client; the correlation id is always 0.
    Client,
    /// This session, for clients that only count.
    Session(GuidGenerator, Instant),
}

impl GuidSource {
    /// For a client that makes GUIDs itself or not. `unique` distinguishes this session from all
    /// others.
    pub(crate) fn new(client_makes_them: bool, unique: [u8; 6]) -> Self {
        if client_makes_them {
            Self::Client
        } else {
            Self::Session(GuidGenerator::new(ClientId(unique)), Instant::now())
        }
    }
}

/// PUTs on their way to their partitions, and refusals on their way back.
pub(crate) struct Publisher {
    guids: GuidSource,
    /// By partition number minus one.
    batches: Vec<Vec<Put>>,
    waiting_bytes: usize,
    refusals: BytesMut,
    inflater: Inflater,
}

impl Publisher {
    pub(crate) fn new(partitions: u32, guids: GuidSource) -> Self {
        let batches = (0..partitions).map(|_| Vec::new()).collect();
        Self {
            guids,
            batches,
            waiting_bytes: 0,
            refusals: BytesMut::new(),
            inflater: Inflater::default(),
        }
    }

    /// Takes the messages of one event.
    ///
    /// # Errors
    /// The rest of the event cannot be read: messages before it were taken, the connection must be
    /// closed so that the client sends the others again.
    pub(crate) fn take(&mut self, event: &Event, handles: &Handles) -> Result<(), MalformedEvent> {
        for message in PutMessages::new(&event.body) {
            match message {
                Ok(message) => self.take_message(message, handles),
                Err(PutError::Message(bad)) => {
                    tracing::info!(error = %bad, "PUT refused");
                    self.refuse(handles, bad.queue_id, bad.guid, AckStatus::Unknown);
                }
                Err(PutError::Event(error)) => return Err(error),
            }
        }
        Ok(())
    }

    /// Bytes taken and not handed on yet.
    pub(crate) fn waiting_bytes(&self) -> usize {
        self.waiting_bytes
    }

    /// Hands on what was taken: for each partition's number its messages, and the bytes that they
    /// hold together.
    pub(crate) fn drain(&mut self) -> (usize, impl Iterator<Item = (u32, Vec<Put>)> + '_) {
        let bytes = std::mem::take(&mut self.waiting_bytes);
        let batches = (1_u32..)
            .zip(&mut self.batches)
            .filter(|(_, puts)| !puts.is_empty())
            .map(|(partition, puts)| (partition, std::mem::take(puts)));
        (bytes, batches)
    }

    /// Negative acknowledgements of what was refused here.
    pub(crate) fn take_refusals(&mut self) -> Bytes {
        self.refusals.split().freeze()
    }

    fn take_message(&mut self, message: PutMessage, handles: &Handles) {
        // A queue id that is not open: the client has closed it and forgotten the message. An ACK
        // would crash it.
        let Some((partition, queue, handle)) = handles.writer(message.queue_id) else {
            if handles.queue(message.queue_id).is_some() {
                tracing::info!(
                    queue_id = message.queue_id,
                    "PUT refused: the queue is not open for writing"
                );
                self.refuse(handles, message.queue_id, message.guid, AckStatus::Unknown);
            }
            return;
        };
        let (queue_id, flags, sent_guid) = (message.queue_id, message.flags, message.guid);
        let checked = check(&message);
        let stored = checked.and_then(|()| stored_form(message, &mut self.inflater));
        let (attributes, app_data) = match stored {
            Ok(stored) => stored,
            Err(reason) => {
                tracing::info!(queue_id, guid = %sent_guid, reason, "PUT refused");
                return self.refuse(handles, queue_id, sent_guid, AckStatus::Unknown);
            }
        };
        let (guid, correlation_id, ack_requested) = match &mut self.guids {
            GuidSource::Client if sent_guid.is_unset() => {
                tracing::info!(queue_id, "PUT refused: it has no GUID");
                return self.refuse(handles, queue_id, sent_guid, AckStatus::Unknown);
            }
            GuidSource::Client => (sent_guid, 0, flags.contains(PutFlags::ACK_REQUESTED)),
            GuidSource::Session(generator, since) => {
                let elapsed = u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX);
                let correlation_id = sent_guid.correlation_id();
                (generator.next_guid(elapsed), correlation_id, correlation_id != 0)
            }
        };
        self.waiting_bytes += app_data.len();
        if let Some(batch) = self.batches.get_mut(partition as usize - 1) {
            batch.push(Put {
                handle,
                queue,
                guid,
                correlation_id,
                ack_requested,
                attributes,
                app_data,
            });
        }
    }

    /// Answers a message that goes nowhere. Failures are told whether or not an ACK was asked for.
    fn refuse(&mut self, handles: &Handles, queue_id: u32, guid: MessageGuid, status: AckStatus) {
        if handles.queue(queue_id).is_none() {
            return;
        }
        let (guid, correlation_id) = match self.guids {
            GuidSource::Client => (guid, 0),
            GuidSource::Session(..) => (MessageGuid::UNSET, guid.correlation_id()),
        };
        let mut acks = AckBuilder::new(&mut self.refusals, PACKED_EVENT_SIZE);
        acks.append(&AckMessage { status, correlation_id, guid, queue_id });
    }
}

fn check(message: &PutMessage) -> Result<(), &'static str> {
    if message.app_data.len() > MAX_APP_DATA_SIZE {
        return Err("it is larger than 64 MiB");
    }
    if app_data_crc(&message.app_data) != message.crc32c {
        return Err("its checksum does not match: it was damaged on the way");
    }
    Ok(())
}

/// What is kept of a message. Old-style properties inside a compressed stream are taken out of it,
/// so that every kind of consumer can read them (protocol: data events, section 2).
fn stored_form(
    message: PutMessage,
    inflater: &mut Inflater,
) -> Result<(Attributes, Bytes), &'static str> {
    let message = inflate_old_style(message, inflater, MAX_APP_DATA_SIZE)
        .map_err(|_| "its compressed data is broken or too large")?;
    if let Some(style) = message.property_style() {
        check_properties(&message.app_data, style)?;
    }
    let attributes = Attributes {
        flags: message.flags.without(PutFlags::ACK_REQUESTED).0,
        compression: message.compression.to_wire(),
        // A producer's schema numbers mean nothing to others; what counts is the style that they
        // stand for.
        schema_wire_id: u16::from(message.schema_wire_id != 0),
    };
    Ok((attributes, message.app_data))
}

/// Properties that a consumer cannot read make it drop everything that came with them, messages of
/// others included.
fn check_properties(app_data: &Bytes, style: PropertyStyle) -> Result<(), &'static str> {
    let parsed =
        area_size(app_data).and_then(|size| PropertiesView::parse(&app_data[..size], style));
    parsed.map(|_| ()).map_err(|_| "its properties cannot be read")
}
