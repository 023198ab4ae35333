//! `flintmq bench`: a load generator that checks every message and measures what it takes.
//!
//! It speaks the client protocol only, so that the same command drives any BlazingMQ broker.

mod broker_cpu;
mod load;
mod pacer;
mod report;
mod sequence;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};
use flintmq_client::Session;

use self::broker_cpu::BrokerCpu;
use self::load::{Clock, Control, Progress};
use self::report::Report;
use crate::connect::{BrokerArgs, stop_requested};

/// Generate load and measure throughput and latency
///
/// Every message carries a sequence number: lost and duplicated ones are counted exactly. With
/// --rate, latency counts from the moment a message should have been sent, so that a stall shows in
/// full.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct BenchArgs {
    #[command(flatten)]
    broker: BrokerArgs,
    /// How many queues
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000), value_name = "Q")]
    queues: u32,
    /// How many producers, spread over the queues; each has a session of its own
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(0..=10_000), value_name = "P")]
    producers: u32,
    /// How many consumers, spread over the queues; each has a session of its own
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(0..=10_000), value_name = "C")]
    consumers: u32,
    /// Bytes per message
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(sequence::STAMP_SIZE as i64..=64 << 20), value_name = "B")]
    size: u32,
    /// How many messages each producer has on their way
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..), value_name = "N")]
    in_flight: u32,
    /// How long to measure, in seconds
    #[arg(long, default_value_t = 10.0, value_parser = parse_seconds, value_name = "S")]
    duration: f64,
    /// How long to run before measuring, in seconds; these messages are checked all the same
    #[arg(long, default_value_t = 1.0, value_parser = parse_seconds, value_name = "S")]
    warmup: f64,
    /// Messages per second of all producers together (default: as fast as they are acknowledged)
    #[arg(long, value_parser = parse_rate, value_name = "R")]
    rate: Option<f64>,
    /// With --rate: how many messages each producer sends at a time, for publishers that do not
    /// send each message when it comes up
    #[arg(long, default_value_t = 1, requires = "rate", value_parser = clap::value_parser!(u32).range(1..=1_000_000), value_name = "N")]
    burst: u32,
    /// The mode of the domain
    #[arg(long, value_enum, default_value_t = Mode::Priority)]
    mode: Mode,
    /// The domain of the queues
    #[arg(long, default_value = "bench", value_name = "NAME")]
    domain: String,
    /// The queues are called PREFIX-0, PREFIX-1 … (default: a new prefix, so that queues start
    /// empty)
    #[arg(long, value_name = "PREFIX")]
    queue_prefix: Option<String>,
    /// Process id of a broker, to report its CPU time (repeatable)
    #[arg(long = "broker-pid", value_name = "PID")]
    broker_pids: Vec<u32>,
    /// How many messages each consumer takes ahead of their confirmation
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..), value_name = "N")]
    max_unconfirmed: u32,
    /// Give up on missing messages when none has come for so long, in seconds
    #[arg(long, default_value_t = 10.0, value_parser = parse_seconds, value_name = "S")]
    drain: f64,
    /// Threads of the load generator; 1 is cheapest where it shares processors with the broker
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024), value_name = "T")]
    threads: u32,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "Examples:
  flintmq bench
  flintmq bench --queues 8 --producers 8 --consumers 16 --duration 60
  flintmq bench --rate 10000 --json --broker-pid $(pidof flintmq)";

/// How messages reach consumers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// Each message to one consumer
    Priority,
}

impl BenchArgs {
    /// Threads that the runtime should have.
    pub(crate) const fn threads(&self) -> usize {
        self.threads as usize
    }

    fn uris(&self) -> Vec<String> {
        let prefix = self.queue_prefix.clone().unwrap_or_else(|| {
            let now = std::time::SystemTime::now();
            let since = now.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
            format!("bench-{}-{}", std::process::id(), since.as_secs())
        });
        (0..self.queues).map(|number| format!("bmq://{}/{prefix}-{number}", self.domain)).collect()
    }
}

