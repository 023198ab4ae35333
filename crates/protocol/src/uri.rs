//! Queue URIs: `bmq://domain/queue`, with an optional tier and an optional app:
//! `bmq://domain.~tier/queue?id=app`.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// The longest queue name, in characters.
pub const MAX_QUEUE_NAME: usize = 64;

/// A valid queue URI.
///
/// Two URIs mean the same queue exactly if their [canonical](Self::canonical) forms are equal; the
/// app only selects which of the queue's streams a reader gets.
///
/// ```
/// use flintmq_protocol::uri::QueueUri;
/// let uri: QueueUri = "bmq://orders.~dev/new?id=billing".parse()?;
/// assert_eq!(uri.canonical(), "bmq://orders.~dev/new");
/// assert_eq!(uri.qualified_domain(), "orders.~dev");
/// assert_eq!((uri.domain(), uri.tier(), uri.queue()), ("orders", Some("dev"), "new"));
/// assert_eq!(uri.app_id(), Some("billing"));
/// # Ok::<(), flintmq_protocol::uri::UriError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct QueueUri {
    text: String,
    domain_end: usize,
    qualified_domain_end: usize,
    queue_end: usize,
}

impl QueueUri {
    /// Reads a URI.
    ///
    /// # Errors
    /// The text is not a queue URI; the error says where and why.
    pub fn parse(text: &str) -> Result<Self, UriError> {
        let fail = |offset, fault| UriError { offset, fault };
        let rest = text.strip_prefix(SCHEME).ok_or_else(|| fail(0, UriFault::Scheme))?;
        let domain_start = SCHEME.len();
        let slash = rest.find('/').map(|at| at + domain_start);
        let qualified_domain_end = slash.ok_or_else(|| fail(text.len(), UriFault::NoQueue))?;
        let qualified = &text[domain_start..qualified_domain_end];
        let tier_mark = qualified.find(TIER_MARK);
        let domain_end = tier_mark.map_or(qualified_domain_end, |at| domain_start + at);
        if domain_end == domain_start {
            return Err(fail(domain_start, UriFault::NoDomain));
        }
        check_part(text, domain_start, domain_end, "-._")?;
        if tier_mark.is_some() {
            check_part(text, domain_end + TIER_MARK.len(), qualified_domain_end, "-")?;
        }
        let queue_start = qualified_domain_end + 1;
        let question = text[queue_start..].find('?').map(|at| queue_start + at);
        let queue_end = question.unwrap_or(text.len());
        if queue_end == queue_start {
            return Err(fail(queue_start, UriFault::NoQueue));
        }
        check_part(text, queue_start, queue_end, "-_.")?;
        if queue_end - queue_start > MAX_QUEUE_NAME {
            return Err(fail(queue_start + MAX_QUEUE_NAME, UriFault::QueueTooLong));
        }
        if question.is_some() {
            if !text[queue_end..].starts_with(APP_MARK) {
                return Err(fail(queue_end, UriFault::Query));
            }
            check_part(text, queue_end + APP_MARK.len(), text.len(), "-_.")?;
        }
        Ok(Self { text: text.into(), domain_end, qualified_domain_end, queue_end })
    }

    /// The URI without the app: what identifies the queue.
    #[must_use]
    pub fn canonical(&self) -> &str {
        &self.text[..self.queue_end]
    }

    /// The whole text, with the app if there is one.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The domain without its tier.
    #[must_use]
    pub fn domain(&self) -> &str {
        &self.text[SCHEME.len()..self.domain_end]
    }

    /// The tier, if one is given.
    #[must_use]
    pub fn tier(&self) -> Option<&str> {
        self.text.get(self.domain_end + TIER_MARK.len()..self.qualified_domain_end)
    }

    /// The domain with its tier: the name under which its settings are found.
    #[must_use]
    pub fn qualified_domain(&self) -> &str {
        &self.text[SCHEME.len()..self.qualified_domain_end]
    }

    /// The queue's name in its domain.
    #[must_use]
    pub fn queue(&self) -> &str {
        &self.text[self.qualified_domain_end + 1..self.queue_end]
    }

    /// The app, if one is given.
    #[must_use]
    pub fn app_id(&self) -> Option<&str> {
        self.text.get(self.queue_end + APP_MARK.len()..)
    }

    /// The same queue without an app.
    #[must_use]
    pub fn to_canonical(&self) -> Self {
        Self { text: self.canonical().into(), ..*self }
    }
}

impl FromStr for QueueUri {
    type Err = UriError;

    fn from_str(text: &str) -> Result<Self, UriError> {
        Self::parse(text)
    }
}

