//! What the tasks and handles of one session share.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use flintmq_protocol::ack::{AckMessages, AckStatus};
use flintmq_protocol::control::{
    ControlChoice, ControlMessage, QueueHandleParameters, Status, StatusCategory,
};
use flintmq_protocol::guid::{GuidGenerator, MessageGuid};
use flintmq_protocol::put::PutMessage;
use rustc_hash::FxHashMap;
use tokio::runtime::Handle;
use tokio::sync::{Notify, broadcast, oneshot, watch};

use crate::control;
use crate::error::{ConfirmError, ConsumeError, PublishError};
use crate::event::{SessionEvent, SessionEvents};
use crate::options::SessionOptions;
use crate::producer::ProducerShared;
use crate::session::outbox::Outbox;
use crate::session::queues::{HandleIds, Open, Queues, Role};
use crate::session::requests::{OnSuccess, Requests};
use crate::session::unacknowledged::{Outcome, Unacknowledged, Waiting};

/// How far the session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Looking for a broker.
    Down,
    /// Negotiated; queues are being opened again.
    Connected,
    /// Everything is open; messages flow.
    Restored,
    /// For ever.
    Closed,
}

/// What negotiation found out about the broker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct BrokerFeatures {
    /// It reads properties of the extended style.
    pub(crate) extended_properties: bool,
    /// It knows configureStream.
    pub(crate) subscriptions: bool,
}

/// Shared by everything that belongs to one session.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) options: SessionOptions,
    pub(crate) runtime: Handle,
    /// Counts reads from the socket: any of them is a sign of life.
    pub(crate) reads: AtomicU64,
    pub(crate) writer: Notify,
    /// Told whenever a queue's handle is gone, for opens that wait for a close.
    pub(crate) queue_removed: Notify,
    /// The application has asked for the end: a connection that closes now is not looked for
    /// again.
    pub(crate) disconnecting: AtomicBool,
    state: Mutex<State>,
    phase: watch::Sender<Phase>,
    events: broadcast::Sender<SessionEvent>,
    started: Instant,
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) phase: Phase,
    /// Number of the current connection, or of the last one.
    pub(crate) epoch: u64,
    pub(crate) features: BrokerFeatures,
    pub(crate) outbox: Outbox,
    pub(crate) requests: Requests,
    pub(crate) queues: Queues,
    unacknowledged: Unacknowledged,
    guids: GuidGenerator,
    next_subscription_id: u32,
}

/// A control request got no success.
#[derive(Debug)]
pub(crate) enum RequestError {
    /// No connection, or it was lost before the reply.
    NotConnected,
    TimedOut,
    Refused(Status),
}

