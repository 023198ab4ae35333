//! `flintmq dev-cluster`: some nodes on this machine, for development, until it is told to stop.

mod children;
mod layout;
mod report;

use std::path::PathBuf;
use std::pin::pin;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval, timeout};

use self::children::{Children, Order};
use self::layout::Layout;
use self::report::Report;
use crate::show::Show;

/// Longer than a node lets its clients finish.
const GRACE: Duration = Duration::from_secs(20);
/// Pause between two questions whether the nodes are ready.
const READY_INTERVAL: Duration = Duration::from_millis(100);
/// How long one node may take to answer that.
const READY_TIMEOUT: Duration = Duration::from_secs(2);

/// Arguments of `flintmq dev-cluster`.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DevClusterArgs {
    #[command(flatten)]
    show: Show,
    /// How many nodes
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=15))]
    nodes: u32,
    /// First port. Each node takes three: clients, administration, other nodes (UDP)
    #[arg(long, default_value_t = 30114, value_name = "P", value_parser = clap::value_parser!(u16).range(1..))]
    base_port: u16,
    /// Keep the nodes' data here, and go on with what is there; without it, the data is removed at
    /// the end
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

const EXAMPLES: &str = "Examples:
  flintmq dev-cluster
  flintmq dev-cluster --nodes 5 --base-port 20000 --data-dir /tmp/five
  flintmq dev-cluster --json | jq -c .

Ctrl-C or SIGTERM stops all nodes gracefully, a second one kills them. A node that dies is
reported and not started again: kill one by its pid to see what the others do. Each node logs
into the file `log` of its folder; FLINTMQ_LOG sets what is logged.

With --json, each line is an event: `started` with all nodes, `ready` when they serve, `exited`
with the node, `stopped`.";

/// Runs `flintmq dev-cluster`.
pub(crate) fn run(args: &DevClusterArgs) -> Result<()> {
    // Dropped last, when no node runs any more.
    let temporary = match args.data_dir {
        Some(_) => None,
        None => Some(
            tempfile::Builder::new()
                .prefix("flintmq-dev-")
                .tempdir()
                .context("cannot make a temporary directory; name one with --data-dir")?,
        ),
    };
    let folder = match (&args.data_dir, &temporary) {
        (Some(folder), _) => folder.as_path(),
        (None, Some(temporary)) => temporary.path(),
        (None, None) => bail!("name a directory with --data-dir"),
    };
    let layout = Layout::prepare(folder, args.nodes, args.base_port)?;
    let report = Report { json: args.show.json, kept: args.data_dir.is_some() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(supervise(&layout, report))
}

async fn supervise(layout: &Layout, report: Report) -> Result<()> {
    // Before there is a node that a signal could leave behind.
    let mut signals = Signals::listen()?;
    let mut children = Children::start(layout)?;
    report.started(layout, &children)?;
    let mut becoming_ready = pin!(until_ready(urls(layout, &children)));
    let mut ready = false;
    loop {
        tokio::select! {
            biased;
            () = signals.next() => break,
            exit = children.next_exit() => {
                // Without `exit` there was none left, and that was told already.
                let Some(exit) = exit else { bail!("no node is left") };
                report.exited(&exit)?;
                if children.running().is_empty() {
                    bail!("no node is left");
                }
                becoming_ready.set(until_ready(urls(layout, &children)));
            }
            () = &mut becoming_ready, if !ready => {
                ready = true;
                report.ready()?;
            }
        }
    }
    stop(&mut children, &mut signals, report).await
}

async fn stop(children: &mut Children, signals: &mut Signals, report: Report) -> Result<()> {
    report.stopping();
    children.order(Order::Terminate);
    let all = async {
        while let Some(exit) = children.next_exit().await {
            report.stopped(&exit);
        }
    };
    let graceful = tokio::select! {
        done = timeout(GRACE, all) => done.is_ok(),
        () = signals.next() => false,
    };
    let killed = children.running();
    children.order(Order::Kill);
    while let Some(exit) = children.next_exit().await {
        report.stopped(&exit);
    }
    report.all_stopped(&killed)?;
    if !graceful {
        bail!("nodes were killed before they had stopped nodes={killed:?}");
    }
    Ok(())
}

fn urls(layout: &Layout, children: &Children) -> Vec<String> {
    let running = children.running();
    let nodes = layout.nodes.iter().filter(|node| running.contains(&node.id));
    nodes.map(|node| format!("{}/readyz", node.admin_url())).collect()
}

/// Until all of these answer that they are ready, one after the other.
async fn until_ready(urls: Vec<String>) {
    let agent =
        ureq::Agent::config_builder().timeout_global(Some(READY_TIMEOUT)).build().new_agent();
    let mut looks = interval(READY_INTERVAL);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let (agent, urls) = (agent.clone(), urls.clone());
        let all = move || urls.iter().all(|url| agent.get(url).call().is_ok());
        if tokio::task::spawn_blocking(all).await.unwrap_or(false) {
            return;
        }
    }
}

/// Whatever asks this process to end.
struct Signals {
    each: [Signal; 3],
}

impl Signals {
    fn listen() -> Result<Self> {
        let listen = |kind| signal(kind).context("cannot listen for signals");
        Ok(Self {
            each: [
                listen(SignalKind::interrupt())?,
                listen(SignalKind::terminate())?,
                listen(SignalKind::hangup())?,
            ],
        })
    }

    async fn next(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.each;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}
