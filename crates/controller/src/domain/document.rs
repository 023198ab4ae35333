//! The shape of the JSON document, with BlazingMQ's field names and defaults (docs: semantics,
//! section 2.2).

use super::wording::reworded;
use super::{DomainDefinition, DomainError, FieldProblem, MAX_DOCUMENT_BYTES};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

/// Who gets a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "ModeChoice", into = "ModeChoice")]
pub enum Mode {
    /// One consumer, of those with the highest priority.
    Priority,
    /// One consumer of each app.
    Fanout {
        /// The apps; each gets every message.
        app_ids: Vec<String>,
        /// Whether each app has metrics of its own.
        publish_app_id_metrics: bool,
    },
    /// Every consumer that is there at the moment; nothing is kept.
    Broadcast,
}

impl Mode {
    /// The name of the mode in documents.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Priority => "priority",
            Self::Fanout { .. } => "fanout",
            Self::Broadcast => "broadcast",
        }
    }
}

/// Where messages are kept, and how many.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Storage {
    /// The kind of storage. Fixed when the domain is created.
    pub config: StorageKind,
    /// Bounds on all queues of the domain together.
    pub domain_limits: Limits,
    /// Bounds on each queue.
    pub queue_limits: Limits,
}

/// The kind of storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "StorageChoice", into = "StorageChoice")]
pub enum StorageKind {
    /// In the replicated log on disk.
    FileBacked,
    /// In memory only: gone with the process.
    InMemory,
}

impl StorageKind {
    /// The name of the kind in documents.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::FileBacked => "fileBacked",
            Self::InMemory => "inMemory",
        }
    }
}

/// How much may wait. A message is taken while what waits already is not above the limits (so one
/// more than `messages` fits).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Limits {
    /// Messages, at least 1. Counted once however many apps wait for it.
    pub messages: u64,
    /// Bytes of payload and properties as stored, at least 1.
    pub bytes: u64,
    /// Share of `messages` from which the queue counts as nearly full, 0 to 1.
    #[serde(default = "default_watermark")]
    pub messages_watermark_ratio: f64,
    /// Share of `bytes` from which the queue counts as nearly full, 0 to 1.
    #[serde(default = "default_watermark")]
    pub bytes_watermark_ratio: f64,
}

impl Limits {
    /// Limits with the usual watermarks of 0.8.
    pub fn new(messages: u64, bytes: u64) -> Self {
        let watermark = default_watermark();
        let (messages_watermark_ratio, bytes_watermark_ratio) = (watermark, watermark);
        Self { messages, bytes, messages_watermark_ratio, bytes_watermark_ratio }
    }
}

/// What an acknowledgement waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "ConsistencyChoice", into = "ConsistencyChoice")]
pub enum Consistency {
    /// A majority of the replicas has the message.
    #[default]
    Strong,
    /// The leader has the message.
    Eventual,
}

impl Consistency {
    /// The name of the choice in documents.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Strong => "strong",
            Self::Eventual => "eventual",
        }
    }
}

/// An application subscription: what an app wants at all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Subscription {
    /// The app; empty except in fanout mode.
    pub app_id: String,
    /// What the app wants.
    pub expression: SubscriptionExpression,
}

/// The condition of a subscription.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SubscriptionExpression {
    /// The language; `E_VERSION_1` is the only one.
    pub version: String,
    /// The condition, at most 128 bytes.
    pub text: String,
}

pub(super) fn default_deduplication_time() -> u32 {
    300_000
}

fn default_watermark() -> f64 {
    0.8
}

/// A field that is accepted with any value and has no effect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Ignored;

impl<'de> Deserialize<'de> for Ignored {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        serde::de::IgnoredAny::deserialize(deserializer).map(|_| Self)
    }
}

pub(super) fn read(text: &str, name: Option<&str>) -> Result<DomainDefinition, DomainError> {
    if text.len() > MAX_DOCUMENT_BYTES {
        return Err(DomainError::TooLong(text.len()));
    }
    let value: Value =
        serde_json::from_str(text).map_err(|error| DomainError::NotJson(error.to_string()))?;
    let (mut parameters, prefix) = unwrapped(value)?;
    if let (Some(name), Value::Object(fields)) = (name, &mut parameters) {
        fields.entry("name").or_insert_with(|| Value::String(name.to_owned()));
    }
    let mut definition: DomainDefinition =
        serde_path_to_error::deserialize(parameters).map_err(|error| {
            let path = error.path().to_string();
            shape(prefix, &path, &error.into_inner().to_string())
        })?;
    if name.is_some_and(|name| name != definition.name) {
        let text = format!(
            "the document is for another domain; correct one of the two value={:?} expected={:?}",
            definition.name,
            name.unwrap_or_default()
        );
        return Err(DomainError::Values(vec![FieldProblem { path: "name".to_owned(), text }]));
    }
    if definition.mode == Mode::Broadcast {
        // There is nothing to replicate. BlazingMQ corrects this in the same way.
        definition.consistency = Consistency::Eventual;
    }
    definition.validate()?;
    Ok(definition)
}

