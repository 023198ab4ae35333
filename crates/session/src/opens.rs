//! Opens under way: from the client's parameters to handles in a partition. They go on beside
//! everything else, so that an open that waits does not hold up messages.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use flintmq_consensus::Time;
use flintmq_controller::domain::Mode;
use flintmq_partition::{Close, HandleRole, OpenRefusal, Request, SessionId};
use flintmq_protocol::control::{
    DEFAULT_APP_ID, OpenQueueResponse, RoutingConfiguration, StatusCategory,
};
use flintmq_protocol::flags::RoutingFlags;
use flintmq_queue::HandleId;

use crate::effect::{Effect, OpenInPartition, PlaceQueue};
use crate::handles::{OpenedQueue, SubStream};
use crate::input::{OpenId, Placed};
use crate::open_plan::OpenPlan;
use crate::refusal::Refusal;

/// How often, and after what pause, a new place is asked for when a queue is deleted while it is
/// opened. A deletion gives up the place within milliseconds.
pub(crate) const DELETED_RETRIES: u32 = 100;
pub(crate) const DELETED_PAUSE: Duration = Duration::from_millis(10);

/// The opens of one session. The session bounds how many there are.
#[derive(Debug)]
pub(crate) struct Opens {
    session: SessionId,
    old_properties: bool,
    last: u64,
    under_way: BTreeMap<OpenId, Opening>,
    /// Which ask for a place again, and when: the earliest first, because all pause equally long.
    retries: VecDeque<(Time, OpenId)>,
}

/// One open.
#[derive(Debug)]
struct Opening {
    plan: OpenPlan,
    /// Where the queue is being opened.
    placed: Option<Box<Placed>>,
    /// What is open already.
    sub_stream: SubStream,
    tries: u32,
}

/// An open that has come to its end.
#[derive(Debug)]
pub(crate) struct FinishedOpen {
    pub(crate) plan: OpenPlan,
    pub(crate) result: Result<OpenedParts, Refusal>,
}

/// What the session records of a queue that is open now.
#[derive(Debug)]
pub(crate) struct OpenedParts {
    pub(crate) queue: OpenedQueue,
    pub(crate) sub_stream: SubStream,
    pub(crate) response: OpenQueueResponse,
}

impl Opens {
    pub(crate) fn new(session: SessionId, old_properties: bool) -> Self {
        let (under_way, retries) = (BTreeMap::new(), VecDeque::new());
        Self { session, old_properties, last: 0, under_way, retries }
    }

    /// Begins one.
    pub(crate) fn begin(&mut self, plan: OpenPlan, effects: &mut VecDeque<Effect>) {
        self.last += 1;
        let open = OpenId(self.last);
        effects.push_back(place(open, &plan));
        let sub_stream = SubStream::default();
        self.under_way.insert(open, Opening { plan, placed: None, sub_stream, tries: 1 });
    }

    /// When the next one asks for its place again.
    pub(crate) fn next_retry(&self) -> Option<Time> {
        self.retries.front().map(|(at, _)| *at)
    }

    /// Asks for the places that are due.
    pub(crate) fn retry(&mut self, now: Time, effects: &mut VecDeque<Effect>) {
        while let Some((at, open)) = self.retries.front().copied() {
            if at > now {
                return;
            }
            self.retries.pop_front();
            if let Some(opening) = self.under_way.get(&open) {
                effects.push_back(place(open, &opening.plan));
            }
        }
    }

    /// The place of a queue is known, or why it has none.
    pub(crate) fn placed(
        &mut self,
        open: OpenId,
        result: Result<Box<Placed>, Refusal>,
        effects: &mut VecDeque<Effect>,
    ) -> Option<FinishedOpen> {
        let opening = self.under_way.get_mut(&open)?;
        match result {
            Ok(placed) => opening.placed = Some(placed),
            Err(refusal) => return self.finish(open, Err(refusal)),
        }
        let app = opening.plan.app.clone().unwrap_or_else(|| DEFAULT_APP_ID.to_owned());
        opening.sub_stream = SubStream { app, ..SubStream::default() };
        self.go_on(open, effects)
    }

