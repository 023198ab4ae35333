//! Fear: the Java client, which speaks JSON and has correlation ids, is not understood.

use std::time::{Duration, Instant};

use flintmq_system_tests::broker_process::Broker;
use flintmq_system_tests::json_session::{JsonSession, read_control};
use flintmq_system_tests::python::PythonClient;
use flintmq_system_tests::wire::{self, RawClient};
use serde_json::json;

const URI: &str = "bmq://bmq.test/json";

/// What the Java client sends first, byte for byte.
const JAVA_IDENTITY: &str = r#"{"clientIdentity":{"protocolVersion":1,"sdkVersion":999999,"clientType":"E_TCPCLIENT","processName":"Drive tcp:\/\/127.0.0.1:31003","pid":7252,"sessionId":1,"hostName":"localhost","features":"PROTOCOL_ENCODING:JSON;MPS:MESSAGE_PROPERTIES_EX","clusterName":"","clusterNodeId":-1,"sdkLanguage":"E_JAVA"}}"#;

/// Its request to open a queue for writing.
const JAVA_OPEN: &str = r#"{"rId":1,"openQueue":{"handleParameters":{"uri":"bmq:\/\/bmq.test.mem.priority\/jq","qId":0,"flags":12,"readCount":0,"writeCount":1,"adminCount":0}}}"#;

fn control_text(text: &str) -> Vec<u8> {
    let mut body = text.as_bytes().to_vec();
    wire::pad(&mut body);
    wire::event(wire::CONTROL, 0x20, &body)
}

#[test]
fn the_java_client_s_own_bytes_are_answered_in_json() {
    let broker = Broker::start();
    let mut client = RawClient::over(broker.connect());
    client.send(&control_text(JAVA_IDENTITY)).expect("sent");
    let answer = read_control(&client.receive().expect("an answer"))["brokerResponse"].clone();
    assert_eq!(answer["result"]["category"], "E_SUCCESS", "{answer}");
    assert_eq!(answer["protocolVersion"], 1);
    let features = answer["brokerIdentity"]["features"].as_str().expect("features").to_owned();
    let fields: Vec<&str> = features.split(';').collect();
    assert!(
        fields.iter().any(|field| field.starts_with("MPS:MESSAGE_PROPERTIES_EX")),
        "{fields:?}"
    );
    assert!(fields.contains(&"SUBSCRIPTIONS:CONFIGURE_STREAM"), "{fields:?}");

    client.send(&control_text(JAVA_OPEN)).expect("sent");
    let reply = read_control(&client.receive().expect("a reply"));
    assert_eq!(reply["rId"], 1, "{reply}");
    let opened = &reply["openQueueResponse"];
    assert_eq!(
        opened["originalRequest"]["handleParameters"],
        json!({"uri": "bmq://bmq.test.mem.priority/jq", "qId": 0, "flags": 12,
               "readCount": 0, "writeCount": 1, "adminCount": 0}),
        "{reply}"
    );
    assert_eq!(opened["routingConfiguration"]["flags"], 2, "{reply}");
    assert!(opened["deduplicationTimeMs"].as_u64().is_some_and(|time| time > 0), "{reply}");

    // Its first message, as captured: correlation id 2, no properties.
    client
        .send(&wire::hex(
            "00000038420200001000000c00000009000000000000000200000000000000000000000042e6402c00000000
             6a61766120706c61696e0202",
        ))
        .expect("sent");
    let ack = client.receive().expect("an acknowledgement");
    assert_eq!(ack.kind, wire::ACK);
    assert_eq!(ack.body[..8], wire::hex("1600000000000002"), "success, correlation id 2");
    assert_ne!(ack.body[8..24], [0; 16], "the broker made a GUID");
}

#[test]
fn a_whole_session_in_json() {
    let broker = Broker::start();
    let mut session = JsonSession::start(&broker);
    assert!(session.open(URI, 0, false, true).get("openQueueResponse").is_some());
    for number in 1..=100u32 {
        session.put(0, number, format!("message {number}").as_bytes());
    }
    let mut acknowledged = Vec::new();
    while acknowledged.len() < 100 {
        acknowledged.extend(session.acknowledgements());
    }
    assert!(acknowledged.iter().all(|ack| (ack.status, ack.queue) == (0, 0)), "{acknowledged:?}");
    let correlations: Vec<u32> = acknowledged.iter().map(|ack| ack.correlation).collect();
    assert_eq!(correlations, (1..=100).collect::<Vec<u32>>());

    // Reading in the same session, under the same number.
    assert!(session.open(URI, 0, true, false).get("openQueueResponse").is_some());
    let configured = session.configure(0, 7, 1000);
    let echoed = &configured["configureStreamResponse"]["request"]["streamParameters"];
    assert_eq!(echoed["subscriptions"][0]["sId"], 7, "{configured}");
    let mut delivered = Vec::new();
    while delivered.len() < 100 {
        delivered.extend(session.deliveries());
    }
    for (index, delivery) in delivered.iter().enumerate() {
        assert_eq!((delivery.queue, delivery.subscription), (0, 7));
        assert_eq!(delivery.data, format!("message {}", index + 1).as_bytes());
        assert_eq!(delivery.guid, acknowledged[index].guid, "one GUID in ACK and PUSH");
        session.confirm(0, delivery.guid);
    }
    assert!(session.deconfigure(0).get("configureStreamResponse").is_some());
    assert!(session.close(URI, 0, true, true).get("closeQueueResponse").is_some());
    session.disconnect();
    assert_eq!(broker.admin().backlog("bmq.test/json"), 0, "a disconnect is answered last");
}

