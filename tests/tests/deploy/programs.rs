//! What Prometheus' and systemd's own programs say, where they are installed: `promtool` and
//! `systemd-analyze` of the path, or the `promtool` that `FLINTMQ_PROMTOOL` names.

use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::dashboard::questions;
use crate::files::{path, text};
use crate::systemd::UNIT;

/// Runs a program of the machine; `None`, and a line that says so, where it is not installed.
#[track_caller]
fn run(program: &str, arguments: &[&str], folder: &Path) -> Option<(bool, String)> {
    let Ok(output) = Command::new(program).args(arguments).current_dir(folder).output() else {
        println!("{program} is not installed: not checked with it");
        return None;
    };
    let said = [output.stdout, output.stderr].concat();
    Some((output.status.success(), String::from_utf8_lossy(&said).into_owned()))
}

#[track_caller]
fn promtool(arguments: &[&str], folder: &Path) {
    let program = env::var("FLINTMQ_PROMTOOL").unwrap_or_else(|_| "promtool".to_owned());
    if let Some((is_fine, said)) = run(&program, arguments, folder) {
        assert!(is_fine, "{said}");
    }
}

#[test]
fn promtool_takes_configuration_and_rules_and_their_tests_pass() {
    let folder = path("deploy/prometheus");
    promtool(&["check", "config", "prometheus.yml"], &folder);
    promtool(&["test", "rules", "flintmq-alerts-test.yml"], &folder);
}

#[test]
fn promtool_takes_the_dashboards_expressions() {
    // Written as rules, since it checks nothing else.
    let mut rules = "groups:\n- name: dashboard\n  rules:\n".to_owned();
    for (number, question) in questions().into_iter().enumerate() {
        let expression = question.expression.replace("$__rate_interval", "5m").replace('\'', "''");
        rules.push_str(&format!("  - record: question:{number}\n    expr: '{expression}'\n"));
    }
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("dashboard.yml"), rules).expect("written");
    promtool(&["check", "rules", "dashboard.yml"], folder.path());
}

#[test]
fn systemd_takes_the_unit() {
    let folder = tempfile::tempdir().expect("a folder");
    // It looks whether the program is there.
    let unit = text(UNIT).replace("/usr/local/bin/flintmq", "/bin/true");
    let file = folder.path().join("flintmq.service");
    fs::write(&file, unit).expect("written");
    let Some((_, said)) = run("systemd-analyze", &["verify", "flintmq.service"], folder.path())
    else {
        return;
    };
    // It also tells of the machine's other units.
    let own: Vec<_> = said.lines().filter(|line| line.contains("flintmq.service:")).collect();
    assert!(own.is_empty(), "{own:#?}");
}