    /// The queue is open for one role, or why it is not.
    pub(crate) fn opened(
        &mut self,
        now: Time,
        open: OpenId,
        result: Result<HandleId, OpenRefusal>,
        effects: &mut VecDeque<Effect>,
    ) -> Option<FinishedOpen> {
        let opening = self.under_way.get_mut(&open)?;
        let refusal = match result {
            Ok(handle) => {
                let stream = &mut opening.sub_stream;
                let is_reader = opening.plan.reads && stream.reader.is_none();
                let role = if is_reader { &mut stream.reader } else { &mut stream.writer };
                *role = Some(handle);
                return self.go_on(open, effects);
            }
            Err(refusal) => refusal,
        };
        // The client never heard of what was opened before.
        if let (Some(reader), Some(placed)) = (opening.sub_stream.reader.take(), &opening.placed) {
            let close =
                Close { session: self.session, handles: vec![reader], response: Bytes::new() };
            let (partition, request) = (placed.place.partition, Request::Close(Box::new(close)));
            effects.push_back(Effect::ToPartition { partition, request, unanswered: 0 });
        }
        match refusal {
            OpenRefusal::Deleted if opening.tries < DELETED_RETRIES => {
                opening.tries += 1;
                self.retries.push_back((now + DELETED_PAUSE, open));
                None
            }
            OpenRefusal::Deleted => {
                let message = "the queue is being deleted: open it again";
                self.finish(open, Err(Refusal::new(StatusCategory::NotReady, message)))
            }
            OpenRefusal::Refused(message) => {
                self.finish(open, Err(Refusal::new(StatusCategory::Unknown, message)))
            }
            OpenRefusal::NotReady(message) => {
                self.finish(open, Err(Refusal::new(StatusCategory::NotReady, message)))
            }
        }
    }

    /// Opens the queue for the next role that was asked for, or for none: then it is open.
    fn go_on(&mut self, open: OpenId, effects: &mut VecDeque<Effect>) -> Option<FinishedOpen> {
        let opening = self.under_way.get_mut(&open)?;
        let placed = opening.placed.as_deref()?;
        let (plan, stream) = (&opening.plan, &opening.sub_stream);
        let queue_id = plan.queue_id;
        let role = if plan.reads && stream.reader.is_none() {
            HandleRole::Reader { queue_id }
        } else if plan.writes && stream.writer.is_none() {
            HandleRole::Writer { queue_id }
        } else {
            let parts = opened_parts(opening)?;
            return self.finish(open, Ok(parts));
        };
        effects.push_back(Effect::Open(Box::new(OpenInPartition {
            open,
            partition: placed.place.partition,
            session: self.session,
            old_properties: self.old_properties,
            queue: placed.place.id(),
            uri: plan.uri.canonical().to_owned(),
            domain: Arc::new(placed.domain.for_partitions()),
            role,
        })));
        None
    }

    fn finish(
        &mut self,
        open: OpenId,
        result: Result<OpenedParts, Refusal>,
    ) -> Option<FinishedOpen> {
        let plan = self.under_way.remove(&open)?.plan;
        Some(FinishedOpen { plan, result })
    }
}

fn place(open: OpenId, plan: &OpenPlan) -> Effect {
    Effect::Place(Box::new(PlaceQueue {
        open,
        uri: plan.uri.canonical().to_owned(),
        domain: plan.uri.qualified_domain().to_owned(),
        app: plan.app.clone(),
        reads: plan.reads,
    }))
}

fn opened_parts(opening: &mut Opening) -> Option<OpenedParts> {
    let Placed { place, domain } = &**opening.placed.as_ref()?;
    let definition = &domain.definition;
    Some(OpenedParts {
        queue: OpenedQueue {
            uri: opening.plan.uri.canonical().to_owned(),
            queue: place.id(),
            partition: place.partition,
            sub_streams: BTreeMap::new(),
        },
        sub_stream: std::mem::take(&mut opening.sub_stream),
        response: OpenQueueResponse {
            original_request: opening.plan.request.clone(),
            routing_configuration: RoutingConfiguration { flags: routing(&definition.mode) },
            deduplication_time_ms: i32::try_from(definition.deduplication_time_ms)
                .unwrap_or(i32::MAX),
        },
    })
}

fn routing(mode: &Mode) -> RoutingFlags {
    match mode {
        Mode::Priority => RoutingFlags::DELIVER_CONSUMER_PRIORITY,
        Mode::Fanout { .. } => {
            RoutingFlags::DELIVER_CONSUMER_PRIORITY | RoutingFlags::HAS_MULTIPLE_SUB_STREAMS
        }
        Mode::Broadcast => {
            RoutingFlags::AT_MOST_ONCE
                | RoutingFlags::DELIVER_CONSUMER_PRIORITY
                | RoutingFlags::DELIVER_ALL
        }
    }
}
