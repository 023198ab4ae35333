//! The metrics that there are, as the operators' page lists them. A test of the broker holds the
//! page against the definitions.

use std::collections::BTreeMap;

use crate::files::text;

/// A metric of the page.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Metric {
    pub(crate) kind: Kind,
    pub(crate) labels: Vec<String>,
    /// Heading of its table.
    pub(crate) section: String,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// Every metric by its name.
#[track_caller]
pub(crate) fn metrics() -> BTreeMap<String, Metric> {
    let mut metrics = BTreeMap::new();
    let mut section = String::new();
    for line in text("docs/operating/metrics.md").lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            heading.clone_into(&mut section);
        }
        let Some(row) = line.strip_prefix("| `flintmq_") else { continue };
        let cells: Vec<_> = row.split(" | ").map(|cell| cell.trim().replace('`', "")).collect();
        let [name, kind, labels, ..] = cells.as_slice() else { panic!("no metric: {line}") };
        let kind = match kind.as_str() {
            "counter" => Kind::Counter,
            "gauge" => Kind::Gauge,
            "histogram" => Kind::Histogram,
            other => panic!("{other} is no kind: {line}"),
        };
        let labels = match labels.as_str() {
            "-" => Vec::new(),
            labels => labels.split(", ").map(str::to_owned).collect(),
        };
        let metric = Metric { kind, labels, section: section.clone() };
        metrics.insert(format!("flintmq_{name}"), metric);
    }
    assert!(metrics.len() > 50, "the page's tables are not understood: {metrics:?}");
    metrics
}

/// The series of a metric, with `up`, which Prometheus makes itself, and the three series of a
/// histogram.
pub(crate) fn of_series(metrics: &BTreeMap<String, Metric>, series: &str) -> Option<Metric> {
    if series == "up" {
        let section = "made by Prometheus".to_owned();
        return Some(Metric { kind: Kind::Gauge, labels: Vec::new(), section });
    }
    for suffix in ["_bucket", "_sum", "_count"] {
        let histogram = series.strip_suffix(suffix).and_then(|name| metrics.get(name));
        let Some(metric) = histogram.filter(|metric| metric.kind == Kind::Histogram) else {
            continue;
        };
        let mut metric = Metric { kind: Kind::Counter, ..metric.clone() };
        if suffix == "_bucket" {
            metric.labels.push("le".to_owned());
        }
        return Some(metric);
    }
    // A histogram has no series of its own name.
    metrics.get(series).filter(|metric| metric.kind != Kind::Histogram).cloned()
}

#[test]
fn a_histogram_is_found_by_its_series_only() {
    let metrics = metrics();
    let of = |series| of_series(&metrics, series);
    assert_eq!(of("flintmq_flush_seconds"), None);
    assert_eq!(of("flintmq_flush_seconds_bucket").expect("known").labels, ["le"]);
    assert_eq!(of("flintmq_flush_seconds_count").expect("known").kind, Kind::Counter);
    assert_eq!(of("flintmq_sessions_count"), None);
    assert_eq!(of("flintmq_messages_rejected_total").expect("known").labels.len(), 3);
}
