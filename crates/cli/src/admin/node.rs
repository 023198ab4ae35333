//! `flintmq admin node`: list, add, drain, remove, replace.

use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Subcommand;
use serde_json::{Value, json};

use super::http::AdminClient;
use crate::show::Show;

/// How often it is looked whether what is waited for has come about.
const LOOK: Duration = Duration::from_millis(500);

#[derive(Subcommand, Debug)]
pub(crate) enum NodeVerb {
    /// The cluster's nodes: who can be reached, who belongs to it, and what each leads and holds
    List,
    /// Let one more node come; then start it with an empty data directory
    ///
    /// Its node.toml names itself and the present nodes in `[[cluster_nodes]]`. It first receives
    /// everything, and votes when it has it.
    #[command(override_usage = "flintmq admin node add [OPTIONS] --peers <HOST:PORT> <NODE>")]
    Add {
        /// Number of the new node; never one that was used before
        #[arg(value_name = "NODE", required_unless_present = "former_id")]
        id: Option<u32>,
        /// How release 0.1 spelled NODE
        #[arg(long = "id", value_name = "NODE", hide = true, conflicts_with = "id")]
        former_id: Option<u32>,
        /// Where the other nodes reach it
        #[arg(long, value_name = "HOST:PORT")]
        peers: String,
    },
    /// Have a node lead nothing; it keeps what it holds and serves its clients through others
    ///
    /// Lasts over restarts, until it is taken back with --undo.
    Drain {
        /// Number of the node
        #[arg(value_name = "NODE")]
        id: u32,
        /// Let it lead again
        #[arg(long, conflicts_with = "wait")]
        undo: bool,
        /// Return when it leads nothing any more
        #[arg(long)]
        wait: bool,
    },
    /// Move everything away from a node, alive or dead, and forget it
    ///
    /// A node that runs stops by itself when nobody needs it any more. Its number is never used
    /// again.
    Remove {
        /// Number of the node
        #[arg(value_name = "NODE")]
        id: u32,
        /// Although too few nodes would be left to outlive a failure as before
        #[arg(long)]
        force: bool,
        /// Return when the node is forgotten
        #[arg(long)]
        wait: bool,
    },
    /// Let a new node take the place of another one, such as one that lost its disk
    ///
    /// A node with an empty disk has forgotten what it voted for: it comes with a new number, also
    /// on the same machine. Start it with an empty data directory; the old one is forgotten as soon
    /// as the new one has everything.
    Replace {
        /// Number of the node that leaves
        #[arg(value_name = "NODE")]
        id: u32,
        /// Number of the new node; never one that was used before
        #[arg(long, value_name = "NODE")]
        with: u32,
        /// Where the other nodes reach the new one
        #[arg(long, value_name = "HOST:PORT")]
        peers: String,
        /// Return when the new node is there and the old one is forgotten
        #[arg(long)]
        wait: bool,
    },
}

/// Runs one verb.
pub(crate) fn run(client: &AdminClient, show: Show, verb: &NodeVerb) -> Result<()> {
    match verb {
        NodeVerb::List => show.value(&client.get("nodes")?),
        NodeVerb::Add { id, former_id, peers } => {
            let id = id.or(*former_id).context("name the node")?;
            let asked = json!({ "id": id, "peers": peers });
            let said = "the node may come: start it with an empty data directory;";
            show.done(&client.post("nodes", &asked)?, said)
        }
        NodeVerb::Drain { id, undo, wait } => {
            let asked = json!({ "undo": undo });
            let answer = client.post(&format!("nodes/{id}/drain"), &asked)?;
            if *wait {
                until(client, *id, |node| node.is_none_or(|node| node["leads"] == 0))?;
            }
            show.done(&answer, if *undo { "may lead again" } else { "leads are given away" })
        }
        NodeVerb::Remove { id, force, wait } => {
            let answer = client.delete(&format!("nodes/{id}?force={force}"))?;
            gone(client, show, answer, *id, *wait)
        }
        NodeVerb::Replace { id, with, peers, wait } => {
            let asked = json!({ "with": with, "peers": peers });
            let answer = client.post(&format!("nodes/{id}/replace"), &asked)?;
            gone(client, show, answer, *id, *wait)
        }
    }
}

fn gone(client: &AdminClient, show: Show, answer: Value, id: u32, wait: bool) -> Result<()> {
    if wait {
        until(client, id, |node| node.is_none())?;
        return show.done(&json!({ "node": id, "membership": "removed" }), "forgotten");
    }
    show.done(&answer, "under way, see `flintmq admin node list`;")
}

/// Looks at a node's row again and again until it is as wanted; a node that is gone has none.
fn until(client: &AdminClient, id: u32, is_done: impl Fn(Option<&Value>) -> bool) -> Result<()> {
    loop {
        let nodes = client.get("nodes")?;
        let rows = nodes.as_array().map_or(&[][..], Vec::as_slice);
        if is_done(rows.iter().find(|row| row["node"] == id)) {
            return Ok(());
        }
        std::thread::sleep(LOOK);
    }
}
