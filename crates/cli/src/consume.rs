//! `flintmq consume`: print the messages of a queue, and confirm each after it is printed.

use std::io::{self, BufWriter, Write as _};
use std::pin::Pin;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Args;
use flintmq_client::{Consumer, ConsumerOptions, Message, PropertyValue, Subscription};
use serde_json::{Map, Value, json};

use crate::connect::{BrokerArgs, leave, stop_requested};

/// Print the messages of a queue and confirm them
///
/// Each message is confirmed after it is written to standard output, one payload per line. Without
/// --follow the command ends when no message has come for a while.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ConsumeArgs {
    /// The queue: bmq://domain/queue, with ?id=app for an app of a fanout queue
    uri: String,
    #[command(flatten)]
    broker: BrokerArgs,
    /// Go on until interrupted (or until --count)
    #[arg(long, short)]
    follow: bool,
    /// End after so many messages
    #[arg(long, short = 'n', value_name = "N")]
    count: Option<u64>,
    /// Only messages for which this expression over their properties is true. FlintMQ refuses
    /// expressions for now; BlazingMQ's brokers take them, e.g. 'region == "eu"'
    #[arg(long, default_value = "", hide_default_value = true, value_name = "EXPR")]
    filter: String,
    /// Print only; the messages stay in the queue and are delivered again
    #[arg(long)]
    no_confirm: bool,
    /// Print no payloads, only count
    #[arg(long)]
    quiet: bool,
    /// Without --follow: how long to wait for the next message
    #[arg(long, default_value = "2s", value_parser = humantime::parse_duration, value_name = "TIME")]
    idle: Duration,
    /// Consumers with a higher priority get messages first
    #[arg(long, default_value_t = 0, allow_negative_numbers = true, value_name = "P")]
    priority: i32,
    /// How many messages the broker may send ahead of their confirmation
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..), value_name = "N")]
    max_unconfirmed: u32,
    /// Print each message as a line of JSON with its identity, properties and payload
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "Examples:
  flintmq consume bmq://demo/greetings
  flintmq consume --follow --json bmq://demo/orders
  flintmq consume --no-confirm --count 5 bmq://demo/orders";

/// Runs the command.
pub(crate) async fn run(args: ConsumeArgs) -> Result<ExitCode> {
    let session = args.broker.connect("consume").await?;
    let most = args.count.and_then(|count| u32::try_from(count).ok()).unwrap_or(u32::MAX).max(1);
    let options = ConsumerOptions {
        priority: args.priority,
        subscriptions: vec![Subscription {
            max_unconfirmed_messages: args.max_unconfirmed.min(most),
            priority: args.priority,
            ..Subscription::new(args.filter.clone())
        }],
        ..ConsumerOptions::default()
    };
    let mut stop = std::pin::pin!(stop_requested());
    let mut consumer = tokio::select! {
        opened = session.consumer(&args.uri, options) => opened.context("cannot open the queue")?,
        () = &mut stop => anyhow::bail!("interrupted before the queue was open"),
    };
    let mut printer = Printer::new(&args);
    let result = print_messages(&args, &mut consumer, &mut printer, stop).await;
    leave(matches!(result, Ok(End::Interrupted)), async {
        if let Err(error) = consumer.close().await {
            eprintln!("{error}");
        }
        if let Err(error) = session.disconnect().await {
            eprintln!("{error}");
        }
    })
    .await;
    result?;
    if args.quiet {
        printer.print_count()?;
    }
    eprintln!("messages={} confirmed={}", printer.printed, printer.confirmed);
    Ok(ExitCode::SUCCESS)
}

