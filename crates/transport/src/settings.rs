//! What a node is told about itself, its peers and its bounds.

use std::net::SocketAddr;
use std::time::Duration;

use flintmq_consensus::NodeId;
use rustls_pki_types::DnsName;
use thiserror::Error;

use crate::{CertificateFiles, certificate_name};

/// Streams that one class may have.
pub const MAX_SHARDS: u16 = 64;

/// Another node and where it listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerAddress {
    /// Its number.
    pub node: NodeId,
    /// HOST:PORT, UDP. A host name is looked up anew for each attempt to connect.
    pub address: String,
}

/// How much of a class may be held in memory, for each peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClassLimits {
    /// Bytes that wait in one lane to be sent. A single frame may exceed it when nothing else
    /// waits.
    pub queue_bytes: usize,
    /// Frames that wait in one lane to be sent.
    pub queue_frames: usize,
    /// Longest frame, in bytes. Longer ones are refused on the way out; a peer that sends one loses
    /// its connection.
    pub frame_bytes: usize,
    /// Bytes that arrived and were not dropped by their receiver yet, of all lanes of the class and
    /// all peers together. A single batch may exceed it. Beyond that, the class is not read from
    /// the network until a [`crate::Batch`] is dropped.
    pub unread_bytes: usize,
}

/// All settings of a node's transport.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Name of the cluster. Nodes of another cluster are refused.
    pub cluster: String,
    /// This node.
    pub node: NodeId,
    /// Names this start of the process: greater than that of every earlier start of the same node.
    /// A connection from an earlier process than one that was seen is refused.
    pub incarnation: u64,
    /// Names the set of nodes that the cluster began with; 0 before that is known. Nodes of two
    /// sets refuse each other. See [`crate::Transport::set_formation`].
    pub formation: u64,
    /// The other nodes. More can be added later.
    pub peers: Vec<PeerAddress>,
    /// Streams for entries and acknowledgements, 1 to [`MAX_SHARDS`]. Nodes may differ.
    pub append_shards: u16,
    /// Streams for gateway traffic, 1 to [`MAX_SHARDS`]. Nodes may differ.
    pub gateway_shards: u16,
    /// Bounds of [`crate::Class::Urgent`].
    pub urgent: ClassLimits,
    /// Bounds of [`crate::Class::Append`].
    pub append: ClassLimits,
    /// Bounds of [`crate::Class::Gateway`].
    pub gateway: ClassLimits,
    /// Bounds of [`crate::Class::Bulk`].
    pub bulk: ClassLimits,
    /// Bytes of [`crate::Class::Bulk`] that leave this node in a second, to all peers together;
    /// 0 for no limit.
    pub bulk_bytes_per_second: u64,
    /// How long a connection lives without a sign of life from the peer.
    pub idle_timeout: Duration,
    /// Shortest wait before a lost connection is dialled again; it doubles with each failure.
    pub backoff_min: Duration,
    /// Longest wait before a lost connection is dialled again.
    pub backoff_max: Duration,
    /// How long an attempt to connect may take.
    pub dial_timeout: Duration,
}

/// What only the real network needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuicSettings {
    /// UDP address to listen on, and to connect from. Port 0 chooses one.
    pub listen: SocketAddr,
    /// This node's certificate and key, and the cluster's authority.
    pub certificates: CertificateFiles,
    /// Bytes of one stream that may be under way at most. The more there are, the more processor
    /// time each packet costs; a stream's throughput is at most this much per round trip.
    pub stream_window_bytes: u32,
    /// Largest UDP payload, in bytes, that is tried on a path; what the path carries is found out
    /// by probing. Large packets cost less: 6500 bytes take 2.6 times less than 1452. At most 6500,
    /// because ten packets must fit one system call of 64 KiB.
    pub max_udp_payload: u16,
    /// Socket buffers asked for, in bytes each way. The kernel may give less
    /// (`net.core.rmem_max`, `net.core.wmem_max`).
    pub socket_buffer_bytes: usize,
}

impl Settings {
    /// The usual settings for this start of this node.
    #[must_use]
    pub fn new(cluster: impl Into<String>, node: NodeId, incarnation: u64) -> Self {
        // The largest message of a client is 64 MiB, and travels whole.
        let of_messages = 72 << 20;
        Self {
            cluster: cluster.into(),
            node,
            incarnation,
            formation: 0,
            peers: Vec::new(),
            append_shards: 4,
            gateway_shards: 2,
            urgent: ClassLimits {
                queue_bytes: 4 << 20,
                queue_frames: 256,
                frame_bytes: 4 << 20,
                unread_bytes: 16 << 20,
            },
            // Somewhat more than what consensus lets be on the way to one peer.
            append: ClassLimits {
                queue_bytes: 40 << 20,
                queue_frames: 16_384,
                frame_bytes: of_messages,
                unread_bytes: 64 << 20,
            },
            gateway: ClassLimits {
                queue_bytes: 16 << 20,
                queue_frames: 16_384,
                frame_bytes: of_messages,
                unread_bytes: 64 << 20,
            },
            bulk: ClassLimits {
                queue_bytes: 8 << 20,
                queue_frames: 256,
                frame_bytes: of_messages,
                unread_bytes: 16 << 20,
            },
            bulk_bytes_per_second: 64 << 20,
            idle_timeout: Duration::from_secs(3),
            backoff_min: Duration::from_millis(50),
            backoff_max: Duration::from_secs(1),
            dial_timeout: Duration::from_secs(2),
        }
    }

