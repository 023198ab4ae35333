//! The text of `/metrics`, the life of queues' series, and that the documentation names every
//! metric.

use super::*;
use ::metrics::Unit;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

const NOW_MS: u64 = 1_700_000_000_000;

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(NOW_MS)
}

/// The lines of a text that carry values of queues.
fn queue_lines(metrics: &Metrics) -> Vec<String> {
    let text = metrics.render_at(now());
    let lines = text.lines().filter(|line| line.contains("domain=\""));
    lines.map(str::to_owned).collect()
}

#[track_caller]
fn has(lines: &[String], line: &str) {
    assert!(lines.iter().any(|each| each == line), "{line} is missing in {lines:#?}");
}

#[test]
fn what_is_recorded_is_rendered_with_help_and_buckets() {
    let (metrics, recorder) = Metrics::detached(10).unwrap();
    ::metrics::with_local_recorder(&recorder, || {
        CONNECTIONS.counter(&["tls"]).increment(3);
        SESSIONS.gauge(&[]).set(2.0);
        PUBLISH_ACK.histogram(&[]).record(0.000_2);
        GROUP_TERM.gauge(&["1"]).set(7.0);
    });
    metrics.upkeep();
    let text = metrics.render();
    let lines = [
        "# HELP flintmq_connections_total Connections accepted, by scheme of the listener.",
        "# TYPE flintmq_connections_total counter",
        "flintmq_connections_total{scheme=\"tls\"} 3",
        "flintmq_sessions 2",
        "# TYPE flintmq_publish_ack_seconds histogram",
        "flintmq_publish_ack_seconds_bucket{le=\"0.0001\"} 0",
        "flintmq_publish_ack_seconds_bucket{le=\"0.00025\"} 1",
        "flintmq_publish_ack_seconds_bucket{le=\"+Inf\"} 1",
        "flintmq_publish_ack_seconds_count 1",
        "flintmq_group_term{group=\"1\"} 7",
        "# TYPE flintmq_process_cpu_seconds_total counter",
    ];
    says(&text, &lines);
}

#[track_caller]
fn says(text: &str, lines: &[&str]) {
    for line in lines {
        assert!(text.lines().any(|each| each == *line), "{line} is missing in {text}");
    }
}

#[test]
fn a_second_recorder_in_a_process_is_refused() {
    // Another test of this process may have been first.
    let _ = Metrics::install(1);
    assert!(matches!(Metrics::install(1), Err(MetricsError::Installed)));
}

#[test]
fn each_update_moves_its_own_series() {
    let (metrics, _) = Metrics::detached(10).unwrap();
    let series = metrics.queues().open("d", "q");
    series.published(1, 100);
    series.duplicates(2);
    series.delivered(3, 300, 1);
    series.confirmed(4);
    series.rejected(RejectReason::Storage, 5);
    series.dropped(DropReason::Purged, 6);
    series.set_levels(&QueueLevels {
        backlog_messages: 10,
        backlog_bytes: 11,
        oldest_arrival_ms: Some(NOW_MS - 1_500),
        unconfirmed_messages: 12,
        redelivery_messages: 13,
        consumers: 14,
        producers: 15,
    });
    let lines = queue_lines(&metrics);
    let expected = [
        ("messages_published_total", "1"),
        ("published_bytes_total", "100"),
        ("messages_duplicate_total", "2"),
        ("messages_delivered_total", "3"),
        ("delivered_bytes_total", "300"),
        ("messages_redelivered_total", "1"),
        ("messages_confirmed_total", "4"),
        ("backlog_messages", "10"),
        ("backlog_bytes", "11"),
        ("oldest_message_age_seconds", "1.5"),
        ("unconfirmed_messages", "12"),
        ("redelivery_messages", "13"),
        ("consumers", "14"),
        ("producers", "15"),
    ];
    for (name, value) in expected {
        has(&lines, &format!("flintmq_{name}{{domain=\"d\",queue=\"q\"}} {value}"));
    }
    for reason in RejectReason::ALL {
        let value = if reason == RejectReason::Storage { 5 } else { 0 };
        let labels = format!("domain=\"d\",queue=\"q\",reason=\"{}\"", reason.as_str());
        has(&lines, &format!("flintmq_messages_rejected_total{{{labels}}} {value}"));
    }
    for reason in DropReason::ALL {
        let value = if reason == DropReason::Purged { 6 } else { 0 };
        let labels = format!("domain=\"d\",queue=\"q\",reason=\"{}\"", reason.as_str());
        has(&lines, &format!("flintmq_messages_dropped_total{{{labels}}} {value}"));
    }
    assert_eq!(lines.len(), expected.len() + RejectReason::ALL.len() + DropReason::ALL.len());
    let names: BTreeSet<_> = lines.iter().filter_map(|line| line.split('{').next()).collect();
    assert_eq!(names, PER_QUEUE.iter().map(|metric| metric.name).collect());
}

