//! Fear: a cluster loses messages, or its clients notice, when nodes are added, drained, removed or
//! replaced.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use flintmq_system_tests::broker_process::run_flintmq;
use flintmq_system_tests::clock;
use flintmq_system_tests::cluster::{Cluster, Traffic};
use flintmq_system_tests::history::{Expectations, History};
use flintmq_system_tests::power::forget_witness;
use flintmq_system_tests::rust_client::RustProducer;
use flintmq_system_tests::silence;
use flintmq_system_tests::wait::{LIMIT, until, until_within};
use serde_json::{Value, json};

/// Entries that a log keeps although nothing in them is needed.
const KEPT_ENTRIES: u64 = 1024;

/// Runs `flintmq admin`, asking this node, and gives what it printed.
#[track_caller]
fn flintmq_admin(cluster: &Cluster, through: usize, arguments: &[&str]) -> String {
    let node = cluster.node(through);
    let url = format!("http://127.0.0.1:{}", node.admin_port());
    let arguments = [&["admin", "--url", &url], arguments].concat();
    let (code, said, error) = run_flintmq(node.folder(), &arguments, b"");
    assert_eq!(code, 0, "{arguments:?}: {error}");
    said
}

#[track_caller]
fn assert_kept(cluster: &Cluster, traffic: Traffic, began: u64, expected: Expectations) {
    traffic.wait_for(100);
    let mut history = History::default();
    let silence = traffic.finish(cluster, began, &mut history);
    silence::print("longest silence of a producer", &[silence]);
    history.assert_kept(expected);
}