async fn print_messages(
    args: &ConsumeArgs,
    consumer: &mut Consumer,
    printer: &mut Printer,
    mut stop: Pin<&mut impl Future<Output = ()>>,
) -> Result<End> {
    let mut left = args.count.unwrap_or(u64::MAX);
    while left > 0 {
        let idle = async {
            if args.follow {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(args.idle).await;
        };
        let message = tokio::select! {
            message = consumer.recv() => message?,
            () = idle => break,
            () = &mut stop => return Ok(End::Interrupted),
        };
        let Some(message) = message else { break };
        // Everything that is here is printed and flushed together, then confirmed together.
        let mut batch = vec![message];
        while (batch.len() as u64) < left.min(MOST_PER_FLUSH) {
            match consumer.try_recv() {
                Some(message) => batch.push(message),
                None => break,
            }
        }
        left -= batch.len() as u64;
        if !printer.print(&batch)? {
            break;
        }
    }
    Ok(End::Done)
}

/// Why no more messages are printed.
enum End {
    /// There are as many as were asked for, or no more, or the reader of the output is gone.
    Done,
    /// The program was asked to stop.
    Interrupted,
}

const MOST_PER_FLUSH: u64 = 1000;

struct Printer {
    json: bool,
    quiet: bool,
    confirm: bool,
    printed: u64,
    confirmed: u64,
}

impl Printer {
    fn new(args: &ConsumeArgs) -> Self {
        Self {
            json: args.json,
            quiet: args.quiet,
            confirm: !args.no_confirm,
            printed: 0,
            confirmed: 0,
        }
    }

    /// Gives `false` when nobody reads the output any more; the batch is not confirmed then.
    fn print(&mut self, batch: &[Message]) -> Result<bool> {
        if !self.quiet {
            match self.write(batch) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(false),
                Err(error) => return Err(error).context("cannot write to standard output"),
            }
        }
        self.printed += batch.len() as u64;
        if self.confirm {
            for message in batch {
                match message.confirm() {
                    Ok(()) => self.confirmed += 1,
                    Err(error) => eprintln!("{error}"),
                }
            }
        }
        Ok(true)
    }

    fn print_count(&self) -> Result<()> {
        let count = self.printed;
        crate::show::print(&if self.json {
            json!({ "messages": count }).to_string()
        } else {
            count.to_string()
        })
    }

    fn write(&self, batch: &[Message]) -> io::Result<()> {
        let mut out = BufWriter::new(io::stdout().lock());
        for message in batch {
            if self.json {
                serde_json::to_writer(&mut out, &as_json(message))?;
            } else {
                match message.payload() {
                    Ok(payload) => out.write_all(&payload)?,
                    Err(error) => eprintln!("{error}"),
                }
            }
            out.write_all(b"\n")?;
        }
        out.flush()
    }
}

/// Text payloads as text, others as hexadecimal digits.
fn as_json(message: &Message) -> Value {
    let mut fields = Map::new();
    fields.insert("guid".to_owned(), message.guid().to_string().into());
    fields.insert("redelivered".to_owned(), message.redelivered().into());
    match message.properties() {
        Ok(properties) => {
            let values = properties
                .iter()
                .map(|(name, value)| (name.to_owned(), property_as_json(value)))
                .collect();
            fields.insert("properties".to_owned(), Value::Object(values));
        }
        Err(error) => {
            fields.insert("error".to_owned(), error.to_string().into());
        }
    }
    match message.payload() {
        Ok(payload) => {
            fields.insert("bytes".to_owned(), payload.len().into());
            match std::str::from_utf8(&payload) {
                Ok(text) => fields.insert("payload".to_owned(), text.into()),
                Err(_) => fields.insert("payload_hex".to_owned(), hex(&payload).into()),
            };
        }
        Err(error) => {
            fields.insert("error".to_owned(), error.to_string().into());
        }
    }
    Value::Object(fields)
}

fn property_as_json(value: &PropertyValue) -> Value {
    match value {
        PropertyValue::Bool(value) => (*value).into(),
        PropertyValue::Char(value) => (*value).into(),
        PropertyValue::Short(value) => (*value).into(),
        PropertyValue::Int32(value) => (*value).into(),
        PropertyValue::Int64(value) => (*value).into(),
        PropertyValue::String(value) => value.as_str().into(),
        PropertyValue::Binary(value) => hex(value).into(),
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
