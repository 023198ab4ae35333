//! Fear: in a cluster it matters which node a client talks to.

use flintmq_system_tests::broker_process::run_flintmq;
use flintmq_system_tests::cluster::{Cluster, NODES};
use flintmq_system_tests::domains;
use flintmq_system_tests::history::{Expectations, History};
use flintmq_system_tests::python::PythonClient;
use flintmq_system_tests::rust_client::RustConsumer;

/// What a leader has sent through a node that it misses goes to other consumers, and comes out of
/// order.
fn patient() -> Cluster {
    Cluster::builder().partitions(4).patient().start()
}

#[test]
fn every_node_serves_every_queue() {
    let cluster = patient();
    let queue = |node: usize| format!("bmq.test/made-by-{node}");
    let uris = NODES.map(|node| format!("bmq://{}", queue(node)));
    // Each queue is there because another node was asked for it.
    for node in NODES {
        cluster.create_queue(node, &queue(node));
    }
    let mut consumers = Vec::new();
    for node in NODES {
        for at in [node, cluster.others(node)[0]] {
            let name = format!("c{node}-at-{at}");
            let arguments = ["--uri", uris[node - 1].as_str(), "--properties"];
            consumers.push(PythonClient::consumer(cluster.node(at), &name, &arguments));
        }
    }
    for consumer in &consumers {
        consumer.wait_for("opened", 1);
    }
    let producers: Vec<PythonClient> = NODES
        .iter()
        .map(|node| {
            let [first, second, third] = [&uris[0], &uris[1], &uris[2]].map(String::as_str);
            let arguments = ["--uri", first, "--uri", second, "--uri", third];
            let arguments = [&arguments[..], &["--count", "200", "--properties"]].concat();
            PythonClient::producer(cluster.node(*node), &format!("p{node}"), &arguments)
        })
        .collect();
    let mut history = History::default();
    for producer in producers {
        let name = producer.name().to_owned();
        let report = producer.finish();
        assert_eq!(report.acknowledged_with("SUCCESS").len(), 600, "{name}");
        history.add_report(&name, &report);
    }
    for node in NODES {
        cluster.wait_until_empty(&queue(node));
    }
    for consumer in consumers {
        let name = consumer.name().to_owned();
        history.add_report(&name, &consumer.stop());
    }
    assert_eq!(history.acknowledged(), history.delivered());
    history.assert_kept(Expectations::ONE_BROKER);
}

#[test]
fn a_queue_that_all_nodes_are_asked_for_at_once_is_one_queue() {
    let cluster = Cluster::builder().partitions(4).start();
    let uri = "bmq://bmq.test/wanted-by-all";
    let producers: Vec<PythonClient> = NODES
        .iter()
        .map(|node| {
            let arguments = ["--uri", uri, "--count", "100"];
            PythonClient::producer(cluster.node(*node), &format!("p{node}"), &arguments)
        })
        .collect();
    for producer in producers {
        assert_eq!(producer.finish().acknowledged_with("SUCCESS").len(), 100);
    }
    for node in NODES {
        cluster.wait_for_backlog(node, "bmq.test/wanted-by-all", 300);
    }
}

#[test]
fn a_domain_defined_at_one_node_holds_at_all() {
    let cluster = Cluster::start();
    for (node, other) in [(1, 2), (2, 3), (3, 1)] {
        let name = format!("made.by{node}");
        cluster.node(node).admin().define_domain(&domains::priority(&name));
        let uri = format!("bmq://{name}/q");
        let reader = RustConsumer::start(&cluster.url_of(other), "c", &uri);
        let arguments = ["--uri", uri.as_str(), "--count", "10"];
        PythonClient::producer(cluster.node(node), "p", &arguments).finish();
        cluster.wait_until_empty(&format!("{name}/q"));
        assert_eq!(reader.stop().len(), 21, "ten delivered, ten confirmed, and the end");
    }
}

/// Publishes the text through one node and gives what is consumed through another, each line a
/// message.
#[track_caller]
fn through(cluster: &Cluster, [from, to]: [usize; 2], queue: &str, text: &str) -> String {
    let (from, to) = (cluster.node(from), cluster.node(to));
    let uri = format!("bmq://{queue}");
    let (code, _, error) = run_flintmq(
        from.folder(),
        &["produce", "--broker", &from.url(), &uri, "--file", "-"],
        text.as_bytes(),
    );
    assert_eq!(code, 0, "{error}");
    let count = text.lines().count().to_string();
    let arguments = ["consume", "--broker", &to.url(), &uri, "--count", &count];
    let (code, output, error) = run_flintmq(to.folder(), &arguments, b"");
    assert_eq!(code, 0, "{error}");
    output
}

#[test]
fn a_gateway_takes_messages_from_its_own_log() {
    const QUEUE: &str = "bmq.test/own-log";
    let cluster = patient();
    cluster.create_queue(1, QUEUE);
    let leader = cluster.hold_leader(QUEUE);
    let [left, right] = cluster.others(leader);
    // More than a gateway keeps at hand, of all sizes from nothing on.
    let line = |n: usize| format!("{n} {}\n", "x".repeat((n * 37) % 3000));
    let long: String = (0..3000).map(line).collect();
    assert_eq!(through(&cluster, [leader, left], QUEUE, &long), long);
    assert_eq!(through(&cluster, [right, left], QUEUE, &long), long);
    // And what comes while somebody listens.
    let short: String = (0..500).map(line).collect();
    let (code, consumed, error) = std::thread::scope(|scope| {
        let listening = scope.spawn(|| {
            let node = cluster.node(right);
            let uri = format!("bmq://{QUEUE}");
            let arguments = ["consume", "--broker", &node.url(), &uri, "--count", "500"];
            run_flintmq(node.folder(), &arguments, b"")
        });
        cluster.wait_for_consumers(leader, QUEUE, 1);
        let node = cluster.node(left);
        let uri = format!("bmq://{QUEUE}");
        let arguments = ["produce", "--broker", &node.url(), &uri, "--file", "-"];
        let (code, _, error) = run_flintmq(node.folder(), &arguments, short.as_bytes());
        assert_eq!(code, 0, "{error}");
        listening.join().expect("the consumer ends")
    });
    assert_eq!(code, 0, "{error}");
    assert_eq!(consumed, short);
}
