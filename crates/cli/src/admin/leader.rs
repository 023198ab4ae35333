//! `flintmq admin leader`: transfer.

use anyhow::{Context as _, Result};
use clap::Subcommand;
use serde_json::json;

use super::http::AdminClient;
use crate::show::Show;

#[derive(Subcommand, Debug)]
pub(crate) enum LeaderVerb {
    /// Hand a group's lead to another node; ask any node
    ///
    /// Returns when the other node serves. It leads until it stops or hands the lead on; leads that
    /// nobody asked for go back to the node that usually has them.
    #[command(override_usage = "flintmq admin leader transfer [OPTIONS] --to <NODE> <ID>")]
    Transfer {
        /// Number of the group; 0 is the controller
        #[arg(value_name = "ID", required_unless_present = "former_group")]
        group: Option<u32>,
        /// How release 0.1 spelled ID
        #[arg(long = "group", value_name = "ID", hide = true, conflicts_with = "group")]
        former_group: Option<u32>,
        /// The node that is to lead
        #[arg(long, value_name = "NODE")]
        to: u32,
        /// At once, even if the node is behind: it fetches what it lacks before it serves
        #[arg(long)]
        force: bool,
    },
}

/// Runs one verb.
pub(crate) fn run(client: &AdminClient, show: Show, verb: &LeaderVerb) -> Result<()> {
    match verb {
        LeaderVerb::Transfer { group, former_group, to, force } => {
            let group = group.or(*former_group).context("name the group")?;
            let asked = json!({ "to": to, "force": force });
            show.done(&client.post(&format!("groups/{group}/transfer"), &asked)?, "transferred")
        }
    }
}
