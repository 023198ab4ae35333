//! The figure of layers in `docs/ARCHITECTURE.md`: made from what the crates depend on, so that it
//! cannot lie.
//!
//! A crate stands one row above the highest crate that it uses. The crates without I/O are the
//! lower half; that none of them uses one of the upper half is checked on the way. What each crate
//! may use stands in a table of `docs/internals/README.md`, with the page of its layer.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::tidy::Finding;
use crate::{places, purity};

/// The page with the figure.
const PAGE: &str = "docs/ARCHITECTURE.md";
/// The page with the table of what each crate may use.
const RULES: &str = "docs/internals/README.md";
const BEGIN: &str = "<!-- layers: made by `cargo xtask layers` -->";
const END: &str = "<!-- layers: end -->";
/// The crate that makes the binary: what it needs is shipped, everything else is for tests.
const SHIPPED: &str = "cli";

/// What each crate of `crates/` uses of the others, both by their folders' names.
type Uses = BTreeMap<String, BTreeSet<String>>;

/// Writes the figure into the page and prints it.
pub(crate) fn write(root: &Path) -> Result<()> {
    let figure = figure(&uses(root)?)?;
    let path = root.join(PAGE);
    let page = fs::read_to_string(&path).with_context(|| format!("cannot read {PAGE}"))?;
    let (before, _, after) = parts(&page)?;
    fs::write(&path, format!("{before}{figure}{after}"))
        .with_context(|| format!("cannot write {PAGE}"))?;
    print!("{figure}");
    Ok(())
}

/// Adds a finding when the page's figure is not the one that the crates make.
pub(crate) fn check(root: &Path, found: &mut Vec<Finding>) -> Result<()> {
    let page =
        fs::read_to_string(root.join(PAGE)).with_context(|| format!("cannot read {PAGE}"))?;
    let uses = uses(root)?;
    found.extend(stale(&page, &figure(&uses)?)?);
    let rules =
        fs::read_to_string(root.join(RULES)).with_context(|| format!("cannot read {RULES}"))?;
    found.extend(broken_rules(&rules, &uses));
    Ok(())
}

/// What the table of rules forbids or lacks.
fn broken_rules(page: &str, uses: &Uses) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut broken = |line: usize, rule: String| {
        found.push(Finding { file: PathBuf::from(RULES), line, rule });
    };
    let mut missing: BTreeSet<&str> = uses.keys().map(String::as_str).collect();
    for (index, line) in page.lines().enumerate() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let ["", name, pages, allowed, ""] = cells[..] else { continue };
        let Some(name) = name.strip_prefix('`').and_then(|name| name.strip_suffix('`')) else {
            continue;
        };
        let Some(used) = uses.get(name) else {
            broken(index + 1, format!("there is no crate `{name}`"));
            continue;
        };
        missing.remove(name);
        if !pages.contains("](") {
            broken(index + 1, format!("`{name}` has no page"));
        }
        let allowed: Vec<&str> = allowed.split('`').skip(1).step_by(2).collect();
        for other in used.iter().filter(|other| !allowed.contains(&other.as_str())) {
            broken(index + 1, format!("`{name}` uses `{other}`, which its row does not allow"));
        }
    }
    for name in missing {
        broken(0, format!("`{name}` has no row: say what it may use, and where its page is"));
    }
    found
}

fn stale(page: &str, figure: &str) -> Result<Option<Finding>> {
    let (before, shown, _) = parts(page)?;
    Ok((shown != figure).then(|| Finding {
        file: PathBuf::from(PAGE),
        line: before.lines().count(),
        rule: "the figure of layers is not what the crates use; run `cargo xtask layers`"
            .to_owned(),
    }))
}

/// The page up to the figure, the figure, and the rest.
fn parts(page: &str) -> Result<(&str, &str, &str)> {
    let marks = page.find(BEGIN).zip(page.find(END));
    let Some((begin, end)) = marks.filter(|(begin, end)| begin < end) else {
        bail!("{PAGE} has no place for the figure: put {BEGIN} and {END} around it");
    };
    let begin = begin + BEGIN.len() + 1;
    Ok((&page[..begin], &page[begin..end], &page[end..]))
}

