//! Fear: the network between nodes breaks, wholly or one way, and two nodes lead; or what the one
//! that was cut off had taken is acknowledged and gone.

use std::time::{Duration, Instant};

use flintmq_system_tests::clock;
use flintmq_system_tests::cluster::{Cluster, Traffic};
use flintmq_system_tests::history::{Expectations, History};
use flintmq_system_tests::silence;
use flintmq_system_tests::wait::until;

const ELSEWHERE: &str = "bmq.test/elsewhere";
const HERE: &str = "bmq.test/here";
const CUT: Duration = Duration::from_secs(3);

fn relayed() -> Cluster {
    let cluster = Cluster::builder().relayed().start();
    for queue in [ELSEWHERE, HERE] {
        cluster.create_queue(1, queue);
    }
    cluster
}

/// Ends the traffic: no promise was broken, and no producer waited too long since `from`.
#[track_caller]
fn assert_short_silence(traffic: Traffic, cluster: &Cluster, from: u64, what: &str) {
    let mut history = History::default();
    let silence = traffic.finish(cluster, from, &mut history);
    silence::print(what, &[silence]);
    history.assert_kept(Expectations::CLUSTER);
    silence::assert_nothing_hung(&[silence]);
}

#[test]
fn a_leader_that_is_cut_off_is_replaced_and_comes_back() {
    let mut cluster = relayed();
    let leader = cluster.hold_leader(ELSEWHERE);
    let [left, right] = cluster.others(leader);
    let elsewhere =
        Traffic::new().flow("p", ELSEWHERE, &cluster.url_of(left), &cluster.url_of(right));
    let here = Traffic::new().flow("q", HERE, &cluster.url_of(leader), &cluster.url_of(leader));
    elsewhere.wait_for(200);
    here.wait_for(200);

    let cut_at = clock::now();
    let cut = Instant::now();
    cluster.isolate(leader);
    cluster.wait_for_leader_among(ELSEWHERE, &[left, right]);
    elsewhere.wait_for(200);
    until("the cut to have lasted", || (cut.elapsed() >= CUT).then_some(()));
    assert!(cluster.dropped_packets() > 0, "the cut met packets");
    cluster.heal();
    cluster.wait_until_ready();
    cluster.wait_for_leader(ELSEWHERE);
    elsewhere.wait_for(200);
    here.wait_for(200);

    let mut history = History::default();
    assert_eq!(elsewhere.interruptions() + here.interruptions(), 0);
    let silence = elsewhere.finish(&cluster, cut_at, &mut history);
    silence::print("longest silence of a producer elsewhere", &[silence]);
    history.assert_kept(Expectations::CLUSTER);
    silence::assert_nothing_hung(&[silence]);
    let mut history = History::default();
    let silence = here.finish(&cluster, cut_at, &mut history);
    silence::print("longest silence of a producer that was cut off", &[silence]);
    // Their confirms were cut off as well.
    history.assert_kept(Expectations { confirms_arrive: false, ..Expectations::CLUSTER });
}

#[test]
fn a_leader_that_is_not_heard_or_does_not_hear_is_survived() {
    let mut cluster = relayed();
    let mut history = History::default();
    let mut silences = Vec::new();
    for (round, mute) in [true, false].into_iter().enumerate() {
        let leader = cluster.hold_leader(ELSEWHERE);
        let others = cluster.others(leader);
        let [left, right] = others;
        let traffic = Traffic::new().flow(
            &format!("p{round}"),
            ELSEWHERE,
            &cluster.url_of(left),
            &cluster.url_of(right),
        );
        traffic.wait_for(200);
        let cut_at = clock::now();
        let cut = Instant::now();
        for other in others {
            if mute {
                cluster.cut(leader, other);
            } else {
                cluster.cut(other, leader);
            }
        }
        traffic.wait_for(200);
        until("the cut to have lasted", || (cut.elapsed() >= CUT).then_some(()));
        cluster.heal();
        cluster.wait_until_ready();
        traffic.wait_for(200);
        assert_eq!(traffic.interruptions(), 0);
        silences.push(traffic.finish(&cluster, cut_at, &mut history));
    }
    silence::print("longest silence: leader not heard, leader deaf", &silences);
    history.assert_kept(Expectations::CLUSTER);
    silence::assert_nothing_hung(&silences);
}

#[test]
fn a_link_between_two_followers_is_not_missed() {
    let cluster = relayed();
    let leader = cluster.hold_leader(ELSEWHERE);
    let [left, right] = cluster.others(leader);
    let traffic =
        Traffic::new().flow("p", ELSEWHERE, &cluster.url_of(left), &cluster.url_of(right));
    traffic.wait_for(200);
    let cut_at = clock::now();
    let cut = Instant::now();
    cluster.cut(left, right);
    cluster.cut(right, left);
    until("the cut to have lasted", || (cut.elapsed() >= CUT).then_some(()));
    traffic.wait_for(200);
    cluster.heal();
    traffic.wait_for(100);
    assert_short_silence(traffic, &cluster, cut_at, "longest silence with two followers apart");
}

#[test]
fn a_follower_that_did_not_hear_its_leader_finds_it_again() {
    let cluster = relayed();
    let leader = cluster.hold_leader(ELSEWHERE);
    let [left, right] = cluster.others(leader);
    let traffic = Traffic::new()
        .flow("p", ELSEWHERE, &cluster.url_of(left), &cluster.url_of(right))
        .flow("q", HERE, &cluster.url_of(right), &cluster.url_of(left));
    traffic.wait_for(200);
    let cut_at = clock::now();
    // Long enough to be missed, and too short for the connection to be given up.
    cluster.cut(leader, left);
    cluster.node(left).wait_for_log(&["node cannot be reached", &format!("peer={leader}")]);
    cluster.heal();
    traffic.wait_for(200);
    assert_eq!(traffic.interruptions(), 0);
    assert_short_silence(
        traffic,
        &cluster,
        cut_at,
        "longest silence of a follower that did not hear",
    );
}

#[test]
fn slow_links_slow_down_and_no_more() {
    let cluster = relayed();
    let leader = cluster.hold_leader(ELSEWHERE);
    let [left, right] = cluster.others(leader);
    let traffic =
        Traffic::new().flow("p", ELSEWHERE, &cluster.url_of(left), &cluster.url_of(right));
    traffic.wait_for(200);
    let slowed_at = clock::now();
    let late = Duration::from_millis(100);
    // First one follower's way back, then all that the leader says.
    cluster.delay(left, leader, late);
    traffic.wait_for(200);
    for other in [left, right] {
        cluster.delay(leader, other, late);
    }
    traffic.wait_for(200);
    cluster.heal();
    traffic.wait_for(200);
    assert_eq!(traffic.interruptions(), 0);
    assert_short_silence(traffic, &cluster, slowed_at, "longest silence over slow links");
}
