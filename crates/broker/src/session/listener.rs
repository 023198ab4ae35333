//! Accepts clients' connections: bounded in number, each in a task of its own, TLS where the
//! listener says so.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::SessionMetrics;
use super::connection;
use super::context::SessionContext;
use crate::config::{ListenScheme, ListenUrl};
use crate::tls::TlsIdentity;

/// A bound listener, before it accepts.
pub(crate) struct Listener {
    socket: TcpListener,
    tls: Option<Arc<TlsIdentity>>,
    scheme: ListenScheme,
    address: SocketAddr,
}

/// Why a listener cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot listen for clients: is the port in use by another process? url={url} reason={source}"
)]
pub struct ListenError {
    url: String,
    source: std::io::Error,
}

impl Listener {
    /// Binds each address that the URL's host stands for: `localhost` is 127.0.0.1 and ::1. `tls`
    /// must be there for a `tls://` address.
    ///
    /// # Errors
    /// An address is in use, or there is none that this machine has.
    pub(crate) async fn bind(
        url: &ListenUrl,
        tls: Option<Arc<TlsIdentity>>,
    ) -> Result<Vec<Self>, ListenError> {
        let failed = |source| ListenError { url: url.to_string(), source };
        let resolved = tokio::net::lookup_host(url.socket_text()).await.map_err(failed)?;
        let addresses: BTreeSet<SocketAddr> = resolved.collect();
        let mut listeners: Vec<Self> = Vec::new();
        let mut missing = None;
        for mut address in addresses {
            // Where the system chooses the port, it is the same at all addresses.
            if let Some(first) = listeners.first() {
                address.set_port(first.address.port());
            }
            match TcpListener::bind(address).await {
                Ok(socket) => {
                    let (tls, scheme) = (tls.clone(), url.scheme);
                    let address = socket.local_addr().map_err(failed)?;
                    listeners.push(Self { socket, tls, scheme, address });
                }
                // A name may stand for ::1 on a machine without IPv6.
                Err(error) if error.kind() == ErrorKind::AddrNotAvailable => {
                    tracing::info!(%url, %address, "this machine does not have the address");
                    missing = Some(error);
                }
                Err(error) => return Err(failed(error)),
            }
        }
        if listeners.is_empty() {
            return Err(failed(missing.unwrap_or_else(|| ErrorKind::NotFound.into())));
        }
        Ok(listeners)
    }

    /// Where it listens, with the port that the system chose where none was given.
    pub(crate) fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    /// Accepts until `stop`. Sessions outlive it.
    pub(crate) async fn run(
        self,
        context: Arc<SessionContext>,
        permits: Arc<Semaphore>,
        stop: CancellationToken,
    ) {
        let mut refused = 0_u64;
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => return,
                accepted = self.socket.accept() => accepted,
            };
            let (socket, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of file descriptors, mostly: serve those who are there and try again.
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            match Arc::clone(&permits).try_acquire_owned() {
                Ok(permit) => {
                    refused = 0;
                    SessionMetrics::accepted(self.scheme.as_str());
                    let serving =
                        serve(socket, peer, self.tls.clone(), Arc::clone(&context), permit);
                    context.tasks().spawn(serving);
                }
                Err(_) => {
                    refused += 1;
                    SessionMetrics::refused("max_connections");
                    if refused.is_power_of_two() {
                        tracing::warn!(%peer, refused, "connection closed: limits.max_connections is reached");
                    }
                }
            }
        }
    }
}

async fn serve(
    socket: TcpStream,
    peer: SocketAddr,
    tls: Option<Arc<TlsIdentity>>,
    context: Arc<SessionContext>,
    _permit: OwnedSemaphorePermit,
) {
    if let Err(error) = prepare(&socket) {
        tracing::debug!(%peer, %error, "connection lost at once");
        return;
    }
    let Some(tls) = tls else {
        return connection::run(socket, peer, context).await;
    };
    let limit = context.limits().negotiation_timeout;
    match tokio::time::timeout(limit, TlsAcceptor::from(tls.current()).accept(socket)).await {
        Ok(Ok(stream)) => connection::run(stream, peer, context).await,
        Ok(Err(error)) => {
            SessionMetrics::refused("tls");
            tracing::info!(%peer, %error, "connection closed: the TLS handshake failed");
        }
        Err(_) => {
            SessionMetrics::refused("timeout");
            tracing::info!(%peer, "connection closed: no TLS handshake in time");
        }
    }
}

/// Small events must not wait for more, and a peer that vanished must be noticed some day.
fn prepare(socket: &TcpStream) -> std::io::Result<()> {
    socket.set_nodelay(true)?;
    let keepalive = socket2::TcpKeepalive::new()
        .with_time(Duration::from_secs(60))
        .with_interval(Duration::from_secs(10));
    socket2::SockRef::from(socket).set_tcp_keepalive(&keepalive)
}

#[cfg(test)]
mod tests {
    use std::net::ToSocketAddrs as _;

    use super::*;

    #[tokio::test]
    async fn every_address_of_a_name_is_listened_at() {
        let url: ListenUrl = "tcp://localhost:0".parse().unwrap();
        let listeners = Listener::bind(&url, None).await.unwrap();
        let port = listeners[0].address.port();
        assert!(listeners.iter().all(|listener| listener.address.port() == port));
        // As far as the machine has them.
        for address in ("localhost", 0).to_socket_addrs().unwrap() {
            if std::net::TcpListener::bind(address).is_ok() {
                let address = SocketAddr::new(address.ip(), port);
                assert!(listeners.iter().any(|listener| listener.address == address), "{address}");
            }
        }
    }

    #[tokio::test]
    async fn an_address_that_this_machine_does_not_have_is_refused() {
        // Documentation's addresses: nobody has them.
        let url: ListenUrl = "tcp://192.0.2.1:0".parse().unwrap();
        assert!(Listener::bind(&url, None).await.is_err());
    }
}
