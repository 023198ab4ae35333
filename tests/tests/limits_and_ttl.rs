//! Fear: a domain's limits do not hold, or take more than they say.

use flintmq_system_tests::broker_process::Broker;
use flintmq_system_tests::domains::{priority, priority_with};
use flintmq_system_tests::history::{Expectations, History};
use flintmq_system_tests::json_session::JsonSession;
use flintmq_system_tests::python::{PythonClient, Report};
use flintmq_system_tests::wait::until;
use serde_json::{Value, json};

const URI: &str = "bmq://limited/q";
const QUEUE: &str = "limited/q";

fn broker_with(path: &str, value: Value) -> Broker {
    let broker = Broker::start();
    broker.admin().define_domain(&priority_with("limited", path, value));
    broker
}

fn publish(broker: &Broker, first: u32, count: u32, size: u32) -> Report {
    let (first, count, size) = (first.to_string(), count.to_string(), size.to_string());
    PythonClient::producer(
        broker,
        "p",
        &["--uri", URI, "--first", &first, "--count", &count, "--size", &size, "--window", "1"],
    )
    .finish()
}

fn wait_for_backlog(broker: &Broker, messages: u64) {
    let admin = broker.admin();
    until(&format!("a backlog of {messages}"), || (admin.backlog(QUEUE) == messages).then_some(()));
}

#[test]
fn a_queue_takes_one_message_more_than_its_limit() {
    let broker = broker_with("/storage/queueLimits/messages", json!(10));
    let mut history = History::default();
    let first = publish(&broker, 1, 20, 100);
    assert_eq!(first.acknowledged_with("SUCCESS").len(), 11, "as BlazingMQ counts");
    assert_eq!(first.acknowledged_with("LIMIT_MESSAGES").len(), 9);
    // What was refused can be sent again once there is room: it is not taken for a duplicate.
    let consumer = PythonClient::consumer(&broker, "c", &["--uri", URI, "--count", "11"]);
    history.add_report("c", &consumer.finish());
    wait_for_backlog(&broker, 0);
    let second = publish(&broker, 101, 5, 100);
    assert_eq!(second.acknowledged_with("SUCCESS").len(), 5);
    history.add_report("p", &first);
    history.add_report("p2", &second);
    let consumer = PythonClient::consumer(&broker, "d", &["--uri", URI, "--count", "5"]);
    history.add_report("d", &consumer.finish());
    history.assert_kept(Expectations::ONE_BROKER);
}

#[test]
fn a_queue_counts_bytes() {
    let broker = broker_with("/storage/queueLimits/bytes", json!(10_000));
    let report = publish(&broker, 1, 20, 1000);
    let stored = report.acknowledged_with("SUCCESS").len();
    assert!((10..=11).contains(&stored), "10,000 bytes hold {stored} messages of 1,000");
    assert_eq!(report.acknowledged_with("LIMIT_BYTES").len(), 20 - stored);
}

#[test]
fn a_domain_counts_all_its_queues() {
    let broker = broker_with("/storage/domainLimits/messages", json!(10));
    let report = PythonClient::producer(
        &broker,
        "p",
        &["--uri", "bmq://limited/a", "--uri", "bmq://limited/b", "--count", "10", "--window", "1"],
    )
    .finish();
    assert_eq!(report.acknowledged_with("SUCCESS").len(), 11);
    assert_eq!(report.acknowledged_with("LIMIT_MESSAGES").len(), 9);
}

#[test]
fn a_limit_can_be_raised_while_it_is_reached() {
    let broker = broker_with("/storage/queueLimits/messages", json!(10));
    assert_eq!(publish(&broker, 1, 12, 100).acknowledged_with("LIMIT_MESSAGES").len(), 1);
    let raised = priority_with("limited", "/storage/queueLimits/messages", json!(20));
    broker.admin().must("PUT", "/api/v1/domains/limited", &raised.to_string());
    assert_eq!(publish(&broker, 13, 5, 100).acknowledged_with("SUCCESS").len(), 5);
}

#[test]
fn old_messages_go_and_young_ones_stay() {
    let broker = broker_with("/messageTtl", json!(1));
    broker.admin().define_domain(&priority("patient"));
    let other = ["--uri", "bmq://patient/q", "--count", "10"];
    PythonClient::producer(&broker, "other", &other).finish();
    assert_eq!(publish(&broker, 1, 10, 100).acknowledged_with("SUCCESS").len(), 10);
    wait_for_backlog(&broker, 0);
    assert_eq!(broker.admin().backlog("patient/q"), 10, "no domain but its own is affected");

    // From here on messages live long enough for any machine.
    broker.admin().must("PUT", "/api/v1/domains/limited", &priority("limited").to_string());
    let consumer = PythonClient::consumer(&broker, "c", &["--uri", URI, "--count", "1"]);
    consumer.wait_for("opened", 1);
    let last = publish(&broker, 11, 1, 100);
    assert_eq!(consumer.finish().ids("delivered"), last.ids("sent"), "the old ones are gone");
}

