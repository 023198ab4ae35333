//! Fear: one client that is broken or hostile takes the broker away from all others.
//!
//! Every test has a witness: a session on the same broker that must go on publishing and getting
//! its messages while the bad client does its worst.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use flintmq_system_tests::broker_process::Broker;
use flintmq_system_tests::json_session::{self, JsonSession};
use flintmq_system_tests::python::PythonClient;
use flintmq_system_tests::wait::{LIMIT, until};
use flintmq_system_tests::wire::{self, RawClient};
use serde_json::json;

const URI: &str = "bmq://bmq.test/attacked";
const MIB: u64 = 1 << 20;

/// A session that sends itself messages.
struct Witness {
    session: JsonSession,
    sent: u32,
}

impl Witness {
    fn start(broker: &Broker) -> Self {
        let mut session = JsonSession::start(broker);
        let opened = session.open("bmq://bmq.test/witness", 0, true, true);
        assert!(opened.get("openQueueResponse").is_some(), "{opened}");
        session.configure(0, 1, 100);
        Self { session, sent: 0 }
    }

    /// Publishes, is acknowledged, gets the message back and confirms it.
    #[track_caller]
    fn goes_on(&mut self) {
        self.sent += 1;
        let text = format!("witness {}", self.sent);
        self.session.put(0, self.sent, text.as_bytes());
        let (mut acknowledged, mut delivered) = (false, false);
        while !(acknowledged && delivered) {
            match self.session.next_event() {
                json_session::DataEvent::Acknowledgements(acks) => {
                    assert_eq!((acks[0].correlation, acks[0].status), (self.sent, 0));
                    acknowledged = true;
                }
                json_session::DataEvent::Deliveries(messages) => {
                    assert_eq!(messages[0].data, text.as_bytes());
                    self.session.confirm(0, messages[0].guid);
                    delivered = true;
                }
            }
        }
    }
}

/// Sends what it can of `bytes`, then nothing more, and requires that the broker closes. Returns
/// the client's own address, which the broker's log must name.
#[track_caller]
fn send_and_expect_closed(broker: &Broker, bytes: &[u8], half_close: bool) -> String {
    let mut stream = broker.connect();
    stream.set_read_timeout(Some(LIMIT)).expect("a time limit");
    stream.set_write_timeout(Some(LIMIT)).expect("a time limit");
    let address = stream.local_addr().expect("an address").to_string();
    // The broker may close before it has read everything.
    let _ = stream.write_all(bytes);
    if half_close {
        let _ = stream.shutdown(Shutdown::Write);
    }
    read_to_the_end(stream);
    address
}

#[track_caller]
fn read_to_the_end(mut stream: TcpStream) {
    let mut piece = [0; 4096];
    loop {
        match stream.read(&mut piece) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) => match error.kind() {
                ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => return,
                _ => panic!("the broker does not close the connection: {error}"),
            },
        }
    }
}

/// A number generator that needs no library: xorshift.
fn next_random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

#[test]
fn random_bytes() {
    let mut broker = Broker::start();
    let mut witness = Witness::start(&broker);
    for seed in 1..=60u64 {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let length = usize::try_from(next_random(&mut state) % 5000).expect("small");
        let mut bytes: Vec<u8> = (0..length).map(|_| next_random(&mut state) as u8).collect();
        if seed % 3 == 0 && bytes.len() > 8 {
            // A believable header, so that the body is looked at too.
            let total = u32::try_from(bytes.len()).expect("small").to_be_bytes();
            bytes[..4].copy_from_slice(&total);
            bytes[4] = 0x41 + (seed % 6) as u8;
            bytes[5..8].copy_from_slice(&[2, if seed % 2 == 0 { 0x20 } else { 0 }, 0]);
        }
        send_and_expect_closed(&broker, &bytes, true);
        witness.goes_on();
    }
    broker.assert_running();
}

#[test]
fn random_bytes_after_the_negotiation() {
    let mut broker = Broker::start();
    let mut witness = Witness::start(&broker);
    for seed in 1..=60u64 {
        let mut session = JsonSession::start(&broker);
        session.open(URI, 0, true, true);
        let mut state = seed.wrapping_mul(0xd134_2543_de82_ef95);
        let length = usize::try_from(next_random(&mut state) % 3000 / 4 * 4).expect("small");
        let body: Vec<u8> = (0..length).map(|_| next_random(&mut state) as u8).collect();
        let kind = 1 + (seed % 5) as u8;
        let encoding = if kind == 1 && seed % 2 == 0 { 0x20 } else { 0 };
        session.send(&wire::event(kind, encoding, &body));
        let client = session.into_client();
        // Some of it is only nonsense, which the broker may survive; the end must come all the
        // same.
        let _ = client.stream().shutdown(Shutdown::Write);
        read_to_the_end(client.stream().try_clone().expect("a second handle"));
        witness.goes_on();
    }
    broker.assert_running();
}

