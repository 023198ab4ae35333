//! Fear: an operator of a cluster is told different things by different nodes, or loses messages by
//! moving leaders about.

use std::time::{Duration, Instant};

use flintmq_system_tests::admin::Answer;
use flintmq_system_tests::broker_process::run_flintmq;
use flintmq_system_tests::clock;
use flintmq_system_tests::cluster::{Cluster, NODES, Traffic};
use flintmq_system_tests::domains;
use flintmq_system_tests::history::{Expectations, History, What};
use flintmq_system_tests::json_session::JsonSession;
use flintmq_system_tests::rust_client::RustProducer;
use flintmq_system_tests::silence;
use flintmq_system_tests::wait::until;
use serde_json::{Value, json};

/// The controller and both partitions.
const GROUPS: [usize; 3] = [0, 1, 2];
const FIRST: &str = "bmq.test/first";
const SECOND: &str = "bmq.test/second";

/// Longer than a leader waits before it makes room for the one that usually leads.
const LONGER_THAN_SETTLED: Duration = Duration::from_secs(7);

fn groups(cluster: &Cluster, node: usize) -> Value {
    cluster.node(node).admin().get_json("/api/v1/groups")
}

fn transfer(cluster: &Cluster, asked: usize, group: usize, to: usize, force: bool) -> Answer {
    let body = json!({ "to": to, "force": force }).to_string();
    let path = format!("/api/v1/groups/{group}/transfer");
    cluster.node(asked).admin().send("POST", &path, &body)
}

/// What all nodes tell alike of a group.
#[track_caller]
fn wait_for_agreement(cluster: &Cluster, nodes: &[usize]) -> Value {
    until(&format!("{nodes:?} to tell the same of all groups"), || {
        let mut said = nodes.iter().map(|node| groups(cluster, *node));
        let first = said.next()?;
        let led = first.as_array()?.iter().all(|group| !group["leader"].is_null());
        (led && said.all(|other| other == first)).then_some(first)
    })
}

#[test]
fn every_node_tells_the_same_of_all_groups() {
    let mut cluster = Cluster::start();
    cluster.create_queue(1, FIRST);
    // Each leader knows that all others have everything.
    let is_level = |group: &Value| {
        let members = group["members"].as_array();
        let level = |member: &Value| member["match_index"] == group["commit_index"];
        members.is_some_and(|members| members.iter().all(level))
    };
    let told = until("all members to have everything", || {
        let told = wait_for_agreement(&cluster, &NODES);
        told.as_array()?.iter().all(is_level).then_some(told)
    });
    for (id, group) in told.as_array().expect("a list").iter().enumerate() {
        assert_eq!(group["id"], id, "{told}");
        let kind = if id == 0 { "controller" } else { "partition" };
        assert_eq!(group["kind"], kind, "{told}");
        for (place, node) in NODES.iter().enumerate() {
            let member = &group["members"][place];
            assert_eq!(member["node"], *node, "{told}");
            assert_eq!(member["role"], "voter", "{told}");
            assert_eq!(member["state"], "normal", "{told}");
        }
    }

    let down = 2;
    cluster.node_mut(down).kill();
    let left = cluster.others(down);
    until("the others to miss the node that is down", || {
        let told = wait_for_agreement(&cluster, &left);
        let states = |group: &Value| group["members"][down - 1]["state"] == "unreachable";
        told.as_array().is_some_and(|groups| groups.iter().all(states)).then_some(())
    });
    cluster.wait_until_ready();
    for node in left {
        let nodes = cluster.node(node).admin().get_json("/api/v1/nodes");
        assert_eq!(nodes[down - 1]["state"], "unreachable", "{nodes}");
        assert_eq!(nodes[node - 1]["state"], "up", "{nodes}");
        let status = cluster.node(node).admin().get_json("/api/v1/status");
        assert_eq!(status["health"], "degraded", "{status}");
    }
    let refused = transfer(&cluster, left[0], 1, down, true);
    assert_eq!(refused.status, 409, "{}", refused.body);
    assert!(refused.body.contains("cannot be reached"), "{}", refused.body);
    let unknown = transfer(&cluster, left[0], 99, left[0], false);
    assert_eq!(unknown.status, 404, "{}", unknown.body);
    let stranger = transfer(&cluster, left[0], 1, 9, false);
    assert_eq!(stranger.status, 409, "{}", stranger.body);
}

