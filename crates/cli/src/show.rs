//! How answers are shown: a table for people, JSON with `--json` for scripts. Data goes to standard
//! output and everything else to standard error.

use std::io::Write as _;

use anyhow::Result;
use clap::Args;
use comfy_table::{Table, presets};
use serde_json::{Map, Value};

/// The `--json` switch.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Show {
    /// Print JSON instead of tables
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

impl Show {
    /// Prints an answer whose content is what was asked for.
    pub(crate) fn value(self, value: &Value) -> Result<()> {
        if self.json {
            return print(&serde_json::to_string_pretty(value)?);
        }
        print(render(value).trim_end())
    }

    /// Prints the outcome of a change: its JSON, or a line on standard error for people.
    pub(crate) fn done(self, answer: &Value, said: &str) -> Result<()> {
        if self.json {
            return print(&serde_json::to_string_pretty(answer)?);
        }
        let facts: Vec<String> = match answer {
            Value::Object(fields) => fields
                .iter()
                .filter(|(_, value)| value.is_number() || value.is_string() || value.is_boolean())
                .map(|(key, value)| format!("{key}={}", cell(value)))
                .collect(),
            _ => Vec::new(),
        };
        eprintln!("{said}{}{}", if facts.is_empty() { "" } else { " " }, facts.join(" "));
        for warning in warnings(answer) {
            eprintln!("warning: {warning}");
        }
        Ok(())
    }
}

/// What the node carried out and has something to say about.
fn warnings(answer: &Value) -> impl Iterator<Item = &str> {
    answer["warnings"].as_array().into_iter().flatten().filter_map(Value::as_str)
}

/// Writes to standard output; a reader that has gone away (`| head`) is no error.
pub(crate) fn print(text: &str) -> Result<()> {
    match writeln!(std::io::stdout().lock(), "{text}") {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// Plain facts first, then one table for each list of objects.
pub(crate) fn render(value: &Value) -> String {
    match value {
        Value::Array(rows) if rows.is_empty() => "none".to_owned(),
        Value::Array(rows) if rows.iter().all(Value::is_object) => table_of(rows),
        Value::Object(fields) => render_object(fields),
        other => cell(other),
    }
}

fn render_object(fields: &Map<String, Value>) -> String {
    let mut facts = new_table();
    let mut tables = String::new();
    flatten("", fields, &mut |key, value| match value {
        Value::Array(rows) if !rows.is_empty() && rows.iter().all(Value::is_object) => {
            tables.push_str(&format!("\n{key}\n{}\n", table_of(rows)));
        }
        value => {
            facts.add_row([key.to_owned(), cell(value)]);
        }
    });
    format!("{facts}\n{tables}")
}

/// Nested objects become dotted names, as in `storage.queueLimits.messages`.
fn flatten(prefix: &str, fields: &Map<String, Value>, found: &mut impl FnMut(&str, &Value)) {
    for (key, value) in fields {
        let name = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        match value {
            Value::Object(inner) if !inner.is_empty() && single_choice(value).is_none() => {
                flatten(&name, inner, found);
            }
            value => found(&name, value),
        }
    }
}

/// One row per object; the columns are all fields, in the order in which they first appear. Fields
/// that hold objects are left out: a row has no room for them, and `show` or `--json` has.
fn table_of(rows: &[Value]) -> String {
    let mut columns: Vec<&str> = Vec::new();
    for (key, value) in rows.iter().filter_map(Value::as_object).flatten() {
        let fits = !value.is_object() || single_choice(value).is_some();
        if fits && !columns.contains(&key.as_str()) {
            columns.push(key);
        }
    }
    let mut table = new_table();
    table.set_header(columns.iter().map(|column| column.replace('_', " ")));
    for row in rows {
        table.add_row(columns.iter().map(|column| row.get(column).map(cell).unwrap_or_default()));
    }
    table.to_string()
}

/// `{"priority": {}}` says no more than `priority`.
fn single_choice(value: &Value) -> Option<&str> {
    let fields = value.as_object()?;
    let (name, inner) = fields.iter().next()?;
    let empty = inner.as_object().is_some_and(Map::is_empty);
    (fields.len() == 1 && empty).then_some(name)
}

fn new_table() -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => printable(text),
        Value::Array(items) if items.iter().any(Value::is_object) => items.len().to_string(),
        Value::Array(items) => items.iter().map(cell).collect::<Vec<_>>().join(", "),
        other => single_choice(other).map_or_else(|| other.to_string(), str::to_owned),
    }
}

/// Payloads may hold anything: nothing of it may steer the terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{b7}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn objects_show_facts_and_lists_show_rows() {
        let text = render(&json!({
            "uri": "bmq://d/q",
            "limits": {"messages": 5},
            "apps": [{"id": "a", "backlog_messages": 3}, {"id": "b", "consumers": 1}],
        }));
        assert!(text.contains("bmq://d/q"), "{text}");
        assert!(text.contains("limits.messages"), "{text}");
        assert!(text.contains("backlog messages"), "{text}");
        assert!(text.lines().any(|line| line.contains('b') && line.contains('1')), "{text}");
        let list =
            json!([{"name": "d", "mode": {"fanout": {}}, "limits": {"a": 1}, "m": [{}, {}]}]);
        let text = render(&list);
        assert!(text.contains("fanout") && !text.contains("limits"), "{text}");
        assert!(text.lines().last().is_some_and(|line| line.trim_end().ends_with('2')), "{text}");
        assert_eq!(render(&json!("a\u{1b}[2Jb")), "a\u{b7}[2Jb");
        assert_eq!(render(&json!([])), "none");
        assert_eq!(render(&json!("x")), "x");
    }
}
