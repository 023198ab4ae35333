//! The dashboard: panels of metrics that exist, each metric somewhere, and nothing over another.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::alerts::{alerts, all_labels, faults};
use crate::files::{json, list, string, yaml};
use crate::metrics_page::metrics;
use crate::promql::read;

pub(crate) const DASHBOARD: &str = "deploy/grafana/flintmq.json";

/// In no panel and no rule, since they never tell anything by themselves.
const NOWHERE: [&str; 1] = ["flintmq_process_virtual_memory_bytes"];

/// A question of a panel to Prometheus.
#[derive(Debug)]
pub(crate) struct Question {
    pub(crate) panel: String,
    pub(crate) expression: String,
    legend: String,
}

/// All questions of the dashboard.
#[track_caller]
pub(crate) fn questions() -> Vec<Question> {
    let dashboard = json(DASHBOARD);
    let mut questions = Vec::new();
    for panel in list(&dashboard["panels"]) {
        for target in panel["targets"].as_array().into_iter().flatten() {
            questions.push(Question {
                panel: string(&panel["title"]).to_owned(),
                expression: string(&target["expr"]).to_owned(),
                legend: string(&target["legendFormat"]).to_owned(),
            });
        }
    }
    for annotation in list(&dashboard["annotations"]["list"]) {
        questions.push(Question {
            panel: string(&annotation["name"]).to_owned(),
            expression: string(&annotation["expr"]).to_owned(),
            legend: string(&annotation["titleFormat"]).to_owned(),
        });
    }
    assert!(questions.len() > 60, "{questions:?}");
    questions
}

#[test]
fn panels_ask_for_what_the_broker_has() {
    let metrics = metrics();
    let questions = questions();
    let faults: Vec<_> =
        questions.iter().flat_map(|question| faults(&question.expression, &metrics)).collect();
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn legends_name_labels_that_the_answer_has() {
    let metrics = metrics();
    for Question { panel, expression, legend } in questions() {
        let found = read(&expression).expect("a test of its own");
        let labels = match found.aggregates {
            true => found.grouping,
            false => all_labels(&found, &metrics),
        };
        for behind in legend.split("{{").skip(1) {
            let label = behind.split("}}").next().unwrap_or_default();
            assert!(labels.contains(label), "{panel}: {legend}: the answer has {labels:?}");
        }
    }
}

#[test]
fn every_metric_is_in_a_panel_or_a_rule() {
    let alerts = alerts();
    let rules = alerts.values().map(|rule| string(&rule["expr"]).to_owned());
    let panels = questions().into_iter().map(|question| question.expression);
    let asked: BTreeSet<_> = rules
        .chain(panels)
        .filter_map(|expression| read(&expression).ok())
        .flat_map(|found| found.selectors)
        .map(|selector| selector.series)
        .collect();
    let metrics = metrics();
    let is_asked = |name: &&String| {
        let series = ["", "_bucket", "_sum"].map(|suffix| format!("{name}{suffix}"));
        series.iter().any(|series| asked.contains(series))
    };
    let idle: Vec<_> = metrics.keys().filter(|name| !is_asked(name)).collect();
    assert_eq!(idle, NOWHERE);
}

#[test]
fn variables_are_defined_and_stay_within_a_cluster() {
    let dashboard = json(DASHBOARD);
    let variables = list(&dashboard["templating"]["list"]);
    let names: BTreeSet<_> = variables.iter().map(|variable| string(&variable["name"])).collect();
    let definitions = variables.iter().filter_map(|variable| variable["definition"].as_str());
    let used = questions().into_iter().map(|question| question.expression);
    for text in definitions.map(str::to_owned).chain(used) {
        for behind in text.split('$').skip(1) {
            let name = behind.split(|c: char| !c.is_alphanumeric() && c != '_').next();
            let is_known =
                name.is_some_and(|name| names.contains(name) || name == "__rate_interval");
            assert!(is_known, "{text}: {name:?} is no variable");
        }
        assert!(text.contains("job=\"$job\"") || text.contains(", job)"), "{text}: of any cluster");
    }
    let metrics = metrics();
    for variable in variables.iter().filter_map(|variable| variable["definition"].as_str()) {
        let inside = variable.strip_prefix("label_values(").and_then(|v| v.strip_suffix(')'));
        let (selector, label) = inside.and_then(|v| v.rsplit_once(", ")).expect("label_values");
        let found = read(selector).expect("a selector");
        assert_eq!(faults(selector, &metrics), Vec::<String>::new());
        assert!(all_labels(&found, &metrics).contains(label), "{variable}");
    }
}

#[test]
fn panels_lie_side_by_side() {
    let dashboard = json(DASHBOARD);
    let mut ids = BTreeSet::new();
    let mut taken: BTreeMap<(u64, u64), String> = BTreeMap::new();
    for panel in list(&dashboard["panels"]) {
        let title = string(&panel["title"]);
        assert!(ids.insert(panel["id"].as_u64()), "{title}: its id is given twice");
        let place = |key: &str| {
            let value: &Value = &panel["gridPos"][key];
            value.as_u64().unwrap_or_else(|| panic!("{title}: {key}"))
        };
        assert!(place("x") + place("w") <= 24, "{title} is too far to the right");
        for x in place("x")..place("x") + place("w") {
            for y in place("y")..place("y") + place("h") {
                let other = taken.insert((x, y), title.to_owned());
                assert_eq!(other, None, "{title} lies over it");
            }
        }
    }
}

#[test]
fn grafana_is_given_the_source_that_the_dashboard_asks() {
    let sources = yaml("deploy/grafana/provisioning/datasources/prometheus.yml");
    let [source] = list(&sources["datasources"]) else { panic!("{sources}") };
    assert_eq!(source["type"], "prometheus");
    assert_eq!(source["isDefault"], true);
    let dashboard = json(DASHBOARD);
    let variable = &dashboard["templating"]["list"][0];
    assert_eq!((&variable["name"], &variable["query"]), (&"datasource".into(), &source["type"]));
    for panel in list(&dashboard["panels"]) {
        let is_row = panel["type"] == "row";
        assert!(is_row || panel["datasource"]["uid"] == "${datasource}", "{}", panel["title"]);
    }
}
