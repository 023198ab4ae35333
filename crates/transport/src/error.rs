//! Why something was not sent, or the transport could not begin.

use std::io;
use std::net::SocketAddr;

use flintmq_consensus::NodeId;
use thiserror::Error;

use crate::{CertificateError, Class, SettingsError};

/// Why a frame was not accepted. Nothing of it was kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SendError {
    /// There is no connection; [`crate::Event::PeerUp`] tells when there is one.
    #[error("there is no connection to the peer now: send again after it is up peer={peer}")]
    Disconnected {
        /// The peer.
        peer: NodeId,
    },
    /// Too much waits already; [`crate::Transport::room`] tells when to go on.
    #[error("too much waits to be sent already: wait for room peer={peer} class={class}")]
    Full {
        /// The peer.
        peer: NodeId,
        /// The class whose lane is full.
        class: Class,
    },
    /// The frame is longer than a peer accepts.
    #[error(
        "a frame is too long to be sent: split it, or raise the class's bound on all nodes \
         peer={peer} class={class} bytes={bytes} allowed={allowed}"
    )]
    TooLarge {
        /// The peer.
        peer: NodeId,
        /// The class.
        class: Class,
        /// Length of the frame.
        bytes: usize,
        /// The greatest length.
        allowed: usize,
    },
    /// No such peer is known.
    #[error("the peer is not known to this node: add it first peer={peer}")]
    UnknownPeer {
        /// The peer.
        peer: NodeId,
    },
}

/// Why the transport did not begin.
#[derive(Debug, Error)]
pub enum BindError {
    /// A setting cannot work.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The certificates cannot be used.
    #[error(transparent)]
    Certificates(#[from] CertificateError),
    /// The address cannot be listened on.
    #[error(
        "cannot listen for other nodes; check peers.listen, and whether another process has the \
         port address={address}: {source}"
    )]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}
