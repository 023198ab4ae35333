//! Fear: `kill -9` of the broker loses acknowledged messages, stores retransmitted ones twice, or
//! brings confirmed ones back.

use flintmq_system_tests::broker_process::Broker;
use flintmq_system_tests::history::{Expectations, History};
use flintmq_system_tests::python::PythonClient;
use flintmq_system_tests::wait::until;

/// The official client waits longer before each of its reconnects, so a few kills per client.
const SHIFTS: usize = 2;
const KILLS_PER_SHIFT: usize = 5;
const STREAMED: &str = "bmq://bmq.test/streamed";
const KEPT: &str = "bmq://bmq.test/kept";

#[test]
fn ten_kills_during_a_stream_of_publishes() {
    let mut broker = Broker::start();
    let mut history = History::default();
    for shift in 0..SHIFTS {
        let name = format!("p{shift}");
        let arguments = ["--uri", STREAMED, "--uri", KEPT, "--window", "400", "--properties"];
        let mut producer = PythonClient::producer(&broker, &name, &arguments);
        // Confirms everything as it comes, and lives through every kill.
        let consumer = format!("streaming{shift}");
        let streaming = PythonClient::consumer(&broker, &consumer, &["--uri", STREAMED]);
        streaming.wait_for("opened", 1);
        for kill in 0..KILLS_PER_SHIFT {
            // Every kill meets a stream that flows in both directions again.
            let acked = producer.report().count("acked");
            let delivered = streaming.report().count("delivered");
            producer.wait_for("acked", acked + 1000);
            streaming.wait_for("delivered", delivered + 300);
            if kill == KILLS_PER_SHIFT / 2 {
                // One that reads some of the other queue and leaves properly: those must be gone.
                let some = format!("some{shift}");
                let arguments = ["--uri", KEPT, "--count", "1000", "--limit", "100"];
                let some_of_it = PythonClient::consumer(&broker, &some, &arguments);
                history.add_report(&some, &some_of_it.finish());
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
        history.add_report(&name, &produced);

        wait_until_empty(&broker, "bmq.test/streamed");
        let streamed = streaming.stop();
        assert!(streamed.session_was("Reconnected"), "the consumer came back by itself");
        history.add_report(&consumer, &streamed);
    }
    let rest = PythonClient::consumer(&broker, "rest", &["--uri", KEPT]);
    wait_until_empty(&broker, "bmq.test/kept");
    history.add_report("rest", &rest.stop());
    history.assert_kept(Expectations::ONE_BROKER);
}

fn wait_until_empty(broker: &Broker, queue: &str) {
    let admin = broker.admin();
    until(&format!("{queue} to be empty"), || (admin.backlog(queue) == 0).then_some(()));
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
    history.assert_kept(Expectations::ONE_BROKER);
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
    history.assert_kept(Expectations::ONE_BROKER);
}
