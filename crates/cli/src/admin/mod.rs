//! `flintmq admin`: everything an operator asks of a running node, over its admin address.

mod domain;
mod http;
mod queue;
mod status;

use anyhow::Result;
use clap::{Args, Subcommand};

use self::http::{AdminAddress, AdminClient};
use crate::show::Show;

/// Arguments of `flintmq admin`.
#[derive(Args, Debug)]
pub(crate) struct AdminArgs {
    #[command(flatten)]
    address: AdminAddress,
    #[command(flatten)]
    show: Show,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// How the node is doing: readiness, role and indexes of every group
    Status,
    /// Domains: namespaces with one policy for all their queues
    #[command(subcommand)]
    Domain(domain::DomainVerb),
    /// Queues: what waits in them, who consumes
    #[command(subcommand)]
    Queue(queue::QueueVerb),
}

/// Runs one verb.
pub(crate) fn run(args: &AdminArgs) -> Result<()> {
    let client = AdminClient::new(&args.address)?;
    match &args.verb {
        Verb::Status => status::run(&client, args.show),
        Verb::Domain(verb) => domain::run(&client, args.show, verb),
        Verb::Queue(verb) => queue::run(&client, args.show, verb),
    }
}
