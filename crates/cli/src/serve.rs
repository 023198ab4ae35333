//! `flintmq serve`: one node, until it is told to stop.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use clap::Args;
use flintmq_broker::config::{ListenUrl, LogFormat, NodeConfig, Overrides};
use flintmq_broker::logging;
use flintmq_broker::metrics::Metrics;
use flintmq_broker::{Broker, StartError};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

/// Run a node: a broker that clients connect to
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ServeArgs {
    /// The node's configuration; without it everything has a default that suits a first try
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where to keep the log and the queues [default: flintmq-data]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Where clients connect, tcp://HOST:PORT or tls://HOST:PORT; repeatable
    /// [default: tcp://127.0.0.1:30114]
    #[arg(long, value_name = "URL")]
    listen: Vec<ListenUrl>,
    /// Address of health, metrics and administration [default: 127.0.0.1:8114]
    #[arg(long, value_name = "ADDR")]
    admin: Option<SocketAddr>,
    /// This node's number [default: 1]
    #[arg(long, value_name = "N")]
    node_id: Option<u32>,
    /// Shape of log lines: text or json
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<LogFormat>,
    /// What is logged: error, warn, info, debug, trace, or levels per part
    #[arg(long, value_name = "FILTER", env = logging::LEVEL_VARIABLE)]
    log_level: Option<String>,
    /// Stop gracefully when standard input ends, as it does when the process that holds its other
    /// end is gone
    #[arg(long, hide = true)]
    stop_with_stdin: bool,
}

const EXAMPLES: &str = "Examples:
  flintmq serve
  flintmq serve --config /etc/flintmq/node.toml
  flintmq serve --data-dir /tmp/try --listen tcp://127.0.0.1:0 --admin 127.0.0.1:0

Stop it with SIGTERM or Ctrl-C; it lets consumers confirm what they hold first. A second signal ends it at once, as a
crash would: nothing acknowledged is lost. SIGHUP reads the TLS certificate again.";

impl ServeArgs {
    fn load(self) -> anyhow::Result<NodeConfig> {
        let overrides = Overrides {
            data_dir: self.data_dir,
            listen: self.listen,
            admin: self.admin,
            node_id: self.node_id,
            log_format: self.log_format,
            log_level: self.log_level,
        };
        let config = match &self.config {
            Some(file) => NodeConfig::load(file, &overrides)?,
            None => NodeConfig::without_file(&overrides)?,
        };
        Ok(config)
    }
}

/// Serves until a signal or a failure.
pub(crate) fn run(args: ServeArgs) -> anyhow::Result<()> {
    let stop_with_stdin = args.stop_with_stdin;
    let config = args.load()?;
    logging::init(&config.log)?;
    for advice in config.advice() {
        tracing::warn!("{advice}");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(worker_threads())
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(serve(config, stop_with_stdin))
}

/// One core is left to the log writer, which works as long as the workers do: on two cores that is
/// 10 to 20 % more messages per CPU second than a worker for each core.
fn worker_threads() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| cores.get().saturating_sub(1).max(1))
}

async fn serve(config: NodeConfig, stop_with_stdin: bool) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut reload = signal(SignalKind::hangup())?;
    let mut input = stop_with_stdin.then(end_of_input);
    let metrics = Arc::new(Metrics::install(config.metrics.max_queues)?);
    let (cluster, node) = (config.cluster.clone(), config.node.id);
    let stopped = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            () = gone(&mut input) => {}
        }
    };
    let broker = match Broker::start_unless(config, metrics, stopped).await {
        Err(error @ StartError::Stopped) => {
            tracing::info!("{error}");
            return Ok(());
        }
        started => started?,
    };
    for url in broker.client_urls() {
        tracing::info!(url, cluster, node, "clients can connect");
    }
    tracing::info!(url = format!("http://{}", broker.admin_address()), "administration");
    let failure = loop {
        tokio::select! {
            _ = terminate.recv() => break None,
            _ = interrupt.recv() => break None,
            () = gone(&mut input) => break None,
            reason = broker.failed() => break Some(reason),
            () = broker.removed() => {
                tracing::warn!(
                    "this node was removed from the cluster, and everything that it held is elsewhere: it stops"
                );
                break None;
            }
            _ = reload.recv() => match broker.reload_certificates() {
                Ok(()) => tracing::info!("certificates read again"),
                Err(error) => tracing::error!(%error, "the certificates stay as they were"),
            },
        }
    };
    let stopping = broker.stop();
    tokio::pin!(stopping);
    tokio::select! {
        stopped = &mut stopping => match failure {
            Some(reason) => bail!("the node stopped: {reason}"),
            None => Ok(stopped?),
        },
        () = second_signal(&mut terminate, &mut interrupt) => bail!("stopped at once by a second signal"),
    }
}

async fn second_signal(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// Resolves when standard input has ended. Read by a thread of its own, which the runtime does not
/// wait for.
fn end_of_input() -> oneshot::Receiver<()> {
    let (ended, end) = oneshot::channel();
    std::thread::spawn(move || {
        // What comes is of no interest; an error ends it as well.
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        drop(ended);
    });
    end
}

async fn gone(input: &mut Option<oneshot::Receiver<()>>) {
    match input {
        Some(end) => drop(end.await),
        None => std::future::pending().await,
    }
}
