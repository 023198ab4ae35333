//! The schema of requests and their answers. Field order is the order of the element ids.

use serde::{Deserialize, Serialize};

use super::ber::{enumeration, sequence};
use super::negotiation::Status;
use crate::flags::{QueueFlags, RoutingFlags};

/// The app id of a consumer that named none, and of every consumer of a priority or broadcast
/// queue.
pub const DEFAULT_APP_ID: &str = "__default";

/// The consumer priority that stands for "no consumer" in the older configuration.
pub const NO_PRIORITY: i32 = i32::MIN;

/// Queue ids from here on are reserved; refuse them with `E_INVALID_ARGUMENT`.
pub const RESERVED_QUEUE_IDS: u32 = u32::MAX - 9;

/// The most subscriptions, or consumers of one subscription, that a reader accepts in one message.
pub const MAX_LIST_ELEMENTS: usize = 1 << 16;

/// A request or the answer to one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlMessage {
    /// Ties the answer to the request: chosen by the client, counting up from 1, repeated by the
    /// broker. Not negative.
    pub r_id: Option<i32>,
    /// What is asked or answered.
    pub choice: ControlChoice,
}

impl ControlMessage {
    /// A message with a request id.
    #[must_use]
    pub const fn new(r_id: i32, choice: ControlChoice) -> Self {
        Self { r_id: Some(r_id), choice }
    }
}

/// What a [`ControlMessage`] asks or answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ControlChoice {
    /// Broker: the request failed. Answers any request.
    Status(Status),
    /// Client: the session ends.
    Disconnect,
    /// Broker: the last thing sent.
    DisconnectResponse,
    /// Admin client: a command.
    AdminCommand(AdminCommand),
    /// Broker: the command's output.
    AdminCommandResponse(AdminCommandResponse),
    /// Client: use a queue.
    OpenQueue(OpenQueue),
    /// Broker: the queue may be used.
    OpenQueueResponse(OpenQueueResponse),
    /// Client: stop using a queue.
    CloseQueue(CloseQueue),
    /// Broker: no more acknowledgements or messages will come for it.
    CloseQueueResponse,
    /// Older client: set or end delivery.
    ConfigureQueueStream(ConfigureQueueStream),
    /// Broker: from here on delivery is as asked.
    ConfigureQueueStreamResponse(ConfigureQueueStreamResponse),
    /// Client: set or end delivery.
    ConfigureStream(ConfigureStream),
    /// Broker: from here on delivery is as asked.
    ConfigureStreamResponse(ConfigureStreamResponse),
}

/// How a client uses a queue.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct QueueHandleParameters {
    /// The queue; from the C++ client with its `?id=app`, from the Java client without.
    /// [`QueueUri`](crate::uri::QueueUri) reads it.
    pub uri: String,
    /// The client's id for the queue: one per canonical URI and session.
    pub q_id: u32,
    /// The app, for a reader that named one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sub_id_info: Option<SubQueueIdInfo>,
    /// What the queue is used for.
    pub flags: QueueFlags,
    /// 1 exactly if the flags have READ.
    pub read_count: i32,
    /// 1 exactly if the flags have WRITE.
    pub write_count: i32,
    /// 0.
    pub admin_count: i32,
}

/// A client's id for one app of a queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SubQueueIdInfo {
    /// What CONFIRM and close name the app by; 0 without an app id.
    pub sub_id: u32,
    /// The app's name.
    pub app_id: String,
}

impl Default for SubQueueIdInfo {
    fn default() -> Self {
        Self { sub_id: 0, app_id: DEFAULT_APP_ID.into() }
    }
}

/// Asks to use a queue.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OpenQueue {
    /// Which queue and for what.
    pub handle_parameters: QueueHandleParameters,
}

/// Allows to use a queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OpenQueueResponse {
    /// The request, repeated.
    pub original_request: OpenQueue,
    /// How the queue routes messages.
    pub routing_configuration: RoutingConfiguration,
    /// How long a client may retransmit a message, in milliseconds. Must be above 0, and no longer
    /// than the broker remembers GUIDs.
    pub deduplication_time_ms: i32,
}

impl Default for OpenQueueResponse {
    fn default() -> Self {
        Self {
            original_request: OpenQueue::default(),
            routing_configuration: RoutingConfiguration::default(),
            deduplication_time_ms: 300_000,
        }
    }
}

/// How a queue routes messages.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RoutingConfiguration {
    /// The value for each kind of queue is a constant of [`RoutingFlags`].
    pub flags: RoutingFlags,
}

/// Asks to stop using a queue.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CloseQueue {
    /// Which queue and what of it.
    pub handle_parameters: QueueHandleParameters,
    /// Whether this was the last use of the queue id in the session.
    pub is_final: bool,
}

/// Asks for delivery to one app's consumer. Replaces all earlier subscriptions of (queue, app).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConfigureStream {
    /// The client's id for the queue.
    pub q_id: u32,
    /// What to deliver.
    pub stream_parameters: StreamParameters,
}

/// What to deliver to one app's consumer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StreamParameters {
    /// The app, [`DEFAULT_APP_ID`] without one.
    pub app_id: String,
    /// None: deliver nothing any more.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub subscriptions: Vec<Subscription>,
}

