//! The schema of negotiation and authentication. Field order is the order of the element ids.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::ber::{enumeration, sequence};
use crate::event::{DEFAULT_HEARTBEAT_INTERVAL_MS, DEFAULT_MAX_MISSED_HEARTBEATS};

/// The release number of a development build; releases are `10000 * major + 100 * minor + patch`.
pub const DEVELOPMENT_VERSION: i32 = 999_999;

/// The first messages of a connection, one in each direction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NegotiationMessage {
    /// The client says who it is.
    ClientIdentity(ClientIdentity),
    /// The broker accepts or refuses it.
    BrokerResponse(BrokerResponse),
    /// A broker that connects to a proxy; not for clients.
    PlaceHolder,
}

/// Who is at the other end of a connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClientIdentity {
    /// [`PROTOCOL_VERSION`](crate::event::PROTOCOL_VERSION).
    pub protocol_version: i32,
    /// Release of the library or broker, or [`DEVELOPMENT_VERSION`].
    pub sdk_version: i32,
    /// What kind of peer this is.
    pub client_type: ClientType,
    /// For logs.
    pub process_name: String,
    /// For logs.
    pub pid: i32,
    /// Number of this session in its process, from 1.
    pub session_id: i32,
    /// For logs; the C++ client leaves it empty.
    pub host_name: String,
    /// What the peer can do; [`Features`](crate::features::Features) reads it.
    pub features: String,
    /// Empty for clients.
    pub cluster_name: String,
    /// -1 for clients.
    pub cluster_node_id: i32,
    /// The client's language; the Python client says C++.
    pub sdk_language: ClientLanguage,
    /// How the client makes GUIDs, if it does.
    pub guid_info: GuidInfo,
    /// Name and release of the library, from newer clients.
    pub user_agent: String,
}

impl Default for ClientIdentity {
    fn default() -> Self {
        Self {
            protocol_version: 0,
            sdk_version: DEVELOPMENT_VERSION,
            client_type: ClientType::Unknown,
            process_name: String::new(),
            pid: 0,
            session_id: 1,
            host_name: String::new(),
            features: String::new(),
            cluster_name: String::new(),
            cluster_node_id: -1,
            sdk_language: ClientLanguage::Cpp,
            guid_info: GuidInfo::default(),
            user_agent: String::new(),
        }
    }
}

/// How a client makes GUIDs.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GuidInfo {
    /// Twelve upper-case hex digits, a [`ClientId`](crate::guid::ClientId): this client puts its
    /// own GUIDs into PUTs. Empty: it puts a 24-bit correlation id there, and the broker makes the
    /// GUID.
    pub client_id: String,
    /// Wall clock when the client's GUID timer was zero, in nanoseconds since 1970.
    pub nano_seconds_from_epoch: i64,
}

/// A broker's answer to a client's identity. The client checks `result` and reads the features and
/// heartbeat numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BrokerResponse {
    /// Anything but success makes the client close and try again until its connect timeout.
    pub result: Status,
    /// [`PROTOCOL_VERSION`](crate::event::PROTOCOL_VERSION).
    pub protocol_version: i32,
    /// Release of the broker; informative.
    pub broker_version: i32,
    /// True makes the client print an alarm to its log, nothing else.
    pub is_deprecated_sdk: bool,
    /// Who the broker is; its features steer the client.
    pub broker_identity: ClientIdentity,
    /// How long a client waits in silence before it counts a missed heartbeat, in milliseconds.
    pub heartbeat_interval_ms: i32,
    /// Missed heartbeats after which a client gives up the connection; 0 switches that off.
    pub max_missed_heartbeats: i32,
}

impl Default for BrokerResponse {
    fn default() -> Self {
        Self {
            result: Status::default(),
            protocol_version: 0,
            broker_version: 0,
            is_deprecated_sdk: false,
            broker_identity: ClientIdentity::default(),
            heartbeat_interval_ms: DEFAULT_HEARTBEAT_INTERVAL_MS,
            max_missed_heartbeats: DEFAULT_MAX_MISSED_HEARTBEATS,
        }
    }
}

/// Success, or the reason of a failure.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Status {
    /// What a client acts on.
    pub category: StatusCategory,
    /// For logs; clients neither interpret nor show it.
    pub code: i32,
    /// For people; clients show it.
    pub message: String,
}