    /// Adds a peer.
    #[must_use]
    pub fn with_peer(mut self, node: NodeId, address: impl Into<String>) -> Self {
        self.peers.push(PeerAddress { node, address: address.into() });
        self
    }

    /// The bounds of a class.
    #[must_use]
    pub fn limits(&self, class: crate::Class) -> ClassLimits {
        match class {
            crate::Class::Urgent => self.urgent,
            crate::Class::Append => self.append,
            crate::Class::Gateway => self.gateway,
            crate::Class::Bulk => self.bulk,
        }
    }

    /// Finds what cannot work.
    ///
    /// # Errors
    /// [`SettingsError`] names the setting.
    pub fn check(&self) -> Result<(), SettingsError> {
        let refuse = |setting, why| Err(SettingsError { setting, why });
        let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if !(1..=64).contains(&self.cluster.len()) || !self.cluster.chars().all(fits) {
            return refuse("cluster", "write 1 to 64 letters, digits, '-', '_' or '.'");
        }
        if DnsName::try_from(certificate_name(&self.cluster, self.node).as_str()).is_err() {
            let why = "write a name that can be part of a DNS name: no part between two dots is \
                       empty, longer than 63, or begins or ends with '-'";
            return refuse("cluster", why);
        }
        for (setting, shards) in
            [("append_shards", self.append_shards), ("gateway_shards", self.gateway_shards)]
        {
            if !(1..=MAX_SHARDS).contains(&shards) {
                return refuse(setting, "write a number from 1 to 64");
            }
        }
        for class in crate::Class::ALL {
            let limits = self.limits(class);
            if limits.queue_frames == 0 || limits.queue_bytes == 0 || limits.unread_bytes == 0 {
                return refuse(class.as_str(), "every bound must be greater than 0");
            }
            if limits.frame_bytes == 0 || limits.frame_bytes > 1 << 30 {
                return refuse(class.as_str(), "a frame has at least 1 byte and at most 1 GiB");
            }
        }
        for peer in &self.peers {
            if peer.node == self.node {
                return refuse("peers", "a node is no peer of itself: leave it out");
            }
            if self.peers.iter().filter(|other| other.node == peer.node).count() > 1 {
                return refuse("peers", "two peers have the same number: correct one");
            }
        }
        if self.backoff_min.is_zero() || self.backoff_min > self.backoff_max {
            return refuse("backoff_min", "write a time above 0 and not above backoff_max");
        }
        if self.idle_timeout < Duration::from_millis(100) || self.dial_timeout.is_zero() {
            return refuse("idle_timeout", "write 100ms or more, and a dial_timeout above 0");
        }
        Ok(())
    }
}

impl QuicSettings {
    /// The usual settings for one network.
    #[must_use]
    pub fn new(listen: SocketAddr, certificates: CertificateFiles) -> Self {
        Self {
            listen,
            certificates,
            stream_window_bytes: 512 << 10,
            max_udp_payload: 6500,
            socket_buffer_bytes: 4 << 20,
        }
    }
}

/// A setting that cannot work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{why} setting={setting}")]
pub struct SettingsError {
    /// Its name.
    pub setting: &'static str,
    /// What to do.
    pub why: &'static str,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_work_is_named() {
        let good = Settings::new("test", NodeId(1), 1).with_peer(NodeId(2), "b:1");
        assert_eq!(good.check(), Ok(()));
        let refused = |change: fn(&mut Settings)| {
            let mut bad = good.clone();
            change(&mut bad);
            bad.check().map_err(|error| error.setting)
        };
        assert_eq!(refused(|bad| bad.cluster = "a b".to_owned()), Err("cluster"));
        assert_eq!(refused(|bad| bad.cluster = "a..b".to_owned()), Err("cluster"));
        assert_eq!(refused(|bad| bad.append_shards = 0), Err("append_shards"));
        assert_eq!(refused(|bad| bad.gateway_shards = 65), Err("gateway_shards"));
        assert_eq!(refused(|bad| bad.bulk.queue_bytes = 0), Err("bulk"));
        assert_eq!(refused(|bad| bad.urgent.frame_bytes = 2 << 30), Err("urgent"));
        assert_eq!(refused(|bad| bad.node = NodeId(2)), Err("peers"));
        assert_eq!(refused(|bad| bad.peers.push(bad.peers[0].clone())), Err("peers"));
        assert_eq!(refused(|bad| bad.backoff_max = Duration::ZERO), Err("backoff_min"));
        assert_eq!(refused(|bad| bad.dial_timeout = Duration::ZERO), Err("idle_timeout"));
    }
}
