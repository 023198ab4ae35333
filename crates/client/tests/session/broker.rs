//! A broker that does what the test says, one event at a time. Every wait ends after a generous
//! time with a panic that names what was waited for.

use std::fmt::Debug;
use std::future::Future;
use std::time::Duration;

use bytes::BytesMut;
use flintmq_client::{BrokerAddress, Session, SessionEvent, SessionEvents, SessionOptions};
use flintmq_protocol::ack::{AckBuilder, AckMessage, AckStatus};
use flintmq_protocol::compression::Compression;
use flintmq_protocol::confirm::{ConfirmMessage, ConfirmMessages};
use flintmq_protocol::control::{
    BrokerResponse, ClientIdentity, ClientType, CloseQueue, ConfigureStream,
    ConfigureStreamResponse, ControlChoice, ControlMessage, Encoding, NegotiationMessage,
    OpenQueue, OpenQueueResponse, RoutingConfiguration, Status, StatusCategory,
};
use flintmq_protocol::event::{Event, EventType, PACKED_EVENT_SIZE};
use flintmq_protocol::features::BROKER_FEATURES;
use flintmq_protocol::flags::{PushFlags, RoutingFlags};
use flintmq_protocol::frame::FrameDecoder;
use flintmq_protocol::guid::MessageGuid;
use flintmq_protocol::options::sub_queue_id_option;
use flintmq_protocol::push::{PushBuilder, PushHead};
use flintmq_protocol::put::{PutMessage, PutMessages};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// Far longer than anything takes; only a hanging test meets it.
const PATIENCE: Duration = Duration::from_secs(20);

/// Waits for something that must happen.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("did not happen in time: {what}"),
    }
}

/// Where scripted brokers listen.
pub(crate) struct Broker {
    listener: TcpListener,
    pub(crate) address: BrokerAddress,
}

impl Broker {
    pub(crate) async fn listen() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        Self { listener, address: BrokerAddress::tcp("127.0.0.1", port) }
    }

    pub(crate) fn options(&self) -> SessionOptions {
        SessionOptions {
            open_timeout: PATIENCE,
            configure_timeout: PATIENCE,
            close_timeout: PATIENCE,
            reconnect_delay: Duration::from_millis(1),
            reconnect_max_delay: Duration::from_millis(20),
            ..SessionOptions::new([self.address.clone()])
        }
    }

    pub(crate) async fn accept(&self) -> Peer {
        let (stream, _) = soon("the client connects", self.listener.accept()).await.unwrap();
        let decoder = FrameDecoder::new(1 << 30);
        Peer { stream, received: BytesMut::new(), decoder }
    }

    /// The next connection, negotiated.
    pub(crate) async fn accept_session(&self) -> Peer {
        let mut peer = self.accept().await;
        peer.negotiate(response()).await;
        peer
    }

    /// A session and the broker's end of it.
    pub(crate) async fn session(&self) -> (Session, Peer) {
        self.session_with(self.options()).await
    }

    pub(crate) async fn session_with(&self, options: SessionOptions) -> (Session, Peer) {
        let (session, peer) = tokio::join!(Session::connect(options), self.accept_session());
        (session.unwrap(), peer)
    }
}

/// A response that accepts the session.
pub(crate) fn response() -> BrokerResponse {
    BrokerResponse {
        protocol_version: 1,
        broker_identity: ClientIdentity {
            client_type: ClientType::TcpBroker,
            features: BROKER_FEATURES.to_owned(),
            ..ClientIdentity::default()
        },
        ..BrokerResponse::default()
    }
}

/// The broker's end of one connection.
pub(crate) struct Peer {
    stream: TcpStream,
    received: BytesMut,
    decoder: FrameDecoder,
}

impl Peer {
    /// The next event; `None` when the client has closed the connection.
    pub(crate) async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(frame) = self.decoder.decode(&mut self.received).unwrap() {
                return Some(frame.parse().unwrap());
            }
            let read = self.stream.read_buf(&mut self.received);
            match soon("the client sends something", read).await {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    pub(crate) async fn expect(&mut self, event_type: EventType) -> Event {
        let event = self.next().await.expect("the client closed the connection");
        assert_eq!(event.event_type(), event_type);
        event
    }

    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        soon("the client reads", self.stream.write_all(bytes)).await.unwrap();
    }

    /// For clients that may have given up already.
    pub(crate) async fn write_if_open(&mut self, bytes: &[u8]) {
        let _ = soon("the client reads or is gone", self.stream.write_all(bytes)).await;
    }

    /// Answers the negotiation of a client that may have given up already.
    pub(crate) async fn offer(&mut self, response: BrokerResponse) {
        if self.next().await.is_some() {
            let mut out = BytesMut::new();
            let message = NegotiationMessage::BrokerResponse(response);
            message.append_event(Encoding::Ber, &mut out).unwrap();
            self.write_if_open(&out).await;
        }
    }

    pub(crate) async fn identity(&mut self) -> ClientIdentity {
        let event = self.expect(EventType::Control).await;
        match NegotiationMessage::from_event(&event).unwrap() {
            NegotiationMessage::ClientIdentity(identity) => identity,
            other => panic!("expected an identity: {other:?}"),
        }
    }

    pub(crate) async fn negotiate(&mut self, response: BrokerResponse) -> ClientIdentity {
        let identity = self.identity().await;
        let mut out = BytesMut::new();
        let message = NegotiationMessage::BrokerResponse(response);
        message.append_event(Encoding::Ber, &mut out).unwrap();
        self.write(&out).await;
        identity
    }

