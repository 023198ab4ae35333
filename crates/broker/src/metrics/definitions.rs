//! Every metric of the broker: name, kind, unit, labels and meaning. Nothing else in the broker
//! spells a metric's name; `docs/operating/metrics.md` is checked against [`all`].

use metrics::{Counter, Gauge, Histogram, Label, Unit};

/// What kind of number a metric is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Only grows, from 0 at the start of the process.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts observations in buckets with these upper bounds.
    Histogram(&'static [f64]),
}

impl Kind {
    /// The name in Prometheus' text format.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram(_) => "histogram",
        }
    }
}

/// The definition of one metric.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Metric {
    /// Full name, with the prefix `flintmq_` and the unit.
    pub name: &'static str,
    /// Counter, gauge or histogram.
    pub kind: Kind,
    /// What is counted.
    pub unit: Unit,
    /// Names of its labels, in the order in which values are given.
    pub labels: &'static [&'static str],
    /// One sentence for the `HELP` line.
    pub help: &'static str,
}

impl Metric {
    /// The counter with these label values, one per name in [`labels`](Self::labels). Keep it:
    /// looking it up costs far more than adding to it.
    pub fn counter(&self, values: &[&str]) -> Counter {
        debug_assert_eq!(self.kind, Kind::Counter, "{} is no counter", self.name);
        metrics::counter!(self.name, self.label_pairs(values))
    }

    /// The gauge with these label values.
    pub fn gauge(&self, values: &[&str]) -> Gauge {
        debug_assert_eq!(self.kind, Kind::Gauge, "{} is no gauge", self.name);
        metrics::gauge!(self.name, self.label_pairs(values))
    }

    /// The histogram with these label values.
    pub fn histogram(&self, values: &[&str]) -> Histogram {
        debug_assert!(matches!(self.kind, Kind::Histogram(_)), "{} is no histogram", self.name);
        metrics::histogram!(self.name, self.label_pairs(values))
    }

    fn label_pairs(&self, values: &[&str]) -> Vec<Label> {
        debug_assert_eq!(self.labels.len(), values.len(), "labels of {}", self.name);
        let pairs = self.labels.iter().zip(values);
        pairs.map(|(&name, &value)| Label::new(name, value.to_owned())).collect()
    }
}

/// Seconds, from a fast write to a stuck disk.
const LATENCY: &[f64] = &[
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0, 30.0,
];

/// Seconds, from a message that somebody waits for to one that waited for its consumer's restart.
const WAITING: &[f64] = &[
    0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 1_800.0,
    7_200.0, 86_400.0,
];

/// Entries per write: the store's own places.
const BATCHES: &[f64] =
    &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1_024.0, 2_048.0, 4_096.0];

const QUEUE: &[&str] = &["domain", "queue"];
const QUEUE_AND_REASON: &[&str] = &["domain", "queue", "reason"];

macro_rules! metrics_list {
    ($list:ident: $list_doc:literal;
     $($constant:ident = $kind:expr, $unit:ident, $labels:expr, $name:literal, $help:literal;)+
    ) => {
        $(
            #[doc = $help]
            pub const $constant: Metric = Metric {
                name: concat!("flintmq_", $name),
                kind: $kind,
                unit: Unit::$unit,
                labels: $labels,
                help: $help,
            };
        )+
        #[doc = $list_doc]
        pub const $list: &[Metric] = &[$($constant),+];
    };
}

