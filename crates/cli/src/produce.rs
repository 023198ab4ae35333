//! `flintmq produce`: publish lines, files or generated messages, and wait until they are stored.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use clap::Args;
use flintmq_client::{
    AckFuture, Compression, OutgoingMessage, Producer, ProducerOptions, Properties,
};
use serde_json::json;
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::time::Instant;

use crate::connect::{BrokerArgs, LEAVING, PropertyArg, leave, parse_property, stop_requested};
use crate::{progress, show};

/// Publish messages and wait until they are stored
///
/// The messages come from --message, from the lines of --file, or are generated. The exit code is 0
/// when the broker has acknowledged every one of them.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ProduceArgs {
    /// The queue: bmq://domain/queue
    uri: String,
    #[command(flatten)]
    broker: BrokerArgs,
    /// Publish this text
    #[arg(long, short, conflicts_with_all = ["file", "size"], value_name = "TEXT")]
    message: Option<String>,
    /// Publish each line of this file that is not empty, `-` for standard input
    #[arg(long, short, conflicts_with = "size", value_name = "FILE")]
    file: Option<PathBuf>,
    /// With --file: publish the whole file as one message
    #[arg(long, requires = "file")]
    whole: bool,
    /// How many messages: generated ones or copies of --message (default 1), or at most so many
    /// lines
    #[arg(long, short = 'n', value_name = "N")]
    count: Option<u64>,
    /// Messages per second (default: as fast as they are acknowledged)
    #[arg(long, value_parser = parse_rate, value_name = "R")]
    rate: Option<f64>,
    /// Bytes per generated message
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=64 << 20), value_name = "B")]
    size: u32,
    /// Set a property on every message (repeatable); whole numbers and true/false get such types
    #[arg(long = "property", short, value_parser = parse_property, value_name = "NAME=VALUE")]
    properties: Vec<(String, PropertyArg)>,
    /// Compress payloads of 1,024 bytes and more
    #[arg(long)]
    compress: bool,
    /// How many messages may wait for their acknowledgement
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..), value_name = "N")]
    in_flight: u32,
    /// Print the outcome as JSON
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "Examples:
  flintmq produce bmq://demo/greetings --message hello
  flintmq produce bmq://demo/lines --file access.log --property source=web-1
  flintmq produce bmq://demo/load --count 100000 --size 1024 --rate 5000";

