//! Fear: a cluster with many partitions is busy with itself, or takes long to form, or to find
//! leaders for all that a dead node led.
//!
//! `FLINTMQ_TEST_PARTITIONS` says how many, 200 unless it is set.

use std::time::{Duration, Instant};

use flintmq_system_tests::clock;
use flintmq_system_tests::cluster::{Cluster, NODES, Traffic};
use flintmq_system_tests::history::{Expectations, History};
use flintmq_system_tests::wait::until;

const QUEUE: &str = "bmq.test/among-many";

/// How long the idle nodes are watched.
const WATCHED: Duration = Duration::from_secs(10);

/// Far above what idle nodes use of a core, also in a debug build: a percent or two.
const IDLE: f64 = 0.15;

fn partitions() -> u32 {
    let count = std::env::var("FLINTMQ_TEST_PARTITIONS").ok().and_then(|count| count.parse().ok());
    count.unwrap_or(200)
}

/// How many groups each node leads, as node `asked` knows it; nothing while one has no leader.
fn spread(cluster: &Cluster, asked: usize) -> Option<[usize; 3]> {
    let answer = cluster.node(asked).admin().try_get("/api/v1/groups?here=true")?;
    let groups = (answer.status == 200).then(|| answer.json())?;
    let mut leads = [0; 3];
    for group in groups.as_array()? {
        let leader = usize::try_from(group["leader"].as_u64()?).ok()?;
        leads[leader - 1] += 1;
    }
    Some(leads)
}

/// Waits until each node leads its share.
#[track_caller]
fn wait_until_spread(cluster: &Cluster) {
    let least = (partitions() / 3) as usize;
    until("the leads to be spread", || {
        let spread = spread(cluster, 1)?;
        spread.iter().all(|leads| *leads >= least).then_some(())
    });
}

#[test]
fn many_partitions_cost_little_and_fail_over_together() {
    let began = Instant::now();
    let mut cluster = Cluster::builder().partitions(partitions()).start();
    println!("{} partitions formed and led after {:.1?}", partitions(), began.elapsed());
    wait_until_spread(&cluster);
    println!("spread after {:.1?}, {} terms", began.elapsed(), cluster.terms());
    cluster.create_queue(1, QUEUE);

    let used = NODES.map(|node| cluster.node(node).processor_time());
    let watched = Instant::now();
    until("the idle nodes to be watched", || (watched.elapsed() >= WATCHED).then_some(()));
    for (node, before) in NODES.into_iter().zip(used) {
        let broker = cluster.node(node);
        let used = broker.processor_time().saturating_sub(before).as_secs_f64();
        let share = used / watched.elapsed().as_secs_f64();
        let memory = broker.resident_bytes() >> 20;
        println!("node {node} at rest: {:.1} % of a core, {memory} MiB", share * 100.0);
        assert!(share < IDLE, "node {node} is at rest and uses {share} of a core");
    }

    let victim = cluster.hold_leader(QUEUE);
    let [left, right] = cluster.others(victim);
    let traffic = Traffic::new().flow("p", QUEUE, &cluster.url_of(left), &cluster.url_of(right));
    traffic.wait_for(100);
    let terms = cluster.terms();
    let killed_at = clock::now();
    let killed = Instant::now();
    cluster.node_mut(victim).kill();
    until("the other two to lead all groups", || {
        let spreads = [left, right].map(|node| spread(&cluster, node));
        spreads.into_iter().all(|spread| spread.is_some_and(|s| s[victim - 1] == 0)).then_some(())
    });
    let took = killed.elapsed();
    let terms = cluster.terms() - terms;
    println!("node {victim} killed: all led by the others after {took:.1?}, {terms} new terms");
    traffic.wait_for(100);

    let restarted = Instant::now();
    cluster.node_mut(victim).restart();
    println!("node {victim} is back and ready after {:.1?}", restarted.elapsed());
    wait_until_spread(&cluster);
    println!("and leads its share after {:.1?}", restarted.elapsed());
    let mut history = History::default();
    assert_eq!(traffic.interruptions(), 0);
    traffic.finish(&cluster, killed_at, &mut history);
    history.assert_kept(Expectations::CLUSTER);
    cluster.assert_one_leader_per_term();
}
