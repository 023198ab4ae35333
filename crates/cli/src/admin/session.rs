//! `flintmq admin session`: list.

use anyhow::Result;
use clap::Subcommand;
use serde_json::Value;

use super::http::AdminClient;
use crate::show::{Show, print, render};

#[derive(Subcommand, Debug)]
pub(crate) enum SessionVerb {
    /// The clients connected to all nodes, or to one: address, library, process and open queues
    List {
        /// Only the sessions of this node
        #[arg(long, value_name = "NODE")]
        node: Option<u32>,
        /// How many sessions at most
        #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1000))]
        count: u32,
    },
}

/// Runs one verb.
pub(crate) fn run(client: &AdminClient, show: Show, verb: &SessionVerb) -> Result<()> {
    match verb {
        SessionVerb::List { node, count } => {
            let only = node.map(|node| format!("&node={node}")).unwrap_or_default();
            let answer = client.get(&format!("sessions?count={count}{only}"))?;
            if show.json {
                return show.value(&answer);
            }
            print(render(&answer["sessions"]).trim_end())?;
            if let Some(note) = incomplete(&answer) {
                eprintln!("{note}");
            }
            Ok(())
        }
    }
}

/// What the table does not have, where that is so.
fn incomplete(answer: &Value) -> Option<String> {
    let shown = answer["sessions"].as_array().map_or(0, Vec::len) as u64;
    let total = answer["total"].as_u64().unwrap_or(shown);
    let silent = answer["unanswered_nodes"].as_array().filter(|nodes| !nodes.is_empty());
    let mut notes = Vec::new();
    if total > shown {
        notes.push(format!(
            "more sessions than are shown: choose a node with --node, shown={shown} total={total}"
        ));
    }
    if let Some(nodes) = silent {
        let nodes: Vec<String> = nodes.iter().map(Value::to_string).collect();
        notes.push(format!(
            "sessions of nodes that do not answer are missing, nodes={}",
            nodes.join(",")
        ));
    }
    (!notes.is_empty()).then(|| notes.join("\n"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_missing_from_the_table_is_told() {
        let answer = |total: u64, silent: &[u32]| json!({ "total": total, "unanswered_nodes": silent, "sessions": [{ "id": 1 }] });
        assert_eq!(incomplete(&answer(1, &[])), None);
        let cut = incomplete(&answer(2000, &[])).unwrap();
        assert!(cut.contains("shown=1 total=2000"), "{cut}");
        let silent = incomplete(&answer(1, &[2, 3])).unwrap();
        assert!(silent.contains("nodes=2,3"), "{silent}");
    }
}
