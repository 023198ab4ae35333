//! Requests of a client that has negotiated: open, configure, close, disconnect.

use std::collections::VecDeque;

use flintmq_partition::{Close, Configure, Request};
use flintmq_protocol::control::{
    CloseQueue, ConfigureQueueStream, ConfigureQueueStreamResponse, ConfigureStream,
    ConfigureStreamResponse, ControlChoice, ControlError, ControlMessage, NO_PRIORITY, OpenQueue,
    StatusCategory,
};
use flintmq_protocol::event::Event;
use flintmq_queue::{Filter, HandleId, Subscription};

use crate::effect::Effect;
use crate::established::{Established, Leave};
use crate::open_plan::OpenPlan;
use crate::opens::FinishedOpen;
use crate::refusal::{Refusal, encode};

/// Opens that one session may have under way; one more waits for its turn.
pub(crate) const MAX_OPENS_UNDER_WAY: usize = 256;

impl Established {
    /// Carries out one CONTROL event.
    pub(crate) fn on_control(
        &mut self,
        event: &Event,
        effects: &mut VecDeque<Effect>,
    ) -> Option<Leave> {
        let message = match ControlMessage::from_event(event) {
            Ok(message) => message,
            Err(ControlError::Unsupported { r_id: Some(id), .. }) => {
                let message = "this request is not supported";
                let refusal = Refusal::new(StatusCategory::NotSupported, message);
                self.refuse(Some(id), refusal, effects);
                return None;
            }
            // A request that cannot be answered would leave the client waiting; a new connection
            // does not.
            Err(error) => return Some(Leave::Lost(error.to_string())),
        };
        let request_id = message.r_id;
        let refused = match message.choice {
            ControlChoice::OpenQueue(request) => self.take_open(request_id, request, effects),
            ControlChoice::ConfigureStream(request) => self.configure(request_id, request, effects),
            ControlChoice::ConfigureQueueStream(request) => {
                self.configure_old(request_id, request, effects)
            }
            ControlChoice::CloseQueue(request) => self.close(request_id, &request, effects),
            ControlChoice::Disconnect => return Some(Leave::Disconnect { request_id }),
            ControlChoice::AdminCommand(_) => Err(Refusal::new(
                StatusCategory::NotSupported,
                "admin commands are not served here: use the admin address",
            )),
            _ => Err(Refusal::new(StatusCategory::NotSupported, "this is a broker's message")),
        };
        if let Err(refusal) = refused {
            self.refuse(request_id, refusal, effects);
        }
        None
    }

    /// Records a finished open and answers it.
    pub(crate) fn finish_open(&mut self, open: FinishedOpen, effects: &mut VecDeque<Effect>) {
        let FinishedOpen { plan, result } = open;
        self.handles.end_open(plan.queue_id);
        match result {
            Ok(parts) => {
                self.handles.add(plan.queue_id, parts.queue, plan.sub_id, parts.sub_stream);
                effects.push_back(Effect::HandlesChanged(self.handles.count()));
                let response = ControlChoice::OpenQueueResponse(parts.response);
                let response = encode(self.encoding, plan.request_id, response);
                effects.push_back(Effect::Send(response));
            }
            Err(refusal) => {
                tracing::info!(
                    session = self.id.0,
                    uri = plan.uri.as_str(),
                    reason = refusal.message,
                    "open refused"
                );
                self.refuse(plan.request_id, refusal, effects);
            }
        }
        if let Some(plan) = self.waiting.take() {
            self.begin_open(plan, effects);
        }
    }

    fn refuse(&self, request_id: Option<i32>, refusal: Refusal, effects: &mut VecDeque<Effect>) {
        effects.push_back(Effect::Send(refusal.encode(self.encoding, request_id)));
    }

    fn take_open(
        &mut self,
        request_id: Option<i32>,
        request: OpenQueue,
        effects: &mut VecDeque<Effect>,
    ) -> Result<(), Refusal> {
        let plan = OpenPlan::new(request_id, request)?;
        if self.handles.belongs_to_other(plan.queue_id, plan.uri.canonical()) {
            return Err(Refusal::new(
                StatusCategory::InvalidArgument,
                "the queue id stands for another queue of this session",
            ));
        }
        if self.handles.opens_under_way() >= MAX_OPENS_UNDER_WAY {
            self.waiting = Some(plan);
        } else {
            self.begin_open(plan, effects);
        }
        Ok(())
    }