#[test]
fn a_fourth_node_comes_is_drained_and_an_old_one_leaves_under_traffic() {
    let mut cluster = Cluster::start();
    let began = clock::now();
    let traffic = Traffic::everywhere(&cluster, "members");

    let new = cluster.prepare_another();
    cluster.add(2, new);
    cluster.node_mut(new).wait_until_ready();
    cluster.wait_for_voters(3, &[1, 2, 3, 4]);
    traffic.wait_for(100);
    // It serves clients like all others.
    let uri = "bmq.test/members1";
    assert!(cluster.wait_for_leader_among(uri, &[1, 2, 3, 4]) > 0);

    let admin = cluster.node(1).admin();
    admin.must("POST", "/api/v1/nodes/2/drain", "{}");
    until("node 2 to lead nothing", || (cluster.leads_of(1, 2) == Some(0)).then_some(()));
    traffic.wait_for(100);
    admin.must("POST", "/api/v1/nodes/2/drain", r#"{"undo": true}"#);
    let before = traffic.interruptions();
    assert_eq!(before, 0, "no client was interrupted so far");

    cluster.node(3).admin().must("DELETE", "/api/v1/nodes/1", "");
    let status = cluster.node_mut(1).wait_for_exit(LIMIT);
    assert!(status.success(), "{status}");
    let log = cluster.node(1).log();
    assert!(log.contains("this node was removed from the cluster"), "{log}");
    cluster.wait_for_voters(3, &[2, 3, 4]);
    assert_eq!(cluster.leads_of(3, 1), None, "it is forgotten");

    // It does not come back, and its number neither.
    cluster.node_mut(1).launch();
    let status = cluster.node_mut(1).wait_for_exit(LIMIT);
    assert_eq!(status.code(), Some(1));
    let log = cluster.node(1).log();
    assert!(log.contains("its data directory may be deleted, and its number"), "{log}");
    let body = json!({ "id": 1, "peers": "127.0.0.1:1" }).to_string();
    let refused = cluster.node(2).admin().send("POST", "/api/v1/nodes", &body);
    assert_eq!(refused.status, 409, "{}", refused.body);
    assert!(refused.body.contains("numbers are never used again"), "{}", refused.body);
    assert_kept(&cluster, traffic, began, Expectations::CLUSTER);
}

#[test]
fn a_dead_node_is_replaced_with_an_empty_disk_under_traffic() {
    let mut cluster = Cluster::start();
    let began = clock::now();
    let traffic = Traffic::everywhere(&cluster, "members");
    cluster.node_mut(3).kill();
    fs::remove_dir_all(cluster.node(3).data_dir()).expect("the directory is removed");
    traffic.wait_for(100);

    // As itself it is refused, and told what to do.
    cluster.node_mut(3).launch();
    let status = cluster.node_mut(3).wait_for_exit(LIMIT);
    assert_eq!(status.code(), Some(1));
    let log = cluster.node(3).log();
    assert!(log.contains("flintmq admin node replace"), "{log}");

    let new = cluster.prepare_another();
    let body = json!({ "with": new, "peers": cluster.peers_of(new) }).to_string();
    cluster.node(1).admin().must("POST", "/api/v1/nodes/3/replace", &body);
    cluster.node_mut(new).launch();
    cluster.node_mut(new).wait_until_ready();
    cluster.wait_for_voters(2, &[1, 2, 4]);
    until("node 3 to be forgotten", || cluster.leads_of(2, 3).is_none().then_some(()));
    traffic.wait_for(100);

    // What the new one has counts: with another one gone, it is needed.
    cluster.node_mut(1).kill();
    traffic.wait_for(100);
    cluster.node_mut(1).restart();
    // Messages were on their way to consumers at the nodes that were killed.
    let expected = Expectations { ordered: false, ..Expectations::CLUSTER };
    assert_kept(&cluster, traffic, began, expected);
}

#[test]
fn a_node_that_was_away_finds_a_leader_that_came_meanwhile() {
    let mut cluster = Cluster::start();
    cluster.node_mut(3).stop();
    let new = cluster.prepare_another();
    cluster.add(1, new);
    cluster.node_mut(new).wait_until_ready();
    let admin = cluster.node(1).admin();
    let counts_in = |group: &Value| {
        let members = group["members"].as_array().map_or(&[][..], Vec::as_slice);
        members.iter().any(|m| m["node"] == new && m["role"] == "voter" && m["state"] == "normal")
    };
    until("the new node to count in all groups", || {
        let groups = admin.get_json("/api/v1/groups");
        groups.as_array()?.iter().all(counts_in).then_some(())
    });
    // Now only nodes that the third does not know lead anything.
    for drained in [1, 2] {
        admin.must("POST", &format!("/api/v1/nodes/{drained}/drain"), "{}");
    }
    until("the new node to lead everything", || {
        ([1, 2].map(|old| cluster.leads_of(1, old)) == [Some(0); 2]).then_some(())
    });
    cluster.node_mut(3).restart();
}

#[test]
fn only_who_is_expected_comes_and_only_with_one_disk() {
    let mut cluster = Cluster::start();
    let new = cluster.prepare_another();
    cluster.node_mut(new).launch();
    cluster.node(new).wait_for_log(&["yet to be added"]);
    let admin = cluster.node(1).admin();
    for (body, why) in [
        (json!({ "id": 2, "peers": "127.0.0.1:1" }), "has a node of this number"),
        (json!({ "id": 9, "peers": cluster.peers_of(1) }), "another node has this address"),
        (json!({ "id": 9, "peers": "nowhere" }), "HOST:PORT"),
        (json!({ "id": 0, "peers": "127.0.0.1:1" }), "start at 1"),
    ] {
        let refused = admin.send("POST", "/api/v1/nodes", &body.to_string());
        assert!((400..500).contains(&refused.status), "{}", refused.body);
        assert!(refused.body.contains(why), "{}", refused.body);
    }
    let refused = admin.send("DELETE", "/api/v1/nodes/2", "");
    assert_eq!(refused.status, 409, "{}", refused.body);
    assert!(refused.body.contains("too few nodes would be left"), "{}", refused.body);

    let peers = cluster.peers_of(new);
    flintmq_admin(&cluster, 2, &["node", "add", "4", "--peers", &peers]);
    cluster.wait_for_voters(1, &[1, 2, 3, 4]);
    flintmq_admin(&cluster, 3, &["node", "drain", "1", "--wait"]);
    let listed = flintmq_admin(&cluster, 4, &["node", "list", "--json"]);
    let listed: Value = serde_json::from_str(&listed).expect("JSON");
    assert_eq!((&listed[0]["membership"], &listed[0]["leads"]), (&json!("draining"), &json!(0)));
    assert_eq!((&listed[3]["membership"], &listed[3]["holds"]), (&json!("active"), &json!(3)));
    flintmq_admin(&cluster, 3, &["node", "drain", "1", "--undo"]);
    // What nobody took up can be taken back.
    flintmq_admin(&cluster, 1, &["node", "replace", "3", "--with", "9", "--peers", "127.0.0.1:1"]);
    flintmq_admin(&cluster, 1, &["node", "remove", "9", "--wait"]);
    let nodes = admin.get_json("/api/v1/nodes");
    let active = |node: &Value| node["membership"] == "active";
    assert!(nodes.as_array().is_some_and(|nodes| nodes.iter().all(active)), "{nodes}");
    // A restart of all finds the new one again, which no configuration of the old ones names.
    for node in [1, 2, 3, 4] {
        cluster.node_mut(node).kill();
    }
    for node in [1, 2, 4] {
        cluster.node_mut(node).launch();
    }
    cluster.wait_until_ready();
    cluster.node_mut(new).kill();
    fs::remove_dir_all(cluster.node(new).data_dir()).expect("the directory is removed");
    cluster.node_mut(3).restart();
    cluster.node_mut(new).launch();
    let status = cluster.node_mut(new).wait_for_exit(LIMIT);
    assert_eq!(status.code(), Some(1));
    let log = cluster.node(new).log();
    assert!(log.contains("the data directory is new"), "{log}");
}

/// Who holds each partition, as node 1 hears it; none while one has not the members that it should
/// have.
fn spread(cluster: &Cluster, through: usize, replicas: usize) -> Option<BTreeMap<usize, usize>> {
    let groups = cluster.node(through).admin().try_get("/api/v1/groups")?.json();
    let mut holds = BTreeMap::new();
    for group in groups.as_array()?.iter().filter(|group| group["kind"] == "partition") {
        let members = group["members"].as_array()?;
        let well = |member: &Value| member["role"] == "voter" && member["state"] == "normal";
        if members.len() != replicas || !members.iter().all(well) || group["leader"].is_null() {
            return None;
        }
        for member in members {
            *holds.entry(usize::try_from(member["node"].as_u64()?).ok()?).or_default() += 1;
        }
    }
    Some(holds)
}

#[test]
fn partitions_spread_over_more_nodes_than_hold_each_under_traffic() {
    let builder = Cluster::builder().setting("bootstrap.replication_factor = 3").partitions(5);
    let mut cluster = builder.start();
    let began = clock::now();
    let queue = |number: usize| format!("bmq.test/spread{number}");
    for number in 1..=5 {
        cluster.create_queue(number % 3 + 1, &queue(number));
    }
    let mut traffic = Traffic::new();
    for number in 1..=5 {
        let (publish, consume) = (number % 3 + 1, (number + 1) % 3 + 1);
        let (publish, consume) = (cluster.urls_from(publish), cluster.urls_from(consume));
        traffic = traffic.flow(&format!("p{number}"), &queue(number), &publish, &consume);
    }
    traffic.wait_for(100);
    for _ in 0..2 {
        let new = cluster.prepare_another();
        cluster.add(1, new);
        cluster.node_mut(new).wait_until_ready();
    }
    let even = |holds: &BTreeMap<usize, usize>| holds.len() == 5 && holds.values().all(|n| *n == 3);
    until("15 replicas to be spread over 5 nodes", || spread(&cluster, 1, 3).filter(even));
    traffic.wait_for(100);
    assert_eq!(traffic.interruptions(), 0);

    // Every node serves every queue, also those that it does not hold.
    for node in 1..=5 {
        for number in 1..=5 {
            let uri = format!("bmq://{}", queue(number));
            let name = format!("at{node}for{number}");
            let producer = RustProducer::start(&cluster.url_of(node), &name, &uri, 100);
            producer.wait_for(5);
            traffic.keep(producer.stop());
        }
    }
    cluster.node(2).admin().must("DELETE", "/api/v1/nodes/3", "");
    let status = cluster.node_mut(3).wait_for_exit(LIMIT);
    assert!(status.success(), "{status}");
    let holds = until("all replicas to be elsewhere", || spread(&cluster, 2, 3));
    assert!(holds.len() == 4 && holds.values().all(|n| (3..=4).contains(n)), "{holds:?}");
    // Who holds a partition no more gives its disk space back.
    until("nodes to drop what they hold no more", || {
        let dropped = |id| cluster.node(id).log().contains("drops what it has of a group");
        [1, 2].into_iter().all(dropped).then_some(())
    });
    // And takes it again when there is nobody else.
    cluster.node(1).admin().must("DELETE", "/api/v1/nodes/5", "");
    let status = cluster.node_mut(5).wait_for_exit(LIMIT);
    assert!(status.success(), "{status}");
    let holds = until("all replicas to be on three nodes", || spread(&cluster, 2, 3));
    assert_eq!(holds, BTreeMap::from([(1, 5), (2, 5), (4, 5)]));
    for victim in [4, 1] {
        cluster.node_mut(victim).kill();
        traffic.wait_for(100);
        cluster.node_mut(victim).restart();
    }
    let expected = Expectations { ordered: false, ..Expectations::CLUSTER };
    assert_kept(&cluster, traffic, began, expected);
}

/// Lets a new node come in place of node 2, and starts it.
#[track_caller]
fn replace_second(cluster: &mut Cluster) -> usize {
    let newer = cluster.prepare_another();
    let body = json!({ "with": newer, "peers": cluster.peers_of(newer) }).to_string();
    cluster.node(3).admin().must("POST", "/api/v1/nodes/2/replace", &body);
    cluster.node_mut(newer).launch();
    newer
}

#[test]
fn members_change_although_nodes_die_in_the_middle() {
    let mut cluster = Cluster::start();
    let began = clock::now();
    let traffic = Traffic::everywhere(&cluster, "members");
    // More than a log keeps for late members: the new nodes need snapshots.
    // A busy machine puts more messages into each entry, and takes longer.
    let limit = Duration::from_secs(600);
    until_within(limit, "the logs to be longer than what they keep", || {
        let groups = cluster.node(1).admin().get_json("/api/v1/groups?here=true");
        let is_long = |group: &Value| group["commit_index"].as_u64() > Some(2 * KEPT_ENTRIES);
        let mut partitions = groups.as_array()?.iter().filter(|g| g["kind"] == "partition");
        partitions.all(is_long).then_some(())
    });
    traffic.wait_for(100);

    let new = cluster.prepare_another();
    cluster.add(1, new);
    for victim in [1, 2, 3, new] {
        cluster.node_mut(victim).kill();
        cluster.node_mut(victim).restart();
    }
    cluster.wait_for_voters(2, &[1, 2, 3, 4]);
    traffic.wait_for(100);

    let newer = replace_second(&mut cluster);
    for victim in [newer, 1, 3, newer] {
        cluster.node_mut(victim).kill();
        cluster.node_mut(victim).restart();
    }
    let status = cluster.node_mut(2).wait_for_exit(LIMIT);
    assert!(status.success(), "{status}");
    cluster.wait_for_voters(1, &[1, 3, 4, 5]);
    let snapshots =
        [4, 5].map(|id| cluster.node(id).log().contains("another state takes the place"));
    assert!(snapshots.contains(&true), "no new node needed a snapshot");
    let expected = Expectations { ordered: false, ..Expectations::CLUSTER };
    assert_kept(&cluster, traffic, began, expected);
}

#[test]
fn members_change_although_machines_lose_power() {
    let mut cluster = Cluster::start();
    let began = clock::now();
    let traffic = Traffic::everywhere(&cluster, "members");
    let lose_power = |cluster: &mut Cluster, victim: usize| {
        cluster.node_mut(victim).kill();
        forget_witness(&cluster.node(victim).data_dir());
        cluster.node_mut(victim).restart();
    };
    let new = cluster.prepare_another();
    cluster.add(1, new);
    cluster.node_mut(new).wait_until_ready();
    // It has something by now, and does not know whether that is all.
    for victim in [new, 1] {
        lose_power(&mut cluster, victim);
    }
    cluster.wait_for_voters(2, &[1, 2, 3, 4]);
    traffic.wait_for(100);
    let newer = replace_second(&mut cluster);
    cluster.node_mut(newer).wait_until_ready();
    for victim in [3, newer] {
        lose_power(&mut cluster, victim);
    }
    let status = cluster.node_mut(2).wait_for_exit(LIMIT);
    assert!(status.success(), "{status}");
    cluster.wait_for_voters(1, &[1, 3, 4, 5]);
    let expected = Expectations { ordered: false, ..Expectations::CLUSTER };
    assert_kept(&cluster, traffic, began, expected);
}

#[test]
fn members_change_although_links_are_cut() {
    let mut cluster = Cluster::builder().relayed().start();
    let began = clock::now();
    let traffic = Traffic::everywhere(&cluster, "members");
    let new = cluster.prepare_another();
    // Whoever is cut off from the controller's leader itself hears of the new node only later.
    let controller = 2;
    cluster.hold_group(0, controller);
    let [left, right] = cluster.others(controller);
    cluster.cut(left, right);
    cluster.cut(right, left);
    cluster.add(3, new);
    cluster.node_mut(new).wait_until_ready();
    let holds = |id: usize| {
        let nodes = cluster.node(3).admin().get_json("/api/v1/nodes");
        nodes.as_array()?.iter().find(|node| node["node"] == id)?["holds"].as_u64()
    };
    until("the new node to hold everything", || (holds(new) == Some(3)).then_some(()));
    cluster.heal();
    cluster.wait_for_voters(3, &[1, 2, 3, 4]);
    traffic.wait_for(100);
    // One that only the new node reaches, through links that are not relayed, leaves.
    cluster.isolate(1);
    until("the order to be taken, whoever led the controller", || {
        let answer = cluster.node(2).admin().send("DELETE", "/api/v1/nodes/1", "");
        (answer.status < 300).then_some(())
    });
    let status = cluster.node_mut(1).wait_for_exit(LIMIT);
    assert!(status.success(), "{status}");
    cluster.heal();
    cluster.wait_for_voters(4, &[2, 3, 4]);
    let expected = Expectations { ordered: false, confirms_arrive: false, ..Expectations::CLUSTER };
    assert_kept(&cluster, traffic, began, expected);
}
