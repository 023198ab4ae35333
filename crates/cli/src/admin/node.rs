//! `flintmq admin node`: list.

use anyhow::Result;
use clap::Subcommand;

use super::http::AdminClient;
use crate::show::Show;

#[derive(Subcommand, Debug)]
pub(crate) enum NodeVerb {
    /// The cluster's nodes: who can be reached, and how many groups each leads
    List,
}

/// Runs one verb.
pub(crate) fn run(client: &AdminClient, show: Show, verb: &NodeVerb) -> Result<()> {
    match verb {
        NodeVerb::List => show.value(&client.get("nodes")?),
    }
}
