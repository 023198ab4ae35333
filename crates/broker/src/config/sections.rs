//! The sections of `node.toml`, one struct each. `Default` of a struct is the one place of its
//! defaults; `docs/operating/configuration.md` is checked against them.

use super::listen::{DEFAULT_PORT, ListenScheme, ListenUrl};
use bytesize::ByteSize;
use serde::{Deserialize, Serialize};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// `[node]`: who this node is and where it keeps its data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NodeSection {
    /// Number of the node in its cluster, at least 1, never changed and never used again for
    /// another node.
    pub id: u32,
    /// Directory of the log and the queues; created if missing. One process at a time uses it.
    pub data_dir: PathBuf,
    /// What an acknowledgement waits for on this node.
    pub durability: Durability,
    /// How often the log is brought to the disk in the background (`durability = "background"`).
    #[serde(with = "humantime_serde")]
    pub flush_interval: Duration,
    /// Free space on the data directory's disk under which new messages are refused, so that
    /// confirming, purging and deleting still work.
    pub disk_reserve: ByteSize,
    /// Directory in RAM (tmpfs or ramfs) that outlives the process and not the machine, where the
    /// node notes how far it acknowledged. Where it is none, boot and mount decide after a crash
    /// whether anything is missing.
    pub witness_dir: PathBuf,
    /// Whether the page cache of the data directory's file system outlives a killed process. Not so
    /// with FUSE, 9p and NFS: with `false` every stop that was not clean counts as a loss.
    pub trust_page_cache: bool,
}

/// What an acknowledgement waits for on the local disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// Written to the operating system; the disk follows within `flush_interval`. Survives the
    /// death of the process, and as a single node not the loss of power.
    #[default]
    Background,
    /// Synced to the disk, one sync for all that waits. Survives the loss of power.
    Sync,
}

/// `[clients]`: where clients connect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClientsSection {
    /// Addresses to listen on, at least one.
    pub listen: Vec<ListenUrl>,
    /// PEM file with the certificate chain shown by `tls://` listeners, the node's own certificate
    /// first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<PathBuf>,
    /// PEM file with the private key of that certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
    /// PEM file with the authorities that clients' certificates must come from. Absent: clients of
    /// `tls://` listeners need no certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_ca: Option<PathBuf>,
}

/// `[admin]`: HTTP for administration, health and metrics.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdminSection {
    /// IP address and port.
    pub listen: SocketAddr,
    /// File whose first line is the token that changing requests must carry. Without it, changing
    /// requests are taken on a loopback address only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
}

/// `[domains]`: what happens to domains that nobody defined, and to queues that nobody uses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DomainsSection {
    /// Answer to a client that opens a queue of a domain that is not defined.
    pub undefined: UndefinedDomain,
    /// How long a queue may be empty with no client having it open, before it is removed; `0s` is
    /// for ever.
    #[serde(with = "humantime_serde")]
    pub idle_queue_timeout: Duration,
}

/// Answer to a client that opens a queue of a domain that is not defined.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UndefinedDomain {
    /// Define the domain from the default template and go on.
    #[default]
    Create,
    /// Refuse the open, as BlazingMQ does.
    Refuse,
}

/// `[limits]`: bounds on what clients can make the node do and hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsSection {
    /// Client connections at a time; one more is closed at once.
    pub max_connections: u32,
    /// Queues on this node; opening one more that does not exist yet is refused.
    pub max_queues: u32,
    /// Largest event taken from a client that has negotiated; a larger one closes its connection.
    pub max_event_bytes: ByteSize,
    /// Published and not yet acknowledged bytes per session, above which the node stops reading
    /// from it. An event of any allowed size is taken when nothing else is in flight.
    pub session_in_flight_bytes: ByteSize,
    /// The same for all sessions together, with events that have arrived in part. What waits to be
    /// sent to clients, and confirms, are not in it.
    pub node_in_flight_bytes: ByteSize,
    /// Bytes waiting to be sent to one client, above which deliveries to it pause.
    pub session_outbox_bytes: ByteSize,
    /// How long a new connection may take until it has negotiated.
    #[serde(with = "humantime_serde")]
    pub negotiation_timeout: Duration,
    /// After this long without a byte from a client it is sent a heartbeat request.
    #[serde(with = "humantime_serde")]
    pub heartbeat_interval: Duration,
    /// After this long without a byte a connection counts as dead and is closed; `0s` is never.
    /// Only for clients that answer heartbeats.
    #[serde(with = "humantime_serde")]
    pub idle_timeout: Duration,
    /// How long a stopping node waits for sessions to finish before it closes them.
    #[serde(with = "humantime_serde")]
    pub shutdown_timeout: Duration,
}

/// `[log]`: the log of the process, on standard error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogSection {
    /// Shape of a line.
    pub format: LogFormat,
    /// What is logged: a level, or levels per part of the broker (`info,flintmq_storage=debug`).
    pub level: String,
}

/// Shape of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people; coloured on a terminal.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

impl std::str::FromStr for LogFormat {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(format!("the log format is text or json value={text:?}")),
        }
    }
}

/// `[metrics]`: what `GET /metrics` shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MetricsSection {
    /// Queues with series of their own. Those opened later are summed up under `queue="(other)"`.
    pub max_queues: u32,
}

impl Default for NodeSection {
    fn default() -> Self {
        Self {
            id: 1,
            data_dir: PathBuf::from("flintmq-data"),
            durability: Durability::Background,
            flush_interval: Duration::from_millis(200),
            disk_reserve: ByteSize::gib(1),
            witness_dir: PathBuf::from("/dev/shm"),
            trust_page_cache: true,
        }
    }
}

impl Default for ClientsSection {
    fn default() -> Self {
        let loopback = ListenUrl {
            scheme: ListenScheme::Tcp,
            host: Ipv4Addr::LOCALHOST.to_string(),
            port: DEFAULT_PORT,
        };
        Self { listen: vec![loopback], certificate: None, key: None, client_ca: None }
    }
}

impl Default for AdminSection {
    fn default() -> Self {
        Self { listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8114)), token_file: None }
    }
}

impl Default for DomainsSection {
    fn default() -> Self {
        let undefined = UndefinedDomain::default();
        Self { undefined, idle_queue_timeout: Duration::from_secs(30 * 60) }
    }
}

impl Default for LimitsSection {
    fn default() -> Self {
        Self {
            max_connections: 10_000,
            max_queues: 100_000,
            max_event_bytes: ByteSize::mib(128),
            session_in_flight_bytes: ByteSize::mib(64),
            node_in_flight_bytes: ByteSize::gib(1),
            session_outbox_bytes: ByteSize::mib(16),
            negotiation_timeout: Duration::from_secs(10),
            heartbeat_interval: Duration::from_secs(3),
            idle_timeout: Duration::from_secs(30),
            shutdown_timeout: Duration::from_secs(10),
        }
    }
}

impl Default for LogSection {
    fn default() -> Self {
        Self { format: LogFormat::Text, level: "info".to_owned() }
    }
}

impl Default for MetricsSection {
    fn default() -> Self {
        Self { max_queues: 1_000 }
    }
}
