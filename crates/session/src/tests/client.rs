//! A client and its session, with a clock that is set by hand.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use flintmq_consensus::Time;
use flintmq_controller::domain::DomainDefinition;
use flintmq_controller::{DomainRecord, DomainVersion, QueuePlace};
use flintmq_partition::{Request, SessionId};
use flintmq_protocol::control::{
    ClientIdentity, ClientLanguage, ClientType, ControlChoice, ControlMessage, Encoding, GuidInfo,
    NegotiationMessage, OpenQueue, QueueHandleParameters, StatusCategory,
};
use flintmq_protocol::event::{Event, EventType};
use flintmq_protocol::flags::QueueFlags;
use flintmq_protocol::frame::FrameDecoder;
use flintmq_queue::{HandleId, QueueId};

use crate::{BrokerIdentity, Effect, Input, OpenId, Placed, Session, SessionSettings};

pub(super) const ID: SessionId = SessionId(5);

/// The partition and the number of the queue at [`Client::place`].
pub(super) const PARTITION: u32 = 3;
pub(super) const QUEUE: QueueId = QueueId(9);

pub(super) struct Client {
    pub(super) session: Session,
    pub(super) now: Time,
    /// How its control messages are written.
    encoding: Encoding,
    requests: i32,
}

impl Client {
    /// Connected, and no more.
    pub(super) fn connect() -> Self {
        let settings = SessionSettings {
            broker: BrokerIdentity {
                cluster: "dev".into(),
                node: 1,
                host: "here".into(),
                process: 7,
            },
            max_event_bytes: 1 << 20,
            negotiation_timeout: Duration::from_secs(10),
            heartbeat_interval: Duration::from_secs(3),
            idle_timeout: Duration::from_secs(30),
        };
        let now = Time::from_millis(1000);
        let session = Session::new(now, ID, 0x0a0b_0c0d, Arc::new(settings));
        Self { session, now, encoding: Encoding::Ber, requests: 0 }
    }

    /// A client that has negotiated.
    pub(super) fn start(identity: &ClientIdentity) -> Self {
        let mut client = Self::connect();
        let effects = client.send(&hello(identity));
        let [Effect::Established(established), Effect::Send(_)] = &effects[..] else {
            panic!("not established: {effects:?}");
        };
        assert_eq!(established.identity, *identity);
        client.encoding = established.encoding;
        client
    }

    /// The session receives bytes.
    pub(super) fn send(&mut self, bytes: &[u8]) -> Vec<Effect> {
        self.session.received().extend_from_slice(bytes);
        self.step(Input::Received)
    }

    /// As [`Self::send`], with one step for each piece of this size.
    pub(super) fn send_in_pieces(&mut self, bytes: &[u8], size: usize) -> Vec<Effect> {
        bytes.chunks(size).flat_map(|piece| self.send(piece)).collect()
    }

    pub(super) fn step(&mut self, input: Input) -> Vec<Effect> {
        self.session.step(self.now, input);
        std::iter::from_fn(|| self.session.next_effect()).collect()
    }

    /// Time passes until the session has something to do.
    pub(super) fn tick(&mut self) -> Vec<Effect> {
        self.now = self.session.deadline().expect("it waits for something");
        self.step(Input::Tick { output_full: false })
    }

    /// A request of the next number, as bytes.
    pub(super) fn request(&mut self, choice: ControlChoice) -> Bytes {
        self.requests += 1;
        let mut bytes = BytesMut::new();
        let message = ControlMessage { r_id: Some(self.requests), choice };
        message.append_event(self.encoding, &mut bytes).unwrap();
        bytes.freeze()
    }

    /// The session receives a request of the next number.
    pub(super) fn ask(&mut self, choice: ControlChoice) -> Vec<Effect> {
        let request = self.request(choice);
        self.send(&request)
    }

    /// The controller has found the queue's place.
    pub(super) fn place(&mut self, open: OpenId) -> Vec<Effect> {
        let definition = DomainDefinition::default_template("shop").unwrap();
        let domain = DomainRecord { id: 1, definition, version: DomainVersion::default() };
        let place = QueuePlace { queue: QUEUE.0, partition: PARTITION, domain: "shop".into() };
        self.step(Input::Placed { open, result: Ok(Box::new(Placed { place, domain })) })
    }

