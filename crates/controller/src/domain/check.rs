//! Rules for the values of a definition, for its changes, and what this version serves.

use super::document::{Limits, Mode, StorageKind, Subscription};
use super::name::{check_app_id, check_domain_name};
use super::{DomainDefinition, DomainError, FieldProblem};
use std::collections::BTreeSet;
use thiserror::Error;

/// Deliveries are counted in six bits on the wire (docs: semantics, section 9).
const MAX_DELIVERY_ATTEMPTS: u32 = 63;
/// Longest text of a subscription, in bytes (docs: semantics, section 10.1).
const MAX_EXPRESSION_BYTES: usize = 128;
/// Most apps of one fanout domain.
const MAX_APPS: usize = 1_000;
/// Longest memory for message ids: an hour.
const MAX_DEDUPLICATION_MS: u32 = 3_600_000;
/// Longest life of a message: a hundred years.
const MAX_TTL_SECONDS: u64 = 100 * 365 * 24 * 3600;

/// A definition that is well-formed and that this version does not serve.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{field}: {what} is not served yet; {instead} domain={domain:?}")]
pub struct NotServedYet {
    /// Name of the domain.
    pub domain: String,
    /// Path of the field.
    pub field: &'static str,
    /// What is not served.
    pub what: &'static str,
    /// What to do.
    pub instead: &'static str,
}

/// A change that a living domain cannot make.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "{field}: cannot change while the domain exists; delete and create it, or keep the value \
     is={is} wanted={wanted}"
)]
pub struct UpdateRefused {
    /// Path of the field.
    pub field: &'static str,
    /// Its value now.
    pub is: String,
    /// Its value in the new definition.
    pub wanted: String,
}

pub(super) fn check_supported(definition: &DomainDefinition) -> Result<(), NotServedYet> {
    let refuse = |field, what, instead| {
        Err(NotServedYet { domain: definition.name.clone(), field, what, instead })
    };
    let use_priority = "use {\"priority\": {}}";
    match definition.mode {
        Mode::Priority => {}
        Mode::Fanout { .. } => return refuse("mode", "fanout", use_priority),
        Mode::Broadcast => return refuse("mode", "broadcast", use_priority),
    }
    if definition.storage.config == StorageKind::InMemory {
        return refuse("storage.config", "inMemory storage", "use {\"fileBacked\": {}}");
    }
    if !definition.subscriptions.is_empty() {
        return refuse("subscriptions", "filtering by application", "remove the field");
    }
    Ok(())
}

pub(super) fn check_update(
    now: &DomainDefinition,
    next: &DomainDefinition,
) -> Result<(), UpdateRefused> {
    let (now_kind, next_kind) = (now.storage.config.as_str(), next.storage.config.as_str());
    let fixed = [
        ("name", now.name.as_str(), next.name.as_str()),
        ("mode", now.mode.as_str(), next.mode.as_str()),
        ("storage.config", now_kind, next_kind),
    ];
    match fixed.into_iter().find(|(_, is, wanted)| is != wanted) {
        None => Ok(()),
        Some((field, is, wanted)) => {
            Err(UpdateRefused { field, is: is.to_owned(), wanted: wanted.to_owned() })
        }
    }
}

