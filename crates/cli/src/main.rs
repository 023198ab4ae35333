//! `flintmq`: the broker, its tools and its administration, in one binary.
//!
//! Data goes to standard output, everything else to standard error. Exit codes: 0 done, 1 failed
//! (the reason is on standard error), 2 wrong usage.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod admin;
mod bench;
mod cert;
mod connect;
mod consume;
#[cfg(feature = "serve")]
mod dev_cluster;
mod produce;
mod progress;
#[cfg(feature = "serve")]
mod serve;
mod show;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A message broker that the BlazingMQ clients connect to, and the tools around it
#[derive(Parser, Debug)]
#[command(name = "flintmq", version, propagate_version = true, after_help = TOUR)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const TOUR: &str = "A first tour, in three terminals:
  flintmq serve
  flintmq consume --follow bmq://demo/greetings
  flintmq produce bmq://demo/greetings --message 'hello'";

#[derive(Subcommand, Debug)]
enum Command {
    /// Run a node: a broker that clients connect to
    #[cfg(feature = "serve")]
    Serve(serve::ServeArgs),
    /// Run some nodes on this machine, for development
    #[cfg(feature = "serve")]
    DevCluster(dev_cluster::DevClusterArgs),
    /// Publish messages and wait until they are stored
    Produce(produce::ProduceArgs),
    /// Print the messages of a queue and confirm them
    Consume(consume::ConsumeArgs),
    /// Generate load and measure throughput and latency
    Bench(bench::BenchArgs),
    /// Make certificates for nodes and clients
    Cert(cert::CertArgs),
    /// Ask and administer a running node
    Admin(admin::AdminArgs),
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        #[cfg(feature = "serve")]
        Command::Serve(args) => serve::run(args).map(|()| ExitCode::SUCCESS),
        #[cfg(feature = "serve")]
        Command::DevCluster(args) => dev_cluster::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Produce(args) => client_runtime(1)?.block_on(produce::run(args)),
        Command::Consume(args) => client_runtime(1)?.block_on(consume::run(args)),
        Command::Bench(args) => client_runtime(args.threads())?.block_on(bench::run(args)),
        Command::Cert(args) => cert::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Admin(args) => admin::run(&args).map(|()| ExitCode::SUCCESS),
    }
}

/// A client has little to do at a time: fewer threads mean fewer wake-ups for the same work.
fn client_runtime(threads: usize) -> anyhow::Result<tokio::runtime::Runtime> {
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::try_from_env("FLINTMQ_LOG").unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let mut builder = if threads > 1 {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(threads);
        builder
    } else {
        tokio::runtime::Builder::new_current_thread()
    };
    Ok(builder.enable_all().build()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    fn parses(words: &str) -> bool {
        Cli::try_parse_from(words.split(' ')).is_ok()
    }

    #[test]
    fn nodes_and_groups_are_named_alike_everywhere() {
        let of_nodes =
            ["add 4 --peers h:1", "drain 4", "remove 4", "replace 4 --with 5 --peers h:1"];
        for words in of_nodes {
            assert!(parses(&format!("flintmq admin node {words}")), "{words}");
        }
        for words in ["group show 3", "group recover 3 --lost 2 --accept-loss"] {
            assert!(parses(&format!("flintmq admin {words}")), "{words}");
        }
        assert!(parses("flintmq admin leader transfer 3 --to 2"));
        // As release 0.1 had it.
        assert!(parses("flintmq admin node add --id 4 --peers h:1"));
        assert!(parses("flintmq admin leader transfer --group 3 --to 2"));
        assert!(!parses("flintmq admin node add 4 --id 4 --peers h:1"));
        assert!(!parses("flintmq admin node add --peers h:1"));
        assert!(!parses("flintmq admin leader transfer --to 2"));
    }

    #[test]
    fn wrong_usage_is_told_from_failure() {
        let error = Cli::try_parse_from(["flintmq", "produce"]).unwrap_err();
        assert_eq!(error.exit_code(), 2);
    }
}
