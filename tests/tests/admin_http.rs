//! Fear: an operator cannot see or change what the broker does.

use std::fs;

use flintmq_system_tests::broker_process::{Broker, run_flintmq};
use flintmq_system_tests::domains::{priority, priority_with};
use flintmq_system_tests::json_session::{self, JsonSession};
use flintmq_system_tests::python::PythonClient;
use flintmq_system_tests::wait::until;
use flintmq_system_tests::wire::RawClient;
use serde_json::{Value, json};

const URI: &str = "bmq://bmq.test/seen";
const QUEUE: &str = "bmq.test/seen";

fn publish(broker: &Broker, count: u32) {
    let count = count.to_string();
    PythonClient::producer(broker, "p", &["--uri", URI, "--count", &count]).finish();
}

fn flintmq_admin(broker: &Broker, arguments: &[&str]) -> (i32, String, String) {
    let url = format!("http://127.0.0.1:{}", broker.admin_port());
    let mut all = vec!["admin", "--url", &url];
    all.extend(arguments);
    run_flintmq(broker.folder(), &all, b"")
}

#[test]
fn health_and_readiness() {
    let broker = Broker::start();
    let admin = broker.admin();
    assert_eq!(admin.get("/healthz").status, 200);
    assert_eq!(admin.get("/readyz").status, 200);
    for (method, path) in [("GET", "/nothing"), ("GET", "/api/v1/nothing"), ("GET", "/api/v1")] {
        let answer = admin.send(method, path, "");
        assert_eq!(answer.status, 404, "{path}: {}", answer.body);
    }
    assert_eq!(admin.send("POST", "/healthz", "").status, 405);
}

#[test]
fn metrics_follow_a_queue() {
    let broker = Broker::start();
    let admin = broker.admin();
    publish(&broker, 7);
    let value = |name: &str| -> Option<f64> {
        let text = admin.get("/metrics").body;
        text.lines()
            .filter(|line| line.starts_with(&format!("flintmq_{name}")))
            .filter(|line| !line.contains("queue=") || line.contains("seen"))
            .find_map(|line| line.rsplit_once(' ')?.1.parse().ok())
    };
    until("7 messages published", || {
        (value("messages_published_total") == Some(7.0)).then_some(())
    });
    until("7 messages waiting", || (value("backlog_messages") == Some(7.0)).then_some(()));
    let consumer = PythonClient::consumer(&broker, "c", &["--uri", URI, "--count", "7"]);
    consumer.finish();
    until("7 confirms", || (value("messages_confirmed_total") == Some(7.0)).then_some(()));
    until("nothing waiting", || (value("backlog_messages") == Some(0.0)).then_some(()));

    let text = admin.get("/metrics").body;
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let (name, number) = line.rsplit_once(' ').expect("a name and a value");
        assert!(name.starts_with("flintmq_"), "another name: {line}");
        assert!(number.parse::<f64>().is_ok(), "not a number: {line}");
    }
}

#[test]
fn a_domain_from_definition_to_deletion() {
    let mut broker = Broker::builder().setting("domains.undefined = \"refuse\"").start();
    let admin = broker.admin();
    let definition = priority("orders");
    admin.must("POST", "/api/v1/domains", &definition.to_string());
    let again = admin.send("POST", "/api/v1/domains", &definition.to_string());
    assert_eq!(again.status, 409, "{}", again.body);
    assert!(admin.get_json("/api/v1/domains").to_string().contains("orders"));
    let shown = admin.get_json("/api/v1/domains/orders");
    assert!(shown.to_string().contains("\"messageTtl\":86400"), "{shown}");

    let changed = priority_with("orders", "/messageTtl", json!(77));
    admin.must("PUT", "/api/v1/domains/orders", &changed.to_string());
    broker.kill();
    broker.restart();
    let shown = admin.get_json("/api/v1/domains/orders").to_string();
    assert!(shown.contains("\"messageTtl\":77"), "the change is lost: {shown}");

    let forbidden = priority_with("orders", "/mode", json!({"broadcast": {}}));
    let answer = admin.send("PUT", "/api/v1/domains/orders", &forbidden.to_string());
    assert!((400..500).contains(&answer.status), "the mode cannot change: {}", answer.body);

    let mut session = JsonSession::start(&broker);
    let opened = session.open("bmq://orders/q", 0, false, true);
    assert!(opened.get("openQueueResponse").is_some(), "{opened}");
    let answer = admin.send("DELETE", "/api/v1/domains/orders", "");
    assert_eq!(answer.status, 409, "a queue of it is open: {}", answer.body);
    session.disconnect();
    until("the domain to be deleted", || {
        (admin.send("DELETE", "/api/v1/domains/orders", "").status < 300).then_some(())
    });
    assert_eq!(admin.get("/api/v1/domains/orders").status, 404);
    let mut session = JsonSession::start(&broker);
    let refused = session.open("bmq://orders/q", 0, false, true);
    assert!(refused.get("status").is_some(), "{refused}");
}

