//! Fear: one node's wall clock is days ahead, it leads, and everything with a time to live is gone.

use flintmq_system_tests::broker_process::Broker;
use flintmq_system_tests::cluster::Cluster;
use flintmq_system_tests::domains::priority_with;
use flintmq_system_tests::python::PythonClient;
use flintmq_system_tests::wait::until;
use serde_json::json;

/// Its messages live for a day, which is less than the clock is ahead.
const QUEUE: &str = "lasting/q";
/// Its messages live for a second.
const SHORT: &str = "short/q";

/// The node whose clock is wrong.
const WRONG: usize = 1;

/// Three nodes, one of them eight days ahead; the other two are ready.
fn cluster() -> Cluster {
    let mut cluster = Cluster::builder().partitions(1).prepare();
    cluster.node_mut(WRONG).move_clock("+8d");
    for node in [1, 2, 3] {
        cluster.node_mut(node).launch();
    }
    for node in cluster.others(WRONG) {
        cluster.node_mut(node).wait_until_ready();
    }
    let admin = cluster.node(2).admin();
    for (name, ttl) in [("lasting", 86_400), ("short", 1)] {
        admin.define_domain(&priority_with(name, "/messageTtl", json!(ttl)));
    }
    cluster
}

fn publish(broker: &Broker, name: &str, queue: &str) -> Vec<String> {
    let uri = format!("bmq://{queue}");
    let report = PythonClient::producer(broker, name, &["--uri", &uri, "--count", "20"]).finish();
    assert_eq!(report.acknowledged_with("SUCCESS").len(), 20);
    report.ids("sent")
}

#[test]
fn it_does_not_lead_says_so_and_drops_nothing_in_ten_changes_of_leadership() {
    let cluster = cluster();
    let said = until("the node to say why it is not ready", || {
        let answer = cluster.node(WRONG).admin().try_get("/readyz")?;
        answer.body.contains("clock_ahead_ms=69").then_some(answer)
    });
    assert_eq!(said.status, 503, "{}", said.body);
    until("the metric to say so", || {
        let metrics = cluster.node(WRONG).admin().try_get("/metrics")?.body;
        metrics.contains("flintmq_node_unfit{reason=\"clock_off\"} 1").then_some(())
    });
    // Through the node whose clock is wrong, as well.
    let mut sent = publish(cluster.node(WRONG), "early", QUEUE);
    let mut leader = cluster.wait_for_leader(QUEUE);
    assert_ne!(leader, WRONG);
    let group = cluster.node(leader).admin().get_json(&format!("/api/v1/queues/{QUEUE}"))["group"]
        .as_u64()
        .expect("a group");
    let term =
        || cluster.node(2).admin().get_json(&format!("/api/v1/groups/{group}"))["term"].clone();
    let began = term().as_u64().expect("a term");
    for round in 0..10 {
        // Every other time it has to lead for a moment.
        let [first, second] = cluster.others(WRONG);
        let right = if leader == first { second } else { first };
        let forced = round % 2 == 1;
        let to = if forced { WRONG } else { right };
        let before = term();
        let order = json!({ "to": to, "force": forced }).to_string();
        let path = format!("/api/v1/groups/{group}/transfer");
        until("the leadership to move", || {
            if term() == before {
                // It may be between two leaders.
                cluster.node(leader).admin().try_send("POST", &path, &order)?;
            }
            (term() != before).then_some(())
        });
        leader = until("a node with the right time to lead", || {
            Some(cluster.wait_for_leader(QUEUE)).filter(|leader| *leader != WRONG)
        });
    }
    assert!(term().as_u64().expect("a term") >= began + 10);
    sent.extend(publish(cluster.node(leader), "late", QUEUE));
    let uri = format!("bmq://{QUEUE}");
    let count = sent.len().to_string();
    let consumer = ["--uri", &uri, "--count", &count];
    let read = PythonClient::consumer(cluster.node(WRONG), "c", &consumer).finish();
    assert_eq!(read.ids("delivered"), sent);

    // Short times to live go on working.
    publish(cluster.node(WRONG), "short", SHORT);
    cluster.wait_for_backlog(leader, SHORT, 0);
    cluster.assert_one_leader_per_term();
}
