//! Fear: a node that is far behind is made the leader by force, and serves what it has, or never
//! serves.
//!
//! `FLINTMQ_TEST_BEHIND` says how many entries it is behind, 4,000 unless it is set.

use std::time::Duration;

use flintmq_system_tests::clock;
use flintmq_system_tests::cluster::Cluster;
use flintmq_system_tests::history::{Expectations, History};
use flintmq_system_tests::rust_client::{RustConsumer, RustProducer};
use flintmq_system_tests::silence;
use flintmq_system_tests::wait::until_within;
use serde_json::{Value, json};

const QUEUE: &str = "bmq.test/far";

/// How long the log may take to run away, also on a busy machine.
const FAR: Duration = Duration::from_secs(600);

/// The only partition.
const GROUP: u32 = 1;

/// More entries than the log keeps when all of their messages are gone.
fn behind() -> u64 {
    let entries = std::env::var("FLINTMQ_TEST_BEHIND").ok().and_then(|count| count.parse().ok());
    entries.unwrap_or(4_000)
}

/// How long a packet takes after the node is back; `FLINTMQ_TEST_BEHIND_LINK` in milliseconds.
fn link() -> Duration {
    let time = std::env::var("FLINTMQ_TEST_BEHIND_LINK").ok().and_then(|time| time.parse().ok());
    Duration::from_millis(time.unwrap_or(100))
}

/// The group, as a node's own replica knows it.
fn group(cluster: &Cluster, node: usize) -> Value {
    cluster.node(node).admin().get_json("/api/v1/groups?here=true")[GROUP as usize].clone()
}

fn index(group: &Value, name: &str) -> u64 {
    group[name].as_u64().unwrap_or_default()
}

#[test]
fn it_fetches_the_log_before_it_serves() {
    force_one_that_is_far_behind(false);
}

#[test]
fn it_takes_a_snapshot_where_the_log_is_gone() {
    force_one_that_is_far_behind(true);
}

/// Cuts the target off until the log has run away from it, and lets it back over slow links: each
/// window of entries takes so long that there is time to give the order.
#[track_caller]
fn leave_behind(cluster: &Cluster, leader: usize, target: usize) {
    cluster.heal();
    cluster.isolate(target);
    let last = index(&group(cluster, target), "commit_index");
    until_within(FAR, "the log to run away", || {
        (index(&group(cluster, leader), "commit_index") >= last + behind()).then_some(())
    });
    cluster.heal();
    cluster.delay_everywhere(link());
}

#[track_caller]
fn force_one_that_is_far_behind(consumed: bool) {
    // As links of a fifth of a second for a round trip need it.
    let timing = ["heartbeat = \"100ms\"", "election_min = \"1s\"", "election_max = \"2s\""];
    let builder = Cluster::builder().partitions(1).relayed();
    let builder = timing.iter().fold(builder, |b, line| b.setting(&format!("timing.{line}")));
    let cluster = builder.start();
    cluster.create_queue(1, QUEUE);
    let leader = cluster.hold_leader(QUEUE);
    let [target, other] = cluster.others(leader);
    let (uri, here) = (format!("bmq://{QUEUE}"), cluster.url_of(other));
    let reader = |name: &str| RustConsumer::start(&here, name, &uri);
    let consumer = consumed.then(|| reader("reads"));
    let producers: Vec<RustProducer> =
        (0..4).map(|number| RustProducer::one_by_one(&here, &format!("p{number}"), &uri)).collect();
    producers[0].wait_for(10);

    let bad_at = clock::now();
    leave_behind(&cluster, leader, target);
    let body = json!({ "to": target, "force": true }).to_string();
    let path = format!("/api/v1/groups/{GROUP}/transfer");
    let (lacks, answer) =
        until_within(FAR, "the leader to reach the node again, and to take the order", || {
            let seen = group(&cluster, leader);
            let member = &seen["members"][target - 1];
            if member["state"] == "unreachable" {
                return None;
            }
            let lacks = index(&seen, "commit_index").saturating_sub(index(member, "match_index"));
            if lacks < behind() / 2 {
                // It caught up before it could be told to lead: once more.
                leave_behind(&cluster, leader, target);
                return None;
            }
            let answer = cluster.node(leader).admin().send("POST", &path, &body);
            // Its first connections may come and go.
            (!answer.body.contains("cannot be reached")).then_some((lacks, answer))
        });
    cluster.heal();
    assert_eq!(answer.status, 200, "{}", answer.body);
    println!("{lacks} entries behind, consumed {consumed}: {}", answer.body);
    assert_eq!(answer.json()["to"], target, "{}", answer.body);
    assert_eq!(cluster.wait_for_leader(QUEUE), target);
    for producer in &producers {
        producer.wait_for(50);
    }

    let mut history = History::default();
    let interruptions: usize = producers.iter().map(RustProducer::interruptions).sum();
    assert_eq!(interruptions, 0, "clients have waited");
    let produced: Vec<_> = producers.into_iter().flat_map(RustProducer::stop).collect();
    silence::print("longest silence of a producer", &[silence::longest(&produced, bad_at)]);
    history.add_records(produced);
    let consumer = consumer.unwrap_or_else(|| reader("reads"));
    cluster.wait_until_empty(QUEUE);
    history.add_records(consumer.stop());
    history.assert_kept(Expectations::CLUSTER);
    cluster.assert_one_leader_per_term();
}