/// Runs the command. The exit code is 1 when a message was lost or refused.
pub(crate) async fn run(args: BenchArgs) -> Result<ExitCode> {
    if args.producers == 0 && args.consumers == 0 {
        bail!("nothing to do: ask for at least one producer or consumer");
    }
    let Mode::Priority = args.mode;
    let uris = args.uris();
    let clock = Clock::start();
    let (control, signals) = Control::new();
    let progress = Progress::default();

    let mut sessions = Vec::new();
    let mut consumers = tokio::task::JoinSet::new();
    for number in 0..args.consumers {
        let session = connect(&args).await?;
        for uri in load::share(&uris, number, args.consumers) {
            let queue = uris.iter().position(|one| *one == uri).unwrap_or(0) as u32;
            let consumer = load::open_consumer(&session, &uri, &args).await?;
            let (clock, signals, progress) = (clock.clone(), signals.clone(), progress.clone());
            consumers.spawn(load::consume(consumer, queue, clock, signals, progress));
        }
        sessions.push(session);
    }
    let mut producers = tokio::task::JoinSet::new();
    for number in 0..args.producers {
        let session = connect(&args).await?;
        let plan = load::ProducerPlan {
            number,
            size: args.size as usize,
            in_flight: args.in_flight as usize,
            rate: args.rate.map(|rate| rate / f64::from(args.producers)),
            burst: args.burst,
        };
        let queues = load::open_producers(&session, &uris, number, &args).await?;
        let (clock, signals, progress) = (clock.clone(), signals.clone(), progress.clone());
        producers.spawn(load::produce(plan, queues, clock, signals, progress));
        sessions.push(session);
    }

    let cpu = measure(&args, &clock, &control, &progress).await?;
    let mut report = Report::new(&args);
    while let Some(result) = producers.join_next().await {
        report.add_producer(result.context("a producer failed")?);
    }
    if args.consumers > 0 {
        drain(&args, &progress).await;
    }
    control.stop_consuming();
    while let Some(result) = consumers.join_next().await {
        report.add_consumer(result.context("a consumer failed")?);
    }
    for session in sessions {
        if let Err(error) = session.disconnect().await {
            eprintln!("{error}");
        }
    }
    let outcome = report.finish(cpu);
    outcome.print(args.json)?;
    Ok(if outcome.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn connect(args: &BenchArgs) -> Result<Session> {
    args.broker.connect("bench").await
}

/// Lets the load run: warm-up, measurement, stop. Gives the brokers' CPU seconds meanwhile.
async fn measure(
    args: &BenchArgs,
    clock: &Clock,
    control: &Control,
    progress: &Progress,
) -> Result<Option<f64>> {
    let cpu = BrokerCpu::new(&args.broker_pids)?;
    let stop = stop_requested();
    let phases = async {
        control.begin();
        watch(progress, Duration::from_secs_f64(args.warmup), None).await;
        let before = cpu.seconds()?;
        clock.measure_from_now();
        let whole = Duration::from_secs_f64(args.duration);
        watch(progress, whole, (!args.json).then_some(whole)).await;
        clock.measure_until_now();
        anyhow::Ok(cpu.seconds()?.zip(before).map(|(after, before)| after - before))
    };
    let result = tokio::select! {
        result = phases => result,
        () = stop => {
            clock.measure_until_now();
            Ok(None)
        }
    };
    control.stop_producing();
    result
}

/// Waits, with a bar on a terminal.
async fn watch(progress: &Progress, time: Duration, shown: Option<Duration>) {
    let bar = crate::progress::messages(None, shown.is_some());
    let end = tokio::time::Instant::now() + time;
    let mut tick = tokio::time::interval(Duration::from_millis(200));
    let sleep = tokio::time::sleep_until(end);
    tokio::pin!(sleep);
    loop {
        tokio::select! {
            () = &mut sleep => break,
            _ = tick.tick() => bar.set_position(progress.acked()),
        }
    }
    bar.finish_and_clear();
}

/// Waits until everything acknowledged has been consumed, or nothing comes any more.
async fn drain(args: &BenchArgs, progress: &Progress) {
    let patience = Duration::from_secs_f64(args.drain);
    let mut last = (progress.consumed(), tokio::time::Instant::now());
    while progress.consumed() < progress.acked() && last.1.elapsed() < patience {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let consumed = progress.consumed();
        if consumed != last.0 {
            last = (consumed, tokio::time::Instant::now());
        }
    }
}

fn parse_seconds(text: &str) -> Result<f64, String> {
    let seconds = text.strip_suffix('s').unwrap_or(text).parse::<f64>();
    match seconds {
        Ok(seconds) if (0.0..=MOST_SECONDS).contains(&seconds) => Ok(seconds),
        _ => Err(format!("a number of seconds from 0 to {MOST_SECONDS}")),
    }
}

fn parse_rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate.is_finite() && rate >= 0.001 => Ok(rate),
        _ => Err("a rate is a number of messages per second above 0".to_owned()),
    }
}

const MOST_SECONDS: f64 = 30.0 * 86_400.0;