#[test]
fn definitions_with_mistakes_are_refused_by_their_path() {
    let broker = Broker::start();
    let admin = broker.admin();
    let mut unknown = priority("orders");
    unknown["storage"]["queueLimits"]["mesages"] = json!(5);
    for (body, expected) in [
        (unknown.to_string(), "mesages"),
        (priority_with("orders", "/messageTtl", json!("soon")).to_string(), "messageTtl"),
        (priority_with("orders", "/mode", json!({"fanout": {"appIDs": ["a"]}})).to_string(), "not"),
        ("{".to_owned(), "JSON"),
        (priority("no good name").to_string(), "name"),
    ] {
        let answer = admin.send("POST", "/api/v1/domains", &body);
        assert!((400..500).contains(&answer.status), "{body}: {}", answer.body);
        let error = answer.json()["error"].as_str().unwrap_or_default().to_owned();
        assert!(error.contains(expected), "{error:?} does not name {expected:?}");
    }
    // More than a definition can have. The refusal can be lost in the reset that follows it.
    let huge = format!("{{\"name\": \"{}\"}}", "x".repeat(20 << 20));
    if let Some(answer) = admin.try_send("POST", "/api/v1/domains", &huge) {
        assert!((400..500).contains(&answer.status), "status={}", answer.status);
    }
    assert_eq!(admin.get("/healthz").status, 200);
}

#[test]
fn a_queue_is_shown_peeked_purged_and_deleted() {
    let mut broker = Broker::start();
    let admin = broker.admin();
    publish(&broker, 25);
    let path = format!("/api/v1/queues/{QUEUE}");
    let shown = admin.get_json(&path);
    assert_eq!(shown["uri"], URI, "{shown}");
    assert_eq!(shown["backlog_messages"], 25, "{shown}");
    assert!(shown["backlog_bytes"].as_u64().is_some_and(|bytes| bytes >= 25 * 200), "{shown}");
    let app = &shown["apps"][0];
    assert_eq!((&app["backlog_messages"], &app["consumers"]), (&json!(25), &json!(0)), "{shown}");
    let list = admin.get_json("/api/v1/queues");
    assert!(list.to_string().contains(URI), "{list}");

    let peeked = admin.get_json(&format!("{path}/messages?count=3"));
    let count = |value: &Value| -> usize {
        value.as_array().or_else(|| value["messages"].as_array()).map_or(0, Vec::len)
    };
    assert_eq!(count(&peeked), 3, "{peeked}");
    assert_eq!(admin.backlog(QUEUE), 25, "peeking takes nothing");

    admin.must("POST", &format!("{path}/purge"), "");
    assert_eq!(admin.backlog(QUEUE), 0);
    broker.kill();
    broker.restart();
    assert_eq!(admin.backlog(QUEUE), 0, "a purge is for good");

    let mut session = JsonSession::start(&broker);
    session.open(URI, 0, true, true);
    let answer = admin.send("DELETE", &path, "");
    assert_eq!(answer.status, 409, "it is open: {}", answer.body);
    session.disconnect();
    until("the queue to be deleted", || {
        (admin.send("DELETE", &path, "").status < 300).then_some(())
    });
    assert_eq!(admin.get(&path).status, 404);
    assert_eq!(admin.send("POST", &format!("{path}/purge"), "").status, 404);
}

