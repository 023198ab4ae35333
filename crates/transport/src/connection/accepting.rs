//! Connections that other nodes dial: greeted, checked, and offered to the peer's supervisor.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use flintmq_consensus::NodeId;
use quinn::{Connection, ConnectionError, Incoming, SendStream, VarInt};
use rustls_pki_types::CertificateDer;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, timeout};

use super::Quic;
use super::hello::{Hello, HelloError, Refusal, Reply};
use crate::certificates::{certificate_name, is_for};
use crate::metrics::connection_refused;
use crate::node::Node;

/// Greetings at one time. Whoever has no certificate of the cluster gets no further than this.
const GREETINGS: usize = 64;
/// While fewer than this are free, an address must first show that it is real.
const SPARE_GREETINGS: usize = 32;
/// How long a refused node has to read why.
const FAREWELL: Duration = Duration::from_secs(1);

/// Refusals are told to the log no more often than this; the metric counts all of them.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// Where connections of each peer are offered.
#[derive(Debug, Default)]
pub(crate) struct Doors {
    offers: Mutex<HashMap<NodeId, mpsc::Sender<Offer>>>,
    /// When a refusal was told last.
    told: Mutex<Option<Instant>>,
}

/// A connection that was checked, but not answered yet.
#[derive(Debug)]
pub(crate) struct Offer {
    pub(crate) connection: Connection,
    pub(crate) incarnation: u64,
    pub(crate) version: u16,
    pub(crate) formation: u64,
    pub(crate) answer: SendStream,
}

impl Doors {
    pub(crate) fn open(&self, peer: NodeId, offers: mpsc::Sender<Offer>) {
        self.offers.lock().unwrap_or_else(PoisonError::into_inner).insert(peer, offers);
    }

    pub(crate) fn close(&self, peer: NodeId) {
        self.offers.lock().unwrap_or_else(PoisonError::into_inner).remove(&peer);
    }

    /// Whether this refusal is one for the log: anybody who reaches the port can cause them.
    fn is_worth_telling(&self) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = told.is_none_or(|told| told.elapsed() >= TELL_EVERY);
        if is_due {
            *told = Some(Instant::now());
        }
        is_due
    }

    fn of(&self, peer: NodeId) -> Option<mpsc::Sender<Offer>> {
        self.offers.lock().unwrap_or_else(PoisonError::into_inner).get(&peer).cloned()
    }
}

/// Accepts until the node stops.
pub(crate) async fn run(node: Arc<Node>, quic: Arc<Quic>) {
    let greetings = Arc::new(Semaphore::new(GREETINGS));
    loop {
        let incoming = tokio::select! {
            () = node.stop.cancelled() => return,
            incoming = quic.endpoint().accept() => incoming,
        };
        let Some(incoming) = incoming else { return };
        if greetings.available_permits() < SPARE_GREETINGS && incoming.may_retry() {
            // Nothing can be done about a packet that is not sent; the other side repeats its own.
            let _ = incoming.retry();
            continue;
        }
        let Ok(permit) = Arc::clone(&greetings).try_acquire_owned() else {
            connection_refused("busy");
            incoming.refuse();
            continue;
        };
        let (greeted_by, quic) = (Arc::clone(&node), Arc::clone(&quic));
        node.spawn(async move {
            let _permit = permit;
            let limit = greeted_by.settings.dial_timeout;
            tokio::select! {
                () = greeted_by.stop.cancelled() => {}
                // Dropping the greeting closes its connection.
                _ = timeout(limit, greet(&greeted_by, &quic, incoming)) => {}
            }
        });
    }
}

async fn greet(node: &Node, quic: &Quic, incoming: Incoming) {
    let address = incoming.remote_address();
    let connection = match async { incoming.accept()?.await }.await {
        Ok(connection) => connection,
        Err(error) if is_given_up(&error) => {
            tracing::debug!(%address, "whoever dialled gave the attempt up");
            return;
        }
        Err(error) => {
            connection_refused("handshake");
            if quic.doors().is_worth_telling() {
                tracing::warn!(
                    %address, %error,
                    "refused a connection to the port of nodes; if a node of this cluster \
                     dialled, give it a certificate of the cluster's authority"
                );
            }
            return;
        }
    };
    let (answer, hello) = match hear(&connection).await {
        Ok(heard) => heard,
        Err(error) => {
            connection_refused("greeting");
            if quic.doors().is_worth_telling() {
                tracing::warn!(%address, %error, "refused a connection to the port of nodes");
            }
            return;
        }
    };
    match check(node, quic, &connection, &hello) {
        Ok((offers, version)) => {
            let Hello { incarnation, formation, .. } = hello;
            let offer = Offer { connection, incarnation, version, formation, answer };
            if let Err(error) = offers.try_send(offer) {
                let (mpsc::error::TrySendError::Full(offer)
                | mpsc::error::TrySendError::Closed(offer)) = error;
                refuse(&offer.connection, offer.answer, Refusal::Busy).await;
            }
        }
        Err(refusal) => {
            if quic.doors().is_worth_telling() {
                tracing::warn!(
                    %address, peer = %hello.from, reason = refusal.label(),
                    "refused a connection of a node; its own log says what to do"
                );
            }
            refuse(&connection, answer, refusal).await;
        }
    }
}

/// Whether the other side closed the connection for reasons of its own before it was made: it has
/// another one by now, or stops. In a handshake that has a code of its own (RFC 9000, section
/// 10.2.3).
fn is_given_up(error: &ConnectionError) -> bool {
    const APPLICATION_ERROR: u64 = 0x0c;
    match error {
        ConnectionError::ConnectionClosed(close) => {
            u64::from(close.error_code) == APPLICATION_ERROR
        }
        _ => false,
    }
}

async fn hear(connection: &Connection) -> Result<(SendStream, Hello), HelloError> {
    let (answer, mut stream) = connection.accept_bi().await.map_err(std::io::Error::from)?;
    Ok((answer, Hello::receive(&mut stream).await?))
}

/// Whether whoever dialled is the peer that it says it is, and where its connections are taken.
fn check(
    node: &Node,
    quic: &Quic,
    connection: &Connection,
    hello: &Hello,
) -> Result<(mpsc::Sender<Offer>, u16), Refusal> {
    let settings = &node.settings;
    if hello.cluster != settings.cluster {
        return Err(Refusal::OtherCluster { theirs: settings.cluster.clone() });
    }
    let name = certificate_name(&settings.cluster, hello.from);
    let shown = connection
        .peer_identity()
        .and_then(|identity| identity.downcast::<Vec<CertificateDer<'static>>>().ok());
    let is_proven = shown.and_then(|chain| chain.first().map(|own| is_for(own, &name)));
    if is_proven != Some(true) {
        return Err(Refusal::Identity { name });
    }
    if hello.to != settings.node {
        return Err(Refusal::OtherNode { answers: settings.node });
    }
    let offers = quic.doors().of(hello.from).ok_or(Refusal::UnknownNode)?;
    Ok((offers, hello.version()?))
}

/// Says why, waits until it is read, and closes.
pub(crate) async fn refuse(connection: &Connection, mut answer: SendStream, refusal: Refusal) {
    connection_refused(refusal.label());
    let code = VarInt::from_u32(refusal.code().into());
    let text = refusal.to_string();
    let told = async {
        // Whatever fails here, the connection is closed, and its code says the same.
        let _ = Reply::Refused(refusal).send(&mut answer).await;
        connection.closed().await
    };
    let _ = timeout(FAREWELL, told).await;
    connection.close(code, text.as_bytes());
}