impl Status {
    /// Success: code 0, no message.
    #[must_use]
    pub fn success() -> Self {
        Self::default()
    }

    /// A status with its explanation.
    #[must_use]
    pub fn new(category: StatusCategory, code: i32, message: impl Into<String>) -> Self {
        Self { category, code, message: message.into() }
    }

    /// Whether the category is success.
    #[must_use]
    pub fn is_success(&self) -> bool {
        self.category == StatusCategory::Success
    }
}

enumeration! {
    /// The kind of a failure. Never answer an open with [`Canceled`](Self::Canceled): the C++
    /// client then waits for ever.
    StatusCategory otherwise Unknown {
        /// No failure.
        Success = 0, "E_SUCCESS";
        /// Any reason without a category of its own, and every category of a later release.
        Unknown = -1, "E_UNKNOWN";
        /// Not done in time.
        Timeout = -2, "E_TIMEOUT";
        /// No connection.
        NotConnected = -3, "E_NOT_CONNECTED";
        /// Given up. Never sent to a client.
        Canceled = -4, "E_CANCELED";
        /// Not known to this release.
        NotSupported = -5, "E_NOT_SUPPORTED";
        /// Not allowed.
        Refused = -6, "E_REFUSED";
        /// The request contradicts itself or the session's state.
        InvalidArgument = -7, "E_INVALID_ARGUMENT";
        /// Not possible now.
        NotReady = -8, "E_NOT_READY";
    }
}

enumeration! {
    /// What kind of peer opens a connection.
    ClientType otherwise Unknown {
        /// Refuse it.
        Unknown = 0, "E_UNKNOWN";
        /// A producer or consumer.
        TcpClient = 1, "E_TCPCLIENT";
        /// A BlazingMQ broker or proxy.
        TcpBroker = 2, "E_TCPBROKER";
        /// An administration tool: only admin commands.
        TcpAdmin = 3, "E_TCPADMIN";
    }
}

enumeration! {
    /// The language of a client library.
    ClientLanguage otherwise Unknown {
        /// Any other.
        Unknown = 0, "E_UNKNOWN";
        /// C++, and Python on top of it.
        Cpp = 1, "E_CPP";
        /// Java: JSON only, event types 1 to 5 only, correlation ids instead of GUIDs.
        Java = 2, "E_JAVA";
    }
}

/// Credentials and the answer to them, in AUTHENTICATION events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuthenticationMessage {
    /// The client shows its credential.
    AuthenticationRequest(AuthenticationRequest),
    /// The broker accepts or refuses it.
    AuthenticationResponse(AuthenticationResponse),
}

/// A client's credential.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AuthenticationRequest {
    /// The kind of credential, compared without regard to case: `BASIC`.
    pub mechanism: String,
    /// The credential; for `BASIC` it is `user:password`.
    #[serde(with = "super::json::base64_bytes", skip_serializing_if = "Option::is_none")]
    pub data: Option<Bytes>,
}

/// Shows the size of the credential only, so that it cannot reach a log.
impl std::fmt::Debug for AuthenticationRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuthenticationRequest")
            .field("mechanism", &self.mechanism)
            .field("data_bytes", &self.data.as_ref().map(Bytes::len))
            .finish()
    }
}

/// A broker's answer to a credential, in the encoding of the request.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AuthenticationResponse {
    /// Success, or [`StatusCategory::Refused`] with a non-zero code; then the broker closes.
    pub status: Status,
    /// How long the credential is good, in milliseconds, if not for ever. The client renews it
    /// earlier.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lifetime_ms: Option<u64>,
}

sequence!(ClientIdentity {
    0 protocol_version, 1 sdk_version, 2 client_type, 3 process_name, 4 pid, 5 session_id,
    6 host_name, 7 features, 8 cluster_name, 9 cluster_node_id, 10 sdk_language, 11 guid_info,
    12 user_agent,
});
sequence!(GuidInfo { 0 client_id, 1 nano_seconds_from_epoch, });
sequence!(BrokerResponse {
    0 result, 1 protocol_version, 2 broker_version, 3 is_deprecated_sdk, 4 broker_identity,
    5 heartbeat_interval_ms, 6 max_missed_heartbeats,
});
sequence!(Status { 0 category, 1 code, 2 message, });
sequence!(AuthenticationRequest { 0 mechanism, 1 data, });
sequence!(AuthenticationResponse { 0 status, 1 lifetime_ms, });
