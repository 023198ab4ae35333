//! What is told of the nodes: tables and sentences to people, one JSON object per line to scripts.

use anyhow::Result;
use serde_json::{Value, json};

use super::children::{Children, Exit};
use super::layout::Layout;
use crate::show::{self, Show};

/// To whom it is told.
#[derive(Clone, Copy, Debug)]
pub(super) struct Report {
    pub(super) json: bool,
    /// Whether the data stays when all has stopped.
    pub(super) kept: bool,
}

impl Report {
    pub(super) fn started(self, layout: &Layout, children: &Children) -> Result<()> {
        let nodes: Vec<Value> = layout
            .nodes
            .iter()
            .filter_map(|node| Some(node.describe(children.pid(node.id)?)))
            .collect();
        if self.json {
            return event(&json!({"event": "started", "folder": layout.folder, "nodes": nodes}));
        }
        Show { json: false }.value(&Value::Array(nodes))?;
        let fate = if self.kept { "stays" } else { "is removed at the end" };
        eprintln!("data {fate} folder={}", layout.folder.display());
        eprintln!("Ctrl-C stops all");
        Ok(())
    }

    pub(super) fn ready(self) -> Result<()> {
        if self.json {
            return event(&json!({"event": "ready"}));
        }
        eprintln!("ready");
        Ok(())
    }

    /// A node has ended by itself, or somebody else ended it.
    pub(super) fn exited(self, exit: &Exit) -> Result<()> {
        let (id, pid, log) = (exit.node.id, exit.pid, exit.node.log_file());
        if self.json {
            return event(&json!({
                "event": "exited", "node": id, "pid": pid, "status": exit.how(), "log": log,
                "log_end": exit.log_end(),
            }));
        }
        eprintln!("node {id} has ended: {} pid={pid} log={}", exit.how(), log.display());
        for line in exit.log_end() {
            eprintln!("  | {line}");
        }
        let config = exit.node.config_file();
        eprintln!("start it again with: flintmq serve --config {}", config.display());
        Ok(())
    }

    pub(super) fn stopping(self) {
        if !self.json {
            eprintln!("stopping all nodes; once more kills them");
        }
    }

    /// A node has ended because it was told to; worth a word only when it did not do so properly.
    pub(super) fn stopped(self, exit: &Exit) {
        if !exit.succeeded() {
            eprintln!("node {} did not stop properly: {}", exit.node.id, exit.how());
        }
    }

    pub(super) fn all_stopped(self, killed: &[u32]) -> Result<()> {
        if self.json {
            return event(&json!({"event": "stopped", "killed": killed}));
        }
        eprintln!("stopped");
        Ok(())
    }
}

fn event(event: &Value) -> Result<()> {
    show::print(&event.to_string())
}
