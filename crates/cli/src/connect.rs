//! The options that say which broker to talk to, shared by `produce`, `consume` and `bench`.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Args;
use flintmq_client::{BrokerAddress, Session, SessionEvent, SessionOptions, TlsOptions};

/// Which broker, and how to trust it.
#[derive(Args, Clone, Debug)]
pub(crate) struct BrokerArgs {
    /// A broker's address, tcp://host:port or tls://host:port (repeatable: tried in this order)
    #[arg(
        long = "broker",
        visible_alias = "brokers",
        env = "FLINTMQ_BROKER",
        value_delimiter = ',',
        default_value = "tcp://127.0.0.1:30114",
        value_name = "URL"
    )]
    brokers: Vec<BrokerAddress>,
    /// For tls://: PEM file with the certificate of the authority to trust
    #[arg(long, env = "FLINTMQ_CA", value_name = "FILE")]
    ca: Option<PathBuf>,
    /// For tls://: PEM file with this client's certificate
    #[arg(long, requires = "key", value_name = "FILE")]
    cert: Option<PathBuf>,
    /// For tls://: PEM file with the key of --cert
    #[arg(long, requires = "cert", value_name = "FILE")]
    key: Option<PathBuf>,
    /// For tls://: the name in the broker's certificate, when it is not the address' host
    #[arg(long, value_name = "NAME")]
    server_name: Option<String>,
    /// How long to try to connect and to open queues
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration, value_name = "TIME")]
    connect_timeout: Duration,
}

impl BrokerArgs {
    /// Connects, and tells on standard error when the connection is lost and found again.
    pub(crate) async fn connect(&self, what: &str) -> Result<Session> {
        let options = SessionOptions {
            process_name: format!("flintmq {what}"),
            connect_timeout: self.connect_timeout,
            open_timeout: self.connect_timeout,
            close_timeout: Duration::from_secs(10),
            disconnect_timeout: Duration::from_secs(5),
            tls: TlsOptions {
                ca_file: self.ca.clone(),
                client_certificate: self.cert.clone().zip(self.key.clone()),
                server_name: self.server_name.clone(),
            },
            ..SessionOptions::new(self.brokers.clone())
        };
        let session = Session::connect(options).await.context("cannot connect")?;
        let mut events = session.events();
        tokio::spawn(async move {
            while let Some(event) = events.next().await {
                match event {
                    SessionEvent::ConnectionLost { reason } => {
                        eprintln!("connection lost, looking for a broker: {reason}");
                    }
                    SessionEvent::StateRestored { retransmitted } => {
                        eprintln!("connected again, messages sent again={retransmitted}");
                    }
                    SessionEvent::QueueLost { uri, reason } => {
                        eprintln!("the queue was not opened again uri={uri} reason={reason:?}");
                    }
                    _ => {}
                }
            }
        });
        Ok(session)
    }
}

/// `name=value`; a value that is a whole number becomes one, so that it can be compared in filters.
pub(crate) fn parse_property(text: &str) -> Result<(String, PropertyArg), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE, e.g. region=eu")?;
    if name.is_empty() {
        return Err("write NAME=VALUE, e.g. region=eu".to_owned());
    }
    let value = match value {
        "true" => PropertyArg::Bool(true),
        "false" => PropertyArg::Bool(false),
        _ => {
            value.parse().map_or_else(|_| PropertyArg::Text(value.to_owned()), PropertyArg::Number)
        }
    };
    Ok((name.to_owned(), value))
}

/// A property's value as given on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PropertyArg {
    Bool(bool),
    Number(i64),
    Text(String),
}

impl From<PropertyArg> for flintmq_client::PropertyValue {
    fn from(value: PropertyArg) -> Self {
        match value {
            PropertyArg::Bool(value) => Self::Bool(value),
            PropertyArg::Number(value) => Self::Int64(value),
            PropertyArg::Text(value) => Self::from(value),
        }
    }
}

/// How long a program that was asked to stop goes on with what it has under way. The broker may be
/// away.
pub(crate) const LEAVING: Duration = Duration::from_secs(2);

/// Takes leave of the broker: for as long as that takes, or no longer than [`LEAVING`] when the
/// program was asked to stop.
pub(crate) async fn leave(interrupted: bool, goodbye: impl Future<Output = ()>) {
    if !interrupted {
        return goodbye.await;
    }
    if tokio::time::timeout(LEAVING, goodbye).await.is_err() {
        eprintln!("the broker does not answer: left without a goodbye");
    }
}

/// Resolves when the user (or the system) asks the program to stop. From the call on, not only from
/// the first poll, a signal does not end the program by itself any more.
pub(crate) fn stop_requested() -> impl Future<Output = ()> {
    use tokio::signal::unix::{SignalKind, signal};
    let signals = [SignalKind::interrupt(), SignalKind::terminate()].map(signal);
    async move {
        let [interrupt, terminate] = signals.map(|signal| async move {
            match signal {
                Ok(mut signal) => {
                    signal.recv().await;
                }
                // What cannot be heard ends the program as it always did.
                Err(_) => std::future::pending().await,
            }
        });
        tokio::select! {
            () = interrupt => {}
            () = terminate => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn property_values_take_the_narrowest_kind() {
        let value = |text| parse_property(text).unwrap().1;
        assert_eq!(value("a=-5"), PropertyArg::Number(-5));
        assert_eq!(value("a=true"), PropertyArg::Bool(true));
        assert_eq!(value("a=5x"), PropertyArg::Text("5x".to_owned()));
        assert_eq!(value("a=x=y"), PropertyArg::Text("x=y".to_owned()));
        assert!(parse_property("a").is_err());
        assert!(parse_property("=a").is_err());
    }
}