    fn begin_open(&mut self, plan: OpenPlan, effects: &mut VecDeque<Effect>) {
        self.handles.begin_open(plan.queue_id, plan.uri.canonical());
        self.opens.begin(plan, effects);
    }

    fn configure(
        &mut self,
        request_id: Option<i32>,
        request: ConfigureStream,
        effects: &mut VecDeque<Effect>,
    ) -> Result<(), Refusal> {
        let parameters = &request.stream_parameters;
        let found = self.handles.reader_of_app(request.q_id, &parameters.app_id);
        let reader = found.ok_or_else(no_such_queue)?;
        let mut subscriptions = Vec::new();
        for subscription in &parameters.subscriptions {
            if !subscription.expression.text.is_empty() {
                return Err(Refusal::new(
                    StatusCategory::NotSupported,
                    "subscription expressions are not served yet: subscribe without one",
                ));
            }
            subscriptions.extend(subscription.consumers.iter().map(|consumer| Subscription {
                id: subscription.s_id,
                priority: consumer.consumer_priority,
                count: count(consumer.consumer_priority_count),
                max_messages: limit(consumer.max_unconfirmed_messages),
                max_bytes: limit(consumer.max_unconfirmed_bytes),
                filter: Filter::All,
            }));
        }
        let response = ConfigureStreamResponse { request };
        let response = ControlChoice::ConfigureStreamResponse(response);
        self.send_configure(reader, subscriptions, (request_id, response), effects);
        Ok(())
    }

    /// The form of clients that know one subscription per reader and no expressions.
    fn configure_old(
        &mut self,
        request_id: Option<i32>,
        request: ConfigureQueueStream,
        effects: &mut VecDeque<Effect>,
    ) -> Result<(), Refusal> {
        let parameters = &request.stream_parameters;
        let sub_id = parameters.sub_id_info.as_ref().map_or(0, |sub| sub.sub_id);
        let found = self.handles.reader(request.q_id, sub_id);
        let reader = found.ok_or_else(no_such_queue)?;
        let none =
            parameters.consumer_priority == NO_PRIORITY || parameters.consumer_priority_count == 0;
        let subscription = Subscription {
            id: sub_id,
            priority: parameters.consumer_priority,
            count: count(parameters.consumer_priority_count),
            max_messages: limit(parameters.max_unconfirmed_messages),
            max_bytes: limit(parameters.max_unconfirmed_bytes),
            filter: Filter::All,
        };
        let subscriptions = if none { Vec::new() } else { vec![subscription] };
        let response = ConfigureQueueStreamResponse { request };
        let response = ControlChoice::ConfigureQueueStreamResponse(response);
        self.send_configure(reader, subscriptions, (request_id, response), effects);
        Ok(())
    }

    /// What was published and confirmed before goes ahead of it.
    fn send_configure(
        &mut self,
        (partition, handle): (u32, HandleId),
        subscriptions: Vec<Subscription>,
        (request_id, response): (Option<i32>, ControlChoice),
        effects: &mut VecDeque<Effect>,
    ) {
        let configure = Configure {
            session: self.id,
            handle,
            subscriptions,
            response: encode(self.encoding, request_id, response),
            request_id,
        };
        self.flush(effects);
        let request = Request::Configure(Box::new(configure));
        effects.push_back(Effect::ToPartition { partition, request, unanswered: 0 });
    }

    fn close(
        &mut self,
        request_id: Option<i32>,
        request: &CloseQueue,
        effects: &mut VecDeque<Effect>,
    ) -> Result<(), Refusal> {
        let parameters = &request.handle_parameters;
        let sub_id = parameters.sub_id_info.as_ref().map_or(0, |sub| sub.sub_id);
        // What was published before the close is valid: it goes ahead of it.
        self.flush(effects);
        let closed = self.handles.close(
            parameters.q_id,
            sub_id,
            parameters.read_count > 0,
            parameters.write_count > 0,
        );
        let (partition, handles) = closed.ok_or_else(no_such_queue)?;
        effects.push_back(Effect::HandlesChanged(self.handles.count()));
        let response = encode(self.encoding, request_id, ControlChoice::CloseQueueResponse);
        let request = Request::Close(Box::new(Close { session: self.id, handles, response }));
        effects.push_back(Effect::ToPartition { partition, request, unanswered: 0 });
        Ok(())
    }
}

fn no_such_queue() -> Refusal {
    Refusal::new(StatusCategory::Unknown, "no queue with that id is open in this session")
}

fn limit(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

fn count(value: i32) -> u32 {
    u32::try_from(value).unwrap_or(0)
}
