//! Fears: a domain is changed while a partition has no leader, and the partition's queues go on
//! under the old definition; or the change is answered and another node still refuses, or still
//! takes, under the old one.

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

/// A client that has the answer to a change may go on at any node.
#[test]
fn a_raised_limit_of_queues_is_in_force_on_every_node_once_it_is_answered() {
    let cluster = Cluster::start();
    let name = "raised.limit";
    let definition = |limit: u32| domains::priority_with(name, "/maxQueues", json!(limit));
    cluster.node(1).admin().define_domain(&definition(1));
    let to = json!({ "to": 1, "force": false }).to_string();
    cluster.node(1).admin().must("POST", "/api/v1/groups/0/transfer", &to);
    let mut sessions = [2, 3].map(|node| JsonSession::start(cluster.node(node)));
    let path = format!("/api/v1/domains/{name}");
    for limit in 1..=14 {
        cluster.node(1).admin().must("PUT", &path, &definition(limit).to_string());
        let session = &mut sessions[limit as usize % 2];
        let opened = session.open(&format!("bmq://{name}/q{limit}"), limit, false, true);
        assert!(opened.get("openQueueResponse").is_some(), "limit={limit}: {opened}");
    }
    let opened = sessions[0].open(&format!("bmq://{name}/one-more"), 15, false, true);
    assert_eq!(opened["status"]["category"], "E_REFUSED", "{opened}");
}

/// The limits of messages are kept by the leader of a partition, which is another node than the one
/// that takes the change.
#[test]
fn a_changed_limit_of_messages_is_in_force_at_the_leader_once_it_is_answered() {
    let cluster = Cluster::builder().partitions(3).start();
    let name = "changed.limit";
    let limit = "/storage/queueLimits/messages";
    let definition = |limit_of: u32| domains::priority_with(name, limit, json!(limit_of));
    cluster.node(1).admin().define_domain(&definition(1));
    // Two queues in different partitions.
    let queues = ["changed.limit/a", "changed.limit/b"];
    let mut sessions: Vec<JsonSession> = Vec::new();
    for (number, queue) in queues.into_iter().enumerate() {
        cluster.create_queue(1, queue);
        let leader = cluster.hold_leader(queue);
        let [_, through] = cluster.others(leader);
        let mut session = JsonSession::start(cluster.node([leader, through][number]));
        session.open(&format!("bmq://{queue}"), 0, false, true);
        sessions.push(session);
    }
    let mut number = 0;
    let mut taken = |session: &mut JsonSession| {
        number += 1;
        session.put(0, number, b"message");
        session.acknowledgements()[0].status == 0
    };
    // A limit of one holds two.
    sessions.iter_mut().for_each(|session| assert!(taken(session)));
    let path = format!("/api/v1/domains/{name}");
    for limit in 1..=10 {
        let asked = 1 + limit as usize % 3;
        cluster.node(asked).admin().must("PUT", &path, &definition(limit).to_string());
        for session in &mut sessions {
            assert!(taken(session), "limit={limit}: the new limit is not in force");
            assert!(!taken(session), "limit={limit}: more than the limit is taken");
        }
    }
}
