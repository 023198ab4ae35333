//! Fear: the official client, which knows one address, cannot go on elsewhere when its node dies:
//! what it had confirmed comes back, what it had not is gone, or a new session gets nothing.

use std::collections::BTreeSet;

use flintmq_system_tests::cluster::Cluster;
use flintmq_system_tests::history::{Expectations, History};
use flintmq_system_tests::python::PythonClient;

const QUEUE: &str = "bmq.test/python-moves";
const URI: &str = "bmq://bmq.test/python-moves";

/// Published before the node dies; the consumer confirms these many and holds the rest.
const PUBLISHED: usize = 300;
const CONFIRMED: usize = 100;

#[test]
fn a_client_of_a_dead_leader_goes_on_in_a_new_session() {
    goes_on_elsewhere(true);
}

#[test]
fn a_client_of_a_dead_follower_goes_on_in_a_new_session() {
    goes_on_elsewhere(false);
}

#[track_caller]
fn goes_on_elsewhere(of_leader: bool) {
    let mut cluster = Cluster::start();
    cluster.create_queue(1, QUEUE);
    let leader = cluster.hold_leader(QUEUE);
    let victim = if of_leader { leader } else { cluster.others(leader)[0] };
    let [stays, third] = cluster.others(victim);
    let (count, confirm) = (PUBLISHED.to_string(), CONFIRMED.to_string());
    let limit = (PUBLISHED - CONFIRMED).to_string();

    let arguments = ["--uri", URI, "--confirm", &confirm, "--limit", &limit];
    let reader = PythonClient::consumer(cluster.node(victim), "reader", &arguments);
    reader.wait_for("opened", 1);
    let arguments = ["--uri", URI, "--count", &count];
    let early = PythonClient::producer(cluster.node(victim), "early", &arguments).finish();
    reader.wait_for("delivered", PUBLISHED);
    reader.wait_for("confirmed", CONFIRMED);
    // So the confirmations are decided.
    cluster.wait_for_backlog(stays, QUEUE, (PUBLISHED - CONFIRMED) as u64);
    let arguments = ["--uri", URI, "--window", "100"];
    let lost = PythonClient::producer(cluster.node(victim), "lost", &arguments);
    let mut kept = PythonClient::producer(cluster.node(stays), "kept", &arguments);
    lost.wait_for("acked", 200);
    kept.wait_for("acked", 200);

    cluster.node_mut(victim).kill();
    for client in [&reader, &lost] {
        client.wait_until("the session to notice", |report| {
            report.session_was("ConnectionLost").then_some(())
        });
    }
    // While the node is away: it would take its clients back.
    let (reader, lost) = (reader.kill(), lost.kill());
    let next = PythonClient::consumer(cluster.node(third), "next", &["--uri", URI]);
    let acked = kept.report().count("acked");
    kept.wait_for("acked", acked + 200);
    kept.command("stop");
    let kept = kept.finish();
    assert!(!kept.session_was("ConnectionLost"), "a client of a node that stays waits, no more");
    assert_eq!(kept.acknowledged_with("SUCCESS"), kept.id_set("sent"), "nor is it refused");
    cluster.wait_until_empty(QUEUE);
    let next = next.stop();

    let confirmed = reader.id_set("confirmed");
    let held: BTreeSet<String> =
        reader.id_set("delivered").difference(&confirmed).cloned().collect();
    assert_eq!((confirmed.len(), held.len()), (CONFIRMED, PUBLISHED - CONFIRMED));
    let again = next.id_set("delivered");
    assert!(confirmed.is_disjoint(&again), "confirmed messages do not come back");
    assert!(held.is_subset(&again), "messages that were held do");
    let mut history = History::default();
    for (name, report) in [("early", &early), ("lost", &lost), ("kept", &kept)] {
        history.add_report(name, report);
    }
    history.add_report("reader", &reader);
    history.add_report("next", &next);
    history.assert_kept(Expectations::CLUSTER);
}
