//! A request to open a queue: the checks that need nothing but the request.

use flintmq_protocol::control::{
    DEFAULT_APP_ID, OpenQueue, QueueHandleParameters, RESERVED_QUEUE_IDS, StatusCategory,
};
use flintmq_protocol::flags::QueueFlags;
use flintmq_protocol::uri::QueueUri;

use crate::refusal::Refusal;

/// A request that passed the checks that need no other part of the broker.
#[derive(Debug)]
pub(crate) struct OpenPlan {
    pub(crate) request_id: Option<i32>,
    pub(crate) request: OpenQueue,
    pub(crate) uri: QueueUri,
    pub(crate) queue_id: u32,
    pub(crate) sub_id: u32,
    pub(crate) app: Option<String>,
    pub(crate) reads: bool,
    pub(crate) writes: bool,
}

impl OpenPlan {
    /// Checks the parameters (docs/protocol/control.md#requests).
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