#[test]
fn a_purge_spares_nothing_that_is_delivered_and_frees_the_consumer() {
    let broker = Broker::start();
    let mut session = JsonSession::start(&broker);
    session.open(URI, 0, true, true);
    session.configure(0, 1, 1);
    session.put(0, 1, b"one");
    assert_eq!(session.acknowledgements()[0].status, 0);
    let delivered = session.deliveries();
    session.put(0, 2, b"two");
    assert_eq!(session.acknowledgements()[0].status, 0);
    broker.admin().must("POST", &format!("/api/v1/queues/{QUEUE}/purge"), "");
    // A confirm of what is gone is harmless.
    session.confirm(0, delivered[0].guid);
    session.put(0, 3, b"three");
    assert_eq!(session.acknowledgements()[0].status, 0);
    assert_eq!(session.deliveries()[0].data, b"three");
}

#[test]
fn changes_need_the_token_where_there_is_one() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    fs::write(file.path(), "open sesame\n").expect("written");
    let line = format!("admin.token_file = \"{}\"", file.path().display());
    let broker = Broker::builder().setting(&line).start();
    let admin = broker.admin();
    assert_eq!(admin.get("/readyz").status, 200, "looking is free");
    let refused = admin.send("POST", "/api/v1/domains", &priority("orders").to_string());
    assert_eq!(refused.status, 401, "{}", refused.body);
    assert_eq!(admin.get("/api/v1/domains/orders").status, 404);
    let definition = broker.folder().join("orders.json");
    fs::write(&definition, priority("orders").to_string()).expect("written");
    let definition = definition.display().to_string();
    let (code, _, said) = flintmq_admin(&broker, &["domain", "apply", &definition]);
    assert_eq!(code, 1, "{said}");
    let token = file.path().display().to_string();
    let (code, _, said) =
        flintmq_admin(&broker, &["--token-file", &token, "domain", "apply", &definition]);
    assert_eq!(code, 0, "{said}");
    assert_eq!(admin.get("/api/v1/domains/orders").status, 200);
}

#[test]
fn sessions_are_listed_with_what_clients_say_of_themselves() {
    let broker = Broker::start();
    let mut client = RawClient::over(broker.connect());
    client
        .send(&json_session::control(&json!({"clientIdentity": {
            "protocolVersion": 1, "sdkVersion": 9205, "clientType": "E_TCPCLIENT",
            "processName": "billing", "pid": 4711, "sessionId": 1, "hostName": "till-3",
            "features": "PROTOCOL_ENCODING:JSON", "clusterName": "", "clusterNodeId": -1,
            "sdkLanguage": "E_JAVA", "userAgent": "bmq-java/0.92.5",
        }})))
        .expect("sent");
    client.receive().expect("an answer");
    let said = broker.wait_for_log(&["session up", "billing"]);
    for fact in ["4711", "till-3", "Java", "0.92.5", "bmq-java/0.92.5", "127.0.0.1:"] {
        assert!(said.contains(fact), "{fact} is missing in the log: {said}");
    }
    let address = client.stream().local_addr().expect("an address").to_string();
    let admin = broker.admin();
    let listed = admin.get_json("/api/v1/sessions");
    let session = &listed["sessions"][0];
    assert_eq!(listed["total"], 1, "{listed}");
    for (fact, value) in [
        ("node", json!(1)),
        ("address", json!(address)),
        ("client", json!("billing")),
        ("language", json!("Java")),
        ("version", json!("0.92.5")),
        ("user_agent", json!("bmq-java/0.92.5")),
        ("host", json!("till-3")),
        ("pid", json!(4711)),
        ("handles", json!(0)),
    ] {
        assert_eq!(session[fact], value, "{fact}: {listed}");
    }
    assert!(session["since"].as_str().is_some_and(|since| since.ends_with('Z')), "{listed}");

    // In order, no more than asked for, and with what is open.
    let mut others: Vec<JsonSession> = (0..3).map(|_| JsonSession::start(&broker)).collect();
    others[0].open(URI, 0, true, true);
    others[0].open("bmq://bmq.test/other", 1, false, true);
    let listed = admin.get_json("/api/v1/sessions?count=2");
    let ids = [&listed["sessions"][0]["id"], &listed["sessions"][1]["id"]];
    assert_eq!(listed["total"], 4, "{listed}");
    assert_eq!(listed["sessions"].as_array().map(Vec::len), Some(2), "{listed}");
    assert!(ids[0].as_u64() < ids[1].as_u64(), "{listed}");
    assert_eq!(listed["sessions"][1]["handles"], 3, "{listed}");
    let (code, out, said) = flintmq_admin(&broker, &["session", "list", "--count", "1"]);
    assert_eq!(code, 0, "{said}");
    assert!(out.contains("billing") && out.contains("till-3"), "{out}");
    assert!(said.contains("shown=1 total=4"), "{said}");

    drop(client);
    until("the session to go from the list", || {
        (admin.get_json("/api/v1/sessions")["total"] == 3).then_some(())
    });
}