#[test]
fn truncated_frames() {
    let mut broker = Broker::start();
    let mut witness = Witness::start(&broker);
    let identity = json_session::control(&json_session::identity());
    for cut in [1, 3, 4, 5, 7, 8, 9, 40, identity.len() - 1] {
        send_and_expect_closed(&broker, &identity[..cut], true);
    }
    let put = wire::event(wire::PUT, 0, &wire::put_message(0, [0; 16], &[7; 1000]));
    for cut in [1, 7, 8, 12, 43, 44, 500, put.len() - 1] {
        let mut session = JsonSession::start(&broker);
        session.open(URI, 0, false, true);
        session.send(&put[..cut]);
        let client = session.into_client();
        client.stream().shutdown(Shutdown::Write).expect("half closed");
        client.expect_closed();
        witness.goes_on();
    }
    assert_eq!(broker.admin().backlog("bmq.test/attacked"), 0, "half a message is no message");
    broker.assert_running();
}

#[test]
fn a_frame_that_claims_two_gibibytes() {
    let mut broker = Broker::start();
    let mut witness = Witness::start(&broker);
    let before = broker.peak_resident_bytes();
    for header in ["7fffffff41022000", "7fffffff42020000", "80000008410220", "0000000441022000"] {
        let mut bytes = wire::hex(header);
        bytes.resize(bytes.len() + 4096, b' ');
        let address = send_and_expect_closed(&broker, &bytes, false);
        broker.wait_for_log(&[&address]);
        // The same from a client that was let in.
        let mut session = JsonSession::start(&broker);
        session.send(&bytes);
        session.into_client().expect_closed();
        witness.goes_on();
    }
    let grown = broker.peak_resident_bytes().saturating_sub(before);
    assert!(grown < 64 * MIB, "memory grew by {grown} bytes for bytes that never came");
    broker.assert_running();
}

#[test]
fn a_client_that_never_introduces_itself() {
    let broker = Broker::builder().setting("limits.negotiation_timeout = \"1s\"").start();
    let mut witness = Witness::start(&broker);
    for bytes in [&[][..], &[0, 0, 1][..]] {
        let address = send_and_expect_closed(&broker, bytes, false);
        broker.wait_for_log(&[&address]);
    }
    witness.goes_on();
}

#[test]
fn data_before_the_negotiation() {
    let broker = Broker::start();
    let mut witness = Witness::start(&broker);
    let put = wire::event(wire::PUT, 0, &wire::put_message(0, [1; 16], b"too early"));
    send_and_expect_closed(&broker, &put, false);
    witness.goes_on();
}

#[test]
fn a_second_negotiation() {
    let broker = Broker::start();
    let mut witness = Witness::start(&broker);
    let mut session = JsonSession::start(&broker);
    session.send(&json_session::control(&json_session::identity()));
    session.into_client().expect_closed();
    witness.goes_on();
}

#[test]
fn heartbeats_are_answered() {
    let broker = Broker::start();
    let mut session = JsonSession::start(&broker);
    session.send(&wire::event(wire::HEARTBEAT_REQUEST, 0, &[]));
    let mut client = session.into_client();
    let answer = client.receive().expect("an answer");
    assert_eq!((answer.kind, answer.body.len()), (wire::HEARTBEAT_RESPONSE, 0));
}

