//! Whole sessions over a socket in memory, with a clock that jumps to the next deadline whenever
//! nothing is left to do: what is waited for is seen exactly.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use bytes::BytesMut;
use flintmq_protocol::control::{
    ClientIdentity, ClientLanguage, ClientType, ControlChoice, ControlMessage, Encoding,
    NegotiationMessage,
};
use flintmq_protocol::event::{Event, Frame};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::negotiation::BrokerIdentity;
use super::{SessionContext, connection, farewell};
use crate::config::{LimitsSection, UndefinedDomain};
use crate::controller::{Controller, Metadata, Policy, Roster};
use crate::replica::ReplicaStatus;

/// One client at a node without partitions.
struct Client {
    socket: DuplexStream,
    session: JoinHandle<()>,
    context: Arc<SessionContext>,
}

fn context() -> Arc<SessionContext> {
    let policy = Policy { undefined: UndefinedDomain::Create, partitions: 0, max_queues: 1 };
    let controller = Controller::new(
        Arc::new(RwLock::new(Metadata::default())),
        watch::channel(ReplicaStatus::default()).1,
        mpsc::channel(1).0,
        watch::channel(Arc::new(Roster::default())).1,
        watch::channel(BTreeSet::new()).1,
        policy,
    );
    let broker = BrokerIdentity { cluster: "dev".into(), node: 1, host: "here".into() };
    let (limits, closing) = (LimitsSection::default(), CancellationToken::new());
    Arc::new(SessionContext::new(limits, broker, controller, Vec::new(), 1, closing))
}

fn identity() -> ClientIdentity {
    ClientIdentity {
        client_type: ClientType::TcpClient,
        sdk_language: ClientLanguage::Java,
        process_name: "orders".into(),
        user_agent: "bmq-sdk/1.2 (Java)".into(),
        ..ClientIdentity::default()
    }
}

impl Client {
    /// Connects and negotiates.
    async fn start(identity: ClientIdentity) -> Self {
        let context = context();
        let (socket, node) = tokio::io::duplex(1 << 16);
        let peer = SocketAddr::from(([10, 0, 0, 7], 4242));
        let session = tokio::spawn(connection::run(node, peer, Arc::clone(&context)));
        let mut client = Self { socket, session, context };
        let mut hello = BytesMut::new();
        let message = NegotiationMessage::ClientIdentity(identity);
        message.append_event(Encoding::Ber, &mut hello).unwrap();
        client.socket.write_all(&hello).await.unwrap();
        let answer = client.receive().await;
        NegotiationMessage::from_event(&answer).unwrap();
        client
    }

    /// Says goodbye, and reads the answer.
    async fn disconnect(&mut self) {
        let mut request = BytesMut::new();
        let message = ControlMessage { r_id: Some(7), choice: ControlChoice::Disconnect };
        message.append_event(Encoding::Ber, &mut request).unwrap();
        self.socket.write_all(&request).await.unwrap();
        let answer = ControlMessage::from_event(&self.receive().await).unwrap();
        assert_eq!((answer.r_id, answer.choice), (Some(7), ControlChoice::DisconnectResponse));
    }

    async fn receive(&mut self) -> Event {
        let mut length = [0; 4];
        self.socket.read_exact(&mut length).await.unwrap();
        let mut event = vec![0; u32::from_be_bytes(length) as usize];
        event[..4].copy_from_slice(&length);
        self.socket.read_exact(&mut event[4..]).await.unwrap();
        Frame::new(event.into()).unwrap().parse().unwrap()
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_goodbye_the_node_is_silent_and_leaves_the_close_to_the_client() {
    let mut client = Client::start(identity()).await;
    let began = Instant::now();
    client.disconnect().await;
    let mut rest = Vec::new();
    client.socket.read_to_end(&mut rest).await.unwrap();
    assert!(rest.is_empty(), "nothing follows the answer to a disconnect");
    assert_eq!(began.elapsed(), farewell::PATIENCE, "a client that does not close is left then");
    client.session.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_session_is_over_as_soon_as_its_client_has_closed() {
    let mut client = Client::start(identity()).await;
    let began = Instant::now();
    client.disconnect().await;
    drop(client.socket);
    client.session.await.unwrap();
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_stopping_node_waits_for_no_client_that_has_said_goodbye() {
    let mut client = Client::start(identity()).await;
    client.disconnect().await;
    let began = Instant::now();
    client.context.closing.cancel();
    client.session.await.unwrap();
    assert_eq!(began.elapsed(), Duration::ZERO);
}
