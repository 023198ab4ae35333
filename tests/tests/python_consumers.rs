//! Fear: consumers of one queue get each other's messages, or nobody does.

use std::collections::BTreeSet;

use flintmq_system_tests::broker_process::Broker;
use flintmq_system_tests::history::{Expectations, History};
use flintmq_system_tests::python::{PythonClient, Report};
use flintmq_system_tests::wait::until;

const URI: &str = "bmq://bmq.test/shared";
const QUEUE: &str = "bmq.test/shared";
const ALL: Expectations = Expectations::ONE_BROKER;
const UNORDERED: Expectations = Expectations { ordered: false, ..Expectations::ONE_BROKER };

fn opened(broker: &Broker, name: &str, arguments: &[&str]) -> PythonClient {
    let mut all = vec!["--uri", URI];
    all.extend(arguments);
    let consumer = PythonClient::consumer(broker, name, &all);
    consumer.wait_for("opened", 1);
    consumer
}

fn publish(broker: &Broker, name: &str, first: u32, count: u32) -> Report {
    let (first, count) = (first.to_string(), count.to_string());
    let arguments = ["--uri", URI, "--count", &count, "--first", &first];
    let report = PythonClient::producer(broker, name, &arguments).finish();
    assert_eq!(report.acknowledged_with("SUCCESS").len().to_string(), count);
    report
}

fn wait_for_backlog(broker: &Broker, messages: u64) {
    let admin = broker.admin();
    until(&format!("a backlog of {messages}"), || (admin.backlog(QUEUE) == messages).then_some(()));
}

#[test]
fn two_consumers_share() {
    let broker = Broker::start();
    let mut history = History::default();
    let (a, b) = (opened(&broker, "a", &[]), opened(&broker, "b", &[]));
    history.add_report("p", &publish(&broker, "p", 1, 1000));
    wait_for_backlog(&broker, 0);
    let (a, b) = (a.stop(), b.stop());
    let (of_a, of_b) = (a.count("delivered"), b.count("delivered"));
    assert_eq!(of_a + of_b, 1000, "a={of_a} b={of_b}");
    assert!(of_a.abs_diff(of_b) <= 100, "in turn: a={of_a} b={of_b}");
    history.add_report("a", &a);
    history.add_report("b", &b);
    history.assert_kept(ALL);
}

#[test]
fn the_higher_priority_gets_everything() {
    let broker = Broker::start();
    let mut history = History::default();
    let low = opened(&broker, "low", &["--priority", "1"]);
    let high = opened(&broker, "high", &["--priority", "2"]);
    let first = publish(&broker, "p", 1, 500);
    wait_for_backlog(&broker, 0);
    let high = high.stop();
    assert_eq!(high.ids("delivered"), first.ids("sent"));
    assert_eq!(low.report().count("delivered"), 0, "nothing spills over to the lower priority");

    let second = publish(&broker, "p", 501, 500);
    wait_for_backlog(&broker, 0);
    let low = low.stop();
    assert_eq!(low.ids("delivered"), second.ids("sent"), "the lower one takes over");
    for (name, report) in [("p", &first), ("p2", &second), ("high", &high), ("low", &low)] {
        history.add_report(name, report);
    }
    history.assert_kept(ALL);
}

#[test]
fn a_full_consumer_does_not_make_lower_ones_full() {
    let broker = Broker::start();
    let mut high = opened(&broker, "high", &["--priority", "2", "--confirm", "0", "--limit", "10"]);
    let low = opened(&broker, "low", &["--priority", "1"]);
    publish(&broker, "p", 1, 25);
    high.wait_for("delivered", 10);
    assert_eq!(broker.admin().app_number(QUEUE, "unconfirmed_messages"), 10);
    high.command("confirm");
    high.wait_for("delivered", 20);
    high.command("confirm");
    high.wait_for("delivered", 25);
    high.command("confirm");
    wait_for_backlog(&broker, 0);
    assert_eq!(low.stop().count("delivered"), 0);

    let mut held = 0;
    for event in high.stop().events {
        match event.name.as_str() {
            "delivered" => held += 1,
            "confirmed" => held -= 1,
            _ => {}
        }
        assert!((0..=10).contains(&held), "more than its limit at a time: {held}");
    }
}

#[test]
fn a_change_of_priority_moves_the_messages() {
    let broker = Broker::start();
    let mut a = opened(&broker, "a", &["--priority", "1"]);
    let b = opened(&broker, "b", &["--priority", "2"]);
    let first = publish(&broker, "p", 1, 100);
    wait_for_backlog(&broker, 0);
    a.command("priority 3");
    a.wait_for("configured", 1);
    let second = publish(&broker, "p", 101, 100);
    wait_for_backlog(&broker, 0);
    assert_eq!(b.stop().ids("delivered"), first.ids("sent"));
    assert_eq!(a.stop().ids("delivered"), second.ids("sent"));
}

#[test]
fn a_killed_consumer_s_messages_go_to_the_other() {
    let broker = Broker::start();
    let mut history = History::default();
    let first = opened(&broker, "first", &["--priority", "2", "--confirm", "10"]);
    let other = opened(&broker, "other", &["--priority", "1"]);
    let published = publish(&broker, "p", 1, 100);
    first.wait_for("delivered", 100);
    wait_for_backlog(&broker, 90);
    let first = first.kill();
    wait_for_backlog(&broker, 0);
    let other = other.stop();
    let sent = published.ids("sent");
    assert_eq!(other.ids("delivered"), sent[10..], "the unconfirmed ones, the oldest first");
    for (name, report) in [("p", &published), ("first", &first), ("other", &other)] {
        history.add_report(name, report);
    }
    history.assert_kept(ALL);
}

#[test]
fn what_a_closing_consumer_leaves_is_delivered_again() {
    for command in ["stop", "leave"] {
        let broker = Broker::start();
        let mut history = History::default();
        let mut first = opened(&broker, "first", &["--confirm", "20"]);
        let published = publish(&broker, "p", 1, 50);
        first.wait_for("delivered", 50);
        first.command(command);
        history.add_report("first", &first.finish());
        let second = opened(&broker, "second", &["--count", "30"]).finish();
        assert_eq!(second.ids("delivered"), published.ids("sent")[20..], "after {command}");
        history.add_report("p", &published);
        history.add_report("second", &second);
        history.assert_kept(ALL);
        wait_for_backlog(&broker, 0);
    }
}

#[test]
fn consumers_come_and_go_and_nothing_is_lost() {
    let broker = Broker::start();
    let mut history = History::default();
    let mut producer = PythonClient::producer(&broker, "p", &["--uri", URI, "--window", "200"]);
    for round in 0..6 {
        let names = [format!("a{round}"), format!("b{round}")];
        let stays = opened(&broker, &names[0], &["--confirm", "300", "--limit", "50"]);
        let dies = opened(&broker, &names[1], &["--confirm", "150", "--limit", "50"]);
        stays.wait_for("delivered", 340);
        dies.wait_for("delivered", 190);
        history.add_report(&names[1], &dies.kill());
        history.add_report(&names[0], &stays.stop());
    }
    producer.command("stop");
    history.add_report("p", &producer.finish());
    let last = opened(&broker, "last", &[]);
    wait_for_backlog(&broker, 0);
    let last = last.stop();
    assert!(last.count("delivered") > 0);
    history.add_report("last", &last);
    let missing: BTreeSet<&str> =
        history.acknowledged().difference(&history.delivered()).copied().collect();
    assert!(missing.is_empty(), "{missing:?}");
    history.assert_kept(UNORDERED);
}
