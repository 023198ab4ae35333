//! Fear: a planned stop loses something, takes for ever, or costs a long recovery.

use std::time::Instant;

use flintmq_system_tests::broker_process::Broker;
use flintmq_system_tests::history::{Expectations, History};
use flintmq_system_tests::json_session::JsonSession;
use flintmq_system_tests::python::PythonClient;
use flintmq_system_tests::wait::{LIMIT, until};

const URI: &str = "bmq://bmq.test/stopping";

#[test]
fn sigterm_under_load_loses_nothing() {
    let mut broker = Broker::builder().setting("limits.shutdown_timeout = \"5s\"").start();
    let mut history = History::default();
    let mut producer = PythonClient::producer(&broker, "p", &["--uri", URI, "--window", "300"]);
    let mut consumer = PythonClient::consumer(&broker, "c", &["--uri", URI]);
    for _ in 0..3 {
        let acked = producer.report().count("acked");
        producer.wait_for("acked", acked + 1000);
        broker.terminate();
        let began = Instant::now();
        let status = broker.wait_for_exit(LIMIT);
        assert!(status.success(), "{status}");
        println!("stopped under load in {:?}", began.elapsed());
        broker.restart();
    }
    let acked = producer.report().count("acked");
    producer.wait_for("acked", acked + 1000);
    producer.command("stop");
    let produced = producer.finish();
    assert_eq!(produced.acknowledged_with("SUCCESS"), produced.id_set("sent"));
    let admin = broker.admin();
    until("the queue to be empty", || (admin.backlog("bmq.test/stopping") == 0).then_some(()));
    consumer.command("stop");
    history.add_report("p", &produced);
    history.add_report("c", &consumer.finish());
    history.assert_kept(Expectations::ONE_BROKER);
}

#[test]
fn idle_clients_do_not_hold_the_stop_up() {
    let mut broker = Broker::builder().setting("limits.shutdown_timeout = \"600s\"").start();
    let mut sessions: Vec<JsonSession> = (0..20).map(|_| JsonSession::start(&broker)).collect();
    for (number, session) in sessions.iter_mut().enumerate() {
        session.open(&format!("bmq://bmq.test/idle{number}"), 0, true, true);
    }
    broker.terminate();
    // Far below the time that a stop may take: nobody has anything left to finish.
    let status = broker.wait_for_exit(LIMIT);
    assert!(status.success(), "{status}");
}

#[test]
fn a_consumer_that_never_confirms_is_waited_for_only_so_long() {
    let mut broker = Broker::builder().setting("limits.shutdown_timeout = \"2s\"").start();
    let mut session = JsonSession::start(&broker);
    session.open(URI, 0, true, true);
    session.configure(0, 1, 100);
    session.put(0, 1, b"held");
    assert_eq!(session.acknowledgements()[0].status, 0);
    assert_eq!(session.deliveries()[0].data, b"held");
    broker.terminate();
    let status = broker.wait_for_exit(LIMIT);
    assert!(status.success(), "{status}");
    broker.restart();
    assert_eq!(broker.admin().backlog("bmq.test/stopping"), 1, "it was not confirmed");
}

#[test]
fn a_stop_is_told_from_a_crash() {
    let mut broker = Broker::start();
    PythonClient::producer(&broker, "p", &["--uri", URI, "--count", "100"]).finish();
    broker.stop();
    let clean_starts = |broker: &Broker| broker.log().matches("the last stop was clean").count();
    let unclean_starts =
        |broker: &Broker| broker.log().matches("the last stop was not clean").count();
    let before = (clean_starts(&broker), unclean_starts(&broker));
    broker.restart();
    assert_eq!((clean_starts(&broker), unclean_starts(&broker)), (before.0 + 1, before.1));
    broker.kill();
    broker.restart();
    assert_eq!((clean_starts(&broker), unclean_starts(&broker)), (before.0 + 1, before.1 + 1));
}
