//! The way to other nodes. Never waits: what cannot be sent is lost, and those who send know what
//! to do about it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use flintmq_consensus::{GroupId, NodeId, Packet};
use flintmq_transport::{CertificateError, Frame, Lane, SendError, Transport, wire};

/// The connections to all other nodes; cheap to clone.
#[derive(Clone)]
pub(crate) struct PeerLinks {
    transport: Arc<Transport>,
}

impl PeerLinks {
    pub(super) fn new(transport: Transport) -> Self {
        Self { transport: Arc::new(transport) }
    }

    /// Sends a packet as it is.
    pub(crate) fn send_packet(&self, packet: &Packet, lane: Lane) {
        match wire::encode(packet) {
            Ok(frame) => match self.transport.send(packet.to, lane, frame) {
                // Nobody is there, or too much waits: consensus takes both for a loss. A member of
                // a group may be known before its address is.
                Ok(())
                | Err(
                    SendError::Disconnected { .. }
                    | SendError::Full { .. }
                    | SendError::UnknownPeer { .. },
                ) => {}
                Err(error) => tracing::warn!(to = packet.to.0, %error, "a message cannot be sent"),
            },
            Err(error) => tracing::error!(to = packet.to.0, %error, "a message cannot be encoded"),
        }
    }

    /// Sends what a group's task has to say to the same group's task elsewhere. Frames arrive in
    /// order, as long as the connection holds.
    ///
    /// # Errors
    /// It was not sent: [`SendError::Full`] may be tried again, all others mean that the connection
    /// is gone or never was.
    pub(crate) fn send_gateway(
        &self,
        to: NodeId,
        group: GroupId,
        frame: Bytes,
    ) -> Result<(), SendError> {
        let head = Bytes::copy_from_slice(&group.0.to_be_bytes());
        self.transport.send(to, Lane::gateway(group.0), Frame::new(head, vec![frame]))
    }

    /// Waits until more can be sent to this node for this group, or the connection is gone.
    ///
    /// # Errors
    /// The connection is gone.
    pub(crate) async fn gateway_room(&self, to: NodeId, group: GroupId) -> Result<(), SendError> {
        self.transport.room(to, Lane::gateway(group.0)).await
    }

    /// Begins to connect to one more node, unless it is known.
    pub(super) fn add_peer(&self, node: NodeId, address: &str) {
        self.transport.add_peer(node, address);
    }

    /// Ends the connection to a node, for good.
    pub(super) fn remove_peer(&self, node: NodeId) {
        self.transport.remove_peer(node);
    }

    /// Reads certificates and keys again, for connections from now on.
    ///
    /// # Errors
    /// What is wrong with them; those of before stay.
    pub(crate) fn reload_certificates(&self) -> Result<(), CertificateError> {
        self.transport.reload_certificates()
    }

    /// Closes all connections, after what waits was sent or the time is over.
    pub(crate) async fn close(&self, grace: Duration) {
        self.transport.close(grace).await;
    }
}
