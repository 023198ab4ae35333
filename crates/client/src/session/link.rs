//! One connection: dialling, TLS, negotiation.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use flintmq_protocol::control::{
    BrokerResponse, ClientIdentity, ClientLanguage, ClientType, DEVELOPMENT_VERSION, Encoding,
    GuidInfo, NegotiationMessage,
};
use flintmq_protocol::event::{EventType, HEARTBEAT_RESPONSE};
use flintmq_protocol::features::{CLIENT_FEATURES, Features};
use flintmq_protocol::frame::FrameDecoder;
use flintmq_protocol::guid::ClientId;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::address::{BrokerAddress, Scheme};
use crate::options::{Heartbeat, SessionOptions};
use crate::session::core::BrokerFeatures;
use crate::tls;

/// A negotiated connection.
pub(crate) struct Link {
    pub(crate) broker: BrokerAddress,
    pub(crate) reader: Box<dyn AsyncRead + Send + Unpin>,
    pub(crate) writer: Box<dyn AsyncWrite + Send + Unpin>,
    /// What has been read behind the negotiation already.
    pub(crate) received: BytesMut,
    pub(crate) features: BrokerFeatures,
    /// Length of a silent interval, and how many are too many.
    pub(crate) heartbeat: Option<(Duration, u32)>,
}

/// Why an address gave no session.
#[derive(Debug, Error)]
pub(crate) enum DialError {
    #[error("cannot connect: {0}")]
    Connect(std::io::Error),
    #[error("the TLS handshake failed: {0}")]
    Handshake(std::io::Error),
    #[error(transparent)]
    Tls(#[from] tls::TlsError),
    #[error("the connection broke during negotiation: {0}")]
    Broken(std::io::Error),
    #[error("the broker closed the connection during negotiation")]
    Closed,
    #[error("the peer does not speak the protocol: {0}")]
    NotABroker(String),
    #[error("the broker refused the session category={category} reason={message:?}")]
    Refused { category: flintmq_protocol::control::StatusCategory, message: String },
    #[error("no answer in time waited={0:?}")]
    TimedOut(Duration),
}

/// Who this client is, the same at every reconnect.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    client_id: ClientId,
    session_id: i32,
    epoch_ns: i64,
}

impl Identity {
    /// A new one, with a client id that no other session has.
    pub(crate) fn new() -> Self {
        static SESSIONS: AtomicI32 = AtomicI32::new(1);
        let session_id = SESSIONS.fetch_add(1, Ordering::Relaxed);
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default()
            .as_nanos();
        let random = random_number(session_id).to_be_bytes();
        let client_id =
            ClientId([random[0], random[1], random[2], random[3], random[4], random[5]]);
        Self { client_id, session_id, epoch_ns: i64::try_from(now).unwrap_or(i64::MAX) }
    }

    pub(crate) const fn client_id(&self) -> ClientId {
        self.client_id
    }

    fn message(&self, options: &SessionOptions) -> NegotiationMessage {
        NegotiationMessage::ClientIdentity(ClientIdentity {
            protocol_version: 1,
            // BlazingMQ brokers refuse C++ clients with lower numbers; this one passes as current.
            sdk_version: DEVELOPMENT_VERSION,
            client_type: ClientType::TcpClient,
            process_name: options.process_name.clone(),
            pid: i32::try_from(std::process::id()).unwrap_or(0),
            session_id: self.session_id,
            features: CLIENT_FEATURES.to_owned(),
            // There is no name for other languages, and this client behaves as the C++ one does.
            sdk_language: ClientLanguage::Cpp,
            guid_info: GuidInfo {
                client_id: self.client_id.to_string(),
                nano_seconds_from_epoch: self.epoch_ns,
            },
            user_agent: concat!("flintmq-client/", env!("CARGO_PKG_VERSION")).to_owned(),
            ..ClientIdentity::default()
        })
    }
}

/// A number that differs from call to call and from process to process: a hash of time, process and
/// `salt` under the random key that the standard library makes.
pub(crate) fn random_number(salt: impl std::hash::Hash) -> u64 {
    use std::hash::BuildHasher as _;
    let now = std::time::SystemTime::now();
    std::hash::RandomState::new().hash_one((now, std::process::id(), salt))
}