#[test]
fn a_deleted_queue_takes_its_series_along() {
    let (metrics, _) = Metrics::detached(10).unwrap();
    let held = metrics.queues().open("d", "gone");
    metrics.queues().open("d", "stays");
    metrics.queues().remove("d", "gone");
    metrics.queues().remove("d", "never there");
    held.published(1, 1);
    let lines = queue_lines(&metrics);
    assert!(!lines.is_empty());
    assert!(lines.iter().all(|line| line.contains("queue=\"stays\"")), "{lines:#?}");
    metrics.queues().remove("d", "stays");
    assert_eq!(queue_lines(&metrics), Vec::<String>::new());
}

#[test]
fn a_queue_opened_twice_is_one_queue() {
    let (metrics, _) = Metrics::detached(10).unwrap();
    metrics.queues().open("d", "q").confirmed(1);
    metrics.queues().open("d", "q").confirmed(1);
    let lines = queue_lines(&metrics);
    has(&lines, "flintmq_messages_confirmed_total{domain=\"d\",queue=\"q\"} 2");
}

#[test]
fn queues_beyond_the_bound_are_summed_and_their_totals_never_fall() {
    let (metrics, _) = Metrics::detached(1).unwrap();
    let queues = metrics.queues();
    queues.open("d", "own").published(1, 1);
    for (index, name) in ["b", "c"].into_iter().enumerate() {
        let series = queues.open("d", name);
        series.published(10, 100);
        series.set_levels(&QueueLevels {
            backlog_messages: 5,
            oldest_arrival_ms: Some(NOW_MS - 1_000 * (index as u64 + 1)),
            ..QueueLevels::default()
        });
    }
    let other = "{domain=\"(other)\",queue=\"(other)\"}";
    let lines = queue_lines(&metrics);
    has(&lines, "flintmq_messages_published_total{domain=\"d\",queue=\"own\"} 1");
    has(&lines, &format!("flintmq_messages_published_total{other} 20"));
    has(&lines, &format!("flintmq_backlog_messages{other} 10"));
    has(&lines, &format!("flintmq_oldest_message_age_seconds{other} 2"));
    let text = metrics.render_at(now());
    assert!(text.contains("\nflintmq_queues 3\n") && text.contains("\nflintmq_queues_folded 2\n"));

    queues.remove("d", "c");
    let lines = queue_lines(&metrics);
    has(&lines, &format!("flintmq_messages_published_total{other} 20"));
    has(&lines, &format!("flintmq_backlog_messages{other} 5"));
    has(&lines, &format!("flintmq_oldest_message_age_seconds{other} 1"));

    // A queue deleted makes room for the next one; those already summed stay where they are.
    queues.remove("d", "own");
    queues.open("d", "next").published(2, 2);
    let lines = queue_lines(&metrics);
    has(&lines, "flintmq_messages_published_total{domain=\"d\",queue=\"next\"} 2");
    has(&lines, &format!("flintmq_messages_published_total{other} 20"));
}

#[test]
fn the_process_is_seen() {
    let before = ProcessFigures::read();
    assert!(before.resident_bytes.unwrap() > 100_000);
    assert!(before.virtual_bytes.unwrap() >= before.resident_bytes.unwrap());
    assert!(before.threads.unwrap() >= 1);
    assert!(before.open_fds.unwrap() >= 3);
    assert!(before.max_fds.is_none_or(|most| most >= before.open_fds.unwrap()));
    let mut work = 0_u64;
    while ProcessFigures::read().cpu_seconds <= before.cpu_seconds {
        work = work.wrapping_add(1);
    }
    assert!(before.cpu_seconds >= 0.0, "{work}");
}