#[test]
fn a_consumer_that_never_reads() {
    let mut broker = Broker::start();
    let mut witness = Witness::start(&broker);
    let mut lazy = JsonSession::start(&broker);
    lazy.open(URI, 0, true, false);
    let reply = lazy.request(
        "configureStream",
        json!({"qId": 0, "streamParameters": {"appId": "__default", "subscriptions": [{
            "sId": 1, "expression": {"version": "E_UNDEFINED", "text": ""},
            "consumers": [{"maxUnconfirmedMessages": 1_000_000,
                "maxUnconfirmedBytes": 2_000_000_000, "consumerPriority": 0,
                "consumerPriorityCount": 1}]}]}}),
    );
    assert!(reply.get("configureStreamResponse").is_some(), "{reply}");

    let mut producer = JsonSession::start(&broker);
    producer.open(URI, 0, false, true);
    let payload = vec![b'x'; MIB as usize];
    for number in 1..=256 {
        producer.put(0, number, &payload);
        assert!(producer.acknowledgements().iter().all(|ack| ack.status == 0));
        if number % 32 == 0 {
            witness.goes_on();
        }
    }
    let peak = broker.peak_resident_bytes();
    println!("256 MiB for a consumer that does not read: peak memory {} MiB", peak / MIB);
    assert!(peak < 400 * MIB, "a slow consumer must not grow memory: peak={peak}");

    drop(lazy);
    let mut consumer = JsonSession::start(&broker);
    consumer.open(URI, 0, true, false);
    consumer.configure(0, 1, 10);
    let mut got = 0;
    while got < 256 {
        for delivery in consumer.deliveries() {
            assert_eq!(delivery.data.len(), payload.len());
            consumer.confirm(0, delivery.guid);
            got += 1;
        }
    }
    witness.goes_on();
    broker.assert_running();
}

#[test]
fn a_producer_that_never_reads_its_acknowledgements() {
    let mut broker = Broker::start();
    let mut witness = Witness::start(&broker);
    let mut lazy = JsonSession::start(&broker);
    lazy.open(URI, 0, false, true);
    let client = lazy.into_client();
    let mut stream = client.stream();
    stream.set_write_timeout(Some(Duration::from_secs(2))).expect("a time limit");
    let mut block = Vec::new();
    for number in 1..=1000u32 {
        let mut identity = [0; 16];
        identity[..4].copy_from_slice(&number.to_be_bytes());
        block.extend(wire::event(wire::PUT, 0, &wire::put_message(0, identity, b"small")));
    }
    // Up to half a million messages, or until the broker stops reading from this client.
    let taken = (0..500).take_while(|_| stream.write_all(&block).is_ok()).count();
    println!("taken from a producer that does not read: {taken} thousand messages");
    witness.goes_on();
    let peak = broker.peak_resident_bytes();
    assert!(peak < 500 * MIB, "peak={peak}");
    drop(client);
    witness.goes_on();
    broker.assert_running();
}

#[test]
fn a_thousand_idle_connections() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.map_or(8192, |most| most.min(8192));
    setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), ..limit }).expect("more files");

    let mut broker = Broker::start();
    let mut witness = Witness::start(&broker);
    let before = broker.resident_bytes();
    let idle: Vec<JsonSession> = (0..1000).map(|_| JsonSession::start(&broker)).collect();
    witness.goes_on();
    let grown = broker.resident_bytes().saturating_sub(before);
    println!("a thousand idle sessions: {} KiB each", grown / 1024 / 1000);
    assert!(grown < 128 * MIB, "an idle session must be cheap: grown={grown}");
    drop(idle);
    witness.goes_on();
    broker.assert_running();
}

#[test]
fn one_connection_too_many() {
    let broker = Broker::builder().setting("limits.max_connections = 5").start();
    let mut witness = Witness::start(&broker);
    let held: Vec<JsonSession> = (0..4).map(|_| JsonSession::start(&broker)).collect();
    let identity = json_session::control(&json_session::identity());
    let address = send_and_expect_closed(&broker, &identity, false);
    broker.wait_for_log(&["max_connections"]);
    println!("refused: {address}");
    witness.goes_on();
    drop(held);
    until("a place to be free again", || {
        let mut client = RawClient::over(broker.connect());
        client.send(&identity).ok()?;
        client.receive()
    });
}

#[test]
fn queue_names_that_are_none() {
    let broker = Broker::start();
    let mut witness = Witness::start(&broker);
    let mut session = JsonSession::start(&broker);
    let long = format!("bmq://bmq.test/{}", "q".repeat(65));
    for uri in [
        "",
        "bmq://",
        "bmq:///q",
        "bmq://bmq.test",
        "bmq://bmq.test/",
        "http://bmq.test/q",
        "bmq://a b/q",
        "bmq://bmq.test/q q",
        "bmq://bmq.test/../q",
        "bmq://bmq.test/q?id=",
        "bmq://bmq.test/q?x=1",
        "bmq://bmq.test/q/r",
        "BMQ://bmq.test/q",
        &long,
    ] {
        let reply = session.open(uri, 0, false, true);
        let category = &reply["status"]["category"];
        assert!(category.is_string() && category != "E_SUCCESS", "{uri}: {reply}");
        let message = reply["status"]["message"].as_str().unwrap_or_default();
        assert!(!message.is_empty(), "{uri}: a refusal without a reason");
    }
    let opened = session.open(URI, 0, false, true);
    assert!(opened.get("openQueueResponse").is_some(), "the session goes on: {opened}");
    witness.goes_on();
}

