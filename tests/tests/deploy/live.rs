//! A running broker shows what dashboard and rules ask for. Only this and `live_cluster` need its
//! binary: `-- --skip live` leaves both out.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};

use flintmq_system_tests::broker_process::{Broker, run_flintmq};
use flintmq_system_tests::wait::until;

use crate::alerts::alerts;
use crate::dashboard::questions;
use crate::files::string;
use crate::metrics_page::{metrics, of_series};
use crate::promql::{Selector, read};

/// Tables of metrics that a node without others does not show.
const OF_CLUSTERS: [&str; 2] = ["Replication", "Between the nodes"];

/// Shown from the first time on that it counts, which may never come.
const LATE: &str = "flintmq_leaderless_seconds_total";

/// Whether a node without others shows the series for certain.
fn is_always_shown(selector: &Selector) -> bool {
    let metric = of_series(&metrics(), &selector.series).expect("a test of its own");
    let is_ours = metric.section != "made by Prometheus" && selector.series != LATE;
    is_ours && !OF_CLUSTERS.contains(&metric.section.as_str())
}

/// Everything that dashboard and rules ask for.
#[track_caller]
pub(crate) fn asked() -> Vec<Selector> {
    let rules = alerts().into_values().map(|rule| string(&rule["expr"]).to_owned());
    let panels = questions().into_iter().map(|question| question.expression);
    rules
        .chain(panels)
        .flat_map(|expression| read(&expression).expect("a test of its own").selectors)
        .collect()
}

/// Whether the text has a series of this name with all the labels that the selector names. Values
/// are compared where they are given in full.
pub(crate) fn is_shown(text: &str, selector: &Selector) -> bool {
    let wants: Vec<_> = selector
        .matchers
        .iter()
        .filter(|(label, ..)| label != "job" && label != "instance")
        .map(|(label, operator, value)| match operator == "=" && !value.contains('$') {
            true => format!("{label}=\"{value}\""),
            false => format!("{label}=\""),
        })
        .collect();
    text.lines().filter(|line| !line.starts_with('#')).any(|line| {
        let name = line.split(['{', ' ']).next();
        name == Some(&selector.series) && wants.iter().all(|label| line.contains(label))
    })
}

#[test]
fn a_node_shows_the_series_of_every_panel_and_rule() {
    let broker = Broker::start();
    let uri = "bmq://deploy.live/queue";
    let url = broker.url();
    let run = |arguments: &[&str], input: &[u8]| {
        let (code, _, error) = run_flintmq(broker.folder(), arguments, input);
        assert_eq!(code, 0, "{arguments:?}: {error}");
    };
    run(&["produce", "--broker", &url, "--file", "-", uri], b"one\ntwo\n");
    run(&["consume", "--broker", &url, "--count", "1", uri], b"");
    // Reasons to refuse are counted from the first one on.
    let mut stranger = broker.connect();
    stranger.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("sent");
    let _ = stranger.read_to_end(&mut Vec::new());

    let selectors: Vec<_> = asked().into_iter().filter(is_always_shown).collect();
    assert!(selectors.len() > 80, "{}", selectors.len());
    let mut missing = BTreeSet::new();
    until("everything to be shown", || {
        let text = broker.admin().get("/metrics").body;
        let absent = selectors.iter().filter(|selector| !is_shown(&text, selector));
        let absent: BTreeSet<_> = absent.map(|selector| format!("{selector:?}")).collect();
        if absent != missing {
            println!("not shown yet: {absent:#?}");
            missing.clone_from(&absent);
        }
        absent.is_empty().then_some(())
    });
}
