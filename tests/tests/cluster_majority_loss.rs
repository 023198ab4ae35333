//! Fear: several machines lose their power at once, and the cluster goes on without what they had
//! acknowledged, or does not go on when all are back, or does not say what it waits for; or what an
//! operator gives up takes more with it than was said.

use std::collections::BTreeSet;
use std::fs;

use flintmq_system_tests::broker_process::run_flintmq;
use flintmq_system_tests::clock;
use flintmq_system_tests::cluster::{Cluster, NODES, Traffic};
use flintmq_system_tests::history::{Expectations, History, Record, What};
use flintmq_system_tests::power::{self, Synced};
use flintmq_system_tests::rust_client::RustProducer;
use flintmq_system_tests::wait::{LIMIT, until};
use serde_json::Value;

const QUEUE: &str = "bmq.test/power";

/// The controller and both partitions.
const GROUPS: [u32; 3] = [0, 1, 2];

/// What a node says when it goes on with what is left on all disks.
const FORKED: &str = "the end of the log may be lost after an unclean stop of the machine";

/// All of these machines lose their power now: each its process, and what it had not synced.
#[track_caller]
fn lose_power(cluster: &mut Cluster, nodes: &[usize], synced: &[Synced]) {
    for node in nodes {
        cluster.node_mut(*node).kill();
    }
    for (node, synced) in nodes.iter().zip(synced) {
        let lost = power::lose_tail(cluster.node(*node), synced);
        assert!(lost > 0, "there was something to lose on node {node}");
    }
}

#[track_caller]
fn synced(cluster: &Cluster, nodes: &[usize]) -> Vec<Synced> {
    nodes.iter().map(|node| power::synced(cluster.node(*node))).collect()
}

/// A node says that every group waits, and that these nodes are missing.
#[track_caller]
fn wait_until_missing(cluster: &Cluster, node: usize, missing: &[usize]) {
    let admin = cluster.node(node).admin();
    let named = format!("unreachable_nodes={missing:?}");
    until(&format!("node {node} to wait for {missing:?} in all groups"), || {
        let reasons = |said: &Value| -> Option<usize> {
            let reasons = said["reasons"].as_array()?.iter();
            Some(reasons.filter(|r| r.as_str().is_some_and(|r| r.contains(&named))).count())
        };
        let answer = admin.try_get("/readyz")?;
        let status = admin.try_get("/api/v1/status").filter(|status| status.status == 200)?.json();
        (answer.status == 503
            && reasons(&answer.json()) == Some(GROUPS.len())
            && reasons(&status) == Some(GROUPS.len())
            && status["health"] == "degraded")
            .then_some(())
    });
}

/// Some node, somebody elected there, tells that a member which is there is recovering.
#[track_caller]
fn wait_until_shown_as_recovering(cluster: &Cluster, nodes: &[usize], recovering: usize) {
    until(&format!("{nodes:?} to show node {recovering} as recovering in all groups"), || {
        let shown: BTreeSet<u64> = nodes
            .iter()
            .filter(|node| **node != recovering)
            .flat_map(|node| {
                let groups = cluster.node(*node).admin().get_json("/api/v1/groups?here=true");
                groups.as_array().cloned().unwrap_or_default()
            })
            .filter(|group| group["members"][recovering - 1]["state"] == "recovering")
            .filter_map(|group| group["id"].as_u64())
            .collect();
        (!shown.is_empty()).then_some(())
    });
}

fn acknowledged(records: &[Record]) -> BTreeSet<String> {
    let ids = records.iter().filter_map(|record| match &record.what {
        What::Acknowledged(id) => Some(id.clone()),
        _ => None,
    });
    ids.collect()
}