    /// Opens a queue under a queue id, and answers what the session asks for it. Handles count from
    /// ten times the queue id.
    pub(super) fn open(&mut self, queue_id: u32, flags: QueueFlags) {
        let mut effects = self.ask(open_queue(queue_id, flags));
        let mut handle = HandleId(u64::from(queue_id) * 10);
        loop {
            effects = match &effects[..] {
                [Effect::Place(place)] => self.place(place.open),
                [Effect::Open(open)] => {
                    assert_eq!((open.partition, open.queue), (PARTITION, QUEUE));
                    let (open, result) = (open.open, Ok(handle));
                    handle.0 += 1;
                    self.step(Input::Opened { open, result })
                }
                [Effect::HandlesChanged(_), Effect::Send(answer)] => {
                    let answer = control(answer);
                    assert!(matches!(answer.choice, ControlChoice::OpenQueueResponse(_)));
                    return;
                }
                other => panic!("not opened: {other:?}"),
            };
        }
    }
}

/// A client that makes GUIDs and answers heartbeats, as the C++ client.
pub(super) fn cpp() -> ClientIdentity {
    ClientIdentity {
        client_type: ClientType::TcpClient,
        features: "PROTOCOL_ENCODING:BER,JSON;MPS:MESSAGE_PROPERTIES_EX".into(),
        guid_info: GuidInfo { client_id: "629556B3F9F7".into(), ..GuidInfo::default() },
        ..ClientIdentity::default()
    }
}

/// A client that does neither, as the Java client.
pub(super) fn java() -> ClientIdentity {
    ClientIdentity {
        client_type: ClientType::TcpClient,
        features: "PROTOCOL_ENCODING:JSON".into(),
        sdk_language: ClientLanguage::Java,
        ..ClientIdentity::default()
    }
}

pub(super) fn hello(identity: &ClientIdentity) -> Bytes {
    let mut bytes = BytesMut::new();
    let message = NegotiationMessage::ClientIdentity(identity.clone());
    message.append_event(Encoding::Ber, &mut bytes).unwrap();
    bytes.freeze()
}

pub(super) fn open_queue(queue_id: u32, flags: QueueFlags) -> ControlChoice {
    ControlChoice::OpenQueue(OpenQueue { handle_parameters: handle(queue_id, flags) })
}

pub(super) fn handle(queue_id: u32, flags: QueueFlags) -> QueueHandleParameters {
    QueueHandleParameters {
        uri: format!("bmq://shop/orders{queue_id}"),
        q_id: queue_id,
        sub_id_info: None,
        flags,
        read_count: i32::from(flags.contains(QueueFlags::READ)),
        write_count: i32::from(flags.contains(QueueFlags::WRITE)),
        admin_count: 0,
    }
}

/// The one event that these bytes are.
pub(super) fn event(bytes: &Bytes) -> Event {
    let mut bytes = BytesMut::from(&bytes[..]);
    let frame = FrameDecoder::new(1 << 20).decode(&mut bytes).unwrap().expect("a whole event");
    assert!(bytes.is_empty(), "one event");
    frame.parse().unwrap()
}

/// The control message that these bytes are.
pub(super) fn control(bytes: &Bytes) -> ControlMessage {
    let event = event(bytes);
    assert_eq!(event.event_type(), EventType::Control);
    ControlMessage::from_event(&event).unwrap()
}

/// The one effect is a refusal of this request.
pub(super) fn assert_refused(effects: &[Effect], request_id: i32, category: StatusCategory) {
    let [Effect::Send(answer)] = effects else { panic!("not refused: {effects:?}") };
    let answer = control(answer);
    assert_eq!(answer.r_id, Some(request_id));
    let ControlChoice::Status(status) = answer.choice else { panic!("no status: {answer:?}") };
    assert_eq!(status.category, category, "{}", status.message);
}

/// The one effect hands a request to [`PARTITION`].
pub(super) fn to_partition(effect: &Effect) -> (&Request, usize) {
    match effect {
        Effect::ToPartition { partition: PARTITION, request, unanswered } => (request, *unanswered),
        other => panic!("not for the partition: {other:?}"),
    }
}
