//! Addresses that clients connect to, written as URLs: `tcp://0.0.0.0:30114`.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use thiserror::Error;

/// The port of BlazingMQ brokers, taken where a listener's URL names none.
pub const DEFAULT_PORT: u16 = 30114;

/// How clients speak to a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ListenScheme {
    /// Plain TCP.
    Tcp,
    /// TLS over TCP; needs `clients.certificate` and `clients.key`.
    Tls,
    /// QUIC over UDP. Parsed, not served yet.
    Quic,
}

impl ListenScheme {
    /// The scheme as it is written in a URL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Quic => "quic",
        }
    }
}

impl fmt::Display for ListenScheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One address on which the node waits for clients: scheme, host and port.
///
/// The host is a name or an IP address (`0.0.0.0`, `[::]`). Port 0 lets the system choose a free
/// port, which is meant for tests.
///
/// ```
/// use flintmq_broker::config::{ListenScheme, ListenUrl};
///
/// let url: ListenUrl = "tls://0.0.0.0:30115".parse()?;
/// assert_eq!(url.scheme, ListenScheme::Tls);
/// assert_eq!(url.socket_text(), "0.0.0.0:30115");
/// # Ok::<(), flintmq_broker::config::ListenUrlError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ListenUrl {
    /// What is spoken there.
    pub scheme: ListenScheme,
    /// Name or address, an IPv6 address without its brackets.
    pub host: String,
    /// Port; 0 means a free one.
    pub port: u16,
}

impl ListenUrl {
    /// Host and port as the standard library and tokio resolve them, IPv6 addresses in brackets.
    pub fn socket_text(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// Whether both would need the same port of the same address. TCP and TLS share ports, QUIC has
    /// UDP's own; port 0 never collides.
    pub(super) fn collides_with(&self, other: &Self) -> bool {
        let udp = |url: &Self| url.scheme == ListenScheme::Quic;
        self.port == other.port
            && self.port != 0
            && self.host == other.host
            && udp(self) == udp(other)
    }
}

impl fmt::Display for ListenUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.socket_text())
    }
}

impl From<ListenUrl> for String {
    fn from(url: ListenUrl) -> Self {
        url.to_string()
    }
}

impl TryFrom<String> for ListenUrl {
    type Error = ListenUrlError;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

/// Why a text is no listener's URL.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ListenUrlError {
    /// The part before `://` is missing or unknown.
    #[error("a listener is tcp://HOST:PORT, tls://HOST:PORT or quic://HOST:PORT url={0:?}")]
    Scheme(String),
    /// There is no host, or it has characters that no host name has.
    #[error("name a host or an address before the port; 0.0.0.0 is all of IPv4 url={0:?}")]
    Host(String),
    /// The part after the last colon is no port number.
    #[error("the port is a number from 0 to 65535 url={0:?}")]
    Port(String),
}

impl FromStr for ListenUrl {
    type Err = ListenUrlError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (scheme, rest) =
            text.split_once("://").ok_or_else(|| ListenUrlError::Scheme(text.to_owned()))?;
        let scheme = match scheme {
            "tcp" => ListenScheme::Tcp,
            "tls" => ListenScheme::Tls,
            "quic" => ListenScheme::Quic,
            _ => return Err(ListenUrlError::Scheme(text.to_owned())),
        };
        let (host, port) = split_port(rest).ok_or_else(|| ListenUrlError::Host(text.to_owned()))?;
        let port = match port {
            None => DEFAULT_PORT,
            Some(port) => port.parse().map_err(|_| ListenUrlError::Port(text.to_owned()))?,
        };
        Ok(Self { scheme, host: host.to_owned(), port })
    }
}

/// Splits `HOST[:PORT]` or `[IPV6][:PORT]`; `None` where the host is missing or malformed.
pub(super) fn split_port(text: &str) -> Option<(&str, Option<&str>)> {
    if let Some(rest) = text.strip_prefix('[') {
        let (host, after) = rest.split_once(']')?;
        host.parse::<std::net::Ipv6Addr>().ok()?;
        return match after {
            "" => Some((host, None)),
            _ => Some((host, Some(after.strip_prefix(':')?))),
        };
    }
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    };
    let valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    (!host.is_empty() && host.chars().all(valid)).then_some((host, port))
}