#[test]
fn a_domain_that_nobody_defined() {
    let broker = Broker::builder().setting("domains.undefined = \"refuse\"").start();
    let mut session = JsonSession::start(&broker);
    let refused = session.open(URI, 0, false, true);
    assert_eq!(refused["status"]["category"], "E_UNKNOWN", "as BlazingMQ says: {refused}");
    let message = refused["status"]["message"].as_str().unwrap_or_default();
    assert!(message.contains("bmq.test"), "the reason names the domain: {message}");

    let list =
        PythonClient::run("open_queue.py", &broker.url(), "python", &["--uri", URI]).finish();
    assert_eq!((list.count("refused"), list.count("opened")), (1, 0));
    assert!(list.named("refused").all(|event| event.text("text").contains("bmq.test")));

    broker.admin().define_domain(&flintmq_system_tests::domains::priority("bmq.test"));
    let opened = session.open(URI, 0, false, true);
    assert!(opened.get("openQueueResponse").is_some(), "{opened}");
}

#[test]
fn messages_that_cannot_be_taken() {
    let mut broker = Broker::start();
    let mut witness = Witness::start(&broker);
    let mut session = JsonSession::start(&broker);
    session.open(URI, 0, false, true);
    session.open("bmq://bmq.test/read-only", 1, true, false);

    // One byte more than a message may have.
    session.put(0, 1, &vec![b'x'; (64 << 20) + 1]);
    let acks = session.acknowledgements();
    assert_eq!((acks[0].correlation, acks[0].status), (1, 5), "too large");

    // Damaged on the way: the checksum is of other bytes.
    let mut body = wire::put_message(0, identity_of(2), b"these bytes");
    let last = body.len() - 3;
    body[last] ^= 0x20;
    session.send(&wire::event(wire::PUT, 0, &body));
    let acks = session.acknowledgements();
    assert_eq!((acks[0].correlation, acks[0].status), (2, 5), "wrong checksum");

    // A queue that is open, but not for writing.
    session.put(1, 3, b"not mine");
    let acks = session.acknowledgements();
    assert_eq!((acks[0].correlation, acks[0].status), (3, 5), "not a writer");

    session.put(0, 5, b"a good one");
    let acks = session.acknowledgements();
    assert_eq!((acks[0].correlation, acks[0].status), (5, 0), "the session goes on");
    assert_eq!(broker.admin().backlog("bmq.test/attacked"), 1);
    witness.goes_on();
    broker.assert_running();
}

/// A message whose properties cannot be read makes the official client drop the whole event that
/// it is in, with the good messages of others, which then are never confirmed.
#[test]
fn properties_that_would_stop_a_consumer() {
    let broker = Broker::start();
    let mut session = JsonSession::start(&broker);
    session.open(URI, 0, false, true);
    let broken: [&[u8]; 3] = [&[0xff; 40], &[0x1b, 0, 0, 1], &[0x1b, 0, 0, 3, 0, 9, 0, 0, 0, 0]];
    for schema in [0, 1] {
        for (number, area) in broken.iter().enumerate() {
            let correlation = u32::try_from(number + 1).expect("small");
            let mut body = wire::put_message(0, identity_of(correlation), area);
            body[0] |= 0x20;
            body[33] = schema;
            session.send(&wire::event(wire::PUT, 0, &body));
            let acks = session.acknowledgements();
            assert_eq!((acks[0].correlation, acks[0].status), (correlation, 5), "{area:?}");
        }
    }
    session.put(0, 9, b"good:1 0 ");
    assert_eq!(session.acknowledgements()[0].status, 0);
    let consumer = PythonClient::consumer(&broker, "c", &["--uri", URI, "--count", "1"]);
    assert_eq!(consumer.finish().count("delivered"), 1, "nothing stands in its way");
}

fn identity_of(correlation: u32) -> [u8; 16] {
    let mut identity = [0; 16];
    identity[..4].copy_from_slice(&correlation.to_be_bytes());
    identity
}
