//! Opening a queue: from the client's parameters to handles in a partition. Runs beside the
//! session's reader, so that an open that waits does not hold up messages.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use flintmq_partition::{HandleRole, Open, OpenRefusal, Request};
use flintmq_protocol::control::{
    DEFAULT_APP_ID, OpenQueue, OpenQueueResponse, QueueHandleParameters, RESERVED_QUEUE_IDS,
    RoutingConfiguration, StatusCategory,
};
use flintmq_protocol::flags::{QueueFlags, RoutingFlags};
use flintmq_protocol::uri::QueueUri;
use flintmq_queue::HandleId;

use super::context::SessionContext;
use super::handles::{OpenedQueue, SubStream};
use crate::controller::{ControllerError, DomainRecord, QueuePlace};
use crate::domain::Mode;
use crate::link::SessionLink;

/// How often, and after what pause, a new place is asked for when a queue is deleted while it is
/// opened. A deletion gives up the place within milliseconds.
const DELETED_RETRIES: usize = 100;
const DELETED_PAUSE: Duration = Duration::from_millis(10);

/// A request that passed the checks that need no other part of the broker.
#[derive(Debug)]
pub(crate) struct OpenPlan {
    pub(crate) request_id: Option<i32>,
    pub(crate) request: OpenQueue,
    pub(crate) uri: QueueUri,
    pub(crate) queue_id: u32,
    pub(crate) sub_id: u32,
    app: Option<String>,
    reads: bool,
    writes: bool,
}

/// A refusal as it goes to the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) category: StatusCategory,
    pub(crate) message: String,
}

impl Refusal {
    pub(crate) fn new(category: StatusCategory, message: impl Into<String>) -> Self {
        Self { category, message: message.into() }
    }
}

/// Why an open at one place led to nothing.
enum NotOpened {
    /// The queue there was deleted; its URI may have a new place.
    Deleted,
    Refused(Refusal),
}

/// A finished open.
pub(crate) struct Opened {
    pub(crate) plan: OpenPlan,
    pub(crate) result: Result<OpenedParts, Refusal>,
}

/// What the session records of a queue that is open now.
pub(crate) struct OpenedParts {
    pub(crate) queue: OpenedQueue,
    pub(crate) sub_stream: SubStream,
    pub(crate) response: OpenQueueResponse,
}

impl OpenPlan {
    /// Checks the parameters (protocol: control messages, section 9).
    pub(crate) fn new(request_id: Option<i32>, request: OpenQueue) -> Result<Self, Refusal> {
        let parameters = &request.handle_parameters;
        let uri = QueueUri::parse(&parameters.uri).map_err(|error| {
            Refusal::new(StatusCategory::Refused, format!("the queue's URI is not valid: {error}"))
        })?;
        let (reads, writes) = roles(parameters)?;
        let sub = parameters.sub_id_info.clone();
        let sub_id = sub.as_ref().map_or(0, |sub| sub.sub_id);
        let app = sub.map(|sub| sub.app_id).or_else(|| uri.app_id().map(str::to_owned));
        let app = app.filter(|app| app != DEFAULT_APP_ID);
        if writes && app.is_some() {
            return Err(invalid("a queue is opened for writing without an app id"));
        }
        let queue_id = parameters.q_id;
        Ok(Self { request_id, uri, queue_id, sub_id, app, reads, writes, request })
    }

    /// Opens the queue for each role that was asked for, or for none.
    pub(crate) async fn carry_out(
        self,
        context: Arc<SessionContext>,
        link: Arc<SessionLink>,
    ) -> Opened {
        let result = self.open(&context, &link).await;
        Opened { plan: self, result }
    }

    async fn open(
        &self,
        context: &SessionContext,
        link: &Arc<SessionLink>,
    ) -> Result<OpenedParts, Refusal> {
        let domain = self.uri.qualified_domain();
        self.check_app(context, domain)?;
        for _ in 0..DELETED_RETRIES {
            let placed = context.controller().place(self.uri.canonical(), domain).await;
            let (place, record) = placed.map_err(refusal_of)?;
            match self.open_at(context, link, &place, &record).await {
                Err(NotOpened::Deleted) => tokio::time::sleep(DELETED_PAUSE).await,
                Err(NotOpened::Refused(refusal)) => return Err(refusal),
                Ok(parts) => return Ok(parts),
            }
        }
        Err(Refusal::new(StatusCategory::NotReady, "the queue is being deleted: open it again"))
    }