/// Connects to one address and negotiates, within the attempt's time.
pub(crate) async fn dial(
    broker: &BrokerAddress,
    options: &SessionOptions,
    tls: Option<&Arc<rustls::ClientConfig>>,
    identity: &Identity,
) -> Result<Link, DialError> {
    let limit = options.attempt_timeout;
    match tokio::time::timeout(limit, dial_untimed(broker, options, tls, identity)).await {
        Ok(result) => result,
        Err(_) => Err(DialError::TimedOut(limit)),
    }
}

async fn dial_untimed(
    broker: &BrokerAddress,
    options: &SessionOptions,
    tls: Option<&Arc<rustls::ClientConfig>>,
    identity: &Identity,
) -> Result<Link, DialError> {
    let stream =
        TcpStream::connect((broker.host(), broker.port())).await.map_err(DialError::Connect)?;
    stream.set_nodelay(true).map_err(DialError::Connect)?;
    let (mut reader, mut writer): (
        Box<dyn AsyncRead + Send + Unpin>,
        Box<dyn AsyncWrite + Send + Unpin>,
    ) = match broker.scheme() {
        Scheme::Tcp => {
            let (reader, writer) = stream.into_split();
            (Box::new(reader), Box::new(writer))
        }
        Scheme::Tls => {
            let config = tls.ok_or(tls::TlsError::NoAuthority)?;
            let name = tls::server_name(&options.tls, broker.host())?;
            let stream = TlsConnector::from(Arc::clone(config))
                .connect(name, stream)
                .await
                .map_err(DialError::Handshake)?;
            let (reader, writer) = tokio::io::split(stream);
            (Box::new(reader), Box::new(writer))
        }
    };
    let mut hello = BytesMut::new();
    identity
        .message(options)
        .append_event(Encoding::Ber, &mut hello)
        .map_err(|error| DialError::NotABroker(error.to_string()))?;
    writer.write_all(&hello).await.map_err(DialError::Broken)?;
    writer.flush().await.map_err(DialError::Broken)?;

    let mut received = BytesMut::new();
    let response = read_response(&mut reader, &mut writer, &mut received).await?;
    if !response.result.is_success() {
        let status = response.result;
        return Err(DialError::Refused { category: status.category, message: status.message });
    }
    let features = Features::new(&response.broker_identity.features);
    Ok(Link {
        broker: broker.clone(),
        reader,
        writer,
        received,
        features: BrokerFeatures {
            extended_properties: features.extended_properties(),
            subscriptions: features.configure_stream(),
        },
        heartbeat: heartbeat(options.heartbeat, &response),
    })
}

async fn read_response(
    reader: &mut (impl AsyncRead + Unpin),
    writer: &mut (impl AsyncWrite + Unpin),
    received: &mut BytesMut,
) -> Result<BrokerResponse, DialError> {
    let not_a_broker = |error: &dyn std::fmt::Display| DialError::NotABroker(error.to_string());
    let mut decoder = FrameDecoder::before_negotiation();
    loop {
        while let Some(frame) = decoder.decode(received).map_err(|error| not_a_broker(&error))? {
            let event = frame.parse().map_err(|error| not_a_broker(&error))?;
            match event.event_type() {
                EventType::HeartbeatRequest => {
                    writer.write_all(&HEARTBEAT_RESPONSE).await.map_err(DialError::Broken)?;
                    writer.flush().await.map_err(DialError::Broken)?;
                }
                EventType::HeartbeatResponse => {}
                _ => {
                    let message = NegotiationMessage::from_event(&event)
                        .map_err(|error| not_a_broker(&error))?;
                    let NegotiationMessage::BrokerResponse(response) = message else {
                        return Err(DialError::NotABroker("it answers like a client".to_owned()));
                    };
                    return Ok(response);
                }
            }
        }
        if reader.read_buf(received).await.map_err(DialError::Broken)? == 0 {
            return Err(DialError::Closed);
        }
    }
}

fn heartbeat(wish: Heartbeat, response: &BrokerResponse) -> Option<(Duration, u32)> {
    match wish {
        Heartbeat::Off => None,
        Heartbeat::Every { interval, max_missed } => {
            (!interval.is_zero()).then_some((interval, max_missed.max(1)))
        }
        Heartbeat::FromBroker => {
            let interval = u64::try_from(response.heartbeat_interval_ms).ok()?;
            let missed = u32::try_from(response.max_missed_heartbeats).ok()?;
            // (0, n) is what no broker should announce, and (n, 0) switches the monitor off.
            (interval > 0 && missed > 0).then(|| (Duration::from_millis(interval), missed))
        }
    }
}
