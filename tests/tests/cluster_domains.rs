//! Fear: a domain is changed while a partition has no leader, and the partition's queues go on
//! under the old definition.

use flintmq_system_tests::cluster::Cluster;
use flintmq_system_tests::domains;
use flintmq_system_tests::json_session::JsonSession;
use flintmq_system_tests::wait::until;
use serde_json::json;

const DOMAIN: &str = "changed.meanwhile";
const QUEUE: &str = "changed.meanwhile/q";

#[test]
fn a_change_that_comes_during_an_election_takes_effect() {
    let mut cluster = Cluster::builder().partitions(1).start();
    cluster.node(1).admin().define_domain(&domains::priority(DOMAIN));
    cluster.create_queue(1, QUEUE);
    let leader = cluster.hold_leader(QUEUE);
    let [stays, other] = cluster.others(leader);
    // The metadata have a leader all the time.
    let to = json!({ "to": stays, "force": false }).to_string();
    cluster.node(stays).admin().must("POST", "/api/v1/groups/0/transfer", &to);
    let mut session = JsonSession::start(cluster.node(other));
    session.open(&format!("bmq://{QUEUE}"), 0, false, true);
    session.put(0, 1, b"before");
    assert_eq!(session.acknowledgements()[0].status, 0);

    cluster.node_mut(leader).kill();
    let limit = "/storage/queueLimits/messages";
    let definition = domains::priority_with(DOMAIN, limit, json!(3));
    let path = format!("/api/v1/domains/{DOMAIN}");
    cluster.node(stays).admin().must("PUT", &path, &definition.to_string());
    let mut number = 1;
    until("the new limit to be in force", || {
        number += 1;
        session.put(0, number, b"after");
        (session.acknowledgements()[0].status != 0).then_some(())
    });
    println!("refused the message with the number {number}");
    session.disconnect();
}
