//! Fear: the node that leads dies, and with it something that it had promised; or nobody takes
//! over; or its clients do not find the others.
//!
//! `FLINTMQ_TEST_KILLS` says how often each test kills, 3 times unless it is set.

use flintmq_system_tests::clock;
use flintmq_system_tests::cluster::{Cluster, NODES, Traffic};
use flintmq_system_tests::history::{Expectations, History};
use flintmq_system_tests::python::PythonClient;
use flintmq_system_tests::silence;

const FIRST: &str = "bmq.test/first";
const SECOND: &str = "bmq.test/second";
const PYTHON: &str = "bmq.test/python";

fn kills() -> usize {
    std::env::var("FLINTMQ_TEST_KILLS").ok().and_then(|count| count.parse().ok()).unwrap_or(3)
}

#[test]
fn clients_of_the_others_notice_a_pause_and_no_more() {
    let mut cluster = Cluster::start();
    for (node, queue) in [(1, FIRST), (2, SECOND), (3, PYTHON)] {
        cluster.create_queue(node, queue);
    }
    let mut history = History::default();
    let mut silences = Vec::new();
    for kill in 0..kills() {
        let leader = cluster.hold_leader(FIRST);
        let [left, right] = cluster.others(leader);
        let (at_left, at_right) = (cluster.url_of(left), cluster.url_of(right));
        let python = format!("bmq://{PYTHON}");
        let name = format!("python{kill}");
        let reader = format!("python{kill}-reads");
        let consumer = PythonClient::consumer(cluster.node(left), &reader, &["--uri", &python]);
        let arguments = ["--uri", &python, "--window", "100"];
        let mut producer = PythonClient::producer(cluster.node(right), &name, &arguments);
        let traffic = Traffic::new()
            .flow(&format!("first{kill}"), FIRST, &at_left, &at_right)
            .flow(&format!("second{kill}"), SECOND, &at_right, &at_left);
        producer.wait_for("acked", 200);
        consumer.wait_for("delivered", 200);
        traffic.wait_for(200);

        let killed_at = clock::now();
        cluster.node_mut(leader).kill();
        let acked = producer.report().count("acked");
        let delivered = consumer.report().count("delivered");
        traffic.wait_for(200);
        producer.wait_for("acked", acked + 200);
        consumer.wait_for("delivered", delivered + 200);
        cluster.node_mut(leader).restart();
        traffic.wait_for(100);

        producer.command("stop");
        assert_eq!(traffic.interruptions(), 0, "kill {kill} of node {leader}");
        silences.push(traffic.finish(&cluster, killed_at, &mut history));
        let produced = producer.finish();
        cluster.wait_until_empty(PYTHON);
        let consumed = consumer.stop();
        assert!(!produced.session_was("ConnectionLost") && !consumed.session_was("ConnectionLost"));
        assert_eq!(produced.acknowledged_with("SUCCESS"), produced.id_set("sent"));
        history.add_report(&name, &produced);
        history.add_report(&reader, &consumed);
    }
    for node in NODES {
        let log = cluster.node(node).log();
        assert!(!log.contains("certificate"), "restarts are no matter of certificates: {log}");
    }
    silence::print("longest silence of a producer around each kill", &silences);
    history.assert_kept(Expectations::CLUSTER);
    silence::assert_nothing_hung(&silences);
}

#[test]
fn clients_of_the_killed_node_go_on_elsewhere() {
    let mut cluster = Cluster::start();
    for (node, queue) in [(1, FIRST), (2, SECOND)] {
        cluster.create_queue(node, queue);
    }
    let mut history = History::default();
    let mut silences = Vec::new();
    for kill in 0..kills() {
        let leader = cluster.hold_leader(FIRST);
        // In turn the node that leads, and one that only hands on what its clients say.
        let victim = if kill % 2 == 0 { leader } else { cluster.others(leader)[0] };
        let here = cluster.urls_from(victim);
        let other = cluster.url_of(cluster.others(victim)[1]);
        let traffic = Traffic::new().flow(&format!("both{kill}"), FIRST, &here, &here).flow(
            &format!("reader{kill}"),
            SECOND,
            &other,
            &here,
        );
        traffic.wait_for(200);
        let killed_at = clock::now();
        cluster.node_mut(victim).kill();
        traffic.wait_for(200);
        assert_eq!(traffic.interruptions(), 3, "each client of node {victim} moved once");
        cluster.node_mut(victim).restart();
        traffic.wait_for(100);
        silences.push(traffic.finish(&cluster, killed_at, &mut history));
    }
    silence::print("longest silence of a producer that moved", &silences);
    // Until a leader misses a killed node, that node's consumer counts as one more beside the one
    // that has come back elsewhere, and gets a part of the messages: those come back later.
    history.assert_kept(Expectations { ordered: false, ..Expectations::CLUSTER });
    silence::assert_nothing_hung(&silences);
}