    async fn open_at(
        &self,
        context: &SessionContext,
        link: &Arc<SessionLink>,
        place: &QueuePlace,
        record: &DomainRecord,
    ) -> Result<OpenedParts, NotOpened> {
        let mut sub_stream = SubStream {
            app: self.app.clone().unwrap_or_else(|| DEFAULT_APP_ID.to_owned()),
            ..SubStream::default()
        };
        if self.reads {
            let role = HandleRole::Reader { queue_id: self.queue_id };
            sub_stream.reader = Some(self.open_role(context, link, place, record, role).await?);
        }
        if self.writes {
            let role = HandleRole::Writer { queue_id: self.queue_id };
            match self.open_role(context, link, place, record, role).await {
                Ok(handle) => sub_stream.writer = Some(handle),
                Err(not_opened) => {
                    if let Some(reader) = sub_stream.reader {
                        context.close_quietly(link, place.partition, reader).await;
                    }
                    return Err(not_opened);
                }
            }
        }
        self.catch_up_with_domain(context, place, record).await;
        let deduplication = record.definition.deduplication_time_ms;
        Ok(OpenedParts {
            queue: OpenedQueue {
                uri: self.uri.canonical().to_owned(),
                queue: place.id(),
                partition: place.partition,
                sub_streams: BTreeMap::new(),
            },
            sub_stream,
            response: OpenQueueResponse {
                original_request: self.request.clone(),
                routing_configuration: RoutingConfiguration {
                    flags: routing(&record.definition.mode),
                },
                deduplication_time_ms: i32::try_from(deduplication).unwrap_or(i32::MAX),
            },
        })
    }

    /// The domain may have been changed while the queue was being created from its old definition.
    async fn catch_up_with_domain(
        &self,
        context: &SessionContext,
        place: &QueuePlace,
        used: &DomainRecord,
    ) {
        if let Some((_, now)) = context.controller().lookup(self.uri.canonical())
            && now != *used
        {
            let settings = Box::new(now.queue_settings());
            let update = Request::UpdateQueue { queue: place.id(), settings };
            context.send(place.partition, update).await;
        }
    }

    /// Only fan-out queues have apps, and their readers must name one.
    fn check_app(&self, context: &SessionContext, domain: &str) -> Result<(), Refusal> {
        let metadata = context.controller().metadata();
        let fanout = metadata
            .domain(domain)
            .is_some_and(|record| matches!(record.definition.mode, Mode::Fanout { .. }));
        match (fanout, &self.app) {
            (false, Some(app)) => Err(Refusal::new(
                StatusCategory::Refused,
                format!("only queues of fanout domains have apps: open it without ?id=, app={app}"),
            )),
            (true, None) if self.reads => Err(Refusal::new(
                StatusCategory::Refused,
                "a reader of a fanout queue must name its app: open it with ?id=APP",
            )),
            _ => Ok(()),
        }
    }

    async fn open_role(
        &self,
        context: &SessionContext,
        link: &Arc<SessionLink>,
        place: &QueuePlace,
        record: &DomainRecord,
        role: HandleRole,
    ) -> Result<HandleId, NotOpened> {
        let handle = context.next_handle();
        let Some(partition) = context.partition(place.partition) else {
            let message = "the queue's partition is not on this node: connect to another node";
            return Err(NotOpened::Refused(Refusal::new(StatusCategory::NotReady, message)));
        };
        let opened = partition.open(|ticket| Open {
            ticket,
            session: link.id,
            old_properties: !link.reads_extended_properties,
            handle,
            queue: place.id(),
            uri: self.uri.canonical().to_owned(),
            settings: record.queue_settings(),
            role,
        });
        let refusal = match opened.await {
            Ok(Ok(())) => return Ok(handle),
            Ok(Err(OpenRefusal::Deleted)) => return Err(NotOpened::Deleted),
            Ok(Err(OpenRefusal::Refused(message))) => {
                Refusal::new(StatusCategory::Unknown, message)
            }
            Ok(Err(OpenRefusal::NotReady(message))) => {
                Refusal::new(StatusCategory::NotReady, message)
            }
            Err(_) => Refusal::new(StatusCategory::NotReady, "the node is stopping"),
        };
        Err(NotOpened::Refused(refusal))
    }
}