metrics_list! {
    PER_QUEUE: "The metrics of each queue, kept by `QueueRegistry`.";
    PUBLISHED_MESSAGES = Kind::Counter, Count, QUEUE, "messages_published_total",
        "Messages stored.";
    PUBLISHED_BYTES = Kind::Counter, Bytes, QUEUE, "published_bytes_total",
        "Bytes of payload and properties stored.";
    DUPLICATE_MESSAGES = Kind::Counter, Count, QUEUE, "messages_duplicate_total",
        "Publishes acknowledged without storing because the message was stored before.";
    DELIVERED_MESSAGES = Kind::Counter, Count, QUEUE, "messages_delivered_total",
        "Messages sent to consumers, each time counted.";
    DELIVERED_BYTES = Kind::Counter, Bytes, QUEUE, "delivered_bytes_total",
        "Bytes of payload and properties sent to consumers.";
    REDELIVERED_MESSAGES = Kind::Counter, Count, QUEUE, "messages_redelivered_total",
        "Messages sent again after another consumer had them and did not confirm.";
    CONFIRMED_MESSAGES = Kind::Counter, Count, QUEUE, "messages_confirmed_total",
        "Messages confirmed by consumers.";
    REJECTED_MESSAGES = Kind::Counter, Count, QUEUE_AND_REASON, "messages_rejected_total",
        "Publishes refused, by reason.";
    DROPPED_MESSAGES = Kind::Counter, Count, QUEUE_AND_REASON, "messages_dropped_total",
        "Stored messages removed without a confirmation, by reason.";
    BACKLOG_MESSAGES = Kind::Gauge, Count, QUEUE, "backlog_messages",
        "Messages stored and not confirmed.";
    BACKLOG_BYTES = Kind::Gauge, Bytes, QUEUE, "backlog_bytes",
        "Bytes of messages stored and not confirmed.";
    OLDEST_MESSAGE_AGE = Kind::Gauge, Seconds, QUEUE, "oldest_message_age_seconds",
        "Age of the oldest message not confirmed; 0 when there is none.";
    UNCONFIRMED_MESSAGES = Kind::Gauge, Count, QUEUE, "unconfirmed_messages",
        "Messages that a consumer has and has not confirmed.";
    REDELIVERY_MESSAGES = Kind::Gauge, Count, QUEUE, "redelivery_messages",
        "Messages waiting to be sent again.";
    CONSUMERS = Kind::Gauge, Count, QUEUE, "consumers",
        "Clients that have the queue open for reading.";
    PRODUCERS = Kind::Gauge, Count, QUEUE, "producers",
        "Clients that have the queue open for writing.";
}

metrics_list! {
    PER_NODE: "Metrics recorded as things happen, through `Metric::counter` and its siblings.";
    PUBLISH_ACK = Kind::Histogram(LATENCY), Seconds, &[], "publish_ack_seconds",
        "From the arrival of a publish to its acknowledgement, inside the node.";
    END_TO_END = Kind::Histogram(WAITING), Seconds, &[], "end_to_end_seconds",
        "From the arrival of a message to its first delivery, inside the node.";
    SESSIONS = Kind::Gauge, Count, &[], "sessions",
        "Clients connected and negotiated.";
    CONNECTIONS = Kind::Counter, Count, &["scheme"], "connections_total",
        "Connections accepted, by scheme of the listener.";
    CONNECTIONS_REFUSED = Kind::Counter, Count, &["reason"], "connections_refused_total",
        "Connections closed before they became sessions, by reason.";
    SESSIONS_CLOSED = Kind::Counter, Count, &["reason"], "sessions_closed_total",
        "Sessions ended, by reason.";
    CLIENT_RECEIVED_BYTES = Kind::Counter, Bytes, &[], "client_received_bytes_total",
        "Bytes received from clients.";
    CLIENT_SENT_BYTES = Kind::Counter, Bytes, &[], "client_sent_bytes_total",
        "Bytes sent to clients.";
    LOG_WRITE = Kind::Histogram(LATENCY), Seconds, &[], "log_write_seconds",
        "Time of one write of the log writer.";
    LOG_BATCH_ENTRIES = Kind::Histogram(BATCHES), Count, &[], "log_batch_entries",
        "Log entries in one write of the log writer.";
    LOG_WRITTEN_BYTES = Kind::Counter, Bytes, &[], "log_written_bytes_total",
        "Bytes of log entries written.";
    FLUSH = Kind::Histogram(LATENCY), Seconds, &[], "flush_seconds",
        "Time of one flush of the log to the disk.";
    STORAGE_ERRORS = Kind::Counter, Count, &[], "storage_errors_total",
        "Failed reads and writes of the data directory.";
    STORAGE_SLOWDOWNS = Kind::Counter, Count, &[], "storage_slowdowns_total",
        "Times that the database slowed writes down because its own work was behind.";
    STORAGE_STOPS = Kind::Counter, Count, &[], "storage_stops_total",
        "Times that the database stopped writes because its own work was far behind.";
    STORAGE_WAL_BYTES = Kind::Gauge, Bytes, &[], "storage_wal_bytes",
        "Bytes of write-ahead log files.";
    STORAGE_TABLE_BYTES = Kind::Gauge, Bytes, &[], "storage_table_bytes",
        "Bytes of table and payload files.";
    DISK_FREE = Kind::Gauge, Bytes, &[], "disk_free_bytes",
        "Free space on the data directory's disk.";
    DISK_RESERVE_REACHED = Kind::Gauge, Count, &[], "disk_reserve_reached",
        "1 while new messages are refused because free space is under the reserve, else 0.";
    UNFIT = Kind::Gauge, Count, &["reason"], "node_unfit",
        "1 while this node should not lead for this reason (clock_off, disk_full, disk_stalled), else 0.";
    GROUP_TERM = Kind::Gauge, Count, &["group"], "group_term",
        "Term of the group.";
    GROUP_IS_LEADER = Kind::Gauge, Count, &["group"], "group_is_leader",
        "1 while this node leads the group, else 0.";
    GROUP_COMMIT_INDEX = Kind::Gauge, Count, &["group"], "group_commit_index",
        "Highest committed index.";
    GROUP_APPLIED_INDEX = Kind::Gauge, Count, &["group"], "group_applied_index",
        "Highest index applied to the state.";
    GROUP_FSYNCED_INDEX = Kind::Gauge, Count, &["group"], "group_fsynced_index",
        "Highest index known to be on the disk.";
    GROUP_AT_RISK_ENTRIES = Kind::Gauge, Count, &["group"], "group_at_risk_entries",
        "Committed entries that are not on the disk yet.";
    GROUP_AT_RISK_BYTES = Kind::Gauge, Bytes, &["group"], "group_at_risk_bytes",
        "Bytes of committed entries that are not on the disk yet.";
    GROUP_AT_RISK_SECONDS = Kind::Gauge, Seconds, &["group"], "group_at_risk_seconds",
        "Age of the oldest committed entry that is not on the disk yet.";
    ELECTIONS = Kind::Counter, Count, &["result"], "elections_total",
        "Elections of groups on this node, by result.";
    LEADERLESS = Kind::Counter, Seconds, &["group"], "leaderless_seconds_total",
        "Whole seconds in which the group had no leader that serves.";
}