    pub(crate) async fn request(&mut self) -> (i32, ControlChoice) {
        let event = self.expect(EventType::Control).await;
        let message = ControlMessage::from_event(&event).unwrap();
        (message.r_id.expect("requests have an id"), message.choice)
    }

    pub(crate) async fn reply(&mut self, r_id: i32, choice: ControlChoice) {
        let mut out = BytesMut::new();
        ControlMessage::new(r_id, choice).append_event(Encoding::Ber, &mut out).unwrap();
        self.write(&out).await;
    }

    pub(crate) async fn refuse(&mut self, r_id: i32, message: &str) {
        let status = Status::new(StatusCategory::Refused, -1, message);
        self.reply(r_id, ControlChoice::Status(status)).await;
    }

    pub(crate) async fn expect_open(&mut self) -> (i32, OpenQueue) {
        match self.request().await {
            (r_id, ControlChoice::OpenQueue(open)) => (r_id, open),
            other => panic!("expected an open: {other:?}"),
        }
    }

    pub(crate) async fn grant_open(&mut self, r_id: i32, open: &OpenQueue, memory_ms: i32) {
        let response = OpenQueueResponse {
            original_request: open.clone(),
            routing_configuration: RoutingConfiguration { flags: RoutingFlags::PRIORITY_QUEUE },
            deduplication_time_ms: memory_ms,
        };
        self.reply(r_id, ControlChoice::OpenQueueResponse(response)).await;
    }

    /// Takes an open and grants it.
    pub(crate) async fn opened(&mut self) -> OpenQueue {
        let (r_id, open) = self.expect_open().await;
        self.grant_open(r_id, &open, 300_000).await;
        open
    }

    pub(crate) async fn expect_configure(&mut self) -> (i32, ConfigureStream) {
        match self.request().await {
            (r_id, ControlChoice::ConfigureStream(configure)) => (r_id, configure),
            other => panic!("expected a configure: {other:?}"),
        }
    }

    pub(crate) async fn grant_configure(&mut self, r_id: i32, request: &ConfigureStream) {
        let response = ConfigureStreamResponse { request: request.clone() };
        self.reply(r_id, ControlChoice::ConfigureStreamResponse(response)).await;
    }

    /// Takes a configure and grants it.
    pub(crate) async fn configured(&mut self) -> ConfigureStream {
        let (r_id, configure) = self.expect_configure().await;
        self.grant_configure(r_id, &configure).await;
        configure
    }

    /// Takes a close and grants it.
    pub(crate) async fn closed(&mut self) -> CloseQueue {
        match self.request().await {
            (r_id, ControlChoice::CloseQueue(close)) => {
                self.reply(r_id, ControlChoice::CloseQueueResponse).await;
                close
            }
            other => panic!("expected a close: {other:?}"),
        }
    }

    /// Takes a disconnect and grants it.
    pub(crate) async fn disconnected(&mut self) {
        match self.request().await {
            (r_id, ControlChoice::Disconnect) => {
                self.reply(r_id, ControlChoice::DisconnectResponse).await;
            }
            other => panic!("expected a disconnect: {other:?}"),
        }
    }

    /// The messages of the next events, which are PUTs, until there are `count`.
    pub(crate) async fn puts(&mut self, count: usize) -> Vec<PutMessage> {
        let mut puts = Vec::new();
        while puts.len() < count {
            let event = self.expect(EventType::Put).await;
            puts.extend(PutMessages::new(&event.body).map(|put| put.unwrap()));
        }
        assert_eq!(puts.len(), count);
        puts
    }

    /// The confirmations of the next events, which are CONFIRMs, until there are `count`.
    pub(crate) async fn confirms(&mut self, count: usize) -> Vec<ConfirmMessage> {
        let mut confirms = Vec::new();
        while confirms.len() < count {
            let event = self.expect(EventType::Confirm).await;
            confirms.extend(ConfirmMessages::parse(&event.body).unwrap());
        }
        assert_eq!(confirms.len(), count);
        confirms
    }

    pub(crate) async fn ack(&mut self, puts: &[PutMessage], status: AckStatus) {
        let mut out = BytesMut::new();
        let mut builder = AckBuilder::new(&mut out, PACKED_EVENT_SIZE);
        for put in puts {
            let (guid, queue_id) = (put.guid, put.queue_id);
            builder.append(&AckMessage { status, correlation_id: 0, guid, queue_id });
        }
        self.write(&out).await;
    }

    /// Pushes messages with GUIDs made of one byte each.
    pub(crate) async fn push(&mut self, queue_id: u32, subscription_id: u32, numbers: &[u8]) {
        let mut out = BytesMut::new();
        let mut builder = PushBuilder::new(&mut out, PACKED_EVENT_SIZE);
        for number in numbers {
            let head = PushHead {
                flags: PushFlags::NONE,
                queue_id,
                guid: guid(*number),
                compression: Compression::None,
                schema_wire_id: 0,
            };
            builder.append(&head, &sub_queue_id_option(subscription_id), &[*number]).unwrap();
        }
        self.write(&out).await;
    }
}

pub(crate) fn guid(number: u8) -> MessageGuid {
    MessageGuid([number; 16])
}

/// Waits for an event that fits, over all others.
pub(crate) async fn until_event(
    events: &mut SessionEvents,
    fits: impl Fn(&SessionEvent) -> bool,
) -> SessionEvent {
    loop {
        let event = soon("a session event", events.next()).await.expect("the session has ended");
        if fits(&event) {
            return event;
        }
    }
}

/// The value, or a panic that shows what is there instead.
pub(crate) fn failed<T: Debug, E>(result: Result<T, E>) -> E {
    match result {
        Ok(value) => panic!("expected a failure: {value:?}"),
        Err(error) => error,
    }
}