#[test]
fn leads_are_handed_to_each_node_in_turn_while_messages_flow() {
    // Nothing but the orders moves a leadership.
    let cluster = Cluster::builder().patient().start();
    for queue in [FIRST, SECOND] {
        cluster.create_queue(1, queue);
    }
    let traffic = Traffic::new().flow("p", FIRST, &cluster.url_of(1), &cluster.url_of(2));
    let traffic = traffic.flow("q", SECOND, &cluster.url_of(3), &cluster.url_of(1));
    traffic.wait_for(200);
    let began = clock::now();
    let mut times = Vec::new();
    for force in [false, true] {
        for group in GROUPS {
            for to in NODES {
                let asked = NODES[(group + to) % NODES.len()];
                let answer = transfer(&cluster, asked, group, to, force);
                assert_eq!(answer.status, 200, "to {to}, force {force}: {}", answer.body);
                let told = answer.json();
                assert_eq!((&told["group"], &told["to"]), (&json!(group), &json!(to)), "{told}");
                let milliseconds = told["leaderless_ms"].as_f64().expect("a number");
                times.push(Duration::from_secs_f64(milliseconds / 1000.0));
                for node in NODES {
                    until(&format!("node {node} to know who leads {group}"), || {
                        let seen = cluster.node(node).admin();
                        let seen = seen.get_json(&format!("/api/v1/groups/{group}"));
                        (seen["leader"] == to && seen["term"] == told["term"]).then_some(())
                    });
                }
                traffic.wait_for(50);
            }
        }
    }
    assert_eq!(traffic.interruptions(), 0, "no connection breaks");
    let mut history = History::default();
    let silence = traffic.finish(&cluster, began, &mut history);
    history.assert_kept(Expectations::CLUSTER);
    silence::print("a group without a leader", &times);
    silence::print("longest silence of a producer", &[silence]);
}

#[test]
fn a_lead_that_was_asked_for_stays() {
    let cluster = Cluster::builder().patient().start();
    let told = wait_for_agreement(&cluster, &NODES);
    let from = told[1]["leader"].as_u64().expect("a leader");
    for to in NODES.into_iter().filter(|node| *node as u64 != from) {
        let url = format!("http://127.0.0.1:{}", cluster.node(to).admin_port());
        let (group, node) = ("1", to.to_string());
        let arguments = ["admin", "--json", "--url", &url, "leader", "transfer"];
        let arguments = [&arguments[..], &[group, "--to", &node]].concat();
        let (code, said, error) = run_flintmq(cluster.node(to).folder(), &arguments, b"");
        assert_eq!(code, 0, "{error}");
        let told: Value = serde_json::from_str(&said).expect("JSON");
        let since = Instant::now();
        until("a leader's time to settle to be over", || {
            (since.elapsed() > LONGER_THAN_SETTLED).then_some(())
        });
        let seen = cluster.node(to).admin().get_json("/api/v1/groups/1");
        assert_eq!((&seen["leader"], &seen["term"]), (&json!(to), &told["term"]), "{seen}");
    }
}

