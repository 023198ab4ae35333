//! What an application may choose about a session, a producer and a consumer.

use std::path::PathBuf;
use std::time::Duration;

use flintmq_protocol::compression::Compression;

use crate::address::BrokerAddress;

/// How a [`Session`](crate::Session) reaches its broker and how long it waits.
///
/// Start from [`SessionOptions::new`] or [`Default`] and change what matters:
///
/// ```
/// use flintmq_client::SessionOptions;
/// use std::time::Duration;
///
/// let options = SessionOptions {
///     connect_timeout: Duration::from_secs(5),
///     process_name: "billing".to_owned(),
///     ..SessionOptions::new(["tcp://10.0.0.1:30114".parse()?, "tcp://10.0.0.2:30114".parse()?])
/// };
/// # assert_eq!(options.brokers.len(), 2);
/// # Ok::<(), flintmq_client::AddressError>(())
/// ```
#[derive(Clone, Debug)]
pub struct SessionOptions {
    /// Brokers to try, in this order, each time a connection is needed. Any node of a cluster will
    /// do.
    pub brokers: Vec<BrokerAddress>,
    /// What the broker's logs and consoles call this client. Default: the name of the executable.
    pub process_name: String,
    /// How long [`Session::connect`](crate::Session::connect) goes on trying. Default 60 s.
    pub connect_timeout: Duration,
    /// How long one broker may take to accept the connection and to negotiate. Default 5 s.
    pub attempt_timeout: Duration,
    /// How long opening a queue may take, a reconnect in between included. Default 5 min.
    pub open_timeout: Duration,
    /// How long changing a consumer's options may take. Default 5 min.
    pub configure_timeout: Duration,
    /// How long closing a producer or consumer may take. Default 5 min.
    pub close_timeout: Duration,
    /// How long [`Session::disconnect`](crate::Session::disconnect) waits for the broker. Default
    /// 30 s.
    pub disconnect_timeout: Duration,
    /// Pause after the first failed round through `brokers`; doubles up to `reconnect_max_delay`,
    /// with up to half of it taken off at random so that clients do not come back in step.
    /// Default 100 ms.
    pub reconnect_delay: Duration,
    /// The longest pause between two rounds through `brokers`. Default 5 s.
    pub reconnect_max_delay: Duration,
    /// Whether to notice a broker that is silent although the connection stands.
    pub heartbeat: Heartbeat,
    /// Trust, identity and server name for `tls://` addresses.
    pub tls: TlsOptions,
    /// The longest event accepted from the broker, in bytes. Default 512 MiB, the largest that any
    /// broker builds; memory is taken as bytes arrive, never by what a header claims.
    pub max_event_bytes: usize,
}

impl SessionOptions {
    /// Options for these brokers, everything else at its default.
    #[must_use]
    pub fn new(brokers: impl IntoIterator<Item = BrokerAddress>) -> Self {
        Self { brokers: brokers.into_iter().collect(), ..Self::default() }
    }
}

impl Default for SessionOptions {
    /// A broker on this machine: `tcp://127.0.0.1:30114`.
    fn default() -> Self {
        let minutes = |n: u64| Duration::from_secs(n * 60);
        Self {
            brokers: vec![BrokerAddress::tcp("127.0.0.1", crate::address::DEFAULT_PORT)],
            process_name: executable_name(),
            connect_timeout: minutes(1),
            attempt_timeout: Duration::from_secs(5),
            open_timeout: minutes(5),
            configure_timeout: minutes(5),
            close_timeout: minutes(5),
            disconnect_timeout: Duration::from_secs(30),
            reconnect_delay: Duration::from_millis(100),
            reconnect_max_delay: Duration::from_secs(5),
            heartbeat: Heartbeat::FromBroker,
            tls: TlsOptions::default(),
            max_event_bytes: 512 << 20,
        }
    }
}

/// When a silent connection is given up. Anything that arrives counts as life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heartbeat {
    /// As the broker's negotiation answer asks (usually 3 s and 10 misses).
    FromBroker,
    /// Ask for a sign of life after each silent `interval`; give up after `max_missed` in a row.
    Every {
        /// Length of one silent interval.
        interval: Duration,
        /// How many may pass before the connection is given up; at least 1 is used.
        max_missed: u32,
    },
    /// Never give up because of silence.
    Off,
}

