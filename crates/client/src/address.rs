//! Where a broker listens: `tcp://host:port` or `tls://host:port`.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// The port when an address names none.
pub const DEFAULT_PORT: u16 = 30114;

/// How the bytes travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// Plain TCP: `tcp://`.
    Tcp,
    /// TLS over TCP: `tls://`.
    Tls,
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Tls => "tls",
        })
    }
}

/// One address of a broker. Parse it from text:
///
/// ```
/// use flintmq_client::{BrokerAddress, Scheme};
///
/// let address: BrokerAddress = "tls://broker-1.example:30115".parse()?;
/// assert_eq!(address.scheme(), Scheme::Tls);
/// assert_eq!(address.host(), "broker-1.example");
/// assert_eq!("tcp://[::1]".parse::<BrokerAddress>()?.to_string(), "tcp://[::1]:30114");
/// # Ok::<(), flintmq_client::AddressError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BrokerAddress {
    scheme: Scheme,
    host: String,
    port: u16,
}

impl BrokerAddress {
    /// Plain TCP to `host` (a name, an IPv4 or an IPv6 address without brackets).
    #[must_use]
    pub fn tcp(host: impl Into<String>, port: u16) -> Self {
        Self { scheme: Scheme::Tcp, host: host.into(), port }
    }

    /// TLS to `host` (a name, an IPv4 or an IPv6 address without brackets).
    #[must_use]
    pub fn tls(host: impl Into<String>, port: u16) -> Self {
        Self { scheme: Scheme::Tls, host: host.into(), port }
    }

    /// How the bytes travel.
    #[must_use]
    pub const fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The host name or IP address, an IPv6 address without its brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }
}

impl fmt::Display for BrokerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "{}://[{}]:{}", self.scheme, self.host, self.port)
        } else {
            write!(f, "{}://{}:{}", self.scheme, self.host, self.port)
        }
    }
}

/// A text that is not the address of a broker.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AddressError {
    /// No `scheme://` at the start.
    #[error("a broker address starts with tcp:// or tls://, e.g. tcp://127.0.0.1:30114 text={0:?}")]
    NoScheme(String),
    /// `quic://`, `http://` and so on.
    #[error("this client connects over tcp:// and tls:// only scheme={0:?}")]
    UnknownScheme(String),
    /// Nothing between `://` and the port, or characters that no host has.
    #[error("name the host between :// and the port, e.g. tcp://127.0.0.1:30114 text={0:?}")]
    BadHost(String),
    /// The port is no number from 1 to 65535.
    #[error("a port is a number from 1 to 65535 text={0:?}")]
    BadPort(String),
}

impl FromStr for BrokerAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(AddressError::NoScheme(text.to_owned()));
        };
        let scheme = match scheme {
            "tcp" => Scheme::Tcp,
            "tls" => Scheme::Tls,
            other => return Err(AddressError::UnknownScheme(other.to_owned())),
        };
        let bad_host = || AddressError::BadHost(text.to_owned());
        let (host, port) = if let Some(bracketed) = rest.strip_prefix('[') {
            let (host, after) = bracketed.split_once(']').ok_or_else(bad_host)?;
            host.parse::<std::net::Ipv6Addr>().map_err(|_| bad_host())?;
            match after {
                "" => (host, None),
                _ => (host, Some(after.strip_prefix(':').ok_or_else(bad_host)?)),
            }
        } else {
            match rest.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (rest, None),
            }
        };
        let plausible = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '%');
        if host.is_empty() || !host.chars().all(plausible) {
            return Err(bad_host());
        }
        let port = match port {
            None => DEFAULT_PORT,
            Some(port) => match port.parse() {
                Ok(port) if port != 0 => port,
                _ => return Err(AddressError::BadPort(text.to_owned())),
            },
        };
        Ok(Self { scheme, host: host.to_owned(), port })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_address_reads_back_as_it_prints() {
        for (text, printed) in [
            ("tcp://127.0.0.1:30114", "tcp://127.0.0.1:30114"),
            ("tcp://localhost", "tcp://localhost:30114"),
            ("tls://a-b.example.com", "tls://a-b.example.com:30114"),
            ("tls://[2001:db8::1]:1", "tls://[2001:db8::1]:1"),
        ] {
            let address: BrokerAddress = text.parse().unwrap();
            assert_eq!(address.to_string(), printed);
            assert_eq!(printed.parse::<BrokerAddress>().unwrap(), address);
        }
    }

    #[test]
    fn each_mistake_has_its_own_error() {
        let error = |text: &str| text.parse::<BrokerAddress>().unwrap_err();
        assert!(matches!(error("localhost:30114"), AddressError::NoScheme(_)));
        assert!(matches!(error("quic://h:1"), AddressError::UnknownScheme(_)));
        assert!(matches!(error("tcp://"), AddressError::BadHost(_)));
        assert!(matches!(error("tcp://:1"), AddressError::BadHost(_)));
        assert!(matches!(error("tcp://a/b:1"), AddressError::BadHost(_)));
        assert!(matches!(error("tcp://[::1"), AddressError::BadHost(_)));
        assert!(matches!(error("tcp://[zz]:1"), AddressError::BadHost(_)));
        assert!(matches!(error("tcp://h:0"), AddressError::BadPort(_)));
        assert!(matches!(error("tcp://h:65536"), AddressError::BadPort(_)));
    }
}