#[test]
fn any_node_shows_a_queue_as_its_leader_does_and_empties_it() {
    let cluster = Cluster::start();
    cluster.create_queue(3, FIRST);
    let path = format!("/api/v1/queues/{FIRST}");
    let traffic = Traffic::new().flow("p", FIRST, &cluster.url_of(1), &cluster.url_of(2));
    traffic.wait_for(50);
    cluster.hold_leader(FIRST);
    for node in NODES {
        // A leader that has just taken over hears of the clients from their nodes.
        let admin = cluster.node(node).admin();
        until(&format!("node {node} to show both clients"), || {
            let (shown, listed) = (admin.get_json(&path), admin.get_json("/api/v1/queues"));
            (shown["producers"] == 1
                && shown["apps"][0]["consumers"] == 1
                && listed[0]["producers"] == 1)
                .then_some(())
        });
        let refused = cluster.node(node).admin().send("DELETE", &path, "");
        assert_eq!(refused.status, 409, "clients have it open: {}", refused.body);
        let refused = cluster.node(node).admin().send("DELETE", "/api/v1/domains/bmq.test", "");
        assert_eq!(refused.status, 409, "clients have it open: {}", refused.body);
    }
    traffic.finish(&cluster, clock::now(), &mut History::default());
    let leader = cluster.wait_for_leader(FIRST);
    let [follower, other] = cluster.others(leader);
    let purged = cluster.node(follower).admin().must("POST", &format!("{path}/purge"), "");
    assert_eq!(purged.json()["messages"], 0, "{}", purged.body);
    until("the queue to be closed, and then deleted from a follower", || {
        let deleted = cluster.node(follower).admin().send("DELETE", &path, "");
        (deleted.status < 300).then_some(())
    });
    until("the third node to have heard of it", || {
        (cluster.node(other).admin().get(&path).status == 404).then_some(())
    });
}

#[test]
fn what_one_node_has_answered_no_other_denies() {
    let cluster = Cluster::builder().relayed().patient().start();
    let [controller, through, late] = NODES;
    cluster.hold_group(0, controller);
    // What the controller decides this node hears of last.
    cluster.delay(controller, late, Duration::from_millis(500));
    let admin = cluster.node(late).admin();
    let shown = |path: &str| {
        let answer = admin.get(path);
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        answer.json()
    };
    for round in 0..3 {
        cluster.create_queue(through, &format!("bmq.test/late{round}"));
        shown(&format!("/api/v1/queues/bmq.test/late{round}"));
        cluster.create_queue(through, &format!("bmq.test/listed{round}"));
        let listed = shown("/api/v1/queues").to_string();
        assert!(listed.contains(&format!("listed{round}")), "{listed}");
        let name = format!("late{round}");
        cluster.node(through).admin().define_domain(&domains::priority(&name));
        shown(&format!("/api/v1/domains/{name}"));
        let changed = domains::priority_with(&name, "/messageTtl", json!(77));
        let path = format!("/api/v1/domains/{name}");
        cluster.node(through).admin().must("PUT", &path, &changed.to_string());
        assert_eq!(shown(&path)["messageTtl"], 77);
        cluster.node(through).admin().must("DELETE", &path, "");
        assert_eq!(admin.send("PUT", &path, &changed.to_string()).status, 404, "it is deleted");
        admin.must("POST", "/api/v1/domains", &changed.to_string());
    }
    let body = json!({ "id": 9, "peers": "127.0.0.1:9" }).to_string();
    cluster.node(through).admin().must("POST", "/api/v1/nodes", &body);
    let again = admin.send("POST", "/api/v1/nodes", &body);
    assert_eq!(again.status, 409, "{}", again.body);
    admin.must("DELETE", "/api/v1/nodes/9", "");
    cluster.heal();
}

#[test]
fn any_node_lists_the_sessions_of_all() {
    let cluster = Cluster::start();
    let sessions = NODES.map(|node| JsonSession::start(cluster.node(node)));
    for asked in NODES {
        let listed = cluster.node(asked).admin().get_json("/api/v1/sessions");
        let nodes = listed["sessions"].as_array().map(|rows| rows.iter().map(|row| &row["node"]));
        let nodes: Vec<u64> = nodes.into_iter().flatten().filter_map(Value::as_u64).collect();
        assert_eq!((nodes, &listed["total"]), (vec![1, 2, 3], &json!(3)), "{listed}");
        assert_eq!(listed["unanswered_nodes"], json!([]), "{listed}");
        let of_one = cluster.node(asked).admin().get_json("/api/v1/sessions?node=2");
        assert_eq!((&of_one["total"], &of_one["sessions"][0]["node"]), (&json!(1), &json!(2)));
    }
    for session in sessions {
        session.disconnect();
    }
    until("all sessions to be over", || {
        let listed = cluster.node(1).admin().get_json("/api/v1/sessions");
        (listed["total"] == 0).then_some(())
    });
}

