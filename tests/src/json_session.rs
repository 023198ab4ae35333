//! A client that negotiates JSON and has correlation ids instead of GUIDs, as the Java client does.
//!
//! Control messages are JSON text made here; data events are taken apart by their published layout.

use std::collections::VecDeque;

use serde_json::{Value, json};

use crate::broker_process::Broker;
use crate::wire::{self, RawClient, RawEvent};

const JSON: u8 = 0x20;

/// A negotiated session.
#[derive(Debug)]
pub struct JsonSession {
    client: RawClient,
    next_request: u64,
    /// What the broker said about itself.
    pub broker_response: Value,
    data: VecDeque<RawEvent>,
}

/// One acknowledgement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acknowledgement {
    /// 0 is success; 1 and 2 are the limits of messages and bytes, 5 any other failure.
    pub status: u8,
    /// The correlation id of the message.
    pub correlation: u32,
    /// The GUID that the broker made for it.
    pub guid: [u8; 16],
    /// The client's own number of the queue.
    pub queue: u32,
}

/// One delivered message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The client's own number of the queue.
    pub queue: u32,
    /// The GUID to confirm.
    pub guid: [u8; 16],
    /// The subscription that it is for.
    pub subscription: u32,
    /// Properties and payload as they came.
    pub data: Vec<u8>,
}

/// What comes without being asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DataEvent {
    /// Acknowledgements of published messages.
    Acknowledgements(Vec<Acknowledgement>),
    /// Delivered messages.
    Deliveries(Vec<Delivery>),
}

/// The identity that the session shows.
pub fn identity() -> Value {
    json!({"clientIdentity": {
        "protocolVersion": 1, "sdkVersion": 999_999, "clientType": "E_TCPCLIENT",
        "processName": "json_session", "pid": 1, "sessionId": 1, "hostName": "localhost",
        "features": "PROTOCOL_ENCODING:JSON;MPS:MESSAGE_PROPERTIES_EX",
        "clusterName": "", "clusterNodeId": -1, "sdkLanguage": "E_JAVA"
    }})
}

/// A control event with this message in JSON.
pub fn control(message: &Value) -> Vec<u8> {
    let mut body = message.to_string().into_bytes();
    wire::pad(&mut body);
    wire::event(wire::CONTROL, JSON, &body)
}

/// The message of a JSON control event.
///
/// # Panics
/// When it is not one.
#[track_caller]
pub fn read_control(event: &RawEvent) -> Value {
    assert_eq!((event.kind, event.encoding), (wire::CONTROL, JSON), "not JSON: {event:?}");
    let padding = usize::from(*event.body.last().expect("a body"));
    assert!((1..=4).contains(&padding) && event.body.len().is_multiple_of(4), "bad padding");
    serde_json::from_slice(&event.body[..event.body.len() - padding]).expect("JSON")
}

impl JsonSession {
    /// Connects and negotiates.
    ///
    /// # Panics
    /// When the broker refuses.
    #[track_caller]
    pub fn start(broker: &Broker) -> Self {
        Self::negotiate(RawClient::over(broker.connect()))
    }

    /// Negotiates over a connection.
    ///
    /// # Panics
    /// When the broker refuses.
    #[track_caller]
    pub fn negotiate(mut client: RawClient) -> Self {
        client.send(&control(&identity())).expect("sent");
        let answer = client.receive().expect("an answer to the negotiation");
        let broker_response = read_control(&answer)["brokerResponse"].clone();
        assert_eq!(broker_response["result"]["category"], "E_SUCCESS", "{broker_response}");
        Self { client, next_request: 1, broker_response, data: VecDeque::new() }
    }

    /// Sends a request and waits for its reply, which is returned without the request's id. Data
    /// events that come first are kept for later.
    ///
    /// # Panics
    /// When the connection is closed instead.
    #[track_caller]
    pub fn request(&mut self, name: &str, body: Value) -> Value {
        let id = self.next_request;
        self.next_request += 1;
        self.client.send(&control(&json!({"rId": id, name: body}))).expect("sent");
        loop {
            let event = self.client.receive().expect("a reply, not the end of the connection");
            if event.kind != wire::CONTROL {
                self.data.push_back(event);
                continue;
            }
            let mut reply = read_control(&event);
            assert_eq!(reply["rId"], id, "{reply}");
            reply.as_object_mut().expect("an object").remove("rId");
            return reply;
        }
    }

    /// Opens a queue; returns the reply.
    #[track_caller]
    pub fn open(&mut self, uri: &str, queue: u32, read: bool, write: bool) -> Value {
        self.request("openQueue", json!({"handleParameters": handle(uri, queue, read, write)}))
    }

    /// Asks for deliveries under this subscription id; returns the reply.
    #[track_caller]
    pub fn configure(&mut self, queue: u32, subscription: u32, messages: u64) -> Value {
        self.request(
            "configureStream",
            json!({"qId": queue, "streamParameters": {"appId": "__default", "subscriptions": [{
                "sId": subscription,
                "expression": {"version": "E_UNDEFINED", "text": ""},
                "consumers": [{
                    "maxUnconfirmedMessages": messages, "maxUnconfirmedBytes": 33_554_432,
                    "consumerPriority": 0, "consumerPriorityCount": 1
                }]
            }]}}),
        )
    }