/// TLS for `tls://` addresses.
#[derive(Clone, Debug, Default)]
pub struct TlsOptions {
    /// PEM file with the certificates of the authorities to trust. There is no built-in list:
    /// connecting over `tls://` without this file fails.
    pub ca_file: Option<PathBuf>,
    /// PEM files with this client's certificate chain and its private key, for brokers that ask
    /// for one.
    pub client_certificate: Option<(PathBuf, PathBuf)>,
    /// The name that the broker's certificate must carry, when it differs from the address' host.
    pub server_name: Option<String>,
}

/// How a [`Producer`](crate::Producer) paces and packs.
#[derive(Clone, Debug)]
pub struct ProducerOptions {
    /// How many messages may wait for their acknowledgement; publishing waits beyond it.
    /// Default 10,000; at least 1 is used.
    pub max_in_flight_messages: usize,
    /// How many bytes of application data may wait for their acknowledgement. Default 64 MiB. A
    /// larger message still goes out when nothing else is waiting.
    pub max_in_flight_bytes: usize,
    /// Compress payloads of 1,024 bytes and more, where that makes them smaller. Default: no.
    pub compression: Compression,
}

impl Default for ProducerOptions {
    fn default() -> Self {
        Self {
            max_in_flight_messages: 10_000,
            max_in_flight_bytes: 64 << 20,
            compression: Compression::None,
        }
    }
}

/// What a [`Consumer`](crate::Consumer) wants to get, and how much of it at a time.
///
/// The broker stops delivering while as many messages, or as many bytes, as named here are
/// unconfirmed. Of all consumers of a queue only those with the highest priority get messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerOptions {
    /// Most messages delivered and not yet confirmed. Default 1,000. With 0 nothing is delivered.
    pub max_unconfirmed_messages: u32,
    /// Most bytes delivered and not yet confirmed. Default 32 MiB. With 0 nothing is delivered.
    pub max_unconfirmed_bytes: u64,
    /// Higher gets messages first. Default 0; any value but `i32::MIN`.
    pub priority: i32,
    /// Which messages are wanted, by expressions over their properties. Empty (the default): all,
    /// with the three values above.
    pub subscriptions: Vec<Subscription>,
}

impl Default for ConsumerOptions {
    fn default() -> Self {
        Self {
            max_unconfirmed_messages: 1000,
            max_unconfirmed_bytes: 32 << 20,
            priority: 0,
            subscriptions: Vec::new(),
        }
    }
}

/// One selection of messages with its own limits. A message goes to the first subscription, by
/// priority, whose expression is true for it.
///
/// BlazingMQ's brokers compile the expression: properties, integers, double-quoted strings, `==`,
/// `<`, `&&`, `!`, `exists(name)` and so on. FlintMQ's refuse every expression but the empty one
/// for now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// For instance `region == "eu" && amount > 100`; empty means every message.
    pub expression: String,
    /// As in [`ConsumerOptions::max_unconfirmed_messages`], for this subscription alone.
    pub max_unconfirmed_messages: u32,
    /// As in [`ConsumerOptions::max_unconfirmed_bytes`], for this subscription alone.
    pub max_unconfirmed_bytes: u64,
    /// As in [`ConsumerOptions::priority`].
    pub priority: i32,
}

impl Subscription {
    /// A subscription to what `expression` selects, with the default limits and priority.
    #[must_use]
    pub fn new(expression: impl Into<String>) -> Self {
        let defaults = ConsumerOptions::default();
        Self {
            expression: expression.into(),
            max_unconfirmed_messages: defaults.max_unconfirmed_messages,
            max_unconfirmed_bytes: defaults.max_unconfirmed_bytes,
            priority: defaults.priority,
        }
    }
}

impl ConsumerOptions {
    /// The subscriptions to send: those given, or the one that wants everything.
    pub(crate) fn effective_subscriptions(&self) -> Vec<Subscription> {
        if self.subscriptions.is_empty() {
            vec![Subscription {
                expression: String::new(),
                max_unconfirmed_messages: self.max_unconfirmed_messages,
                max_unconfirmed_bytes: self.max_unconfirmed_bytes,
                priority: self.priority,
            }]
        } else {
            self.subscriptions.clone()
        }
    }
}

fn executable_name() -> String {
    std::env::current_exe()
        .ok()
        .and_then(|path| path.file_name().map(|name| name.to_string_lossy().into_owned()))
        .unwrap_or_else(|| "flintmq-client".to_owned())
}