#[test]
fn two_machines_lose_their_power_and_nothing_is_lost_when_both_are_back() {
    let mut cluster = Cluster::start();
    cluster.create_queue(1, QUEUE);
    let survivor = cluster.hold_leader(QUEUE);
    let lost = cluster.others(survivor);
    let here = cluster.url_of(survivor);
    let traffic = Traffic::new().flow("p", QUEUE, &here, &here);
    traffic.wait_for(300);
    let synced = synced(&cluster, &lost);
    traffic.wait_for(50);
    let lost_at = clock::now();
    lose_power(&mut cluster, &lost, &synced);
    wait_until_missing(&cluster, survivor, &cluster.others(survivor));
    cluster.node(survivor).wait_for_log(&["too few nodes can be reached"]);

    // One of them back is a majority, and not enough: the other one may have had more.
    let [first, second] = lost;
    cluster.node_mut(first).launch();
    cluster.node(first).wait_for_log(&[power::TOLD]);
    wait_until_missing(&cluster, first, &[second]);
    wait_until_missing(&cluster, survivor, &[second]);
    wait_until_shown_as_recovering(&cluster, &[survivor, first], first);
    cluster.node(survivor).wait_for_log(&["groups have no leader", "all nodes have to be back"]);

    cluster.node_mut(second).launch();
    cluster.wait_until_ready();
    traffic.wait_for(200);
    assert_eq!(traffic.interruptions(), 0, "clients of the node that stayed have waited");
    let mut history = History::default();
    traffic.finish(&cluster, lost_at, &mut history);
    history.assert_kept(Expectations { confirms_arrive: false, ..Expectations::CLUSTER });
    assert!(NODES.iter().any(|node| cluster.node(*node).log().contains(FORKED)));
    cluster.node(survivor).wait_for_log(&["all groups have leaders that serve"]);
}

#[test]
fn what_one_follower_has_survives_the_others_power() {
    let mut cluster = Cluster::builder().setting("node.flush_interval = \"2s\"").start();
    cluster.create_queue(1, QUEUE);
    let leader = cluster.hold_leader(QUEUE);
    let [survivor, other] = cluster.others(leader);
    let uri = format!("bmq://{QUEUE}");
    let producer = RustProducer::start(&cluster.url_of(leader), "p", &uri, 500);
    producer.wait_for(100);
    let lost = [leader, other];
    let synced = synced(&cluster, &lost);
    producer.wait_for(100);
    let produced = producer.stop();
    let kept = acknowledged(&produced);
    cluster.wait_for_backlog(survivor, QUEUE, kept.len() as u64);
    lose_power(&mut cluster, &lost, &synced);
    for node in lost {
        cluster.node_mut(node).launch();
    }
    cluster.wait_until_ready();
    let traffic = Traffic::new().flow("q", QUEUE, &cluster.url_of(other), &cluster.url_of(leader));
    let mut history = History::default();
    history.add_records(produced);
    traffic.wait_for(100);
    traffic.finish(&cluster, clock::now(), &mut history);
    history.assert_kept(Expectations::CLUSTER);
}

#[test]
fn all_machines_lose_their_power_and_what_was_synced_anywhere_is_kept() {
    let mut cluster = Cluster::builder().setting("node.flush_interval = \"2s\"").start();
    cluster.create_queue(1, QUEUE);
    let leader = cluster.hold_leader(QUEUE);
    let [left, right] = cluster.others(leader);
    let uri = format!("bmq://{QUEUE}");
    let producer = RustProducer::start(&cluster.url_of(left), "p", &uri, 500);
    producer.wait_for(200);
    let before = clock::now();
    // The leader has applied whatever was acknowledged before.
    let synced = synced(&cluster, &[leader, right, left]);
    producer.wait_for(100);
    let produced = producer.stop();
    lose_power(&mut cluster, &[leader, right, left], &synced);

    for node in [leader, right] {
        cluster.node_mut(node).launch();
    }
    wait_until_missing(&cluster, leader, &[left]);
    cluster.node_mut(left).launch();
    cluster.wait_until_ready();
    assert!(NODES.iter().any(|node| cluster.node(*node).log().contains(FORKED)));

    let traffic = Traffic::new().flow("q", QUEUE, &cluster.url_of(left), &cluster.url_of(right));
    traffic.wait_for(100);
    let mut history = History::default();
    history.add_records(produced.clone());
    traffic.finish(&cluster, clock::now(), &mut history);
    history.assert_kept(Expectations { drained: false, ..Expectations::CLUSTER });
    let early: Vec<Record> = produced.iter().filter(|record| record.at < before).cloned().collect();
    let delivered = history.delivered();
    let missing: Vec<String> =
        acknowledged(&early).into_iter().filter(|id| !delivered.contains(id.as_str())).collect();
    assert!(missing.is_empty(), "synced and lost: {missing:?}");
    let (all, got) = (acknowledged(&produced).len(), delivered.len());
    println!("acknowledged {all}, delivered {got} of all; lost with the power are the last ones");
}