    /// Asks for no more deliveries; returns the reply.
    #[track_caller]
    pub fn deconfigure(&mut self, queue: u32) -> Value {
        self.request(
            "configureStream",
            json!({"qId": queue,
                   "streamParameters": {"appId": "__default", "subscriptions": []}}),
        )
    }

    /// Closes a queue; returns the reply.
    #[track_caller]
    pub fn close(&mut self, uri: &str, queue: u32, read: bool, write: bool) -> Value {
        let handle = handle(uri, queue, read, write);
        self.request("closeQueue", json!({"handleParameters": handle, "isFinal": true}))
    }

    /// Publishes one message; with a correlation id other than 0 the broker acknowledges it.
    ///
    /// # Panics
    /// When the connection is closed.
    #[track_caller]
    pub fn put(&mut self, queue: u32, correlation: u32, payload: &[u8]) {
        let mut identity = [0; 16];
        identity[..4].copy_from_slice(&correlation.to_be_bytes());
        let mut body = wire::put_message(queue, identity, payload);
        if correlation == 0 {
            body[0] &= 0x0f;
        }
        self.send(&wire::event(wire::PUT, 0, &body));
    }

    /// Confirms one message.
    ///
    /// # Panics
    /// When the connection is closed.
    #[track_caller]
    pub fn confirm(&mut self, queue: u32, guid: [u8; 16]) {
        let mut body = wire::hex("16000000");
        body.extend(queue.to_be_bytes());
        body.extend(guid);
        body.extend([0; 4]);
        self.send(&wire::event(wire::CONFIRM, 0, &body));
    }

    /// Sends bytes as they are.
    ///
    /// # Panics
    /// When the connection is closed.
    #[track_caller]
    pub fn send(&mut self, bytes: &[u8]) {
        self.client.send(bytes).expect("the connection is open");
    }

    /// The next acknowledgements, at least one.
    ///
    /// # Panics
    /// When something else comes.
    #[track_caller]
    pub fn acknowledgements(&mut self) -> Vec<Acknowledgement> {
        match self.next_event() {
            DataEvent::Acknowledgements(acknowledgements) => acknowledgements,
            other @ DataEvent::Deliveries(_) => panic!("not an acknowledgement: {other:?}"),
        }
    }

    /// The next deliveries, at least one.
    ///
    /// # Panics
    /// When something else comes.
    #[track_caller]
    pub fn deliveries(&mut self) -> Vec<Delivery> {
        match self.next_event() {
            DataEvent::Deliveries(deliveries) => deliveries,
            other @ DataEvent::Acknowledgements(_) => panic!("not a delivery: {other:?}"),
        }
    }

    /// The next data event.
    ///
    /// # Panics
    /// When something else comes, or the end of the connection.
    #[track_caller]
    pub fn next_event(&mut self) -> DataEvent {
        let event =
            self.data.pop_front().unwrap_or_else(|| self.client.receive().expect("a data event"));
        match event.kind {
            wire::ACK => DataEvent::Acknowledgements(read_acknowledgements(&event.body)),
            wire::PUSH => DataEvent::Deliveries(read_deliveries(&event.body)),
            _ => panic!("neither acknowledgements nor deliveries: {event:?}"),
        }
    }

    /// Says good-bye and requires that nothing but the answer comes, and that the broker then
    /// leaves the closing to the client or closes.
    ///
    /// # Panics
    /// When the broker says anything else.
    #[track_caller]
    pub fn disconnect(mut self) {
        assert_eq!(self.request("disconnect", json!({})), json!({"disconnectResponse": {}}));
        self.client.stream().shutdown(std::net::Shutdown::Write).expect("half closed");
        assert_eq!(self.client.expect_closed(), [], "nothing follows the answer to a disconnect");
    }

    /// Hands the connection back, in whatever state it is.
    pub fn into_client(self) -> RawClient {
        self.client
    }
}

fn read_acknowledgements(body: &[u8]) -> Vec<Acknowledgement> {
    assert_eq!(body[0], 0x16, "a header of one word, entries of six");
    body[4..]
        .chunks(24)
        .map(|entry| Acknowledgement {
            status: entry[0] & 0x0f,
            correlation: word(entry, 0) & 0x00ff_ffff,
            guid: entry[4..20].try_into().expect("16 bytes"),
            queue: word(entry, 20),
        })
        .collect()
}

fn read_deliveries(mut rest: &[u8]) -> Vec<Delivery> {
    let mut messages = Vec::new();
    while !rest.is_empty() {
        let length = (word(rest, 0) & 0x0fff_ffff) as usize * 4;
        let (message, others) = rest.split_at(length);
        let options = word(message, 4) >> 8;
        let begin = (word(message, 4) & 0x1f) as usize * 4;
        assert_eq!((options, message[begin] >> 2), (2, 1), "one subscription id");
        let end = length - usize::from(message[length - 1]);
        messages.push(Delivery {
            queue: word(message, 8),
            guid: message[12..28].try_into().expect("16 bytes"),
            subscription: word(message, begin + 4),
            data: message[begin + 8..end].to_vec(),
        });
        rest = others;
    }
    messages
}

fn handle(uri: &str, queue: u32, read: bool, write: bool) -> Value {
    let flags = if read { 2 } else { 0 } + if write { 12 } else { 0 };
    json!({
        "uri": uri, "qId": queue, "flags": flags,
        "readCount": u8::from(read), "writeCount": u8::from(write), "adminCount": 0
    })
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}