/// The Java client takes a broker that closes first for a lost connection: it connects again
/// although its application has stopped the session, and swallows messages.
#[test]
fn the_broker_leaves_the_close_to_a_client_that_says_goodbye() {
    let broker = Broker::start();
    let mut session = JsonSession::start(&broker);
    let began = Instant::now();
    session.request("disconnect", json!({}));
    // A client that does not close is waited for, and left in the end.
    assert_eq!(session.into_client().expect_closed(), [], "nothing follows the answer");
    assert!(began.elapsed() >= Duration::from_secs(4), "{:?}", began.elapsed());
}

#[test]
fn a_message_without_correlation_id_is_stored_and_not_acknowledged() {
    let broker = Broker::start();
    let mut session = JsonSession::start(&broker);
    session.open(URI, 0, false, true);
    session.put(0, 0, b"silent");
    session.put(0, 5, b"loud");
    let acks = session.acknowledgements();
    assert_eq!(acks.iter().map(|ack| ack.correlation).collect::<Vec<u32>>(), [5]);
    assert_eq!(broker.admin().backlog("bmq.test/json"), 2);
}

#[test]
fn python_and_json_clients_read_each_other() {
    let broker = Broker::start();
    let mut session = JsonSession::start(&broker);
    session.open(URI, 3, true, true);
    session.configure(3, 1, 1000);
    let producer = PythonClient::producer(&broker, "p", &["--uri", URI, "--count", "10"]).finish();
    let mut texts = Vec::new();
    while texts.len() < 10 {
        for delivery in session.deliveries() {
            let text = String::from_utf8_lossy(&delivery.data).into_owned();
            texts.push(text.split(' ').next().unwrap_or_default().to_owned());
            session.confirm(3, delivery.guid);
        }
    }
    assert_eq!(texts, producer.ids("sent"));
    session.deconfigure(3);

    let consumer = PythonClient::consumer(&broker, "c", &["--uri", URI, "--count", "1"]);
    consumer.wait_for("opened", 1);
    session.put(3, 9, b"from json");
    assert_eq!(session.acknowledgements()[0].correlation, 9);
    let got = consumer.finish();
    assert_eq!(got.count("delivered"), 1);
    session.disconnect();
}

#[test]
fn requests_that_make_no_sense_are_refused_and_the_session_goes_on() {
    let broker = Broker::start();
    let mut session = JsonSession::start(&broker);
    for (what, name, body) in [
        (
            "flags and counts that disagree",
            "openQueue",
            json!({"handleParameters": {
            "uri": URI, "qId": 0, "flags": 2, "readCount": 0, "writeCount": 1, "adminCount": 0}}),
        ),
        (
            "an app id on a priority queue",
            "openQueue",
            json!({"handleParameters": {
            "uri": URI, "qId": 0, "flags": 2, "readCount": 1, "writeCount": 0, "adminCount": 0,
            "subIdInfo": {"subId": 1, "appId": "app"}}}),
        ),
        (
            "configuring a queue that is not open",
            "configureStream",
            json!({"qId": 9, "streamParameters": {"appId": "__default", "subscriptions": []}}),
        ),
        (
            "closing a queue that is not open",
            "closeQueue",
            json!({"handleParameters": {
            "uri": URI, "qId": 9, "flags": 2, "readCount": 1, "writeCount": 0, "adminCount": 0},
            "isFinal": true}),
        ),
    ] {
        let reply = session.request(name, body);
        let status = &reply["status"];
        assert!(
            status["category"].is_string() && status["category"] != "E_SUCCESS",
            "{what}: {reply}"
        );
        assert_ne!(status["category"], "E_CANCELED", "hangs the official client");
        assert!(status["message"].as_str().is_some_and(|text| !text.is_empty()), "{what}: {reply}");
    }
    assert!(session.open(URI, 0, false, true).get("openQueueResponse").is_some());
    let other = session.open("bmq://bmq.test/other", 0, false, true);
    assert_eq!(other["status"]["category"], "E_INVALID_ARGUMENT", "the number is taken: {other}");
    session.put(0, 1, b"still there");
    assert_eq!(session.acknowledgements()[0].status, 0);
    session.disconnect();
}