#[test]
fn what_happens_to_messages_is_counted_once_in_the_cluster() {
    let cluster = Cluster::start();
    let uri = format!("bmq://{FIRST}");
    let producer = RustProducer::start(&cluster.url_of(2), "p", &uri, 500);
    producer.wait_for(100);
    let records = producer.stop();
    let acknowledged = records.iter().filter(|record| matches!(record.what, What::Acknowledged(_)));
    let acknowledged = acknowledged.count() as f64;
    cluster.node(1).admin().must("POST", &format!("/api/v1/queues/{FIRST}/purge"), "");
    let sum = |metric: &str| -> f64 {
        let lines = NODES.map(|node| {
            let text = cluster.node(node).admin().get("/metrics").body;
            let lines = text.lines().filter(|line| line.starts_with(&format!("flintmq_{metric}")));
            lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum::<f64>()
        });
        lines.iter().sum()
    };
    let counted = |metric: &str| {
        until(&format!("{metric} to count {acknowledged}"), || {
            (sum(metric) >= acknowledged).then(|| sum(metric))
        })
    };
    cluster.wait_until_empty(FIRST);
    for node in NODES {
        let path = format!("/api/v1/queues/{FIRST}?here=true");
        until(&format!("node {node}'s replica to be empty"), || {
            let here = cluster.node(node).admin().get_json(&path);
            (here["backlog_messages"] == 0).then_some(())
        });
    }
    assert_eq!(counted("messages_published_total"), acknowledged);
    assert_eq!(counted("messages_dropped_total"), acknowledged);
}

#[test]
fn the_rest_goes_on_without_lost_nodes_on_an_operators_word_only() {
    let mut cluster = Cluster::start();
    cluster.create_queue(1, FIRST);
    for lost in [2, 3] {
        cluster.node_mut(lost).kill();
    }
    let admin = cluster.node(1).admin();
    until("the node that is left to lead and to follow nobody", || {
        let reasons = admin.get("/readyz").json()["reasons"].as_array().map(Vec::len);
        (reasons == Some(GROUPS.len())).then_some(())
    });
    let recover = |group: usize, lost: &[usize], accept: bool| {
        let body = json!({ "lost": lost, "accept_loss": accept }).to_string();
        admin.send("POST", &format!("/api/v1/groups/{group}/recover"), &body)
    };
    let unsaid = recover(1, &[2, 3], false);
    assert_eq!(unsaid.status, 400, "{}", unsaid.body);
    let silent = recover(1, &[2], true);
    assert_eq!(silent.status, 409, "{}", silent.body);
    assert!(silent.body.contains("node=3"), "{}", silent.body);
    for group in GROUPS {
        let recovered = recover(group, &[2, 3], true);
        assert_eq!(recovered.status, 200, "{}", recovered.body);
        assert_eq!(recovered.json()["leader"], 1, "{}", recovered.body);
        let needless = recover(group, &[2, 3], true);
        assert_eq!(needless.status, 409, "it is led: {}", needless.body);
    }
    cluster.node_mut(1).wait_until_ready();
    let traffic = Traffic::new().flow("p", FIRST, &cluster.url_of(1), &cluster.url_of(1));
    traffic.wait_for(200);
    let mut history = History::default();
    traffic.finish(&cluster, clock::now(), &mut history);
    history.assert_kept(Expectations::CLUSTER);
}
