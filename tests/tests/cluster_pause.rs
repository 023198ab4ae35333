//! Fear: a node that leads stands still for a while (a halted virtual machine, a full disk's
//! write, a debugger) and leads on when it wakes, beside the one that took over; or its clients
//! wait for ever.
//!
//! `FLINTMQ_TEST_PAUSES` says how often clients' own node pauses, 3 times unless it is set: that it
//! wakes between a new leader's words to it is rare.

use std::time::{Duration, Instant};

use flintmq_system_tests::clock;
use flintmq_system_tests::cluster::{Cluster, Traffic};
use flintmq_system_tests::history::{Expectations, History};
use flintmq_system_tests::silence;
use flintmq_system_tests::wait::until;

const ELSEWHERE: &str = "bmq.test/elsewhere";
const HERE: &str = "bmq.test/here";

fn pauses() -> usize {
    std::env::var("FLINTMQ_TEST_PAUSES").ok().and_then(|count| count.parse().ok()).unwrap_or(3)
}

/// Lets a node stand still for so long.
#[track_caller]
fn pause(cluster: &Cluster, node: usize, time: Duration) {
    let began = Instant::now();
    cluster.node(node).pause();
    until("the pause to be over", || (began.elapsed() >= time).then_some(()));
    cluster.node(node).resume();
}

#[test]
fn a_leader_that_stood_still_follows_when_it_wakes() {
    let mut cluster = Cluster::start();
    cluster.create_queue(1, ELSEWHERE);
    let leader = cluster.hold_leader(ELSEWHERE);
    let [left, right] = cluster.others(leader);
    let traffic =
        Traffic::new().flow("p", ELSEWHERE, &cluster.url_of(left), &cluster.url_of(right));
    traffic.wait_for(200);

    // It wakes when another one has taken over.
    let paused_at = clock::now();
    cluster.node(leader).pause();
    let next = cluster.wait_for_leader_among(ELSEWHERE, &[left, right]);
    traffic.wait_for(200);
    cluster.node(leader).resume();
    cluster.node(leader).wait_for_log(&["leads no more"]);
    assert_ne!(next, leader);
    cluster.wait_until_ready();
    traffic.wait_for(200);

    let mut history = History::default();
    assert_eq!(traffic.interruptions(), 0);
    let silence = traffic.finish(&cluster, paused_at, &mut history);
    history.assert_kept(Expectations::CLUSTER);
    silence::print("longest silence of a producer elsewhere", &[silence]);
    silence::assert_nothing_hung(&[silence]);
}

#[test]
fn clients_of_a_node_that_stood_still_go_on() {
    // Many partitions, led and not led by the node that stands still.
    let cluster = Cluster::builder().partitions(8).start();
    for queue in [ELSEWHERE, HERE] {
        cluster.create_queue(1, queue);
    }
    let mut history = History::default();
    for round in 0..pauses() {
        let leader = cluster.hold_leader(HERE);
        let here = cluster.url_of(leader);
        let traffic = Traffic::new().flow(&format!("p{round}"), ELSEWHERE, &here, &here).flow(
            &format!("q{round}"),
            HERE,
            &here,
            &here,
        );
        traffic.wait_for(100);
        let paused_at = clock::now();
        pause(&cluster, leader, Duration::from_millis(1500));
        traffic.wait_for(200);
        assert_eq!(traffic.interruptions(), 0);
        traffic.finish(&cluster, paused_at, &mut history);
    }
    // Their confirms stood still as well.
    history.assert_kept(Expectations { confirms_arrive: false, ..Expectations::CLUSTER });
}