#[test]
fn without_the_lost_machines_the_rest_goes_on_when_an_operator_says_so() {
    let mut cluster = Cluster::start();
    cluster.create_queue(1, QUEUE);
    let leader = cluster.hold_leader(QUEUE);
    // A follower: what it lacks when the others go is lost.
    let [survivor, other] = cluster.others(leader);
    let here = cluster.url_of(survivor);
    let traffic = Traffic::new().flow("p", QUEUE, &here, &here);
    traffic.wait_for(200);
    let before = clock::now();
    // As all those know it that may have led a group.
    let known = |node: usize| cluster.node(node).admin().get_json("/api/v1/groups?here=true");
    let decided = [leader, other].map(known);
    until("the survivor to have what was acknowledged until now", || {
        let here = known(survivor);
        let index = |groups: &Value, group: u32| groups[group as usize]["commit_index"].as_u64();
        let has = |group| decided.iter().all(|then| index(&here, group) >= index(then, group));
        GROUPS.into_iter().all(has).then_some(())
    });
    for node in [leader, other] {
        cluster.node_mut(node).kill();
    }
    let lost_at = clock::now();
    for node in [leader, other] {
        fs::remove_dir_all(cluster.node(node).data_dir()).expect("the directory is removed");
    }
    let missing = cluster.others(survivor);
    wait_until_missing(&cluster, survivor, &missing);

    let url = format!("http://127.0.0.1:{}", cluster.node(survivor).admin_port());
    for group in GROUPS {
        let (group, leader, other) = (group.to_string(), leader.to_string(), other.to_string());
        let words =
            ["admin", "--json", "--url", &url, "group", "recover", &group, "--lost", &leader];
        let words = [&words[..], &["--lost", &other, "--accept-loss"]].concat();
        let (code, said, error) = run_flintmq(cluster.node(survivor).folder(), &words, b"");
        assert_eq!(code, 0, "{error}");
        let told: Value = serde_json::from_str(&said).expect("JSON");
        assert_eq!(told["leader"], survivor, "{told}");
    }
    cluster.node_mut(survivor).wait_until_ready();
    traffic.wait_for(200);
    assert_eq!(traffic.interruptions(), 0, "clients of the node that stayed have waited");

    // Who was given up and has forgotten everything is not let in.
    cluster.node_mut(other).launch();
    let status = cluster.node_mut(other).wait_for_exit(LIMIT);
    assert_eq!(status.code(), Some(1));
    let log = cluster.node(other).log();
    assert!(log.contains("the data directory is new, but the cluster was formed"), "{log}");

    let mut history = History::default();
    traffic.finish(&cluster, lost_at, &mut history);
    history.assert_kept(Expectations {
        drained: false,
        confirms_arrive: false,
        ..Expectations::CLUSTER
    });
    let delivered = history.delivered();
    let records = history.records();
    let old: Vec<Record> = records.iter().filter(|record| record.at < before).cloned().collect();
    let new: Vec<Record> = records.iter().filter(|record| record.at > lost_at).cloned().collect();
    for (what, promised) in [("before", old), ("after", new)] {
        let missing: Vec<String> = acknowledged(&promised)
            .into_iter()
            .filter(|id| !delivered.contains(id.as_str()))
            .collect();
        assert!(missing.is_empty(), "acknowledged {what} and lost: {missing:?}");
    }
    let all = history.acknowledged().len();
    println!(
        "acknowledged {all}, of which only the lost nodes had {}",
        all - delivered.len().min(all)
    );
}

#[test]
fn the_last_node_stops_without_waiting_for_those_that_are_gone() {
    let mut cluster = Cluster::start();
    cluster.create_queue(1, QUEUE);
    let leader = cluster.hold_leader(QUEUE);
    let producer =
        RustProducer::start(&cluster.url_of(leader), "p", &format!("bmq://{QUEUE}"), 500);
    producer.wait_for(50);
    let others = cluster.others(leader);
    for node in others {
        cluster.node_mut(node).kill();
    }
    wait_until_missing(&cluster, leader, &others);
    // Messages are under way now that nobody can decide.
    cluster.node_mut(leader).stop();
    let busy = "still busy at the end of the stop";
    assert!(!cluster.node(leader).log().contains(busy), "{}", cluster.node(leader).log());
    for node in NODES {
        cluster.node_mut(node).launch();
    }
    cluster.wait_until_ready();
    producer.wait_for(50);
    producer.stop();
}
