//! Fear: the domains that a node is to start with are half there, or come back after an operator
//! changed them.

use std::fs;

use flintmq_system_tests::broker_process::Broker;
use flintmq_system_tests::domains::priority_with;
use flintmq_system_tests::json_session::JsonSession;
use flintmq_system_tests::wait::LIMIT;
use serde_json::json;

#[test]
fn defined_together_at_the_first_start_and_never_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, ttl: u32| {
        let definition = priority_with(name, "/messageTtl", json!(ttl));
        let file = folder.path().join(format!("{name}.json"));
        fs::write(file, definition.to_string()).expect("written");
    };
    write("orders", 100);
    fs::write(folder.path().join("returns.json"), "{").expect("written");
    let line = format!("bootstrap.domains_dir = \"{}\"", folder.path().display());
    let mut broker = Broker::builder().setting(&line).prepare();
    broker.launch();
    let status = broker.wait_for_exit(LIMIT);
    assert_eq!(status.code(), Some(1), "{}", broker.log());
    assert!(broker.log().contains("returns.json"), "{}", broker.log());

    // Mended, both are there: the start that failed had defined none.
    write("returns", 200);
    broker.restart();
    let admin = broker.admin();
    let ttl = |name: &str| admin.get_json(&format!("/api/v1/domains/{name}"))["messageTtl"].clone();
    assert_eq!((ttl("orders"), ttl("returns")), (json!(100), json!(200)));

    let changed = priority_with("orders", "/messageTtl", json!(300));
    admin.must("PUT", "/api/v1/domains/orders", &changed.to_string());
    admin.must("DELETE", "/api/v1/domains/returns", "");
    broker.kill();
    broker.restart();
    assert_eq!(ttl("orders"), json!(300));
    assert_eq!(admin.get("/api/v1/domains/returns").status, 404);
}

#[test]
fn a_changed_domain_reaches_the_queues_that_are_open() {
    let broker = Broker::start();
    let admin = broker.admin();
    let limited = |messages: u64| {
        priority_with("orders", "/storage/queueLimits/messages", json!(messages)).to_string()
    };
    admin.must("POST", "/api/v1/domains", &limited(1));
    let mut session = JsonSession::start(&broker);
    session.open("bmq://orders/new", 0, false, true);
    let mut status = |correlation| {
        session.put(0, correlation, b"x");
        session.acknowledgements()[0].status
    };
    // One more than the limit is taken, as BlazingMQ does.
    assert_eq!([status(1), status(2), status(3)], [0, 0, 1]);
    admin.must("PUT", "/api/v1/domains/orders", &limited(3));
    assert_eq!(
        [status(4), status(5), status(6)],
        [0, 0, 1],
        "in force when the change is answered"
    );
}
