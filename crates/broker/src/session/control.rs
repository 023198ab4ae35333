//! Requests of a client that has negotiated: open, configure, close, disconnect.

use std::sync::Arc;

use flintmq_partition::{Close, Configure, Request};
use flintmq_protocol::control::{
    CloseQueue, ConfigureQueueStream, ConfigureQueueStreamResponse, ConfigureStream,
    ConfigureStreamResponse, ControlChoice, ControlError, ControlMessage, NO_PRIORITY,
    StatusCategory,
};
use flintmq_protocol::event::Event;
use flintmq_queue::{Filter, HandleId, Subscription};

use super::connection::Session;
use super::opening::{OpenPlan, Opened, Refusal};

/// Opens that one session may have under way; one more waits for its turn.
const MAX_OPENS_UNDER_WAY: usize = 256;

/// What a request means for the connection.
pub(crate) enum Next {
    /// Go on reading.
    Continue,
    /// The client sent what cannot be read, or negotiated twice: close for this reason.
    Close {
        /// The reason.
        reason: String,
    },
    /// The client takes its leave.
    Disconnect {
        /// The number of the request, to be answered last.
        request_id: Option<i32>,
    },
}

impl Session {
    /// Carries out one CONTROL event.
    pub(crate) async fn on_control(&mut self, event: &Event) -> Next {
        let message = match ControlMessage::from_event(event) {
            Ok(message) => message,
            Err(ControlError::Unsupported { r_id: Some(id), .. }) => {
                self.link.refuse(
                    Some(id),
                    StatusCategory::NotSupported,
                    "this request is not supported",
                );
                return Next::Continue;
            }
            // A request that cannot be answered would leave the client waiting; a new connection
            // does not.
            Err(error) => return Next::Close { reason: error.to_string() },
        };
        let request_id = message.r_id;
        let refused = match message.choice {
            ControlChoice::OpenQueue(request) => self.begin_open(request_id, request).await,
            ControlChoice::ConfigureStream(request) => self.configure(request_id, request).await,
            ControlChoice::ConfigureQueueStream(request) => {
                self.configure_old(request_id, request).await
            }
            ControlChoice::CloseQueue(request) => self.close(request_id, request).await,
            ControlChoice::Disconnect => return Next::Disconnect { request_id },
            ControlChoice::AdminCommand(_) => Err(Refusal::new(
                StatusCategory::NotSupported,
                "admin commands are not served here: use the admin address",
            )),
            _ => Err(Refusal::new(StatusCategory::NotSupported, "this is a broker's message")),
        };
        if let Err(refusal) = refused {
            self.link.refuse(request_id, refusal.category, &refusal.message);
        }
        Next::Continue
    }

    /// Records a finished open and answers it.
    pub(crate) fn finish_open(&mut self, opened: Opened) {
        let Opened { plan, result } = opened;
        self.handles.end_open(plan.queue_id);
        match result {
            Ok(parts) => {
                self.handles.add(plan.queue_id, parts.queue, plan.sub_id, parts.sub_stream);
                self.listed.set_handles(self.handles.count());
                self.link
                    .respond(plan.request_id, ControlChoice::OpenQueueResponse(parts.response));
            }
            Err(refusal) => {
                tracing::info!(
                    session = self.link.id.0,
                    uri = plan.uri.as_str(),
                    reason = refusal.message,
                    "open refused"
                );
                self.link.refuse(plan.request_id, refusal.category, &refusal.message);
            }
        }
    }

    async fn begin_open(
        &mut self,
        request_id: Option<i32>,
        request: flintmq_protocol::control::OpenQueue,
    ) -> Result<(), Refusal> {
        let plan = OpenPlan::new(request_id, request)?;
        let uri = plan.uri.canonical();
        if self.handles.belongs_to_other(plan.queue_id, uri) {
            return Err(Refusal::new(
                StatusCategory::InvalidArgument,
                "the queue id stands for another queue of this session",
            ));
        }
        while self.handles.opens_under_way() >= MAX_OPENS_UNDER_WAY {
            let Some(Ok(opened)) = self.opening.join_next().await else { break };
            self.finish_open(opened);
        }
        self.handles.begin_open(plan.queue_id, uri);
        let (context, link) = (Arc::clone(&self.context), Arc::clone(&self.link));
        self.opening.spawn(plan.carry_out(context, link));
        Ok(())
    }

    async fn configure(
        &mut self,
        request_id: Option<i32>,
        request: ConfigureStream,
    ) -> Result<(), Refusal> {
        let parameters = &request.stream_parameters;
        let found = self.handles.reader_of_app(request.q_id, &parameters.app_id);
        let (partition, handle) = found.ok_or_else(no_such_queue)?;
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
        self.send_configure(partition, handle, subscriptions, request_id, response).await;
        Ok(())
    }

    /// The form of clients that know one subscription per reader and no expressions.
    async fn configure_old(
        &mut self,
        request_id: Option<i32>,
        request: ConfigureQueueStream,
    ) -> Result<(), Refusal> {
        let parameters = &request.stream_parameters;
        let sub_id = parameters.sub_id_info.as_ref().map_or(0, |sub| sub.sub_id);
        let found = self.handles.reader(request.q_id, sub_id);
        let (partition, handle) = found.ok_or_else(no_such_queue)?;
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
        self.send_configure(partition, handle, subscriptions, request_id, response).await;
        Ok(())
    }

    async fn send_configure(
        &mut self,
        partition: u32,
        handle: HandleId,
        subscriptions: Vec<Subscription>,
        request_id: Option<i32>,
        response: ControlChoice,
    ) {
        let configure = Configure {
            session: self.link.id,
            handle,
            subscriptions,
            response: self.link.encode(request_id, response),
            request_id,
        };
        self.flush().await;
        self.context.send(partition, Request::Configure(Box::new(configure))).await;
    }

    async fn close(&mut self, request_id: Option<i32>, request: CloseQueue) -> Result<(), Refusal> {
        let parameters = &request.handle_parameters;
        let sub_id = parameters.sub_id_info.as_ref().map_or(0, |sub| sub.sub_id);
        // What was published before the close is valid: it goes ahead of it.
        self.flush().await;
        let closed = self.handles.close(
            parameters.q_id,
            sub_id,
            parameters.read_count > 0,
            parameters.write_count > 0,
        );
        let (partition, handles) = closed.ok_or_else(no_such_queue)?;
        self.listed.set_handles(self.handles.count());
        let close = Close {
            session: self.link.id,
            handles,
            response: self.link.encode(request_id, ControlChoice::CloseQueueResponse),
        };
        self.context.send(partition, Request::Close(Box::new(close))).await;
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
