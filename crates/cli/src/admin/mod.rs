//! `flintmq admin`: everything an operator asks of a running node, over its admin address.

mod domain;
mod group;
mod http;
mod leader;
mod node;
mod queue;
mod session;
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
    /// How the cluster is doing: nodes, leaders, and how far every group is
    Status,
    /// Nodes of the cluster
    #[command(subcommand)]
    Node(node::NodeVerb),
    /// Groups: what is replicated together, a partition or the controller
    #[command(subcommand)]
    Group(group::GroupVerb),
    /// Leaders of groups
    #[command(subcommand)]
    Leader(leader::LeaderVerb),
    /// Domains: namespaces with one policy for all their queues
    #[command(subcommand)]
    Domain(domain::DomainVerb),
    /// Queues: what waits in them, who consumes
    #[command(subcommand)]
    Queue(queue::QueueVerb),
    /// Sessions: which clients are connected, and to which node
    #[command(subcommand)]
    Session(session::SessionVerb),
}

/// Runs one verb.
pub(crate) fn run(args: &AdminArgs) -> Result<()> {
    let client = AdminClient::new(&args.address)?;
    match &args.verb {
        Verb::Status => status::run(&client, args.show),
        Verb::Node(verb) => node::run(&client, args.show, verb),
        Verb::Group(verb) => group::run(&client, args.show, verb),
        Verb::Leader(verb) => leader::run(&client, args.show, verb),
        Verb::Domain(verb) => domain::run(&client, args.show, verb),
        Verb::Queue(verb) => queue::run(&client, args.show, verb),
        Verb::Session(verb) => session::run(&client, args.show, verb),
    }
}
