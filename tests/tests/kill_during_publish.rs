//! Fear: `kill -9` of the broker loses acknowledged messages, stores retransmitted ones twice, or
//! brings confirmed ones back.

use flintmq_system_tests::broker_process::Broker;
use flintmq_system_tests::history::{Expectations, History};
use flintmq_system_tests::python::PythonClient;
use flintmq_system_tests::wait::until;

const KILLS: usize = 10;
const STREAMED: &str = "bmq://bmq.test/streamed";
const KEPT: &str = "bmq://bmq.test/kept";

#[test]
fn ten_kills_during_a_stream_of_publishes() {
    let mut broker = Broker::start();
    let mut history = History::default();
    let mut producer = PythonClient::producer(
        &broker,
        "p",
        &["--uri", STREAMED, "--uri", KEPT, "--window", "400", "--properties"],
    );
    // Confirms everything as it comes, and lives through every kill.
    let mut streaming = PythonClient::consumer(&broker, "streaming", &["--uri", STREAMED]);
    streaming.wait_for("opened", 1);

    for kill in 0..KILLS {
        // Every kill meets a stream that flows in both directions again.
        let (acked, delivered) =
            (producer.report().count("acked"), streaming.report().count("delivered"));
        producer.wait_for("acked", acked + 1000);
        streaming.wait_for("delivered", delivered + 300);
        if kill == KILLS / 2 {
            // One that reads half of the other queue and leaves properly: those must be gone.
            let half = PythonClient::consumer(
                &broker,
                "half",
                &["--uri", KEPT, "--count", "1000", "--limit", "100"],
            );
            history.add_report("half", &half.finish());
        }
        broker.kill();
        broker.restart();
    }
    let acked = producer.report().count("acked");
    producer.wait_for("acked", acked + 1000);
    producer.command("stop");
    let produced = producer.finish();
    assert!(produced.session_was("Reconnected"), "the client came back by itself");
    let acknowledged = produced.acknowledged_with("SUCCESS");
    assert_eq!(acknowledged, produced.id_set("sent"), "every message got through in the end");

    let rest = PythonClient::consumer(&broker, "rest", &["--uri", KEPT]);
    let admin = broker.admin();
    for queue in ["bmq.test/kept", "bmq.test/streamed"] {
        until("the queues to be empty", || (admin.backlog(queue) == 0).then_some(()));
    }
    streaming.command("stop");
    let streamed = streaming.finish();
    assert!(streamed.session_was("Reconnected"), "the consumer came back by itself");
    for (name, report) in [("p", &produced), ("streaming", &streamed), ("rest", &rest.stop())] {
        history.add_report(name, report);
    }
    history.assert_kept(Expectations { drained: true, ordered: true });
}

#[test]
fn a_kill_right_after_the_acknowledgement() {
    let mut broker = Broker::start();
    let mut history = History::default();
    for round in 0..5 {
        let first = (round * 100 + 1).to_string();
        let arguments = ["--uri", KEPT, "--count", "100", "--first", &first];
        let producer = PythonClient::producer(&broker, "p", &arguments);
        producer.wait_for("acked", 100);
        broker.kill();
        let name = format!("p{round}");
        history.add_report(&name, &producer.kill());
        broker.restart();
        assert_eq!(broker.admin().backlog("bmq.test/kept"), (round + 1) * 100);
    }
    let consumer = PythonClient::consumer(&broker, "c", &["--uri", KEPT, "--count", "500"]);
    history.add_report("c", &consumer.finish());
    history.assert_kept(Expectations { drained: true, ordered: true });
}

#[test]
fn a_kill_during_the_start() {
    let mut broker = Broker::start();
    let mut history = History::default();
    let arguments = ["--uri", KEPT, "--count", "2000"];
    history.add_report("p", &PythonClient::producer(&broker, "p", &arguments).finish());
    broker.kill();
    let mut ready = 0;
    for round in 0..12 {
        broker.launch();
        // Later in each round: from before the log is opened until after clients are served.
        let admin = broker.admin();
        let mut looks = 0;
        until("some time of the start", || {
            looks += 1;
            (looks > round * 2).then_some(())
        });
        ready += usize::from(admin.try_get("/readyz").is_some_and(|answer| answer.status == 200));
        broker.kill();
    }
    println!("ready before the kill: {ready} of 12");
    broker.restart();
    let consumer = PythonClient::consumer(&broker, "c", &["--uri", KEPT, "--count", "2000"]);
    history.add_report("c", &consumer.finish());
    history.assert_kept(Expectations { drained: true, ordered: true });
}