impl Default for StreamParameters {
    fn default() -> Self {
        Self { app_id: DEFAULT_APP_ID.into(), subscriptions: Vec::new() }
    }
}

/// One subscription: which messages, and how many at a time.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Subscription {
    /// What a PUSH names the subscription by; new with every configuration.
    pub s_id: u32,
    /// Which messages.
    pub expression: Expression,
    /// Limits and priorities; clients send one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub consumers: Vec<ConsumerInfo>,
}

/// A condition on message properties.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Expression {
    /// The language of `text`.
    pub version: ExpressionVersion,
    /// The condition; empty matches everything.
    pub text: String,
}

enumeration! {
    /// The language of an [`Expression`].
    ExpressionVersion {
        /// No condition.
        Undefined = 0, "E_UNDEFINED";
        /// The language that BlazingMQ documents.
        Version1 = 1, "E_VERSION_1";
    }
}

/// How much a consumer takes at a time, and with what priority.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConsumerInfo {
    /// Deliver nothing while this many messages are unconfirmed; 0 means never.
    pub max_unconfirmed_messages: i64,
    /// Deliver nothing while this many bytes are unconfirmed; 0 means never.
    pub max_unconfirmed_bytes: i64,
    /// Only consumers of the highest priority get messages.
    pub consumer_priority: i32,
    /// How many shares this consumer takes among equals.
    pub consumer_priority_count: i32,
}

impl Default for ConsumerInfo {
    fn default() -> Self {
        Self {
            max_unconfirmed_messages: 0,
            max_unconfirmed_bytes: 0,
            consumer_priority: NO_PRIORITY,
            consumer_priority_count: 0,
        }
    }
}

/// The answer to [`ConfigureStream`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConfigureStreamResponse {
    /// The request, repeated with all subscriptions: a released client crashes at the next PUSH
    /// otherwise.
    pub request: ConfigureStream,
}

/// The older form of [`ConfigureStream`], from clients that do not know subscriptions.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConfigureQueueStream {
    /// The client's id for the queue.
    pub q_id: u32,
    /// What to deliver.
    pub stream_parameters: QueueStreamParameters,
}

/// What to deliver to one app's consumer, in the older form. [`NO_PRIORITY`] with count 0 ends
/// delivery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct QueueStreamParameters {
    /// The app, for a reader that named one. PUSHes carry its `sub_id`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sub_id_info: Option<SubQueueIdInfo>,
    /// Deliver nothing while this many messages are unconfirmed; 0 means never.
    pub max_unconfirmed_messages: i64,
    /// Deliver nothing while this many bytes are unconfirmed; 0 means never.
    pub max_unconfirmed_bytes: i64,
    /// Only consumers of the highest priority get messages.
    pub consumer_priority: i32,
    /// How many shares this consumer takes among equals.
    pub consumer_priority_count: i32,
}

impl Default for QueueStreamParameters {
    fn default() -> Self {
        Self {
            sub_id_info: None,
            max_unconfirmed_messages: 0,
            max_unconfirmed_bytes: 0,
            consumer_priority: NO_PRIORITY,
            consumer_priority_count: 0,
        }
    }
}

/// The answer to [`ConfigureQueueStream`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConfigureQueueStreamResponse {
    /// The request, repeated.
    pub request: ConfigureQueueStream,
}

/// A command of an admin client.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AdminCommand {
    /// The command's text.
    pub command: String,
}

/// What a command printed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AdminCommandResponse {
    /// The text.
    pub text: String,
}

sequence!(QueueHandleParameters {
    0 uri, 1 q_id, 2 sub_id_info, 3 flags, 4 read_count, 5 write_count, 6 admin_count,
});
sequence!(SubQueueIdInfo { 0 sub_id, 1 app_id, });
sequence!(OpenQueue { 0 handle_parameters, });
sequence!(OpenQueueResponse {
    0 original_request, 1 routing_configuration, 2 deduplication_time_ms,
});
sequence!(RoutingConfiguration { 0 flags, });
sequence!(CloseQueue { 0 handle_parameters, 1 is_final, });
sequence!(ConfigureStream { 0 q_id, 1 stream_parameters, });
sequence!(StreamParameters { 0 app_id, 1 subscriptions, });
sequence!(Subscription { 0 s_id, 1 expression, 2 consumers, });
sequence!(Expression { 0 version, 1 text, });
sequence!(ConsumerInfo {
    0 max_unconfirmed_messages, 1 max_unconfirmed_bytes, 2 consumer_priority,
    3 consumer_priority_count,
});
sequence!(ConfigureStreamResponse { 0 request, });
sequence!(ConfigureQueueStream { 0 q_id, 1 stream_parameters, });
sequence!(QueueStreamParameters {
    0 sub_id_info, 1 max_unconfirmed_messages, 2 max_unconfirmed_bytes, 3 consumer_priority,
    4 consumer_priority_count,
});
sequence!(ConfigureQueueStreamResponse { 0 request, });
sequence!(AdminCommand { 0 command, });
sequence!(AdminCommandResponse { 0 text, });
