//! The reading half of a connection: acknowledgements to those who wait, messages to their
//! consumers, replies to their requests; in the order in which the broker wrote them.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::{Bytes, BytesMut};
use flintmq_protocol::ack::AckMessages;
use flintmq_protocol::control::{ControlChoice, ControlMessage};
use flintmq_protocol::event::{Event, EventType, Frame, HEARTBEAT_RESPONSE};
use flintmq_protocol::frame::FrameDecoder;
use flintmq_protocol::push::PushMessages;
use rustc_hash::FxHashMap;
use tokio::io::{AsyncRead, AsyncReadExt as _};

use crate::consumer::ConsumerShared;
use crate::session::core::Core;
use crate::session::inbox::{Delivered, Delivery};
use crate::session::requests::OnSuccess;

/// Reads one connection.
pub(crate) struct Reader {
    core: Arc<Core>,
    epoch: u64,
    /// Whom a PUSH is for, by queue id and subscription id; as the broker has last confirmed.
    routes: FxHashMap<(u32, u32), Arc<ConsumerShared>>,
    batch: Vec<Delivery>,
}

impl Reader {
    pub(crate) fn new(core: Arc<Core>, epoch: u64) -> Self {
        Self { core, epoch, routes: FxHashMap::default(), batch: Vec::new() }
    }

    /// Reads until the connection ends; gives the reason.
    pub(crate) async fn run(
        mut self,
        mut socket: Box<dyn AsyncRead + Send + Unpin>,
        mut received: BytesMut,
    ) -> String {
        let mut decoder = FrameDecoder::new(self.core.options.max_event_bytes);
        loop {
            loop {
                match decoder.decode(&mut received) {
                    Ok(Some(frame)) => {
                        if let Err(reason) = self.event(frame) {
                            return reason;
                        }
                    }
                    Ok(None) => break,
                    Err(error) => return error.to_string(),
                }
            }
            if received.capacity() - received.len() < READ_SIZE / 4 {
                received.reserve(READ_SIZE);
            }
            match socket.read_buf(&mut received).await {
                Ok(0) => return "the broker closed the connection".to_owned(),
                Ok(_) => self.core.note_read(),
                Err(error) => return format!("reading failed: {error}"),
            }
        }
    }

    /// A broken frame header, a broken acknowledgement and a broken message end the connection:
    /// what they were about would otherwise be missing for ever, while a new connection brings
    /// it again.
    fn event(&mut self, frame: Frame) -> Result<(), String> {
        let event = match frame.parse() {
            Ok(event) => event,
            Err(error) => {
                tracing::warn!(%error, "skipped an event");
                return Ok(());
            }
        };
        match event.event_type() {
            EventType::Push => self.pushed(&event.body),
            EventType::Ack => {
                let acks = AckMessages::parse(&event.body).map_err(|error| error.to_string())?;
                self.core.acknowledged(acks);
                Ok(())
            }
            EventType::Control => {
                self.replied(&event);
                Ok(())
            }
            EventType::HeartbeatRequest => {
                self.core.send_event(Bytes::from_static(&HEARTBEAT_RESPONSE));
                Ok(())
            }
            EventType::HeartbeatResponse => Ok(()),
            other => {
                tracing::debug!(event_type = ?other, "skipped an event that is not for clients");
                Ok(())
            }
        }
    }

    fn pushed(&mut self, body: &Bytes) -> Result<(), String> {
        // Nearly always all messages of an event are for one consumer.
        let mut current: Option<((u32, u32), Arc<ConsumerShared>)> = None;
        for push in PushMessages::new(body) {
            let push = match push {
                Ok(push) => push,
                Err(error) => {
                    self.deliver(current);
                    return Err(error.to_string());
                }
            };
            for id in push.subscription_ids() {
                let key = (push.queue_id, id);
                if current.as_ref().is_none_or(|(known, _)| *known != key) {
                    self.deliver(current.take());
                    current = self.routes.get(&key).map(|consumer| (key, Arc::clone(consumer)));
                }
                if current.is_some() {
                    self.batch.push(Delivery { push: push.clone(), epoch: self.epoch });
                } else {
                    tracing::warn!(
                        queue_id = push.queue_id,
                        subscription_id = id,
                        guid = %push.guid,
                        "skipped a message for nobody"
                    );
                }
            }
        }
        self.deliver(current);
        Ok(())
    }

    fn deliver(&mut self, to: Option<((u32, u32), Arc<ConsumerShared>)>) {
        let Some((_, consumer)) = to else { return };
        let count = self.batch.len() as u64;
        if consumer.inbox.deliver(&mut self.batch) == Delivered::Refused {
            let before = consumer.turned_away.fetch_add(count, Ordering::Relaxed);
            if before == 0 {
                tracing::warn!(
                    uri = %consumer.uri,
                    "the broker sends more than was asked for: turning messages away"
                );
            }
        }
    }

    fn replied(&mut self, event: &Event) {
        let message = match ControlMessage::from_event(event) {
            Ok(message) => message,
            Err(error) => {
                tracing::warn!(%error, "skipped a control message");
                return;
            }
        };
        let Some(pending) = message.r_id.and_then(|id| self.core.lock().requests.replied(id))
        else {
            tracing::debug!(r_id = message.r_id, "skipped a reply that nobody waits for");
            return;
        };
        let failed =
            matches!(&message.choice, ControlChoice::Status(status) if !status.is_success());
        if !failed {
            match pending.on_success {
                OnSuccess::Nothing => {}
                OnSuccess::Opened(handle) => {
                    if pending.caller.as_ref().is_none_or(|caller| caller.is_closed()) {
                        self.core.close_unattended(handle);
                    }
                }
                OnSuccess::Route { consumer, ids } => {
                    self.unroute(&consumer);
                    for id in ids {
                        let key = (consumer.ids.queue_id, id);
                        self.routes.insert(key, Arc::clone(&consumer));
                    }
                }
                OnSuccess::Unroute(consumer) => self.unroute(&consumer),
            }
        }
        if let Some(caller) = pending.caller {
            let _ = caller.send(message.choice);
        }
    }

    fn unroute(&mut self, consumer: &Arc<ConsumerShared>) {
        self.routes.retain(|_, routed| !Arc::ptr_eq(routed, consumer));
    }
}

/// Room for one read.
const READ_SIZE: usize = 256 << 10;
