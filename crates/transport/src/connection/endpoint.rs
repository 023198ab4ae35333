//! The UDP socket of a node and how QUIC is used on it.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use quinn::congestion::CubicConfig;
use quinn::{
    AckFrequencyConfig, ClientConfig, Endpoint, EndpointConfig, IdleTimeout, MtuDiscoveryConfig,
    ServerConfig, TransportConfig, VarInt,
};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::mpsc;

use super::accepting::{self, Doors};
use super::socket::NodeRuntime;
use super::supervisor::Supervisor;
use crate::certificates::{Credentials, certificate_name};
use crate::class::Lanes;
use crate::metrics::certificates_reloaded;
use crate::node::Node;
use crate::peer::Peer;
use crate::settings::MAX_SHARDS;
use crate::{BindError, CertificateError, QuicSettings, Settings};

/// Round trips are shorter than this before any was measured; a lost first packet is repeated after
/// about three times as long.
const INITIAL_ROUND_TRIP: Duration = Duration::from_millis(100);
/// Packets that a receiver may leave unacknowledged while it has nothing else to send. A packet
/// that only acknowledges costs as much as one that carries messages.
const PACKETS_UNACKNOWLEDGED: u32 = 7;
/// How long it may, which is also how much later the loss of a last packet is noticed.
const ACK_DELAY: Duration = Duration::from_millis(5);
/// Bytes that may be on their way before a path is known: a few tens of packets.
const INITIAL_WINDOW: u64 = 128 << 10;
/// What every path carries.
const MIN_UDP_PAYLOAD: u16 = 1200;
/// Offers of connections that wait for a peer's supervisor.
const OFFERS: usize = 4;
/// How long the end of all connections is waited for when the node stops.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// A node's endpoint.
#[derive(Debug)]
pub(crate) struct Quic {
    endpoint: Endpoint,
    credentials: Credentials,
    transport: Arc<TransportConfig>,
    doors: Doors,
}

impl Quic {
    /// Opens the socket and begins to accept connections of the node's peers.
    pub(crate) fn start(node: &Arc<Node>, settings: QuicSettings) -> Result<Arc<Self>, BindError> {
        let Settings { cluster, node: own, .. } = &node.settings;
        let own_name = certificate_name(cluster, *own);
        let address = settings.listen;
        let credentials = Credentials::load(settings.certificates.clone(), own_name)?;
        let transport = Arc::new(transport_config(node, &settings));
        let mut endpoint_config = EndpointConfig::default();
        let listen = |source| BindError::Listen { address, source };
        endpoint_config
            .max_udp_payload_size(settings.max_udp_payload.clamp(MIN_UDP_PAYLOAD, 6500))
            .map_err(|error| listen(io::Error::other(error)))?;
        let endpoint = socket(address, settings.socket_buffer_bytes)
            .and_then(|socket| Endpoint::new(endpoint_config, None, socket, Arc::new(NodeRuntime)))
            .map_err(listen)?;
        let quic = Arc::new(Self { endpoint, credentials, transport, doors: Doors::default() });
        quic.endpoint.set_server_config(Some(quic.server_config()));
        let accepting = accepting::run(Arc::clone(node), Arc::clone(&quic));
        node.spawn(accepting);
        Ok(quic)
    }

    /// Begins to keep a connection to this peer.
    pub(crate) fn watch(self: &Arc<Self>, node: &Arc<Node>, peer: Arc<Peer>) {
        let (offers, offered) = mpsc::channel(OFFERS);
        self.doors.open(peer.node, offers);
        let (owner, quic) = (Arc::clone(node), Arc::clone(self));
        node.spawn(async move { Supervisor::new(owner, quic, peer, offered).run().await });
    }

    pub(crate) fn doors(&self) -> &Doors {
        &self.doors
    }

    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    pub(crate) fn local_address(&self) -> io::Result<SocketAddr> {
        self.endpoint.local_addr()
    }

    /// Uses the certificates that are in the files now, for connections from now on.
    pub(crate) fn reload_certificates(&self) -> Result<(), CertificateError> {
        let result = self.credentials.reload();
        certificates_reloaded(result.is_ok());
        result?;
        self.endpoint.set_server_config(Some(self.server_config()));
        Ok(())
    }

    pub(crate) fn client_config(&self) -> ClientConfig {
        let mut config = ClientConfig::new(Arc::clone(&self.credentials.current().client) as _);
        config.transport_config(Arc::clone(&self.transport));
        config
    }

    fn server_config(&self) -> ServerConfig {
        let mut config =
            ServerConfig::with_crypto(Arc::clone(&self.credentials.current().server) as _);
        config.transport_config(Arc::clone(&self.transport));
        // Nodes have fixed addresses.
        config.migration(false);
        config
    }

    /// Ends what is left of all connections.
    pub(crate) async fn close(&self) {
        self.endpoint.close(VarInt::from_u32(0), b"the node stops");
        // Who does not hear it finds out by itself.
        let _ = tokio::time::timeout(LAST_WORDS, self.endpoint.wait_idle()).await;
    }
}

fn transport_config(node: &Node, settings: &QuicSettings) -> TransportConfig {
    let lanes = Lanes::of(&node.settings).all().count() as u64;
    let window = settings.stream_window_bytes.max(16 << 10);
    let mut config = TransportConfig::default();
    config
        // The greeting, and one for each lane that a peer may have.
        .max_concurrent_bidi_streams(VarInt::from_u32(1))
        .max_concurrent_uni_streams(VarInt::from_u32(2 * u32::from(MAX_SHARDS) + 2))
        // Each stream has a window of its own, and there is room for all of them: a lane that is
        // not read never takes another's.
        .stream_receive_window(VarInt::from_u32(window))
        .send_window(lanes * u64::from(window))
        .max_idle_timeout(IdleTimeout::try_from(node.settings.idle_timeout).ok())
        .keep_alive_interval(Some(node.settings.idle_timeout / 6))
        .initial_rtt(INITIAL_ROUND_TRIP)
        .datagram_receive_buffer_size(None);
    // Nodes answer each other all the time, and acknowledgements ride on the answers.
    let mut acknowledgements = AckFrequencyConfig::default();
    acknowledgements
        .ack_eliciting_threshold(VarInt::from_u32(PACKETS_UNACKNOWLEDGED))
        .max_ack_delay(Some(ACK_DELAY));
    config.ack_frequency_config(Some(acknowledgements));
    // Nothing is acknowledged before so much is on its way, so a window may not begin with less.
    let mut congestion = CubicConfig::default();
    congestion.initial_window(INITIAL_WINDOW);
    config.congestion_controller_factory(Arc::new(congestion));
    let mut discovery = MtuDiscoveryConfig::default();
    discovery.upper_bound(settings.max_udp_payload.clamp(MIN_UDP_PAYLOAD, 6500));
    config.mtu_discovery_config(Some(discovery));
    config
}

/// A socket with large buffers: with the usual ones a busy receiver loses packets.
fn socket(address: SocketAddr, buffer_bytes: usize) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    // Smaller buffers work as well, only worse.
    let _ = socket.set_send_buffer_size(buffer_bytes);
    let _ = socket.set_recv_buffer_size(buffer_bytes);
    let (sends, receives) = (socket.send_buffer_size()?, socket.recv_buffer_size()?);
    if sends.min(receives) < buffer_bytes {
        tracing::info!(
            sends,
            receives,
            wanted = buffer_bytes,
            "the kernel gives the sockets of nodes small buffers, which costs packets under load; \
             raise net.core.rmem_max and net.core.wmem_max"
        );
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}
