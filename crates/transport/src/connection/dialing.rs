//! One attempt to connect to a peer.

use std::io;
use std::net::SocketAddr;

use quinn::{ConnectError, Connection, ConnectionError, VarInt};
use thiserror::Error;
use tokio::net::lookup_host;
use tokio::time::timeout;

use super::Quic;
use super::hello::{Hello, HelloError, Refusal, Reply, VERSIONS};
use crate::certificates::certificate_name;
use crate::node::Node;
use crate::peer::Peer;

/// A connection that the peer has welcomed.
#[derive(Debug)]
pub(crate) struct Welcomed {
    pub(crate) connection: Connection,
    pub(crate) incarnation: u64,
    pub(crate) version: u16,
    pub(crate) formation: u64,
}

/// Why an attempt failed. The texts are for the log and for [`crate::PeerStatus`].
#[derive(Debug, Error)]
pub(crate) enum DialError {
    #[error("cannot find the peer's address; check it, and the name service: {0}")]
    Lookup(io::Error),
    #[error(
        "the peer's name has no address that this node's socket reaches; listen on [::]:PORT for both kinds"
    )]
    NoAddress,
    #[error("cannot dial the peer: {0}")]
    Connect(#[from] ConnectError),
    #[error("no answer from the peer; check that it runs, its address, and that UDP passes")]
    NoAnswer,
    #[error(
        "the two nodes do not accept each other's certificates; both need one of the same \
         authority, the peer's with the DNS name {name}: {source}"
    )]
    Certificate { name: String, source: ConnectionError },
    #[error("the connection failed: {0}")]
    Connection(ConnectionError),
    #[error(transparent)]
    Hello(#[from] HelloError),
    #[error("{0}")]
    Refused(Refusal),
}

/// Dials, greets, and waits for the welcome. Dropping the future gives the attempt up.
pub(crate) async fn dial(
    node: &Node,
    quic: &Quic,
    peer: &Peer,
    attempt: usize,
) -> Result<Welcomed, DialError> {
    match timeout(node.settings.dial_timeout, try_to(node, quic, peer, attempt)).await {
        Ok(result) => result,
        Err(_) => Err(DialError::NoAnswer),
    }
}

async fn try_to(
    node: &Node,
    quic: &Quic,
    peer: &Peer,
    attempt: usize,
) -> Result<Welcomed, DialError> {
    let settings = &node.settings;
    let address = find(quic, &peer.address, attempt).await?;
    let name = certificate_name(&settings.cluster, peer.node);
    let failed = |error: ConnectionError| match error {
        ConnectionError::TimedOut => DialError::NoAnswer,
        source if is_about_certificates(&source) => {
            DialError::Certificate { name: name.clone(), source }
        }
        error => DialError::Connection(error),
    };
    let connection = quic
        .endpoint()
        .connect_with(quic.client_config(), address, &name)?
        .await
        .map_err(failed)?;
    let hello = Hello {
        cluster: settings.cluster.clone(),
        from: settings.node,
        to: peer.node,
        incarnation: settings.incarnation,
        versions: VERSIONS,
        formation: node.formation(),
    };
    let reply = match greet(&connection, &hello).await {
        Ok(reply) => reply,
        // The peer looks at this node's certificate only now.
        Err(error) => return Err(connection.close_reason().map_or_else(|| error.into(), failed)),
    };
    match reply {
        Reply::Welcome { incarnation, version, formation } => {
            Ok(Welcomed { connection, incarnation, version, formation })
        }
        Reply::Refused(refusal) => {
            connection.close(VarInt::from_u32(0), b"");
            Err(DialError::Refused(refusal))
        }
    }
}

async fn greet(connection: &Connection, hello: &Hello) -> Result<Reply, HelloError> {
    let (mut stream, mut answer) = connection.open_bi().await.map_err(io::Error::from)?;
    hello.send(&mut stream).await?;
    Reply::receive(&mut answer).await
}

/// One of the addresses, another with each attempt.
async fn find(quic: &Quic, address: &str, attempt: usize) -> Result<SocketAddr, DialError> {
    let is_only_v4 = quic.local_address().is_ok_and(|own| own.is_ipv4());
    let found = lookup_host(address).await.map_err(DialError::Lookup)?;
    let usable: Vec<_> = found.filter(|found| found.is_ipv4() || !is_only_v4).collect();
    let choice = attempt.checked_rem(usable.len()).ok_or(DialError::NoAddress)?;
    usable.get(choice).copied().ok_or(DialError::NoAddress)
}

/// Alerts of TLS have codes of their own range (RFC 9001, section 4.8).
fn is_about_certificates(error: &ConnectionError) -> bool {
    let code = match error {
        ConnectionError::TransportError(error) => u64::from(error.code),
        ConnectionError::ConnectionClosed(close) => u64::from(close.error_code),
        _ => return false,
    };
    (0x100..0x200).contains(&code)
}
