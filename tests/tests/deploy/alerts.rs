//! The alert rules: of metrics that exist, with texts that say something, and each with a row in
//! the operators' page.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::files::{list, string, text, yaml};
use crate::metrics_page::{Kind, Metric, metrics, of_series};
use crate::promql::{Expression, Selector, read};

pub(crate) const RULES: &str = "deploy/prometheus/flintmq-alerts.yml";

/// Labels that Prometheus gives to all series that it scrapes.
const OF_THE_TARGET: [&str; 2] = ["job", "instance"];

/// The alerts by name.
#[track_caller]
pub(crate) fn alerts() -> BTreeMap<String, Value> {
    let rules = yaml(RULES);
    let groups = list(&rules["groups"]).iter();
    let alerts: BTreeMap<_, _> = groups
        .flat_map(|group| list(&group["rules"]))
        .map(|rule| (string(&rule["alert"]).to_owned(), rule.clone()))
        .collect();
    assert!(alerts.len() > 20, "{alerts:?}");
    alerts
}

/// What is wrong with the series of an expression, as far as the definitions tell.
pub(crate) fn faults(expression: &str, metrics: &BTreeMap<String, Metric>) -> Vec<String> {
    let found = match read(expression) {
        Ok(found) => found,
        Err(error) => return vec![format!("{expression}: {error}")],
    };
    let mut faults: Vec<_> =
        found.selectors.iter().flat_map(|selector| faults_of(selector, metrics)).collect();
    if found.selectors.is_empty() {
        faults.push("asks for no series".to_owned());
    }
    let labels = all_labels(&found, metrics);
    let strange = found.grouping.iter().filter(|label| !labels.contains(*label));
    faults.extend(strange.map(|label| format!("groups by {label}, which no series has")));
    faults.into_iter().map(|fault| format!("{expression}: {fault}")).collect()
}

fn faults_of(selector: &Selector, metrics: &BTreeMap<String, Metric>) -> Vec<String> {
    let series = &selector.series;
    let Some(metric) = of_series(metrics, series) else {
        return vec![format!("there is no series {series}")];
    };
    let mut faults = Vec::new();
    for (label, ..) in &selector.matchers {
        if !metric.labels.contains(label) && !OF_THE_TARGET.contains(&label.as_str()) {
            faults.push(format!("{series} has no label {label}"));
        }
    }
    let (wants, has_range_function) = match selector.function.as_str() {
        "rate" | "increase" => (Some(Kind::Counter), true),
        "deriv" | "predict_linear" | "max_over_time" | "min_over_time" | "changes" => {
            (Some(Kind::Gauge), true)
        }
        _ => (None, false),
    };
    if wants.is_some_and(|kind| kind != metric.kind) {
        faults.push(format!("{} of {series}, a {:?}", selector.function, metric.kind));
    }
    if has_range_function != selector.has_range {
        faults.push(format!("{series}: a range and {:?} do not fit", selector.function));
    }
    faults
}

/// The labels that some series of the expression has.
pub(crate) fn all_labels(
    found: &Expression,
    metrics: &BTreeMap<String, Metric>,
) -> BTreeSet<String> {
    let of_series = found.selectors.iter().filter_map(|s| of_series(metrics, &s.series));
    let mut labels: BTreeSet<_> = of_series.flat_map(|metric| metric.labels).collect();
    labels.extend(OF_THE_TARGET.map(str::to_owned));
    labels
}

#[test]
fn faults_are_found() {
    let metrics = metrics();
    let faults = |expression| faults(expression, &metrics).len();
    assert_eq!(faults("sum by (group) (rate(flintmq_leaderless_seconds_total[5m]))"), 0);
    assert_eq!(faults("flintmq_no_such_thing"), 1);
    assert_eq!(faults("flintmq_flush_seconds"), 1);
    assert_eq!(faults("flintmq_sessions{group=\"1\"}"), 1);
    assert_eq!(faults("rate(flintmq_sessions[5m])"), 1);
    assert_eq!(faults("deriv(flintmq_leaderless_seconds_total[5m])"), 1);
    assert_eq!(faults("sum(flintmq_sessions[5m])"), 1);
    assert_eq!(faults("rate(flintmq_connections_total)"), 1);
    assert_eq!(faults("sum by (peer) (flintmq_sessions)"), 1);
    assert_eq!(faults("1 > 0"), 1);
}

#[test]
fn alerts_ask_for_what_the_broker_has() {
    let metrics = metrics();
    let alerts = alerts();
    let expressions = alerts.values().map(|rule| string(&rule["expr"]));
    let faults: Vec<_> = expressions.flat_map(|e| faults(e, &metrics)).collect();
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn alerts_say_what_is_wrong_and_how_bad_it_is() {
    let metrics = metrics();
    for (name, rule) in alerts() {
        let severity = rule["labels"]["severity"].as_str();
        assert!(matches!(severity, Some("page" | "ticket")), "{name}: {severity:?}");
        let found = read(string(&rule["expr"])).expect("a test of its own");
        let labels = match found.aggregates {
            true => found.grouping,
            false => all_labels(&found, &metrics),
        };
        for key in ["summary", "description"] {
            let text = string(&rule["annotations"][key]);
            assert!(text.len() > 20, "{name}: {key}: {text}");
            for behind in text.split("$labels.").skip(1) {
                let label = behind.split(|c: char| !c.is_alphanumeric() && c != '_').next();
                let is_there = label.is_some_and(|label| labels.contains(label));
                assert!(is_there, "{name}: {key} names {label:?}; the result has {labels:?}");
            }
        }
        assert!(string(&rule["annotations"]["summary"]).contains("$labels.job"), "{name}");
    }
}

#[test]
fn every_alert_has_a_row_in_the_operators_page() {
    let page = text("docs/operating/clusters.md");
    let rows: BTreeSet<_> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `Flintmq"))
        .filter_map(|row| Some(format!("Flintmq{}", row.split_once('`')?.0)))
        .collect();
    let names: BTreeSet<_> = alerts().into_keys().collect();
    assert_eq!(rows, names, "left: docs/operating/clusters.md; right: {RULES}");
}

#[test]
fn every_page_that_depends_on_more_than_one_sample_has_a_test() {
    let stories = text("deploy/prometheus/flintmq-alerts-test.yml");
    for (name, rule) in alerts() {
        let is_urgent = rule["labels"]["severity"] == "page" && rule["for"].is_string();
        let tested = stories.contains(&format!("alertname: {name}"));
        assert!(tested || !is_urgent, "{name} waits before it pages, and no test shows how long");
    }
}
