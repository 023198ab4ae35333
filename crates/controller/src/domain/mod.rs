//! Domain definitions: the policy that all queues of a domain share.
//!
//! A definition is a JSON document with BlazingMQ's field names, bare or in the wrapper of
//! BlazingMQ's own domain files. Unknown fields and impossible values are refused with their path.
//! Modes and storages that this version does not serve parse, so that a document can be checked
//! before it is needed; [`DomainDefinition::check_supported`] tells.
//!
//! ```
//! use flintmq_controller::domain::{DomainDefinition, Mode};
//!
//! let mut orders = DomainDefinition::default_template("shop.orders")?;
//! orders.max_delivery_attempts = 5;
//! let text = orders.to_json();
//! let again = DomainDefinition::from_json(&text)?;
//! assert_eq!(again, orders);
//! assert_eq!(again.mode, Mode::Priority);
//! assert!(again.check_supported().is_ok());
//!
//! let error = DomainDefinition::from_json(&text.replace("maxQueues", "maxQeues")).unwrap_err();
//! assert!(error.to_string().starts_with("maxQeues: unknown field"), "{error}");
//! # Ok::<(), flintmq_controller::domain::DomainError>(())
//! ```

mod check;
mod document;
mod name;
#[cfg(test)]
mod tests;
pub mod wording;

pub use check::{NotServedYet, UpdateRefused};
pub use document::{
    Consistency, Limits, Mode, Storage, StorageKind, Subscription, SubscriptionExpression,
};
pub use name::{NameError, check_app_id, check_domain_name};

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Longest document that is read, in bytes. The longest legitimate part is a list of app ids.
pub const MAX_DOCUMENT_BYTES: usize = 1 << 20;

/// The policy of a domain. A queue inherits all of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DomainDefinition {
    /// Qualified name: the domain with its tier, as it stands in queue URIs.
    pub name: String,
    /// Who gets a message. Fixed when the domain is created.
    pub mode: Mode,
    /// Where messages are kept, and how many.
    pub storage: Storage,
    /// Readers per queue and app; 0 is any number.
    #[serde(default)]
    pub max_consumers: u32,
    /// Writers per queue; 0 is any number.
    #[serde(default)]
    pub max_producers: u32,
    /// Queues in the domain; 0 is any number (up to the node's own limit).
    #[serde(default)]
    pub max_queues: u32,
    /// Seconds that an app may have an undelivered message before an alarm says that it is stuck; 0
    /// is never. No effect on delivery.
    #[serde(default)]
    pub max_idle_time: u32,
    /// Seconds a message is kept for at least; some time after, it is dropped even if nobody
    /// confirmed it.
    pub message_ttl: u64,
    /// Deliveries of one message to consumers that died without confirming it, after which it is
    /// dropped; 0 is any number, the largest other value is 63.
    #[serde(default)]
    pub max_delivery_attempts: u32,
    /// Milliseconds for which a message's id is remembered, so that a repeated publish is not
    /// stored twice.
    #[serde(default = "document::default_deduplication_time")]
    pub deduplication_time_ms: u32,
    /// What an acknowledgement waits for.
    #[serde(default)]
    pub consistency: Consistency,
    /// Application subscriptions: filters applied once, when a message is published.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subscriptions: Vec<Subscription>,
    /// Accepted for the sake of old BlazingMQ files and ignored, as BlazingMQ does.
    #[serde(default, rename = "msgGroupIdConfig", skip_serializing)]
    _message_groups: document::Ignored,
}

impl DomainDefinition {
    /// The definition that a domain gets when a client opens a queue of it and nobody has defined
    /// it: priority, file-backed, strong; 10 million messages or 10 GiB per queue, five times that
    /// per domain, 10,000 queues; a week to live.
    ///
    /// # Errors
    /// [`DomainError::Values`] when the name breaks [`check_domain_name`].
    pub fn default_template(name: &str) -> Result<Self, DomainError> {
        const GIB: u64 = 1 << 30;
        let definition = Self {
            name: name.to_owned(),
            mode: Mode::Priority,
            storage: Storage {
                config: StorageKind::FileBacked,
                domain_limits: Limits::new(50_000_000, 50 * GIB),
                queue_limits: Limits::new(10_000_000, 10 * GIB),
            },
            max_consumers: 0,
            max_producers: 0,
            max_queues: 10_000,
            max_idle_time: 0,
            message_ttl: 7 * 24 * 3600,
            max_delivery_attempts: 0,
            deduplication_time_ms: document::default_deduplication_time(),
            consistency: Consistency::Strong,
            subscriptions: Vec::new(),
            _message_groups: document::Ignored,
        };
        definition.validate()?;
        Ok(definition)
    }

    /// Reads a document: the definition itself, or BlazingMQ's `{"definition": {"location": …,
    /// "parameters": …}}` (the location is ignored). The result is valid.
    ///
    /// # Errors
    /// [`DomainError`] with the path of what is wrong and what is allowed.
    pub fn from_json(text: &str) -> Result<Self, DomainError> {
        document::read(text, None)
    }

    /// As [`from_json`](Self::from_json) for a document whose place (a URL, a file name) says the
    /// domain's name: `name` may then be absent from the document, and must be the same if it is
    /// there.
    ///
    /// # Errors
    /// [`DomainError`], also for a different name.
    pub fn from_json_named(name: &str, text: &str) -> Result<Self, DomainError> {
        document::read(text, Some(name))
    }

    /// The document, indented, with every field that has a meaning.
    pub fn to_json(&self) -> String {
        // Maps with string keys and finite numbers (`validate` sees to that) always serialise.
        serde_json::to_string_pretty(self).unwrap_or_default()
    }

    /// Checks everything that types cannot.
    ///
    /// # Errors
    /// [`DomainError::Values`] with all problems.
    pub fn validate(&self) -> Result<(), DomainError> {
        check::validate(self)
    }

    /// Whether this version serves such a domain. For now: priority mode, file-backed storage, no
    /// application subscriptions.
    ///
    /// # Errors
    /// [`NotServedYet`] names the field.
    pub fn check_supported(&self) -> Result<(), NotServedYet> {
        check::check_supported(self)
    }

    /// Whether a living domain may change from `self` to `next`. Name, mode and storage are fixed
    /// for life; the list of apps and everything else may change.
    ///
    /// # Errors
    /// [`UpdateRefused`] names the field and both values.
    pub fn check_update(&self, next: &Self) -> Result<(), UpdateRefused> {
        check::check_update(self, next)
    }
}

/// A field that is wrong, by its path in the document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldProblem {
    /// Such as `storage.queueLimits.messages`.
    pub path: String,
    /// What is wrong and what is allowed, the value last.
    pub text: String,
}

impl std::fmt::Display for FieldProblem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.path, self.text)
    }
}

/// Why a document defines no domain.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DomainError {
    /// Longer than any definition.
    #[error(
        "a domain definition has at most {MAX_DOCUMENT_BYTES} bytes; this is another kind of file \
         bytes={0}"
    )]
    TooLong(usize),
    /// Not JSON; with line and column.
    #[error("not a JSON document: {0}")]
    NotJson(String),
    /// BlazingMQ's redirection of one domain to another.
    #[error(
        "redirect: domains that redirect to another are not served yet; define the domain itself \
         to={0:?}"
    )]
    Redirect(String),
    /// An unknown or missing field, or a value of the wrong type.
    #[error("{0}")]
    Shape(FieldProblem),
    /// Values that cannot be; one line each.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Values(Vec<FieldProblem>),
}