#[test]
fn a_message_that_kills_its_consumers_is_given_up() {
    let broker = broker_with("/maxDeliveryAttempts", json!(2));
    let poison = publish(&broker, 1, 1, 100);
    for attempt in ["first", "second"] {
        let consumer = PythonClient::consumer(&broker, attempt, &["--uri", URI, "--confirm", "0"]);
        consumer.wait_for("delivered", 1);
        assert_eq!(consumer.kill().ids("delivered"), poison.ids("sent"));
    }
    wait_for_backlog(&broker, 0);
    let consumer = PythonClient::consumer(&broker, "third", &["--uri", URI, "--count", "1"]);
    consumer.wait_for("opened", 1);
    let last = publish(&broker, 2, 1, 100);
    assert_eq!(consumer.finish().ids("delivered"), last.ids("sent"));
}

#[test]
fn a_consumer_that_leaves_properly_costs_no_attempt() {
    let mut broker = broker_with("/maxDeliveryAttempts", json!(2));
    let sent = publish(&broker, 1, 1, 100).ids("sent");
    for round in 0..4 {
        let name = format!("c{round}");
        let consumer = PythonClient::consumer(&broker, &name, &["--uri", URI, "--confirm", "0"]);
        consumer.wait_for("delivered", 1);
        assert_eq!(consumer.stop().ids("delivered"), sent);
    }
    // Neither does a broker that dies: that is not the consumer's fault.
    for round in 0..3 {
        let name = format!("d{round}");
        let consumer = PythonClient::consumer(&broker, &name, &["--uri", URI, "--confirm", "0"]);
        consumer.wait_for("delivered", 1);
        broker.kill();
        consumer.kill();
        broker.restart();
    }
    assert_eq!(broker.admin().backlog(QUEUE), 1);
}

#[test]
fn no_more_consumers_or_producers_than_allowed() {
    for (path, read, write) in [("/maxConsumers", true, false), ("/maxProducers", false, true)] {
        let broker = broker_with(path, json!(1));
        let mut first = JsonSession::start(&broker);
        let opened = first.open(URI, 0, read, write);
        assert!(opened.get("openQueueResponse").is_some(), "{path}: {opened}");
        let mut second = JsonSession::start(&broker);
        let refused = second.open(URI, 0, read, write);
        assert_eq!(refused["status"]["category"], "E_UNKNOWN", "{path}: {refused}");
        first.close(URI, 0, read, write);
        let opened = second.open(URI, 0, read, write);
        assert!(opened.get("openQueueResponse").is_some(), "{path}: {opened}");
    }
}

#[test]
fn no_more_queues_than_allowed() {
    let broker = broker_with("/maxQueues", json!(2));
    let mut session = JsonSession::start(&broker);
    for (number, queue) in ["a", "b"].iter().enumerate() {
        let number = u32::try_from(number).expect("small");
        let opened = session.open(&format!("bmq://limited/{queue}"), number, false, true);
        assert!(opened.get("openQueueResponse").is_some(), "{opened}");
    }
    let refused = session.open("bmq://limited/c", 2, false, true);
    assert_eq!(refused["status"]["category"], "E_REFUSED", "{refused}");
}

#[test]
fn a_message_sent_twice_is_stored_once() {
    let broker = Broker::start();
    let mut session = flintmq_system_tests::wire::RawClient::over(broker.connect());
    // The official client's own bytes: it makes GUIDs, and sends them again after a reconnect.
    for request in [PYTHON_IDENTITY, PYTHON_OPEN] {
        session.send(&flintmq_system_tests::wire::hex(request)).expect("sent");
        session.receive().expect("an answer");
    }
    for _ in 0..3 {
        session.send(&flintmq_system_tests::wire::hex(PYTHON_PUT)).expect("sent");
        let ack = session.receive().expect("an acknowledgement");
        assert_eq!(ack.body[..8], [0x16, 0, 0, 0, 0, 0, 0, 0], "success, also for a duplicate");
    }
    assert_eq!(broker.admin().backlog("bmq.test.mem.priority/q1"), 1);
}

const PYTHON_IDENTITY: &str = "\
    000000a4410200003080a080a08080010181030f423f820101831d2f6f70742f6170702f62696e2f\
    70726f64756365722d6d61696e2e707984027ef28501018600873450524f544f434f4c5f454e434f\
    44494e473a4245522c4a534f4e3b4d50533a4d4553534147455f50524f504552544945535f455888\
    008901ff8a0101ab80800c363239353536423346394637810818e9d478ee46e9c200000000000000\
    00030303";
const PYTHON_OPEN: &str = "\
    0000004c410200003080800101a180aa80a080801e626d713a2f2f626d712e746573742e6d656d2e\
    7072696f726974792f713181010083010484010085010186010000000000000000000202";
const PYTHON_PUT: &str = "\
    00000034420200001000000b0000000900000000400000000000002d3835629556b3f9f79a71bb4c\
    0000000068656c6c6f030303";