/// Runs the command.
pub(crate) async fn run(args: ProduceArgs) -> Result<ExitCode> {
    let mut properties = Properties::new();
    for (name, value) in &args.properties {
        properties.insert(name.clone(), value.clone())?;
    }
    let source = Source::open(&args).await?;
    let session = args.broker.connect("produce").await?;
    let options = ProducerOptions {
        max_in_flight_messages: args.in_flight as usize,
        compression: if args.compress { Compression::Zlib } else { Compression::None },
        ..ProducerOptions::default()
    };
    let producer = session.producer(&args.uri, options).await.context("cannot open the queue")?;
    let outcome = publish(&args, &producer, source, properties).await?;
    leave(outcome.interrupted, async {
        if let Err(error) = session.disconnect().await {
            eprintln!("{error}");
        }
    })
    .await;
    outcome.report(args.json)?;
    Ok(if outcome.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn publish(
    args: &ProduceArgs,
    producer: &Producer,
    mut source: Source,
    properties: Properties,
) -> Result<Outcome> {
    let bar = progress::messages(source.total(), !args.json);
    let mut outcome = Outcome::default();
    let mut waiting: VecDeque<AckFuture> = VecDeque::new();
    let started = Instant::now();
    let mut stop = std::pin::pin!(stop_requested());
    let mut sent = 0_u64;
    // Nothing in here waits for a broker that may be away without hearing the request to stop.
    let publishing = async {
        loop {
            if let Some(rate) = args.rate {
                let due = started + Duration::from_secs_f64(sent as f64 / rate);
                tokio::time::sleep_until(due).await;
            }
            let Some(payload) = source.next().await? else { break };
            let message = OutgoingMessage::new(payload).with_properties(properties.clone());
            while waiting.len() >= args.in_flight as usize {
                outcome.settle(&mut waiting, &bar).await;
            }
            match producer.enqueue(message).await {
                Ok(ack) => waiting.push_back(ack),
                Err(error) => outcome.failed(&error),
            }
            sent += 1;
        }
        while !waiting.is_empty() {
            outcome.settle(&mut waiting, &bar).await;
        }
        anyhow::Ok(())
    };
    let interrupted = tokio::select! {
        published = publishing => {
            published?;
            false
        }
        () = &mut stop => true,
    };
    if interrupted {
        outcome.interrupted = true;
        let acknowledged = async {
            while !waiting.is_empty() {
                outcome.settle(&mut waiting, &bar).await;
            }
        };
        // The broker may be away; who asks again does not want to wait at all.
        tokio::select! {
            _late = tokio::time::timeout(LEAVING, acknowledged) => {}
            () = stop_requested() => {}
        }
        if !waiting.is_empty() {
            eprintln!("interrupted: not known to be stored, messages={}", waiting.len());
        }
    }
    outcome.failed += waiting.len() as u64;
    bar.finish_and_clear();
    outcome.elapsed = started.elapsed();
    Ok(outcome)
}

/// Where the payloads come from.
enum Source {
    Copies { payload: Bytes, left: u64 },
    Generated { next: u64, count: u64, size: usize },
    Lines { reader: Box<dyn AsyncBufRead + Unpin>, left: u64 },
}

impl Source {
    async fn open(args: &ProduceArgs) -> Result<Self> {
        if let Some(text) = &args.message {
            let payload = Bytes::copy_from_slice(text.as_bytes());
            return Ok(Self::Copies { payload, left: args.count.unwrap_or(1) });
        }
        let Some(file) = &args.file else {
            let count = args.count.unwrap_or(1);
            return Ok(Self::Generated { next: 0, count, size: args.size as usize });
        };
        let mut reader: Box<dyn AsyncBufRead + Unpin> = if file == Path::new("-") {
            Box::new(BufReader::new(tokio::io::stdin()))
        } else {
            let cannot_read = || format!("cannot read file={}", file.display());
            Box::new(BufReader::new(tokio::fs::File::open(file).await.with_context(cannot_read)?))
        };
        if args.whole {
            let mut content = Vec::new();
            reader.read_to_end(&mut content).await.context("cannot read the input")?;
            return Ok(Self::Copies { payload: content.into(), left: args.count.unwrap_or(1) });
        }
        Ok(Self::Lines { reader, left: args.count.unwrap_or(u64::MAX) })
    }

    fn total(&self) -> Option<u64> {
        match self {
            Self::Copies { left, .. } => Some(*left),
            Self::Generated { count, .. } => Some(*count),
            Self::Lines { left, .. } => (*left != u64::MAX).then_some(*left),
        }
    }

    async fn next(&mut self) -> Result<Option<Bytes>> {
        match self {
            Self::Copies { payload, left } => Ok((*left > 0).then(|| {
                *left -= 1;
                payload.clone()
            })),
            Self::Generated { next, count, size } => Ok((*next < *count).then(|| {
                *next += 1;
                generated(*next, *size)
            })),
            Self::Lines { reader, left } => {
                while *left > 0 {
                    let mut line = Vec::new();
                    let read = reader.read_until(b'\n', &mut line).await;
                    if read.context("cannot read the input")? == 0 {
                        return Ok(None);
                    }
                    if line.last() == Some(&b'\n') {
                        line.pop();
                    }
                    // A message has at least one byte.
                    if !line.is_empty() {
                        *left -= 1;
                        return Ok(Some(line.into()));
                    }
                }
                Ok(None)
            }
        }
    }
}

/// `message 17 ....`, cut or filled to size.
fn generated(number: u64, size: usize) -> Bytes {
    let mut payload = format!("message {number} ").into_bytes();
    payload.resize(size, b'.');
    payload.into()
}

#[derive(Debug, Default)]
struct Outcome {
    acked: u64,
    failed: u64,
    elapsed: Duration,
    /// Asked to stop before everything was acknowledged.
    interrupted: bool,
}

impl Outcome {
    /// Waits for the acknowledgement of the first; until it is there, the first stays where it is.
    async fn settle(&mut self, waiting: &mut VecDeque<AckFuture>, bar: &indicatif::ProgressBar) {
        let Some(first) = waiting.front_mut() else { return };
        let acknowledged = first.await;
        waiting.pop_front();
        match acknowledged {
            Ok(_) => {
                self.acked += 1;
                bar.inc(1);
            }
            Err(error) => self.failed(&error),
        }
    }

    fn failed(&mut self, error: &flintmq_client::PublishError) {
        self.failed += 1;
        if self.failed <= MOST_ERRORS_SHOWN {
            eprintln!("{error}");
        } else if self.failed == MOST_ERRORS_SHOWN + 1 {
            eprintln!("further failures are counted only");
        }
    }

    fn report(&self, json: bool) -> Result<()> {
        let seconds = self.elapsed.as_secs_f64();
        let per_second = if seconds > 0.0 { self.acked as f64 / seconds } else { 0.0 };
        if json {
            return show::print(
                &json!({
                    "acked": self.acked,
                    "failed": self.failed,
                    "seconds": seconds,
                    "acked_per_second": per_second,
                })
                .to_string(),
            );
        }
        eprintln!(
            "acknowledged={} failed={} seconds={seconds:.3} per_second={per_second:.0}",
            self.acked, self.failed
        );
        Ok(())
    }
}

const MOST_ERRORS_SHOWN: u64 = 10;

fn parse_rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate.is_finite() && rate > 0.0 => Ok(rate),
        _ => Err("a rate is a number of messages per second above 0".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_become_messages_and_empty_ones_are_left_out() {
        let reader: Box<dyn AsyncBufRead + Unpin> = Box::new(&b"a\n\nb c\nlast"[..]);
        let mut source = Source::Lines { reader, left: u64::MAX };
        let mut lines = Vec::new();
        while let Some(line) = source.next().await.unwrap() {
            lines.push(line);
        }
        assert_eq!(lines, ["a", "b c", "last"]);
    }

    #[test]
    fn generated_messages_have_their_size() {
        assert_eq!(generated(7, 4), "mess");
        assert_eq!(generated(7, 12), "message 7 ..");
        assert!(
            parse_rate("0").is_err() && parse_rate("nan").is_err() && parse_rate("0.5").is_ok()
        );
    }
}