pub(super) fn validate(definition: &DomainDefinition) -> Result<(), DomainError> {
    let mut found = Vec::new();
    let mut require = |holds: bool, path: &str, text: &dyn Fn() -> String| {
        if !holds {
            found.push(FieldProblem { path: path.to_owned(), text: text() });
        }
    };
    if let Err(error) = check_domain_name(&definition.name) {
        require(false, "name", &|| error.to_string());
    }
    let ttl = definition.message_ttl;
    require((1..=MAX_TTL_SECONDS).contains(&ttl), "messageTtl", &|| {
        format!("allowed is 1 to {MAX_TTL_SECONDS} seconds value={ttl}")
    });
    let attempts = definition.max_delivery_attempts;
    require(attempts <= MAX_DELIVERY_ATTEMPTS, "maxDeliveryAttempts", &|| {
        format!("allowed is 1 to {MAX_DELIVERY_ATTEMPTS}, or 0 for any number value={attempts}")
    });
    let window = definition.deduplication_time_ms;
    require(window <= MAX_DEDUPLICATION_MS, "deduplicationTimeMs", &|| {
        format!("allowed is 0 to {MAX_DEDUPLICATION_MS} milliseconds value={window}")
    });
    check_limits("storage.domainLimits", &definition.storage.domain_limits, &mut found);
    check_limits("storage.queueLimits", &definition.storage.queue_limits, &mut found);
    check_apps(&definition.mode, &mut found);
    check_subscriptions(&definition.mode, &definition.subscriptions, &mut found);
    if found.is_empty() { Ok(()) } else { Err(DomainError::Values(found)) }
}

fn check_limits(path: &str, limits: &Limits, found: &mut Vec<FieldProblem>) {
    for (field, value) in [("messages", limits.messages), ("bytes", limits.bytes)] {
        // BlazingMQ's own fields are signed: what it could not read back is refused here too.
        if value == 0 || value > i64::MAX as u64 {
            let text = format!("allowed is 1 to {} value={value}", i64::MAX);
            found.push(FieldProblem { path: format!("{path}.{field}"), text });
        }
    }
    let ratios = [
        ("messagesWatermarkRatio", limits.messages_watermark_ratio),
        ("bytesWatermarkRatio", limits.bytes_watermark_ratio),
    ];
    for (field, value) in ratios {
        if !(0.0..=1.0).contains(&value) {
            let text = format!("allowed is 0 to 1 value={value}");
            found.push(FieldProblem { path: format!("{path}.{field}"), text });
        }
    }
}

fn check_apps(mode: &Mode, found: &mut Vec<FieldProblem>) {
    let Mode::Fanout { app_ids, .. } = mode else { return };
    if app_ids.len() > MAX_APPS {
        let text = format!("at most {MAX_APPS} apps are allowed count={}", app_ids.len());
        found.push(FieldProblem { path: "mode.fanout.appIDs".to_owned(), text });
        return;
    }
    let mut seen = BTreeSet::new();
    for (index, id) in app_ids.iter().enumerate() {
        let path = format!("mode.fanout.appIDs[{index}]");
        if let Err(error) = check_app_id(id) {
            found.push(FieldProblem { path, text: error.to_string() });
        } else if !seen.insert(id) {
            let text = format!("this app is in the list already value={id:?}");
            found.push(FieldProblem { path, text });
        }
    }
}

fn check_subscriptions(mode: &Mode, list: &[Subscription], found: &mut Vec<FieldProblem>) {
    let mut seen = BTreeSet::new();
    for (index, subscription) in list.iter().enumerate() {
        let mut add = |field: &str, text: String| {
            found.push(FieldProblem { path: format!("subscriptions[{index}].{field}"), text });
        };
        let app = &subscription.app_id;
        match mode {
            Mode::Fanout { app_ids, .. } if !app_ids.contains(app) => {
                add("appId", format!("name one of mode.fanout.appIDs value={app:?}"));
            }
            Mode::Priority | Mode::Broadcast if !app.is_empty() => {
                let text = "only fanout domains have apps; leave it empty";
                add("appId", format!("{text} value={app:?}"));
            }
            _ if !seen.insert(app) => {
                let text = "this app has a subscription already; join the two with ||";
                add("appId", format!("{text} value={app:?}"));
            }
            _ => {}
        }
        let expression = &subscription.expression;
        if expression.version != "E_VERSION_1" {
            let version = &expression.version;
            add("expression.version", format!("allowed is \"E_VERSION_1\" value={version:?}"));
        }
        let length = expression.text.len();
        if length == 0 || length > MAX_EXPRESSION_BYTES {
            let text = format!("allowed are 1 to {MAX_EXPRESSION_BYTES} bytes length={length}");
            add("expression.text", text);
        }
    }
}
