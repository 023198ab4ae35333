//! The control requests of a session, built from what the application asked for.

use bytes::{Bytes, BytesMut};
use flintmq_protocol::control::{
    CloseQueue, ConfigureQueueStream, ConfigureStream, ConsumerInfo, ControlChoice, ControlMessage,
    DEFAULT_APP_ID, Encoding, Expression, ExpressionVersion, NO_PRIORITY, OpenQueue,
    QueueHandleParameters, QueueStreamParameters, StreamParameters, SubQueueIdInfo,
    Subscription as WireSubscription,
};
use flintmq_protocol::flags::QueueFlags;

use crate::options::{ConsumerOptions, Subscription};
use crate::session::queues::HandleIds;

/// A request as a whole event, in BER: every broker reads it.
pub(crate) fn encode(message: &ControlMessage) -> Bytes {
    let mut event = BytesMut::new();
    if let Err(error) = message.append_event(Encoding::Ber, &mut event) {
        // Texts are bounded by `check`, so that no request comes near the size of an event. The
        // caller's deadline ends its wait.
        tracing::error!(%error, "a request could not be written");
    }
    event.freeze()
}

/// Whether the broker can be asked for this. Gives what is wrong.
pub(crate) fn check(options: &ConsumerOptions) -> Result<(), String> {
    let subscriptions = options.effective_subscriptions();
    if subscriptions.len() > MAX_SUBSCRIPTIONS {
        return Err(format!(
            "at most {MAX_SUBSCRIPTIONS} subscriptions count={}",
            subscriptions.len()
        ));
    }
    for subscription in subscriptions {
        if subscription.priority == NO_PRIORITY {
            return Err("i32::MIN is no priority: it means \"no consumer\"".to_owned());
        }
        let length = subscription.expression.len();
        if length > MAX_EXPRESSION_BYTES {
            return Err(format!(
                "an expression has at most {MAX_EXPRESSION_BYTES} bytes bytes={length}"
            ));
        }
    }
    Ok(())
}

/// Opens or closes a queue for publishing.
pub(crate) fn producer_handle(uri: &str, queue_id: u32) -> QueueHandleParameters {
    QueueHandleParameters {
        uri: uri.to_owned(),
        q_id: queue_id,
        sub_id_info: None,
        flags: QueueFlags::WRITE,
        read_count: 0,
        write_count: 1,
        admin_count: 0,
    }
}

/// Opens or closes a queue for consuming. `uri` has the `?id=` of its app, if there is one.
pub(crate) fn consumer_handle(
    uri: &str,
    ids: HandleIds,
    app_id: Option<&str>,
) -> QueueHandleParameters {
    QueueHandleParameters {
        uri: uri.to_owned(),
        q_id: ids.queue_id,
        sub_id_info: sub_id_info(ids, app_id),
        flags: QueueFlags::READ,
        read_count: 1,
        write_count: 0,
        admin_count: 0,
    }
}

pub(crate) fn open_queue(handle_parameters: QueueHandleParameters) -> ControlChoice {
    ControlChoice::OpenQueue(OpenQueue { handle_parameters })
}

pub(crate) fn close_queue(
    handle_parameters: QueueHandleParameters,
    is_final: bool,
) -> ControlChoice {
    ControlChoice::CloseQueue(CloseQueue { handle_parameters, is_final })
}

/// Asks for delivery under the given ids, one per subscription; without any, ends delivery.
pub(crate) fn configure_stream(
    ids: HandleIds,
    app_id: Option<&str>,
    subscriptions: &[Subscription],
    subscription_ids: &[u32],
) -> ControlChoice {
    let subscriptions = subscriptions
        .iter()
        .zip(subscription_ids)
        .map(|(subscription, id)| WireSubscription {
            s_id: *id,
            expression: Expression {
                version: if subscription.expression.is_empty() {
                    ExpressionVersion::Undefined
                } else {
                    ExpressionVersion::Version1
                },
                text: subscription.expression.clone(),
            },
            consumers: vec![ConsumerInfo {
                max_unconfirmed_messages: i64::from(subscription.max_unconfirmed_messages),
                max_unconfirmed_bytes: saturating_i64(subscription.max_unconfirmed_bytes),
                consumer_priority: subscription.priority,
                consumer_priority_count: 1,
            }],
        })
        .collect();
    ControlChoice::ConfigureStream(ConfigureStream {
        q_id: ids.queue_id,
        stream_parameters: StreamParameters {
            app_id: app_id.unwrap_or(DEFAULT_APP_ID).to_owned(),
            subscriptions,
        },
    })
}

/// The same for brokers without the subscriptions feature; `None` ends delivery.
pub(crate) fn configure_queue_stream(
    ids: HandleIds,
    app_id: Option<&str>,
    subscription: Option<&Subscription>,
) -> ControlChoice {
    let stream_parameters = match subscription {
        Some(subscription) => QueueStreamParameters {
            sub_id_info: sub_id_info(ids, app_id),
            max_unconfirmed_messages: i64::from(subscription.max_unconfirmed_messages),
            max_unconfirmed_bytes: saturating_i64(subscription.max_unconfirmed_bytes),
            consumer_priority: subscription.priority,
            consumer_priority_count: 1,
        },
        None => QueueStreamParameters {
            sub_id_info: sub_id_info(ids, app_id),
            ..QueueStreamParameters::default()
        },
    };
    ControlChoice::ConfigureQueueStream(ConfigureQueueStream {
        q_id: ids.queue_id,
        stream_parameters,
    })
}

const MAX_SUBSCRIPTIONS: usize = 1024;
/// Brokers take 128 characters; the bound here only keeps a request far below the size of an event.
const MAX_EXPRESSION_BYTES: usize = 4096;

fn sub_id_info(ids: HandleIds, app_id: Option<&str>) -> Option<SubQueueIdInfo> {
    app_id.map(|app_id| SubQueueIdInfo { sub_id: ids.sub_queue_id, app_id: app_id.to_owned() })
}

fn saturating_i64(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
