//! One client's connection, from its first byte to its last.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use flintmq_consensus::Time;
use flintmq_partition::SessionId;
use flintmq_protocol::event::Event;
use flintmq_protocol::frame::FrameDecoder;

use crate::effect::{Client, Effect, End};
use crate::established::{Established, Leave};
use crate::guid_source::client_id;
use crate::input::Input;
use crate::negotiation;
use crate::settings::SessionSettings;

/// One session. See the crate's page.
pub struct Session {
    id: SessionId,
    boot: u32,
    settings: Arc<SessionSettings>,
    received: BytesMut,
    decoder: FrameDecoder,
    stage: Stage,
    /// What one step asks for; the host takes it before the next. One step makes few effects for
    /// each event that it takes.
    effects: VecDeque<Effect>,
}

enum Stage {
    Negotiating {
        until: Time,
    },
    Established(Box<Established>),
    /// Partitions answer what came before; then the client gets its last event.
    Ending {
        last: Bytes,
        end: End,
    },
    Over,
}

impl Session {
    /// A client has connected. `id` is the session's number in this process of the node, and `boot`
    /// a number that no other process of any node has: together they make the broker's GUIDs
    /// unique.
    pub fn new(now: Time, id: SessionId, boot: u32, settings: Arc<SessionSettings>) -> Self {
        Self {
            id,
            boot,
            received: BytesMut::new(),
            decoder: FrameDecoder::before_negotiation(),
            stage: Stage::Negotiating { until: now + settings.negotiation_timeout },
            settings,
            effects: VecDeque::new(),
        }
    }

    /// Where the host puts what it has read from the client: behind what is there. Messages are
    /// slices of it, no copies. [`Input::Received`] tells that there is more.
    pub fn received(&mut self) -> &mut BytesMut {
        &mut self.received
    }

    /// One thing has happened.
    pub fn step(&mut self, now: Time, input: Input) {
        match input {
            Input::Received => {
                if let Stage::Established(established) = &mut self.stage {
                    established.received(now, &mut self.effects);
                }
                self.take_events(now);
            }
            Input::Placed { open, result } => {
                if let Stage::Established(established) = &mut self.stage {
                    established.placed(open, result, &mut self.effects);
                    self.take_events(now);
                }
            }
            Input::Opened { open, result } => {
                if let Stage::Established(established) = &mut self.stage {
                    established.opened(now, open, result, &mut self.effects);
                    self.take_events(now);
                }
            }
            Input::Tick { output_full } => self.tick(now, output_full),
            Input::Lost(reason) => self.lost(reason),
            Input::Closing => match self.stage {
                Stage::Negotiating { .. } => self.close(Bytes::new(), End::NodeStops),
                Stage::Established(_) => self.leave(Leave::NodeStops),
                Stage::Ending { .. } | Stage::Over => {}
            },
            Input::Ended => self.ended(),
        }
    }

    /// The next thing to be done; none when the step is done. Effects follow each other in order.
    pub fn next_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// When the session wants [`Input::Tick`]; never without one. It may be asked after every step.
    pub fn deadline(&self) -> Option<Time> {
        match &self.stage {
            Stage::Negotiating { until } => Some(*until),
            Stage::Established(established) => established.deadline(),
            Stage::Ending { .. } | Stage::Over => None,
        }
    }

    /// Whether more should be read from the client. False while its next request waits for one of
    /// its others, and when the session ends.
    pub fn reads(&self) -> bool {
        match &self.stage {
            Stage::Negotiating { .. } => true,
            Stage::Established(established) => !established.waits(),
            Stage::Ending { .. } | Stage::Over => false,
        }
    }

    /// Bytes of an event that has arrived in part and waits for its rest.
    pub fn partial_bytes(&self) -> usize {
        if self.reads() { self.received.len() } else { 0 }
    }

    fn take_events(&mut self, now: Time) {
        while self.reads() && !self.received.is_empty() {
            let event = match self.decoder.decode(&mut self.received) {
                Ok(Some(frame)) => frame.parse().map_err(|error| error.to_string()),
                Ok(None) => break,
                Err(error) => Err(error.to_string()),
            };
            let event = match event {
                Ok(event) => event,
                Err(reason) => {
                    self.lost(reason);
                    break;
                }
            };
            match &mut self.stage {
                Stage::Negotiating { .. } => self.negotiate(now, &event),
                Stage::Established(established) => {
                    if let Some(leave) = established.take(now, &event, &mut self.effects) {
                        self.leave(leave);
                    }
                }
                Stage::Ending { .. } | Stage::Over => {}
            }
        }
        if let Stage::Established(established) = &mut self.stage {
            established.flush(&mut self.effects);
        }
    }

    fn negotiate(&mut self, now: Time, event: &Event) {
        match negotiation::step(event, &self.settings.broker) {
            negotiation::Step::Reply(answer) => self.effects.push_back(Effect::Send(answer)),
            negotiation::Step::Refuse(answer, reason) => {
                self.close(answer, End::NotNegotiated(reason));
            }
            negotiation::Step::Done(answer, negotiated) => {
                self.decoder.set_max_event_size(self.settings.max_event_bytes);
                let client = client_id(self.boot, self.id);
                let established =
                    Established::new(now, self.id, client, &negotiated, &self.settings);
                self.stage = Stage::Established(Box::new(established));
                let client =
                    Client { identity: negotiated.identity, encoding: negotiated.encoding };
                // A client that has its answer is found wherever sessions are listed.
                self.effects.push_back(Effect::Established(Box::new(client)));
                self.effects.push_back(Effect::Send(answer));
            }
        }
    }

    fn tick(&mut self, now: Time, output_full: bool) {
        match &mut self.stage {
            Stage::Negotiating { until } => {
                if now >= *until {
                    self.close(Bytes::new(), End::NegotiatedTooLate);
                }
            }
            Stage::Established(established) => {
                if let Some(leave) = established.tick(now, output_full, &mut self.effects) {
                    self.leave(leave);
                }
            }
            Stage::Ending { .. } | Stage::Over => {}
        }
    }

    /// The client can be served no longer.
    fn lost(&mut self, reason: String) {
        match self.stage {
            Stage::Negotiating { .. } => self.close(Bytes::new(), End::NotNegotiated(reason)),
            Stage::Established(_) => self.leave(Leave::Lost(reason)),
            Stage::Ending { .. } | Stage::Over => {}
        }
    }

    /// Ends an established session. What came before its end is still carried out.
    fn leave(&mut self, leave: Leave) {
        let Stage::Established(established) = &mut self.stage else { return };
        established.flush(&mut self.effects);
        let (lost, last, end) = match leave {
            Leave::Disconnect { request_id } => {
                (false, established.farewell(request_id), End::Disconnected)
            }
            Leave::Lost(reason) => (true, Bytes::new(), End::Lost(reason)),
            Leave::NodeStops => (false, Bytes::new(), End::NodeStops),
        };
        self.received = BytesMut::new();
        self.stage = Stage::Ending { last, end };
        self.effects.push_back(Effect::EndInPartitions { lost });
    }

    fn ended(&mut self) {
        if !matches!(self.stage, Stage::Ending { .. }) {
            return;
        }
        if let Stage::Ending { last, end } = std::mem::replace(&mut self.stage, Stage::Over) {
            self.close(last, end);
        }
    }

    fn close(&mut self, last: Bytes, end: End) {
        self.received = BytesMut::new();
        self.stage = Stage::Over;
        self.effects.push_back(Effect::Close { last, end });
    }
}