#[test]
fn the_command_line_shows_the_same() {
    let broker = Broker::start();
    publish(&broker, 5);
    let (code, out, said) = flintmq_admin(&broker, &["queue", "show", URI, "--json"]);
    assert_eq!(code, 0, "{said}");
    let shown: Value = serde_json::from_str(&out).expect("JSON on standard output");
    assert_eq!(shown["backlog_messages"], 5);
    let (code, out, said) = flintmq_admin(&broker, &["queue", "list"]);
    assert_eq!(code, 0, "{said}");
    assert!(out.contains(URI), "{out}");
    let (code, out, said) = flintmq_admin(&broker, &["status", "--json"]);
    assert_eq!(code, 0, "{said}");
    assert!(serde_json::from_str::<Value>(&out).is_ok(), "{out}");
    let (code, _, said) = flintmq_admin(&broker, &["queue", "show", "bmq://no/such"]);
    assert_eq!(code, 1);
    assert!(said.contains("no/such"), "{said}");
}

#[test]
fn produce_and_consume_on_the_command_line() {
    let broker = Broker::start();
    let url = broker.url();
    let lines = b"one\ntwo\nthree\n";
    let arguments = ["produce", URI, "--broker", &url, "--file", "-"];
    let (code, _, said) = run_flintmq(broker.folder(), &arguments, lines);
    assert_eq!(code, 0, "{said}");
    assert_eq!(broker.admin().backlog(QUEUE), 3);
    let arguments = ["consume", URI, "--broker", &url, "--count", "3"];
    let (code, out, said) = run_flintmq(broker.folder(), &arguments, b"");
    assert_eq!((code, out.as_str()), (0, "one\ntwo\nthree\n"), "{said}");
    let admin = broker.admin();
    until("the confirms", || (admin.backlog(QUEUE) == 0).then_some(()));
}

#[test]
fn a_short_benchmark_loses_nothing() {
    let broker = Broker::start();
    let arguments = [
        "bench",
        "--broker",
        &broker.url(),
        "--queues",
        "2",
        "--producers",
        "2",
        "--consumers",
        "2",
        "--size",
        "512",
        "--in-flight",
        "64",
        "--duration",
        "2",
        "--json",
    ];
    let (code, out, said) = run_flintmq(broker.folder(), &arguments, b"");
    assert_eq!(code, 0, "{said}");
    let report: Value = serde_json::from_str(&out).expect("JSON on standard output");
    assert_eq!((&report["lost"], &report["duplicated"]), (&json!(0), &json!(0)), "{report}");
    assert_eq!(report["acked"], report["consumed"], "{report}");
    assert!(report["acked"].as_u64().is_some_and(|count| count > 0), "{report}");
    for name in ["publish_ack_ms", "end_to_end_ms"] {
        assert!(report[name]["p99"].as_f64().is_some_and(|ms| ms > 0.0), "{name}: {report}");
    }
}