/// The definition inside BlazingMQ's wrapper, and the path that leads to it.
fn unwrapped(mut value: Value) -> Result<(Value, &'static str), DomainError> {
    let Value::Object(outer) = &mut value else {
        let problem = FieldProblem {
            path: "document".to_owned(),
            text: "a domain definition is a JSON object".to_owned(),
        };
        return Err(DomainError::Shape(problem));
    };
    if let Some(target) = outer.get("redirect") {
        return Err(DomainError::Redirect(target.as_str().unwrap_or_default().to_owned()));
    }
    if !outer.contains_key("definition") {
        return Ok((value, ""));
    }
    let wrapper: Wrapper = serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        shape("", &path, &error.into_inner().to_string())
    })?;
    Ok((wrapper.definition.parameters, "definition.parameters"))
}

fn shape(prefix: &str, path: &str, message: &str) -> DomainError {
    let path = match (prefix, path) {
        ("", ".") => "document".to_owned(),
        ("", path) => path.to_owned(),
        (prefix, ".") => prefix.to_owned(),
        (prefix, path) => format!("{prefix}.{path}"),
    };
    let text = if message.starts_with("invalid value: map, expected map with a single key") {
        "exactly one choice is allowed here".to_owned()
    } else {
        reworded(message, "field")
    };
    DomainError::Shape(FieldProblem { path, text })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wrapper {
    definition: WrappedDefinition,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrappedDefinition {
    #[serde(default, rename = "location")]
    _location: Ignored,
    parameters: Value,
}

// BlazingMQ writes a choice as an object with one member, also where the choice has no parameters.

#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
enum ModeChoice {
    Priority {},
    Fanout {
        #[serde(rename = "appIDs")]
        app_ids: Vec<String>,
        #[serde(rename = "publishAppIdMetrics", default = "default_true")]
        publish_app_id_metrics: bool,
    },
    Broadcast {},
}

fn default_true() -> bool {
    true
}

impl From<ModeChoice> for Mode {
    fn from(choice: ModeChoice) -> Self {
        match choice {
            ModeChoice::Priority {} => Self::Priority,
            ModeChoice::Fanout { app_ids, publish_app_id_metrics } => {
                Self::Fanout { app_ids, publish_app_id_metrics }
            }
            ModeChoice::Broadcast {} => Self::Broadcast,
        }
    }
}

impl From<Mode> for ModeChoice {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Priority => Self::Priority {},
            Mode::Fanout { app_ids, publish_app_id_metrics } => {
                Self::Fanout { app_ids, publish_app_id_metrics }
            }
            Mode::Broadcast => Self::Broadcast {},
        }
    }
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
enum StorageChoice {
    InMemory {},
    FileBacked {},
}

impl From<StorageChoice> for StorageKind {
    fn from(choice: StorageChoice) -> Self {
        match choice {
            StorageChoice::InMemory {} => Self::InMemory,
            StorageChoice::FileBacked {} => Self::FileBacked,
        }
    }
}

impl From<StorageKind> for StorageChoice {
    fn from(kind: StorageKind) -> Self {
        match kind {
            StorageKind::InMemory => Self::InMemory {},
            StorageKind::FileBacked => Self::FileBacked {},
        }
    }
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
enum ConsistencyChoice {
    Eventual {},
    Strong {},
}

impl From<ConsistencyChoice> for Consistency {
    fn from(choice: ConsistencyChoice) -> Self {
        match choice {
            ConsistencyChoice::Eventual {} => Self::Eventual,
            ConsistencyChoice::Strong {} => Self::Strong,
        }
    }
}

impl From<Consistency> for ConsistencyChoice {
    fn from(consistency: Consistency) -> Self {
        match consistency {
            Consistency::Eventual => Self::Eventual {},
            Consistency::Strong => Self::Strong {},
        }
    }
}