impl Core {
    pub(crate) fn new(options: SessionOptions, guids: GuidGenerator, runtime: Handle) -> Self {
        Self {
            options,
            runtime,
            reads: AtomicU64::new(0),
            writer: Notify::new(),
            queue_removed: Notify::new(),
            disconnecting: AtomicBool::new(false),
            state: Mutex::new(State {
                phase: Phase::Down,
                epoch: 0,
                features: BrokerFeatures::default(),
                outbox: Outbox::default(),
                requests: Requests::default(),
                queues: Queues::default(),
                unacknowledged: Unacknowledged::default(),
                guids,
                next_subscription_id: 1,
            }),
            phase: watch::Sender::new(Phase::Down),
            events: broadcast::Sender::new(SessionEvents::BACKLOG),
            started: Instant::now(),
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn events(&self) -> SessionEvents {
        SessionEvents::new(self.events.subscribe())
    }

    pub(crate) fn tell(&self, event: SessionEvent) {
        // Nobody listening is fine.
        let _ = self.events.send(event);
    }

    /// Waits until the session is restored or closed; gives the connection's number, or `None`.
    pub(crate) async fn until_restored(&self) -> Option<u64> {
        let mut phase = self.phase.subscribe();
        let reached = phase
            .wait_for(|phase| matches!(phase, Phase::Restored | Phase::Closed))
            .await
            .map_or(Phase::Closed, |phase| *phase);
        (reached == Phase::Restored).then(|| self.lock().epoch)
    }

    /// Waits until the session is closed.
    pub(crate) async fn until_closed(&self) {
        let _ = self.phase.subscribe().wait_for(|phase| *phase == Phase::Closed).await;
    }

    pub(crate) fn is_closed(&self) -> bool {
        *self.phase.borrow() == Phase::Closed
    }

    fn set_phase(&self, state: &mut State, phase: Phase) {
        if state.phase != Phase::Closed {
            state.phase = phase;
            self.phase.send_replace(phase);
        }
    }
}

/// The connection comes and goes.
impl Core {
    /// A new connection is negotiated. Gives its number.
    pub(crate) fn link_up(&self, features: BrokerFeatures) -> u64 {
        let mut state = self.lock();
        state.epoch += 1;
        state.features = features;
        self.set_phase(&mut state, Phase::Connected);
        state.epoch
    }

    /// The connection is gone.
    pub(crate) fn link_down(&self) {
        let open = {
            let mut state = self.lock();
            self.set_phase(&mut state, Phase::Down);
            state.outbox.clear();
            state.requests.clear();
            state.queues.open()
        };
        for handle in open {
            if let Open::Consumer(consumer) = handle {
                consumer.inbox.connection_lost();
            }
        }
    }

    /// Every queue is open again: sends what was not acknowledged and lets messages flow. Gives how
    /// many were sent.
    pub(crate) fn restored(&self) -> usize {
        self.expire();
        let count = {
            let mut state = self.lock();
            let again = state.unacknowledged.in_order();
            let count = again.len();
            for put in again {
                let _ = state.outbox.put(put);
            }
            self.set_phase(&mut state, Phase::Restored);
            count
        };
        self.writer.notify_one();
        count
    }

    /// Gives up messages that the broker may have forgotten by now.
    pub(crate) fn expire(&self) {
        let expired = {
            let mut state = self.lock();
            let state = &mut *state;
            let queues = &state.queues;
            let memory = |id| queues.producer(id).map_or(Duration::MAX, |p| p.broker_memory());
            state.unacknowledged.take_expired(Instant::now(), memory)
        };
        self.finish_failed(expired, |guid| PublishError::Expired { guid });
    }

    /// The end: every handle and every waiting call learns of it.
    pub(crate) fn close(&self) {
        let (open, unacknowledged) = {
            let mut state = self.lock();
            if state.phase == Phase::Closed {
                return;
            }
            self.set_phase(&mut state, Phase::Closed);
            state.outbox.clear();
            state.requests.clear();
            let open = state.queues.open();
            state.queues.clear();
            (open, state.unacknowledged.take_all())
        };
        let mut producers = FxHashMap::default();
        for handle in open {
            match handle {
                Open::Producer(producer) => {
                    producer.close(SESSION_CLOSED);
                    producers.insert(producer.queue_id, producer);
                }
                Open::Consumer(consumer) => consumer.inbox.end(Some(ConsumeError::SessionClosed)),
            }
        }
        for waiting in unacknowledged {
            // Without a producer the future finds its outcome dropped, and says the same.
            if let Some(producer) = producers.get(&waiting.put.queue_id) {
                let _ = waiting.outcome.send(Err(producer.closed_error()));
            }
        }
        self.queue_removed.notify_waiters();
        self.tell(SessionEvent::Disconnected);
    }
}

/// Publishing and confirming.
impl Core {
    /// Takes a message whose permits are held; sends it now, or after the reconnect.
    pub(crate) fn publish(
        &self,
        producer: &ProducerShared,
        mut put: PutMessage,
        byte_permits: u32,
    ) -> Result<oneshot::Receiver<Outcome>, PublishError> {
        let (outcome, receiver) = oneshot::channel();
        let now = Instant::now();
        let elapsed = now.saturating_duration_since(self.started).as_nanos();
        let wake = {
            let mut state = self.lock();
            producer.check_open()?;
            put.guid = state.guids.next_guid(u64::try_from(elapsed).unwrap_or(u64::MAX));
            let sent = (state.phase == Phase::Restored).then(|| put.clone());
            state.unacknowledged.insert(put, outcome, byte_permits, now);
            sent.is_some_and(|put| state.outbox.put(put))
        };
        if wake {
            self.writer.notify_one();
        }
        Ok(receiver)
    }

    /// Hands the answers of one ACK event to those who wait for them.
    pub(crate) fn acknowledged(&self, acks: AckMessages<'_>) {
        let mut answered = Vec::with_capacity(acks.len());
        let mut freed: FxHashMap<u32, Freed> = FxHashMap::default();
        {
            let mut state = self.lock();
            for ack in acks {
                let Some(waiting) = state.unacknowledged.answered(ack.guid, ack.queue_id) else {
                    tracing::debug!(guid = %ack.guid, "acknowledgement of an unknown message");
                    continue;
                };
                match freed.get_mut(&ack.queue_id) {
                    Some(freed) => freed.add(&waiting),
                    None => {
                        let producer = state.queues.producer(ack.queue_id).cloned();
                        let mut first = Freed { producer, messages: 0, bytes: 0 };
                        first.add(&waiting);
                        freed.insert(ack.queue_id, first);
                    }
                }
                answered.push((waiting, ack.status));
            }
        }
        for (waiting, status) in answered {
            let guid = waiting.put.guid;
            let outcome = match status {
                AckStatus::Success => Ok(guid),
                status => Err(PublishError::Rejected { guid, status }),
            };
            // Whoever dropped the future does not want to know.
            let _ = waiting.outcome.send(outcome);
        }
        for freed in freed.into_values() {
            freed.release();
        }
    }

    /// Queues a confirmation of a message that came with this connection.
    pub(crate) fn confirm(
        &self,
        ids: HandleIds,
        guid: MessageGuid,
        epoch: u64,
    ) -> Result<(), ConfirmError> {
        let wake = {
            let mut state = self.lock();
            let live = matches!(state.phase, Phase::Connected | Phase::Restored);
            if !live || state.epoch != epoch {
                return Err(ConfirmError::ConnectionLost { guid });
            }
            state.outbox.confirm(flintmq_protocol::confirm::ConfirmMessage {
                queue_id: ids.queue_id,
                guid,
                sub_queue_id: ids.sub_queue_id,
            })
        };
        if wake {
            self.writer.notify_one();
        }
        Ok(())
    }

    /// Tells those who wait that their messages will not be answered.
    pub(crate) fn finish_failed(
        &self,
        failed: Vec<Waiting>,
        error: impl Fn(MessageGuid) -> PublishError,
    ) {
        for waiting in failed {
            let producer = self.lock().queues.producer(waiting.put.queue_id).cloned();
            let mut freed = Freed { producer, messages: 0, bytes: 0 };
            freed.add(&waiting);
            let _ = waiting.outcome.send(Err(error(waiting.put.guid)));
            freed.release();
        }
    }

    /// Ends a producer: its messages on their way get no answer any more.
    pub(crate) fn end_producer(&self, producer: &Arc<ProducerShared>, reason: &str) {
        producer.close(reason);
        let failed = self.lock().unacknowledged.take_queue(producer.queue_id);
        self.finish_failed(failed, |_| producer.closed_error());
    }
}

/// Control requests.
impl Core {
    /// Sends a request and waits for its success. Cancelling the wait abandons the request.
    pub(crate) async fn request(
        &self,
        choice: ControlChoice,
        on_success: OnSuccess,
        deadline: Instant,
    ) -> Result<ControlChoice, RequestError> {
        let undo = match &on_success {
            OnSuccess::Opened(handle) => Some(handle.clone()),
            _ => None,
        };
        let (id, reply) = {
            let mut state = self.lock();
            if !matches!(state.phase, Phase::Connected | Phase::Restored) {
                return Err(RequestError::NotConnected);
            }
            let (id, reply) = state.requests.insert(on_success);
            let event = control::encode(&ControlMessage { r_id: Some(id), choice });
            let _ = state.outbox.event(event);
            (id, reply)
        };
        self.writer.notify_one();
        let mut attended = Attended { core: self, id, reply, undo };
        let reply = tokio::time::timeout_at(deadline.into(), &mut attended.reply).await;
        if reply.is_ok() {
            attended.undo = None;
        }
        match reply {
            Err(_) => Err(RequestError::TimedOut),
            Ok(Err(_)) => Err(RequestError::NotConnected),
            Ok(Ok(ControlChoice::Status(status))) if status.category != StatusCategory::Success => {
                Err(RequestError::Refused(status))
            }
            Ok(Ok(reply)) => Ok(reply),
        }
    }

    /// Closes what was opened for a caller who has gone.
    pub(crate) fn close_unattended(&self, parameters: QueueHandleParameters) {
        {
            let mut state = self.lock();
            let is_final = !state.queues.knows(parameters.q_id);
            let id = state.requests.insert_unattended(OnSuccess::Nothing);
            let choice = control::close_queue(parameters, is_final);
            let _ = state.outbox.event(control::encode(&ControlMessage { r_id: Some(id), choice }));
        }
        self.writer.notify_one();
    }

    /// Queues an event that needs no reply.
    pub(crate) fn send_event(&self, event: Bytes) {
        let _ = self.lock().outbox.event(event);
        self.writer.notify_one();
    }

    /// New subscription ids: never used before in this session.
    pub(crate) fn subscription_ids(&self, count: usize) -> Vec<u32> {
        let mut state = self.lock();
        (0..count)
            .map(|_| {
                let id = state.next_subscription_id;
                state.next_subscription_id = id.checked_add(1).unwrap_or(1);
                id
            })
            .collect()
    }

    /// A handle is gone; opens that wait for it may go on.
    pub(crate) fn remove_handle(&self, queue_id: u32, role: &Role) {
        self.lock().queues.remove(queue_id, role);
        self.queue_removed.notify_waiters();
    }

    /// Counts one read.
    pub(crate) fn note_read(&self) {
        self.reads.fetch_add(1, Ordering::Relaxed);
    }
}

const SESSION_CLOSED: &str = "the session is closed";

/// What answers give back to a producer's in-flight limits.
struct Freed {
    producer: Option<Arc<ProducerShared>>,
    messages: usize,
    bytes: usize,
}

impl Freed {
    fn add(&mut self, waiting: &Waiting) {
        self.messages += 1;
        self.bytes += waiting.byte_permits as usize;
    }

    fn release(self) {
        if let Some(producer) = self.producer {
            producer.release(self.messages, self.bytes);
        }
    }
}

/// A request whose caller still waits. Dropped early, it makes sure that an open which the broker
/// has granted, or will grant, is taken back.
struct Attended<'a> {
    core: &'a Core,
    id: i32,
    reply: oneshot::Receiver<ControlChoice>,
    undo: Option<QueueHandleParameters>,
}

impl Drop for Attended<'_> {
    fn drop(&mut self) {
        // Gone already when the reply has come.
        self.core.lock().requests.abandon(self.id);
        if let Some(handle) = self.undo.take()
            && let Ok(ControlChoice::OpenQueueResponse(_)) = self.reply.try_recv()
        {
            self.core.close_unattended(handle);
        }
    }
}