impl fmt::Display for QueueUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for QueueUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

/// Why a text is not a queue URI.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "not a queue URI, expected bmq://domain/queue or bmq://domain/queue?id=app: {fault} offset={offset}"
)]
pub struct UriError {
    /// Where, in bytes from the start of the text.
    pub offset: usize,
    /// What is wrong.
    #[source]
    pub fault: UriFault,
}

/// What is wrong with a URI.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum UriFault {
    /// It does not begin with `bmq://` in lower case.
    #[error("it does not begin with bmq://")]
    Scheme,
    /// The domain is missing.
    #[error("the domain is missing")]
    NoDomain,
    /// The queue's name is missing.
    #[error("the queue name is missing")]
    NoQueue,
    /// Tier or app id is announced but empty.
    #[error("the tier or app id is empty")]
    Empty,
    /// A character that this part may not have.
    #[error("a character is not allowed here")]
    Character,
    /// The queue's name is longer than [`MAX_QUEUE_NAME`].
    #[error("the queue name has more than 64 characters")]
    QueueTooLong,
    /// The query is not `?id=`.
    #[error("the only query allowed is ?id=")]
    Query,
}

const SCHEME: &str = "bmq://";
const TIER_MARK: &str = ".~";
const APP_MARK: &str = "?id=";

fn check_part(text: &str, from: usize, to: usize, punctuation: &str) -> Result<(), UriError> {
    if from == to {
        return Err(UriError { offset: from, fault: UriFault::Empty });
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || punctuation.contains(c);
    match text[from..to].find(|c| !allowed(c)) {
        Some(at) => Err(UriError { offset: from + at, fault: UriFault::Character }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(text: &str) -> (usize, UriFault) {
        let error = QueueUri::parse(text).unwrap_err();
        (error.offset, error.fault)
    }

    #[test]
    fn parts_are_found() {
        let uri = QueueUri::parse("bmq://bmq.test.mem.fanout/q1?id=foo").unwrap();
        assert_eq!(uri.domain(), "bmq.test.mem.fanout");
        assert_eq!(uri.tier(), None);
        assert_eq!(uri.queue(), "q1");
        assert_eq!(uri.app_id(), Some("foo"));
        assert_eq!(uri.to_canonical(), "bmq://bmq.test.mem.fanout/q1".parse().unwrap());
        assert_eq!(uri.to_canonical().app_id(), None);
        let tiered = QueueUri::parse("bmq://a.b.~lcl-1/Q_.-9").unwrap();
        assert_eq!((tiered.domain(), tiered.tier()), ("a.b", Some("lcl-1")));
        assert_eq!(tiered.qualified_domain(), "a.b.~lcl-1");
        assert_eq!(tiered.queue(), "Q_.-9");
        assert_eq!(tiered.to_string(), tiered.canonical());
    }

    #[test]
    fn faults_are_named() {
        assert_eq!(fault(""), (0, UriFault::Scheme));
        assert_eq!(fault("BMQ://d/q"), (0, UriFault::Scheme));
        assert_eq!(fault("bmq://d"), (7, UriFault::NoQueue));
        assert_eq!(fault("bmq://d/"), (8, UriFault::NoQueue));
        assert_eq!(fault("bmq:///q"), (6, UriFault::NoDomain));
        assert_eq!(fault("bmq://.~t/q"), (6, UriFault::NoDomain));
        assert_eq!(fault("bmq://d.~/q"), (9, UriFault::Empty));
        assert_eq!(fault("bmq://d.~a_b/q"), (10, UriFault::Character));
        assert_eq!(fault("bmq://d~t/q"), (7, UriFault::Character));
        assert_eq!(fault("bmq://d/q/r"), (9, UriFault::Character));
        assert_eq!(fault("bmq://d/q~"), (9, UriFault::Character));
        assert_eq!(fault("bmq://d/qé"), (9, UriFault::Character));
        assert_eq!(fault("bmq://d/q?"), (9, UriFault::Query));
        assert_eq!(fault("bmq://d/q?x=1"), (9, UriFault::Query));
        assert_eq!(fault("bmq://d/q?id="), (13, UriFault::Empty));
        assert_eq!(fault("bmq://d/q?id=a&b=c"), (14, UriFault::Character));
    }

    #[test]
    fn a_queue_name_has_at_most_64_characters() {
        let uri = |len| format!("bmq://d/{}", "q".repeat(len));
        assert!(QueueUri::parse(&uri(64)).is_ok());
        assert_eq!(fault(&uri(65)), (72, UriFault::QueueTooLong));
    }
}