fn uses(root: &Path) -> Result<Uses> {
    let output = places::cargo(root)
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .output()
        .context("cannot run cargo metadata")?;
    if !output.status.success() {
        bail!("cargo metadata failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let metadata = serde_json::from_slice(&output.stdout).context("cargo metadata is no JSON")?;
    parse(&metadata)
}

fn parse(metadata: &Value) -> Result<Uses> {
    let mut folders = BTreeMap::new();
    for package in list(&metadata["packages"]) {
        let manifest = Path::new(package["manifest_path"].as_str().unwrap_or_default());
        let mut folder = manifest.parent().into_iter().flat_map(Path::components).rev();
        let (Some(name), Some(parent)) = (folder.next(), folder.next()) else { continue };
        if parent.as_os_str() == "crates" {
            let package_name = package["name"].as_str().unwrap_or_default();
            folders.insert(package_name, name.as_os_str().to_string_lossy().into_owned());
        }
    }
    let mut uses = Uses::new();
    for package in list(&metadata["packages"]) {
        let Some(folder) = folders.get(package["name"].as_str().unwrap_or_default()) else {
            continue;
        };
        let of_others = list(&package["dependencies"])
            .iter()
            .filter(|dependency| dependency["kind"].is_null())
            .filter_map(|dependency| folders.get(dependency["name"].as_str()?))
            .filter(|other| *other != folder);
        uses.insert(folder.clone(), of_others.cloned().collect());
    }
    if uses.is_empty() {
        bail!("cargo metadata names no package in `crates`");
    }
    Ok(uses)
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// The figure as it stands in the page, with its fences.
fn figure(uses: &Uses) -> Result<String> {
    let pure: BTreeSet<&str> = purity::folders().collect();
    let mut rows = BTreeMap::new();
    for folder in uses.keys() {
        if pure.contains(folder.as_str()) {
            if let Some(other) = uses[folder].iter().find(|other| !pure.contains(other.as_str())) {
                bail!("`{folder}` does no I/O and must not use `{other}`, which does");
            }
            row(folder, uses, &|_| 1, &mut rows);
        }
    }
    let above = rows.values().max().map_or(1, |highest| highest + 1);
    let lowest = |folder: &str| if pure.contains(folder) { 1 } else { above };
    for folder in uses.keys() {
        row(folder, uses, &lowest, &mut rows);
    }
    let mut shipped = BTreeSet::new();
    collect(SHIPPED, uses, &mut shipped);

    let width = uses.keys().map(String::len).max().unwrap_or_default();
    let line = |text: &mut String, folder: &str, label: &str| {
        let others: Vec<&str> = uses[folder].iter().map(String::as_str).collect();
        let entry = format!("{label:>3}  {folder:width$}  {}", others.join(" "));
        let _ = writeln!(text, "{}", entry.trim_end());
    };
    let mut text = format!("```text\nrow  {:width$}  uses\n", "crate");
    let highest = rows.values().max().copied().unwrap_or_default();
    for number in (1..=highest).rev() {
        if number + 1 == above {
            text.push_str("──── no I/O, clock, thread or randomness from here on\n");
        }
        let mut label = number.to_string();
        let here = rows.iter().filter(|(folder, row)| **row == number && shipped.contains(*folder));
        for (folder, _) in here {
            line(&mut text, folder, &label);
            label.clear();
        }
    }
    let _ = writeln!(text, "──── for tests only, not in the binary");
    for folder in uses.keys().filter(|folder| !shipped.contains(folder.as_str())) {
        line(&mut text, folder, "");
    }
    text.push_str("```\n");
    Ok(text)
}

fn row<'uses>(
    folder: &'uses str,
    uses: &'uses Uses,
    lowest: &dyn Fn(&str) -> usize,
    rows: &mut BTreeMap<&'uses str, usize>,
) -> usize {
    if let Some(known) = rows.get(folder) {
        return *known;
    }
    // Cargo refuses circles, so this ends.
    let below = uses[folder].iter().map(|other| row(other, uses, lowest, rows)).max();
    let number = below.map_or(1, |highest| highest + 1).max(lowest(folder));
    rows.insert(folder, number);
    number
}

fn collect<'uses>(folder: &'uses str, uses: &'uses Uses, into: &mut BTreeSet<&'uses str>) {
    if let Some((folder, others)) = uses.get_key_value(folder)
        && into.insert(folder)
    {
        others.iter().for_each(|other| collect(other, uses, into));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn package(name: &str, folder: &str, dependencies: &[(&str, Value)]) -> Value {
        let dependencies: Vec<Value> =
            dependencies.iter().map(|(name, kind)| json!({"name": name, "kind": kind})).collect();
        let manifest = format!("/home/x/{folder}/Cargo.toml");
        json!({"name": name, "manifest_path": manifest, "dependencies": dependencies})
    }

    fn workspace(of_queue: &[(&str, Value)]) -> Uses {
        parse(&json!({"packages": [
            package("flintmq", "crates/cli", &[("flintmq-storage", Value::Null)]),
            package("flintmq-queue", "crates/queue", of_queue),
            package("flintmq-storage", "crates/storage", &[
                ("flintmq-queue", Value::Null), ("bytes", Value::Null),
                ("flintmq-storage", json!("dev")), ("flintmq", json!("dev")),
            ]),
            package("flintmq-bench", "crates/bench", &[("flintmq-queue", Value::Null)]),
            package("xtask", "xtask", &[]),
        ]}))
        .expect("packages")
    }

    #[test]
    fn a_crate_stands_above_what_it_uses() {
        let text = figure(&workspace(&[])).expect("a figure");
        let expected = [
            "```text",
            "row  crate    uses",
            "  3  cli      storage",
            "  2  storage  queue",
            "──── no I/O, clock, thread or randomness from here on",
            "  1  queue",
            "──── for tests only, not in the binary",
            "     bench    queue",
            "```",
        ];
        assert_eq!(text.lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_pure_crate_that_uses_one_with_io_is_refused() {
        let error = figure(&workspace(&[("flintmq-bench", Value::Null)])).expect_err("refused");
        assert_eq!(error.to_string(), "`queue` does no I/O and must not use `bench`, which does");
    }

    #[test]
    fn an_old_figure_is_found() {
        let page = |figure: &str| format!("# A\n\n{BEGIN}\n{figure}{END}\nrest\n");
        assert_eq!(stale(&page("new\n"), "new\n").expect("marks"), None);
        let finding = stale(&page("old\n"), "new\n").expect("marks").expect("a finding");
        assert_eq!(finding.line, 3);
        assert!(stale("no marks", "new\n").is_err());
    }

    #[test]
    fn a_crate_that_breaks_its_row_or_has_none_is_found() {
        let page = "| crate | page | may use |\n| --- | --- | --- |\n\
                    | `cli` | [cli](cli.md) | `storage` |\n| `storage` | none | |\n\
                    | `queue` | [queues](q.md) | |\n| `gone` | [g](g.md) | |\n";
        let rules: Vec<String> = broken_rules(page, &workspace(&[]))
            .into_iter()
            .map(|finding| format!("{}: {}", finding.line, finding.rule))
            .collect();
        let expected = [
            "4: `storage` has no page",
            "4: `storage` uses `queue`, which its row does not allow",
            "6: there is no crate `gone`",
            "0: `bench` has no row: say what it may use, and where its page is",
        ];
        assert_eq!(rules, expected);
    }

    #[test]
    fn the_page_has_the_figure_of_these_crates() {
        let root = places::checkout().expect("the tests run in a checkout");
        let mut found = Vec::new();
        check(&root, &mut found).expect("a figure");
        assert_eq!(found, []);
    }
}