metrics_list! {
    PER_CLUSTER: "Metrics of clusters of several nodes, recorded as `PER_NODE` are. A node that \
        runs alone has none of them.";
    CLOCK_OFFSET = Kind::Gauge, Seconds, &[], "clock_offset_seconds",
        "How far this node's clock is ahead of a majority's; negative when it is behind.";
    GROUP_FOLLOWER_LAG = Kind::Gauge, Count, &["group", "peer"], "group_follower_lag_entries",
        "Entries of the group's log that the peer has not acknowledged to this node, its leader.";
    GROUP_RECOVERING = Kind::Gauge, Count, &["group"], "group_recovering",
        "1 while this node's replica lacks what it lost with its machine's power, else 0.";
    LEADER_TRANSFERS = Kind::Counter, Count, &["result"], "leader_transfers_total",
        "Leaderships that this node was asked to hand over, by result.";
    HISTORY_FORKS = Kind::Counter, Count, &["group"], "history_forks_total",
        "Times that the group went on without knowing what had been acknowledged.";
    UNREADABLE_MESSAGES = Kind::Counter, Count, &["reason"], "peer_messages_unreadable_total",
        "Messages of other nodes that were dropped because this version cannot read them, by reason.";
}

const PEER: &[&str] = &["peer"];
const PEER_AND_CLASS: &[&str] = &["peer", "class"];

