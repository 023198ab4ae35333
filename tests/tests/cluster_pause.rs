//! Fear: a node that leads stands still for a while (a halted virtual machine, a full disk's
//! write, a debugger) and leads on when it wakes, beside the one that took over.

use std::time::{Duration, Instant};

use flintmq_system_tests::clock;
use flintmq_system_tests::cluster::{Cluster, Traffic};
use flintmq_system_tests::history::{Expectations, History};
use flintmq_system_tests::silence;
use flintmq_system_tests::wait::until;

const ELSEWHERE: &str = "bmq.test/elsewhere";
const HERE: &str = "bmq.test/here";
const PAUSE: Duration = Duration::from_secs(5);

#[test]
fn a_leader_that_stood_still_follows_when_it_wakes() {
    let mut cluster = Cluster::start();
    for queue in [ELSEWHERE, HERE] {
        cluster.create_queue(1, queue);
    }
    let leader = cluster.wait_for_leader(ELSEWHERE);
    let [left, right] = cluster.others(leader);
    let elsewhere =
        Traffic::new().flow("p", ELSEWHERE, &cluster.url_of(left), &cluster.url_of(right));
    // Clients of the node that stands still: nothing tells them for five seconds.
    let here = Traffic::new().flow("q", HERE, &cluster.url_of(leader), &cluster.url_of(leader));
    elsewhere.wait_for(200);
    here.wait_for(200);

    let paused_at = clock::now();
    let paused = Instant::now();
    cluster.node(leader).pause();
    let next = cluster.wait_for_leader_among(ELSEWHERE, &[left, right]);
    elsewhere.wait_for(200);
    until("the pause to be over", || (paused.elapsed() >= PAUSE).then_some(()));
    cluster.node(leader).resume();
    cluster.node(leader).wait_for_log(&["leads no more"]);
    assert_ne!(next, leader);
    cluster.wait_until_ready();
    elsewhere.wait_for(200);
    here.wait_for(200);

    let mut history = History::default();
    assert_eq!(elsewhere.interruptions(), 0);
    let silence = elsewhere.finish(&cluster, paused_at, &mut history);
    history.assert_kept(Expectations::CLUSTER);
    silence::print("longest silence of a producer elsewhere", &[silence]);
    assert!(silence < Duration::from_secs(10), "{silence:?}");

    let mut history = History::default();
    here.finish(&cluster, paused_at, &mut history);
    // Their confirms stood still as well.
    history.assert_kept(Expectations { confirms_arrive: false, ..Expectations::CLUSTER });
}
