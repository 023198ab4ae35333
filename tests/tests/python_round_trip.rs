//! Fear: the official client's messages are lost, changed, reordered or delivered again.

use flintmq_system_tests::broker_process::Broker;
use flintmq_system_tests::history::{Expectations, History};
use flintmq_system_tests::python::PythonClient;
use flintmq_system_tests::wait::until;

const URI: &str = "bmq://bmq.test/round-trip";
const QUEUE: &str = "bmq.test/round-trip";
const ALL: Expectations = Expectations::ONE_BROKER;

#[test]
fn ten_thousand_messages_with_properties_and_compression() {
    let mut broker = Broker::start();
    let mut history = History::default();
    let posted = PythonClient::producer(
        &broker,
        "p",
        &["--uri", URI, "--count", "10000", "--size", "1500", "--properties"],
    );
    let compressed = PythonClient::producer(
        &broker,
        "z",
        &[
            "--uri",
            URI,
            "--count",
            "10000",
            "--size",
            "1500",
            "--properties",
            "--compression",
            "zlib",
        ],
    );
    let (posted, compressed) = (posted.finish(), compressed.finish());
    for report in [&posted, &compressed] {
        assert_eq!(report.acknowledged_with("SUCCESS").len(), 10_000);
    }
    assert_eq!(broker.admin().backlog(QUEUE), 20_000);

    let consumer =
        PythonClient::consumer(&broker, "c", &["--uri", URI, "--count", "20000", "--properties"]);
    let consumed = consumer.finish();
    for report in [&posted, &compressed] {
        let sent = report.ids("sent");
        let name = sent[0].rsplit_once(':').expect("a sequence").0;
        let delivered: Vec<String> = consumed
            .ids("delivered")
            .into_iter()
            .filter(|id| id.starts_with(&format!("{name}:")))
            .collect();
        assert_eq!(delivered, sent, "every message once and in the order it was sent");
    }
    until("all confirms to be processed", || (broker.admin().backlog(QUEUE) == 0).then_some(()));

    broker.stop();
    broker.restart();
    assert_eq!(broker.admin().backlog(QUEUE), 0, "confirmed messages came back with the restart");
    let late = PythonClient::consumer(&broker, "late", &["--uri", URI, "--count", "1"]);
    late.wait_for("opened", 1);
    let last =
        PythonClient::producer(&broker, "p", &["--uri", URI, "--count", "1", "--first", "10001"])
            .finish();
    let late = late.finish();
    assert_eq!(late.ids("delivered"), last.ids("sent"), "only what is new is delivered");

    for (name, report) in
        [("p", &posted), ("z", &compressed), ("c", &consumed), ("late", &late), ("p2", &last)]
    {
        history.add_report(name, report);
    }
    history.assert_kept(ALL);
}

#[test]
fn messages_of_every_size() {
    let broker = Broker::start();
    let mut history = History::default();
    let sizes = ["1", "1023", "1024", "65536", "1048577", "16777216"];
    for (compression, prefix) in [("none", "n"), ("zlib", "z")] {
        for size in sizes {
            let name = format!("{prefix}{size}");
            let report = PythonClient::producer(
                &broker,
                &name,
                &["--uri", URI, "--count", "3", "--size", size, "--compression", compression],
            )
            .finish();
            assert_eq!(report.acknowledged_with("SUCCESS").len(), 3, "size {size} {compression}");
            history.add_report(&name, &report);
        }
    }
    let count = (2 * 3 * sizes.len()).to_string();
    let consumer = PythonClient::consumer(&broker, "c", &["--uri", URI, "--count", &count]);
    history.add_report("c", &consumer.finish());
    history.assert_kept(ALL);
}

#[test]
fn one_session_publishes_to_many_queues() {
    let broker = Broker::start();
    let mut history = History::default();
    let uris: Vec<String> = (0..20).map(|n| format!("bmq://bmq.test.{}/q{n}", n % 4)).collect();
    let mut arguments = vec!["--count", "50"];
    for uri in &uris {
        arguments.extend(["--uri", uri]);
    }
    let report = PythonClient::producer(&broker, "p", &arguments).finish();
    assert_eq!(report.acknowledged_with("SUCCESS").len(), 20 * 50);
    history.add_report("p", &report);
    for uri in &uris {
        let consumer = PythonClient::consumer(&broker, uri, &["--uri", uri, "--count", "50"]);
        history.add_report(uri, &consumer.finish());
    }
    history.assert_kept(ALL);
}
