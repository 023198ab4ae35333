//! What the transport counts, through the `metrics` facade. [`METRICS`] lists every name, for the
//! exporter and for the operators' documentation.

use flintmq_consensus::NodeId;
use metrics::{Counter, Gauge, Unit, counter, gauge};

use crate::Class;

/// The definition of one metric.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MetricDefinition {
    /// Full name.
    pub name: &'static str,
    /// True for a counter, which only grows; false for a gauge.
    pub is_counter: bool,
    /// What is counted.
    pub unit: Unit,
    /// Names of its labels.
    pub labels: &'static [&'static str],
    /// One sentence for the `HELP` line.
    pub help: &'static str,
}

const PEER: &[&str] = &["peer"];
const PEER_AND_CLASS: &[&str] = &["peer", "class"];

macro_rules! definitions {
    ($($constant:ident = $is_counter:literal, $unit:ident, $labels:expr, $name:literal, $help:literal;)+) => {
        $(const $constant: &str = concat!("flintmq_transport_", $name);)+
        /// Every metric of the transport.
        pub const METRICS: &[MetricDefinition] = &[
            $(MetricDefinition {
                name: $constant,
                is_counter: $is_counter,
                unit: Unit::$unit,
                labels: $labels,
                help: $help,
            }),+
        ];
    };
}

definitions! {
    SENT_FRAMES = true, Count, PEER_AND_CLASS, "sent_frames_total",
        "Frames handed to the network.";
    SENT_BYTES = true, Bytes, PEER_AND_CLASS, "sent_bytes_total",
        "Bytes of frames handed to the network.";
    SENT_BATCHES = true, Count, PEER_AND_CLASS, "sent_batches_total",
        "Writes to the network; frames per batch tell how well they are gathered.";
    RECEIVED_FRAMES = true, Count, PEER_AND_CLASS, "received_frames_total",
        "Frames received.";
    RECEIVED_BYTES = true, Bytes, PEER_AND_CLASS, "received_bytes_total",
        "Bytes of frames received.";
    DROPPED_FRAMES = true, Count, PEER_AND_CLASS, "dropped_frames_total",
        "Frames accepted and not sent: pushed out by newer urgent ones, or their connection was lost.";
    REFUSED_FRAMES = true, Count, PEER_AND_CLASS, "refused_frames_total",
        "Frames not accepted: the queue was full, there was no connection, or they were too long.";
    CONNECTED = false, Count, PEER, "connected",
        "1 while there is a connection to the peer, else 0; NaN once it has left the cluster.";
    CONNECTIONS = true, Count, PEER, "connections_total",
        "Connections to the peer that came into use.";
    DIAL_FAILURES = true, Count, PEER, "dial_failures_total",
        "Attempts to connect to the peer that failed.";
    REFUSED_CONNECTIONS = true, Count, &["reason"], "refused_connections_total",
        "Connections of other nodes that were refused, by reason.";
    ROUND_TRIP = false, Seconds, PEER, "rtt_seconds",
        "Smoothed round-trip time to the peer.";
    PATH_MTU = false, Bytes, PEER, "path_mtu_bytes",
        "Largest UDP payload that the path to the peer is known to carry.";
    LOST_PACKETS = true, Count, PEER, "lost_packets_total",
        "Packets to the peer that were lost and sent again.";
    CERTIFICATE_RELOADS = true, Count, &["result"], "certificate_reloads_total",
        "Times that the certificates were read again, by result (ok, error).";
}

/// Counters of one class of traffic with one peer.
#[derive(Clone)]
pub(crate) struct LaneMeter {
    pub(crate) sent_frames: Counter,
    pub(crate) sent_bytes: Counter,
    pub(crate) sent_batches: Counter,
    pub(crate) received_frames: Counter,
    pub(crate) received_bytes: Counter,
    pub(crate) dropped: Counter,
    pub(crate) refused: Counter,
}

impl std::fmt::Debug for LaneMeter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LaneMeter")
    }
}

impl LaneMeter {
    pub(crate) fn new(peer: NodeId, class: Class) -> Self {
        let of = |name: &'static str| counter!(name, "peer" => peer.to_string(), "class" => class.as_str());
        Self {
            sent_frames: of(SENT_FRAMES),
            sent_bytes: of(SENT_BYTES),
            sent_batches: of(SENT_BATCHES),
            received_frames: of(RECEIVED_FRAMES),
            received_bytes: of(RECEIVED_BYTES),
            dropped: of(DROPPED_FRAMES),
            refused: of(REFUSED_FRAMES),
        }
    }

    pub(crate) fn sent(&self, frames: usize, bytes: usize) {
        self.sent_frames.increment(frames as u64);
        self.sent_bytes.increment(bytes as u64);
        self.sent_batches.increment(1);
    }

    pub(crate) fn received(&self, frames: usize, bytes: usize) {
        self.received_frames.increment(frames as u64);
        self.received_bytes.increment(bytes as u64);
    }
}

/// Counters and gauges of the connection to one peer.
pub(crate) struct PeerMeter {
    pub(crate) connected: Gauge,
    pub(crate) connections: Counter,
    pub(crate) dial_failures: Counter,
    pub(crate) round_trip: Gauge,
    pub(crate) path_mtu: Gauge,
    pub(crate) lost_packets: Counter,
}

impl std::fmt::Debug for PeerMeter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PeerMeter")
    }
}

impl PeerMeter {
    pub(crate) fn new(peer: NodeId) -> Self {
        let label = || peer.to_string();
        Self {
            connected: gauge!(CONNECTED, "peer" => label()),
            connections: counter!(CONNECTIONS, "peer" => label()),
            dial_failures: counter!(DIAL_FAILURES, "peer" => label()),
            round_trip: gauge!(ROUND_TRIP, "peer" => label()),
            path_mtu: gauge!(PATH_MTU, "peer" => label()),
            lost_packets: counter!(LOST_PACKETS, "peer" => label()),
        }
    }
}

pub(crate) fn connection_refused(reason: &'static str) {
    counter!(REFUSED_CONNECTIONS, "reason" => reason).increment(1);
}

pub(crate) fn certificates_reloaded(is_ok: bool) {
    let result = if is_ok { "ok" } else { "error" };
    counter!(CERTIFICATE_RELOADS, "result" => result).increment(1);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_is_explained_to_maintainers() {
        let page = include_str!("../../../docs/internals/transport.md");
        for metric in METRICS {
            assert!(page.contains(&format!("`{}", metric.name)), "{} is missing", metric.name);
            assert_eq!(metric.is_counter, metric.name.ends_with("_total"), "{}", metric.name);
        }
    }
}
