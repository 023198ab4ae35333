//! `flintmq admin leader`: transfer.

use anyhow::Result;
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
    Transfer {
        /// Number of the group; 0 is the controller
        #[arg(long, value_name = "ID")]
        group: u32,
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
        LeaderVerb::Transfer { group, to, force } => {
            let asked = json!({ "to": to, "force": force });
            show.done(&client.post(&format!("groups/{group}/transfer"), &asked)?, "transferred")
        }
    }
}
