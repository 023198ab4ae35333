//! A session that has negotiated: it sorts events, and collects what goes to partitions.

use std::collections::VecDeque;

use bytes::Bytes;
use flintmq_consensus::Time;
use flintmq_partition::{OpenRefusal, Publish, Request, SessionId};
use flintmq_protocol::control::{ControlChoice, Encoding};
use flintmq_protocol::event::{Event, EventType, HEARTBEAT_REQUEST, HEARTBEAT_RESPONSE};
use flintmq_protocol::guid::ClientId;
use flintmq_queue::HandleId;

use crate::confirm::Confirmer;
use crate::effect::Effect;
use crate::guid_source::{GuidSource, SessionGuids};
use crate::handles::Handles;
use crate::input::{OpenId, Placed};
use crate::negotiation::{self, Negotiated};
use crate::open_plan::OpenPlan;
use crate::opens::Opens;
use crate::publish::Publisher;
use crate::refusal::{Refusal, encode};
use crate::settings::SessionSettings;
use crate::silence::{Silence, Verdict};

/// PUTs collected before they are sent on although more of the same read are left.
const FLUSH_BYTES: usize = 1 << 20;

/// What a session does from its negotiation to its end.
pub(crate) struct Established {
    pub(crate) id: SessionId,
    pub(crate) encoding: Encoding,
    pub(crate) handles: Handles,
    pub(crate) opens: Opens,
    /// A request that waits until another open comes to its end.
    pub(crate) waiting: Option<OpenPlan>,
    publisher: Publisher,
    confirmer: Confirmer,
    /// None for a client that does not know heartbeats: it is never asked, nor given up.
    silence: Option<Silence>,
}

/// Why a session ends.
#[derive(Debug)]
pub(crate) enum Leave {
    /// The client takes its leave; the number of the request is to be answered last.
    Disconnect { request_id: Option<i32> },
    /// The client vanished, or sent what cannot be served.
    Lost(String),
    /// The node is stopping.
    NodeStops,
}

impl Established {
    pub(crate) fn new(
        now: Time,
        id: SessionId,
        client: ClientId,
        negotiated: &Negotiated,
        settings: &SessionSettings,
    ) -> Self {
        let guids = if negotiated.makes_guids {
            GuidSource::Client
        } else {
            GuidSource::Session(SessionGuids::new(now, client))
        };
        Self {
            id,
            encoding: negotiated.encoding,
            handles: Handles::default(),
            opens: Opens::new(id, !negotiated.reads_extended_properties),
            waiting: None,
            publisher: Publisher::new(guids),
            confirmer: Confirmer::default(),
            silence: negotiated.answers_heartbeats.then(|| Silence::new(now, settings)),
        }
    }

    /// Whether the client's next request waits.
    pub(crate) fn waits(&self) -> bool {
        self.waiting.is_some()
    }

    /// Bytes came. Where they come without a break, ticks may not.
    pub(crate) fn received(&mut self, now: Time, effects: &mut VecDeque<Effect>) {
        if let Some(silence) = &mut self.silence {
            silence.heard(now);
        }
        self.opens.retry(now, effects);
    }

    /// When something is due.
    pub(crate) fn deadline(&self) -> Option<Time> {
        let look = self.silence.as_ref().map(Silence::next_look);
        look.into_iter().chain(self.opens.next_retry()).min()
    }

    /// Does what is due.
    pub(crate) fn tick(
        &mut self,
        now: Time,
        output_full: bool,
        effects: &mut VecDeque<Effect>,
    ) -> Option<Leave> {
        self.opens.retry(now, effects);
        match self.silence.as_mut()?.look(now, output_full) {
            Verdict::Fine => None,
            Verdict::Ask => {
                effects.push_back(Effect::Send(Bytes::from_static(&HEARTBEAT_REQUEST)));
                None
            }
            Verdict::Gone(silence) => {
                Some(Leave::Lost(format!("no sign of life for {} s", silence.as_secs())))
            }
        }
    }

    /// Takes one event.
    pub(crate) fn take(
        &mut self,
        now: Time,
        event: &Event,
        effects: &mut VecDeque<Effect>,
    ) -> Option<Leave> {
        let lost = |error: &dyn std::fmt::Display| Some(Leave::Lost(error.to_string()));
        match event.event_type() {
            EventType::Put => {
                if let Err(error) = self.publisher.take(now, event, &self.handles) {
                    return lost(&error);
                }
                if self.publisher.waiting_bytes() >= FLUSH_BYTES {
                    self.flush(effects);
                }
            }
            EventType::Confirm => {
                if let Err(error) = self.confirmer.take(event, &self.handles) {
                    return lost(&error);
                }
            }
            EventType::Control => return self.on_control(event, effects),
            EventType::HeartbeatRequest => {
                effects.push_back(Effect::Send(Bytes::from_static(&HEARTBEAT_RESPONSE)));
            }
            EventType::HeartbeatResponse => {}
            EventType::Authentication => match negotiation::reauthenticate(event) {
                Ok(answer) => effects.push_back(Effect::Send(answer)),
                Err((answer, reason)) => {
                    effects.push_back(Effect::Send(answer));
                    return Some(Leave::Lost(reason));
                }
            },
            other => return lost(&format!("a client must not send this event, event={other}")),
        }
        None
    }

    /// Hands everything collected to the partitions.
    pub(crate) fn flush(&mut self, effects: &mut VecDeque<Effect>) {
        let refusals = self.publisher.take_refusals();
        if !refusals.is_empty() {
            effects.push_back(Effect::Send(refusals));
        }
        let session = self.id;
        effects.extend(self.publisher.drain().map(|(partition, puts, unanswered)| {
            let request = Request::Publish(Publish { session, puts });
            Effect::ToPartition { partition, request, unanswered }
        }));
        effects.extend(self.confirmer.drain().map(|(partition, confirms)| {
            let request = Request::Confirm(confirms);
            Effect::ToPartition { partition, request, unanswered: 0 }
        }));
    }

    /// The answer to a disconnect.
    pub(crate) fn farewell(&self, request_id: Option<i32>) -> Bytes {
        encode(self.encoding, request_id, ControlChoice::DisconnectResponse)
    }

    /// The place of a queue is known, or why it has none.
    pub(crate) fn placed(
        &mut self,
        open: OpenId,
        result: Result<Box<Placed>, Refusal>,
        effects: &mut VecDeque<Effect>,
    ) {
        if let Some(finished) = self.opens.placed(open, result, effects) {
            self.finish_open(finished, effects);
        }
    }

    /// A queue is open for one role, or why it is not.
    pub(crate) fn opened(
        &mut self,
        now: Time,
        open: OpenId,
        result: Result<HandleId, OpenRefusal>,
        effects: &mut VecDeque<Effect>,
    ) {
        if let Some(finished) = self.opens.opened(now, open, result, effects) {
            self.finish_open(finished, effects);
        }
    }
}
