//! Fear: a network that is bad rather than broken (packets lost, links slow, a link that comes and
//! goes) keeps the cluster busy with elections, or brings forth two leaders, or leaves it astray
//! when it is good again.
//!
//! `FLINTMQ_TEST_BAD_NETWORK` says for how many seconds each network stays bad, 6 unless it is set.

use std::time::{Duration, Instant};

use flintmq_system_tests::clock;
use flintmq_system_tests::cluster::{Cluster, NODES, Traffic};
use flintmq_system_tests::history::{Expectations, History};
use flintmq_system_tests::silence;
use flintmq_system_tests::wait::until;

const FIRST: &str = "bmq.test/first";
const SECOND: &str = "bmq.test/second";

/// The controller and both partitions.
const GROUPS: u64 = 3;

fn bad_for() -> Duration {
    let seconds = std::env::var("FLINTMQ_TEST_BAD_NETWORK").ok().and_then(|s| s.parse().ok());
    Duration::from_secs(seconds.unwrap_or(6))
}

fn relayed() -> Cluster {
    let cluster = Cluster::builder().relayed().start();
    for queue in [FIRST, SECOND] {
        cluster.create_queue(1, queue);
    }
    cluster.wait_for_agreement(&NODES);
    cluster
}

#[track_caller]
fn let_pass(time: Duration) {
    let began = Instant::now();
    until("some time to pass", || (began.elapsed() >= time).then_some(()));
}

/// The network is good from now on: prints how long the cluster takes until all nodes
/// agree on all leaders and messages flow in all queues.
#[track_caller]
fn heal(cluster: &mut Cluster, traffic: &Traffic) {
    let healed = Instant::now();
    cluster.heal();
    cluster.wait_until_ready();
    let running: Vec<usize> = NODES.into_iter().filter(|node| cluster.node(*node).runs()).collect();
    cluster.wait_for_agreement(&running);
    traffic.wait_for(1);
    let took = healed.elapsed();
    println!("good again, and the cluster with it after {took:.0?}");
}

/// Everything is there once, in order, and nobody led beside another.
#[track_caller]
fn finish(cluster: &Cluster, traffic: Traffic, bad_at: u64, expectations: Expectations) {
    traffic.wait_for(100);
    assert_eq!(traffic.interruptions(), 0, "clients have waited");
    let mut history = History::default();
    let silence = traffic.finish(cluster, bad_at, &mut history);
    silence::print("longest silence of a producer", &[silence]);
    cluster.assert_one_leader_per_term();
    history.assert_kept(expectations);
}

/// Through all nodes, in both partitions.
#[track_caller]
fn two_flows(cluster: &Cluster) -> Traffic {
    let traffic = Traffic::new().flow("p", FIRST, &cluster.url_of(1), &cluster.url_of(2)).flow(
        "q",
        SECOND,
        &cluster.url_of(3),
        &cluster.url_of(1),
    );
    traffic.wait_for(100);
    traffic
}

#[test]
fn one_packet_of_five_is_lost() {
    let mut cluster = relayed();
    let traffic = two_flows(&cluster);
    let before = cluster.terms();
    let bad_at = clock::now();
    cluster.lose_everywhere(20);
    let_pass(bad_for());
    traffic.wait_for(100);
    let terms = cluster.terms() - before;
    let dropped = cluster.dropped_packets();
    println!("{dropped} packets lost, {terms} new terms in {GROUPS} groups");
    assert!(dropped > 0);
    assert!(terms <= GROUPS * bad_for().as_secs(), "leaders change all the time: {terms} terms");
    heal(&mut cluster, &traffic);
    let slow_confirms = Expectations { confirms_arrive: false, ..Expectations::CLUSTER };
    finish(&cluster, traffic, bad_at, Expectations { ordered: false, ..slow_confirms });
}

#[test]
fn slow_links_keep_their_leaders() {
    let mut cluster = relayed();
    let traffic = two_flows(&cluster);
    let before = cluster.terms();
    let bad_at = clock::now();
    cluster.delay_everywhere(Duration::from_millis(50));
    let_pass(bad_for());
    traffic.wait_for(100);
    let terms = cluster.terms() - before;
    println!("{terms} new terms in {GROUPS} groups");
    let bound = GROUPS * bad_for().as_secs();
    assert!(terms <= bound, "leaders change over links that are only slow: {terms} terms");
    heal(&mut cluster, &traffic);
    finish(&cluster, traffic, bad_at, Expectations::CLUSTER);
}

#[test]
fn a_leader_is_elected_over_links_that_are_slower_than_a_round() {
    let mut cluster = relayed();
    let leader = cluster.hold_leader(FIRST);
    let [left, right] = cluster.others(leader);
    let traffic = Traffic::new().flow("p", FIRST, &cluster.url_of(left), &cluster.url_of(right));
    traffic.wait_for(100);
    let bad_at = clock::now();
    // A candidate waits 150 ms for an answer, at first.
    cluster.delay_everywhere(Duration::from_millis(100));
    traffic.wait_for(100);
    let killed = Instant::now();
    cluster.node_mut(leader).kill();
    traffic.wait_for(100);
    println!("messages flow again after {:.0?}", killed.elapsed());
    heal(&mut cluster, &traffic);
    finish(&cluster, traffic, bad_at, Expectations::CLUSTER);
}

#[test]
fn the_links_of_a_leader_come_and_go() {
    let mut cluster = relayed();
    let leader = cluster.hold_leader(FIRST);
    let [left, right] = cluster.others(leader);
    let elsewhere = Traffic::new().flow("p", FIRST, &cluster.url_of(left), &cluster.url_of(right));
    elsewhere.wait_for(100);
    let before = cluster.terms();
    let bad_at = clock::now();
    let began = Instant::now();
    let mut flaps = 0;
    while began.elapsed() < bad_for() {
        // Not in step with anything that the nodes do.
        let span = Duration::from_millis([500, 900, 650, 1000, 750][flaps % 5]);
        if flaps % 2 == 0 {
            cluster.isolate(leader)
        } else {
            cluster.heal()
        }
        let_pass(span);
        flaps += 1;
        elsewhere.wait_for(1);
    }
    let terms = cluster.terms() - before;
    println!("{flaps} times up or down, {terms} new terms in {GROUPS} groups");
    // Down: the others elect one each. Up: the lead is given back only after it has settled.
    let bound = GROUPS * (flaps as u64 + 2);
    assert!(terms <= bound, "leaders change more often than the links: {terms} > {bound}");
    heal(&mut cluster, &elsewhere);
    // What was on its way through a gateway that the leader missed comes again, later.
    finish(&cluster, elsewhere, bad_at, Expectations { ordered: false, ..Expectations::CLUSTER });
}