#[test]
fn definitions_follow_the_rules_of_prometheus() {
    let mut names = BTreeSet::new();
    for metric in all() {
        let name = metric.name;
        assert!(names.insert(name), "{name} is defined twice");
        assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'));
        assert_eq!(metric.kind == Kind::Counter, name.ends_with("_total"), "{name}");
        let stem = name.trim_end_matches("_total");
        match metric.unit {
            Unit::Seconds => assert!(stem.ends_with("_seconds"), "{name}"),
            Unit::Bytes => assert!(stem.ends_with("_bytes"), "{name}"),
            _ => assert!(!stem.ends_with("_seconds") && !stem.ends_with("_bytes"), "{name}"),
        }
        if let Kind::Histogram(buckets) = metric.kind {
            assert!(buckets.is_sorted() && !buckets.is_empty(), "{name}");
        }
        assert!(metric.help.ends_with('.'), "{name}");
    }
}

#[test]
fn the_metrics_page_has_every_metric_with_its_kind_and_labels() {
    let page = include_str!("../../../../docs/operating/metrics.md");
    let mut documented = BTreeSet::new();
    for row in page.lines().filter_map(|line| line.strip_prefix("| `flintmq_")) {
        let mut cells = row.split(" | ").map(|cell| cell.trim().trim_matches('`'));
        let name = format!("flintmq_{}", cells.next().unwrap_or_default());
        let kind = cells.next().unwrap_or_default().to_owned();
        let labels = cells.next().unwrap_or_default().replace('`', "");
        assert!(documented.insert((name.clone(), kind, labels)), "{name} is documented twice");
        let rest: Vec<_> = cells.collect();
        assert!(rest.len() == 2 && rest.iter().all(|cell| cell.len() > 1), "{name}: {rest:?}");
    }
    let row = |metric: &Metric| {
        let labels =
            if metric.labels.is_empty() { "-".to_owned() } else { metric.labels.join(", ") };
        (metric.name.to_owned(), metric.kind.as_str().to_owned(), labels)
    };
    let defined: BTreeSet<_> = all().map(row).collect();
    let missing: Vec<_> = defined.difference(&documented).collect();
    let unknown: Vec<_> = documented.difference(&defined).collect();
    assert!(missing.is_empty(), "defined, not in docs/operating/metrics.md: {missing:#?}");
    assert!(unknown.is_empty(), "in docs/operating/metrics.md, not defined: {unknown:#?}");
}

#[test]
fn every_metric_of_node_and_cluster_is_recorded_somewhere() {
    fn sources(folder: &Path, text: &mut String) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && path.file_name().is_some_and(|name| name != "metrics") {
                sources(&path, text);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                text.push_str(&fs::read_to_string(&path).unwrap());
            }
        }
    }
    let mut text = String::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut text);
    let words: BTreeSet<_> = text.split(|c: char| !c.is_alphanumeric() && c != '_').collect();
    let constants_of = |list: &str| -> Vec<&str> {
        let (_, list) =
            include_str!("definitions.rs").split_once(&format!("    {list}: ")).unwrap();
        let (list, _) = list.split_once("\n}").unwrap();
        list.lines()
            .filter_map(|line| line.split_once(" = Kind::"))
            .map(|(constant, _)| constant.trim())
            .collect()
    };
    let (node, cluster) = (constants_of("PER_NODE"), constants_of("PER_CLUSTER"));
    assert_eq!((node.len(), cluster.len()), (PER_NODE.len(), PER_CLUSTER.len()));
    let idle: Vec<_> =
        node.into_iter().chain(cluster).filter(|constant| !words.contains(constant)).collect();
    assert!(idle.is_empty(), "defined and documented, never recorded: {idle:?}");
}

#[test]
fn the_transports_metrics_are_described_as_it_defines_them() {
    let (_, list) =
        include_str!("../../../transport/src/metrics.rs").split_once("\ndefinitions! {").unwrap();
    let (list, _) = list.split_once("\n}").unwrap();
    // CONSTANT = IS_COUNTER, UNIT, LABELS, "name", "help";
    let theirs: BTreeSet<_> = list
        .split(" = ")
        .skip(1)
        .map(|definition| {
            let mut texts = definition.split('"').skip(1).step_by(2);
            let mut texts: Vec<_> = texts.by_ref().collect();
            let help = texts.pop().unwrap();
            let name = format!("flintmq_transport_{}", texts.pop().unwrap());
            (name, definition.starts_with("true"), help)
        })
        .collect();
    let ours = TRANSPORT
        .iter()
        .map(|metric| (metric.name.to_owned(), metric.kind == Kind::Counter, metric.help));
    assert_eq!(theirs, ours.collect());
}