fn roles(parameters: &QueueHandleParameters) -> Result<(bool, bool), Refusal> {
    let flags = parameters.flags;
    let (reads, writes) = (flags.contains(QueueFlags::READ), flags.contains(QueueFlags::WRITE));
    let agrees = |flag: bool, count: i32| count == i32::from(flag);
    if !agrees(reads, parameters.read_count) || !agrees(writes, parameters.write_count) {
        return Err(invalid("the flags and the counts of readers and writers do not agree"));
    }
    if parameters.admin_count != 0 || flags.contains(QueueFlags::ADMIN) {
        return Err(invalid("queues are not opened for administration: use the admin address"));
    }
    if !reads && !writes {
        return Err(invalid("a queue is opened for reading, for writing or for both"));
    }
    if parameters.q_id >= RESERVED_QUEUE_IDS {
        return Err(invalid("the queue id is reserved"));
    }
    Ok((reads, writes))
}

fn invalid(message: &str) -> Refusal {
    Refusal::new(StatusCategory::InvalidArgument, message)
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

fn refusal_of(error: ControllerError) -> Refusal {
    let category = match error {
        ControllerError::Refused(flintmq_controller::Refusal::UnknownDomain { .. }) => {
            StatusCategory::Unknown
        }
        ControllerError::NotReady(_) | ControllerError::Stopping => StatusCategory::NotReady,
        _ => StatusCategory::Refused,
    };
    Refusal::new(category, error.to_string())
}

#[cfg(test)]
mod tests {
    use flintmq_protocol::control::SubQueueIdInfo;

    use super::*;

    fn plan(change: impl FnOnce(&mut QueueHandleParameters)) -> Result<OpenPlan, Refusal> {
        let mut handle_parameters = QueueHandleParameters {
            uri: "bmq://shop/orders".into(),
            flags: QueueFlags::READ,
            read_count: 1,
            ..QueueHandleParameters::default()
        };
        change(&mut handle_parameters);
        OpenPlan::new(Some(1), OpenQueue { handle_parameters })
    }

    #[test]
    fn a_reader_and_a_writer_pass() {
        assert!(plan(|_| ()).is_ok());
        let both = plan(|p| {
            p.flags = QueueFlags::READ | QueueFlags::WRITE;
            p.write_count = 1;
        });
        assert!(both.is_ok_and(|plan| plan.reads && plan.writes));
    }

    #[test]
    fn the_query_of_the_uri_names_the_app_where_nothing_else_does() {
        let plan = plan(|p| p.uri = "bmq://shop/orders?id=billing".into()).unwrap();
        assert_eq!(plan.app.as_deref(), Some("billing"));
        assert_eq!(plan.uri.canonical(), "bmq://shop/orders");
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        let category = |change: fn(&mut QueueHandleParameters)| plan(change).unwrap_err().category;
        assert_eq!(category(|p| p.uri = "http://shop/orders".into()), StatusCategory::Refused);
        for change in [
            (|p: &mut QueueHandleParameters| p.read_count = 0) as fn(&mut _),
            |p| p.write_count = 1,
            |p| p.admin_count = 1,
            |p| p.q_id = u32::MAX,
            |p| {
                p.flags = QueueFlags::NONE;
                p.read_count = 0;
            },
            |p| {
                p.flags = QueueFlags::WRITE;
                (p.read_count, p.write_count) = (0, 1);
                p.sub_id_info = Some(SubQueueIdInfo { sub_id: 1, app_id: "billing".into() });
            },
        ] {
            assert_eq!(category(change), StatusCategory::InvalidArgument);
        }
    }
}