metrics_list! {
    TRANSPORT: "Metrics of the connections between nodes. `flintmq-transport` records them under \
        these names without knowing these constants.";
    TRANSPORT_SENT_FRAMES = Kind::Counter, Count, PEER_AND_CLASS, "transport_sent_frames_total",
        "Frames handed to the network.";
    TRANSPORT_SENT_BYTES = Kind::Counter, Bytes, PEER_AND_CLASS, "transport_sent_bytes_total",
        "Bytes of frames handed to the network.";
    TRANSPORT_SENT_BATCHES = Kind::Counter, Count, PEER_AND_CLASS, "transport_sent_batches_total",
        "Writes to the network; frames per batch tell how well they are gathered.";
    TRANSPORT_RECEIVED_FRAMES = Kind::Counter, Count, PEER_AND_CLASS, "transport_received_frames_total",
        "Frames received.";
    TRANSPORT_RECEIVED_BYTES = Kind::Counter, Bytes, PEER_AND_CLASS, "transport_received_bytes_total",
        "Bytes of frames received.";
    TRANSPORT_DROPPED_FRAMES = Kind::Counter, Count, PEER_AND_CLASS, "transport_dropped_frames_total",
        "Frames accepted and not sent: pushed out by newer urgent ones, or their connection was lost.";
    TRANSPORT_REFUSED_FRAMES = Kind::Counter, Count, PEER_AND_CLASS, "transport_refused_frames_total",
        "Frames not accepted: the queue was full, there was no connection, or they were too long.";
    TRANSPORT_CONNECTED = Kind::Gauge, Count, PEER, "transport_connected",
        "1 while there is a connection to the peer, else 0; NaN once it has left the cluster.";
    TRANSPORT_CONNECTIONS = Kind::Counter, Count, PEER, "transport_connections_total",
        "Connections to the peer that came into use.";
    TRANSPORT_DIAL_FAILURES = Kind::Counter, Count, PEER, "transport_dial_failures_total",
        "Attempts to connect to the peer that failed.";
    TRANSPORT_REFUSED_CONNECTIONS = Kind::Counter, Count, &["reason"], "transport_refused_connections_total",
        "Connections of other nodes that were refused, by reason.";
    TRANSPORT_ROUND_TRIP = Kind::Gauge, Seconds, PEER, "transport_rtt_seconds",
        "Smoothed round-trip time to the peer.";
    TRANSPORT_PATH_MTU = Kind::Gauge, Bytes, PEER, "transport_path_mtu_bytes",
        "Largest UDP payload that the path to the peer is known to carry.";
    TRANSPORT_LOST_PACKETS = Kind::Counter, Count, PEER, "transport_lost_packets_total",
        "Packets to the peer that were lost and sent again.";
    TRANSPORT_CERTIFICATE_RELOADS = Kind::Counter, Count, &["result"], "transport_certificate_reloads_total",
        "Times that the certificates were read again, by result (ok, error).";
}

metrics_list! {
    PER_PROCESS: "Metrics read when they are asked for.";
    BUILD_INFO = Kind::Gauge, Count, &["version"], "build_info",
        "Always 1; the label is the version.";
    PROCESS_CPU = Kind::Counter, Seconds, &[], "process_cpu_seconds_total",
        "CPU time of the process, user and system.";
    PROCESS_RESIDENT = Kind::Gauge, Bytes, &[], "process_resident_memory_bytes",
        "Physical memory of the process.";
    PROCESS_VIRTUAL = Kind::Gauge, Bytes, &[], "process_virtual_memory_bytes",
        "Address space of the process.";
    PROCESS_OPEN_FDS = Kind::Gauge, Count, &[], "process_open_fds",
        "Open file descriptors.";
    PROCESS_MAX_FDS = Kind::Gauge, Count, &[], "process_max_fds",
        "File descriptors that the process may have open.";
    PROCESS_THREADS = Kind::Gauge, Count, &[], "process_threads",
        "Threads of the process.";
    PROCESS_START = Kind::Gauge, Seconds, &[], "process_start_time_seconds",
        "When the process started, in seconds since 1970.";
    QUEUES = Kind::Gauge, Count, &[], "queues",
        "Queues on this node.";
    QUEUES_FOLDED = Kind::Gauge, Count, &[], "queues_folded",
        "Queues without series of their own, summed up under queue=\"(other)\".";
}

/// The metrics that go through the `metrics` facade.
pub fn recorded() -> impl Iterator<Item = &'static Metric> {
    PER_NODE.iter().chain(PER_CLUSTER).chain(TRANSPORT)
}

/// Every metric there is.
pub fn all() -> impl Iterator<Item = &'static Metric> {
    PER_QUEUE.iter().chain(recorded()).chain(PER_PROCESS)
}
